//! Names of the protocol and of the stored properties that it adds.

use inver_broker::message::name;

/// Name of the protocol in origins and metrics.
pub(crate) const ORIGIN: &str = "mqtt";

/// Names of the stored properties that only MQTT has. All are among the broker's reserved names.
pub(super) mod own {
    pub(crate) const RETAIN: &[u8] = b"mqtt-retain";
    pub(crate) const PAYLOAD_FORMAT: &[u8] = b"mqtt-payload-format";
    /// Of a copy in a session's inbox: `granted QoS/RETAIN/shared/subscription identifier`.
    pub(crate) const INBOX_FOR: &[u8] = b"mqtt-inbox-for";
}

/// Stored properties without an MQTT equivalent: delivered as user properties of these names.
pub(super) const AS_USER_PROPERTIES: [&[u8]; 7] = [
    name::MESSAGE_ID,
    name::TYPE,
    name::APP_ID,
    name::USER_ID,
    name::TIMESTAMP,
    name::PRIORITY,
    name::CONTENT_ENCODING,
];
