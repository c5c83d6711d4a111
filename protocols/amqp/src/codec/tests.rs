//! The codec against generated input: everything written is read back, at every split point, and arbitrary bytes never
//! panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::content::{self, flag};
use super::frame::{self, Next};
use super::method::SIGNATURES;
use super::table::{self, DEPTH_MAX, array_of};
use super::wire::{Reader, Writer, cut};
use super::*;

/// An owned value, encoded by `render`.
#[derive(Debug, Clone)]
enum Tree {
    Leaf(u8, u64, Vec<u8>),
    Table(Vec<(Vec<u8>, Tree)>),
    Array(Vec<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0u8..15, any::<u64>(), vec(any::<u8>(), 0..20)).prop_map(|(k, n, b)| Tree::Leaf(k, n, b));
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            vec((vec(any::<u8>(), 0..12), inner.clone()), 0..4).prop_map(Tree::Table),
            vec(inner, 0..4).prop_map(Tree::Array),
        ]
    })
}

fn render(tree: &Tree, use_value: &mut dyn FnMut(Value<'_>)) {
    match tree {
        Tree::Leaf(kind, n, bytes) => use_value(match kind {
            0 => Value::Bool(n & 1 == 1),
            1 => Value::I8(*n as i8),
            2 => Value::U8(*n as u8),
            3 => Value::I16(*n as i16),
            4 => Value::U16(*n as u16),
            5 => Value::I32(*n as i32),
            6 => Value::U32(*n as u32),
            7 => Value::I64(*n as i64),
            8 => Value::F32(*n as f32),
            9 => Value::F64(*n as f64),
            10 => Value::Decimal { scale: *n as u8, value: *n as u32 },
            11 => Value::Text(bytes),
            12 => Value::Binary(bytes),
            13 => Value::Timestamp(*n),
            _ => Value::Void,
        }),
        Tree::Table(fields) => {
            let raw = table_bytes(fields);
            use_value(Value::Table(Table::of(&raw)));
        }
        Tree::Array(values) => {
            let mut raw = Vec::new();
            let mut writer = TableWriter::new(&mut raw);
            values.iter().for_each(|value| render(value, &mut |value| writer.value(value)));
            use_value(array_of(&raw));
        }
    }
}

fn table_bytes(fields: &[(Vec<u8>, Tree)]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut writer = TableWriter::new(&mut raw);
    for (name, value) in fields {
        render(value, &mut |value| {
            writer.field(name, value);
        });
    }
    raw
}

fn fields() -> impl Strategy<Value = Vec<(Vec<u8>, Tree)>> {
    vec((vec(any::<u8>(), 0..12), tree()), 0..5)
}

/// Compares a value with the tree that it was encoded from.
fn same(value: Value<'_>, tree: &Tree) {
    match (value, tree) {
        (Value::Table(table), Tree::Table(fields)) => {
            assert_eq!(table.iter().count(), fields.len());
            for ((name, value), (expected, tree)) in table.iter().zip(fields) {
                assert_eq!(name, &expected[..]);
                same(value, tree);
            }
        }
        (Value::Array(array), Tree::Array(values)) => {
            assert_eq!(array.iter().count(), values.len());
            array.iter().zip(values).for_each(|(value, tree)| same(value, tree));
        }
        (value, tree) => render(tree, &mut |expected| assert_eq!(value, expected)),
    }
}

/// A method payload of the given signature.
fn payload(signature: usize, words: &[u64], texts: &[String], table: &[u8]) -> Vec<u8> {
    let (class, method, kinds) = SIGNATURES[signature];
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.short(class);
    writer.short(method);
    for (i, kind) in kinds.iter().enumerate() {
        let (word, text) = (words[i % words.len()], &texts[i % texts.len()]);
        match *kind {
            "bit" => writer.bit(word & 1 == 1),
            "octet" => writer.octet(word as u8),
            "short" => writer.short(word as u16),
            "long" => writer.long(word as u32),
            "longlong" => writer.longlong(word),
            "shortstr" => writer.shortstr(text),
            "longstr" => writer.longstr(text.as_bytes()),
            _ => writer.table(Table::of(table)),
        }
    }
    out
}

proptest! {
    #[test]
    fn tables_are_read_as_they_were_written(fields in fields()) {
        let raw = table_bytes(&fields);
        prop_assert_eq!(table::validate(&raw), Ok(()));
        same(Value::Table(Table::of(&raw)), &Tree::Table(fields));
    }

    #[test]
    fn a_truncated_table_is_malformed_or_a_valid_prefix(fields in fields()) {
        let raw = table_bytes(&fields);
        for end in 0..raw.len() {
            if table::validate(&raw[..end]).is_ok() {
                // A cut between two fields leaves a valid table.
                prop_assert!(Table::of(&raw[..end]).iter().count() <= fields.len());
            }
        }
    }

    #[test]
    fn methods_are_written_as_they_were_read(
        signature in 0..SIGNATURES.len(),
        words in vec(any::<u64>(), 9),
        texts in vec("\\PC{0,40}", 9),
        fields in fields(),
    ) {
        let payload = payload(signature, &words, &texts, &table_bytes(&fields));
        let method = Method::decode(&payload).unwrap();
        prop_assert_eq!((SIGNATURES[signature].0, SIGNATURES[signature].1), method.id());
        let mut again = Vec::new();
        method.encode(&mut again);
        prop_assert_eq!(&again, &payload);
        for end in 0..payload.len() {
            prop_assert!(Method::decode(&payload[..end]).is_err());
        }
    }

    #[test]
    fn frames_are_found_at_every_split_point(
        frames in vec((1u8..9, any::<u16>(), vec(any::<u8>(), 0..60)), 1..5),
    ) {
        let mut stream = Vec::new();
        for (kind, channel, payload) in &frames {
            stream.push(*kind);
            stream.extend_from_slice(&channel.to_be_bytes());
            stream.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            stream.extend_from_slice(payload);
            stream.push(FRAME_END);
        }
        for split in 0..=stream.len() {
            let (mut found, mut at) = (Vec::new(), 0);
            for end in [split, stream.len()] {
                while let Next::Frame(frame, used) = frame::next(&stream[at..end], 8192).unwrap() {
                    found.push((frame.kind, frame.channel, frame.payload.to_vec()));
                    at += used;
                }
            }
            prop_assert_eq!(at, stream.len());
            prop_assert_eq!(&found, &frames);
        }
    }

    #[test]
    fn need_more_is_never_more_than_a_frame(stream in vec(any::<u8>(), 0..40), frame_max in 8u32..200_000) {
        if let Ok(Next::NeedMore(total)) = frame::next(&stream, frame_max) {
            prop_assert!(total > stream.len());
            prop_assert!(total <= frame_max as usize + FRAME_OVERHEAD);
        }
    }

    #[test]
    fn properties_are_written_as_they_were_read(
        there in any::<u16>(),
        texts in vec(vec(any::<u8>(), 0..30), 10),
        numbers in any::<(u8, u8, u64)>(),
        fields in fields(),
    ) {
        let table = table_bytes(&fields);
        let some = |bit: u16, i: usize| (there & bit != 0).then(|| &texts[i][..]);
        let properties = Properties {
            content_type: some(flag::CONTENT_TYPE, 0),
            content_encoding: some(flag::CONTENT_ENCODING, 1),
            headers: (there & flag::HEADERS != 0).then(|| Table::of(&table)),
            delivery_mode: (there & flag::DELIVERY_MODE != 0).then_some(numbers.0),
            priority: (there & flag::PRIORITY != 0).then_some(numbers.1),
            correlation_id: some(flag::CORRELATION_ID, 2),
            reply_to: some(flag::REPLY_TO, 3),
            expiration: some(flag::EXPIRATION, 4),
            message_id: some(flag::MESSAGE_ID, 5),
            timestamp: (there & flag::TIMESTAMP != 0).then_some(numbers.2),
            kind: some(flag::KIND, 6),
            user_id: some(flag::USER_ID, 7),
            app_id: some(flag::APP_ID, 8),
            cluster_id: some(flag::CLUSTER_ID, 9),
        };
        let mut raw = Vec::new();
        properties.encode(&mut raw);
        prop_assert_eq!(Properties::parse(&raw), Ok(properties));
        for end in 1..raw.len() {
            prop_assert!(Properties::parse(&raw[..end]).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), id in 0..SIGNATURES.len()) {
        let _ = frame::next(&bytes, 8192);
        let _ = Method::decode(&bytes);
        let (class, method, _) = SIGNATURES[id];
        let mut named = [class.to_be_bytes(), method.to_be_bytes()].concat();
        named.extend_from_slice(&bytes);
        let _ = Method::decode(&named);
        let _ = ContentHeader::decode(&bytes);
        let _ = Properties::parse(&bytes);
        let _ = table::validate(&bytes);
        // Iteration over a table that was not validated ends, too.
        for (_, value) in Table::of(&bytes).iter() {
            if let Value::Array(array) = value {
                array.iter().count();
            }
        }
    }
}

fn nested(levels: usize, array: bool) -> Vec<u8> {
    let mut raw = Vec::new();
    for level in 1..levels {
        let inner = std::mem::take(&mut raw);
        let mut writer = TableWriter::new(&mut raw);
        let value = if array { array_of(&inner) } else { Value::Table(Table::of(&inner)) };
        // Only the outermost value of an array has a name.
        if array && level + 1 < levels { writer.value(value) } else { _ = writer.field(b"n", value) }
    }
    raw
}

#[test]
fn nesting_is_bounded_and_does_not_recurse() {
    for array in [false, true] {
        assert_eq!(table::validate(&nested(DEPTH_MAX, array)), Ok(()));
        assert_eq!(table::validate(&nested(DEPTH_MAX + 1, array)), Err(Malformed::TooDeep(DEPTH_MAX)));
        assert_eq!(table::validate(&nested(4_000, array)), Err(Malformed::TooDeep(DEPTH_MAX)));
    }
}

#[test]
fn a_nested_table_cannot_reach_beyond_its_parent() {
    // {"a": F(5 bytes: "b" S with a length of 100)}, followed by plenty of bytes.
    let mut raw = vec![1, b'a', b'F', 0, 0, 0, 7, 1, b'b', b'S', 0, 0, 0, 100];
    raw.extend_from_slice(&[0; 200]);
    assert_eq!(table::validate(&raw), Err(Malformed::Truncated));
}

#[test]
fn an_oversized_frame_is_refused_by_its_header_alone() {
    let header = [FRAME_BODY, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(matches!(frame::next(&header, 131_072), Err(FrameError::TooLarge { channel: 1, .. })));
    let just = [FRAME_BODY, 0, 1, 0, 2, 0, 0];
    assert_eq!(frame::next(&just, 131_072), Ok(Next::NeedMore(131_080)), "the fudge");
    let over = [FRAME_BODY, 0, 1, 0, 2, 0, 1];
    assert!(frame::next(&over, 131_072).is_err());
}

#[test]
fn a_frame_without_the_end_octet_is_refused() {
    assert_eq!(
        frame::next(&[8, 0, 0, 0, 0, 0, 0, 0xCD], 8192),
        Err(FrameError::BadEnd { kind: 8, channel: 0, end: 0xCD })
    );
}

#[test]
fn hand_written_frames_equal_generated_ones() {
    let mut by_hand = Vec::new();
    write::deliver(&mut by_hand, 3, b"ctag", 7, true, b"ex", b"key");
    write::get_ok(&mut by_hand, 4, 8, false, b"ex", b"key", 9);
    write::ack(&mut by_hand, 5, 10, true);
    write::nack(&mut by_hand, 6, 11, false);
    let mut by_table = Vec::new();
    let (exchange, routing_key) = ("ex", "key");
    for (channel, method) in [
        (
            3,
            Method::BasicDeliver {
                consumer_tag: "ctag",
                delivery_tag: 7,
                redelivered: true,
                exchange,
                routing_key,
            },
        ),
        (
            4,
            Method::BasicGetOk {
                delivery_tag: 8,
                redelivered: false,
                exchange,
                routing_key,
                message_count: 9,
            },
        ),
        (5, Method::BasicAck { delivery_tag: 10, multiple: true }),
        (6, Method::BasicNack { delivery_tag: 11, multiple: false, requeue: false }),
    ] {
        write::method(&mut by_table, channel, &method);
    }
    assert_eq!(by_hand, by_table);
}

#[test]
fn a_body_is_split_at_frame_max() {
    let body: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    let mut out = Vec::new();
    write::content(&mut out, 9, 4096, |out| out.extend_from_slice(&content::NO_PROPERTIES), &body);
    let (mut at, mut frames) = (0, Vec::new());
    while let Next::Frame(frame, used) = frame::next(&out[at..], 4096).unwrap() {
        assert!(used <= 4096);
        frames.push(frame);
        at += used;
    }
    assert_eq!(at, out.len());
    let header = ContentHeader::decode(frames[0].payload).unwrap();
    assert_eq!((header.class, header.body_bytes), (CLASS_BASIC, 10_000));
    assert_eq!(frames[1..].iter().flat_map(|frame| frame.payload.to_vec()).collect::<Vec<_>>(), body);
    assert_eq!(frames.len(), 4);
}

#[test]
fn an_empty_body_has_no_frame() {
    let mut out = Vec::new();
    write::content(&mut out, 1, 8192, |out| out.extend_from_slice(&content::NO_PROPERTIES), b"");
    assert!(matches!(frame::next(&out, 8192), Ok(Next::Frame(_, used)) if used == out.len()));
}

#[test]
fn bits_share_octets_and_strings_are_truncated_at_characters() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    (0..9).for_each(|i| writer.bit(i % 2 == 0));
    writer.octet(7);
    writer.bit(true);
    assert_eq!(out, [0b0101_0101, 1, 7, 1]);
    let mut reader = Reader::new(&out);
    assert!((0..9).all(|i| reader.bit().unwrap() == (i % 2 == 0)));
    assert_eq!(reader.octet(), Ok(7));
    assert_eq!(reader.bit(), Ok(true));
    assert_eq!(cut("äää", 3), "ä");
}
