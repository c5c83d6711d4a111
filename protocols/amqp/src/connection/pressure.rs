//! Back-pressure as a client sees it: `connection.blocked` and `connection.unblocked` (RabbitMQ's extension).
//!
//! The socket is not read while the log admits no more writes. A client that has published and has the capability is sent
//! `connection.blocked` once that lasts for [`Limits::blocked_after`](crate::session::Limits::blocked_after): shorter
//! times are ordinary under load. While the disk or the memory is low, the socket of a client that publishes is not read
//! either, and it is told at once.

use tokio::time::Instant;

use crate::session::Session;

/// Whether the log holds the connection back.
#[derive(Default)]
pub(super) struct Pressure {
    held_since: Option<Instant>,
}

impl Pressure {
    /// Learns whether input is held back.
    pub(super) fn set(&mut self, is_held_back: bool, now: Instant, session: &mut Session, out: &mut Vec<u8>) {
        self.held_since = is_held_back.then_some(now);
        if !is_held_back {
            session.send_unblocked(out);
        } else if session.is_at_gate() {
            session.send_blocked(out);
        }
    }

    /// When `connection.blocked` is due.
    pub(super) fn deadline(&self, session: &Session) -> Option<Instant> {
        let since = self.held_since.filter(|_| session.should_send_blocked())?;
        Some(since + session.limits().blocked_after)
    }
}
