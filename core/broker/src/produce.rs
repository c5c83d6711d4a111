//! Producing finished batches: a batch is appended as it is, and with the same entry reaches the subscribers in the hub
//! that the topic's [`HubMode`] allows.
//!
//! Records that name an address themselves (in the *address header*) are copied into batches for the subscribers of
//! that address instead, whatever the mode but off; so are the other records of such a batch, with the topic's address put into that header,
//! because a copy does not tell its topic. In a topic that retains, they can set retained values.

mod retained;

use std::sync::Arc;

use inver_storage::batch::{Batch, Record, records};
use inver_storage::{Entry, Stream, SubmitError, Submitted};

use crate::access::Permissions;
use crate::address::{Address, Form, rewrite};
use crate::message::{HeaderWriter, Message, RawHeaders};
use crate::namespace::Namespace;
use crate::publisher::LENGTH_CHECK_MS;
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::router::{self, Publish};
use crate::spec::{HubMode, PublisherId};
use crate::topic::{Partition, Topic};
use crate::write_batch::WriteBatch;

use self::retained::RetainedChanges;

/// The attribute bits that name a compression.
const COMPRESSION: i16 = 0x7;

/// The publisher of finished batches: no session, no protocol's capture rules.
const PRODUCER: PublisherId = PublisherId { origin: "", session: None };

impl Namespace {
    /// Appends a finished batch to a partition as it is. Subscribers of the topic's address in the hub, as far as its mode
    /// allows, and of the addresses that records name themselves, receive it too; where all records have the same
    /// receivers it is stored once.
    pub fn produce(
        &self,
        topic: &Topic,
        partition: &Partition,
        batch: Batch,
    ) -> Result<Submitted, SubmitError> {
        self.produce_as(None, topic, partition, batch)
    }

    /// As [`produce`](Self::produce), for a client: a record that names an address where the client may not publish goes to
    /// no address in the hub. That it may write to the topic is the caller's to check.
    pub fn produce_as(
        &self,
        client: Option<&Permissions>,
        topic: &Topic,
        partition: &Partition,
        batch: Batch,
    ) -> Result<Submitted, SubmitError> {
        let stream = partition.stream();
        let mut entry = Entry::new();
        if topic.hub() == HubMode::Off || !(self.has_hub_subscribers() || topic.retains()) {
            entry.batch(std::slice::from_ref(stream), batch);
            return self.log().submit(entry);
        }
        let named = named_addresses(self, &batch);
        let listeners = match &named {
            None => listeners(self, topic, partition),
            Some(_) => Arc::default(),
        };
        let mut limited: Vec<Arc<Queue>> =
            listeners.queues.iter().filter(|q| q.has_limits()).cloned().collect();
        add_bytes(&limited, &batch);
        let mut destinations: Vec<Stream> = vec![stream.clone()];
        destinations.extend(listeners.log.iter().cloned());
        entry.batch(&destinations, batch.clone());
        let mut copies = WriteBatch::default();
        let mut retained = RetainedChanges::default();
        // Held from the routing on: who subscribes meanwhile finds the value retained.
        let retains = named.is_some() && topic.retains();
        let _order = retains.then(|| self.retained().in_order());
        if let Some(records) = named {
            let client = client.filter(|permissions| !permissions.is_unrestricted());
            let retained = retains.then_some(&mut retained);
            copy_each(self, client, topic, records, &mut copies, &mut limited, retained);
        }
        copies.put_in(&mut entry);
        let submitted = retained.submit(self, entry)?;
        copies.deliver();
        for receiver in &listeners.live {
            receiver.push(&batch, Some(topic.shared_name()));
        }
        for queue in limited {
            // The check finds when the first of them expires.
            let ttl = queue.spec().limits.message_ttl_ms.is_some();
            queue.check_new(self.clock().steady_ms().saturating_add(LENGTH_CHECK_MS), ttl);
        }
        Ok(submitted)
    }
}

/// Copies each record for the subscribers of the address that it names, or else of its topic. Adds the queues with limits
/// among them to `limited`.
fn copy_each(
    namespace: &Namespace,
    client: Option<&Permissions>,
    topic: &Topic,
    records: Vec<(Record, Option<Address>)>,
    copies: &mut WriteBatch,
    limited: &mut Vec<Arc<Queue>>,
    mut retained: Option<&mut RetainedChanges>,
) {
    let mut headers = HeaderWriter::default();
    let own_address = rewrite(Form::Dotted, Form::Slashed, topic.name().as_bytes());
    let own_route = router::from_topic(namespace, topic, &publish());
    let by_client = Publish { permissions: client, ..publish() };
    for (record, address) in records {
        if address.as_ref().is_some_and(|address| !by_client.may_write(address)) {
            continue;
        }
        if let (Some(retained), Some(address)) = (&mut retained, &address) {
            retained.add(namespace, address, &record);
        }
        let named = address.map(|address| router::from_address(namespace, &address, &by_client, Some(topic)));
        let mut message = Message::of_record(&record, true);
        if named.is_none() || record.is_marked {
            headers.copy(&record);
            if named.is_none() {
                headers.producers(namespace.address_header(), Some(&own_address));
            }
            message.headers = headers.headers();
        }
        let route = named.as_ref().unwrap_or(&own_route);
        for set in std::iter::once(&route.set).chain(&route.formatted).filter(|set| !set.is_empty()) {
            copies.add(set, route.key.as_deref(), &message);
        }
        for queue in route.set.queues.iter().filter(|q| q.has_limits()) {
            queue.subscription().add_bytes(message.value.map_or(0, <[u8]>::len));
            if !limited.iter().any(|q| Arc::ptr_eq(q, queue)) {
                limited.push(queue.clone());
            }
        }
    }
}

/// Counts the values of a batch in queues with a byte limit, before it is enqueued.
fn add_bytes(queues: &[Arc<Queue>], batch: &Batch) {
    if queues.iter().all(|queue| queue.spec().limits.bytes_max.is_none()) {
        return;
    }
    for record in records(batch.bytes()).into_iter().flatten().flatten() {
        let bytes = record.value.map_or(0, |value| value.len());
        queues.iter().for_each(|queue| queue.subscription().add_bytes(bytes));
    }
}

fn publish() -> Publish<'static> {
    Publish { guaranteed: true, by: &PRODUCER, permissions: None, lookup: None }
}

/// The subscribers of a topic's address, from the listener cache unless the topology changed.
fn listeners(namespace: &Namespace, topic: &Topic, partition: &Partition) -> Arc<ReceiverSet> {
    let version = namespace.version();
    let stream = partition.stream().id();
    let cache = namespace.listener_cache();
    if let Some(set) = cache.get(stream, version) {
        return set;
    }
    let mut set = ReceiverSet::default();
    let route = router::from_topic(namespace, topic, &publish());
    for queue in &route.set.queues {
        set.add_queue(queue);
    }
    for stream in std::iter::once(&route.set).chain(&route.formatted).flat_map(|set| &set.log) {
        set.add_stream(stream);
    }
    for live in &route.set.live {
        set.add_live(live);
    }
    let set = Arc::new(set);
    cache.set(stream, version, route.readers, set.clone());
    set
}

/// The records with the address that each names itself; none if no record names one.
fn named_addresses(namespace: &Namespace, batch: &Batch) -> Option<Vec<(Record, Option<Address>)>> {
    let name = namespace.address_header();
    if name.is_empty() {
        return None;
    }
    if batch.header().attributes & COMPRESSION == 0 && memchr::memmem::find(batch.bytes(), name).is_none() {
        return None;
    }
    let mut any = false;
    let mut all = Vec::new();
    for record in records(batch.bytes()).ok()? {
        let record = record.ok()?;
        let address = RawHeaders::of(&record).find(|(n, _)| *n == name).and_then(|(_, v)| v);
        let address = address.map(|a| Address::parse(Form::Slashed, a));
        any |= address.is_some();
        all.push((record, address));
    }
    any.then_some(all)
}
