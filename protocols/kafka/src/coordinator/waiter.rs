//! A client that waits for a group's response.

use bytes::BytesMut;

use super::group::{Effects, Joined, Synced};
use crate::codec::frame::Frame;
use crate::codec::header::ResponseHeader;
use crate::ticket::Ticket;

/// Encodes the response to a request.
type Encode<T> = fn(&mut BytesMut, ResponseHeader, T) -> Frame;

/// A client that waits for a `T`: [`Joined`] or [`Synced`].
pub(crate) struct Waiter<T> {
    ticket: Ticket,
    header: ResponseHeader,
    encode: Encode<T>,
}

impl<T> Waiter<T> {
    pub(crate) fn new(ticket: Ticket, header: ResponseHeader, encode: Encode<T>) -> Waiter<T> {
        Waiter { ticket, header, encode }
    }

    /// Whether the connection is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.ticket.is_abandoned()
    }

    fn answer(self, arena: &mut BytesMut, outcome: T) {
        self.ticket.fill((self.encode)(arena, self.header, outcome));
    }
}

/// Sends the responses of a transition.
pub(super) fn deliver(effects: Effects<Waiter<Joined>, Waiter<Synced>>) {
    let mut arena = BytesMut::new();
    for (waiter, joined) in effects.joined {
        waiter.answer(&mut arena, joined);
    }
    for (waiter, synced) in effects.synced {
        waiter.answer(&mut arena, synced);
    }
}
