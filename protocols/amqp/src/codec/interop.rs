//! Field tables against another codec: `amq-protocol-types`, which the Rust client lapin uses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeMap;

use amq_protocol_types::parsing::parse_field_table;
use amq_protocol_types::{AMQPValue, FieldTable, generation::gen_field_table};
use proptest::collection::btree_map;
use proptest::prelude::*;

use super::table::{Table, TableWriter, Value, array_of, validate};

#[derive(Debug, Clone)]
enum Tree {
    Leaf(u8, u32, String),
    Table(BTreeMap<String, Tree>),
    Array(Vec<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (0u8..14, any::<u32>(), "\\PC{0,8}").prop_map(|(k, n, t)| Tree::Leaf(k, n, t));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            btree_map("\\PC{0,8}", inner.clone(), 0..3).prop_map(Tree::Table),
            proptest::collection::vec(inner, 0..3).prop_map(Tree::Array),
        ]
    })
}

fn write(tree: &Tree, put: &mut dyn FnMut(Value<'_>)) {
    match tree {
        Tree::Leaf(kind, n, text) => put(match kind {
            0 => Value::Bool(n % 2 == 0),
            1 => Value::I8(*n as i8),
            2 => Value::U8(*n as u8),
            3 => Value::I16(*n as i16),
            4 => Value::U16(*n as u16),
            5 => Value::I32(*n as i32),
            6 => Value::U32(*n),
            7 => Value::I64((*n).into()),
            8 => Value::F32(*n as f32),
            9 => Value::F64((*n).into()),
            10 => Value::Decimal { scale: *n as u8, value: *n },
            11 => Value::Text(text.as_bytes()),
            12 => Value::Timestamp((*n).into()),
            _ => Value::Void,
        }),
        Tree::Table(fields) => put(Value::Table(Table::of(&table(fields)))),
        Tree::Array(values) => {
            let mut raw = Vec::new();
            let mut writer = TableWriter::new(&mut raw);
            values.iter().for_each(|value| write(value, &mut |value| writer.value(value)));
            put(array_of(&raw));
        }
    }
}

fn table(fields: &BTreeMap<String, Tree>) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut writer = TableWriter::new(&mut raw);
    for (name, value) in fields {
        write(value, &mut |value| _ = writer.field(name.as_bytes(), value));
    }
    raw
}

/// A value in a notation that both codecs' values can be written in.
fn ours(value: Value<'_>) -> String {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => format!("text {bytes:?}"),
        Value::Timestamp(seconds) => format!("time {seconds}"),
        Value::Decimal { scale, value } => format!("decimal {scale} {value}"),
        Value::Table(table) => {
            let mut fields: Vec<String> = table
                .iter()
                .map(|(name, value)| format!("{}: {}", String::from_utf8_lossy(name), ours(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(array) => format!("[{}]", array.iter().map(ours).collect::<Vec<_>>().join(", ")),
        Value::Bool(flag) => flag.to_string(),
        Value::F32(n) => format!("float {n}"),
        Value::F64(n) => format!("double {n}"),
        Value::Void => "void".into(),
        integer => format!("{} {}", integer.type_name(), integer.as_integer().unwrap()),
    }
}

fn theirs(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => format!("text {:?}", text.as_bytes()),
        AMQPValue::ByteArray(bytes) => format!("text {:?}", bytes.as_slice()),
        AMQPValue::ShortString(text) => format!("text {:?}", text.as_str().as_bytes()),
        AMQPValue::Timestamp(seconds) => format!("time {seconds}"),
        AMQPValue::DecimalValue(d) => format!("decimal {} {}", d.scale, d.value),
        AMQPValue::FieldTable(table) => of_table(table),
        AMQPValue::FieldArray(array) => {
            format!("[{}]", array.as_slice().iter().map(theirs).collect::<Vec<_>>().join(", "))
        }
        AMQPValue::Boolean(flag) => flag.to_string(),
        AMQPValue::Float(n) => format!("float {n}"),
        AMQPValue::Double(n) => format!("double {n}"),
        AMQPValue::Void => "void".into(),
        AMQPValue::ShortShortInt(n) => format!("byte {n}"),
        AMQPValue::ShortShortUInt(n) => format!("unsignedbyte {n}"),
        AMQPValue::ShortInt(n) => format!("short {n}"),
        AMQPValue::ShortUInt(n) => format!("unsignedshort {n}"),
        AMQPValue::LongInt(n) => format!("signedint {n}"),
        AMQPValue::LongUInt(n) => format!("unsignedint {n}"),
        AMQPValue::LongLongInt(n) => format!("long {n}"),
    }
}

fn of_table(table: &FieldTable) -> String {
    let mut fields: Vec<String> =
        table.inner().iter().map(|(name, value)| format!("{}: {}", name.as_str(), theirs(value))).collect();
    fields.sort();
    format!("{{{}}}", fields.join(", "))
}

proptest! {
    #[test]
    fn either_codec_reads_what_the_other_wrote(fields in btree_map("\\PC{0,8}", tree(), 0..4)) {
        let raw = table(&fields);
        let mut framed = (raw.len() as u32).to_be_bytes().to_vec();
        framed.extend_from_slice(&raw);
        let (rest, parsed) = parse_field_table(&framed[..]).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(ours(Value::Table(Table::of(&raw))), of_table(&parsed));

        let mut buffer = vec![0u8; framed.len() * 2 + 16];
        let written = gen_field_table(&parsed)(std::io::Cursor::new(&mut buffer[..]).into()).unwrap();
        let (_, length) = written.into_inner();
        let again = &buffer[4..length as usize];
        prop_assert_eq!(validate(again), Ok(()));
        prop_assert_eq!(ours(Value::Table(Table::of(again))), of_table(&parsed));
    }
}
