//! Listeners: accepted sockets become [`Connection`]s.
//!
//! Owns accepting, the PROXY protocol, TLS and WebSocket. All sockets are accepted on one thread and assigned to the least
//! loaded worker, where headers and handshakes are read under a time limit. [`admission`] decides before that: limits of
//! connections, trusted proxies, and loopback only where there are no users.
//!
//! The modules: [`set`] (the listeners that run, and how a reload changes them), [`socket`] (TCP and Unix sockets),
//! [`proxy`], [`tls`], [`certificate`], [`websocket`] with [`pieces`], [`mod@check`] (files and warnings).
//!
//! It does not own the bytes of any protocol.

mod admission;
mod certificate;
mod check;
mod pieces;
mod proxy;
mod set;
mod socket;
mod tls;
mod websocket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use inver_broker::{
    AccessControl, Anonymous, Broker, ClientCertificate, Connection, Io, ListenerInfo, ProtocolPlugin,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span};

pub(crate) use check::check;
pub(crate) use set::ListenerSet;

use crate::config::{CertificateUser, Networks};
use crate::runtime::Workers;
use admission::{Admission, Admitted, Refusal};
use socket::Stream;

/// How connections of a listener are opened.
#[derive(Clone)]
struct Service {
    info: Arc<ListenerInfo>,
    protocol: Arc<dyn ProtocolPlugin>,
    /// The limits of all listeners, or of HTTP.
    admission: Arc<Admission>,
    /// The listener's own limits.
    own_admission: Option<Arc<Admission>>,
    /// The proxies that may connect, if it takes connections from proxies.
    proxies: Option<Networks>,
    tls: Option<TlsAcceptor>,
    certificate_user: CertificateUser,
    websocket: Option<websocket::Form>,
    /// Time limit of the PROXY protocol header and of the TLS and WebSocket handshakes.
    handshake_timeout: Duration,
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
}

/// A connection's places among those that are limited.
struct Places {
    all: Admitted,
    own: Option<Box<Admitted>>,
}

/// A connection that can be served.
struct Opened {
    connection: Connection,
    broker: Broker,
    places: Places,
}

/// Why a connection was not opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("it is refused: {0:?}")]
    Refused(Refusal, IpAddr),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Service {
    /// Whether a client of this address is admitted: without users only those on this machine, unless the listener takes
    /// everybody.
    fn check_address(&self, address: IpAddr, access: &AccessControl) -> Result<(), Refusal> {
        let is_open = self.info.anonymous == Anonymous::Always || address.to_canonical().is_loopback();
        if is_open || access.has_users() { Ok(()) } else { Err(Refusal::LoopbackOnly) }
    }

    /// Admits a connection before a byte is read. The client of a proxy is not known yet.
    fn admit(&self, stream: &Stream, peer: IpAddr, access: &AccessControl) -> Result<Places, Refusal> {
        let address = match &self.proxies {
            Some(trusted) if matches!(stream, Stream::Tcp(_)) && !trusted.contain(peer) => {
                return Err(Refusal::NoTrustedProxy);
            }
            Some(_) => None,
            None => {
                self.check_address(peer, access)?;
                Some(peer)
            }
        };
        let own = self.own_admission.as_ref().map(|own| own.admit(address)).transpose()?;
        Ok(Places { all: self.admission.admit(address)?, own: own.map(Box::new) })
    }

    /// Admits the client of a proxy.
    fn identify(&self, places: &mut Places, client: IpAddr, access: &AccessControl) -> Result<(), Refusal> {
        self.check_address(client, access)?;
        places.all.identify(client)?;
        places.own.as_mut().map_or(Ok(()), |own| own.identify(client))
    }

    /// Counts and logs a refusal.
    fn refuse(&self, refusal: Refusal, address: IpAddr, broker: &Broker) {
        let (protocol, reason) = (self.protocol.name(), refusal.label());
        metrics::counter!("inver_connections_refused_total", "protocol" => protocol, "reason" => reason)
            .increment(1);
        let own = self.own_admission.as_ref().filter(|own| own.is_at(refusal));
        let admission = own.unwrap_or(&self.admission);
        admission.log(refusal, &self.info.name, address, broker.clock().now());
    }
}

/// Admits the connection and assigns it to a worker.
fn start(shared: &Shared, service: &Arc<Service>, stream: Stream, peer: SocketAddr) {
    let protocol = service.protocol.name();
    let places = match service.admit(&stream, peer.ip(), shared.broker.access()) {
        Ok(places) => places,
        Err(refusal) => return service.refuse(refusal, peer.ip(), &shared.broker),
    };
    // Boxed and dropped before the connection is served, whose future would otherwise contain it to the end.
    let opening = Box::pin(open(shared.clone(), service.clone(), stream, peer, places));
    // Only where debug logging is enabled: a span is a tenth of what an idle connection holds.
    let span = debug_span!("connection", protocol, %peer);
    let counted = Counted::new(service.protocol.clone());
    let serve = |slot| {
        let held = (slot, counted);
        async move {
            let (serving, _places) = match opening.await {
                Some(Opened { connection, broker, places }) => (held.1.0.serve(connection, broker), places),
                None => return,
            };
            serving.await;
            // Held as captured until here: a binding within the block would hold it twice.
            drop(held);
        }
    };
    let slot = shared.workers.assign();
    if span.is_disabled() { slot.run(serve) } else { slot.run(|slot| serve(slot).instrument(span)) }
}

/// Opens a connection over an accepted socket; none if it fails or is refused, or if shutdown is requested first.
async fn open(
    shared: Shared,
    service: Arc<Service>,
    stream: Stream,
    peer: SocketAddr,
    mut places: Places,
) -> Option<Opened> {
    let opening = async {
        match stream {
            Stream::Tcp(stream) => {
                let stream = TcpStream::from_std(stream)?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                layers(&shared, &service, stream, (peer, local), &mut places).await
            }
            Stream::Unix(stream) => {
                let stream = UnixStream::from_std(stream)?;
                layers(&shared, &service, stream, (peer, socket::LOCAL_PEER), &mut places).await
            }
        }
    };
    let connection = tokio::select! {
        opened = timeout(service.handshake_timeout, opening) => {
            opened.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()))
        }
        () = shared.shutdown.cancelled() => return None,
    };
    match connection {
        Ok(connection) => Some(Opened { connection, broker: shared.broker, places }),
        Err(OpenError::Refused(refusal, address)) => {
            service.refuse(refusal, address, &shared.broker);
            None
        }
        Err(OpenError::Io(error)) => {
            debug!(%error, %peer, "connection failed before it was open");
            None
        }
    }
}

/// Reads the header of a proxy and performs the handshakes. `addresses` are the client's and the server's.
async fn layers(
    shared: &Shared,
    service: &Service,
    mut stream: impl Io + 'static,
    (mut peer, mut local): (SocketAddr, SocketAddr),
    places: &mut Places,
) -> Result<Connection, OpenError> {
    let (mut encrypted, mut certificate) = (service.tls.is_some(), None);
    if service.proxies.is_some() {
        let proxy = peer;
        let client = proxy::read(&mut stream).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OpenError::Refused(Refusal::NoProxyHeader, proxy.ip()),
            _ => error.into(),
        })?;
        if let Some(client) = client {
            (peer, local) = (client.peer, client.local);
            encrypted |= client.encrypted;
            let user = service.certificate_user;
            certificate = client.common_name.map(|name| certificate::of_proxy(name, user));
        }
        let refused = |refusal| OpenError::Refused(refusal, peer.ip());
        service.identify(places, peer.ip(), shared.broker.access()).map_err(refused)?;
        debug!(client = %peer, %proxy, "client of a proxy");
    }
    let io: Box<dyn Io> = match &service.tls {
        Some(tls) => {
            let stream = tls.accept(stream).await?;
            let (_, session) = stream.get_ref();
            if let Some(first) = session.peer_certificates().and_then(<[_]>::first) {
                certificate = certificate::of_tls(first, service.certificate_user);
            }
            match &service.websocket {
                Some(form) => Box::new(form.accept(stream).await?),
                None => Box::new(stream),
            }
        }
        None => match &service.websocket {
            Some(form) => Box::new(form.accept(stream).await?),
            None => Box::new(stream),
        },
    };
    Ok(Connection {
        io,
        peer,
        local,
        encrypted,
        shutdown: shared.shutdown.clone(),
        listener: service.info.clone(),
        certificate: certificate.map(Arc::<ClientCertificate>::new),
    })
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
