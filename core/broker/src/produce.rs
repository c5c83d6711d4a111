//! Producing finished batches: a batch is appended as it is, and with the same entry reaches the subscribers in the hub
//! that the topic's [`HubMode`] allows.
//!
//! Records that name an address themselves (in the *address header*) are copied into batches for the subscribers of
//! that address instead, whatever the mode but off; so are the other records of such a batch, with the topic's address put into that header,
//! because a copy does not tell its topic. In a topic that retains, they can set retained values.

mod retained;
mod transaction;

use std::sync::Arc;

use inver_storage::batch::{
    Batch, BatchError, DECOMPRESSED_BYTES_MAX, Inflated, Record, Records, decompressed, records,
};
use inver_storage::{Entry, Stream, SubmitError, Submitted};

use crate::access::Permissions;
use crate::address::{Address, Form, rewrite};
use crate::limits::Limits;
use crate::message::{HeaderWriter, Headers, Message, RawHeaders, Rights};
use crate::namespace::Namespace;
use crate::publisher::{LENGTH_CHECK_MS, PublishError};
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::router::{self, Publish};
use crate::spec::{HubMode, PublisherId};
use crate::subscription::Subscription;
use crate::topic::{Partition, Topic};
use crate::transactions::TransactionError;
use crate::write_batch::WriteBatch;

use self::retained::RetainedChanges;

/// The attribute bits that name a compression.
const COMPRESSION: i16 = 0x7;

/// Why a batch is not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// A record names an address that is too long.
    #[error("record {record}: {source}")]
    Address {
        /// Its place in the batch.
        record: u32,
        /// What is exceeded.
        source: PublishError,
    },
    /// The transaction that it belongs to does not take it.
    #[error(transparent)]
    Transaction(TransactionError),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

impl From<TransactionError> for ProduceError {
    fn from(error: TransactionError) -> ProduceError {
        match error {
            TransactionError::Log(error) => ProduceError::Log(error),
            error => ProduceError::Transaction(error),
        }
    }
}

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
    ) -> Result<Submitted, ProduceError> {
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
    ) -> Result<Submitted, ProduceError> {
        let stream = partition.stream();
        let mut entry = Entry::new();
        if topic.hub() == HubMode::Off || !(self.has_hub_subscribers() || topic.retains()) {
            entry.batch(std::slice::from_ref(stream), batch);
            return Ok(self.log().submit(entry)?);
        }
        let named = addressed_records(self, &batch);
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
            copy_each(self, client, topic, records, &mut copies, &mut limited, retained)?;
        }
        copies.put_in(&mut entry);
        let submitted = retained.submit(self, entry)?;
        copies.deliver();
        if !listeners.live.is_empty() {
            let plain = plain(&batch);
            Subscription::push_to_all(&listeners.live, &batch, &plain, Some(topic.shared_name()));
        }
        for queue in limited {
            // The check finds when the first of them expires.
            let ttl = queue.bounds().message_ttl_ms.is_some();
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
    records: Records,
    copies: &mut WriteBatch,
    limited: &mut Vec<Arc<Queue>>,
    mut retained: Option<&mut RetainedChanges>,
) -> Result<(), ProduceError> {
    let mut headers = HeaderWriter::default();
    let own_address = rewrite(Form::Dotted, Form::Slashed, topic.name().as_bytes());
    let own_route = router::from_topic(namespace, topic, &publish());
    let by_client = Publish { permissions: client, ..publish() };
    let (limits, bytes_max) = (namespace.limits(), namespace.log().entry_bytes_max());
    let mut counted: Vec<(Arc<Queue>, usize)> = Vec::new();
    for record in records.flatten() {
        let address = named_address(namespace, &record);
        if let Some(address) = address {
            check_address(&limits, &record, address)?;
        }
        let address = address.map(|address| Address::parse(Form::Slashed, address));
        if address.as_ref().is_some_and(|address| !by_client.may_write(address)) {
            continue;
        }
        if let (Some(retained), Some(address)) = (&mut retained, &address) {
            retained.add(namespace, address, &record);
        }
        let named = address.map(|address| router::from_address(namespace, &address, &by_client, Some(topic)));
        let mut message = Message::of_record(&record, true);
        let tells_topic = named.is_none() && !namespace.address_header().is_empty();
        if tells_topic || record.is_marked {
            headers.copy(&record);
            if tells_topic {
                headers.producers(namespace.address_header(), Some(&own_address));
            }
            message.headers = headers.headers();
        }
        let route = named.as_ref().unwrap_or(&own_route);
        for set in std::iter::once(&route.set).chain(&route.formatted).filter(|set| !set.is_empty()) {
            copies.add(set, route.key.as_deref(), &message);
        }
        // The log would refuse them as one entry: they are not gathered first.
        if copies.bytes() > bytes_max {
            return Err(SubmitError::TooLarge { bytes: copies.bytes(), bytes_max }.into());
        }
        let bytes = message.value.map_or(0, <[u8]>::len);
        for queue in route.set.queues.iter().filter(|q| q.has_limits()) {
            match counted.iter_mut().find(|(q, _)| Arc::ptr_eq(q, queue)) {
                Some((_, sum)) => *sum += bytes,
                None => counted.push((queue.clone(), bytes)),
            }
        }
    }
    for (queue, bytes) in counted {
        queue.subscription().add_bytes(bytes);
        limited.push(queue);
    }
    Ok(())
}

/// Refuses an address that is too long.
fn check_address(limits: &Limits, record: &Record, address: &[u8]) -> Result<(), ProduceError> {
    let too_long =
        |error| ProduceError::Address { record: record.offset_delta, source: PublishError::TooLong(error) };
    limits.check_address(b'/', address).map_err(too_long)
}

/// The batch decompressed, once for all that keep it in memory: none of them does that in a turn of its own.
fn plain(batch: &Batch) -> Batch {
    if batch.header().attributes & COMPRESSION == 0 {
        return batch.clone();
    }
    decompressed(batch.bytes()).and_then(Batch::parse).unwrap_or_else(|_| batch.clone())
}

/// Counts the values of a batch in queues with a byte limit, before it is enqueued.
fn add_bytes(queues: &[Arc<Queue>], batch: &Batch) {
    if queues.iter().all(|queue| queue.bounds().bytes_max.is_none()) {
        return;
    }
    for record in records(batch.bytes()).into_iter().flatten().flatten() {
        let bytes = record.value.map_or(0, |value| value.len());
        queues.iter().for_each(|queue| queue.subscription().add_bytes(bytes));
    }
}

fn publish() -> Publish<'static> {
    Publish {
        guaranteed: true,
        by: &PRODUCER,
        permissions: None,
        lookup: None,
        headers: Headers::default(),
        rights: Rights::ALL,
    }
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
    // What reaches an exchange that routes by chance takes another way each time.
    if namespace.routes_by_key(&namespace.hub()) {
        cache.set(stream, version, route.readers, set.clone());
    }
    set
}

/// The records, if one of them names an address itself.
fn addressed_records(namespace: &Namespace, batch: &Batch) -> Option<Records> {
    let name = namespace.address_header();
    if name.is_empty() || !holds(batch, name).ok()? {
        return None;
    }
    let records = records(batch.bytes()).ok()?;
    let names_one = |record: Record| named_address(namespace, &record).is_some();
    records.clone().flatten().any(names_one).then_some(records)
}

/// Whether a batch has these bytes among its records; they are decompressed piece by piece.
fn holds(batch: &Batch, wanted: &[u8]) -> Result<bool, BatchError> {
    if batch.header().attributes & COMPRESSION == 0 {
        return Ok(memchr::memmem::find(batch.bytes(), wanted).is_some());
    }
    let finder = memchr::memmem::Finder::new(wanted);
    let mut inflated = Inflated::new(batch, DECOMPRESSED_BYTES_MAX)?;
    loop {
        let window = inflated.window(wanted.len())?;
        if finder.find(window).is_some() {
            return Ok(true);
        }
        if window.len() < wanted.len() {
            return Ok(false);
        }
        // Its last bytes may be the beginning.
        let passed = window.len() - (wanted.len() - 1);
        inflated.advance(passed);
    }
}

/// The address that a record names itself.
fn named_address<'r>(namespace: &Namespace, record: &'r Record) -> Option<&'r [u8]> {
    let name = namespace.address_header();
    if name.is_empty() {
        return None;
    }
    RawHeaders::of(record).find(|(n, _)| *n == name).and_then(|(_, address)| address)
}
