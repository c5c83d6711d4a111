//! Sessions: a client's identity with what it subscribed to and what waits for it. A session can outlive its
//! connection, and then the process.
//!
//! Two queues belong to a session. The *inbox* takes guaranteed messages: of a durable session it is a stream
//! in the log (a reference, the payload is stored once), else it is in memory. The *live* queue takes
//! best-effort messages, in memory, and drops the newest beyond its bound. What lies in memory is made when the first
//! subscription needs it, and is gone with the connection: an idle or publishing client has neither. Of the session of a
//! client that is away there is the stream and its position, what it subscribed to and what its plug keeps.
//!
//! One connection holds a session at a time; see [`Namespace::open_session`].

mod few;
mod group;
mod open;
mod queues;
mod will;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use inver_storage::{Entry, Lsn, Offset, Stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Mailbox;
use crate::exchange::{BindTarget, Bound};
use crate::limits::{self, LimitReached};
use crate::namespace::Namespace;
use crate::rows;
use crate::spec::{DeliveryId, Expiry, Mode, PublisherId, SubscriptionOptions};
use crate::subscription::{AttachError, Consumer};
use crate::value::Arguments;

use few::Few;
use queues::Queues;

pub use open::{Opened, SessionError, SessionSpec, SessionTerms};
pub use will::Will;

/// Subscriptions of one session.
pub(crate) const SESSION_FILTERS_MAX: usize = 100_000;

/// Why a subscription was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The subscription exists and is shared in another way.
    #[error("the subscription's mode is {}", .0.as_str())]
    ModeClash(Mode),
    /// Too many.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// It cannot be joined.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The log takes no more.
    #[error("log write rejected: {0}")]
    Log(String),
}

/// What of a session is there whether or not a connection holds it.
pub(crate) struct SessionCore {
    id: u64,
    /// Also its key among the sessions.
    client_id: Arc<str>,
    namespace: Namespace,
    stream: Option<(Stream, inver_storage::Cursor)>,
    queues: Mutex<Queues>,
    state: Mutex<State>,
    ended: AtomicBool,
}

struct State {
    filters: Few<Box<[u8]>, SubscriptionOptions>,
    blobs: Few<Bytes, Bytes>,
    presence: Presence,
    expiry: Expiry,
    will: Option<Box<Will>>,
}

/// Where the session's client is.
enum Presence {
    /// A connection holds the session.
    Held(Holder),
    /// Since then, milliseconds since 1970, no connection does. The clock rings when something falls due.
    Away { since_ms: i64 },
}

struct Holder {
    mailbox: Arc<Mailbox>,
    terms: Arc<SessionTerms>,
    /// There when somebody waits for it.
    released: Option<watch::Sender<bool>>,
}

/// A session as its connection holds it. When it is dropped the session is let go: its will is due unless
/// cleared, and its expiry begins.
pub struct Session {
    core: Arc<SessionCore>,
    inbox: Option<Box<Consumer>>,
    live: Option<Box<Consumer>>,
}

impl SessionCore {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    fn is_durable(&self) -> bool {
        self.stream.is_some()
    }

    /// Who is told of what comes, and how, while a connection holds it.
    fn held(&self) -> Option<(Arc<Mailbox>, Arc<SessionTerms>)> {
        match &self.state.lock().presence {
            Presence::Held(holder) => Some((holder.mailbox.clone(), holder.terms.clone())),
            Presence::Away { .. } => None,
        }
    }

    /// Lets go of the oldest messages beyond so many; how many.
    pub(crate) fn bound_inbox(&self, messages_max: u64) -> u64 {
        let Some((stream, cursor)) = &self.stream else { return 0 };
        let oldest = stream.high_watermark().0.saturating_sub(messages_max);
        let position = cursor.position().0;
        if oldest <= position {
            return 0;
        }
        let mut entry = Entry::new();
        entry.ack(cursor, &[Offset(position)..Offset(oldest)]);
        entry.trim(stream, Offset(oldest));
        self.submit(entry).map_or(0, |_| oldest - position)
    }

    fn blob_key(&self, key: &[u8]) -> Bytes {
        let id = rows::counted(self.client_id.as_bytes());
        rows::key(self.namespace.id(), &[&id, key])
    }

    fn put_in(&self, entry: &mut Entry, key: Bytes, value: Bytes) {
        if self.is_durable() {
            entry.put(rows::SESSION_STATE, self.blob_key(&key), value.clone());
        }
        self.state.lock().blobs.insert(key, value);
    }

    fn delete_in(&self, entry: &mut Entry, key: &[u8]) {
        if self.state.lock().blobs.remove(key).is_some() && self.is_durable() {
            entry.delete(rows::SESSION_STATE, self.blob_key(key));
        }
    }

    fn submit(&self, entry: Entry) -> Option<Lsn> {
        if entry.is_empty() {
            return None;
        }
        match self.namespace.log().submit(entry) {
            Ok(submitted) => Some(submitted.lsn),
            Err(error) => {
                tracing::debug!(client_id = %self.client_id, %error, "session state not written");
                None
            }
        }
    }

    /// Hears of the filter, from now on in this way.
    fn bind(self: &Arc<Self>, text: &[u8], options: &SubscriptionOptions) {
        let target = BindTarget::Session {
            session: self.clone(),
            guaranteed: options.guaranteed,
            no_local: options.no_local,
        };
        let (key, arguments) = (text.into(), Arguments::new());
        self.namespace.hub().rebind(Bound { target, key, arguments, slashed: true, row: None, made: None });
        self.namespace.changed();
    }

    fn unbind(self: &Arc<Self>, text: &[u8]) {
        let target = BindTarget::Session { session: self.clone(), guaranteed: false, no_local: false };
        self.namespace.hub().unbind(&target, true, text, &Arguments::new());
        self.namespace.changed();
    }

    /// Ends it: nothing of it is left, in memory or on the disk.
    fn end(self: &Arc<Self>) -> Option<Lsn> {
        if self.ended.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (filters, blobs) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.filters), std::mem::take(&mut state.blobs))
        };
        let mut entry = Entry::new();
        for text in filters.keys() {
            match group::split_share(text) {
                Some((group, filter)) => self.namespace.leave_group(group, filter, &self.client_id),
                None => self.unbind(text),
            }
            self.forget_filter(text, &mut entry);
        }
        self.namespace.sessions().remove_if(&*self.client_id, |_, s| Arc::ptr_eq(s, self));
        self.end_queues();
        if let Some((stream, cursor)) = &self.stream {
            for key in blobs.keys() {
                entry.delete(rows::SESSION_STATE, self.blob_key(key));
            }
            entry.delete(rows::SESSIONS, rows::key(self.namespace.id(), &[self.client_id.as_bytes()]));
            entry.delete_cursor(cursor.id());
            entry.delete_stream(stream.id());
        }
        self.submit(entry)
    }

    fn filter_key(&self, text: &[u8]) -> Bytes {
        let id = rows::counted(self.client_id.as_bytes());
        rows::key(self.namespace.id(), &[&id, text])
    }

    fn forget_filter(&self, text: &[u8], entry: &mut Entry) {
        if self.is_durable() {
            entry.delete(rows::SESSION_FILTERS, self.filter_key(text));
        }
    }

    fn remember_filter(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Option<Lsn>), SubscribeError> {
        let mut state = self.state.lock();
        if state.filters.len() >= SESSION_FILTERS_MAX && !state.filters.contains_key(text) {
            let max = SESSION_FILTERS_MAX as u64;
            return Err(LimitReached { what: "subscriptions of this session", max }.into());
        }
        let mut lsn = None;
        if self.is_durable() {
            let row = rows::SessionFilterRow {
                guaranteed: options.guaranteed,
                no_local: options.no_local,
                opaque: options.opaque.to_vec(),
            };
            let mut entry = Entry::new();
            entry.put(rows::SESSION_FILTERS, self.filter_key(text), rows::encode(&row));
            let submitted = self.namespace.log().submit(entry);
            lsn = Some(submitted.map_err(|e| SubscribeError::Log(e.to_string()))?.lsn);
        }
        let existed = state.filters.insert(text.into(), options.clone()).is_some();
        Ok((existed, lsn))
    }
}

impl Session {
    /// Its client's id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.core.client_id
    }

    /// Where it is.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.core.namespace
    }

    /// Whether it can outlive its connection.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.core.is_durable()
    }

    /// Who its connection is as a publisher.
    #[must_use]
    pub fn publisher_id(&self, origin: &'static str) -> PublisherId {
        PublisherId { origin, session: Some(self.core.id) }
    }

    /// Subscribes to a slashed filter, or changes how. Whether it was there, and what to wait for. Pull afterwards: a
    /// queue that was made for it wakes only who found it empty.
    pub fn subscribe(
        &mut self,
        filter: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Option<Lsn>), SubscribeError> {
        if !self.core.state.lock().filters.contains_key(filter) {
            let namespace = &self.core.namespace;
            limits::check("bindings", namespace.hub().binding_count(), namespace.limits().bindings_max)?;
        }
        let (existed, lsn) = self.core.remember_filter(filter, options)?;
        self.make_live();
        if options.guaranteed {
            self.make_inbox();
        }
        self.core.bind(filter, options);
        Ok((existed, lsn))
    }

    /// Takes a subscription back; false if it was not there. Of a shared one the text is the whole
    /// `$share/group/filter`; drop its consumer first.
    pub fn unsubscribe(&self, text: &[u8]) -> (bool, Option<Lsn>) {
        if self.core.state.lock().filters.remove(text).is_none() {
            return (false, None);
        }
        match group::split_share(text) {
            Some((group, filter)) => self.core.namespace.leave_group(group, filter, &self.core.client_id),
            None => self.core.unbind(text),
        }
        let mut entry = Entry::new();
        self.core.forget_filter(text, &mut entry);
        (true, self.core.submit(entry))
    }

    /// Acknowledges messages of the inbox and sets opaque state, as one.
    pub fn ack_and_put(&self, offsets: &[u64], puts: &[(Bytes, Bytes)]) -> Option<Lsn> {
        let mut entry = Entry::new();
        self.inbox.iter().for_each(|inbox| inbox.ack_in(&ids(offsets), &mut entry));
        for (key, value) in puts {
            self.core.put_in(&mut entry, key.clone(), value.clone());
        }
        self.core.submit(entry)
    }

    /// Sets opaque state; what to wait for, if the session is durable.
    pub fn put(&self, key: Bytes, value: Bytes) -> Option<Lsn> {
        let mut entry = Entry::new();
        self.core.put_in(&mut entry, key, value);
        self.core.submit(entry)
    }

    /// Takes opaque state back.
    pub fn delete(&self, key: &[u8]) -> Option<Lsn> {
        let mut entry = Entry::new();
        self.core.delete_in(&mut entry, key);
        self.core.submit(entry)
    }

    /// Sets opaque state as part of an entry.
    pub fn put_in(&self, entry: &mut Entry, key: Bytes, value: Bytes) {
        self.core.put_in(entry, key, value);
    }

    /// Takes opaque state back as part of an entry.
    pub fn delete_in(&self, entry: &mut Entry, key: &[u8]) {
        self.core.delete_in(entry, key);
    }

    /// Sets how long it lives after its connection.
    pub fn set_expiry(&self, expiry: Expiry) -> Option<Lsn> {
        self.core.state.lock().expiry = expiry;
        let mut entry = Entry::new();
        self.core.put_row(&mut entry, None);
        self.core.submit(entry)
    }

    /// Sets the will: published when the session is let go, unless cleared before.
    pub fn set_will(&self, will: Option<Will>) -> Option<Lsn> {
        let mut entry = Entry::new();
        self.core.set_will(will, &mut entry);
        self.core.submit(entry)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // First: the next one to hold the session attaches as soon as it was let go.
        self.inbox = None;
        self.live = None;
        self.core.end_queues();
        self.core.let_go();
    }
}

fn ids(offsets: &[u64]) -> Vec<DeliveryId> {
    offsets.iter().map(|&offset| DeliveryId { partition: 0, offset }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session holds here, in bytes, its client connected or away: raise no bound without a look at where it
    /// went.
    #[test]
    fn sessions_are_small() {
        assert!(size_of::<SessionCore>() <= 168, "the session: {}", size_of::<SessionCore>());
        assert!(size_of::<Session>() <= 24, "a connection's hold on it: {}", size_of::<Session>());
    }
}
