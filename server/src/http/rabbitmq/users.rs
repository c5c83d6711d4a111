//! Users.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use data_encoding::BASE64;
use inver_access::{Credential, Digest, SaltPosition, Tag, User};
use inver_broker::Completion;
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::request::{Names, Object, Params, durable, found, put_status, work};
use super::vhosts::check_administrator;
use crate::http::App;
use crate::http::api::expressions;
use crate::http::api::users::{Change, change_user, delete_user};
use crate::http::auth::Caller;

/// The hash function of password hashes that do not name theirs.
const DEFAULT_ALGORITHM: &str = "rabbit_password_hashing_sha256";

/// A user. The hash is shown where it has RabbitMQ's form.
pub(super) fn shown(user: &User) -> Value {
    let hash = user.credentials.iter().find_map(|credential| match credential {
        Credential::Salted { digest, position: SaltPosition::Before, salt, hash } if salt.len() == 4 => {
            Some((*digest, BASE64.encode(&[salt.as_slice(), hash].concat())))
        }
        _ => None,
    });
    let (digest, hash) = hash.unwrap_or((Digest::Sha256, String::new()));
    json!({
        "name": user.name,
        "password_hash": hash,
        "hashing_algorithm": format!("rabbit_password_hashing_{}", digest.name()),
        "tags": user.tags.iter().map(Tag::name).collect::<Vec<_>>(),
        "limits": limits(user),
    })
}

/// The limits of a user, by RabbitMQ's names.
pub(super) fn limits(user: &User) -> Value {
    let named =
        [("max-connections", user.limits.connections_max), ("max-channels", user.limits.channels_max)];
    let set = named.into_iter().filter_map(|(name, max)| Some((name.to_owned(), json!(max?))));
    Value::Object(set.collect::<Map<_, _>>())
}

/// All users.
pub(super) fn all(app: &App) -> Vec<User> {
    app.broker.access().users().into_iter().map(|(user, _)| user.as_ref().clone()).collect()
}

pub(super) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    let query = ListQuery::of(&params)?;
    work(&app, move |app| query.answer(all(app), |user| user.name.clone(), shown)).await
}

/// The users without a permission of RabbitMQ's form.
pub(super) async fn without_permissions(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let permissions = expressions::all(&app.broker);
        let has_none = |user: &User| !permissions.iter().any(|one| one.user == user.name);
        query.answer(all(app).into_iter().filter(has_none).collect(), |user| user.name.clone(), shown)
    })
    .await
}

pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
) -> Result<Json<Value>, Fault> {
    check_administrator(&caller)?;
    work(&app, move |app| found(app.broker.access().user(&name).map(|(user, _)| shown(&user)))).await
}

/// Creates a user, or replaces its tags and its password. Without either form of a password it cannot log in with one.
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
    body: Object,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    let change = change(&body)?;
    durable(&app, move |app| {
        let (created, _, completion) = change_user(app, &caller, &name, &change)?;
        Ok((put_status(created), completion))
    })
    .await
}

/// The tags and the password of a user, as a body has them.
pub(super) fn change(body: &Object) -> Result<Change, Fault> {
    let tags = body.texts("tags")?.ok_or_else(|| Fault::bad_request("tags_not_present"))?;
    let password = body.text("password")?.filter(|password| !password.is_empty());
    let hash = body.text("password_hash")?.filter(|hash| !hash.is_empty());
    let hashes = match (password, hash) {
        (Some(_), Some(_)) => {
            return Err(Fault::bad_request("both_password_and_password_hash_are_provided"));
        }
        (Some(_), None) => None,
        (None, hash) => {
            let algorithm = body.text("hashing_algorithm")?.unwrap_or(DEFAULT_ALGORITHM);
            Some(hash.iter().map(|hash| format!("{algorithm}:{hash}")).collect())
        }
    };
    Ok(Change {
        password: password.map(str::to_owned),
        password_hashes: hashes,
        tags: Some(tags),
        ..Change::default()
    })
}

pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<String>,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    durable(&app, move |app| Ok((StatusCode::NO_CONTENT, delete_user(app, &caller, &name)?))).await
}

/// Deletes the users of a list; those that are not there are no error.
pub(super) async fn bulk_delete(
    State(app): State<App>,
    caller: Caller,
    body: Object,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    body.needs(&["users"])?;
    let names = body.texts("users")?.unwrap_or_default();
    durable(&app, move |app| {
        let mut completion = Completion::Now;
        for name in names.iter().filter(|name| app.broker.access().user(name).is_some()) {
            completion = completion.and(delete_user(app, &caller, name)?);
        }
        Ok((StatusCode::NO_CONTENT, completion))
    })
    .await
}
