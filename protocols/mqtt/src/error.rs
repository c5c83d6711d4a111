//! Why a connection ends.

use std::borrow::Cow;

use inver_broker::PublishError;

use crate::codec::{DecodeError, Reason};

/// The end of a connection, by what is still to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    /// The client sent DISCONNECT: close.
    #[error("the client disconnected")]
    Farewell,
    /// Tell an MQTT 5 client why, then close. The will is due.
    #[error("{1}")]
    Tell(Reason, Cow<'static, str>),
    /// The socket is gone, or an older client has no word for the reason. The will is due.
    #[error("{0}")]
    Close(Cow<'static, str>),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Stop {
        Stop::Tell(error.reason, Cow::Borrowed(error.what))
    }
}

impl From<PublishError> for Stop {
    fn from(error: PublishError) -> Stop {
        Stop::Tell(Reason::Unspecified, Cow::Owned(error.to_string()))
    }
}

/// A CONNECT that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) what: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, what: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { reason, what: what.into() }
    }
}
