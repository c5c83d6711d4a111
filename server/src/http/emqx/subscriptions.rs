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

/// Which subscriptions; other parameters of EMQX are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    page: Option<u64>,
    limit: Option<u64>,
    clientid: Option<String>,
    /// The filter.
    topic: Option<String>,
    /// A topic that the filter matches.
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
        let matches = |topic: &String| {
            Filter::slashed(plain.as_bytes()).matches(&Address::parse(Form::Slashed, topic.as_bytes()))
        };
        self.topic.as_ref().is_none_or(|topic| **topic == *text)
            && self.share_group.as_deref().is_none_or(|wanted| group == Some(wanted))
            && self.match_topic.as_ref().is_none_or(matches)
            && self.qos.is_none_or(|qos| qos == u64::from(filter.guaranteed))
    }
}

/// A subscription as EMQX shows it.
fn shown(client_id: &str, filter: &SessionFilter) -> Value {
    json!({
        "clientid": client_id,
        "node": node_name(),
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
    blocking(&app, move |_| {
        let sessions = scope.sessions();
        let (mut data, mut count) = (Vec::new(), 0);
        let mut add = |client_id: &str| {
            for filter in sessions.filters(client_id, FILTERS_MAX).unwrap_or_default() {
                if which.lists(&filter) {
                    if count >= skip && data.len() < limit {
                        data.push(shown(client_id, &filter));
                    }
                    count += 1;
                }
            }
        };
        match &which.clientid {
            Some(client_id) => add(client_id),
            None => visit(sessions, |info| {
                add(&info.client_id);
                true
            }),
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
        Ok(Json(filters.iter().map(|filter| shown(&name, filter)).collect()))
    })
    .await
}
