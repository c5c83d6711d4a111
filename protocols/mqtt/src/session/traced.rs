//! Spans of messages to the client, and of their acknowledgements.

use inver_broker::message::{may_have_traces, traceparent};
use inver_broker::{About, Completion, Delivered, LiveBatch, Tracer};
use inver_storage::batch::{Record, records};

use super::Session;
use crate::map::{ORIGIN, Outgoing};

impl Session {
    /// The span of a message to the client; none if tracing is off or the message is not sampled.
    #[inline]
    pub(super) fn trace(&self, record: &Record, topic: &str) -> Option<Delivered> {
        self.delivered(self.core.namespace().traces().tracer()?, record, topic)
    }

    #[cold]
    fn delivered(&self, tracer: &Tracer, record: &Record, topic: &str) -> Option<Delivered> {
        tracer.delivered(traceparent(record), || About {
            protocol: ORIGIN,
            client_id: self.core.client_id().into(),
            namespace: self.core.namespace().name().into(),
            destination: topic.to_owned(),
            messages: 1,
            body_bytes: record.value.as_ref().map_or(0, bytes::Bytes::len),
            ..About::default()
        })
    }

    /// The spans of a batch whose messages are not read one by one.
    #[inline]
    pub(super) fn trace_batch(&self, batch: &LiveBatch) {
        if self.core.namespace().traces().tracer().is_some() {
            self.trace_each(batch);
        }
    }

    #[cold]
    fn trace_each(&self, batch: &LiveBatch) {
        if !may_have_traces(&batch.bytes) {
            return;
        }
        for record in records(&batch.bytes).into_iter().flatten().flatten() {
            let topic = batch.topic.as_deref().map(str::as_bytes);
            if let Some(outgoing) = Outgoing::read(&record, topic, self.server.config.amqp_names) {
                let _not_settled = self.trace(&record, &outgoing.topic);
            }
        }
    }

    /// Sends the span of an acknowledgement, if that of the message was sent.
    #[cold]
    pub(super) fn trace_settled(&mut self, packet_id: u16, operation: &'static str) {
        let settled = self.inflight.take_traced(packet_id);
        if let Some(tracer) = self.core.namespace().traces().tracer() {
            settled.into_iter().for_each(|delivered| tracer.settled(delivered, operation, Completion::Now));
        }
    }
}
