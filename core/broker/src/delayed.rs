//! Publishing delayed messages that are due.
//!
//! The publish and the removal from the queue that held the message are one entry, so that a crash neither loses nor
//! duplicates it. A message whose exchange is gone is dropped.

use std::sync::Arc;

use inver_storage::SubmitError;

use crate::completion::Completion;
use crate::message::{DELAYED_TO, DelayedTarget, DelayedTo, HeaderView, HeaderWriter, Message, Property};
use crate::namespace::Namespace;
use crate::peek;
use crate::publisher::{Publisher, Target};
use crate::spec::DeliveryId;
use crate::subscription::{Dropped, Subscription};

/// Bytes of messages in one entry of the log; one message may be larger.
const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message that is due, and where it goes.
type Due<'a> = (&'a Dropped, HeaderView<'a>, DelayedTo<'a>);

/// Publishes messages of a queue of delayed ones, which are due, and removes them from it.
pub(crate) fn publish_due(
    namespace: &Namespace,
    from: &Arc<Subscription>,
    due: &[Dropped],
) -> Result<Completion, SubmitError> {
    let mut completion = Completion::Now;
    let mut unreadable: Vec<DeliveryId> = Vec::new();
    let mut known: Vec<Due<'_>> = Vec::with_capacity(due.len());
    for message in due {
        let view = HeaderView::of(&message.record);
        match DelayedTo::of(&view) {
            Some(to) => known.push((message, view, to)),
            None => unreadable.push(message.id),
        }
    }
    let like = |(_, view, to): &Due<'_>| (view.origin().map(<[u8]>::to_vec), to.rights);
    let mut rest = known.as_slice();
    while let [first, others @ ..] = rest {
        let mut bytes = peek::size(&first.0.record);
        let same = others.iter().take_while(|other| {
            bytes += peek::size(&other.0.record);
            bytes <= ENTRY_BYTES_MAX && like(other) == like(first)
        });
        let (group, behind) = rest.split_at(1 + same.count());
        completion = completion.and(publish_group(namespace, from, group)?);
        rest = behind;
    }
    if !unreadable.is_empty() {
        tracing::error!(count = unreadable.len(), "delayed messages dropped: where they go cannot be read");
        completion = completion.and(drop_all(from, unreadable)?);
    }
    Ok(completion)
}

/// Publishes messages of one origin with the same rights in one entry of the log; where that is too large, in several. A
/// message whose copies for its receivers alone are too large is dropped.
fn publish_group(
    namespace: &Namespace,
    from: &Arc<Subscription>,
    group: &[Due<'_>],
) -> Result<Completion, SubmitError> {
    let [(_, view, to), ..] = group else { return Ok(Completion::Now) };
    let origin = view.origin().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    let mut publisher = Publisher::of_due(namespace.clone(), namespace.origin(origin), to.rights);
    let mut headers = HeaderWriter::default();
    let mut lost = 0;
    for (message, view, to) in group {
        lost += u64::from(!publish(&mut publisher, view, &message.record, to, &mut headers));
    }
    let ids: Vec<DeliveryId> = group.iter().map(|(message, ..)| message.id).collect();
    publisher.attach(|entry| from.ack_dropped_in(ids.clone(), entry));
    match publisher.flush_batch() {
        Ok(completion) => {
            from.context().counters.dropped.increment(lost);
            Ok(completion)
        }
        Err(SubmitError::TooLarge { .. }) if group.len() > 1 => {
            let (first, second) = group.split_at(group.len() / 2);
            Ok(publish_group(namespace, from, first)?.and(publish_group(namespace, from, second)?))
        }
        Err(error @ SubmitError::TooLarge { .. }) => {
            tracing::error!(%error, "delayed message dropped: too large with the copies for its receivers");
            drop_all(from, ids)
        }
        Err(error) => Err(error),
    }
}

fn drop_all(from: &Arc<Subscription>, ids: Vec<DeliveryId>) -> Result<Completion, SubmitError> {
    from.context().counters.dropped.increment(ids.len() as u64);
    from.ack_dropped(ids)
}

/// Whether the message was published.
fn publish(
    publisher: &mut Publisher,
    view: &HeaderView<'_>,
    record: &inver_storage::batch::Record,
    to: &DelayedTo<'_>,
    headers: &mut HeaderWriter,
) -> bool {
    let now_ms = publisher.namespace().clock().steady_ms();
    headers.begin_like(view, to.ttl_ms.map(|ttl| now_ms.saturating_add(ttl)));
    view.typed_properties()
        .filter(|property| !matches!(property, Property::ExpiresMs(_) | Property::Other(DELAYED_TO, _)))
        .for_each(|property| headers.put(property));
    headers.user_of(view);
    let message = Message {
        timestamp_ms: now_ms,
        headers: headers.headers(),
        ..Message::of_record(record, to.guaranteed)
    };
    let published = match &to.target {
        DelayedTarget::Exchange { name, routing_key, more_keys } => {
            publisher.publish(Target::Exchange { name, routing_key, more_keys }, &message)
        }
        DelayedTarget::Hub { address, retain: false } => publisher.publish(Target::Hub(address), &message),
        DelayedTarget::Hub { address, retain: true } => {
            publisher.publish_retained(address, &message).map(|(routed, _)| routed)
        }
    };
    match published {
        Ok(routed) => !routed.refused,
        Err(error) => {
            tracing::debug!(%error, "failed to publish a delayed message");
            false
        }
    }
}
