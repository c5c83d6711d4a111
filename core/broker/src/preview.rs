//! Previews: where a publish would go, without publishing or creating anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Address, Form};
use crate::message::{Headers, Rights};
use crate::namespace::Namespace;
use crate::publisher::PublishError;
use crate::queue::Queue;
use crate::router::{self, Found, Publish};
use crate::spec::PublisherId;
use crate::value::HeaderLookup;

/// Where a publish would go.
#[derive(Clone, Debug, Default)]
pub struct RoutePreview {
    /// The queues, in the order of their names; those of shared subscriptions are among them.
    pub queues: Vec<Arc<Queue>>,
    /// The log topics, with the partition.
    pub topics: Vec<(String, u32)>,
    /// The sessions.
    pub sessions: Vec<RoutedSession>,
    /// The topic and the key of the capture rule that applies; the topic may not exist yet.
    pub captured: Option<(String, Bytes)>,
}

/// A session that a publish would reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedSession {
    /// The client's id.
    pub client_id: String,
    /// A guaranteed message would be delivered guaranteed.
    pub guaranteed: bool,
}

impl Namespace {
    /// Where a publish to an exchange would go; the empty name is the default exchange.
    ///
    /// # Errors
    /// There is no such exchange.
    pub fn preview_exchange(
        &self,
        name: &str,
        routing_key: &[u8],
        headers: Option<&dyn HeaderLookup>,
        by: &PublisherId,
    ) -> Result<RoutePreview, PublishError> {
        if name.is_empty() {
            let queue = std::str::from_utf8(routing_key).ok().and_then(|name| self.queue(name));
            return Ok(RoutePreview { queues: queue.into_iter().collect(), ..RoutePreview::default() });
        }
        let exchange = self.exchange(name).ok_or_else(|| PublishError::NoSuchExchange(name.to_owned()))?;
        let publish = Publish {
            guaranteed: true,
            by,
            lookup: headers,
            permissions: None,
            headers: Headers::default(),
            rights: Rights::ALL,
            unflushed: None,
        };
        Ok(self.shown(router::preview(self, &exchange, routing_key, None, &publish)))
    }

    /// Where a publish to an address of the hub, slashed, would go.
    #[must_use]
    pub fn preview_address(&self, address: &[u8], by: &PublisherId) -> RoutePreview {
        let address = Address::parse(Form::Slashed, address);
        let publish = Publish {
            guaranteed: true,
            by,
            lookup: None,
            permissions: None,
            headers: Headers::default(),
            rights: Rights::ALL,
            unflushed: None,
        };
        let dotted = address.write(Form::Dotted);
        self.shown(router::preview(self, &self.hub(), &dotted, Some(&address), &publish))
    }

    fn shown(&self, found: Found) -> RoutePreview {
        let mut queues: Vec<Arc<Queue>> = found.set.queues.iter().cloned().collect();
        queues.sort_by(|a, b| a.name().cmp(b.name()));
        let of_queues: BTreeSet<u64> = queues.iter().filter_map(|q| Some(q.stream()?.id().0)).collect();
        let sets = std::iter::once(&found.set).chain(found.formatted.iter().map(|set| &**set));
        let streams = sets.flat_map(|set| &set.log).filter(|stream| !of_queues.contains(&stream.id().0));
        let topics = streams.filter_map(|stream| {
            let name = self.context().stream_names.get(stream.id())?;
            let partitions = self.topic(&name)?.partitions();
            let partition = partitions.iter().find(|partition| partition.stream().id() == stream.id())?;
            Some((name.to_string(), partition.index()))
        });
        let mut topics: Vec<(String, u32)> = topics.collect();
        topics.sort();
        let mut sessions: Vec<RoutedSession> = Vec::new();
        let mut inboxes = found.inboxes;
        inboxes.sort_by(|a, b| a.1.name().cmp(b.1.name()));
        for (_, inbox, guaranteed) in inboxes {
            match sessions.last_mut() {
                Some(last) if last.client_id == inbox.name() => last.guaranteed |= guaranteed,
                _ => sessions.push(RoutedSession { client_id: inbox.name().to_owned(), guaranteed }),
            }
        }
        RoutePreview { queues, topics, sessions, captured: found.captured }
    }
}
