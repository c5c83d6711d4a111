//! The log's back-pressure as a client sees it: `connection.blocked` and `connection.unblocked` (RabbitMQ's extension).
//!
//! While the log admits no more writes the socket is not read. A client that has published and understands the extension
//! is told when that lasts for [`Limits::blocked_after`](crate::session::Limits::blocked_after); shorter holds are
//! ordinary under load.

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
        }
    }

    /// When the client must be told that it is blocked.
    pub(super) fn deadline(&self, session: &Session) -> Option<Instant> {
        let since = self.held_since.filter(|_| session.should_send_blocked())?;
        Some(since + session.limits().blocked_after)
    }
}
