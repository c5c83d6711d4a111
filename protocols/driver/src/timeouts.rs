//! The bounds of time that hold for connections of every protocol.

use std::time::Duration;

/// Time that a client has to close its side during shutdown, when the broker has closed its own.
pub(crate) const SHUTDOWN_DRAIN: Duration = Duration::from_millis(250);

/// Time that a client has to take its last bytes during shutdown.
pub(crate) const SHUTDOWN_LINGER: Duration = Duration::from_secs(1);

/// Bounds of time, each with one configuration key for all protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Time from the start of a connection to the end of its login; key `limits.handshake_timeout_ms`, default 10 s (as
    /// RabbitMQ's `handshake_timeout`).
    pub login: Duration,
    /// Time for which a client may take nothing of the output that waits for it; key `limits.write_stall_timeout_ms`,
    /// default 15 s (as RabbitMQ's `send_timeout`). A client that is slow but takes some bytes is kept.
    pub write_stall: Duration,
    /// Time that an ended connection has to take its last bytes and to close its side; key `limits.linger_timeout_ms`,
    /// default 3 s. During shutdown a client has 1 s for its last bytes, and 250 ms to close its side.
    pub linger: Duration,
    /// Time from which a connection's hold of its thread is told in the log; key `limits.slow_turn_ms`, default 50 ms.
    pub slow_turn: Duration,
    /// Whether the CPU time of what a connection does at a time is measured too; key `limits.slow_turn_cpu`, default no.
    pub slow_turn_cpu: bool,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            login: Duration::from_secs(10),
            write_stall: Duration::from_secs(15),
            linger: Duration::from_secs(3),
            slow_turn: Duration::from_millis(50),
            slow_turn_cpu: false,
        }
    }
}
