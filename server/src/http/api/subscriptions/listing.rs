//! The list of subscriptions, which is read a part at a time.

use std::sync::Arc;

use axum::extract::State;
use inver_broker::{NamedSubscription, Namespace, Order, Queue, Subscription, TopicId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Found, Kind, SubscriptionSummary};
use crate::http::App;
use crate::http::api::blocking;
use crate::http::auth::Scope;
use crate::http::list::{Column, ListQuery, Listing, Page, Snapshot, Source};
use crate::http::problem::Problem;

/// What the names of shared subscriptions' queues begin with.
const SHARED: &str = "$share/";

/// Which subscriptions are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct SubscriptionFilter {
    /// Only subscriptions of this kind.
    #[param(inline, nullable = false)]
    kind: Option<Kind>,
    /// Only subscriptions that read this topic.
    #[param(nullable = false, max_length = 249)]
    topic: Option<String>,
}

/// The subscriptions of a namespace.
struct Subscriptions {
    namespace: Namespace,
    filter: SubscriptionFilter,
    /// They are ordered by their lag.
    with_lag: bool,
}

/// A subscription, and its lag if that is needed.
type Listed = (Found, u64);

/// How far they are read: groups with committed offsets, other groups, named ones, shared ones.
enum At {
    Committed { after: Option<String> },
    Coordinated(Snapshot<String>),
    Named(Snapshot<(TopicId, Arc<Subscription>)>),
    Shared { after: String },
    End,
}

impl Default for At {
    fn default() -> At {
        At::Committed { after: None }
    }
}

impl Subscriptions {
    fn wants(&self, kind: Kind) -> bool {
        self.filter.kind.is_none_or(|wanted| wanted == kind)
    }

    fn wants_topic(&self, name: &str) -> bool {
        self.filter.topic.as_deref().is_none_or(|wanted| wanted == name)
    }

    fn add(&self, subscription: Found, found: &mut Vec<Listed>) {
        let lag = if self.with_lag { subscription.lag(&self.namespace) } else { 0 };
        found.push((subscription, lag));
    }

    /// Groups that have committed offsets. Returns where to go on.
    fn committed(&self, after: Option<&str>, max: usize, found: &mut Vec<Listed>) -> At {
        let offsets = self.namespace.committed_offsets();
        let ids = if self.wants(Kind::Group) { offsets.groups_following(after, max) } else { Vec::new() };
        let next = match ids.last() {
            Some(last) if ids.len() == max => At::Committed { after: Some(last.clone()) },
            _ => At::Coordinated(Snapshot::default()),
        };
        let reads = |id: &String| self.filter.topic.as_ref().is_none_or(|topic| offsets.has_topic(id, topic));
        ids.into_iter().filter(reads).for_each(|id| self.add(Found::Group { id }, found));
        next
    }

    /// Groups that have no committed offset. They read no topic, as far as that is known.
    fn coordinated(&self, ids: &mut Snapshot<String>, max: usize, found: &mut Vec<Listed>) -> bool {
        let offsets = self.namespace.committed_offsets();
        let is_wanted = self.wants(Kind::Group) && self.filter.topic.is_none();
        let take = || if is_wanted { self.namespace.coordinated_groups() } else { Vec::new() };
        ids.read(take, max, |id| {
            if !offsets.has_group(&id) {
                self.add(Found::Group { id }, found);
            }
        })
    }

    fn named(
        &self,
        all: &mut Snapshot<(TopicId, Arc<Subscription>)>,
        max: usize,
        found: &mut Vec<Listed>,
    ) -> bool {
        let take = || if self.wants(Kind::Named) { self.namespace.subscriptions() } else { Vec::new() };
        all.read(take, max, |(topic, subscription)| {
            let topic = self.namespace.topic_by_id(topic);
            if let Some(topic) = topic.filter(|topic| self.wants_topic(topic.name())) {
                let name = format!("{}/{}", topic.name(), subscription.name());
                self.add(Found::Named(NamedSubscription { topic, subscription }, name), found);
            }
        })
    }

    /// The queues of shared subscriptions: a range of the names of queues. Returns where to go on.
    fn shared(&self, after: &str, max: usize, found: &mut Vec<Listed>) -> At {
        if !self.wants(Kind::Shared) || self.filter.topic.is_some() {
            return At::End;
        }
        let queues = self.namespace.queues_following(Order::Ascending, Some(after), 0, max);
        let is_shared = |queue: &Arc<Queue>| queue.name().starts_with(SHARED);
        let next = match queues.last() {
            Some(last) if queues.len() == max && is_shared(last) => {
                At::Shared { after: last.name().to_owned() }
            }
            _ => At::End,
        };
        for queue in queues.into_iter().filter(|queue| is_shared(queue) && queue.spec().hidden) {
            self.add(Found::Shared(queue), found);
        }
        next
    }
}

impl Source for Subscriptions {
    type Object = Listed;
    type Place = At;

    fn read(&self, _order: Order, at: &mut At, max: usize, found: &mut Vec<Listed>) -> bool {
        match at {
            At::Committed { after } => *at = self.committed(after.as_deref(), max, found),
            At::Coordinated(ids) => {
                if !self.coordinated(ids, max, found) {
                    *at = At::Named(Snapshot::default());
                }
            }
            At::Named(all) => {
                if !self.named(all, max, found) {
                    *at = At::Shared { after: SHARED.to_owned() };
                }
            }
            At::Shared { after } => *at = self.shared(after, max, found),
            At::End => {}
        }
        !matches!(at, At::End)
    }

    fn page(&self, _order: Order, _skip: usize, _max: usize) -> Option<(Vec<Listed>, u64)> {
        None
    }

    fn name<'a>(&self, (found, _): &'a Listed) -> &'a str {
        found.name()
    }

    fn columns(&self) -> &'static [Column<Listed>] {
        &[
            ("name", |(found, _)| (found.name(), found.kind() as u64).into()),
            ("lag", |(_, lag)| (*lag).into()),
        ]
    }

    fn id(&self) -> Option<String> {
        Some(format!("subscriptions {:?} {}", self.filter, self.namespace.name()))
    }
}

/// Lists the subscriptions. An order by lag reads the positions of all of them.
#[utoipa::path(get, path = "/subscriptions", tag = "subscriptions",
    params(Scope, ListQuery, SubscriptionFilter),
    responses((status = 200, body = Page<SubscriptionSummary>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Listing(scope, query, filter): Listing<SubscriptionFilter>,
) -> Result<Page<SubscriptionSummary>, Problem> {
    blocking(&app, move |app| {
        let namespace = scope.namespace();
        let with_lag = query.sorts_by("lag");
        let all = Subscriptions { namespace: namespace.clone(), filter, with_lag };
        query.page(app, all, |(found, _)| found.summary(app, namespace))?.transposed()
    })
    .await
}
