//! What the properties of a CONNECT ask for (section 3.1.2.11), with the defaults of absent ones.

use crate::codec::{Connect, PACKET_BYTES_MAX, Property, Version};
use crate::config::MqttConfig;
use crate::session::terms::NEVER_S;

/// CONNECT's properties; the session expiry is bounded by the configuration already.
pub(super) struct Request {
    pub(super) expiry_s: u32,
    pub(super) receive_maximum: u16,
    pub(super) packet_bytes_max: usize,
    pub(super) topic_alias_maximum: u16,
    pub(super) problem_information: bool,
    pub(super) response_information: bool,
}

impl Request {
    pub(super) fn read(connect: &Connect<'_>, config: &MqttConfig) -> Request {
        let mut request = Request {
            // Before MQTT 5 a session without Clean Session never expires [MQTT-3.1.2-4 of 3.1.1].
            expiry_s: if connect.version == Version::V5 || connect.clean_start { 0 } else { NEVER_S },
            receive_maximum: u16::MAX,
            packet_bytes_max: PACKET_BYTES_MAX,
            topic_alias_maximum: 0,
            problem_information: true,
            response_information: false,
        };
        for property in connect.properties {
            match property {
                Property::SessionExpiryInterval(seconds) => request.expiry_s = seconds,
                Property::ReceiveMaximum(maximum) => request.receive_maximum = maximum,
                Property::MaximumPacketSize(bytes) => request.packet_bytes_max = bytes as usize,
                Property::TopicAliasMaximum(maximum) => request.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(flag) => request.response_information = flag != 0,
                Property::RequestProblemInformation(flag) => request.problem_information = flag != 0,
                _ => {}
            }
        }
        if let Some(max) = config.session_expiry_s_max {
            request.expiry_s = request.expiry_s.min(max);
        }
        request
    }
}
