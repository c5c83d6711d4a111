//! What becomes of messages that die in a queue: they expired, were rejected, had no room, or came back too
//! often.
//!
//! A queue with a dead-letter exchange publishes them there and takes them out of itself in one entry, so that
//! a crash neither loses nor doubles them. A message carries its deaths as properties, newest first, one for
//! each queue and reason, with a count.

use std::sync::{Arc, Weak};

use inver_storage::Lsn;
use inver_storage::batch::{BatchBuilder, Record, records};

use crate::clock::now_ms;
use crate::message::{Death, HeaderView, HeaderWriter, Message, Property};
use crate::namespace::{Inner, Namespace};
use crate::publisher::{Publisher, Target};
use crate::spec::{DeadLetter, DeliveryId, DropReason, PublisherId, QueueLimits};
use crate::subscription::Subscription;

/// Deaths that a message carries; older ones are forgotten.
const DEATHS_MAX: usize = 32;

/// Bytes of dead letters in one entry of the log; one message may be larger.
const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A dead message.
pub(crate) struct Dropped {
    pub(crate) id: DeliveryId,
    pub(crate) record: Record,
    pub(crate) reason: DropReason,
}

/// What a subscription knows of the queue that it belongs to.
pub(crate) struct DeadLetterer {
    pub(crate) namespace: Weak<Inner>,
    pub(crate) queue: Box<str>,
    pub(crate) limits: QueueLimits,
}

impl DeadLetterer {
    /// Takes dead messages out of the queue, and sends them where its dead letters go. The position to wait for
    /// before they are said to be there.
    pub(crate) fn dead_letter(&self, subscription: &Arc<Subscription>, dead: &[Dropped]) -> Option<Lsn> {
        let (Some(to), Some(inner)) = (&self.limits.dead_letter, self.namespace.upgrade()) else {
            return subscription.ack_dropped(dead.iter().map(|d| d.id).collect());
        };
        let mut publisher = Publisher::new(Namespace::of(inner), PublisherId::default());
        let mut headers = HeaderWriter::default();
        let (mut buried, mut last) = (Vec::new(), None);
        for (i, d) in dead.iter().enumerate() {
            self.send(d, to, &mut headers, &mut publisher);
            buried.push(d.id);
            if publisher.bytes() >= ENTRY_BYTES_MAX || i + 1 == dead.len() {
                let ids = std::mem::take(&mut buried);
                publisher.attach(|entry| subscription.ack_dropped_in(ids, entry));
                match publisher.flush() {
                    Ok(lsn) => last = lsn.or(last),
                    Err(error) => tracing::warn!(queue = %self.queue, %error, "dead letters not written"),
                }
            }
        }
        last
    }

    /// Sends a message that never was in the queue where its dead letters go.
    pub(crate) fn dead_letter_message(&self, message: &Message<'_>, reason: DropReason) {
        let (Some(to), Some(inner)) = (&self.limits.dead_letter, self.namespace.upgrade()) else { return };
        let mut single = BatchBuilder::new(0);
        let Message { timestamp_ms, key, headers, value, .. } = message;
        single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        let Some(Ok(record)) = records(single.finish().bytes()).ok().and_then(|mut r| r.next()) else {
            return;
        };
        let dead = Dropped { id: DeliveryId { partition: 0, offset: 0 }, record, reason };
        let mut publisher = Publisher::new(Namespace::of(inner), PublisherId::default());
        self.send(&dead, to, &mut HeaderWriter::default(), &mut publisher);
        if let Err(error) = publisher.flush() {
            tracing::warn!(queue = %self.queue, %error, "a dead letter was not written");
        }
    }

    fn send(&self, dead: &Dropped, to: &DeadLetter, headers: &mut HeaderWriter, publisher: &mut Publisher) {
        let Some(routing_key) = self.rewrite(dead, to.routing_key.as_deref(), &to.exchange, headers) else {
            return;
        };
        let mut message = Message::of_record(&dead.record, true);
        message.timestamp_ms = now_ms();
        message.headers = headers.headers();
        let target = Target::Exchange { name: &to.exchange, routing_key: &routing_key, more_keys: &[] };
        if let Err(error) = publisher.publish(target, &message) {
            tracing::debug!(queue = %self.queue, %error, "a dead letter has nowhere to go");
        }
    }

    /// The message's headers after this death, and its routing key; none if it has come round in a circle.
    fn rewrite(
        &self,
        dead: &Dropped,
        routing_key: Option<&[u8]>,
        exchange: &str,
        headers: &mut HeaderWriter,
    ) -> Option<Vec<u8>> {
        let (mut kept, mut deaths) = (Vec::new(), Vec::new());
        let (mut old_exchange, mut old_key, mut ttl_ms): (&[u8], _, _) = (b"", None, None);
        let view = HeaderView::of(&dead.record);
        for property in view.typed_properties() {
            match property {
                Property::ExpiresMs(at) => ttl_ms = Some(at.saturating_sub(dead.record.timestamp_ms).max(0)),
                Property::Exchange(exchange) => old_exchange = exchange,
                Property::RoutingKey(key) => old_key = Some(key),
                Property::Death(death) => deaths.extend(Death::decode(death)),
                other => kept.push(other),
            }
        }
        let old_key = old_key.unwrap_or(self.queue.as_bytes());
        let before = deaths.iter().position(|d| *d.queue == *self.queue && d.reason == dead.reason);
        let rejected =
            dead.reason == DropReason::Rejected || deaths.iter().any(|d| d.reason == DropReason::Rejected);
        let count = match before {
            Some(_) if !rejected => return None,
            Some(at) => deaths.remove(at).count.saturating_add(1),
            None => 1,
        };
        let death = Death {
            queue: (&*self.queue).into(),
            reason: dead.reason,
            exchange: old_exchange.into(),
            routing_key: old_key.into(),
            time_ms: now_ms(),
            count,
            ttl_ms,
        };
        deaths.insert(0, death);
        deaths.truncate(DEATHS_MAX);
        let new_key = routing_key.map_or_else(|| old_key.to_vec(), <[u8]>::to_vec);
        headers.begin_like(&view, None);
        headers.put(Property::Exchange(exchange.as_bytes()));
        headers.put(Property::RoutingKey(&new_key));
        kept.into_iter().for_each(|property| headers.put(property));
        deaths.iter().for_each(|death| headers.put(Property::Death(&death.encode())));
        view.user().for_each(|(name, value)| headers.user(name, value));
        Some(new_key)
    }
}
