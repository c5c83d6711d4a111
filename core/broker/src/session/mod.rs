//! Sessions: a client's identity with what it subscribed to and what waits for it. A session can outlive its
//! connection, and then the process.
//!
//! Two queues belong to a session. The *inbox* takes guaranteed messages: of a durable session it is a stream
//! in the log (a reference, the payload is stored once), else it is in memory. The *live* queue takes
//! best-effort messages, in memory, and drops the newest beyond its bound.
//!
//! One connection holds a session at a time; see [`Namespace::open_session`].

mod open;
mod will;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use inver_storage::{Entry, Lsn, Offset, Stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Mailbox;
use crate::address::Filter;
use crate::catalog;
use crate::exchange::{BindTarget, Bound};
use crate::namespace::Namespace;
use crate::publisher::PublisherId;
use crate::queue::{OwnerId, Queue, QueueSpec};
use crate::router::{ReceiverSet, Route};
use crate::subscription::{
    AttachError, Consumer, ConsumerSpec, Delivery, DeliveryId, Mode, Pull, Subscription,
};
use crate::topic::TopicKind;
use crate::value::Arguments;

pub use open::{Opened, SessionError, SessionSpec};
pub use will::Will;

/// Subscriptions of one session.
pub(crate) const SESSION_FILTERS_MAX: usize = 100_000;

/// The group filters' prefix, as sessions write it.
const SHARE: &[u8] = b"$share/";

/// How a session subscribed to a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Guaranteed messages stay guaranteed.
    pub guaranteed: bool,
    /// Its own publishes are left out.
    pub no_local: bool,
    /// What the plug keeps beside.
    pub opaque: Bytes,
}

/// How long a session lives without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not at all.
    AtDetach,
    /// Seconds.
    After(u32),
    /// For ever.
    Never,
}

/// Why a subscription was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The subscription exists and is shared in another way.
    #[error("the subscription's mode is {}", .0.as_str())]
    ModeClash(Mode),
    /// Too many.
    #[error("a session can have {SESSION_FILTERS_MAX} subscriptions")]
    Limit,
    /// It cannot be joined.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The log takes no more.
    #[error("the log refuses: {0}")]
    Log(String),
}

/// What of a session is there whether or not a connection holds it.
pub(crate) struct SessionCore {
    id: u64,
    client_id: Box<str>,
    namespace: Namespace,
    stream: Option<(Stream, inver_storage::Cursor)>,
    inbox: Arc<Subscription>,
    live: Arc<Subscription>,
    state: Mutex<State>,
    ended: AtomicBool,
}

struct State {
    filters: BTreeMap<Bytes, SubscriptionOptions>,
    blobs: BTreeMap<Bytes, Bytes>,
    holder: Option<Holder>,
    expiry: Expiry,
    /// When the last connection ended, milliseconds since 1970.
    detached_ms: Option<i64>,
    will: Option<Will>,
}

struct Holder {
    mailbox: Arc<Mailbox>,
    taken_over_token: u64,
    released: watch::Sender<bool>,
}

/// A session as its connection holds it. When it is dropped the session is let go: its will is due unless
/// cleared, and its expiry begins.
pub struct Session {
    core: Arc<SessionCore>,
    inbox: Consumer,
    live: Consumer,
}

impl SessionCore {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn is_durable(&self) -> bool {
        self.stream.is_some()
    }

    /// Where a message for it goes.
    pub(crate) fn receive(&self, guaranteed: bool, set: &mut ReceiverSet) {
        match (&self.stream, guaranteed) {
            (Some((stream, _)), true) => set.add_stream(stream),
            (None, true) => set.add_live(&self.inbox),
            (_, false) => set.add_live(&self.live),
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
        match cursor.ack(&[Offset(position)..Offset(oldest)]) {
            Ok(_) => oldest - position,
            Err(_) => 0,
        }
    }

    fn blob_key(&self, key: &[u8]) -> Bytes {
        let id = catalog::counted(self.client_id.as_bytes());
        catalog::key(self.namespace.id(), &[&id, key])
    }

    fn put_in(&self, entry: &mut Entry, key: Bytes, value: Bytes) {
        if self.is_durable() {
            entry.put(catalog::SESSION_STATE, self.blob_key(&key), value.clone());
        }
        self.state.lock().blobs.insert(key, value);
    }

    fn delete_in(&self, entry: &mut Entry, key: &[u8]) {
        if self.state.lock().blobs.remove(key).is_some() && self.is_durable() {
            entry.delete(catalog::SESSION_STATE, self.blob_key(key));
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

    fn bind(self: &Arc<Self>, text: &Bytes, options: &SubscriptionOptions) {
        let target = BindTarget::Session {
            session: self.clone(),
            guaranteed: options.guaranteed,
            no_local: options.no_local,
        };
        let (key, arguments) = (text.to_vec().into_boxed_slice(), Arguments::new());
        self.namespace.hub().bind(Bound { target, key, arguments, slashed: true, row: None });
        self.namespace.changed();
    }

    fn unbind(self: &Arc<Self>, text: &[u8]) {
        let target = BindTarget::Session { session: self.clone(), guaranteed: false, no_local: false };
        self.namespace.hub().unbind(&target, true, Some((text, &Arguments::new())));
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
            match split_share(text) {
                Some((group, filter)) => self.namespace.leave_group(group, filter, &self.client_id),
                None => self.unbind(text),
            }
            self.forget_filter(text, &mut entry);
        }
        self.namespace.sessions().remove_if(&*self.client_id, |_, s| Arc::ptr_eq(s, self));
        self.inbox.close();
        self.live.close();
        if let Some((stream, cursor)) = &self.stream {
            for key in blobs.keys() {
                entry.delete(catalog::SESSION_STATE, self.blob_key(key));
            }
            entry.delete(catalog::SESSIONS, catalog::key(self.namespace.id(), &[self.client_id.as_bytes()]));
            entry.delete_cursor(cursor.id());
            entry.delete_stream(stream.id());
        }
        self.submit(entry)
    }

    fn filter_key(&self, text: &[u8]) -> Bytes {
        let id = catalog::counted(self.client_id.as_bytes());
        catalog::key(self.namespace.id(), &[&id, text])
    }

    fn forget_filter(&self, text: &[u8], entry: &mut Entry) {
        if self.is_durable() {
            entry.delete(catalog::SESSION_FILTERS, self.filter_key(text));
        }
    }

    fn remember_filter(
        &self,
        text: &Bytes,
        options: &SubscriptionOptions,
    ) -> Result<(bool, Option<Lsn>), SubscribeError> {
        let mut state = self.state.lock();
        if state.filters.len() >= SESSION_FILTERS_MAX && !state.filters.contains_key(text) {
            return Err(SubscribeError::Limit);
        }
        let mut lsn = None;
        if self.is_durable() {
            let row = catalog::SessionFilterRow {
                guaranteed: options.guaranteed,
                no_local: options.no_local,
                opaque: options.opaque.to_vec(),
            };
            let mut entry = Entry::new();
            entry.put(catalog::SESSION_FILTERS, self.filter_key(text), catalog::encode(&row));
            let submitted = self.namespace.log().submit(entry);
            lsn = Some(submitted.map_err(|e| SubscribeError::Log(e.to_string()))?.lsn);
        }
        let existed = state.filters.insert(text.clone(), options.clone()).is_some();
        Ok((existed, lsn))
    }
}

impl Session {
    /// Its client's id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.core.client_id
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

    /// Subscribes to a slashed filter, or changes how. Whether it was there, and what to wait for.
    pub fn subscribe(
        &self,
        filter: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Option<Lsn>), SubscribeError> {
        let text = Bytes::copy_from_slice(filter);
        let (existed, lsn) = self.core.remember_filter(&text, options)?;
        if existed {
            self.core.unbind(&text);
        }
        self.core.bind(&text, options);
        Ok((existed, lsn))
    }

    /// Takes a subscription back; false if it was not there. Of a shared one the text is the whole
    /// `$share/group/filter`; drop its consumer first.
    pub fn unsubscribe(&self, text: &[u8]) -> (bool, Option<Lsn>) {
        if self.core.state.lock().filters.remove(text).is_none() {
            return (false, None);
        }
        match split_share(text) {
            Some((group, filter)) => self.core.namespace.leave_group(group, filter, &self.core.client_id),
            None => self.core.unbind(text),
        }
        let mut entry = Entry::new();
        self.core.forget_filter(text, &mut entry);
        (true, self.core.submit(entry))
    }

    /// Joins the group of `$share/group/filter`, given as a whole: the subscription `group` of the log topic
    /// whose very name the filter is, else a group of its own on the hub.
    pub fn join(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
        consumer: ConsumerSpec,
    ) -> Result<(Consumer, bool, Option<Lsn>), SubscribeError> {
        let Some((group, filter)) = split_share(text) else {
            return Err(SubscribeError::Log("not a shared subscription".into()));
        };
        let durable = self.is_durable() && options.guaranteed;
        let subscription = self.core.namespace.join_group(group, filter, durable, &self.core.client_id)?;
        let consumer = subscription.attach(consumer)?;
        let (existed, lsn) = self.core.remember_filter(&Bytes::copy_from_slice(text), options)?;
        Ok((consumer, existed, lsn))
    }

    /// Best-effort messages.
    pub fn pull_live(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.live.pull(messages_max, bytes_max, into)
    }

    /// Guaranteed messages; their offsets are dense for the session's life, and unacknowledged ones come again
    /// from the first when the session is opened again.
    pub fn pull_inbox(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.inbox.pull(messages_max, bytes_max, into)
    }

    /// Acknowledges messages of the inbox.
    pub fn ack(&self, offsets: &[u64]) -> Option<Lsn> {
        self.inbox.ack(&ids(offsets))
    }

    /// Acknowledges messages of the inbox and sets opaque state, as one.
    pub fn ack_and_put(&self, offsets: &[u64], puts: &[(Bytes, Bytes)]) -> Option<Lsn> {
        let mut entry = Entry::new();
        self.inbox.ack_in(&ids(offsets), &mut entry);
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

    /// Best-effort messages dropped because the client was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.core.live.dropped()
    }

    pub(crate) fn route(&self, guaranteed: bool) -> Route {
        let mut set = ReceiverSet::default();
        self.core.receive(guaranteed, &mut set);
        Route { set: Arc::new(set), key: None, receivers: 1 }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.let_go();
    }
}

fn ids(offsets: &[u64]) -> Vec<DeliveryId> {
    offsets.iter().map(|&offset| DeliveryId { partition: 0, offset }).collect()
}

/// Group and filter of a shared subscription's text.
fn split_share(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(SHARE)?;
    let slash = rest.iter().position(|b| *b == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

impl Namespace {
    /// The subscription of a group; made with its first member.
    fn join_group(
        &self,
        group: &[u8],
        filter: &[u8],
        durable: bool,
        member: &str,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        let group_name = String::from_utf8_lossy(group).into_owned();
        if let Some(topic) = self.topic_of_filter(filter) {
            return self
                .subscribe(&topic, &group_name, Mode::Shared, true, crate::subscription::Start::Latest)
                .map_err(|e| match e {
                    crate::namespace::SubscriptionError::ModeClash(mode) => SubscribeError::ModeClash(mode),
                    other => SubscribeError::Log(other.to_string()),
                });
        }
        let name = group_queue(group, filter);
        let spec = QueueSpec { durable, hidden: true, ..QueueSpec::default() };
        let queue: Arc<Queue> = match self.declare_queue(&name, spec) {
            Ok(declared) => declared.it,
            Err(error) => return Err(SubscribeError::Log(error.to_string())),
        };
        self.bind_slashed(&queue, filter);
        self.group_members().entry(name).or_default().insert(member.to_owned());
        Ok(queue.subscription().clone())
    }

    /// After everything was recovered: groups whose members are all gone end.
    pub(crate) fn end_empty_groups(&self) {
        let groups =
            self.queues().into_iter().filter(|q| q.spec().hidden && q.name().as_bytes().starts_with(SHARE));
        for queue in groups.filter(|q| !self.group_members().contains_key(q.name())) {
            if let Err(error) = self.delete_queue(queue.name(), false, false) {
                tracing::warn!(group = queue.name(), %error, "a group without members stays");
            }
        }
    }

    /// Takes a member out of a group; with its last member the group ends.
    fn leave_group(&self, group: &[u8], filter: &[u8], member: &str) {
        let name = group_queue(group, filter);
        let empty = match self.group_members().get_mut(&name) {
            Some(mut members) => {
                members.remove(member);
                members.is_empty()
            }
            None => return,
        };
        if empty {
            self.group_members().remove_if(&name, |_, members| members.is_empty());
            if let Err(error) = self.delete_queue(&name, false, false) {
                tracing::debug!(%error, group = %name, "group already gone");
            }
        }
    }

    /// The log topic whose very name a filter is.
    fn topic_of_filter(&self, filter: &[u8]) -> Option<Arc<crate::topic::Topic>> {
        let address = Filter::slashed(filter).as_address()?;
        let name = String::from_utf8(address.write(crate::address::Form::Dotted)).ok()?;
        self.topic(&name).filter(|t| t.kind() == TopicKind::Log)
    }
}

/// The hidden queue that is a group's.
fn group_queue(group: &[u8], filter: &[u8]) -> String {
    format!("$share/{}/{}", String::from_utf8_lossy(group), String::from_utf8_lossy(filter))
}

/// A connection's number, for what it alone may use.
#[must_use]
pub fn next_owner() -> OwnerId {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(1);
    OwnerId(NEXT.fetch_add(1, Ordering::Relaxed))
}
