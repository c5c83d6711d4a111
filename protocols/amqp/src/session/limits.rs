//! Every bound of a connection, with its default.

use std::time::Duration;

/// What one connection may ask of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame, either way, its own eight bytes counted. RabbitMQ's default.
    pub frame_bytes_max: u32,
    /// Channels of a connection. RabbitMQ's default.
    pub channels_max: u16,
    /// The body of a message. RabbitMQ 4's default.
    pub message_bytes_max: u64,
    /// Heartbeat offered to clients, in seconds; 0 for none. RabbitMQ's default.
    pub heartbeat_s: u16,
    /// From the first byte to `connection.open`. RabbitMQ's default.
    pub handshake_timeout: Duration,
    /// Consumers of a channel. RabbitMQ has no bound; each costs a few hundred bytes here.
    pub consumers_max: usize,
    /// Deliveries of a channel that await acknowledgement. At the bound its consumers pause.
    pub unacked_max: usize,
    /// Bytes of publishes that a transaction may hold before its commit.
    pub transaction_bytes_max: usize,
    /// Acknowledgements that a transaction may hold before its commit.
    pub transaction_acks_max: usize,
    /// Publishes of a connection that await their confirm. At the bound its socket is not read.
    pub unconfirmed_max: usize,
    /// Output waiting to be written, beyond which nothing more is delivered.
    pub output_bytes_high: usize,
    /// Output waiting to be written, beyond which the socket is not read either.
    pub output_bytes_max: usize,
    /// A client that takes nothing of what waits to be written for so long is gone. RabbitMQ's `send_timeout`.
    pub write_stall_timeout: Duration,
    /// A publisher that the broker's log holds back for so long is told so with `connection.blocked`.
    pub blocked_after: Duration,
    /// Exclusive queues of a connection.
    pub exclusive_queues_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes_max: 131_072,
            channels_max: 2047,
            message_bytes_max: 16 * 1024 * 1024,
            heartbeat_s: 60,
            handshake_timeout: Duration::from_secs(10),
            consumers_max: 65_536,
            unacked_max: 1 << 20,
            transaction_bytes_max: 64 * 1024 * 1024,
            transaction_acks_max: 1 << 20,
            unconfirmed_max: 1 << 20,
            output_bytes_high: 256 * 1024,
            output_bytes_max: 1024 * 1024,
            write_stall_timeout: Duration::from_secs(15),
            blocked_after: Duration::from_secs(1),
            exclusive_queues_max: 65_536,
        }
    }
}
