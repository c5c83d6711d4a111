//! Consumers of queues.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use inver_broker::{LiveConnection, Member, Namespace};
use serde_json::{Value, json};

use super::connections::connection_name;
use super::error::Fault;
use super::list::{LISTED_MAX, ListQuery};
use super::node_name;
use super::queues::{self, Listed};
use super::request::{Names, Params, scope, work};
use super::vhosts::seen;
use crate::http::App;
use crate::http::auth::Caller;

/// A consumer with its queue and its connection.
pub(super) struct Consumer {
    queue: Listed,
    member: Member,
    pub(super) connection: Option<Arc<LiveConnection>>,
}

impl Consumer {
    /// Messages delivered to it and not acknowledged.
    pub(super) fn unacked(&self) -> u64 {
        self.member.unacked
    }

    fn shown(&self) -> Value {
        let Member { exclusive, auto_ack, active, .. } = &self.member;
        let (vhost, queue) = &self.queue;
        let channel = self.connection.as_ref().map(|connection| {
            let (name, peer) = (connection_name(connection), connection.peer());
            json!({
                "connection_name": name,
                "name": format!("{name} (1)"),
                "node": node_name(),
                "number": 1,
                "peer_host": peer.ip().to_string(),
                "peer_port": peer.port(),
                "user": connection.user(),
            })
        });
        json!({
            "consumer_tag": "",
            "queue": {"name": queue.name().to_string(), "vhost": &**vhost},
            "channel_details": channel.unwrap_or_else(|| json!({})),
            "ack_required": !auto_ack,
            "active": active,
            "activity_status": if *active { "up" } else { "waiting" },
            "exclusive": exclusive,
            "prefetch_count": 0,
            "consumer_timeout": null,
            "arguments": {},
        })
    }
}

fn members(app: &App, queue: &Listed) -> Vec<Consumer> {
    let members = queue.1.subscription().members().into_iter();
    let consumer = |member: Member| {
        let connection = member.connection.and_then(|id| app.broker.connections().get(id));
        Consumer { queue: queue.clone(), member, connection }
    };
    members.map(consumer).collect()
}

/// The consumers of a queue.
pub(super) fn of_queue(app: &App, queue: &Listed) -> Vec<Value> {
    members(app, queue).iter().map(Consumer::shown).collect()
}

/// The consumers of the queues of namespaces.
pub(super) fn listed(app: &App, namespaces: &[Namespace]) -> Result<Vec<Consumer>, Fault> {
    let mut listed = Vec::new();
    for queue in queues::listed(namespaces)? {
        if queue.1.counts().consumers > 0 {
            listed.extend(members(app, &queue));
        }
        if listed.len() > LISTED_MAX {
            return Err(Fault::bad_request(format!("there are more than {LISTED_MAX} consumers")));
        }
    }
    Ok(listed)
}

fn answer(listed: Vec<Consumer>, query: &ListQuery) -> Result<Response, Fault> {
    query.answer(listed, |consumer| consumer.queue.1.name().to_string(), Consumer::shown)
}

pub(super) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| answer(listed(app, &seen(app, &caller))?, &query)).await
}

pub(super) async fn of_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        answer(listed(app, std::slice::from_ref(scope.namespace()))?, &query)
    })
    .await
}
