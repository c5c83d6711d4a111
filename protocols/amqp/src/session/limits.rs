//! The `amqp` section of the configuration: every bound of a connection, declared once.

use std::time::Duration;

use inver_driver::Timeouts;
use inver_settings::rules::{GIB, HOUR_MS, KIB, bytes, count, milliseconds, no_key, seconds};

/// Smallest maximum frame size of the protocol (AMQP 0-9-1, section 1.2, `frame-min-size`).
const FRAME_BYTES_MIN: u64 = 4096;
/// Largest maximum frame size: a connection holds the beginning of a frame until the rest has arrived.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// Bound of keys that count things of a connection or channel.
const COUNT_MAX: u64 = 1 << 30;

inver_settings::section! {
    /// The limits of a connection.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Limits {
        /// Size of the largest message body: the server's limit of messages.
        pub message_bytes_max: u64 = 16 << 20 => no_key(),
        /// Size of the largest frame (`frame_max` of the tuning), its eight bytes of framing included; clients can lower
        /// it. RabbitMQ's default.
        pub frame_bytes_max: u32 = 131_072 => bytes(FRAME_BYTES_MIN..=FRAME_BYTES_MAX),
        /// Channels of a connection (`channel_max` of the tuning); clients can lower it. RabbitMQ's default.
        pub channels_max: u16 = 2047 => count(1..=65_535),
        /// Heartbeat interval offered to clients. 0: none. RabbitMQ's default.
        pub heartbeat_s: u16 = 60 => seconds(0..=65_535),
        /// Bounds of time of a connection: the server's, for all protocols.
        pub timeouts: Timeouts = Timeouts::default() => no_key(),
        /// Consumers of a channel.
        pub consumers_max: usize = 65_536 => count(1..=COUNT_MAX),
        /// Unacknowledged deliveries of a channel, whatever prefetch the client requests; at the bound its consumers
        /// pause.
        pub unacked_max: usize = 1 << 20 => count(1..=COUNT_MAX),
        /// Bytes of messages that a transaction holds before its commit.
        pub transaction_bytes_max: usize = 64 << 20 => bytes(KIB..=GIB),
        /// Acknowledgements that a transaction holds before its commit.
        pub transaction_acks_max: usize = 1 << 20 => count(1..=COUNT_MAX),
        /// Publishes of a connection that await their confirm; at the bound the connection is not read.
        pub unconfirmed_max: usize = 1 << 20 => count(1..=COUNT_MAX),
        /// Bytes waiting to be written to a client, above which nothing more is delivered to it.
        pub output_bytes_high: usize = 256 << 10 => bytes(4 * KIB..=GIB),
        /// Bytes waiting to be written to a client, above which nothing more is read from it.
        pub output_bytes_max: usize = 1 << 20 => bytes(4 * KIB..=GIB),
        /// Time that the log holds a publisher back before the client is sent `connection.blocked`.
        pub blocked_after: Duration = Duration::from_secs(1) => milliseconds(10..=HOUR_MS),
        /// Exclusive queues of a connection.
        pub exclusive_queues_max: usize = 65_536 => count(1..=COUNT_MAX),
    }
}
