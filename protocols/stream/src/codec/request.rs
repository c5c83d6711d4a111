//! Commands of clients that have a correlation id, but for those of publishing.

use inver_broker::OffsetSpec;

use super::frame::key;
use super::wire::{Malformed, Reader};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Tells what the client is.
    PeerProperties(Vec<(&'a str, &'a str)>),
    /// Asks for the mechanisms of the login.
    SaslHandshake,
    /// A step of the login.
    SaslAuthenticate {
        /// The mechanism.
        mechanism: &'a str,
        /// What the mechanism says.
        response: &'a [u8],
    },
    /// Opens a virtual host.
    Open {
        /// The virtual host.
        vhost: &'a str,
    },
    /// Ends the connection.
    Close {
        /// Why.
        code: u16,
        /// Why, in words.
        reason: &'a str,
    },
    /// Declares a publisher.
    DeclarePublisher {
        /// Its number within the connection.
        id: u8,
        /// The name by which what it sends again is recognised; may be empty.
        reference: &'a str,
        /// The stream.
        stream: &'a str,
    },
    /// Asks how far a publisher came.
    QueryPublisherSequence {
        /// The publisher's name.
        reference: &'a str,
        /// The stream.
        stream: &'a str,
    },
    /// Ends a publisher.
    DeletePublisher {
        /// Its number.
        id: u8,
    },
    /// Subscribes to a stream.
    Subscribe {
        /// The number of the subscription within the connection.
        id: u8,
        /// The stream.
        stream: &'a str,
        /// Where it starts.
        from: OffsetSpec,
        /// Chunks that may be delivered.
        credit: u16,
        /// Further wishes.
        properties: Vec<(&'a str, &'a str)>,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// Its number.
        id: u8,
    },
    /// Asks for a stored offset.
    QueryOffset {
        /// The name that it is stored under.
        reference: &'a str,
        /// The stream.
        stream: &'a str,
    },
    /// Creates a stream.
    Create {
        /// Its name.
        stream: &'a str,
        /// Its arguments.
        arguments: Vec<(&'a str, &'a str)>,
    },
    /// Deletes a stream.
    Delete {
        /// Its name.
        stream: &'a str,
    },
    /// Asks where streams are.
    Metadata {
        /// Their names.
        streams: Vec<&'a str>,
    },
    /// Tells the versions of commands.
    ExchangeCommandVersions(Vec<(u16, u16, u16)>),
    /// Asks for figures of a stream.
    StreamStats {
        /// Its name.
        stream: &'a str,
    },
}

impl<'a> Request<'a> {
    /// Parses the command of this key behind its correlation id; none for an unknown one.
    pub fn parse(command: u16, reader: &mut Reader<'a>) -> Result<Option<Request<'a>>, Malformed> {
        Ok(Some(match command {
            key::PEER_PROPERTIES => Request::PeerProperties(reader.map()?),
            key::SASL_HANDSHAKE => Request::SaslHandshake,
            key::SASL_AUTHENTICATE => Request::SaslAuthenticate {
                mechanism: reader.text()?,
                response: if reader.0.is_empty() { b"" } else { reader.bytes()?.unwrap_or_default() },
            },
            key::OPEN => Request::Open { vhost: reader.text()? },
            key::CLOSE => {
                Request::Close { code: reader.u16()?, reason: reader.string()?.unwrap_or_default() }
            }
            key::DECLARE_PUBLISHER => Request::DeclarePublisher {
                id: reader.u8()?,
                reference: reader.string()?.unwrap_or_default(),
                stream: reader.text()?,
            },
            key::QUERY_PUBLISHER_SEQUENCE => {
                Request::QueryPublisherSequence { reference: reader.text()?, stream: reader.text()? }
            }
            key::DELETE_PUBLISHER => Request::DeletePublisher { id: reader.u8()? },
            key::SUBSCRIBE => Request::Subscribe {
                id: reader.u8()?,
                stream: reader.text()?,
                from: offset_spec(reader)?,
                credit: reader.u16()?,
                properties: if reader.0.is_empty() { Vec::new() } else { reader.map()? },
            },
            key::UNSUBSCRIBE => Request::Unsubscribe { id: reader.u8()? },
            key::QUERY_OFFSET => Request::QueryOffset { reference: reader.text()?, stream: reader.text()? },
            key::CREATE => Request::Create { stream: reader.text()?, arguments: reader.map()? },
            key::DELETE => Request::Delete { stream: reader.text()? },
            key::METADATA => Request::Metadata { streams: reader.texts()? },
            key::EXCHANGE_COMMAND_VERSIONS => {
                let versions =
                    (0..reader.count(6)?).map(|_| Ok((reader.u16()?, reader.u16()?, reader.u16()?)));
                Request::ExchangeCommandVersions(versions.collect::<Result<_, Malformed>>()?)
            }
            key::STREAM_STATS => Request::StreamStats { stream: reader.text()? },
            _ => return Ok(None),
        }))
    }
}

/// Where a subscription starts.
pub fn offset_spec(reader: &mut Reader<'_>) -> Result<OffsetSpec, Malformed> {
    Ok(match reader.u16()? {
        1 => OffsetSpec::First,
        2 => OffsetSpec::Last,
        3 => OffsetSpec::Next,
        4 => OffsetSpec::Offset(reader.u64()?),
        5 => OffsetSpec::Time(reader.i64()?),
        _ => return Err(Malformed),
    })
}
