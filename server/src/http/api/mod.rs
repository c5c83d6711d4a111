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

use axum::Json;
use axum::http::StatusCode;
use inver_broker::Completion;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::node::Limits;

use super::App;
use super::auth;
use super::problem::Problem;

/// The resources, below `/api/v1`.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(auth::logins::whoami))
        .routes(routes!(auth::tokens::list, auth::tokens::create))
        .routes(routes!(auth::tokens::delete))
        .routes(routes!(overview::overview))
        .routes(routes!(reload::reload))
        .routes(routes!(backup::take))
        .routes(routes!(node::node))
        .routes(routes!(node::config))
        .routes(routes!(node::log_level, node::set_log_level))
        .routes(routes!(node::alarms))
        .routes(routes!(node::events))
        .routes(routes!(namespaces::list))
        .routes(routes!(namespaces::get, namespaces::put, namespaces::delete))
        .routes(routes!(topics::list, topics::create))
        .routes(routes!(topics::get, topics::alter, topics::delete))
        .routes(routes!(queues::list))
        .routes(routes!(queues::get, queues::declare, queues::delete))
        .routes(routes!(queues::purge))
        .routes(routes!(queues::skip_damaged))
        .routes(routes!(exchanges::list))
        .routes(routes!(exchanges::get, exchanges::declare, exchanges::delete))
        .routes(routes!(bindings::list, bindings::create, bindings::delete))
        .routes(routes!(policies::list))
        .routes(routes!(policies::get, policies::put, policies::delete))
        .routes(routes!(users::list))
        .routes(routes!(users::get, users::put, users::delete))
        .routes(routes!(permissions::list, permissions::create))
        .routes(routes!(permissions::delete))
        .routes(routes!(permissions::check, permissions::check_token))
        .routes(routes!(expressions::list, expressions::put, expressions::delete))
        .routes(routes!(expressions::list_topics, expressions::put_topic, expressions::delete_topics))
        .routes(routes!(quotas::list, quotas::put, quotas::delete))
        .routes(routes!(bans::list, bans::put, bans::delete))
        .routes(routes!(bridges::list))
        .routes(routes!(bridges::get, bridges::put, bridges::delete))
        .routes(routes!(connections::list))
        .routes(routes!(connections::get, connections::close))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::get, subscriptions::delete))
        .routes(routes!(subscriptions::reset))
        .routes(routes!(subscriptions::skip_damaged))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::get, sessions::delete))
        .routes(routes!(sessions::purge))
        .routes(routes!(sessions::skip_damaged))
        .routes(routes!(retained::list, retained::clear_matching))
        .routes(routes!(retained::get, retained::clear))
        .routes(routes!(delayed::list))
        .routes(routes!(delayed::withdraw))
        .routes(routes!(messages::peek))
        .routes(routes!(publish::publish))
        .routes(routes!(publish::test))
}

/// The resources that need no login.
pub(super) fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(auth::logins::login)).routes(routes!(auth::logins::logout))
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
