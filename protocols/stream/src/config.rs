//! The `stream` section of the configuration: settings and bounds, each declared once.

use inver_driver::Timeouts;
use inver_settings::rules::{GIB, KIB, bytes, count, no_key, seconds, value};

/// Largest maximum frame size: a connection holds the beginning of a frame until the rest has arrived.
const FRAME_BYTES_MAX: u64 = 256 << 20;

inver_settings::section! {
    /// Settings of the protocol.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct StreamConfig {
        /// Address that clients of `stream.listen` are told to connect to. Empty: the address at which they reached the
        /// broker.
        pub advertised: Option<(String, u16)> = None => value("`host:port`, or empty"),
        /// Address that clients of `stream.tls_listen` are told to connect to. Empty: the host of `stream.advertised` and the
        /// port of `stream.tls_listen`; without both, the address at which they reached the broker.
        pub tls_advertised: Option<(String, u16)> = None => value("`host:port`, or empty"),
        /// Size of the largest frame (`frameMax` of the tuning), without the four bytes of its length; clients can lower it.
        /// RabbitMQ's default.
        pub frame_bytes_max: u32 = 1 << 20 => bytes(8 * KIB..=FRAME_BYTES_MAX),
        /// Heartbeat interval offered to clients. 0: none. RabbitMQ's default.
        pub heartbeat_s: u16 = 60 => seconds(0..=65_535),
        /// Messages of a connection that await their confirm; at the bound the connection is not read.
        pub unconfirmed_max: usize = 1 << 20 => count(1..=1 << 30),
        /// Size of the messages that the batches of entries of one Publish may have once they are decompressed, 64 bytes
        /// more for each message.
        pub decompressed_bytes_max: usize = 16 << 20 => bytes(KIB..=GIB),
        /// Bytes of a chunk, above which the next one begins; one message may be larger.
        pub chunk_bytes_max: usize = 128 << 10 => bytes(KIB..=128 << 20),
        /// Bytes waiting to be written to a client, above which nothing more is delivered to it.
        pub output_bytes_high: usize = 1 << 20 => bytes(4 * KIB..=GIB),
        /// Bytes waiting to be written to a client, above which nothing more is read from it.
        pub output_bytes_max: usize = 4 << 20 => bytes(4 * KIB..=GIB),
        /// Size of the largest message: the server's limit of messages.
        pub message_bytes_max: usize = 16 << 20 => no_key(),
        /// The version of RabbitMQ that clients are told: some decide by it what they may use.
        pub version: &'static str = "" => no_key(),
        /// Bounds of time of a connection: the server's, for all protocols.
        pub timeouts: Timeouts = Timeouts::default() => no_key(),
    }
}
