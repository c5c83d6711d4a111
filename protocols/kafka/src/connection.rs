//! A connection: the session on the driver, with requests cut out of what was received, deadlines, and large requests.
//!
//! A request is a slice of the receive buffer, so that a producer's batch reaches the log without a copy.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use inver_broker::{
    AuthError, CloseReason, Connection, Credentials, Identity, ListenerInfo, LiveConnection, Mailbox,
};
use inver_driver::{
    Activity, Close, Connections, Driver, End, Machine, Output, Owned, Progress, Serving, Timeouts, is_over,
};
use inver_storage::{Log, Lsn};
use tokio::time::Instant;

use crate::budget::Share;
use crate::error::ConnectionError;
use crate::node::Node;
use crate::sasl;
use crate::session::{Detached, Handled, Next, Session};

/// Bytes of the length before a request.
const LENGTH_BYTES: usize = 4;

/// Requests above this many bytes need a share of the memory that all connections have for such.
const LARGE_REQUEST_BYTES: usize = 1 << 20;

/// Serves one connection to its end.
pub(crate) fn serve(
    connection: Connection,
    node: Arc<Node>,
    connections: Arc<Connections>,
) -> Serving<Client> {
    Serving::open(open(connection, node, connections))
}

/// A client whose certificate names a user, and one without credentials where such clients are let in, are served from
/// the start.
async fn open(
    connection: Connection,
    node: Arc<Node>,
    connections: Arc<Connections>,
) -> Option<Driver<Client>> {
    let (listener, peer) = (connection.listener.clone(), connection.peer.ip());
    let named = connection.certificate.as_ref().and_then(|certificate| certificate.user.clone());
    let given = named.map_or(Credentials::Anonymous, |user| Credentials::Certificate { user });
    let (mailbox, now) = (Mailbox::new(), Instant::now());
    let login_by = now + node.config.limits.timeouts.login;
    let mut session = Session::new(node.clone(), connection.endpoints(), mailbox.clone());
    match node.broker.authenticate(&listener, peer, &given).await {
        Ok(identity) => {
            if let Err(error) = session.admit(identity) {
                session.client().login_refused(error.login_refusal(), &error);
                return None;
            }
        }
        Err(error @ AuthError::LoopbackOnly) => {
            session.client().login_refused((&error).into(), &error);
            return None;
        }
        // The client may log in by SASL.
        Err(error) => {
            if let Credentials::Certificate { user } = &given {
                session.certificate_refused(user, &error);
            }
        }
    }
    let client = Client {
        node,
        connections: connections.clone(),
        listener,
        session,
        mailbox,
        now,
        login_by,
        has_begun: false,
        whole_by: None,
        large: None,
        is_full: false,
        work: None,
        checked: None,
    };
    Some(Driver::new(connection, &connections, client))
}

/// A connected client.
pub(crate) struct Client {
    node: Arc<Node>,
    connections: Arc<Connections>,
    listener: Arc<ListenerInfo>,
    session: Session,
    mailbox: Arc<Mailbox>,
    now: Instant,
    /// A client must have authenticated by then, whatever else it sends.
    login_by: Instant,
    /// The first bytes of a request have been received, and not the last.
    has_begun: bool,
    /// When that request must be complete.
    whole_by: Option<Instant>,
    /// The large request that is being received or handled, or waits for memory.
    large: Option<Large>,
    /// The output is full: complete responses wait for it, not for the log.
    is_full: bool,
    /// What must be done before another request is taken.
    work: Option<Work>,
    /// Credentials that were checked.
    checked: Option<(sasl::Credentials, Result<Identity, AuthError>)>,
}

/// A request above [`LARGE_REQUEST_BYTES`].
struct Large {
    /// Its share of the memory for large requests; none while it waits.
    share: Option<Share>,
    /// When it asked for its share.
    asked: Instant,
}

enum Work {
    /// Credentials are being checked.
    Check(Option<sasl::Credentials>, Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send>>),
    /// A request of so many bytes that may take long is handled on another thread.
    Run(usize, Pin<Box<dyn Future<Output = Option<Handled>> + Send>>),
    /// A large request waits for memory.
    Wait(Pin<Box<dyn Future<Output = Option<Share>> + Send>>),
}

impl Client {
    /// The next request, without its length prefix, or the bytes that it lacks (0 if that is not known).
    fn next_request(&mut self, input: &mut BytesMut) -> Result<Result<Bytes, usize>, ConnectionError> {
        let Some(prefix) = input.first_chunk() else { return Ok(Err(0)) };
        let length = i32::from_be_bytes(*prefix);
        let rest = input.get(LENGTH_BYTES..).unwrap_or_default();
        if rest.len() < 2 && length >= 2 {
            // The limit depends on the API, which is not known yet.
            return Ok(Err(0));
        }
        let bytes_max = self.session.request_bytes_max(rest);
        let too_long = ConnectionError::TooLong { bytes: i64::from(length), bytes_max };
        let Ok(length) = usize::try_from(length) else { return Err(too_long) };
        if length > bytes_max {
            return Err(too_long);
        }
        if rest.len() < length {
            if length > LARGE_REQUEST_BYTES && self.large.is_none() {
                self.reserve(length);
            }
            return Ok(Err(length - rest.len()));
        }
        input.advance(LENGTH_BYTES);
        Ok(Ok(input.split_to(length).freeze()))
    }

    /// Takes a share of the memory for large requests, or waits for it.
    fn reserve(&mut self, bytes: usize) {
        let share = self.node.large_requests.try_take(bytes);
        if share.is_none() {
            self.work = Some(Work::Wait(Box::pin(self.node.large_requests.take(bytes))));
        }
        self.large = Some(Large { share, asked: self.now });
    }

    /// There is memory for the large request. The time that it waited does not count.
    fn has_memory(&mut self, share: Option<Share>) {
        let Some(large) = &mut self.large else { return };
        large.share = share;
        self.whole_by = self.whole_by.map(|by| by + large.asked.elapsed());
    }

    fn check(&mut self, credentials: sasl::Credentials) {
        let shown =
            Credentials::Password { user: credentials.user.clone(), password: credentials.password.clone() };
        let (broker, address) = (self.node.broker.clone(), self.session.peer().ip());
        let listener = self.listener.clone();
        let check = Box::pin(async move { broker.authenticate(&listener, address, &shown).await });
        self.work = Some(Work::Check(Some(credentials), check));
    }

    /// Handles a request on another thread when it is its turn.
    fn run(&mut self, request: Detached) {
        let (turns, connections) = (self.node.long_requests.clone(), self.connections.clone());
        let (bytes, large) = (request.bytes(), self.large.take());
        let run = Box::pin(async move {
            let turn = turns.acquire_owned().await.ok()?;
            let handled = tokio::task::spawn_blocking(move || {
                let handled = request.run();
                connections.add_counts();
                drop((turn, large));
                handled
            });
            handled.await.ok()
        });
        self.work = Some(Work::Run(bytes, run));
    }
}

impl Machine for Client {
    type Input = Owned;
    type Error = ConnectionError;

    // The input itself decides, by what the client sends.
    const READ_BYTES: usize = usize::MAX;

    // Responses say for how long the client waits, so what a request uses is known when it is handled.
    const IS_METERED: bool = false;

    fn timeouts(&self) -> &Timeouts {
        &self.node.config.limits.timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn place(&self) -> Option<&LiveConnection> {
        self.session.place()
    }

    fn log(&self) -> &Log {
        self.node.broker.log()
    }

    fn held_bytes(&self) -> usize {
        let detached = match self.work {
            Some(Work::Run(bytes, _)) => bytes,
            _ => 0,
        };
        self.session.held_bytes() + detached
    }

    fn encoded_bytes(&self) -> usize {
        self.session.encoded_bytes()
    }

    fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    fn wake(&mut self, tokens: &[u64], _out: &mut Output) -> Result<(), ConnectionError> {
        self.session.wake(tokens, self.now);
        Ok(())
    }

    fn takes_input(&self, pending_bytes: usize) -> bool {
        self.work.is_none()
            && self.session.has_room(pending_bytes)
            && self.session.held_until(self.now).is_none()
    }

    fn held_back(&mut self, is_held_back: bool, _now: Instant, _out: &mut Output) {
        if is_held_back {
            // The client is not read: the time of its request starts again afterwards.
            self.whole_by = None;
        }
    }

    fn input(&mut self, input: &mut BytesMut, out: &mut Output) -> Result<Progress, ConnectionError> {
        let received = input.len();
        let mut missing = 0;
        let mut blocked = true;
        while self.takes_input(out.pending_bytes())
            && self.log().is_admitting()
            && !self.session.is_held_back(self.now)
        {
            match self.next_request(input)? {
                Ok(request) => {
                    self.whole_by = None;
                    match self.session.handle(request, self.now)? {
                        Next::Go => {}
                        Next::Check(credentials) => self.check(credentials),
                        Next::Run(request) => self.run(*request),
                    }
                    self.large = None;
                    self.session.advance(out)?;
                    if is_over(self.now) {
                        break;
                    }
                }
                Err(lacking) => {
                    missing = lacking;
                    blocked = false;
                    break;
                }
            }
        }
        self.has_begun = !input.is_empty();
        Ok(Progress { used: received - input.len(), blocked: blocked && self.has_begun, missing })
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, ConnectionError> {
        if let Some((credentials, outcome)) = self.checked.take() {
            self.session.authenticated(&credentials, outcome)?;
        }
        self.session.advance(out)?;
        if self.work.is_none() {
            let is_read = self.session.has_room(out.pending_bytes())
                && self.log().is_admitting()
                && !self.session.is_held_back(self.now);
            let by = self.now + self.node.config.limits.request_time_max;
            self.whole_by = (is_read && self.has_begun).then(|| self.whole_by.unwrap_or(by));
        }
        self.is_full = out.pending_bytes() >= self.node.config.limits.output_bytes_max;
        Ok(self.is_full)
    }

    fn awaits(&self) -> Option<Lsn> {
        if self.is_full { None } else { self.session.awaited_lsn() }
    }

    fn deadline(&self, activity: &Activity) -> Option<Instant> {
        let login = (!self.session.is_open()).then_some(self.login_by);
        let idle = activity.silent_for(self.node.config.limits.idle_max);
        let whole = self.whole_by.filter(|_| activity.is_read());
        let held = self.session.held_until(self.now);
        [self.session.deadline(), login, idle, whole, held].into_iter().flatten().min()
    }

    fn expired(
        &mut self,
        activity: &Activity,
        now: Instant,
        _out: &mut Output,
    ) -> Result<(), ConnectionError> {
        if !self.session.is_open() && self.login_by <= now {
            return Err(ConnectionError::NoLogin);
        }
        if activity.silent_for(self.node.config.limits.idle_max).is_some_and(|due| due <= now) {
            return Err(ConnectionError::Idle);
        }
        if activity.is_read() && self.whole_by.is_some_and(|due| due <= now) {
            return Err(ConnectionError::TooSlow);
        }
        self.session.wake(&[], now);
        Ok(())
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        match &mut self.work {
            None => return Poll::Pending,
            Some(Work::Check(credentials, check)) => {
                let outcome = ready!(check.as_mut().poll(cx));
                self.checked = credentials.take().map(|credentials| (credentials, outcome));
            }
            Some(Work::Run(_, run)) => {
                let handled = ready!(run.as_mut().poll(cx)).ok_or(ConnectionError::Unanswered)?;
                self.session.handled(handled, self.now)?;
            }
            Some(Work::Wait(wait)) => {
                let share = ready!(wait.as_mut().poll(cx));
                self.has_memory(share);
            }
        }
        self.work = None;
        Poll::Ready(Ok(()))
    }

    fn shutdown(&mut self, _now: Instant, _out: &mut Output) -> Result<(), ConnectionError> {
        Err(ConnectionError::ShuttingDown)
    }

    fn close(
        &mut self,
        reason: &CloseReason,
        _now: Instant,
        _out: &mut Output,
    ) -> Result<(), ConnectionError> {
        Err(ConnectionError::Closed(reason.clone()))
    }

    fn idle(&mut self) {
        self.session.tidy();
    }

    fn end(&mut self, end: &End<ConnectionError>, out: &mut Output) -> Close {
        // What was requested before is still answered.
        if let Err(error) = self.session.advance(out) {
            tracing::debug!(%error, "responses dropped");
        }
        match end {
            End::Protocol(error) => {
                if matches!(error, ConnectionError::Log(_) | ConnectionError::Unanswered) {
                    tracing::error!(%error, "connection ended");
                }
                self.session.failed(error);
            }
            _ => self.session.client().ended(end),
        }
        match end {
            End::Io(_) | End::NoMemory(_) | End::Stalled => Close::Abort,
            End::Closed | End::Protocol(_) => Close::Linger,
        }
    }

    fn owes(&self) -> Option<Lsn> {
        self.session.awaited_lsn()
    }
}
