//! Publishing: to queues, through an exchange whose bindings change, into the hub, in transactions, and finished batches.

use inver_broker::{
    Arguments, BindDestination, Completion, HeaderWriter, Message, Publisher, PublisherId, Target,
};
use inver_storage::BatchBuilder;

use crate::model::{Copy, Fate, Number};
use crate::places::{BOUND, EXPIRING, FANOUT, GROUP, INBOXES, LIMITED, PARTITIONS, QUEUES, SHARED, TOPIC};
use crate::records::RETAINED;
use crate::sessions::FILTER;
use crate::world::World;

const KEYS: u64 = 3;

fn to_queue(name: &str) -> Target<'_> {
    Target::Exchange { name: "", routing_key: name.as_bytes(), more_keys: &[] }
}

/// A message that was published.
#[derive(Debug)]
struct Published {
    number: Number,
    /// Where it must arrive.
    to: Vec<usize>,
    /// Its own time to live.
    ttl_ms: Option<i64>,
}

impl World {
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(self.namespace(), PublisherId { origin: "test", session: None })
    }

    pub(crate) fn next_number(&mut self) -> Number {
        self.next_number += 1;
        self.next_number
    }

    /// Where a publish to each kind of target goes.
    fn receivers(&self, kind: u64) -> Vec<usize> {
        match kind {
            // The exchange.
            6 => BOUND.into_iter().filter(|at| *self.bindings[at].get()).collect(),
            // The hub.
            7 => {
                let mut to: Vec<usize> = Vec::new();
                if *self.group_exists.get() {
                    to.push(GROUP);
                }
                let inboxes = self.clients.iter().take(2).enumerate();
                to.extend(inboxes.filter(|(_, it)| it.receives()).map(|(client, _)| INBOXES + client));
                to
            }
            queue => vec![queue as usize],
        }
    }

    /// Publishes a message into a publisher's batch.
    fn publish_one(&mut self, publisher: &mut Publisher, kind: u64) -> Published {
        let number = self.next_number();
        let value = number.to_string();
        let now_ms = self.clock.steady_ms();
        // Where what expires is seen among the dead letters.
        let expires = [LIMITED, EXPIRING].contains(&(kind as usize)) && self.random.once_in(3);
        let ttl_ms = expires.then(|| 1000 + self.random.below(10_000) as i64);
        let mut headers = HeaderWriter::default();
        headers.begin("test", ttl_ms.map(|ttl_ms| now_ms + ttl_ms));
        let message = Message {
            timestamp_ms: now_ms,
            key: None,
            value: Some(value.as_bytes()),
            headers: headers.headers(),
            guaranteed: true,
            lookup: None,
        };
        let target = match kind {
            6 => Target::Exchange { name: FANOUT, routing_key: b"", more_keys: &[] },
            7 => Target::Hub(FILTER),
            queue => to_queue(QUEUES[queue as usize]),
        };
        publisher.publish(target, &message).unwrap();
        Published { number, to: self.receivers(kind), ttl_ms }
    }

    /// Notes messages that are in the log from this position on.
    fn add(&mut self, published: Vec<Published>, completion: Completion) {
        let is_durable = published.iter().any(|it| it.to.iter().any(|at| self.places[*at].terms.is_durable));
        let lsn = if is_durable { self.position_of(completion) } else { 0 };
        for Published { number, to, ttl_ms } in published {
            for at in to {
                let lsn = if self.places[at].terms.is_durable { lsn } else { 0 };
                let mut copy = Copy::new(lsn, self.clock.steady_ms(), 0);
                copy.ttl_ms = ttl_ms;
                if at >= INBOXES && self.clients[at - INBOXES].is_unsure {
                    copy.fate = Fate::Unsure;
                }
                self.places[at].copies.insert(number, copy);
            }
        }
    }

    pub(crate) fn publish(&mut self) {
        let mut publisher = match self.random.once_in(2) {
            true => self.publisher(),
            // One that remembers its routes.
            false => self.kept_publisher.take().unwrap_or_else(|| self.publisher()),
        };
        let kind = self.random.below(8);
        let count = 1 + self.random.below(3);
        let published: Vec<_> = (0..count).map(|_| self.publish_one(&mut publisher, kind)).collect();
        self.note(format_args!("publish {published:?}"));
        if let Ok(completion) = publisher.flush() {
            self.add(published, completion);
        }
        self.kept_publisher = Some(publisher);
    }

    /// Publishes to several queues and acknowledges what a consumer holds, all or nothing.
    pub(crate) fn transact(&mut self) {
        let holding = self.consumers.iter().filter(|it| !it.held.is_empty()).count() as u64;
        if holding == 0 {
            return;
        }
        let mut publisher = self.publisher();
        let count = 1 + self.random.below(3);
        let published: Vec<_> = (0..count)
            .map(|_| {
                let kind = self.random.below(7);
                self.publish_one(&mut publisher, kind)
            })
            .collect();
        let which = self.random.below(holding) as usize;
        let at =
            self.consumers.iter().enumerate().filter(|(_, it)| !it.held.is_empty()).nth(which).unwrap().0;
        let count = 1 + self.random.below(self.consumers[at].held.len() as u64) as usize;
        let consumer = &mut self.consumers[at];
        let acked: Vec<_> = consumer.held.drain(..count).collect();
        let ids: Vec<_> = acked.iter().map(|held| held.id).collect();
        publisher.attach_ack(&consumer.consumer, &ids);
        self.note(format_args!("transaction {published:?} acknowledges {acked:?}"));
        match publisher.flush() {
            Ok(completion) => {
                self.add(published, completion);
                let lsn = completion.lsn().map_or_else(|| self.submitted(), |lsn| lsn.0);
                for held in acked {
                    self.places[held.place].remove(held.number, lsn, true);
                }
            }
            Err(_) => acked.into_iter().for_each(|held| self.forget(held)),
        }
    }

    /// Binds or unbinds a queue.
    pub(crate) fn rebind(&mut self) {
        let at = BOUND[self.random.below(BOUND.len() as u64) as usize];
        let (namespace, to) = (self.namespace(), BindDestination::Queue(QUEUES[at]));
        let is_bound = *self.bindings[&at].get();
        self.note(format_args!("bind {at}: {}", !is_bound));
        let done = match is_bound {
            false => namespace.bind(FANOUT, to, b"", &Arguments::new()).ok(),
            true => namespace.unbind(FANOUT, to, b"", &Arguments::new()).ok(),
        };
        if let Some(completion) = done {
            let lsn = self.position_of(completion);
            self.bindings.get_mut(&at).unwrap().set(lsn, !is_bound);
        }
    }

    /// Appends a finished batch to a partition of the topic.
    pub(crate) fn produce(&mut self) {
        let namespace = self.namespace();
        let partition = self.random.below(u64::from(PARTITIONS)) as usize;
        let mut batch = BatchBuilder::new(0);
        let count = 1 + self.random.below(3);
        let records: Vec<(Number, u64)> =
            (0..count).map(|_| (self.next_number(), self.random.below(KEYS))).collect();
        for (number, key) in &records {
            let (key, value) = (key.to_string(), number.to_string());
            batch.push(self.clock.steady_ms(), Some(key.as_bytes()), &[], Some(value.as_bytes()));
        }
        let topic = namespace.topic(TOPIC).unwrap();
        let to = topic.partition(partition as u32).unwrap();
        let offset = to.stream().next_offset().0;
        self.note(format_args!("produce {records:?} to {partition} at {offset}"));
        if let Ok(submitted) = namespace.produce(&topic, &to, batch.finish()) {
            for (n, (number, key)) in records.into_iter().enumerate() {
                let mut copy = Copy::new(submitted.lsn.0, self.clock.steady_ms(), key);
                copy.offset = Some(offset + n as u64);
                self.places[SHARED + partition].copies.insert(number, copy.clone());
                self.places[SHARED + 2 + partition].copies.insert(number, copy);
            }
        }
    }

    /// Sets or clears a retained value.
    pub(crate) fn retain(&mut self) {
        let mut publisher = self.publisher();
        let at = self.random.below(RETAINED.len() as u64) as usize;
        let number = self.next_number();
        let clears = self.random.once_in(4);
        let value = if clears { String::new() } else { number.to_string() };
        let message = Message {
            timestamp_ms: self.clock.steady_ms(),
            key: None,
            value: Some(value.as_bytes()),
            headers: Default::default(),
            guaranteed: true,
            lookup: None,
        };
        self.note(format_args!("retain {value} at {at}"));
        if publisher.retain(RETAINED[at], &message).is_ok()
            && let Ok(completion) = publisher.flush()
        {
            let lsn = self.position_of(completion);
            self.retained[at].set(lsn, (!clears).then_some(number));
        }
    }
}
