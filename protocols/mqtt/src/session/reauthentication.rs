//! State of a connection that began with AUTH packets.

use std::net::IpAddr;

use inver_broker::Broker;

use crate::enhanced_auth::{Exchange, Method};

/// What a re-authentication needs.
pub(super) struct Reauthentication {
    pub(super) broker: Broker,
    pub(super) peer: IpAddr,
    /// The method of the CONNECT, which all later ones must have [MQTT-4.12.0-5].
    pub(super) method: Method,
    pub(super) exchange: Option<Exchange>,
}
