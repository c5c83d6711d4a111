//! How a protocol is plugged in: a trait, and what a connection brings along.
//!
//! A new protocol is one crate that implements [`Protocol`] and one line in the server's list.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::Broker;

/// Bytes in, bytes out: TCP, TLS or WebSocket, the protocol need not know.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An accepted connection.
pub struct Connection {
    /// The byte stream.
    pub io: Box<dyn Io>,
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Whether the bytes travel under TLS.
    pub encrypted: bool,
    /// Tells when the server is going down.
    pub shutdown: Shutdown,
}

/// A wire protocol.
#[async_trait]
pub trait Protocol: Send + Sync {
    /// Its short name, in lower case, as in configuration keys and metrics.
    fn name(&self) -> &'static str;

    /// The port that its clients try first.
    fn default_port(&self) -> u16;

    /// Whether a connection that begins with these bytes can be one of this protocol.
    fn recognizes(&self, first_bytes: &[u8]) -> bool;

    /// Serves one connection until its end. Never panics on bytes of the peer.
    async fn serve(&self, connection: Connection, broker: Broker);
}

/// The word that the server is going down, for those who serve.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Gives the word.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl Shutdown {
    /// A pair of who gives the word and who hears it.
    #[must_use]
    pub fn channel() -> (ShutdownTrigger, Shutdown) {
        let (tx, rx) = watch::channel(false);
        (ShutdownTrigger(tx), Shutdown(rx))
    }

    /// Waits for the word; at once when it was given, or when its giver is gone.
    pub async fn requested(&mut self) {
        while !*self.0.borrow_and_update() {
            if self.0.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the word was given.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

impl ShutdownTrigger {
    /// Gives the word; once is enough.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}
