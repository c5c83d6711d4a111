//! Dead-lettering: publishes messages that a queue dropped (expired, rejected, over length, returned too often) to the
//! queue's dead-letter exchange.
//!
//! The publish and the acknowledgement in the queue are one entry, so that a crash neither loses nor duplicates the
//! message. A message carries a death record for each queue and reason, newest first, with a count.

use std::sync::{Arc, Weak};

use inver_storage::SubmitError;
use inver_storage::batch::{BatchBuilder, records};

use crate::completion::Completion;
use crate::message::{Death, HeaderView, HeaderWriter, Message, Property};
use crate::namespace::{Inner, Namespace};
use crate::publisher::{Publisher, Target};
use crate::spec::{DeadLetter, DeliveryId, DropReason};
use crate::subscription::{DropSink, Dropped, Subscription};

/// Death records that a message carries; older ones are removed.
const DEATHS_MAX: usize = 32;

/// Bytes of dead-lettered messages in one entry of the log; one message may be larger.
const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Dead-letters what the queues of one namespace drop.
pub(crate) struct DeadLetterer(Weak<Inner>);

impl DeadLetterer {
    pub(crate) fn new(namespace: Weak<Inner>) -> Arc<DeadLetterer> {
        Arc::new(DeadLetterer(namespace))
    }

    /// A publisher, and where the queue's dead letters are published; none if nowhere.
    fn target<'a>(&self, queue: &'a Subscription) -> Option<(Publisher, &'a DeadLetter)> {
        let to = queue.limits()?.dead_letter.as_ref()?;
        let namespace = Namespace::of(self.0.upgrade()?);
        Some((Publisher::of_stored(namespace), to))
    }
}

impl DropSink for DeadLetterer {
    fn dropped(&self, from: &Arc<Subscription>, dropped: &[Dropped]) -> Result<Completion, SubmitError> {
        let Some((mut publisher, to)) = self.target(from) else {
            from.context().counters.dropped.increment(dropped.len() as u64);
            return from.ack_dropped(dropped.iter().map(|d| d.id).collect());
        };
        let mut headers = HeaderWriter::default();
        let (mut ids, mut published, mut completion) = (Vec::new(), 0, Completion::Now);
        for (i, d) in dropped.iter().enumerate() {
            published += u64::from(publish(from.name(), d, to, &mut headers, &mut publisher));
            ids.push(d.id);
            if publisher.bytes() >= ENTRY_BYTES_MAX || i + 1 == dropped.len() {
                let ids = std::mem::take(&mut ids);
                publisher.attach(|entry| from.ack_dropped_in(ids, entry));
                completion = completion.and(publisher.flush_batch()?);
            }
        }
        let counters = &from.context().counters;
        counters.dead_lettered.increment(published);
        counters.dropped.increment(dropped.len() as u64 - published);
        Ok(completion)
    }

    fn refused(&self, by: &Subscription, message: &Message<'_>) {
        let Some((mut publisher, to)) = self.target(by) else { return };
        let mut single = BatchBuilder::new(0);
        let Message { timestamp_ms, key, headers, value, .. } = message;
        single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        let Some(Ok(record)) = records(single.finish().bytes()).ok().and_then(|mut r| r.next()) else {
            return;
        };
        let id = DeliveryId { partition: 0, offset: 0 };
        let dropped = Dropped { id, record, reason: DropReason::MaxLength };
        if publish(by.name(), &dropped, to, &mut HeaderWriter::default(), &mut publisher) {
            by.context().counters.dead_lettered.increment(1);
        }
        if let Err(error) = publisher.flush() {
            tracing::warn!(queue = by.name(), %error, "failed to dead-letter a refused message");
        }
    }
}

/// Publishes a dropped message of a queue, unless it has reached that queue by a cycle or the exchange is missing.
/// Whether it was published.
fn publish(
    queue: &str,
    dropped: &Dropped,
    to: &DeadLetter,
    headers: &mut HeaderWriter,
    publisher: &mut Publisher,
) -> bool {
    let now_ms = publisher.namespace().clock().now_ms();
    let Some(routing_key) = rewrite(queue, dropped, to, now_ms, headers) else { return false };
    let mut message = Message::of_record(&dropped.record, true);
    message.timestamp_ms = now_ms;
    message.headers = headers.headers();
    let target = Target::Exchange { name: &to.exchange, routing_key: &routing_key, more_keys: &[] };
    if let Err(error) = publisher.publish(target, &message) {
        tracing::debug!(queue, %error, "failed to dead-letter a message");
        return false;
    }
    true
}

/// Writes the message's headers with the record of this death. Returns its routing key; none if the message has
/// reached the queue by a cycle without a rejection.
fn rewrite(
    queue: &str,
    dropped: &Dropped,
    to: &DeadLetter,
    now_ms: i64,
    headers: &mut HeaderWriter,
) -> Option<Vec<u8>> {
    let (mut kept, mut deaths) = (Vec::new(), Vec::new());
    let (mut old_exchange, mut old_key, mut ttl_ms): (&[u8], _, _) = (b"", None, None);
    let view = HeaderView::of(&dropped.record);
    for property in view.typed_properties() {
        match property {
            Property::ExpiresMs(at) => ttl_ms = Some(at.saturating_sub(dropped.record.timestamp_ms).max(0)),
            Property::Exchange(exchange) => old_exchange = exchange,
            Property::RoutingKey(key) => old_key = Some(key),
            Property::Death(death) => deaths.extend(Death::decode(death)),
            other => kept.push(other),
        }
    }
    let old_key = old_key.unwrap_or(queue.as_bytes());
    let before = deaths.iter().position(|d| d.queue == queue && d.reason == dropped.reason);
    let rejected =
        dropped.reason == DropReason::Rejected || deaths.iter().any(|d| d.reason == DropReason::Rejected);
    let count = match before {
        Some(_) if !rejected => return None,
        Some(at) => deaths.remove(at).count.saturating_add(1),
        None => 1,
    };
    let death = Death {
        queue: queue.into(),
        reason: dropped.reason,
        exchange: old_exchange.into(),
        routing_key: old_key.into(),
        time_ms: now_ms,
        count,
        ttl_ms,
    };
    deaths.insert(0, death);
    deaths.truncate(DEATHS_MAX);
    let new_key = to.routing_key.clone().unwrap_or_else(|| old_key.to_vec());
    headers.begin_like(&view, None);
    headers.put(Property::Exchange(to.exchange.as_bytes()));
    headers.put(Property::RoutingKey(&new_key));
    kept.into_iter().for_each(|property| headers.put(property));
    deaths.iter().for_each(|death| headers.put(Property::Death(&death.encode())));
    headers.user_of(&view);
    Some(new_key)
}
