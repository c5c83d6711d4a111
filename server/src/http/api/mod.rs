//! The resources of `/api/v1`.
//!
//! Handlers run on a blocking thread, since lists can be long and messages are read from disk; a bounded number at a time,
//! so that consumers that read from disk find a thread.

mod backup;
mod bans;
mod bindings;
mod bridges;
pub(super) mod connections;
mod delayed;
mod exchanges;
pub(super) mod expressions;
mod messages;
pub(super) mod namespaces;
pub(super) mod node;
pub(super) mod overview;
mod permissions;
mod policies;
pub(super) mod publish;
mod queues;
mod quotas;
mod reload;
pub(super) mod retained;
mod sessions;
mod subscriptions;
mod topics;
pub(super) mod users;
pub(super) mod values;

use axum::http::StatusCode;
use axum::{Json, Router};
use inver_broker::Completion;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

pub(super) use self::node::Limits;

use super::App;
use super::auth;
use super::problem::Problem;

type Resource = fn() -> UtoipaMethodRouter<App>;

/// The resources, below `/api/v1`.
const RESOURCES: &[Resource] = &[
    || routes!(auth::logins::whoami),
    || routes!(auth::tokens::list, auth::tokens::create),
    || routes!(auth::tokens::delete),
    || routes!(overview::overview),
    || routes!(reload::reload),
    || routes!(backup::take),
    || routes!(node::node),
    || routes!(node::config),
    || routes!(node::log_level, node::set_log_level),
    || routes!(node::alarms),
    || routes!(node::events),
    || routes!(namespaces::list),
    || routes!(namespaces::get, namespaces::put, namespaces::delete),
    || routes!(topics::list, topics::create),
    || routes!(topics::get, topics::alter, topics::delete),
    || routes!(queues::list),
    || routes!(queues::get, queues::declare, queues::delete),
    || routes!(queues::purge),
    || routes!(queues::skip_damaged),
    || routes!(exchanges::list),
    || routes!(exchanges::get, exchanges::declare, exchanges::delete),
    || routes!(bindings::list, bindings::create, bindings::delete),
    || routes!(policies::list),
    || routes!(policies::get, policies::put, policies::delete),
    || routes!(users::list),
    || routes!(users::get, users::put, users::delete),
    || routes!(permissions::list, permissions::create),
    || routes!(permissions::delete),
    || routes!(permissions::check, permissions::check_token),
    || routes!(expressions::list, expressions::put, expressions::delete),
    || routes!(expressions::list_topics, expressions::put_topic, expressions::delete_topics),
    || routes!(quotas::list, quotas::put, quotas::delete),
    || routes!(bans::list, bans::put, bans::delete),
    || routes!(bridges::list),
    || routes!(bridges::get, bridges::put, bridges::delete),
    || routes!(connections::list),
    || routes!(connections::get, connections::close),
    || routes!(subscriptions::list),
    || routes!(subscriptions::get, subscriptions::delete),
    || routes!(subscriptions::reset),
    || routes!(subscriptions::skip_damaged),
    || routes!(sessions::list),
    || routes!(sessions::get, sessions::delete),
    || routes!(sessions::purge),
    || routes!(sessions::skip_damaged),
    || routes!(retained::list, retained::clear_matching),
    || routes!(retained::get, retained::clear),
    || routes!(delayed::list),
    || routes!(delayed::withdraw),
    || routes!(messages::peek),
    || routes!(publish::publish),
    || routes!(publish::test),
];

/// Those that need no login.
const OPEN_RESOURCES: &[Resource] = &[|| routes!(auth::logins::login), || routes!(auth::logins::logout)];

/// The resources, below `/api/v1`.
pub(super) fn routes() -> Router<App> {
    without_documentation(RESOURCES)
}

/// The resources that need no login.
pub(super) fn open_routes() -> Router<App> {
    without_documentation(OPEN_RESOURCES)
}

/// The documentation of all resources takes megabytes: here it is that of one at a time.
fn without_documentation(resources: &[Resource]) -> Router<App> {
    resources.iter().fold(Router::new(), |router, resource| {
        router.merge(Router::from(OpenApiRouter::new().routes(resource())))
    })
}

/// The documentation of the resources, and of those that need no login.
pub(super) fn documentation() -> [OpenApi; 2] {
    [RESOURCES, OPEN_RESOURCES].map(|resources| {
        let all = resources.iter().fold(OpenApiRouter::new(), |router, resource| router.routes(resource()));
        all.into_openapi()
    })
}

/// Runs `act` on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(
    app: &App,
    act: impl FnOnce(&App) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let failed = || Problem::internal("the request failed");
    let job = app.jobs.clone().acquire_owned().await.map_err(|_| failed())?;
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || {
        let _job = job;
        act(&app)
    });
    done.await.unwrap_or_else(|_| Err(failed()))
}

/// As [`blocking`]; answers when what was done is durable.
pub(super) async fn durable<T: Send + 'static, C: Into<Completion> + Send + 'static>(
    app: &App,
    act: impl FnOnce(&App) -> Result<(T, C), Problem> + Send + 'static,
) -> Result<T, Problem> {
    let (done, completion) = blocking(app, act).await?;
    committed(app, completion).await?;
    Ok(done)
}

/// As [`durable`], for what leaves nothing to show: 204.
pub(super) async fn deleted<C: Into<Completion> + Send + 'static>(
    app: &App,
    act: impl FnOnce(&App) -> Result<C, Problem> + Send + 'static,
) -> Result<StatusCode, Problem> {
    durable(app, |app| Ok((StatusCode::NO_CONTENT, act(app)?))).await
}

/// The status of a PUT that created something, or found it.
fn put_status(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

/// As [`blocking`], with a JSON answer.
async fn answer<T: Send + 'static>(
    app: &App,
    act: impl FnOnce(&App) -> Result<T, Problem> + Send + 'static,
) -> Result<Json<T>, Problem> {
    blocking(app, act).await.map(Json)
}

/// Waits until an operation is durable.
pub(super) async fn committed(app: &App, completion: impl Into<Completion>) -> Result<(), Problem> {
    match completion.into() {
        Completion::Now => Ok(()),
        Completion::At(lsn) => Ok(app.broker.log().wait_committed(lsn).await?),
    }
}
