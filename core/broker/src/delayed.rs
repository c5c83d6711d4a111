//! Publishing delayed messages that are due.
//!
//! The publish and the removal from the queue that held the message are one entry, so that a crash neither loses nor
//! duplicates it. A message whose exchange is gone is dropped.

use std::sync::Arc;

use inver_storage::SubmitError;

use crate::completion::Completion;
use crate::message::{DELAYED_TO, DelayedTarget, DelayedTo, HeaderView, HeaderWriter, Message, Property};
use crate::namespace::Namespace;
use crate::publisher::{Publisher, Target};
use crate::spec::DeliveryId;
use crate::subscription::{Dropped, Subscription};

/// Bytes of messages in one entry of the log; one message may be larger.
const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Publishes messages of a queue of delayed ones, which are due, and removes them from it.
pub(crate) fn publish_due(
    namespace: &Namespace,
    from: &Arc<Subscription>,
    due: &[Dropped],
) -> Result<Completion, SubmitError> {
    let mut completion = Completion::Now;
    let mut headers = HeaderWriter::default();
    let mut current: Option<(&'static str, bool, Publisher)> = None;
    let mut ids: Vec<DeliveryId> = Vec::new();
    let mut lost = 0;
    for Dropped { id, record, .. } in due {
        let view = HeaderView::of(record);
        let value = view.typed_properties().find_map(|property| match property {
            Property::Other(DELAYED_TO, value) => Some(value),
            _ => None,
        });
        let Some(to) = value.and_then(DelayedTo::decode) else {
            tracing::error!(offset = id.offset, "delayed message dropped: where it goes cannot be read");
            completion = completion.and(from.ack_dropped(vec![*id])?);
            lost += 1;
            continue;
        };
        let origin = view.origin().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        let origin = namespace.origin(origin);
        if current.as_ref().is_none_or(|(of, appends, publisher)| {
            (*of, *appends) != (origin, to.appends) || publisher.bytes() >= ENTRY_BYTES_MAX
        }) {
            if let Some((.., publisher)) = current.take() {
                completion = completion.and(flush(from, publisher, std::mem::take(&mut ids))?);
            }
            current = Some((origin, to.appends, Publisher::of_due(namespace.clone(), origin, to.appends)));
        }
        let Some((.., publisher)) = &mut current else { continue };
        ids.push(*id);
        lost += u64::from(!publish(publisher, &view, record, &to, &mut headers));
    }
    if let Some((.., publisher)) = current {
        completion = completion.and(flush(from, publisher, ids)?);
    }
    from.context().counters.dropped.increment(lost);
    Ok(completion)
}

fn flush(
    from: &Arc<Subscription>,
    mut publisher: Publisher,
    ids: Vec<DeliveryId>,
) -> Result<Completion, SubmitError> {
    publisher.attach(|entry| from.ack_dropped_in(ids, entry));
    publisher.flush_batch()
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
