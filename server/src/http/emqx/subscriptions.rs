//! Subscriptions of clients.

use axum::Json;
use axum::extract::State;
use inver_broker::{Address, Filter, Form, SessionFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::clients::{unknown, visit};
use super::node_name;
use super::page::PageQuery;
use crate::http::App;
use crate::http::api::blocking;
use crate::http::auth::{Caller, Scope};
use crate::http::problem::Problem;
use crate::http::request::{Name, Scoped};

/// Subscriptions of one session that are shown.
const FILTERS_MAX: usize = 10_000;

/// Filters of all sessions that are looked through for one answer.
const VISITED_MAX: usize = 100_000;

/// Which subscriptions.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Which {
    page: Option<u64>,
    limit: Option<u64>,
    clientid: Option<String>,
    /// The filter; without its group if `share_group` names that.
    topic: Option<String>,
    /// A filter that the subscription's own matches, taken for a topic.
    match_topic: Option<String>,
    share_group: Option<String>,
    qos: Option<u64>,
}

impl Which {
    fn lists(&self, filter: &SessionFilter) -> bool {
        let text = String::from_utf8_lossy(&filter.filter);
        let (group, plain) = match text.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
            Some((group, plain)) => (Some(group), plain),
            None => (None, &*text),
        };
        let matches = |wanted: &String| {
            Filter::slashed(wanted.as_bytes()).matches(&Address::parse(Form::Slashed, plain.as_bytes()))
        };
        let named = if self.share_group.is_some() { plain } else { &*text };
        self.topic.as_ref().is_none_or(|topic| topic == named)
            && self.share_group.as_deref().is_none_or(|wanted| group == Some(wanted))
            && self.match_topic.as_ref().is_none_or(matches)
            && self.qos.is_none_or(|qos| qos == u64::from(filter.guaranteed))
    }
}

/// A subscription as EMQX shows it.
fn shown(client_id: &str, filter: &SessionFilter, node: &str) -> Value {
    json!({
        "clientid": client_id,
        "node": node,
        "topic": String::from_utf8_lossy(&filter.filter),
        "qos": u8::from(filter.guaranteed),
        "nl": u8::from(filter.no_local),
    })
}

/// Lists the subscriptions of all clients, or of one.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Scoped(scope, which): Scoped<Which>,
) -> Result<Json<Value>, Problem> {
    caller.check_sees_all()?;
    let query = PageQuery::of(which.page, which.limit);
    let (skip, limit) = query.bounds()?;
    if which.match_topic.as_ref().is_some_and(|topic| topic.starts_with("$share/")) {
        return Err(Problem::bad_request("match_topic is a filter without a group"));
    }
    blocking(&app, move |_| {
        let (sessions, node) = (scope.sessions(), node_name());
        let (mut data, mut count, mut visited) = (Vec::new(), 0, 0);
        let mut add = |client_id: &str| {
            for filter in sessions.filters(client_id, FILTERS_MAX).unwrap_or_default() {
                visited += 1;
                if which.lists(&filter) {
                    if count >= skip && data.len() < limit {
                        data.push(shown(client_id, &filter, &node));
                    }
                    count += 1;
                }
            }
            visited < VISITED_MAX
        };
        match &which.clientid {
            Some(client_id) => {
                add(client_id);
            }
            None => visit(sessions, |info| add(&info.client_id)),
        }
        Ok(Json(query.answer(data, count as u64)))
    })
    .await
}

/// The subscriptions of a client.
pub(super) async fn of_client(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
    scope: Scope,
) -> Result<Json<Vec<Value>>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |_| {
        let filters = scope.sessions().filters(&name, FILTERS_MAX).ok_or_else(unknown)?;
        let node = node_name();
        Ok(Json(filters.iter().map(|filter| shown(&name, filter, &node)).collect()))
    })
    .await
}
