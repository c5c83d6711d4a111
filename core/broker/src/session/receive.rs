//! What the client of a session may receive: each message is decided by its address, and a producer's by its log topic
//! too, when it is pulled. So a permission that is taken away holds for messages that wait already.
//!
//! A decision is remembered for one version of the permissions. Best-effort messages, which the session's filters alone
//! let in since its connection opened, are not checked while rules allow all that these match.

use std::sync::Arc;

use bytes::Bytes;
use inver_access::{Operation, ResourceKind};
use inver_storage::batch::{BatchBuilder, Record, records};
use rustc_hash::FxHashMap;

use crate::access::Permissions;
use crate::address::{Form, rewrite};
use crate::message::{HeaderView, Message, address_of};
use crate::namespace::Namespace;
use crate::spec::{Delivery, DeliveryId, TopicKind};
use crate::subscription::LiveBatch;

/// Filters, subscribed and removed, up to which they are decided as a whole.
const FILTERS_MAX: usize = 64;

/// Addresses whose decision is remembered; beyond it all are forgotten.
const ADDRESSES_MAX: usize = 256;

/// Bytes of headers that are remembered.
const HEADERS_BYTES_MAX: usize = 512;

/// Decides what a client receives: by the session's filters where rules allow all that they match, else address by
/// address.
pub(super) struct ReceiveGate {
    permissions: Arc<Permissions>,
    /// Filters that were removed: messages that they let in may wait still.
    removed: Vec<Box<[u8]>>,
    /// None while nothing restricts the client.
    decided: Option<Box<Decided>>,
}

/// What was decided at one version of the permissions.
struct Decided {
    version: u64,
    /// The client may receive all that the session's filters match, as far as was asked.
    covers_filters: Option<bool>,
    /// Whether the client may receive from these addresses. Few enough for a hash that a client could predict.
    addresses: FxHashMap<Box<[u8]>, bool>,
    /// The headers of the last composed message that was allowed: those of the next are mostly the same.
    headers: Vec<u8>,
    /// The log topic of the last message that came with one, and whether the client may read it.
    topic: Option<(Box<str>, bool)>,
}

impl ReceiveGate {
    pub(super) fn new(permissions: Arc<Permissions>) -> ReceiveGate {
        ReceiveGate { permissions, removed: Vec::new(), decided: None }
    }

    pub(super) fn permissions(&self) -> &Arc<Permissions> {
        &self.permissions
    }

    /// Whether every message passes.
    pub(super) fn is_open(&self) -> bool {
        self.permissions.is_unrestricted()
    }

    /// Notes a filter that is about to let messages in.
    pub(super) fn subscribed(&mut self, filter: &[u8]) {
        if let Some(covers) = self.decided.as_mut().and_then(|decided| decided.covers_filters.as_mut()) {
            *covers = *covers && receives_all_of(&self.permissions, filter);
        }
    }

    /// Notes a filter that is removed.
    pub(super) fn unsubscribed(&mut self, filter: &[u8]) {
        if self.removed.len() <= FILTERS_MAX && !self.removed.iter().any(|removed| **removed == *filter) {
            self.removed.push(filter.into());
        }
    }

    /// Whether the client may receive all that filters of the session match, so that no message of the live queue needs to
    /// be checked. Asked once for each version of the permissions.
    /// `all_filters` tells whether there are at most so many filters and a condition holds for each.
    pub(super) fn covers_filters(
        &mut self,
        all_filters: impl FnOnce(usize, &dyn Fn(&[u8]) -> bool) -> bool,
    ) -> bool {
        let decided = self.decided();
        if let Some(covers) = decided.covers_filters {
            return covers;
        }
        let version = decided.version;
        let holds = |filter: &[u8]| receives_all_of(&self.permissions, filter);
        let covers = self.removed.len() <= FILTERS_MAX
            && self.removed.iter().all(|filter| holds(filter))
            && all_filters(FILTERS_MAX, &holds);
        if let Some(decided) = self.decided_at(version) {
            decided.covers_filters = Some(covers);
        }
        covers
    }

    /// What was decided at the present version.
    fn decided(&mut self) -> &mut Decided {
        let version = self.permissions.version();
        let decided = self.decided.get_or_insert_with(|| Box::new(Decided::at(version)));
        if decided.version != version {
            **decided = Decided::at(version);
        }
        decided
    }

    /// Where to remember what was decided since the permissions had this version; none if they have changed meanwhile.
    fn decided_at(&mut self, version: u64) -> Option<&mut Decided> {
        let decided = self.decided();
        (decided.version == version).then_some(decided)
    }

    /// Whether the client may receive a message; `topic` is the log topic that it is stored in.
    pub(super) fn allows(&mut self, namespace: &Namespace, record: &Record, topic: Option<&str>) -> bool {
        let decided = self.decided();
        if !record.is_marked && !record.headers.is_empty() && *decided.headers == *record.headers {
            return true;
        }
        let version = decided.version;
        let is_composed = HeaderView::of(record).origin().is_some();
        // A message that the broker composed is stored there by a capture only.
        let topic = topic.filter(|_| !is_composed);
        if topic.is_some_and(|topic| !self.may_read(topic)) {
            return false;
        }
        // Without an address it is no message of the hub.
        let Some(address) = address_of(record, topic, namespace.address_header()) else { return true };
        if topic.is_none() && !is_composed && !self.may_read_topic_of(namespace, &address) {
            return false;
        }
        let allowed = self.may_receive(&address);
        // All that decides about a composed message is in its headers.
        if allowed
            && is_composed
            && record.headers.len() <= HEADERS_BYTES_MAX
            && let Some(decided) = self.decided_at(version)
        {
            decided.headers.clear();
            decided.headers.extend_from_slice(&record.headers);
        }
        allowed
    }

    fn may_receive(&mut self, address: &[u8]) -> bool {
        let decided = self.decided();
        if let Some(allowed) = decided.addresses.get(address) {
            return *allowed;
        }
        let version = decided.version;
        let name = String::from_utf8_lossy(address);
        let allowed = self.permissions.may(ResourceKind::Address, &name, Operation::Receive);
        if let Some(Decided { addresses, .. }) = self.decided_at(version) {
            if addresses.len() >= ADDRESSES_MAX {
                addresses.clear();
            }
            addresses.insert(address.into(), allowed);
        }
        allowed
    }

    fn may_read(&mut self, topic: &str) -> bool {
        let decided = self.decided();
        let version = decided.version;
        if let Some((last, allowed)) = &decided.topic
            && **last == *topic
        {
            return *allowed;
        }
        let allowed = self.permissions.may(ResourceKind::Topic, topic, Operation::Read);
        if let Some(decided) = self.decided_at(version) {
            decided.topic = Some((topic.into(), allowed));
        }
        allowed
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
        let topic = batch.topic.clone();
        let mut is_allowed = |record: &Record| self.allows(namespace, record, topic.as_deref());
        let Ok(mut all) = records(&batch.bytes) else { return false };
        if all.by_ref().map_while(Result::ok).all(|record| is_allowed(&record)) {
            return true;
        }
        let Ok(all) = records(&batch.bytes) else { return false };
        let allowed: Vec<Record> = all.map_while(Result::ok).filter(is_allowed).collect();
        batch.bytes = rebuilt(&allowed);
        batch.messages = allowed.len() as u64;
        !allowed.is_empty()
    }
}

impl Decided {
    fn at(version: u64) -> Decided {
        let (headers, addresses) = (Vec::new(), FxHashMap::default());
        Decided { version, covers_filters: None, headers, addresses, topic: None }
    }
}

fn receives_all_of(permissions: &Permissions, filter: &[u8]) -> bool {
    std::str::from_utf8(filter).is_ok_and(|filter| permissions.receives_all_of(filter))
}

/// A batch of these records.
fn rebuilt(records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    for record in records {
        let Message { timestamp_ms, key, value, headers, .. } = Message::of_record(record, false);
        builder.push_with(timestamp_ms, key, headers.count as usize, headers.bytes, value);
    }
    builder.finish().bytes().clone()
}
