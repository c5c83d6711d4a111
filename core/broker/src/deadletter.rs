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
use crate::message::{
    DEATH, EXCHANGE, EXPIRES, HeaderView, HeaderWriter, Message, NEUTRAL_ORIGIN, ROUTING_KEY,
};
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

/// One death, as its property's value has it: lines of text.
struct Death {
    queue: String,
    reason: String,
    exchange: String,
    routing_key: String,
    time_ms: String,
    count: u64,
    expiry_ms: String,
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
        let (mut old_exchange, mut old_key, mut expiry_ms): (&[u8], _, _) = (b"", None, String::new());
        let view = HeaderView::of(&dead.record);
        for (name, value) in view.properties() {
            let value = value.unwrap_or_default();
            match name {
                EXPIRES => {
                    let at: i64 = std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
                    expiry_ms = at.saturating_sub(dead.record.timestamp_ms).max(0).to_string();
                }
                EXCHANGE => old_exchange = value,
                ROUTING_KEY => old_key = Some(value),
                DEATH => deaths.extend(Death::read(value)),
                _ => kept.push((name, value)),
            }
        }
        let old_key = old_key.unwrap_or(self.queue.as_bytes());
        let reason = dead.reason.as_str();
        let before = deaths.iter().position(|d| *d.queue == *self.queue && d.reason == reason);
        let rejected = dead.reason == DropReason::Rejected || deaths.iter().any(|d| d.reason == "rejected");
        let count = match before {
            Some(_) if !rejected => return None,
            Some(at) => deaths.remove(at).count + 1,
            None => 1,
        };
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let death = Death {
            queue: self.queue.to_string(),
            reason: reason.to_owned(),
            exchange: text(old_exchange),
            routing_key: text(old_key),
            time_ms: now_ms().to_string(),
            count,
            expiry_ms,
        };
        deaths.insert(0, death);
        deaths.truncate(DEATHS_MAX);
        let new_key = routing_key.map_or_else(|| old_key.to_vec(), <[u8]>::to_vec);
        let origin = view.origin().and_then(|o| std::str::from_utf8(o).ok()).unwrap_or(NEUTRAL_ORIGIN);
        headers.begin(origin, None);
        headers.property(EXCHANGE, exchange.as_bytes());
        headers.property(ROUTING_KEY, &new_key);
        kept.iter().for_each(|(name, value)| headers.property(name, value));
        deaths.iter().for_each(|d| headers.property(DEATH, d.write().as_bytes()));
        view.user().for_each(|(name, value)| headers.user(name, value));
        Some(new_key)
    }
}

impl Death {
    fn read(value: &[u8]) -> Option<Death> {
        let text = std::str::from_utf8(value).ok()?;
        let mut lines = text.split('\n').map(|l| l.replace("\\n", "\n").replace("\\\\", "\\"));
        Some(Death {
            queue: lines.next()?,
            reason: lines.next()?,
            exchange: lines.next()?,
            routing_key: lines.next()?,
            time_ms: lines.next()?,
            count: lines.next()?.parse().ok()?,
            expiry_ms: lines.next()?,
        })
    }

    fn write(&self) -> String {
        let line = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n");
        let Death { queue, reason, exchange, routing_key, time_ms, count, expiry_ms } = self;
        [
            line(queue),
            line(reason),
            line(exchange),
            line(routing_key),
            line(time_ms),
            count.to_string(),
            line(expiry_ms),
        ]
        .join("\n")
    }
}
