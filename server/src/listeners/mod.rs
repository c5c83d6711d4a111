//! Listeners: accepted sockets become [`Connection`]s.
//!
//! Owns accepting, TLS and WebSocket. All sockets are accepted on one thread and assigned to the least loaded worker,
//! where TLS and WebSocket handshakes run under a time limit. [`admission`] decides before a byte is read: limits of
//! connections, and loopback only where no users are configured.
//!
//! It does not own the bytes of any protocol.

mod admission;
mod tls;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use inver_broker::{AccessControl, Broker, Connection, Io, ProtocolPlugin};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, debug_span, info, warn};

pub(crate) use admission::Admission;

use crate::config::{self, Config, Listen};
use crate::http::{Http, RabbitmqMetrics};
use crate::protocols::SharedSettings;
use crate::runtime::Workers;

/// Pause after accepting failed, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket and its service.
pub(crate) struct Listener {
    socket: TcpListener,
    service: Service,
}

/// The protocol of a listener and the layers below it.
#[derive(Clone)]
struct Service {
    protocol: Arc<dyn ProtocolPlugin>,
    admission: Arc<Admission>,
    tls: Option<TlsAcceptor>,
    websocket: Option<websocket::Form>,
}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The workers that serve connections.
    pub(crate) workers: Workers,
    /// The broker that they are served from.
    pub(crate) broker: Broker,
    /// Cancelled on shutdown.
    pub(crate) shutdown: CancellationToken,
    /// Time limit of the TLS and WebSocket handshakes.
    pub(crate) handshake_timeout: Duration,
}

/// Binds every configured listener; no connection is accepted yet. `admission` is that of all protocols together; HTTP has
/// its own. Must run within a runtime.
pub(crate) fn bind(
    config: &Config,
    admission: &Arc<Admission>,
    http: Arc<Http>,
    access: &AccessControl,
) -> anyhow::Result<Vec<Listener>> {
    describe();
    let mut listeners = Vec::new();
    let mut listen = |key: &str, listen: Listen, service: Service| -> anyhow::Result<()> {
        let Some(address) = listen.0 else { return Ok(()) };
        let socket = bind_one(address).map_err(|error| explain(&error, key, address))?;
        let local = socket.local_addr().unwrap_or(address);
        info!(key, address = %local, "listening");
        listeners.push(Listener { socket, service });
        Ok(())
    };
    let shared = SharedSettings {
        message_bytes_max: config.limits.message_bytes_max,
        timeouts: config.limits.timeouts(),
    };
    for config::ProtocolConfig { entry, endpoint, websocket, settings } in &config.protocols {
        let name = entry.name;
        let protocol = settings.protocol(shared);
        let tls = match (&endpoint.tls_cert, &endpoint.tls_key) {
            (Some(cert), Some(key)) => {
                Some(tls::acceptor(cert, key).with_context(|| format!("TLS of {name}"))?)
            }
            _ => None,
        };
        let plain = Service { protocol, admission: admission.clone(), tls: None, websocket: None };
        listen(&format!("{name}.listen"), endpoint.listen, plain.clone())?;
        if let (Some(form), Some(websocket)) = (&entry.websocket, websocket) {
            let form = websocket::Form::new(form.subprotocols, config.limits.message_bytes_max);
            let service = Service { websocket: Some(form), ..plain.clone() };
            listen(&format!("{name}.websocket_listen"), websocket.websocket_listen, service.clone())?;
            if tls.is_some() {
                let service = Service { tls: tls.clone(), ..service };
                listen(&format!("{name}.websocket_tls_listen"), websocket.websocket_tls_listen, service)?;
            }
        }
        if tls.is_some() {
            listen(&format!("{name}.tls_listen"), endpoint.tls_listen, Service { tls, ..plain })?;
        }
    }
    let (key, max) = ("http.connections_max", config.http.connections_max);
    let admission = Admission::new(key, loopback_only(access), max, max);
    let service = Service { protocol: http.clone(), admission, tls: None, websocket: None };
    listen("http.listen", config.http.listen, service.clone())?;
    let metrics = Service { protocol: Arc::new(RabbitmqMetrics(http)), ..service };
    listen("http.prometheus_listen", config.http.prometheus_listen, metrics)?;
    Ok(listeners)
}

/// Without users only clients on this machine are let in.
pub(crate) fn loopback_only(access: &AccessControl) -> admission::LoopbackOnly {
    let access = access.clone();
    Box::new(move || !access.has_users())
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

fn explain(error: &io::Error, key: &str, address: SocketAddr) -> anyhow::Error {
    let variable = config::variable(key);
    let change = format!("set `{key}` in the configuration or {variable} to another address, or to `off`");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("port {} ({key} = {address}) is already in use; {change}", address.port())
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!(
                "port {} ({key} = {address}) needs privileges that this user does not have; {change}",
                address.port()
            )
        }
        _ => anyhow!("failed to listen on {address} ({key}): {error}; {change}"),
    }
}

impl Listener {
    /// Spawns a task that accepts connections until shutdown and then closes the socket.
    pub(crate) fn accept(self, shared: Shared, tasks: &TaskTracker) {
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = shared.shutdown.cancelled() => return,
                    accepted = self.socket.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => start(&shared, &self.service, stream, peer),
                    Err(error) => {
                        warn!(%error, protocol = self.service.protocol.name(), "failed to accept a connection");
                        shared.broker.clock().sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
}

/// Admits the connection and assigns it to a worker.
fn start(shared: &Shared, service: &Service, stream: TcpStream, peer: SocketAddr) {
    let protocol = service.protocol.name();
    let admitted = match service.admission.admit(peer.ip()) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            metrics::counter!("inver_connections_refused_total", "protocol" => protocol, "reason" => refusal.label())
                .increment(1);
            service.admission.log(refusal, peer.ip(), shared.broker.clock().now());
            return;
        }
    };
    // The worker's reactor must poll the socket, not this thread's.
    let Ok(stream) = stream.into_std() else { return };
    // Boxed and dropped before the connection is served, whose future would otherwise contain it to the end.
    let opening = Box::pin(open(shared.clone(), service.clone(), stream, peer));
    // Only where debug logging is enabled: a span is a tenth of what an idle connection holds.
    let span = debug_span!("connection", protocol, %peer);
    let counted = Counted::new(service.protocol.clone());
    let serve = |slot| {
        let held = (slot, admitted, counted);
        async move {
            let serving = match opening.await {
                Ok(Some((connection, broker))) => held.2.0.serve(connection, broker),
                Ok(None) => return,
                Err(error) => {
                    debug!(%error, "connection failed before it was open");
                    return;
                }
            };
            serving.await;
            // Held as captured until here: a binding within the block would hold it twice.
            drop(held);
        }
    };
    let slot = shared.workers.assign();
    if span.is_disabled() { slot.run(serve) } else { slot.run(|slot| serve(slot).instrument(span)) }
}

/// Opens a connection over an accepted socket; none if shutdown is requested first.
async fn open(
    shared: Shared,
    service: Service,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) -> io::Result<Option<(Connection, Broker)>> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let encrypted = service.tls.is_some();
    let io = tokio::select! {
        io = timeout(shared.handshake_timeout, handshake(&service, stream)) => io??,
        () = shared.shutdown.cancelled() => return Ok(None),
    };
    let connection = Connection { encrypted, ..Connection::plain(io, peer, local, shared.shutdown) };
    Ok(Some((connection, shared.broker)))
}

async fn handshake(service: &Service, stream: TcpStream) -> io::Result<Box<dyn Io>> {
    match (&service.tls, &service.websocket) {
        (None, None) => Ok(Box::new(stream)),
        (Some(tls), None) => Ok(Box::new(tls.accept(stream).await?)),
        (None, Some(form)) => Ok(Box::new(form.accept(stream).await?)),
        (Some(tls), Some(form)) => Ok(Box::new(form.accept(tls.accept(stream).await?).await?)),
    }
}

/// Counts a connection in the metrics until it is dropped.
struct Counted(Arc<dyn ProtocolPlugin>);

impl Counted {
    fn new(protocol: Arc<dyn ProtocolPlugin>) -> Counted {
        metrics::counter!("inver_connections_accepted_total", "protocol" => protocol.name()).increment(1);
        metrics::gauge!("inver_connections", "protocol" => protocol.name()).increment(1);
        Counted(protocol)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("inver_connections", "protocol" => self.0.name()).decrement(1);
        metrics::counter!("inver_connections_closed_total", "protocol" => self.0.name()).increment(1);
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_counter!("inver_connections_accepted_total", Unit::Count, "Connections opened, by protocol.");
    describe_counter!("inver_connections_closed_total", Unit::Count, "Connections closed, by protocol.");
    describe_counter!(
        "inver_connections_refused_total",
        Unit::Count,
        "Connections closed before a byte was read, by protocol and reason."
    );
    describe_gauge!("inver_connections", Unit::Count, "Open connections, by protocol.");
}
