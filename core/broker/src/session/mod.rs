//! Sessions: clients with their subscriptions and the messages that wait for them. A session can outlive its
//! connection and the process.
//!
//! A session has two receivers. The *inbox* takes guaranteed messages: for a durable session it is a stream of the log
//! (the payload is stored once), otherwise it is in memory. The *live queue* takes best-effort messages, in memory,
//! and drops the newest beyond its bound. In-memory parts are created for the first message that needs them and end with
//! the connection: a client to which nothing was sent has none. A durable session without a connection consists of
//! its stream and cursor, its subscriptions and the protocol's state.
//!
//! [`Sessions`] owns the sessions of a namespace and their shared-subscription groups. One connection holds a session
//! at a time, see [`Sessions::open`]. Neither the namespace nor its bindings keep a session alive.

mod core;
mod exclusive;
mod few;
mod group;
mod held;
mod listing;
mod open;
mod overflows;
mod publish_will;
mod queues;
mod receive;
mod registry;
mod share;
mod tally;
mod terms;
mod will;

use std::sync::Arc;

use bytes::Bytes;
use inver_access::Operation;
use inver_storage::{Entry, SubmitError};

use crate::access::Permissions;
use crate::audit::AuditKind;
use crate::completion::Completion;
use crate::exchange::Inbox;
use crate::limits::{self, LimitReached};
use crate::namespace::{Namespace, QueueError, SubscriptionError};
use crate::publisher::{InboxTarget, Target};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{DeliveryId, Expiry, Mode, PublisherId, SubscriptionOptions};
use crate::subscription::{AttachError, Consumer};

use self::receive::ReceiveGate;
use self::will::PendingWill;

pub(crate) use self::core::SessionCore;
pub(crate) use self::will::WillRow;

pub use listing::{SessionFilter, SessionInfo};
pub use open::{Opened, SessionError};
pub use registry::Sessions;
pub use tally::SessionTally;
pub use terms::{SessionSpec, SessionTerms};
pub use will::Will;

/// Subscriptions of one session.
const SESSION_FILTERS_MAX: usize = 100_000;

/// Why a subscription was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The subscription exists in another mode.
    #[error("the subscription's mode is {}", .0.as_str())]
    ModeClash(Mode),
    /// The client may not subscribe to every address that the filter matches.
    #[error("not authorized")]
    NotAllowed,
    /// Another session has an exclusive subscription of the filter.
    #[error("another client has this exclusive subscription")]
    Taken,
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The consumer cannot attach.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The text is not that of a shared subscription.
    #[error("not a shared subscription")]
    NotShared,
    /// The group's queue cannot be declared.
    #[error(transparent)]
    Queue(QueueError),
    /// The group's subscription cannot be made.
    #[error(transparent)]
    Subscription(SubscriptionError),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// A session as its connection holds it. Dropping it detaches the session: its will is due unless it was cleared, and
/// its expiry starts.
pub struct Session {
    core: Arc<SessionCore>,
    inbox: Option<Box<Consumer>>,
    live: Option<Box<Consumer>>,
    gate: Box<ReceiveGate>,
}

impl Session {
    /// The client's id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.core.client_id()
    }

    /// How many sessions and subscriptions its namespace has.
    #[must_use]
    pub fn tally(&self) -> SessionTally {
        self.core.registry().map_or_else(SessionTally::default, |registry| Sessions(registry).tally())
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.core.namespace()
    }

    /// Whether it can outlive its connection.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.core.is_durable()
    }

    /// What its client may do.
    #[must_use]
    pub fn permissions(&self) -> &Arc<Permissions> {
        self.gate.permissions()
    }

    /// Its connection's identity as a publisher.
    #[must_use]
    pub fn publisher_id(&self, origin: &'static str) -> PublisherId {
        PublisherId { origin, session: Some(self.core.id()) }
    }

    /// Its inbox as a destination of messages.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target::Inbox(InboxTarget(&*self.core))
    }

    /// Subscribes to a slashed filter, or changes the options. Whether the subscription existed, and when the change is
    /// durable. An inbox that is made for it posts its token.
    pub fn subscribe(
        &mut self,
        filter: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Completion), SubscribeError> {
        let text = String::from_utf8_lossy(filter);
        if !self.permissions().may_filter(&text, Operation::Subscribe) {
            self.permissions().denied_filter(&text, Operation::Subscribe);
            return Err(SubscribeError::NotAllowed);
        }
        if !self.core.has_filter(filter) {
            let namespace = self.core.namespace();
            limits::check("bindings", namespace.hub().binding_count(), namespace.limits().bindings_max)?;
        }
        let subscribed = self.core.put_filter(filter, options)?;
        if options.guaranteed {
            self.open_inbox();
        }
        self.gate.subscribed(filter);
        self.core.bind(filter, options);
        self.audit_subscription("subscribe", &text);
        Ok(subscribed)
    }

    /// Removes a subscription; false if there was none. A shared one is named by the whole `$share/group/filter`; drop
    /// its consumer first.
    pub fn unsubscribe(&mut self, text: &[u8]) -> Result<(bool, Completion), SubmitError> {
        if share::split_share(text).is_none() {
            self.gate.unsubscribed(text);
        }
        let removed = self.core.remove_filter(text)?;
        self.audit_subscription("unsubscribe", &String::from_utf8_lossy(text));
        Ok(removed)
    }

    fn audit_subscription(&self, operation: &str, filter: &str) {
        let client = Some(&**self.permissions());
        self.namespace().audit_by(client, AuditKind::Transient, operation, "subscription", filter);
    }

    /// Acknowledges messages of the inbox and sets protocol state, in one entry.
    pub fn ack_and_put(&self, offsets: &[u64], puts: &[(Bytes, Bytes)]) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        self.inbox.iter().for_each(|inbox| inbox.ack_in(&ids(offsets), &mut entry));
        if is_seeded(Bug::StateBeforeAck) {
            puts.iter().try_for_each(|(key, value)| self.put(key.clone(), value.clone()).map(|_| ()))?;
            return self.core.submit(entry);
        }
        for (key, value) in puts {
            self.core.put_in(&mut entry, key.clone(), value.clone());
        }
        self.core.submit(entry)
    }

    /// Sets protocol state.
    pub fn put(&self, key: Bytes, value: Bytes) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        self.core.put_in(&mut entry, key, value);
        self.core.submit(entry)
    }

    /// Deletes protocol state.
    pub fn delete(&self, key: &[u8]) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        self.core.delete_in(&mut entry, key);
        self.core.submit(entry)
    }

    /// Sets protocol state as part of an entry.
    pub fn put_in(&self, entry: &mut Entry, key: Bytes, value: Bytes) {
        self.core.put_in(entry, key, value);
    }

    /// Deletes protocol state as part of an entry.
    pub fn delete_in(&self, entry: &mut Entry, key: &[u8]) {
        self.core.delete_in(entry, key);
    }

    /// Sets how long it outlives its connection.
    pub fn set_expiry(&self, expiry: Expiry) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        self.core.set_expiry(expiry, &mut entry);
        self.core.submit(entry)
    }

    /// Sets the will: published when the session is detached, unless cleared before.
    pub fn set_will(&self, will: Option<Will>) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        let permissions = Some(self.gate.permissions().clone());
        self.core.set_will(will.map(|will| PendingWill { will, permissions }), &mut entry);
        self.core.submit(entry)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // First: the next connection attaches its consumers as soon as the session is detached.
        self.inbox = None;
        self.live = None;
        self.core.end_queues();
        self.core.detach();
    }
}

fn ids(offsets: &[u64]) -> Vec<DeliveryId> {
    offsets.iter().map(|&offset| DeliveryId { partition: 0, offset }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a session's own structures. Find out what grew before raising a bound.
    #[test]
    fn sessions_are_small() {
        assert!(size_of::<SessionCore>() <= 192, "a session: {}", size_of::<SessionCore>());
        assert!(size_of::<Session>() <= 32, "a connection's hold on it: {}", size_of::<Session>());
    }
}
