//! `ExportTraceServiceRequest` of the OpenTelemetry protocol, in the binary form of Protocol Buffers, and the answer to it.
//!
//! The field numbers are those of opentelemetry/proto/trace/v1/trace.proto, common/v1/common.proto and
//! resource/v1/resource.proto; attributes are those of OpenTelemetry's semantic conventions for messaging.

use std::borrow::Cow;

use inver_broker::{About, Act, Span};

/// Kinds of spans: `SPAN_KIND_INTERNAL`, `SPAN_KIND_SERVER`.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// Flags of a span: sampled, and it is known that the parent is in another process.
const FLAGS_LOCAL: u32 = 0x001 | 0x100;
const FLAGS_REMOTE: u32 = FLAGS_LOCAL | 0x200;
/// Bytes of a text; longer ones are cut.
const TEXT_BYTES_MAX: usize = 256;

/// Writes fields of a message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u32, value: &str) {
        self.bytes(
            field,
            value.get(..value.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default().as_bytes(),
        );
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A `KeyValue` with a string.
    fn attribute(&mut self, field: u32, key: &str, value: &str) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any.text(1, value));
        });
    }

    /// A `KeyValue` with an integer.
    fn integer(&mut self, field: u32, key: &str, value: u64) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, |any| any.number(3, value));
        });
    }
}

/// Encodes a request with these spans. `resource` are the attributes of the process.
pub(super) fn request(resource: &[(&str, String)], spans: &[Span]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |process| {
            for (key, value) in resource {
                process.attribute(1, key, value);
            }
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.text(1, "inver");
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            for span in spans {
                of_scope.message(2, |message| write_span(message, span));
            }
        });
    });
    request.0
}

fn write_span(message: &mut Message, span: &Span) {
    // Operation, its type, and whether its parent is a span of the broker.
    let (operation, kind, is_local) = match span.act {
        Act::Publish => ("publish", Some("send"), false),
        Act::Route => ("route", None, true),
        Act::Deliver => ("deliver", Some("receive"), false),
        Act::Settle(operation) => (operation, Some("settle"), true),
    };
    message.bytes(1, &span.context.trace);
    message.bytes(2, &span.context.span);
    if let Some(parent) = &span.parent {
        message.bytes(4, parent);
    }
    let destination = match span.about.destination.as_str() {
        "" => Cow::Borrowed(operation),
        destination => Cow::Owned(format!("{operation} {destination}")),
    };
    message.text(5, &destination);
    message.number(6, if span.act == Act::Route { INTERNAL } else { SERVER });
    message.fixed64(7, span.started_ns);
    message.fixed64(8, span.ended_ns.max(span.started_ns));
    message.attribute(9, "messaging.system", "inver");
    message.attribute(9, "messaging.operation.name", operation);
    if let Some(kind) = kind {
        message.attribute(9, "messaging.operation.type", kind);
    }
    write_about(message, &span.about);
    if let Some(error) = &span.about.error {
        message.message(15, |status| {
            status.text(2, error);
            status.number(3, ERROR);
        });
    }
    message.fixed32(16, if is_local { FLAGS_LOCAL } else { FLAGS_REMOTE });
}

fn write_about(message: &mut Message, about: &About) {
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            message.attribute(9, key, value);
        }
    };
    text("messaging.destination.name", &about.destination);
    text("messaging.rabbitmq.destination.routing_key", about.routing_key.as_deref().unwrap_or_default());
    text("messaging.client.id", &about.client_id);
    text("network.protocol.name", about.protocol);
    text("inver.namespace", &about.namespace);
    if about.error.is_some() {
        text("error.type", "_OTHER");
    }
    if let Some((partition, offset)) = about.position {
        text("messaging.destination.partition.id", &partition.to_string());
        message.integer(9, "messaging.kafka.offset", offset);
    }
    if about.messages > 1 {
        message.integer(9, "messaging.batch.message_count", u64::from(about.messages));
    }
    message.integer(9, "messaging.message.body.size", about.body_bytes as u64);
    if let Some(receivers) = about.receivers {
        message.integer(9, "inver.route.receivers", receivers as u64);
    }
}

/// The number of spans that an `ExportTraceServiceResponse` says were refused.
pub(super) fn refused(response: &[u8]) -> u64 {
    let partial_success =
        field(response, 1).and_then(|(value, rest)| rest.get(..usize::try_from(value).ok()?));
    partial_success.and_then(|message| field(message, 1)).map_or(0, |(value, _)| value)
}

/// The number, or the length, of a field that comes first in a message, and the bytes behind it.
fn field(message: &[u8], number: u8) -> Option<(u64, &[u8])> {
    let (tag, mut rest) = message.split_first()?;
    if tag >> 3 != number {
        return None;
    }
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_spans_are_read_from_the_answer() {
        assert_eq!(refused(&[]), 0);
        assert_eq!(refused(&[0x0a, 0x00]), 0);
        assert_eq!(refused(&[0x0a, 0x03, 0x08, 0xac, 0x02]), 300);
        assert_eq!(refused(&[0x0a, 0x05, 0x08, 0xac]), 0, "cut off");
        assert_eq!(refused(b"{}"), 0, "an answer of another kind");
    }

    #[test]
    fn texts_are_cut_at_characters() {
        let mut message = Message::default();
        message.text(1, &"ä".repeat(200));
        assert_eq!(message.0.len(), 3 + 256);
        let mut message = Message::default();
        message.text(1, &format!("a{}", "ä".repeat(200)));
        assert_eq!(message.0.len(), 3 + 255);
    }
}
