//! From a publish to the headers of a record.

use inver_broker::message::{Property, more_keys, name};
use inver_broker::{HeaderLookup, HeaderWriter, Headers, Value as CoreValue};

use super::text::text_form;
use super::{BCC, CC, ORIGIN, PROPERTY_LIST, core_value};
use crate::codec::content::Properties;
use crate::codec::table::{Table, TableWriter, Value};
use crate::error::Refusal;

/// A publish with its content, borrowed from the channel's buffers and the last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    /// The exchange; empty for the default exchange.
    pub(crate) exchange: &'a str,
    /// The routing key.
    pub(crate) routing_key: &'a [u8],
    /// Whether the message is returned if it matches no binding.
    pub(crate) mandatory: bool,
    /// Property flags and property list, as received.
    pub(crate) properties: &'a [u8],
    /// The body.
    pub(crate) body: &'a [u8],
}

/// Composes the headers of one record at a time, in reusable buffers.
#[derive(Debug, Default)]
pub(crate) struct Composer {
    headers: HeaderWriter,
    text: Vec<u8>,
    stripped: Vec<u8>,
}

/// A publish as the parts of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Composed<'a> {
    /// The record's headers.
    pub(crate) headers: Headers<'a>,
    /// The record's key, if a header sets one.
    pub(crate) key: Option<&'a [u8]>,
    /// The body; none for a null value.
    pub(crate) value: Option<&'a [u8]>,
    /// Whether the delivery mode is 2 (persistent).
    pub(crate) persistent: bool,
    /// The user's headers, for exchanges that route by them.
    pub(crate) table: Table<'a>,
    /// The user that the publish says it is of.
    pub(crate) user_id: Option<&'a [u8]>,
    /// Whether the headers contain further routing keys.
    pub(crate) more_keys: bool,
}

impl Composer {
    /// Parses a publish's properties and composes the record's headers.
    pub(crate) fn compose<'a>(
        &'a mut self,
        publish: &Publish<'a>,
        now_ms: i64,
    ) -> Result<Composed<'a>, Refusal> {
        let mut raw = publish.properties;
        let mut properties = Properties::parse(raw)?;
        let expires_ms = match properties.expiration {
            None => None,
            Some(text) => Some(now_ms.saturating_add(expiration(text)?)),
        };
        let mut composed = Composed {
            headers: Headers::default(),
            key: None,
            value: Some(publish.body),
            persistent: properties.delivery_mode == Some(2),
            table: properties.headers.unwrap_or_default(),
            more_keys: false,
            user_id: properties.user_id,
        };
        let mut exact = properties.expiration.is_none() && properties.cluster_id.is_none();
        if let Some(table) = properties.headers {
            exact &= !table.is_empty();
            let mut bcc = false;
            for (name, value) in table.iter() {
                exact &= matches!(value, Value::Text(_));
                match (name, value) {
                    (CC | BCC, Value::Array(_)) => {
                        composed.more_keys = true;
                        bcc |= name == BCC;
                    }
                    (CC | BCC, other) => return Err(bad_routing_header(name, other)),
                    _ if name == name::RECORD_KEY.as_bytes() => match value {
                        Value::Text(key) | Value::Binary(key) => composed.key = composed.key.or(Some(key)),
                        _ => {}
                    },
                    (_, Value::Bool(true))
                        if name == name::NULL_VALUE.as_bytes() && publish.body.is_empty() =>
                    {
                        composed.value = None;
                    }
                    _ => {}
                }
            }
            if bcc {
                let mut rest = Vec::new();
                let mut writer = TableWriter::new(&mut rest);
                for (name, value) in table.iter().filter(|(name, _)| *name != BCC) {
                    writer.field(name, value);
                }
                self.stripped.clear();
                Properties { headers: Some(Table::of(&rest)), ..properties }.encode(&mut self.stripped);
                raw = &self.stripped;
                properties = Properties::parse(raw)?;
            }
        }
        self.headers.begin(ORIGIN, expires_ms);
        let more_keys = composed.more_keys.then(|| more_keys(&composed.more_keys()));
        write(&mut self.headers, publish, more_keys.as_deref(), &properties, (!exact).then_some(raw));
        if let Some(table) = properties.headers {
            for (name, value) in table.iter() {
                self.headers.user(name, text_form(value, &mut self.text));
            }
        }
        composed.headers = self.headers.headers();
        Ok(composed)
    }
}

fn write(
    headers: &mut HeaderWriter,
    publish: &Publish<'_>,
    more_keys: Option<&[u8]>,
    properties: &Properties<'_>,
    verbatim: Option<&[u8]>,
) {
    if !publish.exchange.is_empty() {
        headers.put(Property::Exchange(publish.exchange.as_bytes()));
    }
    headers.put(Property::RoutingKey(publish.routing_key));
    // A dead letter goes by all of them.
    if let Some(keys) = more_keys {
        headers.put(Property::MoreKeys(keys));
    }
    if let Some(raw) = verbatim {
        headers.put(Property::Other(PROPERTY_LIST, raw));
    }
    let mut put = |property: Option<Property<'_>>| {
        if let Some(property) = property {
            headers.put(property);
        }
    };
    put(properties.delivery_mode.map(Property::DeliveryMode));
    put(properties.content_type.map(Property::ContentType));
    put(properties.content_encoding.map(Property::ContentEncoding));
    put(properties.correlation_id.map(Property::CorrelationId));
    put(properties.reply_to.map(Property::ReplyTo));
    put(properties.message_id.map(Property::MessageId));
    put(properties.kind.map(Property::Type));
    put(properties.user_id.map(Property::UserId));
    put(properties.app_id.map(Property::AppId));
    put(properties.priority.map(Property::Priority));
    put(properties.timestamp.map(Property::TimestampS));
}

/// Parses the `expiration` property: a time to live in milliseconds.
fn expiration(text: &[u8]) -> Result<i64, Refusal> {
    let invalid = |why: &dyn std::fmt::Display| {
        Refusal::precondition_failed(format_args!(
            "invalid expiration '{}': {why}",
            String::from_utf8_lossy(text)
        ))
    };
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        all => (1, all),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, leftover) = digits.split_at(end);
    if digits.is_empty() {
        return Err(invalid(&"no_integer"));
    }
    if !leftover.is_empty() {
        return Err(invalid(&format_args!("{{leftover_string,\"{}\"}}", String::from_utf8_lossy(leftover))));
    }
    // The text is all digits, so parsing fails on overflow only: a message that never expires.
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(i64::MAX);
    if sign < 0 && number > 0 {
        return Err(invalid(&format_args!("{{value_negative,-{number}}}")));
    }
    Ok(number)
}

fn bad_routing_header(name: &[u8], value: Value<'_>) -> Refusal {
    Refusal::precondition_failed(format_args!(
        "invalid message: {{unacceptable_type_in_header,\"{}\",{}}}",
        String::from_utf8_lossy(name),
        value.type_name()
    ))
}

impl<'a> Composed<'a> {
    /// The routing keys in the headers `CC` and `BCC`.
    pub(crate) fn more_keys(&self) -> Vec<&'a [u8]> {
        keys_in(self.table)
    }
}

/// The further routing keys in the headers of a property list.
pub(crate) fn more_keys_of(properties: &[u8]) -> Vec<&[u8]> {
    keys_in(Properties::parse(properties).ok().and_then(|all| all.headers).unwrap_or_default())
}

fn keys_in(table: Table<'_>) -> Vec<&[u8]> {
    let lists = table.iter().filter(|(name, _)| matches!(*name, CC | BCC));
    lists
        .filter_map(|(_, value)| if let Value::Array(array) = value { Some(array) } else { None })
        .flat_map(|array| array.iter())
        .filter_map(|value| if let Value::Text(key) = value { Some(key) } else { None })
        .collect()
}

impl HeaderLookup for Table<'_> {
    fn get(&self, name: &str) -> Option<CoreValue> {
        Table::get(self, name).map(core_value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_parsed_as_rabbitmq_does() {
        assert_eq!(expiration(b"1000"), Ok(1000));
        assert_eq!(expiration(b"0"), Ok(0));
        let text = |bytes: &[u8]| expiration(bytes).unwrap_err().text;
        assert_eq!(text(b"abc"), "PRECONDITION_FAILED - invalid expiration 'abc': no_integer");
        assert_eq!(text(b"1s"), "PRECONDITION_FAILED - invalid expiration '1s': {leftover_string,\"s\"}");
        assert_eq!(text(b"-1"), "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}");
        assert_eq!(text(b""), "PRECONDITION_FAILED - invalid expiration '': no_integer");
        assert_eq!(expiration(&[b'9'; 30]), Ok(i64::MAX));
    }
}
