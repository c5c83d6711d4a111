//! The text form of field values, for protocols without tables: strings and binary as they are, numbers in decimal
//! digits, nested tables and arrays as JSON.

use crate::codec::table::Value;

/// The value's text, written to `buffer` if need be; `None` for void, which becomes a null header.
pub(super) fn text_form<'a>(value: Value<'a>, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    buffer.clear();
    match value {
        Value::Void => return None,
        Value::Text(bytes) | Value::Binary(bytes) => return Some(bytes),
        other => json(other, buffer),
    }
    Some(buffer)
}

/// Appends JSON. Recursion is bounded: decoding validated the nesting.
fn json(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Void => out.extend_from_slice(b"null"),
        Value::Bool(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
        Value::F32(number) => float(number.into(), out),
        Value::F64(number) => float(number, out),
        Value::Timestamp(seconds) => out.extend_from_slice(seconds.to_string().as_bytes()),
        Value::Decimal { scale, value } => decimal(scale, value, out),
        Value::Text(bytes) | Value::Binary(bytes) => string(bytes, out),
        Value::Table(table) => {
            out.push(b'{');
            for (i, (name, value)) in table.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(name, out);
                out.push(b':');
                json(value, out);
            }
            out.push(b'}');
        }
        Value::Array(array) => {
            out.push(b'[');
            for (i, value) in array.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json(value, out);
            }
            out.push(b']');
        }
        integer => out.extend_from_slice(integer.as_integer().unwrap_or_default().to_string().as_bytes()),
    }
}

fn float(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        out.extend_from_slice(number.to_string().as_bytes());
    } else {
        string(number.to_string().as_bytes(), out);
    }
}

fn decimal(scale: u8, value: u32, out: &mut Vec<u8>) {
    let digits = format!("{value:0width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    out.extend_from_slice(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

/// Appends a JSON string. Bytes that are not UTF-8 become U+FFFD; their exact form is in the stored property list.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, &*String::from_utf8_lossy(bytes));
    debug_assert!(written.is_ok(), "writing a string to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::table::{Table, TableWriter, array_of};

    fn text(value: Value<'_>) -> String {
        let mut buffer = Vec::new();
        text_form(value, &mut buffer)
            .map_or("<null>".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    #[test]
    fn values_have_a_text_form() {
        assert_eq!(text(Value::Text(b"a\"b")), "a\"b");
        assert_eq!(text(Value::Void), "<null>");
        assert_eq!(text(Value::Bool(true)), "true");
        assert_eq!(text(Value::I64(-5)), "-5");
        assert_eq!(text(Value::F64(1.5)), "1.5");
        assert_eq!(text(Value::F32(f32::NAN)), "\"NaN\"");
        assert_eq!(text(Value::Decimal { scale: 3, value: 12 }), "0.012");
        assert_eq!(text(Value::Decimal { scale: 0, value: 12 }), "12");
        assert_eq!(text(Value::Timestamp(7)), "7");
        let (mut array, mut table) = (Vec::new(), Vec::new());
        let mut writer = TableWriter::new(&mut array);
        writer.value(Value::U8(1));
        writer.value(Value::Text(b"x\"\n\x01"));
        TableWriter::new(&mut table).field(b"k", array_of(&array)).field(b"v", Value::Void);
        assert_eq!(text(Value::Table(Table::of(&table))), r#"{"k":[1,"x\"\n\u0001"],"v":null}"#);
    }
}
