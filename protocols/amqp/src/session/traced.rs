//! Spans of deliveries, and of their settlement.

use inver_broker::message::traceparent;
use inver_broker::{About, Completion, Delivered, Delivery};

use super::channel::Channel;
use super::shared::Shared;
use super::unacked::Disposition;
use crate::map::ORIGIN;

/// The span of a delivery from a queue or topic; none if tracing is off or the message is not sampled.
#[inline]
pub(super) fn delivered(delivery: &Delivery, source: &str, shared: &Shared) -> Option<Delivered> {
    let tracer = shared.namespace.traces().tracer()?;
    let record = &delivery.record;
    tracer.delivered(traceparent(record), || About {
        protocol: ORIGIN,
        client_id: shared.permissions.scope().client_id.clone(),
        namespace: shared.namespace.name().into(),
        destination: source.to_owned(),
        messages: 1,
        body_bytes: record.value.as_ref().map_or(0, bytes::Bytes::len),
        ..About::default()
    })
}

impl Channel {
    /// Sends the span of a settlement, if that of the delivery was sent.
    #[cold]
    pub(super) fn send_settled(&mut self, tag: u64, disposition: Disposition, shared: &Shared) {
        let operation = match disposition {
            Disposition::Ack => "ack",
            Disposition::Requeue => "requeue",
            Disposition::Reject => "reject",
        };
        let settled = self.traced.take(|key| key == tag);
        if let Some(tracer) = shared.namespace.traces().tracer() {
            settled.into_iter().for_each(|delivered| tracer.settled(delivered, operation, Completion::Now));
        }
    }
}
