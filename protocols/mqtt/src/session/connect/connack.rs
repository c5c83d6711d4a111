//! CONNACK's properties (section 3.2.2.3).

use crate::codec::{Connect, PACKET_BYTES_MAX, PropertiesBuf, Property, Version};
use crate::config::template::{self, Values};
use crate::session::Session;

use super::request::Request;

/// Bytes of a CONNACK with a warning, at most: its other properties may have a client identifier, and response information.
const WARNING_ROOM_BYTES: usize = 200_000;

impl Session {
    /// The properties that tell an MQTT 5 client the server's bounds, and what differs from its request.
    pub(super) fn connack_properties(
        &self,
        connect: &Connect<'_>,
        assigned_client_id: Option<&str>,
        request: &Request,
        warning: Option<&str>,
    ) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        if connect.version != Version::V5 {
            return properties;
        }
        let config = self.config();
        let requested_expiry_s = connect.properties.iter().find_map(|property| match property {
            Property::SessionExpiryInterval(seconds) => Some(seconds),
            _ => None,
        });
        let mut push = |property: Property<'_>| {
            let _short_enough = properties.push(property);
        };
        if requested_expiry_s.is_some_and(|requested| requested != request.expiry_s) {
            push(Property::SessionExpiryInterval(request.expiry_s));
        }
        if config.receive_maximum != u16::MAX && !self.is_internal() {
            push(Property::ReceiveMaximum(config.receive_maximum));
        }
        if config.packet_bytes_max < PACKET_BYTES_MAX {
            push(Property::MaximumPacketSize(config.packet_bytes_max as u32));
        }
        let limits = self.limits;
        if limits.maximum_qos < 2 {
            push(Property::MaximumQos(limits.maximum_qos));
        }
        if !limits.retain {
            push(Property::RetainAvailable(0));
        }
        if !limits.wildcards {
            push(Property::WildcardSubscriptionAvailable(0));
        }
        if !limits.shared {
            push(Property::SharedSubscriptionAvailable(0));
        }
        if request.response_information && !config.response_information.is_empty() {
            let user = self.user().unwrap_or_default();
            let values = Values { client_id: self.client_id(), user, ..Values::default() };
            let text = template::fill(&config.response_information, values);
            push(Property::ResponseInformation(&text));
        }
        if let Some(assigned) = assigned_client_id {
            push(Property::AssignedClientIdentifier(assigned));
        }
        if config.topic_alias_maximum != 0 {
            push(Property::TopicAliasMaximum(config.topic_alias_maximum));
        }
        if self.keep_alive_s != connect.keep_alive_s {
            // [MQTT-3.2.2-21]
            push(Property::ServerKeepAlive(self.keep_alive_s));
        }
        // A packet of this size every client accepts that accepts any.
        if let Some(warning) = warning.filter(|_| request.packet_bytes_max > WARNING_ROOM_BYTES) {
            push(Property::ReasonString(warning));
        }
        properties
    }
}
