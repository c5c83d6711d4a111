//! The audit log: who did what to what, and whether it was allowed, in one form for all protocols.
//!
//! Owns the form of an event, which kinds are recorded, the lines under the target `inver::audit`, and the bounded queue of
//! events for the audit topic. Does not own the topic, or the decision that an event tells of.
//!
//! Logins and denials, which anybody can cause, are limited per address and per connection, in the topic too. Of what a
//! client changes only the log lines are limited; changes of users and permissions are never suppressed.

mod event;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;

use crate::clock::Clock;
use crate::events::Events;
use crate::line_limit::{ClientLogLimits, LineLimits};
use crate::telemetry::{AUDIT_DROPPED, AUDIT_EVENTS};
use crate::waiting::Waiting;

pub use event::{AuditEvent, AuditKind, AuditKinds, AuditResult, Who};

/// The events that wait to be written to the topic.
pub(crate) type AuditQueue = Waiting<Queued>;

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) time_ms: i64,
    pub(crate) json: Bytes,
}

/// What is recorded for auditors, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The kinds of events that are recorded.
    pub kinds: AuditKinds,
    /// The log topic that events are also written to; none: to the log only.
    pub topic: Option<String>,
    /// The namespace of that topic.
    pub namespace: String,
    /// Events that wait to be written to the topic; further ones are counted and dropped.
    pub queue_events_max: usize,
    /// How many events a client's logins and denials can cause, and log lines its changes.
    pub limits: ClientLogLimits,
    /// Events for programs that wait to be published; further ones are counted and dropped.
    pub events_waiting_max: usize,
}

impl Default for AuditConfig {
    fn default() -> AuditConfig {
        AuditConfig {
            kinds: AuditKinds::default(),
            topic: None,
            namespace: "/".to_owned(),
            queue_events_max: 10_000,
            limits: ClientLogLimits::default(),
            events_waiting_max: 10_000,
        }
    }
}

/// The audit log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    kinds: AuditKinds,
    /// Limits events that anybody can cause.
    anybodys: LineLimits,
    /// Limits log lines about changes.
    changes: LineLimits,
    /// Events for the topic; none without one.
    queue: Option<AuditQueue>,
    /// What programs are told of the same and more.
    events: Events,
}

impl Audit {
    /// An audit log as configured. Events for the topic wait until somebody takes them.
    #[must_use]
    pub fn new(clock: Clock, config: &AuditConfig) -> Audit {
        let queue = config.topic.is_some().then(|| AuditQueue::new(config.queue_events_max, AUDIT_DROPPED));
        let limits = || LineLimits::new(config.limits);
        let events = Events::new(clock.clone(), config.events_waiting_max);
        let (kinds, anybodys, changes) = (config.kinds, limits(), limits());
        Audit(Arc::new(Inner { clock, kinds, anybodys, changes, queue, events }))
    }

    /// Whether events of this kind are recorded at all.
    #[must_use]
    pub fn wants(&self, kind: AuditKind) -> bool {
        self.0.kinds.contains(kind)
    }

    /// Records an event. Never blocks on anything but a short lock.
    pub fn record(&self, event: &AuditEvent<'_>) {
        let kind = event.kind;
        if !self.wants(kind) {
            return;
        }
        let (now, is_request) = (self.0.clock.now(), kind == AuditKind::Denied);
        let suppressed = match event.who.address {
            Some(address) if kind.is_anybodys() => match self.0.anybodys.admit(address, is_request, now) {
                Some(suppressed) => suppressed,
                None => return,
            },
            _ => 0,
        };
        match event.who.address {
            Some(address) if kind.is_change() => {
                let line = self.0.changes.admit(address, false, now);
                line.into_iter().for_each(|suppressed| event.log(suppressed));
            }
            _ => event.log(suppressed),
        }
        counter!(AUDIT_EVENTS, "event" => kind.name(), "result" => event.result.name()).increment(1);
        if let Some(queue) = &self.0.queue {
            let time_ms = self.0.clock.now_ms();
            queue.push(|| Queued { time_ms, json: event.json(time_ms, suppressed) });
        }
    }

    /// How many events of each address were suppressed since its last one, if no later event has told it.
    pub(crate) fn sweep(&self) -> Vec<(Option<IpAddr>, u64)> {
        let now = self.0.clock.now();
        let mut untold = self.0.anybodys.sweep(now);
        untold.extend(self.0.changes.sweep(now));
        untold
    }

    /// The events for programs.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// The events for the topic; none without one.
    pub(crate) fn queue(&self) -> Option<&AuditQueue> {
        self.0.queue.as_ref()
    }
}

#[cfg(test)]
mod tests;
