//! What a listener says about its connections, and what TLS says about a client.

use std::net::SocketAddr;
use std::sync::Arc;

/// Which clients a listener lets in without credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Clients on this machine, as long as no users exist.
    #[default]
    LoopbackWithoutUsers,
    /// Clients on this machine, also when users exist.
    Loopback,
    /// Every client.
    Always,
    /// None, even on this machine and without users.
    Never,
}

/// What a listener says about its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Its name in logs and metrics.
    pub name: String,
    /// The namespace of all its connections; none: the client or its user choose.
    pub namespace: Option<Arc<str>>,
    /// Which clients are let in without credentials.
    pub anonymous: Anonymous,
    /// Where anonymous clients are let in: whether a client with a user name and no password counts as one.
    pub any_user_name: bool,
    /// Host and port by which clients of this listener reach the broker; none: the protocol's setting, or the address that
    /// the client connected to.
    pub advertised: Option<(String, u16)>,
    /// Its connections are the broker's own: no client comes this way.
    pub is_internal: bool,
}

/// The certificate that a client proved to have, verified by the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The distinguished name of its subject, as in RFC 2253.
    pub subject: String,
    /// The subject's common name; none if it has none or several.
    pub common_name: Option<String>,
    /// DNS names, e-mail addresses and URIs of its subject alternative name.
    pub alternative_names: Vec<String>,
    /// The user that the listener's setting takes from it; none: the certificate names no user.
    pub user: Option<String>,
}

/// The two ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The client's address.
    pub peer: SocketAddr,
    /// The server's address.
    pub local: SocketAddr,
    /// Whether the bytes travel under TLS.
    pub encrypted: bool,
    /// The listener that accepted it.
    pub listener: Arc<ListenerInfo>,
}
