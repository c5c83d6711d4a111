//! Listeners: sockets become [`Connection`]s.
//!
//! All are accepted on one thread and handed to the least loaded worker; only there do TLS and WebSocket
//! handshakes run, under a time limit. Who may come in at all is decided here, before a byte is read:
//! bounds on connections ([`admission`]), and without configured users only this machine.
//!
//! What it deliberately lacks: any byte of a protocol. A plug gets bytes in and bytes out.

mod admission;
mod tls;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use inver_broker::{Broker, Connection, Io, ProtocolPlugin, Shutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument, debug, debug_span, info, warn};

pub(crate) use admission::Admission;

use crate::config::{self, Config, Listen};
use crate::protocols::SharedSettings;
use crate::runtime::Workers;

/// Pause after the system refused to accept, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket and what is spoken on it.
pub(crate) struct Listener {
    socket: TcpListener,
    service: Service,
}

/// What is spoken on a listener.
#[derive(Clone)]
struct Service {
    protocol: Arc<dyn ProtocolPlugin>,
    tls: Option<TlsAcceptor>,
    websocket: Option<websocket::Form>,
}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Hall {
    /// Where connections are served.
    pub(crate) workers: Workers,
    /// Who may come in.
    pub(crate) admission: Arc<Admission>,
    /// What they are served from.
    pub(crate) broker: Broker,
    /// The word that the server is going down.
    pub(crate) shutdown: Shutdown,
    /// Time for TLS and WebSocket handshakes.
    pub(crate) handshake_timeout: Duration,
}

/// Binds all that the configuration asks for; nothing is accepted yet. Must run within a runtime.
pub(crate) fn bind(config: &Config, http: Arc<dyn ProtocolPlugin>) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut open = |key: &str, listen: Listen, service: Service| -> anyhow::Result<()> {
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
        let plain = Service { protocol, tls: None, websocket: None };
        open(&format!("{name}.listen"), endpoint.listen, plain.clone())?;
        if let (Some(form), Some(websocket)) = (&entry.websocket, websocket) {
            let form = websocket::Form::new(form.subprotocols, config.limits.message_bytes_max);
            let service = Service { websocket: Some(form), ..plain.clone() };
            open(&format!("{name}.websocket_listen"), websocket.websocket_listen, service.clone())?;
            if tls.is_some() {
                let service = Service { tls: tls.clone(), ..service };
                open(&format!("{name}.websocket_tls_listen"), websocket.websocket_tls_listen, service)?;
            }
        }
        if tls.is_some() {
            open(&format!("{name}.tls_listen"), endpoint.tls_listen, Service { tls, ..plain })?;
        }
    }
    open("http.listen", config.http.listen, Service { protocol: http, tls: None, websocket: None })?;
    Ok(listeners)
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
            anyhow!("port {} ({key} = {address}) is not permitted to this user; {change}", address.port())
        }
        _ => anyhow!("cannot listen on {address} ({key}): {error}; {change}"),
    }
}

impl Listener {
    /// Accepts until the word to stop; the task ends with the socket closed.
    pub(crate) fn accept(self, hall: Hall) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut shutdown = hall.shutdown.clone();
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = shutdown.requested() => return,
                    accepted = self.socket.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => hand_over(&hall, &self.service, stream, peer),
                    Err(error) => {
                        warn!(%error, protocol = self.service.protocol.name(), "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }
}

/// Checks that the peer may come in and gives it a worker.
fn hand_over(hall: &Hall, service: &Service, stream: TcpStream, peer: SocketAddr) {
    let protocol = service.protocol.name();
    let admitted = match hall.admission.admit(peer.ip()) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            metrics::counter!("inver_connections_refused_total", "protocol" => protocol, "reason" => refusal.label())
                .increment(1);
            return hall.admission.tell(&refusal, peer.ip());
        }
    };
    // The worker's own reactor must watch the socket, not this thread's.
    let Ok(stream) = stream.into_std() else { return };
    // On the heap and gone before the connection is served, which must not carry it for the rest of its life.
    let greeting = Box::pin(greet(hall.clone(), service.clone(), stream, peer));
    // Only where somebody listens that closely: it would be a tenth of what an idle connection holds.
    let span = debug_span!("connection", protocol, %peer);
    let open = Open::count(service.protocol.clone());
    let serve = |seat| {
        let inside = (seat, admitted, open);
        async move {
            let serving = match greeting.await {
                Ok(Some((connection, broker))) => inside.2.0.serve(connection, broker),
                Ok(None) => return,
                Err(error) => {
                    debug!(%error, "ended before it began");
                    return;
                }
            };
            serving.await;
            // Held until here, in the place where it was captured: bound within, it would be there twice.
            drop(inside);
        }
    };
    let seat = hall.workers.seat();
    if span.is_disabled() { seat.run(serve) } else { seat.run(|seat| serve(seat).instrument(span)) }
}

/// From an accepted socket to a connection of a plug; none if the server is going down.
async fn greet(
    hall: Hall,
    service: Service,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) -> io::Result<Option<(Connection, Broker)>> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let encrypted = service.tls.is_some();
    let mut shutdown = hall.shutdown.clone();
    let io = tokio::select! {
        io = timeout(hall.handshake_timeout, handshake(&service, stream)) => io??,
        () = shutdown.requested() => return Ok(None),
    };
    Ok(Some((Connection { io, peer, local, encrypted, shutdown: hall.shutdown }, hall.broker)))
}

async fn handshake(service: &Service, stream: TcpStream) -> io::Result<Box<dyn Io>> {
    match (&service.tls, &service.websocket) {
        (None, None) => Ok(Box::new(stream)),
        (Some(tls), None) => Ok(Box::new(tls.accept(stream).await?)),
        (None, Some(form)) => Ok(Box::new(form.accept(stream).await?)),
        (Some(tls), Some(form)) => Ok(Box::new(form.accept(tls.accept(stream).await?).await?)),
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<dyn ProtocolPlugin>);

impl Open {
    fn count(protocol: Arc<dyn ProtocolPlugin>) -> Open {
        metrics::counter!("inver_connections_accepted_total", "protocol" => protocol.name()).increment(1);
        metrics::gauge!("inver_connections", "protocol" => protocol.name()).increment(1);
        Open(protocol)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("inver_connections", "protocol" => self.0.name()).decrement(1);
    }
}
