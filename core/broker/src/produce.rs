//! The way in for finished batches: appended as they are, and heard in the hub.
//!
//! A batch goes to its partition and, in the same entry, to the subscribers of its topic's address. Records
//! that name an address themselves (the *address header*) go to the subscribers of that address instead,
//! copied into batches of their own; so do the others of such a batch, with the topic's address put into that header,
//! for a copy does not tell what topic it came from.

use std::sync::Arc;

use inver_storage::batch::{Batch, Record, records};
use inver_storage::{Entry, Stream, SubmitError, Submitted};
use parking_lot::Mutex;

use crate::address::{Address, Form};
use crate::message::{HeaderWriter, Message, RawHeaders};
use crate::namespace::Namespace;
use crate::publisher::LENGTH_LOOK_MS;
use crate::queue::Queue;
use crate::router::{Publish, ReceiverSet};
use crate::spec::PublisherId;
use crate::topic::{Partition, Topic};
use crate::write_batch::WriteBatch;

/// The attribute bits that name a compression.
const COMPRESSION: i16 = 0x7;

/// What a partition remembers of who listens to its topic's address.
#[derive(Default)]
pub(crate) struct ListenerCache(Mutex<Option<(u64, Arc<ReceiverSet>)>>);

pub(crate) fn produce(
    namespace: &Namespace,
    topic: &Topic,
    partition: &Partition,
    batch: Batch,
) -> Result<Submitted, SubmitError> {
    let own = partition.stream();
    let mut entry = Entry::new();
    if !namespace.has_hub_subscribers() {
        entry.batch(std::slice::from_ref(own), batch);
        return namespace.log().submit(entry);
    }
    let named = named_addresses(namespace, &batch);
    let listeners = match &named {
        None => listeners(namespace, topic, partition),
        Some(_) => Arc::default(),
    };
    let mut limited: Vec<Arc<Queue>> = listeners.queues.iter().filter(|q| q.has_limits()).cloned().collect();
    weigh(&limited, &batch);
    let mut destinations: Vec<Stream> = vec![own.clone()];
    destinations.extend(listeners.log.iter().cloned());
    entry.batch(&destinations, batch.clone());
    let mut burst = WriteBatch::default();
    let mut headers = HeaderWriter::default();
    for (record, address) in named.into_iter().flatten() {
        let names_none = address.is_none();
        let address = address.unwrap_or_else(|| Address::parse(Form::Dotted, topic.name().as_bytes()));
        let route = namespace.route_at(&address, &publish(), Some(topic));
        let mut message = Message::of_record(&record, true);
        if names_none {
            headers.copy(message.headers);
            headers.user(namespace.address_header(), Some(&address.write(Form::Slashed)));
            message.headers = headers.headers();
        }
        for set in std::iter::once(&route.set).chain(&route.formatted).filter(|set| !set.is_empty()) {
            burst.add(set, route.key.as_deref(), &message);
        }
        for queue in route.set.queues.iter().filter(|q| q.has_limits()) {
            queue.subscription().add_bytes(message.value.map_or(0, <[u8]>::len));
            if !limited.iter().any(|q| Arc::ptr_eq(q, queue)) {
                limited.push(queue.clone());
            }
        }
    }
    burst.put_in(&mut entry);
    let submitted = namespace.log().submit(entry)?;
    burst.deliver();
    for receiver in &listeners.live {
        receiver.push(&batch, Some(topic.shared_name()));
    }
    for queue in limited {
        // The look finds when the first of them is too old.
        let mortal = queue.spec().limits.message_ttl_ms.is_some();
        queue.check_new(namespace.clock().now_ms().saturating_add(LENGTH_LOOK_MS), mortal);
    }
    Ok(submitted)
}

/// A batch is on its way into queues with limits.
fn weigh(queues: &[Arc<Queue>], batch: &Batch) {
    if queues.iter().all(|queue| queue.spec().limits.bytes_max.is_none()) {
        return;
    }
    for record in records(batch.bytes()).into_iter().flatten().flatten() {
        let bytes = record.value.map_or(0, |value| value.len());
        queues.iter().for_each(|queue| queue.subscription().add_bytes(bytes));
    }
}

fn publish() -> Publish<'static> {
    static NOBODY: PublisherId = PublisherId { origin: "", session: None };
    Publish { guaranteed: true, by: &NOBODY, lookup: None }
}

fn listeners(namespace: &Namespace, topic: &Topic, partition: &Partition) -> Arc<ReceiverSet> {
    let version = namespace.version();
    let mut ear = partition.hub.0.lock();
    if let Some((of, set)) = &*ear
        && *of == version
    {
        return set.clone();
    }
    let address = Address::parse(Form::Dotted, topic.name().as_bytes());
    // A log topic is its own address in the hub: none of its partitions hears itself.
    let mut set = ReceiverSet::default();
    let route = namespace.route_at(&address, &publish(), Some(topic));
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
    *ear = Some((version, set.clone()));
    set
}

/// The records with the address that each names itself; none if none of them does.
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
