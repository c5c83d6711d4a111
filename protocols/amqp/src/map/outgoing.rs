//! A record on its way to a consumer.

use inver_broker::address::{Form, rewrite};
use inver_broker::message::HeaderView;
use inver_storage::batch::Record;

use super::deaths::{self, Death};
use super::incoming::decimal;
use super::{KEY, NULL, ORIGIN, name};
use crate::codec::content::Properties;
use crate::codec::table::{Table, TableWriter, Value};

/// A message as `basic.deliver`, `basic.get-ok` and their content carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The exchange that it was published to.
    pub exchange: &'a [u8],
    /// The routing key that it was published with.
    pub routing_key: &'a [u8],
    /// Property flags and list.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// Renders records in buffers of its own, one at a time.
#[derive(Debug, Default)]
pub struct Renderer {
    properties: Vec<u8>,
    table: Vec<u8>,
    routing_key: Vec<u8>,
    numbers: [u8; 20],
}

/// What the properties of a record say.
#[derive(Default)]
struct Known<'a> {
    exchange: Option<&'a [u8]>,
    routing_key: Option<&'a [u8]>,
    verbatim: Option<&'a [u8]>,
    properties: Properties<'a>,
    expires_ms: Option<i64>,
    mqtt_topic: Option<&'a [u8]>,
    mqtt_qos: Option<&'a [u8]>,
    deaths: Vec<Death>,
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl<'a> Known<'a> {
    /// Takes one property in; false if it means nothing here.
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        let properties = &mut self.properties;
        match name {
            name::EXCHANGE => self.exchange = Some(value),
            name::ROUTING_KEY => self.routing_key = Some(value),
            name::PROPERTIES => self.verbatim = Some(value),
            name::DELIVERY_MODE => properties.delivery_mode = number(value),
            name::CONTENT_TYPE => properties.content_type = short(value),
            name::CONTENT_ENCODING => properties.content_encoding = short(value),
            name::PRIORITY => properties.priority = number(value),
            name::CORRELATION_ID => properties.correlation_id = short(value),
            name::REPLY_TO => properties.reply_to = short(value),
            name::MESSAGE_ID => properties.message_id = short(value),
            name::TIMESTAMP => properties.timestamp = number(value),
            name::KIND => properties.kind = short(value),
            name::USER_ID => properties.user_id = short(value),
            name::APP_ID => properties.app_id = short(value),
            name::EXPIRES => self.expires_ms = number(value),
            name::DEATH => self.deaths.extend(Death::parse(value)),
            name::MQTT_TOPIC => self.mqtt_topic = Some(value),
            name::MQTT_QOS => self.mqtt_qos = Some(value),
            _ => return false,
        }
        true
    }
}

/// A value that fits a short string; one that does not is left to the headers.
fn short(value: &[u8]) -> Option<&[u8]> {
    (value.len() <= usize::from(u8::MAX)).then_some(value)
}

impl Renderer {
    /// Renders a record. `source` is the address that it was published to, for records that do not say; headers of
    /// foreign records are kept as long as the table has at most `table_bytes_max` bytes.
    pub fn render<'a>(
        &'a mut self,
        record: &'a Record,
        source: &'a str,
        table_bytes_max: usize,
        now_ms: i64,
    ) -> Outgoing<'a> {
        let headers = HeaderView::of(record);
        if headers.origin() == Some(ORIGIN.as_bytes()) {
            self.own(headers, record.value.as_deref().unwrap_or_default())
        } else {
            self.foreign(record, headers, source, table_bytes_max, now_ms)
        }
    }

    /// What came from AMQP: as it was.
    fn own<'a>(&'a mut self, headers: HeaderView<'a>, body: &'a [u8]) -> Outgoing<'a> {
        let mut known = Known::default();
        for (name, value) in headers.properties() {
            known.take(name, value.unwrap_or_default());
        }
        let (exchange, routing_key) =
            (known.exchange.unwrap_or_default(), known.routing_key.unwrap_or_default());
        if let (Some(properties), true) = (known.verbatim, known.deaths.is_empty()) {
            return Outgoing { exchange, routing_key, properties, body };
        }
        self.properties.clear();
        self.table.clear();
        let mut all = match known.verbatim {
            Some(raw) => Properties::parse(raw).unwrap_or_default(),
            None => {
                let mut all = known.properties;
                let user = headers.user();
                if user.left() > 0 {
                    let mut writer = TableWriter::new(&mut self.table);
                    for (name, value) in user {
                        writer.field(name, value.map_or(Value::Void, Value::Text));
                    }
                    all.headers = Some(Table::of(&self.table));
                }
                all
            }
        };
        let mut died = Vec::new();
        if !known.deaths.is_empty() {
            deaths::write(&known.deaths, all.headers.unwrap_or_default(), &mut died);
            all.headers = Some(Table::of(&died));
            // The time to live is over; how long it was is told with the death.
            all.expiration = None;
        }
        all.encode(&mut self.properties);
        Outgoing { exchange, routing_key, properties: &self.properties, body }
    }

    /// What came from elsewhere: by the vocabulary.
    fn foreign<'a>(
        &'a mut self,
        record: &'a Record,
        headers: HeaderView<'a>,
        source: &'a str,
        table_bytes_max: usize,
        now_ms: i64,
    ) -> Outgoing<'a> {
        self.table.clear();
        self.properties.clear();
        let mut table = BoundedTable { bytes: &mut self.table, bytes_max: table_bytes_max };
        let mut known = Known::default();
        for (name, value) in headers.properties() {
            let value = value.unwrap_or_default();
            let fits = value.len() <= usize::from(u8::MAX) || !is_short(name);
            if !known.take(name, value) || !fits || name == name::MQTT_QOS {
                table.add(name, Some(value));
            }
        }
        if let Some(key) = &record.key {
            table.add(KEY.as_bytes(), Some(key));
        }
        if record.value.is_none() {
            table.put(NULL.as_bytes(), Value::Bool(true));
        }
        let from_batch = known.routing_key.is_none() && known.mqtt_topic.is_none();
        if from_batch {
            known.properties.timestamp = u64::try_from(record.timestamp_ms / 1000).ok();
            table.put(b"timestamp_in_ms", Value::I64(record.timestamp_ms));
        }
        for (name, value) in headers.user() {
            if from_batch && name == name::MQTT_TOPIC {
                known.mqtt_topic = known.mqtt_topic.or(value);
            }
            table.add(name, value);
        }
        let mut all = known.properties;
        if let Some(qos) = known.mqtt_qos {
            all.delivery_mode = all.delivery_mode.or(Some(if qos == b"0" { 1 } else { 2 }));
        }
        // Addresses are written with dots here: what it names can be published to as it stands.
        let reply_to = known
            .properties
            .reply_to
            .filter(|_| known.mqtt_topic.is_some() && !from_batch)
            .map(|slashed| rewrite(Form::Slashed, Form::Dotted, slashed));
        if let Some(dotted) = reply_to.as_deref().and_then(short) {
            all.reply_to = Some(dotted);
        }
        let left_ms = known.expires_ms.map(|at| at.saturating_sub(now_ms).max(0).unsigned_abs());
        all.expiration = left_ms.map(|left| decimal(left, &mut self.numbers));
        if !self.table.is_empty() {
            all.headers = Some(Table::of(&self.table));
        }
        let mut died = Vec::new();
        if !known.deaths.is_empty() {
            deaths::write(&known.deaths, all.headers.unwrap_or_default(), &mut died);
            all.headers = Some(Table::of(&died));
        }
        all.encode(&mut self.properties);
        let (exchange, routing_key) = match (known.routing_key, known.mqtt_topic) {
            (Some(key), _) => (known.exchange.unwrap_or_default(), key),
            (None, Some(topic)) => {
                self.routing_key.clear();
                self.routing_key.extend_from_slice(&rewrite(Form::Slashed, Form::Dotted, topic));
                (known.exchange.unwrap_or(inver_broker::HUB.as_bytes()), &self.routing_key[..])
            }
            (None, None) => (known.exchange.unwrap_or_default(), source.as_bytes()),
        };
        Outgoing {
            exchange,
            routing_key,
            properties: &self.properties,
            body: record.value.as_deref().unwrap_or_default(),
        }
    }
}

/// Whether AMQP has a short string for this property.
fn is_short(name: &[u8]) -> bool {
    matches!(
        name,
        name::CONTENT_TYPE
            | name::CONTENT_ENCODING
            | name::CORRELATION_ID
            | name::REPLY_TO
            | name::MESSAGE_ID
            | name::KIND
            | name::USER_ID
            | name::APP_ID
    )
}

/// A headers table that takes no more than fits.
struct BoundedTable<'a> {
    bytes: &'a mut Vec<u8>,
    bytes_max: usize,
}

impl BoundedTable<'_> {
    /// A header whose value is bytes: a string if it is UTF-8, binary if not, void if null.
    fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.put(
            name,
            match value {
                None => Value::Void,
                Some(bytes) if std::str::from_utf8(bytes).is_ok() => Value::Text(bytes),
                Some(bytes) => Value::Binary(bytes),
            },
        );
    }

    fn put(&mut self, name: &[u8], value: Value<'_>) {
        let value_bytes = match value {
            Value::Text(bytes) | Value::Binary(bytes) => bytes.len() + 4,
            _ => 8,
        };
        if self.bytes.len() + name.len() + 2 + value_bytes <= self.bytes_max {
            TableWriter::new(self.bytes).field(name, value);
        }
    }
}
