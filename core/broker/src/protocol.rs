//! The interface between the server and a wire protocol.
//!
//! A new protocol is one crate that implements [`ProtocolPlugin`] and one line in the server's list of protocols.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::listener::{ClientCertificate, Endpoints, ListenerInfo};

/// A byte stream: TCP, TLS or WebSocket.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An accepted connection.
pub struct Connection {
    /// The byte stream.
    pub io: Box<dyn Io>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The server's address.
    pub local: SocketAddr,
    /// Whether the bytes travel under TLS.
    pub encrypted: bool,
    /// Cancelled when the server shuts down.
    pub shutdown: CancellationToken,
    /// The listener that accepted it.
    pub listener: Arc<ListenerInfo>,
    /// The client's certificate, if it proved to have one.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Connection {
    /// A connection without TLS of a listener with the default settings.
    pub fn plain(
        io: impl Io + 'static,
        peer: SocketAddr,
        local: SocketAddr,
        shutdown: CancellationToken,
    ) -> Connection {
        Connection {
            io: Box::new(io),
            peer,
            local,
            encrypted: false,
            shutdown,
            listener: Arc::default(),
            certificate: None,
        }
    }

    /// Its two ends.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            peer: self.peer,
            local: self.local,
            encrypted: self.encrypted,
            listener: self.listener.clone(),
        }
    }
}

/// A wire protocol.
#[async_trait]
pub trait ProtocolPlugin: Send + Sync {
    /// Its short name, in lower case, as in configuration keys and metrics.
    fn name(&self) -> &'static str;

    /// Serves one connection until it ends. Never panics on bytes from the client.
    async fn serve(&self, connection: Connection, broker: Broker);
}
