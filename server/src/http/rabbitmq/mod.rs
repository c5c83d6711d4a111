//! RabbitMQ's management API, below `/api`, as RabbitMQ 4 answers it.
//!
//! It maps the same objects as `/api/v1`: a virtual host is a namespace. What both do is done by the modules of that API;
//! what AMQP clients do too (exchanges, queues, bindings, publishing, getting) by the operator of the protocol, with its
//! rules and error texts.
//!
//! Owns the paths, the JSON fields, the status codes and the errors of RabbitMQ.

mod bindings;
mod connections;
mod consumers;
mod definitions;
mod error;
mod exchanges;
mod health;
mod limits;
mod list;
mod messages;
mod nodes;
mod overview;
mod permissions;
mod policies;
mod queue_stats;
mod queues;
mod rates;
mod request;
mod unsupported;
mod users;
mod vhosts;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use inver_access::dialect::rabbitmq::{Permission, TopicPermission};

pub(super) use self::definitions::load as load_definitions;
pub(super) use self::queue_stats::QueueRates;
pub(super) use self::rates::Rates;

use self::error::{Fault, who_are_you};
use super::{App, Peer, auth};

/// Bytes of the largest body, as in RabbitMQ.
const BODY_BYTES_MAX: usize = 10_000_000;

/// The paths, below `/api`.
#[rustfmt::skip]
pub(super) fn routes(app: App) -> Router<App> {
    Router::new()
        .route("/overview", get(overview::overview))
        .route("/whoami", get(overview::whoami))
        .route("/version", get(overview::version))
        .route("/cluster-name", get(overview::cluster_name).put(unsupported::refuse))
        .route("/extensions", get(unsupported::extensions))
        .route("/feature-flags", get(unsupported::none))
        .route("/deprecated-features", get(unsupported::none))
        .route("/deprecated-features/used", get(unsupported::none))
        .route("/auth", get(unsupported::auth))
        .route("/definitions", get(definitions::export).post(definitions::import))
        .route("/definitions/{vhost}", get(definitions::export_vhost).post(definitions::import_vhost))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{node}", get(nodes::get))
        .route("/vhosts", get(vhosts::list))
        .route("/vhosts/{vhost}", get(vhosts::get).put(vhosts::put).delete(vhosts::delete))
        .route("/vhosts/{vhost}/deletion/protection", post(vhosts::protect).delete(vhosts::unprotect))
        .route("/vhosts/{vhost}/permissions", get(permissions::of_vhost::<Permission>))
        .route("/vhosts/{vhost}/topic-permissions", get(permissions::of_vhost::<TopicPermission>))
        .route("/vhosts/{vhost}/connections", get(connections::of_vhost))
        .route("/vhosts/{vhost}/channels", get(connections::channels_of_vhost))
        .route("/users", get(users::list))
        .route("/users/without-permissions", get(users::without_permissions))
        .route("/users/bulk-delete", post(users::bulk_delete))
        .route("/users/{user}", get(users::get).put(users::put).delete(users::delete))
        .route("/users/{user}/permissions", get(permissions::of_user::<Permission>))
        .route("/users/{user}/topic-permissions", get(permissions::of_user::<TopicPermission>))
        .route("/user-limits", get(limits::users))
        .route("/user-limits/{user}", get(limits::user))
        .route("/user-limits/{user}/{limit}", put(limits::set_user).delete(limits::clear_user))
        .route("/vhost-limits", get(limits::vhosts))
        .route("/vhost-limits/{vhost}", get(limits::vhost))
        .route("/vhost-limits/{vhost}/{limit}", put(limits::set_vhost).delete(limits::clear_vhost))
        .route("/permissions", get(permissions::list::<Permission>))
        .route("/permissions/{vhost}/{user}",
            get(permissions::get).put(permissions::put).delete(permissions::delete))
        .route("/topic-permissions", get(permissions::list::<TopicPermission>))
        .route("/topic-permissions/{vhost}/{user}",
            get(permissions::get_topics).put(permissions::put_topic).delete(permissions::delete_topics))
        .route("/topic-permissions/{vhost}/{user}/{exchange}", delete(permissions::delete_topic))
        .route("/exchanges", get(exchanges::all))
        .route("/exchanges/{vhost}", get(exchanges::of_vhost))
        .route("/exchanges/{vhost}/{exchange}",
            get(exchanges::get).put(exchanges::put).delete(exchanges::delete))
        .route("/exchanges/{vhost}/{exchange}/bindings/source", get(bindings::of_source))
        .route("/exchanges/{vhost}/{exchange}/bindings/destination", get(bindings::of_destination_exchange))
        .route("/exchanges/{vhost}/{exchange}/publish", post(messages::publish))
        .route("/queues", get(queues::all))
        .route("/queues/detailed", get(queues::all))
        .route("/queues/{vhost}", get(queues::of_vhost))
        .route("/queues/{vhost}/{queue}", get(queues::get).put(queues::put).delete(queues::delete))
        .route("/queues/{vhost}/{queue}/bindings", get(bindings::of_queue))
        .route("/queues/{vhost}/{queue}/contents", delete(queues::purge))
        .route("/queues/{vhost}/{queue}/get", post(messages::get))
        .route("/queues/{vhost}/{queue}/actions", post(unsupported::queue_action))
        .route("/rebalance/queues", post(unsupported::rebalance))
        .route("/bindings", get(bindings::all))
        .route("/bindings/{vhost}", get(bindings::of_vhost))
        .route("/bindings/{vhost}/e//q/{queue}", get(bindings::between_default_and_queue))
        .route("/bindings/{vhost}/e/{source}/q/{queue}", get(bindings::between_queue).post(bindings::bind_queue))
        .route("/bindings/{vhost}/e/{source}/e/{exchange}",
            get(bindings::between_exchange).post(bindings::bind_exchange))
        .route("/bindings/{vhost}/e/{source}/q/{queue}/{key}",
            get(bindings::get_of_queue).delete(bindings::unbind_queue))
        .route("/bindings/{vhost}/e/{source}/e/{exchange}/{key}",
            get(bindings::get_of_exchange).delete(bindings::unbind_exchange))
        .route("/connections", get(connections::list))
        .route("/connections/username/{user}", get(connections::of_user).delete(connections::close_of_user))
        .route("/connections/{name}", get(connections::get).delete(connections::close))
        .route("/connections/{name}/channels", get(connections::channels_of_connection))
        .route("/channels", get(connections::channels))
        .route("/channels/{name}", get(connections::channel))
        .route("/consumers", get(consumers::list))
        .route("/consumers/{vhost}", get(consumers::of_vhost))
        .route("/aliveness-test/{vhost}", get(health::aliveness))
        .route("/healthchecks/node", get(health::alarms))
        .route("/healthchecks/node/{node}", get(health::alarms))
        .route("/health/checks/alarms", get(health::alarms))
        .route("/health/checks/local-alarms", get(health::alarms))
        .route("/health/checks/virtual-hosts", get(health::fine))
        .route("/health/checks/node-is-quorum-critical", get(health::single_node))
        .route("/health/checks/node-is-mirror-sync-critical", get(health::single_node))
        .route("/health/checks/metadata-store/initialized", get(health::fine))
        .route("/health/checks/ready-to-serve-clients", get(health::ready))
        .route("/health/checks/is-in-service", get(health::ready))
        .route("/health/checks/below-node-connection-limit", get(health::below_connection_limit))
        .route("/health/checks/port-listener/{port}", get(health::port_listener))
        .route("/health/checks/protocol-listener/{protocol}", get(health::protocol_listener))
        .route("/policies", get(policies::ordinary::all))
        .route("/policies/{vhost}", get(policies::ordinary::of_vhost))
        .route("/policies/{vhost}/{name}",
            get(policies::ordinary::get).put(policies::ordinary::put).delete(policies::ordinary::delete))
        .route("/operator-policies", get(policies::operator::all))
        .route("/operator-policies/{vhost}", get(policies::operator::of_vhost))
        .route("/operator-policies/{vhost}/{name}",
            get(policies::operator::get).put(policies::operator::put).delete(policies::operator::delete))
        .route("/parameters", get(unsupported::none))
        .route("/parameters/{component}", get(unsupported::none))
        .route("/parameters/{component}/{vhost}", get(unsupported::none))
        .route("/parameters/{component}/{vhost}/{name}",
            get(unsupported::absent).put(unsupported::refuse).delete(unsupported::absent))
        .route("/global-parameters", get(unsupported::none))
        .route("/global-parameters/{name}",
            get(unsupported::absent).put(unsupported::refuse).delete(unsupported::absent))
        .fallback(async || Fault::not_found())
        .method_not_allowed_fallback(async || StatusCode::METHOD_NOT_ALLOWED)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app, authenticate))
}

/// Lets a request pass whose client is known and has a tag for it.
async fn authenticate(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let (headers, method) = (request.headers(), request.method());
    let caller = match auth::caller(&app, &peer, headers, method).await {
        Ok(caller) => caller,
        Err(_) if !headers.contains_key(header::AUTHORIZATION) => return who_are_you(),
        Err(problem) => return Fault::from(problem).into_response(),
    };
    if caller.check_tags(true).is_err() {
        return Fault::not_authorised("Not management user").into_response();
    }
    if let Err(problem) = caller.check_tags(matches!(*method, Method::GET | Method::HEAD)) {
        return Fault::from(problem).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The name of this node.
pub(super) fn node_name() -> String {
    format!("inver@{}", rustix::system::uname().nodename().to_string_lossy())
}
