//! Spans of produced and fetched records, and of commits.

use std::sync::Arc;

use inver_broker::message::{may_have_traces, traceparent};
use inver_broker::{About, BATCH_SPANS_MAX, Completion, Namespace, Publishing, Topic, Tracer};
use inver_storage::StoredBatch;
use inver_storage::batch::{Batch, Record, records};

/// The name of the protocol in spans.
const PROTOCOL: &str = "kafka";

/// Who produces or fetches.
pub(crate) struct TracedClient<'a> {
    /// The name that it gives itself.
    pub(crate) client_id: Arc<str>,
    pub(crate) namespace: &'a Namespace,
}

/// A record's span, and its offset behind the first.
type ProducedSpan = (u32, Publishing);

/// Begins the spans of a batch: one for each sampled record, or, if no record has a trace, one for the batch.
#[cold]
pub(crate) fn produced(
    tracer: &Tracer,
    topic: &Topic,
    batch: &Batch,
    client: &TracedClient<'_>,
) -> Vec<ProducedSpan> {
    let about = |messages, body_bytes| About {
        protocol: PROTOCOL,
        client_id: client.client_id.clone(),
        namespace: client.namespace.name().into(),
        destination: topic.name().to_owned(),
        messages,
        body_bytes,
        ..About::default()
    };
    let mut has_trace = false;
    let mut spans = Vec::new();
    for record in may_have_traces(batch.bytes()).then(|| records(batch.bytes())).into_iter().flatten() {
        for record in record.map_while(Result::ok) {
            let Some(parent) = traceparent(&record) else { continue };
            has_trace = true;
            if spans.len() < BATCH_SPANS_MAX
                && let Some(mut span) = tracer.publishing(Some(parent))
            {
                span.about = about(1, value_bytes(&record));
                spans.push((record.offset_delta, span));
            }
        }
    }
    if !has_trace && let Some(mut span) = tracer.publishing(None) {
        span.about = about(batch.record_count(), batch.bytes().len());
        spans.push((0, span));
    }
    spans
}

/// Sends the spans of a batch that was submitted.
#[cold]
pub(crate) fn submitted(
    tracer: &Tracer,
    spans: Vec<ProducedSpan>,
    partition: u32,
    base: u64,
    completion: Completion,
) {
    for (delta, mut span) in spans {
        span.about.position = Some((partition, base + u64::from(delta)));
        tracer.published(span, completion);
    }
}

/// Sends the spans of the records of a batch that a client is sent, from an offset on.
#[cold]
pub(crate) fn fetched(
    tracer: &Tracer,
    topic: &Topic,
    partition: u32,
    batch: &StoredBatch,
    from: u64,
    client: &TracedClient<'_>,
) {
    if !may_have_traces(&batch.bytes) {
        return;
    }
    let Some(stream) = topic.partition(partition).map(|partition| partition.stream().id()) else { return };
    let mut spans = 0;
    for record in records(&batch.bytes).into_iter().flatten().map_while(Result::ok) {
        let offset = batch.base_offset.0 + u64::from(record.offset_delta);
        if offset < from || spans == BATCH_SPANS_MAX {
            continue;
        }
        let delivered = tracer.delivered(traceparent(&record), || About {
            protocol: PROTOCOL,
            client_id: client.client_id.clone(),
            namespace: client.namespace.name().into(),
            destination: topic.name().to_owned(),
            position: Some((partition, offset)),
            messages: 1,
            body_bytes: value_bytes(&record),
            ..About::default()
        });
        if let Some(delivered) = delivered {
            spans += 1;
            tracer.read(stream.0, offset, delivered);
        }
    }
}

fn value_bytes(record: &Record) -> usize {
    record.value.as_ref().map_or(0, bytes::Bytes::len)
}
