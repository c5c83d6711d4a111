//! Consumers of streams: what they must ask for, where they start, and which messages they filter out. The texts are
//! those of RabbitMQ 4.0.

use inver_broker::message::filter_value;
use inver_broker::{Delivery, DeliveryId, OffsetSpec, Start, StreamFilter, Topic, stream_age_ms};
use inver_storage::{Stream, TimeLookup};

use super::shared::Shared;
use crate::codec::Table;
use crate::codec::table::Value as Field;
use crate::error::Refusal;
use crate::topology::kinds::QueueKind;

/// The argument with the place where a consumer starts, and the header with the place of a message.
pub(super) const STREAM_OFFSET: &str = "x-stream-offset";

/// What a consumer of a stream gets of it.
#[derive(Debug, Default)]
pub(super) struct StreamReader {
    /// Messages with these filter values; none: all.
    filter: Option<StreamFilter>,
    /// Messages from this time on, milliseconds since 1970.
    from_ms: Option<i64>,
}

impl StreamReader {
    /// Reads what a consumer asks for, or refuses it.
    pub(super) fn new(
        name: &str,
        no_ack: bool,
        prefetch: u32,
        arguments: Table<'_>,
        shared: &Shared,
    ) -> Result<StreamReader, Refusal> {
        let what = shared.in_vhost("queue", name);
        if no_ack {
            return Err(Refusal::not_implemented(format_args!(
                "automatic acknowledgement not supported by stream {what}"
            )));
        }
        if prefetch == 0 {
            return Err(Refusal::precondition_failed(format_args!(
                "consumer prefetch count is not set for stream {what}"
            )));
        }
        // A consumer of a stream takes nothing out for others: it shares no subscription.
        for name in ["x-priority", "x-subscription"] {
            if arguments.get(name).is_some() {
                return Err(QueueKind::Stream.has_no(name, &what));
            }
        }
        let text = |value: Field<'_>| match value {
            Field::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        let values = match arguments.get("x-stream-filter") {
            Some(Field::Array(all)) => Some(all.iter().filter_map(text).collect()),
            // RabbitMQ takes what is neither for no filter.
            Some(one) => text(one).map(|one| vec![one]),
            None => None,
        };
        let unfiltered = matches!(arguments.get("x-stream-match-unfiltered"), Some(Field::Bool(true)));
        Ok(StreamReader { filter: values.map(|values| StreamFilter { values, unfiltered }), from_ms: None })
    }

    /// A consumer that gets messages from this time on.
    pub(super) fn starting_at(self, from_ms: Option<i64>) -> StreamReader {
        StreamReader { from_ms, ..self }
    }

    /// Takes out the messages that the consumer does not get.
    pub(super) fn filter(&self, deliveries: &mut Vec<Delivery>) -> Vec<DeliveryId> {
        let mut out = Vec::new();
        if self.filter.is_none() && self.from_ms.is_none() {
            return out;
        }
        deliveries.retain(|delivery| {
            let is_early = self.from_ms.is_some_and(|from_ms| delivery.record.timestamp_ms < from_ms);
            let is_in = !is_early && self.matches(delivery);
            if !is_in {
                out.push(delivery.id);
            }
            is_in
        });
        out
    }

    fn matches(&self, delivery: &Delivery) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(filter_value(&delivery.record)))
    }
}

/// Where a consumer of a log topic starts, and the time before which it leaves messages out, if their place is not known
/// without reading the disk.
pub(super) fn start(
    topic: &Topic,
    arguments: Table<'_>,
    shared: &Shared,
) -> Result<Option<(Start, Option<i64>)>, Refusal> {
    let Some(value) = arguments.get(STREAM_OFFSET) else { return Ok(None) };
    let invalid = |shown: &dyn std::fmt::Display| {
        Refusal::precondition_failed(format_args!(
            "invalid arg '{STREAM_OFFSET}' for {}: {{invalid_stream_offset_arg,{shown}}}",
            shared.in_vhost("queue", topic.name())
        ))
    };
    let spec = match value {
        Field::Text(b"first") => OffsetSpec::First,
        Field::Text(b"next") => OffsetSpec::Next,
        Field::Text(b"last") => OffsetSpec::Last,
        Field::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let age_ms =
                stream_age_ms(&text).ok_or_else(|| invalid(&format_args!("{{longstr,<<\"{text}\">>}}")))?;
            OffsetSpec::Time(shared.namespace.clock().now_ms().saturating_sub_unsigned(age_ms))
        }
        Field::Timestamp(seconds) => {
            OffsetSpec::Time(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
        }
        // A negative offset is the first one, as in RabbitMQ.
        value => match value.as_integer() {
            Some(number) => OffsetSpec::Offset(u64::try_from(number).unwrap_or(0)),
            None => return Err(invalid(&value.type_name())),
        },
    };
    let stream = only_stream(topic);
    let start = match spec {
        OffsetSpec::Time(ms) => at_time(stream.as_ref(), ms),
        spec => match spec.start(stream.as_ref()) {
            Some(start) => (start, None),
            None => return Err(invalid(&"{longstr,<<\"last\">>}")),
        },
    };
    Ok(Some(start))
}

/// The stream of a topic of one partition.
fn only_stream(topic: &Topic) -> Option<Stream> {
    let partition = topic.partition(0).filter(|_| topic.partition_count() == 1)?;
    Some(partition.stream().clone())
}

fn at_time(stream: Option<&Stream>, ms: i64) -> (Start, Option<i64>) {
    match stream.map(|stream| stream.offset_for_time(ms)) {
        Some(Ok(TimeLookup::Ready(Some((offset, _))))) => (Start::At(offset), None),
        Some(Ok(TimeLookup::Ready(None))) => (Start::Latest, None),
        _ => (Start::Earliest, Some(ms)),
    }
}
