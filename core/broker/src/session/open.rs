//! Opening a session: take-over from another connection, resumption, creation, recovery; and detaching.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_storage::{Cursor, Entry, Offset, Stream, SubmitError};
use tokio::sync::watch;

use super::Session;
use super::core::{Holder, Presence, SessionCore, State};
use super::receive::ReceiveGate;
use super::registry::Sessions;
use super::share::split_share;
use super::terms::SessionSpec;
use super::will::{self, PendingWill};
use crate::audit::AuditKind;
use crate::completion::Completion;
use crate::context::{Due, Timed};
use crate::exchange::Inbox;
use crate::limits::{self, LimitReached};
use crate::rows::{self, SessionRow};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{Expiry, SubscriptionOptions};

/// Seconds that a connection has to release its session to another.
const TAKE_OVER_SECONDS_MAX: u64 = 10;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// An opened session.
pub struct Opened {
    /// The session; dropping it detaches it.
    pub session: Session,
    /// It existed before.
    pub present: bool,
    /// Its subscriptions; shared ones must be joined again.
    pub subscriptions: Vec<(Bytes, SubscriptionOptions)>,
    /// Protocol state, in the order of its keys.
    pub state: Vec<(Bytes, Bytes)>,
    /// When the client may be told.
    pub completion: Completion,
}

/// Why a session cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The connection that holds it did not release it in time.
    #[error("another connection holds the session and does not release it")]
    Busy,
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
    /// It belongs to another user.
    #[error("the session belongs to another user")]
    OtherOwner,
    /// The log does not have the inbox's stream.
    #[error("the session's inbox is missing from the log")]
    InboxMissing,
}

impl Sessions {
    /// Opens a client's session. A connection that holds it is told to drop it and waited for. A session belongs to the
    /// user who made it, and only that user may open or replace it, or one who may resume sessions of that client id.
    pub async fn open(&self, spec: SessionSpec<'_>) -> Result<Opened, SessionError> {
        loop {
            let held = self.get(spec.client_id);
            held.iter().try_for_each(|core| core.check_owner(&spec))?;
            if let Some(released) = held.and_then(|core| core.ask_holder()) {
                self.await_release(released).await?;
                continue;
            }
            let _changing = self.0.changing();
            let present = self.get(spec.client_id);
            present.iter().try_for_each(|core| core.check_owner(&spec))?;
            match present {
                Some(core) if core.state.lock().is_held() && !is_seeded(Bug::TakeOverAtOnce) => {}
                Some(core)
                    if !spec.clean_start && !core.ended.load(Ordering::Acquire) && !core.is_expired() =>
                {
                    core.publish_due_will();
                    return Ok(core.hold(&spec, true, Completion::Now)?);
                }
                other => {
                    match other {
                        None => {
                            let max = self.namespace().sessions_max();
                            limits::check("sessions", self.len(), max)?;
                        }
                        Some(old) => {
                            if old.is_expired() {
                                old.note_expired();
                            }
                            old.publish_will();
                            if !is_seeded(Bug::KeepOldSession) {
                                let _ = old.end()?;
                            }
                        }
                    }
                    let (core, completion) = self.create(&spec)?;
                    self.insert(&core);
                    if core.is_durable() {
                        let client = Some(&*spec.permissions);
                        let namespace = self.namespace();
                        namespace.audit_by(client, AuditKind::Topology, "create", "session", spec.client_id);
                    }
                    return Ok(core.hold(&spec, false, completion)?);
                }
            }
        }
    }

    /// Waits until the connection that was asked for a session drops it.
    pub(super) async fn await_release(
        &self,
        mut released: watch::Receiver<bool>,
    ) -> Result<(), SessionError> {
        let timeout = Duration::from_secs(TAKE_OVER_SECONDS_MAX);
        tokio::select! {
            biased;
            _ = released.wait_for(|released| *released) => Ok(()),
            () = self.namespace().clock().sleep(timeout) => Err(SessionError::Busy),
        }
    }

    fn create(&self, spec: &SessionSpec<'_>) -> Result<(Arc<SessionCore>, Completion), SessionError> {
        let (log, expiry) = (self.namespace().log(), spec.expiry);
        let owner = spec.owner();
        if !expiry.outlives_connection() {
            let core = SessionCore::new(next_id(), spec.shared_client_id(), &self.0, None, expiry);
            core.state.lock().owner = owner;
            return Ok((core, Completion::Now));
        }
        let (stream, cursor) = (log.allocate_stream(), log.allocate_cursor());
        let mut entry = Entry::new();
        entry.create_stream(stream);
        entry.create_cursor(cursor, stream, Offset(0));
        let expiry_s = expiry.seconds();
        let owner = owner.as_deref().map(str::to_owned);
        let row = SessionRow { stream: stream.0, cursor: cursor.0, expiry_s, detached_ms: None, owner };
        let key = rows::key(self.namespace().id(), &[spec.client_id.as_bytes()]);
        entry.put(rows::SESSIONS, key, rows::encode_session(&row));
        let submitted = log.submit(entry)?;
        let core = self.over_log(spec.shared_client_id(), &row, expiry).ok_or(SessionError::InboxMissing)?;
        Ok((core, Completion::At(submitted.lsn)))
    }

    fn over_log(&self, client_id: Arc<str>, row: &SessionRow, expiry: Expiry) -> Option<Arc<SessionCore>> {
        let log = self.namespace().log();
        let stream = (log.stream(row.stream.into())?, log.cursor(row.cursor.into())?);
        let core = SessionCore::new(next_id(), client_id, &self.0, Some(stream), expiry);
        core.state.lock().owner = row.owner.as_deref().map(Arc::from);
        Some(core)
    }

    /// Restores a session from its row; its connection, if it had one, ended with the process. None if its inbox is
    /// missing from the log.
    pub(crate) fn recover(&self, client_id: &str, row: &SessionRow) -> Option<Arc<SessionCore>> {
        let expiry = row.expiry_s.map_or(Expiry::Never, Expiry::After);
        let core = self.over_log(client_id.into(), row, expiry)?;
        if let Some(since_ms) = row.detached_ms {
            core.state.lock().presence = Presence::Away { since_ms };
        }
        self.insert(&core);
        Some(core)
    }
}

pub(super) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl SessionCore {
    pub(crate) fn recover_filter(self: &Arc<Self>, text: &[u8], options: SubscriptionOptions) {
        match (split_share(text), self.registry()) {
            (Some((group, filter)), Some(registry)) => {
                let recovered = registry.recover_member(group, filter, options.guaranteed, self.id());
                if let Err(error) = recovered {
                    let client_id = &**self.client_id();
                    tracing::error!(client_id, %error, "failed to restore shared subscription");
                }
            }
            (Some(_), None) => {}
            (None, _) => self.bind(text, &options),
        }
        if options.exclusive && !self.claim(text) {
            let client_id = &**self.client_id();
            tracing::error!(client_id, "another session has an exclusive subscription too");
        }
        self.count(|counted| counted.add_filter(text));
        self.state.lock().filters.insert(text.into(), options);
    }

    pub(crate) fn recover_blob(&self, key: &[u8], value: Bytes) {
        if let Some(will) = will::recovered(key, &value) {
            self.state.lock().will = Some(Box::new(PendingWill { will, permissions: None }));
        }
        // Copied: a slice would keep all of the row's key in memory.
        self.state.lock().blobs.insert(Bytes::copy_from_slice(key), value);
    }

    /// Finishes recovery: trims the inbox, and sets the timer of the will and the expiry.
    pub(crate) fn recovered(self: &Arc<Self>) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        self.trim(&mut entry);
        self.arm();
        self.submit(entry)
    }

    /// Whether the client may open or replace it.
    fn check_owner(&self, spec: &SessionSpec<'_>) -> Result<(), SessionError> {
        let is_others =
            self.state.lock().owner.as_deref().is_some_and(|owner| Some(owner) != spec.permissions.user());
        let may_resume = || spec.permissions.may(ResourceKind::Session, spec.client_id, Operation::Resume);
        if !is_others || may_resume() {
            return Ok(());
        }
        spec.permissions.denied(ResourceKind::Session, spec.client_id, Operation::Resume);
        Err(SessionError::OtherOwner)
    }

    /// Asks the present holder to release it; none if there is none.
    pub(super) fn ask_holder(&self) -> Option<watch::Receiver<bool>> {
        let mut state = self.state.lock();
        if is_seeded(Bug::TakeOverAtOnce) {
            return None;
        }
        let Presence::Held(holder) = &mut state.presence else { return None };
        holder.mailbox.post(holder.terms.taken_over_token);
        Some(holder.released.get_or_insert_with(|| watch::channel(false).0).subscribe())
    }

    /// Gives the session to a connection, while no other holds it.
    fn hold(
        self: &Arc<Self>,
        spec: &SessionSpec<'_>,
        present: bool,
        created: Completion,
    ) -> Result<Opened, SubmitError> {
        let (subscriptions, blobs): (Vec<(Bytes, SubscriptionOptions)>, _) = {
            let mut state = self.state.lock();
            if present && let Some(due) = state.due_ms() {
                self.namespace().context().timers.cancel(due, Due::of(self));
            }
            let (mailbox, terms) = (spec.mailbox.clone(), spec.terms.clone());
            state.presence = Presence::Held(Holder { mailbox, terms, released: None });
            state.expiry = spec.expiry;
            if state.owner.is_none() {
                state.owner = spec.owner();
            }
            let blobs = state.blobs.iter().filter(|(k, _)| !will::is_key(k));
            (
                state.filters.iter().map(|(t, o)| (Bytes::copy_from_slice(t), o.clone())).collect(),
                blobs.map(|(k, v)| (k.clone(), v.clone())).collect(),
            )
        };
        self.open_queues();
        self.count(|counted| _ = counted.connected.fetch_add(1, Ordering::Relaxed));
        let session = Session {
            core: self.clone(),
            inbox: None,
            live: None,
            gate: Box::new(ReceiveGate::new(spec.permissions.clone())),
        };
        let mut entry = Entry::new();
        // A will whose delay is running is not published once the session is resumed.
        if !is_seeded(Bug::WillDespiteReturn) {
            self.set_will(None, &mut entry);
        }
        if present {
            self.put_row(&mut entry, None);
        }
        let completion = created.and(self.submit(entry)?);
        if self.may_have_stored(&subscriptions) {
            session.open_inbox();
        }
        if !subscriptions.is_empty() {
            // Routes found before this have no receivers in memory, or old ones.
            self.forget_routes();
        }
        Ok(Opened { session, present, subscriptions, state: blobs, completion })
    }

    /// Whether its stream may have messages, now or by routes that were found already.
    fn may_have_stored(&self, subscriptions: &[(Bytes, SubscriptionOptions)]) -> bool {
        let has_some = |(stream, cursor): &(Stream, Cursor)| stream.next_offset() > cursor.position();
        self.keeps_best_effort()
            || subscriptions.iter().any(|(_, options)| options.guaranteed)
            || self.stream().is_some_and(has_some)
    }

    /// Detaches it from its connection, which ended.
    pub(super) fn detach(self: &Arc<Self>) {
        self.count(|counted| _ = counted.connected.fetch_sub(1, Ordering::Relaxed));
        let now = self.namespace().clock().steady_ms();
        let (ends, will) = {
            let mut state = self.state.lock();
            let ends = !state.expiry.outlives_connection() || self.ended.load(Ordering::Acquire);
            let will = state.will.take_if(|pending| ends || pending.will.delay_s == 0);
            (ends, will)
        };
        will.into_iter().for_each(|will| self.publish(&will));
        if ends {
            self.end_unattended();
        } else {
            let mut entry = Entry::new();
            self.put_row(&mut entry, Some(now));
            self.trim(&mut entry);
            if let Err(error) = self.submit(entry) {
                self.log_rejected(&error);
            }
        }
        if self.is_durable() && self.keeps_best_effort() {
            // Routes that were found lead to the live queue, which is gone.
            self.forget_routes();
        }
        // Last: until here another connection that wants the session waits.
        let away = Presence::Away { since_ms: now };
        let before = std::mem::replace(&mut self.state.lock().presence, away);
        if !ends {
            self.arm();
        }
        if let Presence::Held(Holder { released: Some(released), .. }) = before {
            released.send_replace(true);
        }
    }

    /// Makes publishers find their routes again, if one of them leads to its queues.
    fn forget_routes(&self) {
        let was_routed = {
            let mut queues = self.queues.lock();
            std::mem::take(&mut queues.is_routed)
        };
        if was_routed {
            self.namespace().changed();
        }
    }

    /// Whether it has outlived its connection for as long as it may, also where its timer has not run yet.
    fn is_expired(&self) -> bool {
        let now_ms = self.namespace().clock().steady_ms();
        !is_seeded(Bug::KeepExpired) && self.state.lock().is_expired(now_ms)
    }

    fn note_expired(&self) {
        tracing::debug!(session = self.id(), client_id = &**self.client_id(), "session expired");
        self.count(|counted| _ = counted.expired.fetch_add(1, Ordering::Relaxed));
    }

    /// Publishes the will if its delay has passed, also where its timer has not run yet: a client that returns after a
    /// restart may be faster.
    fn publish_due_will(self: &Arc<Self>) {
        let now_ms = self.namespace().clock().steady_ms();
        let will = {
            let mut state = self.state.lock();
            let Presence::Away { since_ms } = state.presence else { return };
            state.will.take_if(|pending| pending.will.due_ms(since_ms) <= now_ms)
        };
        will.into_iter().for_each(|will| self.publish(&will));
    }

    /// Sets the timer for the will or the expiry, whichever is first; not while a connection holds it.
    fn arm(self: &Arc<Self>) {
        if is_seeded(Bug::KeepExpired) {
            return;
        }
        let state = self.state.lock();
        if let Some(due) = state.due_ms() {
            self.namespace().context().timers.schedule(due, Due::of(self));
        }
    }
}

impl Timed for SessionCore {
    fn order(&self) -> u64 {
        Inbox::id(self)
    }

    /// Publishes the will or ends the session, whichever is due, unless a connection took the session meanwhile.
    fn due(self: Arc<Self>, _at_ms: i64, now_ms: i64) {
        let Some(registry) = self.registry() else { return };
        // No connection takes it while this runs.
        let _changing = registry.changing();
        let (expired, will) = {
            let mut state = self.state.lock();
            let Presence::Away { since_ms: since } = state.presence else { return };
            let expired = state.is_expired(now_ms);
            let will = state.will.take_if(|pending| expired || pending.will.due_ms(since) <= now_ms);
            (expired, will)
        };
        will.into_iter().for_each(|will| self.publish(&will));
        if expired {
            self.note_expired();
            self.end_unattended();
        } else {
            self.arm();
        }
    }
}

impl State {
    pub(super) fn is_held(&self) -> bool {
        matches!(self.presence, Presence::Held(_))
    }

    fn is_expired(&self, now_ms: i64) -> bool {
        let Presence::Away { since_ms } = self.presence else { return false };
        self.expiry.ends_ms(since_ms).is_some_and(|at| at <= now_ms)
    }

    /// The deadline of the will or the expiry, whichever is first, if no connection resumes the session before; it does
    /// not change while no connection holds it.
    fn due_ms(&self) -> Option<i64> {
        let Presence::Away { since_ms: since } = self.presence else { return None };
        let will = self.will.as_ref().map(|pending| pending.will.due_ms(since));
        self.expiry.ends_ms(since).into_iter().chain(will).min()
    }
}
