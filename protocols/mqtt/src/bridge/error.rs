//! Why a connection of a bridge ends.

use std::io;

use super::side::Side;
use crate::codec::{DecodeError, EncodeError, Reason};

/// Why a connection of a bridge ended or was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BridgeError {
    #[error("{0}: {1}")]
    Io(Side, io::Error),
    #[error("{0} closed the connection")]
    Closed(Side),
    #[error("{0} does not answer")]
    NoAnswer(Side),
    #[error("{0} refused the connection: {1:?} {2}")]
    Refused(Side, Reason, String),
    #[error("{0} ended the connection: {1:?}")]
    Disconnected(Side, Reason),
    #[error("{0} sent what is no MQTT: {1}")]
    Malformed(Side, DecodeError),
    #[error("{0} sent a packet that a client does not get")]
    Unexpected(Side),
    #[error("{0} is out of room for a message, which is sent again later")]
    TryLater(Side),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("the namespace does not exist")]
    NoNamespace,
    #[error("the session on this broker is gone, and is made again")]
    NoSession,
    #[error("what the bridge is to remember is not stored: {0}")]
    NotStored(String),
}
