//! Mailbox tokens: what a connection's mailbox can wake its session for.

/// The session's inbox may have messages.
pub(crate) const INBOX: u64 = 0;
/// The session's QoS 0 queue may have messages.
pub(crate) const LIVE: u64 = 1;
/// Another connection takes the session over [MQTT-3.1.4-3].
pub(crate) const TAKEN_OVER: u64 = 2;
/// New values of `$SYS` topics are due.
pub(crate) const SYS: u64 = 3;
/// The first token of shared subscriptions: each has this plus its number within the session.
pub(crate) const SHARED: u64 = 16;
