//! Copies of records for the subscribers of their addresses, as one entry has them.

use std::iter::Peekable;
use std::sync::Arc;

use inver_storage::Entry;
use inver_storage::batch::{Batch, Record, records};

use super::retained::RetainedChanges;
use super::{ProduceError, check_address, named_address, publish};
use crate::access::Permissions;
use crate::address::{Address, Form, rewrite};
use crate::limit_checks::LENGTH_CHECK_MS;
use crate::message::{HeaderWriter, Message};
use crate::namespace::Namespace;
use crate::queue::Queue;
use crate::router::{self, Publish};
use crate::topic::Topic;
use crate::write_batch::WriteBatch;

/// Copies of records, the retained values that they change, and the queues with limits that get some.
#[derive(Default)]
pub(super) struct Copies {
    batches: WriteBatch,
    retained: RetainedChanges,
    /// Queues with limits, each once, with the bytes of the values that they get.
    counted: Vec<(Arc<Queue>, usize)>,
}

impl Copies {
    /// Notes the queues with limits that get a batch without a copy.
    pub(super) fn note_uncopied(&mut self, queues: &[Arc<Queue>], batch: &Batch) {
        let limited = queues.iter().filter(|queue| queue.has_limits());
        self.counted.extend(limited.map(|queue| (queue.clone(), 0)));
        if self.counted.iter().all(|(queue, _)| queue.bounds().bytes_max.is_none()) {
            return;
        }
        let values = records(batch.bytes()).into_iter().flatten().flatten().filter_map(|record| record.value);
        let sum: usize = values.map(|value| value.len()).sum();
        self.counted.iter_mut().for_each(|(_, bytes)| *bytes += sum);
    }

    /// Bytes that they take in an entry.
    pub(super) fn bytes(&self) -> usize {
        self.batches.bytes() + self.retained.bytes()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.retained.is_empty()
    }

    /// Copies records, each for the subscribers of the address that it names, or else of its topic; in a topic that retains,
    /// they change retained values. Ends before the first record that `fits` refuses, or behind one with an address that
    /// is too long, which is not copied.
    pub(super) fn add_while(
        &mut self,
        namespace: &Namespace,
        client: Option<&Permissions>,
        topic: &Topic,
        records: &mut Peekable<impl Iterator<Item = Record>>,
        fits: impl Fn(&Copies, &Record) -> bool,
    ) -> Result<(), ProduceError> {
        let mut headers = HeaderWriter::default();
        let own_address = rewrite(Form::Dotted, Form::Slashed, topic.name().as_bytes());
        let own_route = router::from_topic(namespace, topic, &publish());
        let permissions = client.filter(|permissions| !permissions.is_unrestricted());
        let by_client = Publish { permissions, ..publish() };
        let limits = namespace.limits();
        while let Some(record) = records.next_if(|record| fits(self, record)) {
            let address = named_address(namespace, &record);
            if let Some(address) = address {
                check_address(&limits, &record, address)?;
            }
            let address = address.map(|address| Address::parse(Form::Slashed, address));
            if address.as_ref().is_some_and(|address| !by_client.may_write(address)) {
                continue;
            }
            if let (true, Some(address)) = (topic.retains(), &address) {
                self.retained.add(namespace, address, &record);
            }
            let named =
                address.map(|address| router::from_address(namespace, &address, &by_client, Some(topic)));
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
                self.batches.add(set, route.key.as_deref(), &message);
            }
            let bytes = message.value.map_or(0, <[u8]>::len);
            for queue in route.set.queues.iter().filter(|q| q.has_limits()) {
                match self.counted.iter_mut().find(|(q, _)| Arc::ptr_eq(q, queue)) {
                    Some((_, sum)) => *sum += bytes,
                    None => self.counted.push((queue.clone(), bytes)),
                }
            }
        }
        Ok(())
    }

    /// Adds them to an entry that `submit` submits together with the changes of retained values. If the log accepts it, they
    /// are delivered to in-memory receivers; if not, no queue counts their bytes.
    pub(super) fn submit<T, E>(
        &mut self,
        mut entry: Entry,
        submit: impl FnOnce(Entry, RetainedChanges) -> Result<T, E>,
    ) -> Result<T, E> {
        self.batches.put_in(&mut entry);
        // Counted before they can be taken out.
        for (queue, bytes) in &self.counted {
            queue.subscription().add_bytes(*bytes);
        }
        let submitted = submit(entry, std::mem::take(&mut self.retained));
        match &submitted {
            Ok(_) => self.batches.deliver(),
            Err(_) => {
                for (queue, bytes) in self.counted.drain(..) {
                    queue.subscription().subtract_bytes(bytes);
                }
            }
        }
        submitted
    }

    /// Has the limits of queues checked. Called once the records are in them.
    pub(super) fn check_limits(self, namespace: &Namespace) {
        for (queue, _) in self.counted {
            // The check finds when the first of them expires.
            let ttl = queue.bounds().message_ttl_ms.is_some();
            queue.check_new(namespace.clock().steady_ms().saturating_add(LENGTH_CHECK_MS), ttl);
        }
    }
}
