//! `$SYS` values for this session.

use inver_access::{Operation, ResourceKind};
use inver_broker::Address;
use inver_broker::address::Form;

use super::Session;
use super::source::RetainedScan;
use crate::codec::{Properties, PropertiesBuf, Property, Publish, Qos, Version};

impl Session {
    /// Writes the current values of the topics that the session subscribed to.
    pub(super) fn send_sys(&mut self, out: &mut Vec<u8>) {
        for (topic, value) in self.server.sys.values(self.core.namespace()) {
            let matched = self.subscriptions.matched(topic, false);
            if matched.qos.is_some() && may_receive(&self.core, topic) {
                let ids = matched.ids.clone();
                self.put_sys(topic, &value, false, &ids, out);
            }
        }
    }

    /// Writes the current values to a new subscription, as if they were retained.
    pub(super) fn send_sys_retained(&mut self, scan: &RetainedScan, out: &mut Vec<u8>) {
        for (topic, value) in self.server.sys.values(self.core.namespace()) {
            let matches = scan.filter.matches(&Address::parse(Form::Slashed, topic.as_bytes()));
            if matches && may_receive(&self.core, topic) {
                self.put_sys(topic, &value, true, scan.subscription_id.as_slice(), out);
            }
        }
    }

    fn put_sys(&mut self, topic: &str, value: &str, retain: bool, ids: &[u32], out: &mut Vec<u8>) {
        let mut properties = PropertiesBuf::new();
        for &id in ids {
            let _always_fits = properties.push(Property::SubscriptionIdentifier(id));
        }
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain,
            topic,
            packet_id: 0,
            properties: if self.version == Version::V5 { properties.as_ref() } else { Properties::EMPTY },
            payload: value.as_bytes(),
        };
        let start = out.len();
        if publish.encode(self.version, out).is_err() || out.len() - start > self.client_packet_bytes_max {
            out.truncate(start);
        }
    }
}

/// The statistics have addresses like any message.
fn may_receive(session: &inver_broker::Session, topic: &str) -> bool {
    session.permissions().may(ResourceKind::Address, topic, Operation::Receive)
}
