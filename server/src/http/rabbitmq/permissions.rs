//! Permissions and topic permissions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inver_access::dialect::rabbitmq::{Permission, TopicPermission};
use inver_broker::Broker;
use serde_json::{Value, json};

use super::error::Fault;
use super::list::ListQuery;
use super::request::{Names, Object, Params, durable, found, put_status, work};
use super::vhosts::check_administrator;
use crate::http::App;
use crate::http::api::expressions;
use crate::http::auth::Caller;

/// Refuses a virtual host or a user that is not there.
fn check_there(app: &App, vhost: Option<&str>, user: Option<&str>) -> Result<(), Fault> {
    let is_absent = vhost.is_some_and(|name| app.broker.namespace(name).is_none())
        || user.is_some_and(|name| app.broker.access().user(name).is_none());
    if is_absent { Err(Fault::not_found()) } else { Ok(()) }
}

/// A permission, or a topic permission, as it is listed.
pub(super) trait Listed: Send + Sized + 'static {
    fn all(broker: &Broker) -> Vec<Self>;
    fn vhost(&self) -> &str;
    fn user(&self) -> &str;
    fn shown(&self) -> Value;
}

impl Listed for Permission {
    fn all(broker: &Broker) -> Vec<Self> {
        expressions::all(broker)
    }

    fn vhost(&self) -> &str {
        &self.vhost
    }

    fn user(&self) -> &str {
        &self.user
    }

    fn shown(&self) -> Value {
        let Permission { user, vhost, configure, write, read } = self;
        json!({"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read})
    }
}

impl Listed for TopicPermission {
    fn all(broker: &Broker) -> Vec<Self> {
        expressions::all_of_topics(broker)
    }

    fn vhost(&self) -> &str {
        &self.vhost
    }

    fn user(&self) -> &str {
        &self.user
    }

    fn shown(&self) -> Value {
        let TopicPermission { user, vhost, exchange, write, read } = self;
        json!({"user": user, "vhost": vhost, "exchange": exchange, "write": write, "read": read})
    }
}

async fn listed<T: Listed>(
    app: App,
    caller: Caller,
    params: Params,
    vhost: Option<String>,
    user: Option<String>,
) -> Result<Response, Fault> {
    check_administrator(&caller)?;
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        check_there(app, vhost.as_deref(), user.as_deref())?;
        let mut all = T::all(&app.broker);
        all.retain(|one| {
            vhost.as_ref().is_none_or(|vhost| one.vhost() == vhost)
                && user.as_ref().is_none_or(|user| one.user() == user)
        });
        query.answer(all, |one| one.user().to_owned(), T::shown)
    })
    .await
}

pub(super) async fn list<T: Listed>(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Fault> {
    listed::<T>(app, caller, params, None, None).await
}

pub(super) async fn of_vhost<T: Listed>(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    listed::<T>(app, caller, params, Some(vhost), None).await
}

pub(super) async fn of_user<T: Listed>(
    State(app): State<App>,
    caller: Caller,
    Names(user): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    listed::<T>(app, caller, params, None, Some(user)).await
}

pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user)): Names<(String, String)>,
) -> Result<Json<Value>, Fault> {
    check_administrator(&caller)?;
    work(&app, move |app| {
        let all = expressions::all(&app.broker);
        found(all.iter().find(|one| one.user == user && one.vhost == vhost).map(Listed::shown))
    })
    .await
}

pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user)): Names<(String, String)>,
    body: Object,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    body.needs(&["configure", "write", "read"])?;
    let expression = |name: &str| Ok::<_, Fault>(body.text(name)?.unwrap_or_default().to_owned());
    let (configure, write, read) = (expression("configure")?, expression("write")?, expression("read")?);
    let permission = Permission { user, vhost, configure, write, read };
    durable(&app, move |app| {
        let Permission { user, vhost, .. } = &permission;
        check_there(app, Some(vhost), Some(user))
            .map_err(|_| Fault::bad_request("vhost_or_user_not_found"))?;
        let all = expressions::all(&app.broker);
        let is_new = !all.iter().any(|one| one.user == *user && one.vhost == *vhost);
        Ok((put_status(is_new), expressions::set(app, &caller, &permission)?))
    })
    .await
}

pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user)): Names<(String, String)>,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    durable(&app, move |app| Ok((StatusCode::NO_CONTENT, expressions::clear(app, &caller, &user, &vhost)?)))
        .await
}

pub(super) async fn get_topics(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user)): Names<(String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    listed::<TopicPermission>(app, caller, params, Some(vhost), Some(user)).await
}

pub(super) async fn put_topic(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user)): Names<(String, String)>,
    body: Object,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    body.needs(&["exchange", "write", "read"])?;
    let text = |name: &str| Ok::<_, Fault>(body.text(name)?.unwrap_or_default().to_owned());
    let (exchange, write, read) = (text("exchange")?, text("write")?, text("read")?);
    let permission = TopicPermission { user, vhost, exchange, write, read };
    durable(&app, move |app| {
        let TopicPermission { user, vhost, exchange, .. } = &permission;
        check_there(app, Some(vhost), Some(user))
            .map_err(|_| Fault::bad_request("vhost_or_user_not_found"))?;
        let all = expressions::all_of_topics(&app.broker);
        let is_this =
            |one: &TopicPermission| one.user == *user && one.vhost == *vhost && one.exchange == *exchange;
        let is_new = !all.iter().any(is_this);
        Ok((put_status(is_new), expressions::set_topic(app, &caller, &permission)?))
    })
    .await
}

async fn clear_topics(
    app: App,
    caller: Caller,
    vhost: String,
    user: String,
    exchange: Option<String>,
) -> Result<StatusCode, Fault> {
    check_administrator(&caller)?;
    durable(&app, move |app| {
        let done = expressions::clear_topics(app, &caller, &user, &vhost, exchange.as_deref())?;
        Ok((StatusCode::NO_CONTENT, done))
    })
    .await
}

pub(super) async fn delete_topics(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user)): Names<(String, String)>,
) -> Result<StatusCode, Fault> {
    clear_topics(app, caller, vhost, user, None).await
}

pub(super) async fn delete_topic(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, user, exchange)): Names<(String, String, String)>,
) -> Result<StatusCode, Fault> {
    clear_topics(app, caller, vhost, user, Some(exchange)).await
}
