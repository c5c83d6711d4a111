//! Enhanced authentication (MQTT 5, section 4.12) by SCRAM and OAUTHBEARER (RFC 7628): what AUTH packets carry.
//!
//! OAUTHBEARER has one message, in the CONNECT, or in an AUTH that re-authenticates. SCRAM:
//!
//! | packet | reason code | data |
//! |---|---|---|
//! | CONNECT, or AUTH | –, or re-authenticate | the client's first message |
//! | AUTH from the server | continue authentication | the server's first message |
//! | AUTH | continue authentication | the client's final message |
//! | CONNACK, or AUTH | success | the server's final message |

use std::net::IpAddr;

use inver_access::Digest;
use inver_access::oauthbearer::ClientMessage;
use inver_broker::{AuthError, Broker, Identity, ScramLogin, ScramLoginError};

use crate::codec::{Auth, DecodeError, Packet, Properties, PropertiesBuf, Property, Reason, Version};

/// An authentication method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Sha256,
    Sha512,
    OAuthBearer,
}

impl Method {
    /// The method of this name.
    pub(crate) fn named(name: &str, broker: &Broker) -> Result<Method, ScramLoginError> {
        let known = [Method::Sha256, Method::Sha512, Method::OAuthBearer];
        let known = known.into_iter().find(|method| method.name() == name);
        known
            .filter(|method| *method != Method::OAuthBearer || broker.supports_tokens())
            .ok_or(ScramLoginError::Unsupported)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Sha256 => "SCRAM-SHA-256",
            Method::Sha512 => "SCRAM-SHA-512",
            Method::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The hash function of SCRAM.
    fn digest(self) -> Option<Digest> {
        match self {
            Method::Sha256 => Some(Digest::Sha256),
            Method::Sha512 => Some(Digest::Sha512),
            Method::OAuthBearer => None,
        }
    }

    /// Properties of a packet that carries `data`.
    pub(crate) fn put(self, data: &str, properties: &mut PropertiesBuf) {
        for property in
            [Property::AuthenticationMethod(self.name()), Property::AuthenticationData(data.as_bytes())]
        {
            let _always_fits = properties.push(property);
        }
    }
}

/// The method and the data of a packet.
pub(crate) fn fields<'a>(properties: Properties<'a>) -> (Option<&'a str>, Option<&'a [u8]>) {
    properties.iter().fold((None, None), |(method, data), property| match property {
        Property::AuthenticationMethod(name) => (Some(name), data),
        Property::AuthenticationData(bytes) => (method, Some(bytes)),
        _ => (method, data),
    })
}

/// An exchange that waits for the client's final message.
pub(crate) struct Exchange {
    method: Method,
    login: ScramLogin,
}

impl Exchange {
    /// Begins with the client's first message; writes the AUTH that answers it.
    pub(crate) fn begin(
        broker: &Broker,
        peer: IpAddr,
        method: Method,
        data: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Exchange, ScramLoginError> {
        let digest = method.digest().ok_or(ScramLoginError::Unsupported)?;
        let (login, answer) = broker.begin_scram(peer, digest, data.unwrap_or_default())?;
        put_auth(Reason::ContinueAuthentication, method, &answer, out);
        Ok(Exchange { method, login })
    }

    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// The user, as the client claims.
    pub(crate) fn user(&self) -> &str {
        self.login.user()
    }

    /// Ends with the client's final message; returns the server's.
    pub(crate) fn finish(self, data: Option<&[u8]>) -> Result<(Identity, String), ScramLoginError> {
        self.login.finish(data.unwrap_or_default())
    }
}

/// The client that an OAUTHBEARER message is from.
pub(crate) fn check_bearer(
    broker: &Broker,
    peer: IpAddr,
    data: Option<&[u8]>,
) -> Result<Identity, AuthError> {
    let message = ClientMessage::parse(data.unwrap_or_default())
        .map_err(|_| AuthError::Token("it is not in an OAUTHBEARER message (RFC 7628)"))?;
    let identity = broker.check_token(peer, &message.token)?;
    if message.authorization_id.is_some_and(|claimed| identity.name() != Some(claimed.as_str())) {
        return Err(AuthError::Token("the authorization id is not the token's user"));
    }
    Ok(identity)
}

/// The data of an AUTH with this reason and the method of its connection [MQTT-4.12.0-5].
pub(crate) fn data_of<'a>(
    auth: &Auth<'a>,
    reason: Reason,
    method: Method,
) -> Result<Option<&'a [u8]>, DecodeError> {
    if auth.reason != reason {
        return Err(DecodeError::protocol("AUTH with a reason code that does not fit (section 4.12)"));
    }
    match fields(auth.properties) {
        (Some(name), data) if name == method.name() => Ok(data),
        _ => Err(DecodeError::protocol("AUTH with another authentication method [MQTT-4.12.0-5]")),
    }
}

/// Writes an AUTH.
pub(crate) fn put_auth(reason: Reason, method: Method, data: &str, out: &mut Vec<u8>) {
    let mut properties = PropertiesBuf::new();
    method.put(data, &mut properties);
    let auth = Packet::Auth(Auth { reason, properties: properties.as_ref() });
    let _always_fits = auth.encode(Version::V5, out);
}
