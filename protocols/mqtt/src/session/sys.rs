//! `$SYS` values for this session: at QoS 0 straight to the client, at QoS 1 and 2 through the session's inbox.

use inver_access::{Operation, ResourceKind};
use inver_broker::address::Form;
use inver_broker::{Address, Message};

use super::Session;
use super::source::RetainedScan;
use crate::codec::{Properties, PropertiesBuf, Property, Publish, Qos, Version};
use crate::error::Stop;
use crate::map::{InboxFor, server_headers};

impl Session {
    /// Sends the values that changed of the topics that the session subscribed to.
    pub(super) fn send_sys(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let (interval, values) =
            self.server.sys.values_of_interval(self.core.namespace(), || self.core.tally());
        let before = self.subscriptions.note_sys_interval(interval);
        for statistic in values.iter().filter(|statistic| statistic.changed_in > before) {
            let matched = self.subscriptions.matched(statistic.topic, false);
            let (Some(qos), ids) = (matched.qos, matched.ids.clone()) else { continue };
            if !may_receive(&self.core, statistic.topic) {
                continue;
            }
            match qos {
                Qos::AtMostOnce => self.put_sys(statistic.topic, &statistic.value, false, &ids, out),
                _ => self.queue_sys(statistic.topic, &statistic.value, None)?,
            }
        }
        Ok(())
    }

    /// Sends the current values to a new subscription, as if they were retained.
    pub(super) fn send_sys_retained(&mut self, scan: &RetainedScan, out: &mut Vec<u8>) -> Result<(), Stop> {
        for (topic, value) in self.server.sys.values_now(self.core.namespace(), &self.core.tally()) {
            let matches = scan.filter.matches(&Address::parse(Form::Slashed, topic.as_bytes()));
            if !matches || !may_receive(&self.core, topic) {
                continue;
            }
            let inbox_for = InboxFor {
                granted: scan.granted,
                retain: true,
                shared: false,
                subscription_id: scan.subscription_id,
            };
            match scan.granted {
                Qos::AtMostOnce => self.put_sys(topic, &value, true, scan.subscription_id.as_slice(), out),
                _ => self.queue_sys(topic, &value, Some(inbox_for))?,
            }
        }
        Ok(())
    }

    fn queue_sys(&mut self, topic: &str, value: &str, inbox_for: Option<InboxFor>) -> Result<(), Stop> {
        let headers = server_headers(&mut self.scratch.get().headers, topic, Qos::ExactlyOnce, inbox_for);
        let message = Message {
            timestamp_ms: self.now_ms,
            key: None,
            value: Some(value.as_bytes()),
            headers,
            guaranteed: true,
            lookup: None,
        };
        self.publisher.of(&self.core).publish(self.core.target(), &message)?;
        Ok(())
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
