//! AMQP's settings: what of [`Limits`] can be configured, and the plug made of it.

use std::sync::Arc;
use std::time::Duration;

use inver_amqp::{Amqp, Limits};
use inver_broker::ProtocolPlugin;

use super::{Setting, setting};
use crate::config::Config;
use crate::config::value::{self, Value};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// The least that a frame of the protocol's own may be limited to (AMQP 0-9-1, section 1.2, `frame-min-size`).
const FRAME_BYTES_MIN: u64 = 4096;
/// What a frame may be at most: the reader keeps buffers of twice this size, one a thread.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// The bounds of a count, for settings that count things of a connection or channel.
const COUNT_MAX: u64 = 1 << 30;

/// See the module's text.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    setting("frame_bytes_max", "128 KiB", "The largest frame (`frame_max` of the tuning); clients can lower it.",
        |v| frame(v).map(drop)),
    setting("channels_max", "2047", "Channels of a connection (`channel_max` of the tuning); clients can lower it.",
        |v| value::number(v, 1, 65_535).map(drop)),
    setting("heartbeat_s", "60", "Seconds between heartbeats that clients are offered; 0 for none.",
        |v| value::number(v, 0, 65_535).map(drop)),
    setting("handshake_timeout_ms", "10000", "Time that a connection has until it is open.",
        |v| timeout(v).map(drop)),
    setting("consumers_max", "65536", "Consumers of a channel.", |v| count(v).map(drop)),
    setting("unacked_max", "1048576",
        "Messages that a channel may hold unacknowledged, whatever prefetch its client asked for; then its consumers pause.",
        |v| count(v).map(drop)),
    setting("transaction_bytes_max", "64 MiB", "Bytes of messages that a transaction holds before its commit.",
        |v| value::bytes(v, KIB, GIB).map(drop)),
    setting("transaction_acks_max", "1048576", "Acknowledgements that a transaction holds before its commit.",
        |v| count(v).map(drop)),
    setting("unconfirmed_max", "1048576",
        "Publishes of a connection that await their confirm; beyond it nothing more is read from it.",
        |v| count(v).map(drop)),
    setting("output_bytes_high", "256 KiB",
        "Bytes written to a client ahead of what it takes; beyond it nothing more is delivered to it.",
        |v| value::bytes(v, 4 * KIB, GIB).map(drop)),
    setting("output_bytes_max", "1 MiB",
        "Bytes written to a client ahead of what it takes; beyond it nothing more is read from it.",
        |v| value::bytes(v, 4 * KIB, GIB).map(drop)),
    setting("write_stall_timeout_ms", "15000", "A client that takes nothing of what it is sent for so long is gone.",
        |v| timeout(v).map(drop)),
    setting("blocked_after_ms", "1000",
        "A publisher that the log holds back for so long is told so (`connection.blocked`).",
        |v| timeout(v).map(drop)),
    setting("exclusive_queues_max", "65536", "Exclusive queues of a connection.", |v| count(v).map(drop)),
];

/// AMQP as configured.
pub(super) fn make(config: &Config) -> Result<Arc<dyn ProtocolPlugin>, String> {
    Ok(Arc::new(Amqp::new(limits(config)?)))
}

fn limits(config: &Config) -> Result<Limits, String> {
    let of = |name: &str| config.setting(&format!("amqp.{name}"));
    let size = |name: &str| Ok::<_, String>(value::bytes(of(name)?, 0, u64::MAX)? as usize);
    let short = |name: &str| Ok::<_, String>(value::number(of(name)?, 0, 65_535)? as u16);
    Ok(Limits {
        frame_bytes_max: frame(of("frame_bytes_max")?)?,
        channels_max: short("channels_max")?,
        message_bytes_max: config.message_bytes_max as u64,
        heartbeat_s: short("heartbeat_s")?,
        handshake_timeout: timeout(of("handshake_timeout_ms")?)?,
        consumers_max: count(of("consumers_max")?)?,
        unacked_max: count(of("unacked_max")?)?,
        transaction_bytes_max: size("transaction_bytes_max")?,
        transaction_acks_max: count(of("transaction_acks_max")?)?,
        unconfirmed_max: count(of("unconfirmed_max")?)?,
        output_bytes_high: size("output_bytes_high")?,
        output_bytes_max: size("output_bytes_max")?,
        write_stall_timeout: timeout(of("write_stall_timeout_ms")?)?,
        blocked_after: timeout(of("blocked_after_ms")?)?,
        exclusive_queues_max: count(of("exclusive_queues_max")?)?,
    })
}

fn frame(value: &Value) -> Result<u32, String> {
    Ok(value::bytes(value, FRAME_BYTES_MIN, FRAME_BYTES_MAX)? as u32)
}

fn count(value: &Value) -> Result<usize, String> {
    Ok(value::number(value, 1, COUNT_MAX)? as usize)
}

fn timeout(value: &Value) -> Result<Duration, String> {
    const HOUR_MS: u64 = 3_600_000;
    value::milliseconds(value, 10, HOUR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;
    use crate::protocols::tests::{assert_refused, with_all};

    #[test]
    fn the_defaults_are_the_plugs() {
        let config = defaults();
        let wanted = Limits { message_bytes_max: config.message_bytes_max as u64, ..Limits::default() };
        assert_eq!(limits(&config), Ok(wanted));
    }

    #[test]
    fn every_setting_reaches_the_plug() {
        let values = [
            ("FRAME_BYTES_MAX", "8 KiB"),
            ("CHANNELS_MAX", "1"),
            ("HEARTBEAT_S", "2"),
            ("HANDSHAKE_TIMEOUT_MS", "300"),
            ("CONSUMERS_MAX", "4"),
            ("UNACKED_MAX", "5"),
            ("TRANSACTION_BYTES_MAX", "6 KiB"),
            ("TRANSACTION_ACKS_MAX", "7"),
            ("UNCONFIRMED_MAX", "8"),
            ("OUTPUT_BYTES_HIGH", "9 KiB"),
            ("OUTPUT_BYTES_MAX", "10 KiB"),
            ("WRITE_STALL_TIMEOUT_MS", "1100"),
            ("BLOCKED_AFTER_MS", "1200"),
            ("EXCLUSIVE_QUEUES_MAX", "13"),
        ];
        let config = with_all("amqp", SETTINGS, &values);
        let wanted = Limits {
            frame_bytes_max: 8 * 1024,
            channels_max: 1,
            message_bytes_max: config.message_bytes_max as u64,
            heartbeat_s: 2,
            handshake_timeout: Duration::from_millis(300),
            consumers_max: 4,
            unacked_max: 5,
            transaction_bytes_max: 6 * 1024,
            transaction_acks_max: 7,
            unconfirmed_max: 8,
            output_bytes_high: 9 * 1024,
            output_bytes_max: 10 * 1024,
            write_stall_timeout: Duration::from_millis(1100),
            blocked_after: Duration::from_millis(1200),
            exclusive_queues_max: 13,
        };
        assert_eq!(limits(&config), Ok(wanted));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let values = [
            ("FRAME_BYTES_MAX", "4095"),
            ("FRAME_BYTES_MAX", "1 GiB"),
            ("CHANNELS_MAX", "0"),
            ("HEARTBEAT_S", "65536"),
            ("HANDSHAKE_TIMEOUT_MS", "0"),
            ("UNACKED_MAX", "0"),
        ];
        assert_refused("amqp", &values);
    }
}
