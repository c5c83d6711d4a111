//! A CONNECT with an authentication method: AUTH packets are exchanged before it is answered (section 4.12).

use std::net::IpAddr;

use inver_broker::{Broker, Identity};

use crate::codec::{DecodeError, Packet, Version, decode};
use crate::enhanced_auth::{Exchange, Method, check_bearer, data_of, fields};
use crate::error::Refusal;

/// A client that proves who it is.
pub(super) struct Authenticating {
    /// Its CONNECT.
    wire: Vec<u8>,
    exchange: Exchange,
}

/// A client that proved who it is.
pub(super) struct Authenticated {
    pub(super) identity: Identity,
    pub(super) method: Method,
    /// The server's final message, for CONNACK.
    pub(super) answer: String,
}

/// Whether a CONNECT asks for an exchange.
pub(super) enum Asked {
    /// It does not.
    Nothing,
    /// The exchange goes on.
    Exchange(Box<Authenticating>),
    /// Its only message proved who the client is.
    Proved(Authenticated),
}

/// What came of the client's bytes.
pub(super) enum Begun {
    /// A packet is not whole yet.
    Waits(Box<Authenticating>),
    Done {
        wire: Vec<u8>,
        authenticated: Authenticated,
    },
}

impl Authenticating {
    /// Begins if the CONNECT in `wire` asks for it; writes the first AUTH of a method that has several messages.
    pub(super) fn begin(
        broker: &Broker,
        peer: IpAddr,
        wire: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Asked, Refusal> {
        let Some((Packet::Connect(connect), _)) = decode(wire, Version::V5, bytes_max)? else {
            return Ok(Asked::Nothing);
        };
        let (Some(method), data) = fields(connect.properties) else { return Ok(Asked::Nothing) };
        let method = Method::named(method, broker)?;
        if method == Method::OAuthBearer {
            let identity = check_bearer(broker, peer, data)?;
            return Ok(Asked::Proved(Authenticated { identity, method, answer: String::new() }));
        }
        let exchange = Exchange::begin(broker, peer, method, data, out)?;
        Ok(Asked::Exchange(Box::new(Authenticating { wire: wire.to_vec(), exchange })))
    }

    /// The user, as the client claims.
    pub(super) fn user(&self) -> &str {
        self.exchange.user()
    }

    /// Takes the AUTH at the start of `input` if it is whole; returns its length.
    pub(super) fn step(self: Box<Self>, input: &[u8], bytes_max: usize) -> Result<(Begun, usize), Refusal> {
        let Some((packet, length)) = decode(input, Version::V5, bytes_max)? else {
            return Ok((Begun::Waits(self), 0));
        };
        let Packet::Auth(auth) = packet else {
            return Err(
                DecodeError::protocol("a packet other than AUTH before CONNACK [MQTT-3.1.2-30]").into()
            );
        };
        let method = self.exchange.method();
        let data = data_of(&auth, crate::codec::Reason::ContinueAuthentication, method)?;
        let (identity, answer) = self.exchange.finish(data)?;
        let authenticated = Authenticated { identity, method, answer };
        Ok((Begun::Done { wire: self.wire, authenticated }, length))
    }
}
