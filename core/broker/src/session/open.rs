//! Opening a session: take-over from another connection, resuming, making anew; and letting go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use inver_storage::{Entry, Lsn, Offset};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::few::Few;
use super::group::split_share;
use super::{Holder, Presence, Session, SessionCore, State};
use crate::Mailbox;
use crate::context::{Due, Timed};
use crate::limits::{self, LimitReached};
use crate::namespace::Namespace;
use crate::rows::{self, SessionRow};
use crate::spec::{Expiry, SubscriptionOptions};

/// How long a connection that was told to hand over its session may take.
const TAKE_OVER_SECONDS_MAX: u64 = 10;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What a connection asks for.
pub struct SessionSpec<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// What was there before is thrown away.
    pub clean_start: bool,
    /// How long it lives on after its connection.
    pub expiry: Expiry,
    /// Woken for all that the terms name.
    pub mailbox: Arc<Mailbox>,
    /// See there.
    pub terms: &'a Arc<SessionTerms>,
}

/// What a plug agrees for all its sessions: what their mailboxes are told, and how much waits in memory.
#[derive(Clone, Debug)]
pub struct SessionTerms {
    /// The inbox has something.
    pub inbox_token: u64,
    /// The live queue has something.
    pub live_token: u64,
    /// Another connection wants the session: drop it, at once.
    pub taken_over_token: u64,
    /// Bound of the live queue.
    pub live_messages_max: u64,
    /// Bound of the live queue.
    pub live_bytes_max: u64,
}

/// A session, opened.
pub struct Opened {
    /// The session; letting it go is dropping it.
    pub session: Session,
    /// It was there before.
    pub present: bool,
    /// What it had subscribed to; shared ones must be joined again.
    pub subscriptions: Vec<(Bytes, SubscriptionOptions)>,
    /// Opaque state, in the order of its keys.
    pub state: Vec<(Bytes, Bytes)>,
    /// Wait for it before the client is told.
    pub lsn: Option<Lsn>,
}

/// Why a session cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The connection that holds it did not let it go in time.
    #[error("another connection holds the session and does not let it go")]
    Busy,
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log takes no more.
    #[error("log write rejected: {0}")]
    Log(String),
}

impl Namespace {
    /// Opens a client's session. A connection that holds it is told to drop it and waited for.
    pub async fn open_session(&self, spec: SessionSpec<'_>) -> Result<Opened, SessionError> {
        loop {
            let held = {
                let present = self.sessions().get(spec.client_id).map(|s| s.clone());
                present.and_then(|core| core.ask_holder())
            };
            if let Some(mut released) = held {
                let wait = released.wait_for(|released| *released);
                let timeout = Duration::from_secs(TAKE_OVER_SECONDS_MAX);
                if tokio::time::timeout(timeout, wait).await.is_err() {
                    return Err(SessionError::Busy);
                }
                continue;
            }
            let _sessions = self.sessions_lock();
            let present = self.sessions().get(spec.client_id).map(|s| s.clone());
            match present {
                Some(core) if core.state.lock().is_held() => {}
                Some(core) if !spec.clean_start && !core.ended.load(Ordering::Acquire) => {
                    return Ok(core.hold(&spec, true, None));
                }
                other => {
                    if other.is_none() {
                        limits::check("sessions", self.session_count(), self.limits().sessions_max)?;
                    }
                    if let Some(old) = other {
                        old.publish_will();
                        old.end();
                    }
                    let (core, lsn) = SessionCore::create(self, &spec)?;
                    self.sessions().insert(core.client_id.clone(), core.clone());
                    return Ok(core.hold(&spec, false, lsn));
                }
            }
        }
    }
}

impl SessionCore {
    fn create(
        namespace: &Namespace,
        spec: &SessionSpec<'_>,
    ) -> Result<(Arc<SessionCore>, Option<Lsn>), SessionError> {
        let log = namespace.log();
        let expiry = spec.expiry;
        if !expiry.outlives_connection() {
            return Ok((SessionCore::assemble(namespace, spec.client_id, None, expiry), None));
        }
        let (stream, cursor) = (log.allocate_stream(), log.allocate_cursor());
        let mut entry = Entry::new();
        entry.create_stream(stream);
        entry.create_cursor(cursor, stream, Offset(0));
        let (stream_id, cursor_id, expiry_s) = (stream.0, cursor.0, expiry.seconds());
        let row = SessionRow { stream: stream_id, cursor: cursor_id, expiry_s, detached_ms: None };
        let key = rows::key(namespace.id(), &[spec.client_id.as_bytes()]);
        entry.put(rows::SESSIONS, key, rows::encode(&row));
        let submitted = log.submit(entry).map_err(|e| SessionError::Log(e.to_string()))?;
        let core = SessionCore::over_log(namespace, spec.client_id, stream.0, cursor.0, expiry)
            .ok_or_else(|| SessionError::Log("the inbox was not made".into()))?;
        Ok((core, Some(submitted.lsn)))
    }

    fn over_log(
        namespace: &Namespace,
        client_id: &str,
        stream: u64,
        cursor: u64,
        expiry: Expiry,
    ) -> Option<Arc<SessionCore>> {
        let log = namespace.log();
        let (stream, cursor) = (log.stream(stream.into())?, log.cursor(cursor.into())?);
        Some(SessionCore::assemble(namespace, client_id, Some((stream, cursor)), expiry))
    }

    fn assemble(
        namespace: &Namespace,
        client_id: &str,
        stream: Option<(inver_storage::Stream, inver_storage::Cursor)>,
        expiry: Expiry,
    ) -> Arc<SessionCore> {
        Arc::new(SessionCore {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            client_id: client_id.into(),
            namespace: namespace.clone(),
            stream,
            queues: Mutex::default(),
            state: Mutex::new(State {
                filters: Few::default(),
                blobs: Few::default(),
                presence: Presence::Away { since_ms: namespace.clock().now_ms() },
                expiry,
                will: None,
            }),
            ended: AtomicBool::new(false),
        })
    }

    /// Makes a session again from its rows; its connection, if it had one, ended with the process.
    pub(crate) fn recover(
        namespace: &Namespace,
        client_id: &str,
        row: &SessionRow,
    ) -> Option<Arc<SessionCore>> {
        let expiry = row.expiry_s.map_or(Expiry::Never, Expiry::After);
        let core = SessionCore::over_log(namespace, client_id, row.stream, row.cursor, expiry)?;
        if let Some(since_ms) = row.detached_ms {
            core.state.lock().presence = Presence::Away { since_ms };
        }
        Some(core)
    }

    pub(crate) fn recover_filter(self: &Arc<Self>, text: &[u8], options: SubscriptionOptions) {
        match split_share(text) {
            Some((group, filter)) => {
                let durable = options.guaranteed;
                if let Err(error) = self.namespace.recover_member(group, filter, durable, &self.client_id) {
                    tracing::error!(client_id = %self.client_id, %error, "a shared subscription is not there again");
                }
            }
            None => self.bind(text, &options),
        }
        self.state.lock().filters.insert(text.into(), options);
    }

    pub(crate) fn recover_blob(&self, key: &[u8], value: Bytes) {
        if let Some(will) = super::will::recovered(key, &value) {
            self.state.lock().will = Some(Box::new(will));
        }
        // Copied: a part of the row's key would keep all of that.
        self.state.lock().blobs.insert(Bytes::copy_from_slice(key), value);
    }

    /// After everything was recovered: the expiry and the will run on.
    pub(crate) fn recovered(self: &Arc<Self>) {
        let mut entry = Entry::new();
        self.trim(&mut entry);
        self.submit(entry);
        self.arm();
    }

    /// Tells the present holder to let go; none if there is none.
    fn ask_holder(&self) -> Option<watch::Receiver<bool>> {
        let mut state = self.state.lock();
        let Presence::Held(holder) = &mut state.presence else { return None };
        holder.mailbox.post(holder.terms.taken_over_token);
        Some(holder.released.get_or_insert_with(|| watch::channel(false).0).subscribe())
    }

    /// Gives the session to a connection. Nobody holds it.
    fn hold(self: &Arc<Self>, spec: &SessionSpec<'_>, present: bool, lsn: Option<Lsn>) -> Opened {
        let (subscriptions, blobs): (Vec<(Bytes, SubscriptionOptions)>, _) = {
            let mut state = self.state.lock();
            if present && let Some(due) = state.due_ms() {
                self.namespace.context().timers.cancel(due, Due::of(self));
            }
            let (mailbox, terms) = (spec.mailbox.clone(), spec.terms.clone());
            state.presence = Presence::Held(Holder { mailbox, terms, released: None });
            state.expiry = spec.expiry;
            let blobs = state.blobs.iter().filter(|(k, _)| !super::will::is_key(k));
            (
                state.filters.iter().map(|(t, o)| (Bytes::copy_from_slice(t), o.clone())).collect(),
                blobs.map(|(k, v)| (k.clone(), v.clone())).collect(),
            )
        };
        let mut entry = Entry::new();
        // A will that waited for its delay is not published once the session is resumed.
        self.set_will(None, &mut entry);
        if present {
            self.put_row(&mut entry, None);
        }
        let lsn = self.submit(entry).or(lsn);
        let mut session = Session { core: self.clone(), inbox: None, live: None };
        if self.is_durable() {
            session.make_inbox();
        }
        if !subscriptions.is_empty() {
            session.make_live();
            // Routes that were found before this know no live queue, or an old one.
            if std::mem::take(&mut self.queues.lock().is_routed) {
                self.namespace.changed();
            }
        }
        Opened { session, present, subscriptions, state: blobs, lsn }
    }

    pub(super) fn put_row(&self, entry: &mut Entry, detached_ms: Option<i64>) {
        let Some((stream, cursor)) = &self.stream else { return };
        let expiry_s = self.state.lock().expiry.seconds();
        let row = SessionRow { stream: stream.id().0, cursor: cursor.id().0, expiry_s, detached_ms };
        let key = rows::key(self.namespace.id(), &[self.client_id.as_bytes()]);
        entry.put(rows::SESSIONS, key, rows::encode(&row));
    }

    /// What was acknowledged need not stay in the log.
    fn trim(&self, entry: &mut Entry) {
        if let Some((stream, cursor)) = &self.stream
            && cursor.position() > stream.start()
        {
            entry.trim(stream, cursor.position());
        }
    }

    /// The connection ended.
    pub(super) fn let_go(self: &Arc<Self>) {
        let now = self.namespace.clock().now_ms();
        let (ends, will) = {
            let mut state = self.state.lock();
            let ends = !state.expiry.outlives_connection();
            let will = state.will.take_if(|will| ends || will.delay_s == 0);
            (ends, will)
        };
        will.into_iter().for_each(|will| self.publish(&will));
        if ends {
            self.end();
        } else {
            let mut entry = Entry::new();
            self.put_row(&mut entry, Some(now));
            self.trim(&mut entry);
            self.submit(entry);
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

    /// Sets the clock for the will and the expiry, whichever is first; not while a connection holds it.
    fn arm(self: &Arc<Self>) {
        let state = self.state.lock();
        if let Some(due) = state.due_ms() {
            self.namespace.context().timers.schedule(due, Due::of(self));
        }
    }

    /// Publishes the will or expires, whichever is due, unless a connection took the session meanwhile.
    fn check_deadlines(self: &Arc<Self>, now: i64) {
        // No connection takes it while what is due is done.
        let _sessions = self.namespace.sessions_lock();
        let (expired, will) = {
            let mut state = self.state.lock();
            let Presence::Away { since_ms: since } = state.presence else { return };
            let expired = state.expiry.ends_ms(since).is_some_and(|at| at <= now);
            let will = state.will.take_if(|will| expired || will.due_ms(since) <= now);
            (expired, will)
        };
        will.into_iter().for_each(|will| self.publish(&will));
        if expired {
            self.end();
        } else {
            self.arm();
        }
    }
}

impl Timed for SessionCore {
    fn due(self: Arc<Self>, _at_ms: i64, now_ms: i64) {
        self.check_deadlines(now_ms);
    }
}

impl State {
    fn is_held(&self) -> bool {
        matches!(self.presence, Presence::Held(_))
    }

    /// When something falls due, if nobody comes before: the same from the connection's end on.
    fn due_ms(&self) -> Option<i64> {
        let Presence::Away { since_ms: since } = self.presence else { return None };
        let will = self.will.as_ref().map(|will| will.due_ms(since));
        self.expiry.ends_ms(since).into_iter().chain(will).min()
    }
}
