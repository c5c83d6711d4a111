//! Frames: their length, key, version and correlation id, and the codes of responses.

use super::wire::{Malformed, Reader, put_string};

/// Keys of commands.
pub mod key {
    /// `DeclarePublisher`
    pub const DECLARE_PUBLISHER: u16 = 1;
    /// `Publish`
    pub const PUBLISH: u16 = 2;
    /// `PublishConfirm`
    pub const PUBLISH_CONFIRM: u16 = 3;
    /// `PublishError`
    pub const PUBLISH_ERROR: u16 = 4;
    /// `QueryPublisherSequence`
    pub const QUERY_PUBLISHER_SEQUENCE: u16 = 5;
    /// `DeletePublisher`
    pub const DELETE_PUBLISHER: u16 = 6;
    /// `Subscribe`
    pub const SUBSCRIBE: u16 = 7;
    /// `Deliver`
    pub const DELIVER: u16 = 8;
    /// `Credit`
    pub const CREDIT: u16 = 9;
    /// `StoreOffset`
    pub const STORE_OFFSET: u16 = 10;
    /// `QueryOffset`
    pub const QUERY_OFFSET: u16 = 11;
    /// `Unsubscribe`
    pub const UNSUBSCRIBE: u16 = 12;
    /// `Create`
    pub const CREATE: u16 = 13;
    /// `Delete`
    pub const DELETE: u16 = 14;
    /// `Metadata`
    pub const METADATA: u16 = 15;
    /// `MetadataUpdate`
    pub const METADATA_UPDATE: u16 = 16;
    /// `PeerProperties`
    pub const PEER_PROPERTIES: u16 = 17;
    /// `SaslHandshake`
    pub const SASL_HANDSHAKE: u16 = 18;
    /// `SaslAuthenticate`
    pub const SASL_AUTHENTICATE: u16 = 19;
    /// `Tune`
    pub const TUNE: u16 = 20;
    /// `Open`
    pub const OPEN: u16 = 21;
    /// `Close`
    pub const CLOSE: u16 = 22;
    /// `Heartbeat`
    pub const HEARTBEAT: u16 = 23;
    /// `Route`
    pub const ROUTE: u16 = 24;
    /// `Partitions`
    pub const PARTITIONS: u16 = 25;
    /// `ConsumerUpdate`
    pub const CONSUMER_UPDATE: u16 = 26;
    /// `ExchangeCommandVersions`
    pub const EXCHANGE_COMMAND_VERSIONS: u16 = 27;
    /// `StreamStats`
    pub const STREAM_STATS: u16 = 28;
    /// `CreateSuperStream`
    pub const CREATE_SUPER_STREAM: u16 = 29;
    /// `DeleteSuperStream`
    pub const DELETE_SUPER_STREAM: u16 = 30;
    /// The bit of a response.
    pub const RESPONSE: u16 = 0x8000;
}

/// Commands with the lowest and the highest version that are served.
pub const VERSIONS: &[(u16, u16, u16)] = &[
    (key::DECLARE_PUBLISHER, 1, 1),
    (key::PUBLISH, 1, 2),
    (key::PUBLISH_CONFIRM, 1, 1),
    (key::PUBLISH_ERROR, 1, 1),
    (key::QUERY_PUBLISHER_SEQUENCE, 1, 1),
    (key::DELETE_PUBLISHER, 1, 1),
    (key::SUBSCRIBE, 1, 1),
    (key::DELIVER, 1, 2),
    (key::CREDIT, 1, 1),
    (key::STORE_OFFSET, 1, 1),
    (key::QUERY_OFFSET, 1, 1),
    (key::UNSUBSCRIBE, 1, 1),
    (key::CREATE, 1, 1),
    (key::DELETE, 1, 1),
    (key::METADATA, 1, 1),
    (key::METADATA_UPDATE, 1, 1),
    (key::PEER_PROPERTIES, 1, 1),
    (key::SASL_HANDSHAKE, 1, 1),
    (key::SASL_AUTHENTICATE, 1, 1),
    (key::TUNE, 1, 1),
    (key::OPEN, 1, 1),
    (key::CLOSE, 1, 1),
    (key::HEARTBEAT, 1, 1),
    (key::EXCHANGE_COMMAND_VERSIONS, 1, 1),
    (key::STREAM_STATS, 1, 1),
];

/// The code of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// Success.
    Ok = 1,
    /// There is no such stream.
    StreamDoesNotExist = 2,
    /// The connection has a subscription of this id.
    SubscriptionIdAlreadyExists = 3,
    /// The connection has no subscription of this id.
    SubscriptionIdDoesNotExist = 4,
    /// There is a stream of this name.
    StreamAlreadyExists = 5,
    /// The stream was deleted, or cannot be read.
    StreamNotAvailable = 6,
    /// The mechanism of the login is not served.
    SaslMechanismNotSupported = 7,
    /// The login is refused.
    AuthenticationFailure = 8,
    /// The response of the mechanism is malformed.
    SaslError = 9,
    /// The user may connect from this machine only.
    AuthenticationFailureLoopback = 11,
    /// The virtual host does not exist, or the user may not use it.
    VirtualHostAccessFailure = 12,
    /// The frame is malformed, its command unknown or not allowed here.
    UnknownFrame = 13,
    /// The frame is larger than negotiated.
    FrameTooLarge = 14,
    /// The broker failed.
    InternalError = 15,
    /// The user may not do this.
    AccessRefused = 16,
    /// An argument is wrong, or a limit is reached.
    PreconditionFailed = 17,
    /// The connection has no publisher of this id.
    PublisherDoesNotExist = 18,
    /// No offset is stored.
    NoOffset = 19,
}

/// The bytes of the length of a frame.
pub const LENGTH_BYTES: usize = 4;

/// The first frame of the input: the whole bytes that it takes, and what follows its length. None if it is not whole.
pub fn split(input: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = input.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    Some((LENGTH_BYTES + length, rest.get(..length)?))
}

/// The length that the first frame of the input claims, without the bytes of the length.
pub fn claimed_bytes(input: &[u8]) -> Option<usize> {
    input.first_chunk::<LENGTH_BYTES>().map(|length| u32::from_be_bytes(*length) as usize)
}

/// Key and version of a frame, and the rest of it.
pub fn header<'a>(frame: &'a [u8]) -> Result<(u16, u16, Reader<'a>), Malformed> {
    let mut reader = Reader(frame);
    Ok((reader.u16()?, reader.u16()?, reader))
}

/// Appends a frame whose content `write` appends.
pub fn put(out: &mut Vec<u8>, key: u16, version: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    write(out);
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    if let Some(field) = out.get_mut(start..start + LENGTH_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a response with its code, and what `write` appends.
pub fn put_response(
    out: &mut Vec<u8>,
    command: u16,
    correlation: u32,
    code: Code,
    write: impl FnOnce(&mut Vec<u8>),
) {
    put(out, key::RESPONSE | command, 1, |out| {
        out.extend_from_slice(&correlation.to_be_bytes());
        out.extend_from_slice(&(code as u16).to_be_bytes());
        write(out);
    });
}

/// Appends the `Close` of the broker.
pub fn put_close(out: &mut Vec<u8>, code: Code, reason: &str) {
    put(out, key::CLOSE, 1, |out| {
        out.extend_from_slice(&1_u32.to_be_bytes());
        out.extend_from_slice(&(code as u16).to_be_bytes());
        put_string(out, reason);
    });
}
