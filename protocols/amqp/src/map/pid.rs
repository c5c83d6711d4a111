//! The names of connections and channels where RabbitMQ has those of its processes. Programs compare them only.

/// The name of a connection by its number.
pub(crate) fn connection_pid(connection: u64) -> String {
    format!("<inver.{connection}.0.0>")
}

/// The name of a channel: its number, and how many channels its connection had opened then.
pub(crate) fn channel_pid(connection: u64, channel: u16, incarnation: u64) -> String {
    format!("<inver.{connection}.{channel}.{incarnation}>")
}
