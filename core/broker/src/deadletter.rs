//! Dead-lettering: publishes messages that a queue dropped (expired, rejected, over length, returned too often) to the
//! queue's dead-letter exchange.
//!
//! The publish and the acknowledgement in the queue are one entry, so that a crash neither loses nor duplicates the
//! message. A message carries a death record for each queue and reason, newest first, with a count.

use std::sync::{Arc, Weak};

use inver_storage::SubmitError;
use inver_storage::batch::{BatchBuilder, records};

use crate::completion::Completion;
use crate::delayed::publish_due;
use crate::message::{Death, HeaderView, HeaderWriter, Message, Property, split_more_keys};
use crate::namespace::{Inner, Namespace};
use crate::publisher::{PublishError, Publisher, Target};
use crate::seeded_bugs::{Bug, is_seeded};
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
    fn target(&self, queue: &Subscription) -> Option<(Publisher, Arc<DeadLetter>)> {
        let to = queue.dead_letter_to()?;
        let namespace = Namespace::of(self.0.upgrade()?);
        Some((Publisher::of_stored(namespace), to))
    }
}

impl DropSink for DeadLetterer {
    fn dropped(&self, from: &Arc<Subscription>, dropped: &[Dropped]) -> Result<Completion, SubmitError> {
        if from.holds_delayed() {
            let Some(namespace) = self.0.upgrade().map(Namespace::of) else { return Ok(Completion::Now) };
            return publish_due(&namespace, from, dropped);
        }
        let Some((mut publisher, to)) = self.target(from) else {
            from.context().counters.dropped.increment(dropped.len() as u64);
            return from.ack_dropped(dropped.iter().map(|d| d.id).collect());
        };
        let keeps = from.keeps_undelivered();
        let held_max = publisher.namespace().limits().undelivered_messages_max;
        let mut headers = HeaderWriter::default();
        let (mut ids, mut published, mut completion) = (Vec::new(), 0, Completion::Now);
        // How many of them were held before the present entry, and where that begins.
        let (mut held, mut held_before, mut begin) = (Vec::new(), 0, 0);
        for (i, d) in dropped.iter().enumerate() {
            let is_published = publish(from, d, &to, &mut headers, &mut publisher, keeps);
            published += u64::from(is_published);
            // What cannot be read is not kept: each try would meet the damage again.
            if is_published || !keeps || d.reason == DropReason::Damaged {
                ids.push(d.id);
            } else {
                held.push(d);
            }
            if publisher.bytes() >= ENTRY_BYTES_MAX || i + 1 == dropped.len() {
                let ids = std::mem::take(&mut ids);
                if is_seeded(Bug::AckBeforeDeadLetter) {
                    from.ack_dropped(ids)?;
                } else if !is_seeded(Bug::KeepDeadLettered) {
                    publisher.attach(|entry| from.ack_dropped_in(ids, entry));
                }
                let flushed = publisher.flush_batch();
                if flushed.is_err() && keeps {
                    // Nothing of this entry and of those behind it left the queue.
                    held.truncate(held_before);
                    held.extend(dropped.iter().skip(begin));
                    from.hold(&held, held_max);
                }
                completion = completion.and(flushed?);
                (held_before, begin) = (held.len(), i + 1);
            }
        }
        let counters = &from.context().counters;
        counters.dead_lettered.increment(published);
        counters.dropped.increment((dropped.len() - held.len()) as u64 - published);
        from.hold(&held, held_max);
        Ok(completion)
    }

    fn refused(&self, by: &Subscription, message: &Message<'_>, left: &mut u8) -> Option<Completion> {
        // Full queues can be each other's dead-letter queues, in any number.
        let nested = left.checked_sub(1)?;
        let (mut publisher, to) = self.target(by)?;
        publisher.nested_letters = Some(nested);
        let mut single = BatchBuilder::new(0);
        let Message { timestamp_ms, key, headers, value, .. } = message;
        single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        let record = records(single.finish().bytes()).ok()?.next()?.ok()?;
        let id = DeliveryId { partition: 0, offset: 0 };
        let dropped = Dropped { id, record, reason: DropReason::MaxLength };
        let is_published = publish(by, &dropped, &to, &mut HeaderWriter::default(), &mut publisher, false);
        *left = publisher.nested_letters.unwrap_or_default();
        if is_published {
            by.context().counters.dead_lettered.increment(1);
        }
        let flushed = publisher.flush();
        if let Err(error) = &flushed {
            tracing::warn!(queue = by.name(), %error, "failed to dead-letter a refused message");
        }
        flushed.ok().filter(|_| is_published)
    }
}

/// Publishes a dropped message of a queue, to every queue that it reaches but those that it has died in already without a
/// rejection: these would be a cycle. Whether a queue or another receiver has it. With `to_all`, all of them have it, or
/// none.
fn publish(
    queue: &Subscription,
    dropped: &Dropped,
    to: &DeadLetter,
    headers: &mut HeaderWriter,
    publisher: &mut Publisher,
    to_all: bool,
) -> bool {
    let now_ms = publisher.namespace().clock().steady_ms();
    let view = HeaderView::of(&dropped.record);
    let letter = Letter::of(queue.name(), dropped, &view, now_ms);
    let (routing_key, more_keys) = letter.write(to, &view, headers);
    let mut message = Message::of_record(&dropped.record, true);
    message.timestamp_ms = now_ms;
    message.headers = headers.headers();
    let target = Target::Exchange { name: &to.exchange, routing_key, more_keys: &more_keys };
    let published = publisher.publish_letter(target, &message, &letter.cycle(), to_all);
    match published {
        Ok(routed) => {
            if routed.refused {
                queue.context().counters.dead_letters_refused.increment(1);
            }
            routed.destinations > 0 && (!routed.refused || routed.is_split)
        }
        // As in other brokers, a queue may name an exchange that does not exist.
        Err(PublishError::NoSuchExchange(_)) => false,
        Err(error) => {
            queue.context().counters.dead_letters_refused.increment(1);
            tracing::warn!(queue = queue.name(), %error, "failed to dead-letter a message");
            false
        }
    }
}

/// A dropped message with all its deaths, newest first.
struct Letter<'a> {
    deaths: Vec<Death<'a>>,
    /// The properties that it keeps.
    kept: Vec<Property<'a>>,
    old_key: &'a [u8],
    old_more_keys: &'a [u8],
}

impl<'a> Letter<'a> {
    fn of(queue: &'a str, dropped: &Dropped, view: &HeaderView<'a>, now_ms: i64) -> Letter<'a> {
        let (mut kept, mut deaths) = (Vec::new(), Vec::new());
        let (mut old_exchange, mut old_key, mut ttl_ms): (&[u8], _, _) = (b"", None, None);
        let mut old_more_keys: &[u8] = b"";
        for property in view.typed_properties() {
            match property {
                Property::ExpiresMs(at) => {
                    ttl_ms = Some(at.saturating_sub(dropped.record.timestamp_ms).max(0));
                }
                Property::Exchange(exchange) => old_exchange = exchange,
                Property::RoutingKey(key) => old_key = Some(key),
                Property::MoreKeys(keys) => old_more_keys = keys,
                Property::Death(death) => deaths.extend(Death::decode(death)),
                other => kept.push(other),
            }
        }
        let old_key = old_key.unwrap_or(queue.as_bytes());
        let mut count = 1;
        if let Some(at) = deaths.iter().position(|d| d.queue == queue && d.reason == dropped.reason) {
            let before = deaths.remove(at);
            count = before.count.saturating_add(1);
            // Its time to live ended with the first death.
            ttl_ms = ttl_ms.or(before.ttl_ms);
        }
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
        Letter { deaths, kept, old_key, old_more_keys }
    }

    /// Writes its headers. Returns its routing keys: those that it was published with, unless the queue sets another.
    fn write<'k>(
        &self,
        to: &'k DeadLetter,
        view: &HeaderView<'_>,
        headers: &mut HeaderWriter,
    ) -> (&'k [u8], Vec<&'k [u8]>)
    where
        'a: 'k,
    {
        let (key, more_keys) = match &to.routing_key {
            Some(key) => (&**key, &b""[..]),
            None => (self.old_key, self.old_more_keys),
        };
        headers.begin_like(view, None);
        headers.put(Property::Exchange(to.exchange.as_bytes()));
        headers.put(Property::RoutingKey(key));
        if !more_keys.is_empty() {
            headers.put(Property::MoreKeys(more_keys));
        }
        self.kept.iter().for_each(|property| headers.put(*property));
        self.deaths.iter().for_each(|death| headers.put(Property::Death(&death.encode())));
        headers.user_of(view);
        (key, split_more_keys(more_keys))
    }

    /// The queues that it must not reach again.
    fn cycle(&self) -> Vec<&str> {
        if self.deaths.iter().any(|death| death.reason == DropReason::Rejected) {
            return Vec::new();
        }
        self.deaths.iter().map(|death| &*death.queue).collect()
    }
}
