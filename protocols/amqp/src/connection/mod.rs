//! A connection: the session on the driver, with its deadlines, its login and the log's back-pressure.
//!
//! Back-pressure: the socket is not read while the log admits no more writes, while a reply waits for the log, while a message is on its
//! way to very many receivers, while too many confirms are outstanding, or while the client does not read its output. A client that is not read need not send
//! heartbeats.

mod ended;
mod liveness;
mod pressure;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use inver_broker::{
    AuthError, Broker, CloseReason, Connection, Endpoints, Identity, LiveConnection, LoginRefusal, Mailbox,
};
use inver_driver::{
    Activity, Close, Connections, Driver, End, Machine, Output, Progress, Serving, Shared, Timeouts,
};
use inver_storage::{Log, LogError, Lsn};
use tokio::time::Instant;

use self::ended::Ended;
use self::liveness::Liveness;
use self::pressure::Pressure;
use crate::codec::write;
use crate::map::ORIGIN;
use crate::session::{Limits, Session};

type Login = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send>>;

/// The session with everything that it leaves to a connection.
pub(crate) struct Peer {
    session: Session,
    broker: Broker,
    limits: Arc<Limits>,
    mailbox: Arc<Mailbox>,
    now: Instant,
    liveness: Liveness,
    pressure: Pressure,
    is_shutdown: bool,
    /// Credentials are being checked.
    login: Option<Login>,
    verdict: Option<Result<Identity, AuthError>>,
}

/// Serves a connection to its end.
pub(crate) fn serve(
    connection: Connection,
    broker: Broker,
    limits: &Arc<Limits>,
    connections: &Arc<Connections>,
) -> Serving<Peer> {
    let (mailbox, now) = (Mailbox::new(), Instant::now());
    let client = broker.client_log().client(ORIGIN, connection.peer);
    let endpoints = connection.endpoints();
    let certificate_user = connection.certificate.as_ref().and_then(|certificate| certificate.user.clone());
    let peer = Peer {
        session: Session::new(
            broker.clone(),
            limits.clone(),
            mailbox.clone(),
            client,
            endpoints,
            certificate_user,
        ),
        broker,
        mailbox,
        now,
        liveness: Liveness::new(now, limits.timeouts.login),
        pressure: Pressure::default(),
        is_shutdown: false,
        login: None,
        verdict: None,
        limits: limits.clone(),
    };
    Serving::Running(Driver::new(connection, connections, peer))
}

impl Machine for Peer {
    type Input = Shared;
    type Error = Ended;

    const READ_BYTES: usize = 256 * 1024;

    fn timeouts(&self) -> &Timeouts {
        &self.limits.timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn place(&self) -> Option<&LiveConnection> {
        self.session.place()
    }

    fn held_bytes(&self) -> usize {
        self.session.held_bytes().0
    }

    fn transaction_bytes(&self) -> usize {
        self.session.held_bytes().1
    }

    fn log(&self) -> &Log {
        self.session.log()
    }

    fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.session.begin_turn(now);
    }

    fn wake(&mut self, tokens: &[u64], _out: &mut Output) -> Result<(), Ended> {
        self.session.wake(tokens);
        Ok(())
    }

    fn takes_input(&self, pending_bytes: usize) -> bool {
        self.session.takes_input() && pending_bytes < self.limits.output_bytes_max
    }

    fn needs_admission(&self) -> bool {
        self.session.is_open()
    }

    fn is_at_gate(&self) -> bool {
        self.session.is_at_gate()
    }

    fn held_back(&mut self, is_held_back: bool, now: Instant, out: &mut Output) {
        self.pressure.set(is_held_back, now, &mut self.session, out.flat());
    }

    fn input(&mut self, input: &[u8], out: &mut Output) -> Result<Progress, Ended> {
        let progress = self.session.input(input, out.flat());
        let blocked = !progress.partial && progress.done < input.len();
        Ok(Progress { used: progress.done, blocked, missing: 0 })
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Ended> {
        let room = out.room();
        let out = out.flat();
        if let Some(verdict) = self.verdict.take() {
            self.session.authenticated(verdict, out);
        }
        self.session.finish_input(out);
        let has_more = self.session.deliver(room, out);
        if let Some(credentials) = self.session.take_credentials() {
            let (broker, Endpoints { peer, listener, .. }) =
                (self.broker.clone(), self.session.endpoints().clone());
            self.login =
                Some(Box::pin(async move { broker.authenticate(&listener, peer.ip(), &credentials).await }));
        }
        if self.session.is_over() {
            return Err(Ended::Over);
        }
        self.liveness.follow(&self.session, self.is_shutdown, self.now);
        Ok(has_more)
    }

    fn awaits(&self) -> Option<Lsn> {
        self.session.awaits()
    }

    fn log_failed(&mut self, error: LogError, out: &mut Output) -> Result<(), Ended> {
        self.session.log_failed(error, out.flat());
        Ok(())
    }

    fn deadline(&self, activity: &Activity) -> Option<Instant> {
        let deadlines = [self.liveness.deadline(activity), self.pressure.deadline(&self.session)];
        deadlines.into_iter().flatten().min()
    }

    fn expired(&mut self, activity: &Activity, now: Instant, out: &mut Output) -> Result<(), Ended> {
        if self.pressure.deadline(&self.session).is_some_and(|due| due <= now) {
            self.session.send_blocked(out.flat());
        }
        if self.liveness.expired(activity, now)? && out.pending_bytes() == 0 {
            out.flat().extend_from_slice(&write::HEARTBEAT);
        }
        Ok(())
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.session.deliver_slice() {
            return Poll::Ready(Ok(()));
        }
        let Some(login) = &mut self.login else { return Poll::Pending };
        let verdict = ready!(login.as_mut().poll(cx));
        self.login = None;
        self.verdict = Some(verdict);
        Poll::Ready(Ok(()))
    }

    fn shutdown(&mut self, _now: Instant, out: &mut Output) -> Result<(), Ended> {
        self.is_shutdown = true;
        self.session.close("shutdown", out.flat());
        Ok(())
    }

    fn close(&mut self, reason: &CloseReason, _now: Instant, out: &mut Output) -> Result<(), Ended> {
        self.session.force_close(reason, out.flat());
        // The client may answer with `connection.close-ok` much later.
        if let Some(place) = self.session.place().filter(|_| self.session.is_closing()) {
            place.leave();
        }
        Ok(())
    }

    fn end(&mut self, end: &End<Ended>, out: &mut Output) -> Close {
        if let End::NoMemory(error) = end {
            self.session.out_of_memory(error, out.flat());
        }
        let closed_by_client = self.session.was_closed_by_client();
        let client = self.session.client();
        match end {
            _ if closed_by_client => client.ended(&"client closed the connection"),
            End::Protocol(Ended::LoginTimeout) => client.failed(LoginRefusal::Timeout, end),
            End::Protocol(Ended::Log(error)) => {
                tracing::error!(%error, "connection closed: broker failed");
                client.failed(LoginRefusal::Unavailable, error);
            }
            _ => client.ended(end),
        }
        self.session.end();
        match end {
            End::Io(_) | End::Stalled => Close::Abort,
            // A client that sent `connection.close` expects to close the socket first.
            _ if self.session.was_closed_by_client() => Close::PeerFirst,
            _ => Close::Linger,
        }
    }
}
