//! The first packet of a connection: a CONNECT within the time for the login [MQTT-3.1.0-1].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use inver_broker::{Broker, ClientCertificate, Endpoints, Identity, LoggedClient, LoginRefusal, Mailbox};
use inver_driver::{Activity, Close, End, Machine, Output, Progress, Shared, Timeouts};
use inver_storage::{Log, LogError, Lsn};
use tokio::time::Instant;

use super::authenticating::{Asked, Authenticated, Authenticating, Begun};
use crate::codec::{ConnAck, DecodeError, Packet, PropertiesBuf, Property, Version, decode};
use crate::error::{Refusal, count_reason};
use crate::server::Server;
use crate::session::connect::{self, Accepted};

type Connect = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A client that is not connected yet.
pub(super) struct Connecting {
    /// None while the CONNECT is being answered.
    client: Option<LoggedClient>,
    endpoints: Endpoints,
    certificate: Option<Arc<ClientCertificate>>,
    broker: Broker,
    server: Arc<Server>,
    /// The client proves who it is by AUTH packets.
    authenticating: Option<Box<Authenticating>>,
    /// Wakes this machine only: the session's mailbox must keep its tokens.
    mailbox: Arc<Mailbox>,
    by: Instant,
    /// The CONNECT is being answered.
    connect: Option<Connect>,
    /// Bytes of the CONNECT that is kept.
    connect_bytes: usize,
}

/// What came of a connection's beginning.
pub(super) enum Outcome {
    Accepted(Box<Accepted>, LoggedClient),
    Refused(Version, Refusal),
    Timeout,
    ShuttingDown,
}

impl From<LogError> for Outcome {
    fn from(error: LogError) -> Outcome {
        Outcome::Refused(Version::V311, error.into())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Accepted(..) => f.write_str("accepted"),
            Outcome::Refused(_, refusal) => write!(f, "refused: {refusal}"),
            Outcome::Timeout => f.write_str("no CONNECT in time"),
            Outcome::ShuttingDown => f.write_str("server is shutting down"),
        }
    }
}

impl Connecting {
    pub(super) fn new(
        client: LoggedClient,
        endpoints: Endpoints,
        certificate: Option<Arc<ClientCertificate>>,
        broker: Broker,
        server: Arc<Server>,
    ) -> Connecting {
        let by = Instant::now() + server.config.timeouts.login;
        let client = Some(client);
        Connecting {
            client,
            endpoints,
            certificate,
            broker,
            server,
            authenticating: None,
            mailbox: Mailbox::new(),
            by,
            connect: None,
            connect_bytes: 0,
        }
    }

    fn begin_connect(&mut self, wire: Vec<u8>, authenticated: Option<Authenticated>) {
        if let Some(client) = self.client.take() {
            self.server.count_connect(wire.len());
            self.connect = Some(self.connect(client, wire, authenticated));
        }
    }

    /// Answers the CONNECT in `wire`, of a client that `authenticated` itself or has credentials in it.
    fn connect(
        &mut self,
        mut client: LoggedClient,
        wire: Vec<u8>,
        authenticated: Option<Authenticated>,
    ) -> Connect {
        let (endpoints, certificate) = (self.endpoints.clone(), self.certificate.clone());
        let (broker, server) = (self.broker.clone(), self.server.clone());
        let banning = broker.clone();
        Box::pin(async move {
            let connect = match decode(&wire, Version::V5, server.config.connect_bytes_max) {
                Ok(Some((Packet::Connect(connect), _))) => connect,
                Err(error) => return refused(&mut client, claimed_version(&wire), error.into()),
                Ok(_) => return refused(&mut client, Version::V311, not_a_connect().into()),
            };
            client.identify(connect.client_id);
            let from = connect::Client {
                endpoints: &endpoints,
                certificate: certificate.as_deref(),
                authenticated: authenticated.as_ref().map(|proven| proven.identity.clone()),
            };
            let named = from.certificate.and_then(|certificate| certificate.user.as_deref());
            let claimed = named.or(connect.username);
            client.claim_user(from.authenticated.as_ref().map_or(claimed, Identity::name));
            match connect::connect(&connect, &from, &broker, &server, &Mailbox::new()).await {
                Ok(mut accepted) => {
                    if let Some(Authenticated { method, answer, .. }) = authenticated {
                        method.put(&answer, &mut accepted.properties);
                        accepted.session.allow_reauthentication(broker, endpoints.peer.ip(), method);
                    }
                    server.flapping.count(&banning, &server.config, accepted.session.client_id());
                    client.identify(accepted.session.client_id());
                    client.logged_in(accepted.session.user(), accepted.session.namespace().name());
                    if let Some(why) = accepted.unkept_will {
                        client.request_refused("will", &why);
                    }
                    if let Some(why) = &accepted.refused_subscription {
                        client.request_refused("auto_subscribe", why);
                    }
                    Outcome::Accepted(Box::new(accepted), client)
                }
                Err(refusal) => refused(&mut client, connect.version, refusal),
            }
        })
    }
}

impl Machine for Connecting {
    type Input = Shared;
    type Error = Outcome;

    fn timeouts(&self) -> &Timeouts {
        &self.server.config.timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn held_bytes(&self) -> usize {
        self.connect_bytes
    }

    fn log(&self) -> &Log {
        self.broker.log()
    }

    fn begin_turn(&mut self, _now: Instant) {}

    fn wake(&mut self, _tokens: &[u64], _out: &mut Output) -> Result<(), Outcome> {
        Ok(())
    }

    fn takes_input(&self, _pending_bytes: usize) -> bool {
        // What follows the CONNECT is the session's.
        self.connect.is_none()
    }

    fn needs_admission(&self) -> bool {
        false
    }

    fn input(&mut self, input: &[u8], out: &mut Output) -> Result<Progress, Outcome> {
        let Some(client) = &mut self.client else { return Ok(Progress::all(0)) };
        let bytes_max = self.server.config.connect_bytes_max;
        if let Some(authenticating) = self.authenticating.take() {
            let step = authenticating.step(input, bytes_max);
            let (step, length) = step.map_err(|refusal| refused(client, Version::V5, refusal))?;
            match step {
                Begun::Waits(authenticating) => self.authenticating = Some(authenticating),
                Begun::Done { wire, authenticated } => self.begin_connect(wire, Some(authenticated)),
            }
            return Ok(Progress::all(length));
        }
        let length = whole_connect(input, bytes_max)
            .map_err(|error| refused(client, claimed_version(input), error.into()))?;
        self.connect_bytes = length;
        if let Some(wire) = input.get(..length).filter(|wire| !wire.is_empty()) {
            let peer = self.endpoints.peer.ip();
            let asked = Authenticating::begin(&self.broker, peer, wire, bytes_max, out.flat());
            match asked.map_err(|refusal| refused(client, Version::V5, refusal))? {
                Asked::Nothing => self.begin_connect(wire.to_vec(), None),
                Asked::Proved(authenticated) => self.begin_connect(wire.to_vec(), Some(authenticated)),
                Asked::Exchange(authenticating) => {
                    client.claim_user(Some(authenticating.user()));
                    self.authenticating = Some(authenticating);
                }
            }
        }
        Ok(Progress::all(length))
    }

    fn end_turn(&mut self, _out: &mut Output) -> Result<bool, Outcome> {
        Ok(false)
    }

    fn awaits(&self) -> Option<Lsn> {
        None
    }

    fn deadline(&self, _activity: &Activity) -> Option<Instant> {
        self.connect.is_none().then_some(self.by)
    }

    fn expired(&mut self, _activity: &Activity, _now: Instant, _out: &mut Output) -> Result<(), Outcome> {
        if let Some(client) = &mut self.client {
            client.login_refused(LoginRefusal::Timeout, &Outcome::Timeout);
        }
        Err(Outcome::Timeout)
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        let Some(connect) = &mut self.connect else { return Poll::Pending };
        Poll::Ready(Err(ready!(connect.as_mut().poll(cx))))
    }

    fn shutdown(&mut self, _now: Instant, _out: &mut Output) -> Result<(), Outcome> {
        Err(Outcome::ShuttingDown)
    }

    fn end(&mut self, end: &End<Outcome>, out: &mut Output) -> Close {
        if let Some(client) = &mut self.client {
            client.ended(end);
        }
        if let End::Protocol(Outcome::Refused(version, refusal)) = end {
            put_refusal(*version, refusal, out.flat());
        }
        match end {
            End::Protocol(_) | End::Closed => Close::Linger,
            End::Io(_) | End::NoMemory(_) | End::Stalled => Close::Abort,
        }
    }
}

/// The outcome of a refusal, which is logged.
fn refused(client: &mut LoggedClient, version: Version, refusal: Refusal) -> Outcome {
    client.login_refused(refusal.login_refusal(), &refusal);
    count_reason(refusal.reason());
    Outcome::Refused(version, refusal)
}

fn not_a_connect() -> DecodeError {
    DecodeError::protocol("a first packet other than CONNECT [MQTT-3.1.0-1]")
}

/// The length of the CONNECT at the start of `input`, 0 if it is not whole yet.
fn whole_connect(input: &[u8], bytes_max: usize) -> Result<usize, DecodeError> {
    const CONNECT: u8 = 0x10;
    match input.first() {
        None => Ok(0),
        Some(&CONNECT) => Ok(decode(input, Version::V5, bytes_max)?.map_or(0, |(_, length)| length)),
        Some(_) => Err(not_a_connect()),
    }
}

/// The version that an undecodable CONNECT claims: only a client of MQTT 5 understands its reasons. One of an unknown
/// version is answered as one of 3.1.1 [MQTT-3.1.2-2].
fn claimed_version(input: &[u8]) -> Version {
    let name = input.windows(7).take(6).find(|window| window.starts_with(b"\x00\x04MQTT"));
    if name.and_then(|name| name.last()) == Some(&5) { Version::V5 } else { Version::V311 }
}

/// Writes the CONNACK of a refused client: MQTT 5 has a reason and a text, older versions a return code for some
/// reasons and nothing for the others.
fn put_refusal(version: Version, refusal: &Refusal, out: &mut Vec<u8>) {
    let reason = refusal.reason();
    let mut properties = PropertiesBuf::new();
    match version {
        Version::V5 => {
            let _too_long_is_left_out = properties.push(Property::ReasonString(&refusal.to_string()));
        }
        _ if reason.v3_connect_code().is_none() => return,
        _ => {}
    }
    let connack = ConnAck { session_present: false, reason, properties: properties.as_ref() };
    let _always_fits = Packet::ConnAck(connack).encode(version, out);
}
