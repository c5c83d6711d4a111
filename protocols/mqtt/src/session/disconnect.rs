//! The end of a connection: DISCONNECT in both directions (section 3.14), and what the session stores at its end.

use super::{Session, inflight, stored, terms};
use crate::codec::{DecodeError, Disconnect, Packet, Properties, PropertiesBuf, Property, Reason, Version};
use crate::error::{Stop, count_reason};
use crate::sys;

impl Session {
    pub(super) fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Stop {
        for property in disconnect.properties {
            if let Property::SessionExpiryInterval(seconds) = property {
                if self.expiry_s == 0 && seconds != 0 {
                    return DecodeError::protocol(
                        "a session expiry in DISCONNECT after none in CONNECT (section 3.14.2.2.2)",
                    )
                    .into();
                }
                let seconds_max = self.server.config.session_expiry_s_max.unwrap_or(u32::MAX);
                if let Err(error) = self.core.set_expiry(terms::expiry(seconds.min(seconds_max))) {
                    return error.into();
                }
            }
        }
        if disconnect.reason != Reason::DisconnectWithWill {
            // [MQTT-3.14.4-3]
            if let Err(error) = self.core.set_will(None) {
                return error.into();
            }
        }
        Stop::Disconnected
    }

    /// Stores what must outlive the connection. Dropping the session afterwards detaches it from the broker's session.
    pub(crate) fn end(&mut self) {
        sys::count(sys::Count::PublishesDropped, self.dropped());
        self.server.sys.end_turn();
        if !self.core.is_durable() {
            for (subscription, id) in self.inflight.acknowledge_exactly_once() {
                self.acknowledged(inflight::AckTarget::Shared { subscription, id });
            }
        }
        if let Err(error) = self.flush() {
            tracing::debug!(client_id = self.core.client_id(), %error, "failed to submit the last turn");
        }
        if self.core.is_durable()
            && self.expiry_s != 0
            && let Err(error) = self.core.put(stored::SENT_KEY, stored::sent_value(self.inbox_next))
        {
            tracing::warn!(client_id = self.core.client_id(), %error, "failed to store session state");
        }
    }

    /// Writes the DISCONNECT that tells an MQTT 5 client why the connection ends.
    pub(crate) fn put_stop(&self, stop: &Stop, out: &mut Vec<u8>) {
        if let Some(reason) = stop.reason() {
            count_reason(reason);
        }
        if let Some(reason) = stop.reason()
            && self.version == Version::V5
        {
            put_disconnect(reason, &stop.to_string(), self.client_packet_bytes_max, out);
        }
    }
}

/// Writes an MQTT 5 DISCONNECT, without its Reason String if the packet would be longer than `bytes_max`
/// [MQTT-3.14.2-3].
fn put_disconnect(reason: Reason, what: &str, bytes_max: usize, out: &mut Vec<u8>) {
    let mut properties = PropertiesBuf::new();
    let start = out.len();
    if properties.push(Property::ReasonString(what)).is_ok() {
        let packet = Packet::Disconnect(Disconnect { reason, properties: properties.as_ref() });
        if packet.encode(Version::V5, out).is_ok() && out.len() - start <= bytes_max {
            return;
        }
        out.truncate(start);
    }
    let packet = Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY });
    let _always_fits = packet.encode(Version::V5, out);
}
