//! The part of a session that exists whether or not a connection holds it: subscriptions, protocol state, presence,
//! and their rows in the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use inver_storage::{Cursor, Entry, Offset, Stream, SubmitError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::few::Few;
use super::held::Queues;
use super::registry::Registry;
use super::share::split_share;
use super::tally::Counted;
use super::terms::SessionTerms;
use super::will::PendingWill;
use super::{SESSION_FILTERS_MAX, SubscribeError};
use crate::audit::AuditKind;
use crate::bindings::Binding;
use crate::completion::Completion;
use crate::exchange::{Inbox, RouteTarget};
use crate::limits::LimitReached;
use crate::mailbox::Mailbox;
use crate::namespace::Namespace;
use crate::removal::Removal;
use crate::rows::{self, SessionRow};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{Expiry, InboxBounds, Mode, SubscriptionOptions};
use crate::subscription::{Subscription, Trim};
use crate::value::Arguments;

/// So many subscriptions of a session that ended are removed at once: less than a millisecond of work, for which the bindings
/// of the hub are locked. More of them are removed elsewhere, after those of sessions that ended before.
const LEFT_AT_ONCE_MAX: usize = 256;

/// A session.
pub(crate) struct SessionCore {
    id: u64,
    /// Also its key in the registry.
    client_id: Arc<str>,
    namespace: Namespace,
    /// Gone with the broker; the session may still be held by a connection.
    registry: Weak<Registry>,
    stream: Option<(Stream, Cursor)>,
    /// Locked before `state`, never while that is held.
    pub(super) queues: Mutex<Queues>,
    pub(super) state: Mutex<State>,
    pub(super) ended: AtomicBool,
}

pub(super) struct State {
    pub(super) filters: Few<Box<[u8]>, SubscriptionOptions>,
    pub(super) blobs: Few<Bytes, Bytes>,
    pub(super) presence: Presence,
    pub(super) expiry: Expiry,
    pub(super) will: Option<Box<PendingWill>>,
    /// The user that it belongs to; none: nobody.
    pub(super) owner: Option<Arc<str>>,
}

/// Whether a connection holds the session.
pub(super) enum Presence {
    /// A connection holds it.
    Held(Holder),
    /// No connection has held it since `since_ms` (milliseconds since 1970). A timer is set for what is due.
    Away { since_ms: i64 },
}

pub(super) struct Holder {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) terms: Arc<SessionTerms>,
    /// Present when another connection waits for it.
    pub(super) released: Option<watch::Sender<bool>>,
}

/// The offset from which on the messages of an inbox, which are those from `position` on, fit its bounds.
fn oldest_kept(stream: &Stream, position: Offset, bounds: &InboxBounds) -> Offset {
    let high = stream.high_watermark().0;
    let (mut from, mut end) = (high.saturating_sub(bounds.messages_max).max(position.0), high);
    while from < end {
        let middle = from + (end - from) / 2;
        match stream.bytes_from(Offset(middle)) > bounds.bytes_max {
            true => from = middle + 1,
            false => end = middle,
        }
    }
    Offset(from)
}

impl SessionCore {
    pub(super) fn new(
        id: u64,
        client_id: Arc<str>,
        registry: &Arc<Registry>,
        stream: Option<(Stream, Cursor)>,
        expiry: Expiry,
    ) -> Arc<SessionCore> {
        let namespace = registry.namespace.clone();
        let since_ms = namespace.clock().steady_ms();
        Arc::new(SessionCore {
            id,
            client_id,
            namespace,
            registry: Arc::downgrade(registry),
            stream,
            queues: Mutex::default(),
            state: Mutex::new(State {
                filters: Few::default(),
                blobs: Few::default(),
                presence: Presence::Away { since_ms },
                expiry,
                will: None,
                owner: None,
            }),
            ended: AtomicBool::new(false),
        })
    }

    pub(super) fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn registry(&self) -> Option<Arc<Registry>> {
        self.registry.upgrade()
    }

    pub(super) fn is_durable(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn stream(&self) -> Option<&(Stream, Cursor)> {
        self.stream.as_ref()
    }

    /// A subscription over its inbox in the log, if it has one, from where its client stands.
    pub(super) fn inbox_of_stream(&self) -> Option<Arc<Subscription>> {
        let (stream, cursor) = self.stream()?;
        let (context, source) =
            (self.namespace().context(), (stream.clone(), Some(cursor.clone()), cursor.position()));
        let (name, trim) = (self.client_id(), Trim::Acknowledged);
        let inbox = Subscription::over_streams(context, name, Mode::Exclusive, vec![source], trim);
        // The protocol keeps in the session's state what it sent.
        inbox.forgo_delivered();
        Some(inbox)
    }

    /// The mailbox and terms of the connection that holds it.
    pub(super) fn held(&self) -> Option<(Arc<Mailbox>, Arc<SessionTerms>)> {
        match &self.state.lock().presence {
            Presence::Held(holder) => Some((holder.mailbox.clone(), holder.terms.clone())),
            Presence::Away { .. } => None,
        }
    }

    /// Drops the oldest messages of the inbox beyond its bounds, and has the log tell when it grows above them again; how
    /// many were dropped.
    pub(super) fn bound_inbox(&self, bounds: &InboxBounds) -> Result<u64, SubmitError> {
        let Some((stream, cursor)) = &self.stream else { return Ok(0) };
        let (mut dropped, mut position) = (0, cursor.position());
        // The log goes on meanwhile; each pass leaves the inbox within its bounds.
        while !stream.is_deleted() && !stream.watch(position, bounds.messages_max, bounds.bytes_max) {
            let oldest = oldest_kept(stream, position, bounds);
            let mut entry = Entry::new();
            entry.ack(cursor, &[position..oldest]);
            entry.trim(stream, oldest);
            let _ = self.submit(entry)?;
            dropped += oldest.0.saturating_sub(position.0);
            position = oldest;
        }
        Ok(dropped)
    }

    /// Drops all messages of a durable session's inbox; how many they were.
    pub(super) fn purge(&self) -> Result<(u64, Completion), SubmitError> {
        let Some((stream, cursor)) = &self.stream else { return Ok((0, Completion::Now)) };
        let (position, end) = (cursor.position(), stream.high_watermark());
        if position >= end {
            return Ok((0, Completion::Now));
        }
        let dropped = self.stored();
        let mut entry = Entry::new();
        entry.ack(cursor, &[position..end]);
        entry.trim(stream, end);
        Ok((dropped, self.submit(entry)?))
    }

    /// Whether best-effort messages wait for it while no connection holds it.
    pub(super) fn keeps_best_effort(&self) -> bool {
        self.registry().is_some_and(|registry| registry.inbox.best_effort)
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stream.as_ref().map_or(0, |(stream, _)| stream.readable_bytes())
    }

    /// Changes the counts of the namespace.
    pub(super) fn count(&self, change: impl FnOnce(&Counted)) {
        if let Some(registry) = self.registry() {
            change(&registry.counted);
        }
    }

    // ---- rows

    pub(super) fn submit(&self, entry: Entry) -> Result<Completion, SubmitError> {
        if entry.is_empty() {
            return Ok(Completion::Now);
        }
        Ok(Completion::At(self.namespace.log().submit(entry)?.lsn))
    }

    fn key_of(&self, part: &[u8]) -> Bytes {
        let id = rows::counted(self.client_id.as_bytes());
        rows::key(self.namespace.id(), &[&id, part])
    }

    pub(super) fn put_in(&self, entry: &mut Entry, key: Bytes, value: Bytes) {
        if self.is_durable() {
            entry.put(rows::SESSION_STATE, self.key_of(&key), value.clone());
        }
        self.state.lock().blobs.insert(key, value);
    }

    pub(super) fn delete_in(&self, entry: &mut Entry, key: &[u8]) {
        if self.state.lock().blobs.remove(key).is_some() && self.is_durable() {
            entry.delete(rows::SESSION_STATE, self.key_of(key));
        }
    }

    pub(super) fn set_expiry(&self, expiry: Expiry, entry: &mut Entry) {
        self.state.lock().expiry = expiry;
        self.put_row(entry, None);
    }

    pub(super) fn put_row(&self, entry: &mut Entry, detached_ms: Option<i64>) {
        let Some((stream, cursor)) = &self.stream else { return };
        let (expiry_s, owner) = {
            let state = self.state.lock();
            (state.expiry.seconds(), state.owner.as_deref().map(str::to_owned))
        };
        let row = SessionRow { stream: stream.id().0, cursor: cursor.id().0, expiry_s, detached_ms, owner };
        let key = rows::key(self.namespace.id(), &[self.client_id.as_bytes()]);
        entry.put(rows::SESSIONS, key, rows::encode_session(&row));
    }

    /// Adds the trim of acknowledged messages to the entry.
    pub(super) fn trim(&self, entry: &mut Entry) {
        if let Some((stream, cursor)) = &self.stream
            && cursor.position() > stream.start()
        {
            entry.trim(stream, cursor.position());
        }
    }

    // ---- subscriptions

    pub(super) fn has_filter(&self, text: &[u8]) -> bool {
        self.state.lock().filters.contains_key(text)
    }

    /// Whether a condition holds for all filters, those of shared subscriptions not among them. False without asking if
    /// there are more than `filters_max`.
    pub(super) fn all_filters(&self, filters_max: usize, holds: impl Fn(&[u8]) -> bool) -> bool {
        let state = self.state.lock();
        let mut own = state.filters.keys().filter(|text| split_share(text).is_none());
        state.filters.len() <= filters_max && own.all(|filter| holds(filter))
    }

    /// Sets a subscription. Whether it existed, and when it is durable.
    pub(super) fn put_filter(
        &self,
        text: &[u8],
        options: &SubscriptionOptions,
    ) -> Result<(bool, Completion), SubscribeError> {
        self.namespace.limits().check_address(b'/', text)?;
        let mut state = self.state.lock();
        if state.filters.len() >= SESSION_FILTERS_MAX && !state.filters.contains_key(text) {
            let max = SESSION_FILTERS_MAX as u64;
            return Err(LimitReached { what: "subscriptions of this session", max }.into());
        }
        let mut entry = Entry::new();
        if self.is_durable() && !is_seeded(Bug::ForgetFilter) {
            entry.put(rows::SESSION_FILTERS, self.key_of(text), rows::encode_filter(options));
        }
        let was_exclusive = state.filters.get(text).is_some_and(|before| before.exclusive);
        if options.exclusive && !was_exclusive && !self.claim(text) {
            return Err(SubscribeError::Taken);
        }
        let submitted = self.submit(entry);
        // The filter is the session's own if its row says so.
        if was_exclusive != options.exclusive && submitted.is_ok() == was_exclusive {
            self.release(text);
        }
        let completion = submitted?;
        let existed = state.filters.insert(text.into(), options.clone()).is_some();
        if !existed {
            self.count(|counted| counted.add_filter(text));
        }
        Ok((existed, completion))
    }

    /// Removes a subscription. Whether it existed, and when the removal is durable.
    pub(super) fn remove_filter(self: &Arc<Self>, text: &[u8]) -> Result<(bool, Completion), SubmitError> {
        let mut state = self.state.lock();
        if !state.filters.contains_key(text) {
            return Ok((false, Completion::Now));
        }
        let mut entry = Entry::new();
        self.delete_filter_row(text, &mut entry);
        let completion = self.submit(entry)?;
        let removed = state.filters.remove(text);
        drop(state);
        self.count(|counted| counted.remove_filter(text));
        if removed.is_some_and(|options| options.exclusive) {
            self.release(text);
        }
        self.leave(text);
        Ok((true, completion))
    }

    /// Makes an exclusive subscription of this filter its own; false if it is another session's.
    pub(super) fn claim(&self, filter: &[u8]) -> bool {
        self.registry().is_none_or(|registry| registry.exclusive.claim(filter, self.id))
    }

    fn release(&self, filter: &[u8]) {
        self.registry().iter().for_each(|registry| registry.exclusive.release(filter, self.id));
    }

    /// Ends the delivery of a subscription that was removed.
    fn leave(self: &Arc<Self>, text: &[u8]) {
        match split_share(text) {
            Some((group, filter)) => {
                if let Some(registry) = self.registry() {
                    registry.leave_group(group, filter, self.id);
                }
            }
            None => {
                self.unbind(text);
                self.namespace.changed();
            }
        }
    }

    fn delete_filter_row(&self, text: &[u8], entry: &mut Entry) {
        if self.is_durable() {
            entry.delete(rows::SESSION_FILTERS, self.key_of(text));
        }
    }

    fn target(self: &Arc<Self>, options: &SubscriptionOptions) -> RouteTarget {
        let inbox: Weak<SessionCore> = Arc::downgrade(self);
        RouteTarget::Inbox { inbox, guaranteed: options.guaranteed, no_local: options.no_local }
    }

    /// Binds it to the hub by a filter, or changes the options of that binding.
    pub(super) fn bind(self: &Arc<Self>, text: &[u8], options: &SubscriptionOptions) {
        self.namespace.hub().rebind(Binding {
            target: self.target(options),
            key: text.into(),
            slashed: true,
            declared: None,
        });
        self.namespace.changed();
    }

    fn unbind(self: &Arc<Self>, text: &[u8]) {
        let target = self.target(&SubscriptionOptions::default());
        self.namespace.hub().unbind(&target, true, text, &Arguments::new());
    }

    /// Ends the delivery of all its subscriptions. It has ended: routes that are found from now on do not lead to it,
    /// whenever its bindings are removed.
    fn leave_all(self: &Arc<Self>, filters: Few<Box<[u8]>, SubscriptionOptions>) {
        self.namespace.changed();
        // The client may come again at once and want these.
        let exclusive = filters.iter().filter(|(_, options)| options.exclusive);
        exclusive.for_each(|(filter, _)| self.release(filter));
        // Without a registry the broker is gone, and its bindings with it.
        let Some(registry) = self.registry() else { return };
        let blocking = &self.namespace.context().blocking;
        let is_little = blocking.is_little(filters.len(), LEFT_AT_ONCE_MAX);
        let (core, mut left) = (self.clone(), filters.into_keys());
        let mut leave = move || {
            let slice: Vec<_> = left.by_ref().take(LEFT_AT_ONCE_MAX).collect();
            core.leave_slice(&slice);
            slice.len() == LEFT_AT_ONCE_MAX
        };
        if is_little {
            leave();
        } else {
            registry.leaving.spawn(blocking, leave);
        }
    }

    /// Removes some of the subscriptions that it had when it ended.
    fn leave_slice(self: &Arc<Self>, texts: &[Box<[u8]>]) {
        self.count(|counted| texts.iter().for_each(|text| counted.remove_filter(text)));
        let (own, shared): (Vec<_>, Vec<_>) = texts.iter().partition(|text| split_share(text).is_none());
        let target = self.target(&SubscriptionOptions::default());
        self.namespace.hub().unbind_filters(&target, own.into_iter().map(|text| &**text));
        shared.into_iter().for_each(|text| self.leave(text));
    }

    /// Ends it: deletes its subscriptions, state and messages, in memory and in the log.
    pub(super) fn end(self: &Arc<Self>) -> Result<Completion, SubmitError> {
        let (filters, completion) = {
            let mut state = self.state.lock();
            if self.ended.load(Ordering::Acquire) {
                return Ok(Completion::Now);
            }
            let mut entry = Entry::new();
            if let Some((stream, cursor)) = &self.stream {
                state.filters.keys().for_each(|text| self.delete_filter_row(text, &mut entry));
                let blobs = state.blobs.keys();
                blobs.for_each(|key| entry.delete(rows::SESSION_STATE, self.key_of(key)));
                entry.delete(rows::SESSIONS, rows::key(self.namespace.id(), &[self.client_id.as_bytes()]));
                entry.delete_cursor(cursor.id());
                entry.delete_stream(stream.id());
            }
            let completion = self.submit(entry)?;
            self.ended.store(true, Ordering::Release);
            state.blobs = Few::default();
            (std::mem::take(&mut state.filters), completion)
        };
        self.leave_all(filters);
        if let Some(registry) = self.registry() {
            registry.remove(self);
        }
        self.end_queues();
        if self.is_durable() {
            self.namespace.audit(AuditKind::Deleted, "delete", "session", &self.client_id);
        }
        Ok(completion)
    }

    /// Ends it together with its whole namespace, from whose hub it need not be unbound.
    pub(super) fn remove(&self, removal: &mut Removal<'_>) {
        let (filters, blobs) = {
            let mut state = self.state.lock();
            self.ended.store(true, Ordering::Release);
            (std::mem::take(&mut state.filters), std::mem::take(&mut state.blobs))
        };
        self.remove_will(removal);
        self.end_queues();
        if let Some((stream, cursor)) = &self.stream {
            filters.keys().for_each(|text| removal.row(rows::SESSION_FILTERS, self.key_of(text)));
            blobs.keys().for_each(|key| removal.row(rows::SESSION_STATE, self.key_of(key)));
            removal.row(rows::SESSIONS, rows::key(self.namespace.id(), &[self.client_id.as_bytes()]));
            removal.cursor(cursor.id().0);
            removal.stream(stream.id().0);
        }
    }

    /// Ends it where nobody waits for the outcome: what the log rejects is logged.
    pub(super) fn end_unattended(self: &Arc<Self>) {
        if let Err(error) = self.end() {
            self.log_rejected(&error);
        }
    }

    /// Logs a write that the log rejected and that no client waits for.
    pub(super) fn log_rejected(&self, error: &SubmitError) {
        tracing::warn!(client_id = %self.client_id, %error, "failed to write session state");
    }
}

impl Inbox for SessionCore {
    fn id(&self) -> u64 {
        self.id
    }

    fn name(&self) -> &str {
        &self.client_id
    }

    fn is_open(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    fn receive(&self, guaranteed: bool, set: &mut crate::receivers::ReceiverSet) {
        if let (Some((stream, _)), true) = (&self.stream, guaranteed) {
            set.add_stream(stream);
            return;
        }
        let mut queues = self.queues.lock();
        queues.is_routed = true;
        match (self.receiver(&mut queues, guaranteed), &self.stream) {
            (Some(queue), _) => _ = set.add_live(queue),
            (None, Some((stream, _))) if self.keeps_best_effort() => _ = set.add_stream(stream),
            (None, _) => {}
        }
    }
}
