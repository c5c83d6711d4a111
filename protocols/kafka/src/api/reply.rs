//! The reply of a handler: a response now, at a log position, or later from somewhere else.

use inver_broker::{Completion, Identity};
use inver_settings::{MESSAGE_BYTES_MAX, excerpt};

use crate::codec::frame::Frame;
use crate::codec::text::Str;
use crate::error::ConnectionError;
use crate::sasl::Credentials;
use crate::ticket::Claim;

/// A handler's reply. Responses are sent in the order of their requests, whatever each of them waits for.
pub(crate) enum Reply<R> {
    /// The response, to be sent once it is complete.
    Response(R, Completion),
    /// A response without errors that its handler encoded, with parts that it shares with others.
    Encoded(Frame),
    /// A response that another task gives through the claim's ticket.
    Deferred(Claim),
    /// A response that a group's coordinator gives to a member through the claim's ticket.
    Member {
        /// Where the response arrives.
        claim: Claim,
        /// Id of the group.
        group: Str,
        /// Id of the member.
        member_id: Str,
    },
    /// The response of the connection's fetcher to the fetch with this number.
    Fetch(u64),
    /// The response of the connection's share sessions to the share fetch with this number.
    ShareFetch(u64),
    /// The response follows when the connection has checked the credentials.
    Authenticate(Credentials),
    /// The client is authenticated: the response follows once it is admitted.
    Admit(Identity, R),
    /// The client expects no response.
    None,
    /// Nothing was done yet: the request may take longer than a turn, and is to be handled on another thread.
    Detach,
    /// The response, if there is one, and then the end of the connection.
    Close(Option<R>, ConnectionError),
}

impl<R> Reply<R> {
    /// A response to be sent in its turn.
    pub(crate) fn now(response: R) -> Reply<R> {
        Reply::Response(response, Completion::Now)
    }

    /// The reply with its response converted.
    pub(crate) fn map<S>(self, convert: impl FnOnce(R) -> S) -> Reply<S> {
        match self {
            Reply::Response(response, completion) => Reply::Response(convert(response), completion),
            Reply::Encoded(frame) => Reply::Encoded(frame),
            Reply::Deferred(claim) => Reply::Deferred(claim),
            Reply::Member { claim, group, member_id } => Reply::Member { claim, group, member_id },
            Reply::Fetch(number) => Reply::Fetch(number),
            Reply::ShareFetch(number) => Reply::ShareFetch(number),
            Reply::Authenticate(credentials) => Reply::Authenticate(credentials),
            Reply::Admit(identity, response) => Reply::Admit(identity, convert(response)),
            Reply::None => Reply::None,
            Reply::Detach => Reply::Detach,
            Reply::Close(response, error) => Reply::Close(response.map(convert), error),
        }
    }
}

/// An error code and the message beside it.
pub(crate) type Refusal = (crate::codec::error_code::ErrorCode, String);

/// A message for people, beside an error code.
pub(crate) fn message(text: impl Into<String>) -> Option<Str> {
    let text = text.into();
    Some(Str::from(excerpt(&text, MESSAGE_BYTES_MAX).into_owned()))
}
