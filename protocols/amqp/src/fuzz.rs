//! Fuzz bodies: the decoders of untrusted bytes. Each function takes any bytes; it must not panic, must not reserve
//! memory that the bytes only claim, and what it accepts must survive another round of encoding and decoding.
//!
//! The targets in the `fuzz` folder call these functions with a fuzzer's bytes, and the tests below with random bytes
//! for a bounded time.

use inver_storage::batch::{BatchBuilder, Record, records};

use crate::codec::content::Properties;
use crate::codec::frame::{self, Next};
use crate::codec::table::{self, Table, Value};
use crate::codec::{
    ContentHeader, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, FRAME_SIZE_MIN, Method, write,
};
use crate::map::{Composer, Publish, Renderer};

/// Bytes of the largest headers table in a delivery.
const TABLE_BYTES_MAX: usize = 4096;

/// Decodes a byte stream before the login: frames, methods, content headers and the tables in them.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(next) = frame::next(rest, FRAME_SIZE_MIN) {
        let Next::Frame(frame, used) = next else {
            if let Next::NeedMore(wanted) = next {
                assert!(wanted <= FRAME_SIZE_MIN as usize + FRAME_OVERHEAD, "{wanted} bytes are waited for");
            }
            return;
        };
        match frame.kind {
            FRAME_METHOD => method(frame.payload),
            FRAME_HEADER => {
                if let Ok(header) = ContentHeader::decode(frame.payload) {
                    properties(header.properties);
                }
            }
            _ => {}
        }
        rest = rest.get(used..).unwrap_or_default();
    }
}

/// Decodes the payload of a method frame, and encodes it again.
pub fn method(payload: &[u8]) {
    let Ok(method) = Method::decode(payload) else { return };
    let mut out = Vec::new();
    write::method(&mut out, 1, &method);
    let again = match frame::next(&out, u32::MAX) {
        Ok(Next::Frame(frame, _)) => Method::decode(frame.payload).ok(),
        _ => None,
    };
    assert_eq!(again.map(|again| format!("{again:?}")), Some(format!("{method:?}")));
}

/// Converts a message's property list to a record and back.
pub fn properties(raw: &[u8]) {
    let publish = Publish { exchange: "e", routing_key: b"k", mandatory: false, properties: raw, body: b"b" };
    let mut composer = Composer::default();
    let Ok(composed) = composer.compose(&publish, 0) else { return };
    if composed.more_keys {
        _ = composed.more_keys();
    }
    walk(composed.table);
    let mut builder = BatchBuilder::new(raw.len());
    let headers = composed.headers;
    builder.push_with(0, composed.key, headers.count as usize, headers.bytes, composed.value);
    rendered(builder);
}

/// Delivers a record from a producer's batch, whose headers are the lines of `bytes`: a name, a tab, a value.
pub fn foreign(bytes: &[u8]) {
    let headers: Vec<(&[u8], Option<&[u8]>)> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| match line.iter().position(|byte| *byte == b'\t') {
            Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..)),
            None => (line, None),
        })
        .collect();
    let mut builder = BatchBuilder::new(bytes.len());
    builder.push(0, None, &headers, Some(b"value"));
    rendered(builder);
}

/// Delivers a stored record and checks that the properties are well formed.
fn rendered(mut builder: BatchBuilder) {
    let batch = builder.finish();
    let Ok(mut all) = records(batch.bytes()) else { return };
    let Some(Ok(record)) = all.next() else { return };
    let record: Record = record;
    let mut renderer = Renderer::default();
    let outgoing = renderer.render(&record, "source", TABLE_BYTES_MAX, 0);
    let parsed = Properties::parse(outgoing.properties);
    assert!(parsed.is_ok(), "{:?} of {record:?}", outgoing.properties);
    if let Some(headers) = parsed.ok().and_then(|properties| properties.headers) {
        assert_eq!(table::validate(headers.raw()), Ok(()));
        walk(headers);
    }
}

/// Visits every field. Nested ones are only counted, because nothing here recurses.
fn walk(table: Table<'_>) {
    for (_, value) in table.iter() {
        match value {
            Value::Array(array) => _ = array.iter().count(),
            Value::Table(inner) => _ = inner.iter().count(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::FRAME_END;

    /// Random bytes in which those with a meaning to a decoder are frequent.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => any::<u8>(),
            1 => Just(0),
            1 => proptest::sample::select(&b"tbBsuIilfdDSATFVx\t\n"[..]),
            1 => 0u8..12,
        ];
        vec(byte, 0..300)
    }

    fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 1];
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        out.push(FRAME_END);
        out
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in noise()) {
            frames(&bytes);
            method(&bytes);
            properties(&bytes);
            foreign(&bytes);
        }

        #[test]
        fn bytes_within_the_frames_of_methods(
            class in proptest::sample::select(&[10u16, 20, 30, 40, 50, 60, 85, 90][..]),
            id in 0u16..125,
            bytes in noise(),
        ) {
            let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
            payload.extend_from_slice(&bytes);
            frames(&framed(FRAME_METHOD, &payload));
        }

        #[test]
        fn bytes_within_the_frames_of_content(flags in any::<u16>(), bytes in noise()) {
            let mut payload = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].to_vec();
            payload.extend_from_slice(&(flags & !1).to_be_bytes());
            payload.extend_from_slice(&bytes);
            frames(&framed(FRAME_HEADER, &payload));
            properties(payload.get(12..).unwrap_or_default());
        }

        #[test]
        fn headers_with_known_names(
            lines in vec((0..NAMES.len(), vec(any::<u8>(), 0..300)), 0..6),
        ) {
            let mut bytes = Vec::new();
            for (name, value) in lines {
                bytes.extend_from_slice(NAMES[name]);
                bytes.push(b'\t');
                bytes.extend(value.into_iter().filter(|byte| *byte != b'\n'));
                bytes.push(b'\n');
            }
            foreign(&bytes);
        }
    }

    #[test]
    fn seeds_and_what_is_near_them() {
        crate::seeds::run("amqp_frames", frames);
        crate::seeds::run("amqp_method", method);
        crate::seeds::run("amqp_properties", properties);
    }

    const NAMES: &[&[u8]] = &[
        b"inver-origin",
        b"mqtt-topic",
        b"inver-key",
        b"inver-null",
        b"death",
        b"expires",
        b"content-type",
        b"correlation-id",
        b"priority",
        b"timestamp",
        b"amqp-properties",
        b"routing-key",
    ];
}
