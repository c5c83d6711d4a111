//! Users of the broker.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Credential, Tag, User};
use inver_broker::{AccessControl, AuditKind, Completion, Facts, Order, Source, Value as Argument};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{answer, blocking, deleted, durable, put_status};
use crate::http::App;
use crate::http::auth::{Caller, tokens};
use crate::http::list::{ByName, Column, Indexed, ListQuery, Page};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name};
use crate::passwords;

/// Credentials of one user; a wrong password is checked against each.
const CREDENTIALS_MAX: usize = 16;
/// Bytes of a new password.
const PASSWORD_BYTES_MAX: usize = 1024;

/// A user, without its secrets.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = User)]
pub(in crate::http) struct Shown {
    name: String,
    /// Whether it may not log in.
    disabled: bool,
    tags: Vec<String>,
    /// The namespace of connections that name none; none: `/`.
    namespace: Option<String>,
    /// The kinds of its credentials.
    credentials: Vec<String>,
    /// Connections at the same time; none: no limit of its own.
    connections_max: Option<u32>,
    /// Channels at the same time, of all its connections; none: no limit of its own.
    channels_max: Option<u32>,
    /// `stored`, or `configuration`: read-only.
    source: String,
}

impl Shown {
    fn of(user: &User, source: Source) -> Shown {
        Shown {
            name: user.name.clone(),
            disabled: user.disabled,
            tags: user.tags.iter().map(|tag| tag.name().to_owned()).collect(),
            namespace: user.default_namespace.clone(),
            credentials: user.credentials.iter().map(Credential::kind).collect(),
            connections_max: user.limits.connections_max,
            channels_max: user.limits.channels_max,
            source: super::permissions::source(source).to_owned(),
        }
    }
}

/// What to set of a user; what is left out stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Change {
    /// A password, in place of all credentials.
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    pub(in crate::http) password: Option<String>,
    /// Hashes of passwords in any form that the configuration takes, in place of all credentials; an empty list takes the
    /// possibility to log in with a password away.
    #[schema(nullable = false, max_items = 16)]
    pub(in crate::http) password_hashes: Option<Vec<String>>,
    #[schema(nullable = false)]
    pub(in crate::http) tags: Option<Vec<String>>,
    /// The namespace of connections that name none; empty: `/`.
    #[schema(nullable = false)]
    pub(in crate::http) namespace: Option<String>,
    #[schema(nullable = false)]
    pub(in crate::http) disabled: Option<bool>,
    /// 0: no limit of its own.
    #[schema(nullable = false)]
    pub(in crate::http) connections_max: Option<u32>,
    /// 0: no limit of its own.
    #[schema(nullable = false)]
    pub(in crate::http) channels_max: Option<u32>,
}

impl Change {
    /// New credentials, if they are to change.
    fn credentials(&self) -> Result<Option<Vec<Credential>>, Problem> {
        match (&self.password, &self.password_hashes) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Problem::bad_request("either `password` or `password_hashes`")),
            (Some(password), None) => {
                if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
                    let what = format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes");
                    return Err(Problem::bad_request(what));
                }
                let texts = passwords::hashes(password.as_bytes(), true)
                    .map_err(|error| Problem::internal(error.to_string()))?;
                Ok(Some(texts.iter().filter_map(|text| passwords::parse(text).ok()).collect()))
            }
            (None, Some(hashes)) if hashes.len() > CREDENTIALS_MAX => {
                Err(Problem::bad_request(format!("a user has at most {CREDENTIALS_MAX} credentials")))
            }
            (None, Some(hashes)) => {
                let parsed: Result<Vec<_>, _> = hashes.iter().map(|hash| passwords::parse(hash)).collect();
                parsed.map(Some).map_err(|error| Problem::bad_request(format!("password_hashes: {error}")))
            }
        }
    }

    fn apply(&self, credentials: Option<&Vec<Credential>>, user: &mut User) {
        if let Some(credentials) = credentials {
            user.credentials.clone_from(credentials);
        }
        if let Some(tags) = &self.tags {
            user.tags = tags.iter().filter(|tag| !tag.is_empty()).map(|tag| Tag::named(tag)).collect();
        }
        if let Some(namespace) = &self.namespace {
            user.default_namespace = Some(namespace.clone()).filter(|name| !name.is_empty());
        }
        user.disabled = self.disabled.unwrap_or(user.disabled);
        let limit = |wanted: Option<u32>, now| wanted.map_or(now, |max| Some(max).filter(|max| *max > 0));
        user.limits.connections_max = limit(self.connections_max, user.limits.connections_max);
        user.limits.channels_max = limit(self.channels_max, user.limits.channels_max);
    }
}

/// The users of the broker.
struct Users(AccessControl);

impl Indexed for Users {
    type Object = (Arc<User>, Source);

    fn count(&self) -> u64 {
        self.0.user_count() as u64
    }

    fn following(
        &self,
        order: Order,
        after: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<User>, Source)> {
        match order {
            Order::Ascending => self.0.users_following(after, skip, max),
            Order::Descending => self.0.users_preceding(after, skip, max),
        }
    }

    fn name<'a>(&self, (user, _): &'a (Arc<User>, Source)) -> &'a str {
        &user.name
    }

    fn columns(&self) -> &'static [Column<(Arc<User>, Source)>] {
        &[]
    }

    fn id(&self) -> String {
        "users".to_owned()
    }
}

/// Lists the users.
#[utoipa::path(get, path = "/users", tag = "access", params(ListQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let users = ByName(Users(app.broker.access().clone()));
        query.page(app, users, |(user, source)| Shown::of(user, *source))
    })
    .await
}

/// A user.
#[utoipa::path(get, path = "/users/{name}", tag = "access",
    params(("name" = String, Path, description = "The user's name")),
    responses((status = 200, body = Shown)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Shown>, Problem> {
    caller.check_sees_all()?;
    answer(&app, move |app| {
        let (user, source) = app.broker.access().user(&name).ok_or_else(|| unknown(&name))?;
        Ok(Shown::of(&user, source))
    })
    .await
}

/// Creates a user, or changes what the body has of a stored one.
#[utoipa::path(put, path = "/users/{name}", tag = "access", request_body = Change,
    params(("name" = String, Path, description = "The user's name")),
    responses((status = 200, body = Shown, description = "Changed"),
        (status = 201, body = Shown, description = "Created")))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    caller.check_administers()?;
    durable(&app, move |app| {
        let (created, user, completion) = change_user(app, &caller, &name, &change)?;
        Ok(((put_status(created), Json(Shown::of(&user, Source::Stored))), completion))
    })
    .await
}

/// Creates a user, or changes a stored one: whether it is new, what it is then, and when that is durable.
pub(in crate::http) fn change_user(
    app: &App,
    caller: &Caller,
    name: &str,
    change: &Change,
) -> Result<(bool, User, Completion), Problem> {
    let access = app.broker.access();
    let credentials = change.credentials()?;
    let _one_at_a_time = app.users.lock();
    let known = access.user(name);
    let mut user = known.as_ref().map_or_else(|| User::new(name), |(user, _)| user.as_ref().clone());
    let has_new_credentials = credentials.is_some();
    let administered = administers(&user);
    change.apply(credentials.as_ref(), &mut user);
    may_change(caller, name, administered || administers(&user))?;
    check_administrator(access, &user)?;
    let completion = match known {
        // Clients of other protocols may have changed it meanwhile.
        Some(_) => access.update_user(name, |now| {
            change.apply(credentials.as_ref(), now);
            user.clone_from(now);
        })?,
        None => access.put_user(user.clone())?,
    };
    if has_new_credentials {
        app.logins.end_of_user(name);
    }
    let operation = if known.is_some() { "alter" } else { "create" };
    caller.did(AuditKind::Access, operation, "user", name);
    tell_of_change(caller, known.is_none(), change, &user);
    Ok((known.is_none(), user, completion))
}

/// Deletes a stored user with its rules and tokens. Its connections are closed.
#[utoipa::path(delete, path = "/users/{name}", tag = "access",
    params(("name" = String, Path, description = "The user's name")),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    deleted(&app, move |app| delete_user(app, &caller, &name)).await
}

/// Deletes a stored user with its rules and tokens.
pub(in crate::http) fn delete_user(app: &App, caller: &Caller, name: &str) -> Result<Completion, Problem> {
    let access = app.broker.access();
    let _one_at_a_time = app.users.lock();
    let administered = access.user(name).is_some_and(|(user, _)| administers(&user));
    may_change(caller, name, administered)?;
    check_administrator(access, &User { disabled: true, ..User::new(name) })?;
    let completion = access.delete_user(name)?;
    let completion = completion.and(tokens::delete_of_user(app, name)?);
    app.logins.end_of_user(name);
    caller.did(AuditKind::Access, "delete", "user", name);
    caller.tell("user.deleted", || Facts::new([("name", name.into())]));
    Ok(completion)
}

/// Tells programs of a user that was created or changed.
fn tell_of_change(caller: &Caller, is_new: bool, change: &Change, user: &User) {
    let named = || Facts::new([("name", user.name.as_str().into())]);
    if is_new {
        caller.tell("user.created", named);
    } else if change.password.is_some() || change.password_hashes.is_some() {
        caller.tell("user.password.changed", named);
    }
    if is_new || change.tags.is_some() {
        caller.tell("user.tags.set", || {
            let tags = user.tags.iter().map(|tag| tag.name().into()).collect();
            Facts::new([("name", user.name.as_str().into()), ("tags", Argument::List(tags))])
        });
    }
}

fn administers(user: &User) -> bool {
    user.tags.contains(&Tag::Administrator)
}

/// Refuses a change of a user that a token does not allow.
fn may_change(caller: &Caller, name: &str, administers: bool) -> Result<(), Problem> {
    let allowed = caller.identity.check_changes_user(name, administers);
    allowed.map_err(|error| caller.refused("alter", &error.to_string()))
}

/// Refuses a change after which users exist, and none of them may administer the broker.
fn check_administrator(access: &AccessControl, changed: &User) -> Result<(), Problem> {
    let may_administer = |user: &User| !user.disabled && administers(user);
    let others = access.users();
    let mut others = others.iter().filter(|(user, _)| user.name != changed.name);
    let is_last = changed.disabled && changed.credentials.is_empty() && others.clone().next().is_none();
    if is_last || may_administer(changed) || others.any(|(user, _)| may_administer(user)) {
        return Ok(());
    }
    let what = "no user would be left with the tag `administrator` who may log in: give it to a user first";
    Err(Problem::conflict(what))
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no user `{name}`"))
}
