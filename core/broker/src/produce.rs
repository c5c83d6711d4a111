//! Producing finished batches: a batch is appended as it is, and with the same entry reaches the subscribers in the hub
//! that the topic's [`HubMode`] allows.
//!
//! Records that name an address themselves (in the *address header*) are copied into batches for the subscribers of
//! that address instead, whatever the mode but off; so are the other records of such a batch, with the topic's address put into that header,
//! because a copy does not tell its topic. In a topic that retains, they can set retained values.

mod copies;
mod relay;
mod retained;
mod transaction;

use std::sync::Arc;

use inver_storage::batch::{
    Batch, BatchError, DECOMPRESSED_BYTES_MAX, Inflated, Record, Records, decompressed, records,
};
use inver_storage::{Entry, Stream, SubmitError, Submitted};

use crate::access::Permissions;
use crate::completion::Completion;
use crate::limits::Limits;
use crate::message::{Headers, RawHeaders, Rights};
use crate::namespace::Namespace;
use crate::publisher::PublishError;
use crate::publisher_sequences::PublisherSequence;
use crate::receivers::ReceiverSet;
use crate::router::{self, Publish};
use crate::spec::{HubMode, PublisherId};
use crate::subscription::Subscription;
use crate::topic::{Partition, Topic};
use crate::transactions::TransactionError;

use self::copies::Copies;

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
        self.produce_with(Entry::new(), client, topic, partition, batch)
    }

    /// As [`produce_as`](Self::produce_as), for a publisher that numbers its messages: the records have these numbers, in
    /// growing order. Those whose numbers it has sent before are left out. Complete when all of them are stored.
    pub fn produce_numbered(
        &self,
        client: Option<&Permissions>,
        topic: &Topic,
        partition: &Partition,
        sequence: &PublisherSequence,
        (numbers, batch): (&[u64], Batch),
    ) -> Result<Completion, ProduceError> {
        let submit = |entry, batch| self.produce_with(entry, client, topic, partition, batch);
        sequence.advance(numbers, batch, submit)
    }

    /// Appends a batch in an entry that has other parts already.
    fn produce_with(
        &self,
        mut entry: Entry,
        client: Option<&Permissions>,
        topic: &Topic,
        partition: &Partition,
        batch: Batch,
    ) -> Result<Submitted, ProduceError> {
        let stream = partition.stream();
        if topic.hub() == HubMode::Off || !(self.has_hub_subscribers() || topic.retains()) {
            entry.batch(std::slice::from_ref(stream), batch);
            return Ok(self.log().submit(entry)?);
        }
        let named = addressed_records(self, &batch);
        let listeners = match &named {
            None => listeners(self, topic, partition),
            Some(_) => Arc::default(),
        };
        let mut copies = Copies::default();
        copies.note_uncopied(&listeners.queues, &batch);
        let mut destinations: Vec<Stream> = vec![stream.clone()];
        destinations.extend(listeners.log.iter().cloned());
        entry.batch(&destinations, batch.clone());
        // Held from the routing on: who subscribes meanwhile finds the value retained.
        let _order = (named.is_some() && topic.retains()).then(|| self.retained().in_order());
        if let Some(records) = named {
            let bytes_max = self.log().entry_bytes_max();
            let fits = |copies: &Copies, _: &Record| copies.bytes() <= bytes_max;
            copies.add_while(self, client, topic, &mut records.flatten().peekable(), fits)?;
            // The log would refuse them as one entry: they are not gathered first.
            if copies.bytes() > bytes_max {
                return Err(SubmitError::TooLarge { bytes: copies.bytes(), bytes_max }.into());
            }
        }
        let submitted = copies.submit(entry, |entry, retained| retained.submit(self, entry))?;
        if !listeners.live.is_empty() {
            let plain = plain(&batch);
            Subscription::push_to_all(&listeners.live, &batch, &plain, Some(topic.shared_name()));
        }
        copies.check_limits(self);
        Ok(submitted)
    }
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

fn publish() -> Publish<'static> {
    Publish {
        guaranteed: true,
        by: &PRODUCER,
        permissions: None,
        lookup: None,
        headers: Headers::default(),
        rights: Rights::ALL,
        unflushed: None,
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
