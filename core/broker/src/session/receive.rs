//! What the client of a session may receive: each message is decided by its address, and a producer's by its log topic
//! too, when it is pulled. So a permission that is taken away holds for messages that wait already.

use std::sync::Arc;

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_storage::batch::{BatchBuilder, Record, records};

use crate::access::Permissions;
use crate::address::{Form, rewrite};
use crate::message::{HeaderView, Message, address_of};
use crate::namespace::Namespace;
use crate::spec::{Delivery, DeliveryId, TopicKind};
use crate::subscription::LiveBatch;

/// Decides what a client receives.
pub(super) struct ReceiveGate {
    permissions: Arc<Permissions>,
    /// The last address that was allowed, and the version of the permissions then: successive messages mostly have one.
    allowed: Vec<u8>,
    version: u64,
}

impl ReceiveGate {
    pub(super) fn new(permissions: Arc<Permissions>) -> ReceiveGate {
        ReceiveGate { permissions, allowed: Vec::new(), version: 0 }
    }

    pub(super) fn permissions(&self) -> &Arc<Permissions> {
        &self.permissions
    }

    /// Whether every message passes.
    pub(super) fn is_open(&self) -> bool {
        self.permissions.is_unrestricted()
    }

    /// Whether the client may receive a message; `topic` is the log topic that it is stored in.
    pub(super) fn allows(&mut self, namespace: &Namespace, record: &Record, topic: Option<&str>) -> bool {
        let is_composed = HeaderView::of(record).origin().is_some();
        // A message that the broker composed is stored there by a capture only.
        let topic = topic.filter(|_| !is_composed);
        if topic.is_some_and(|topic| !self.permissions.may(ResourceKind::Topic, topic, Operation::Read)) {
            return false;
        }
        // Without an address it is no message of the hub.
        let Some(address) = address_of(record, topic, namespace.address_header()) else { return true };
        if topic.is_none() && !is_composed && !self.may_read_topic_of(namespace, &address) {
            return false;
        }
        let version = self.permissions.version();
        if self.version == version && *self.allowed == *address {
            return true;
        }
        let name = String::from_utf8_lossy(&address);
        let is_allowed = self.permissions.may(ResourceKind::Address, &name, Operation::Receive);
        if is_allowed {
            self.version = version;
            self.allowed.clear();
            self.allowed.extend_from_slice(&address);
        }
        is_allowed
    }

    /// Whether the client may read the log topic of this address, if there is one. A producer's record that comes without
    /// its topic is a copy, and names its topic by the address alone.
    fn may_read_topic_of(&self, namespace: &Namespace, address: &[u8]) -> bool {
        let name = rewrite(Form::Slashed, Form::Dotted, address);
        let name = String::from_utf8_lossy(&name);
        let is_log = namespace.topic(&name).is_some_and(|topic| topic.kind() == TopicKind::Log);
        !is_log || self.permissions.may(ResourceKind::Topic, &name, Operation::Read)
    }

    /// Removes the messages that the client may not receive from those behind `from`; their ids.
    pub(super) fn keep_deliveries(
        &mut self,
        namespace: &Namespace,
        deliveries: &mut Vec<Delivery>,
        from: usize,
    ) -> Vec<DeliveryId> {
        let mut denied = Vec::new();
        let mut at = 0;
        deliveries.retain(|delivery| {
            at += 1;
            let keeps = at <= from || self.allows(namespace, &delivery.record, delivery.topic.as_deref());
            if !keeps {
                denied.push(delivery.id);
            }
            keeps
        });
        denied
    }

    /// Removes the messages that the client may not receive from the batches behind `from`.
    pub(super) fn keep_batches(&mut self, namespace: &Namespace, batches: &mut Vec<LiveBatch>, from: usize) {
        let mut at = 0;
        batches.retain_mut(|batch| {
            at += 1;
            at <= from || self.keep_batch(namespace, batch)
        });
    }

    /// False: nothing of the batch is left.
    fn keep_batch(&mut self, namespace: &Namespace, batch: &mut LiveBatch) -> bool {
        let Ok(all) = records(&batch.bytes) else { return false };
        let all: Vec<Record> = all.map_while(Result::ok).collect();
        let allowed: Vec<bool> =
            all.iter().map(|record| self.allows(namespace, record, batch.topic.as_deref())).collect();
        let count = allowed.iter().filter(|allowed| **allowed).count();
        if count == all.len() || count == 0 {
            return count > 0;
        }
        batch.bytes =
            rebuilt(all.iter().zip(allowed).filter(|(_, allowed)| *allowed).map(|(record, _)| record));
        batch.messages = count as u64;
        true
    }
}

/// A batch of these records.
fn rebuilt<'a>(records: impl Iterator<Item = &'a Record>) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    for record in records {
        let Message { timestamp_ms, key, value, headers, .. } = Message::of_record(record, false);
        builder.push_with(timestamp_ms, key, headers.count as usize, headers.bytes, value);
    }
    builder.finish().bytes().clone()
}
