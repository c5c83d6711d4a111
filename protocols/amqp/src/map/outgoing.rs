//! From a record to a delivery.

use inver_broker::address::{Form, rewrite};
use inver_broker::message::{CLAIMED, Death, HeaderView, Property, name};
use inver_broker::{Arguments, Delivery, QueueSpec, Value as CoreValue};
use inver_storage::batch::Record;

use super::deaths;
use super::{BCC, CC, DIRECT_REPLY_TO, ORIGIN, PROPERTY_LIST, core_arguments};
use crate::codec::content::Properties;
use crate::codec::table::{Table, TableWriter, Value};

/// The header with the time of a record in milliseconds, as RabbitMQ's timestamp interceptor writes it.
const TIMESTAMP_IN_MS: &[u8] = b"timestamp_in_ms";

/// A message as `basic.deliver` or `basic.get-ok` and its content carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing<'a> {
    /// The exchange that it was published to.
    pub(crate) exchange: &'a [u8],
    /// The routing key that it was published with.
    pub(crate) routing_key: &'a [u8],
    /// Property flags and property list.
    pub(crate) properties: &'a [u8],
    /// The body.
    pub(crate) body: &'a [u8],
}

/// Renders one record at a time, in reusable buffers.
#[derive(Default)]
pub(crate) struct Renderer {
    properties: Vec<u8>,
    table: Vec<u8>,
    routing_key: Vec<u8>,
    number: itoa::Buffer,
}

/// A record's properties, as far as AMQP has a place for them.
#[derive(Default)]
struct Known<'a> {
    exchange: Option<&'a [u8]>,
    routing_key: Option<&'a [u8]>,
    verbatim: Option<&'a [u8]>,
    properties: Properties<'a>,
    expires_ms: Option<i64>,
    address: Option<&'a [u8]>,
    qos: Option<u8>,
    deaths: Vec<Death<'a>>,
}

impl<'a> Known<'a> {
    /// Takes a property; false if it must (also) become a header: AMQP has no property for it, or the value does not
    /// fit.
    fn take(&mut self, property: Property<'a>) -> bool {
        let properties = &mut self.properties;
        match property {
            Property::Exchange(name) => self.exchange = Some(name),
            Property::RoutingKey(key) => self.routing_key = Some(key),
            Property::Other(PROPERTY_LIST, raw) => self.verbatim = Some(raw),
            Property::DeliveryMode(mode) => properties.delivery_mode = Some(mode),
            Property::Priority(priority) => properties.priority = Some(priority),
            Property::TimestampS(seconds) => properties.timestamp = Some(seconds),
            Property::ContentType(text) => return put_short(&mut properties.content_type, text),
            Property::ContentEncoding(text) => return put_short(&mut properties.content_encoding, text),
            Property::CorrelationId(text) => return put_short(&mut properties.correlation_id, text),
            Property::ReplyTo(text) => return put_short(&mut properties.reply_to, text),
            Property::MessageId(text) => return put_short(&mut properties.message_id, text),
            Property::Type(text) => return put_short(&mut properties.kind, text),
            Property::UserId(text) => return put_short(&mut properties.user_id, text),
            Property::AppId(text) => return put_short(&mut properties.app_id, text),
            Property::ExpiresMs(at) => self.expires_ms = Some(at),
            Property::Death(death) => self.deaths.extend(Death::decode(death)),
            Property::Address(address) => self.address = Some(address),
            // A header as well: the delivery mode does not distinguish QoS 1 from 2.
            Property::Qos(level) => {
                self.qos = Some(level);
                return false;
            }
            Property::ClientId(_) | Property::Other(..) => return false,
            // Consumers do not see `BCC`.
            Property::MoreKeys(_) | Property::Malformed => {}
        }
        true
    }
}

/// Sets a property that is a short string on the wire; false if the value is too long.
fn put_short<'a>(property: &mut Option<&'a [u8]>, value: &'a [u8]) -> bool {
    *property = short(value);
    property.is_some()
}

/// The value, if it fits a short string.
fn short(value: &[u8]) -> Option<&[u8]> {
    (value.len() <= usize::from(u8::MAX)).then_some(value)
}

impl Renderer {
    /// Renders a record. `source` is the routing key of records without one; headers of records from other protocols
    /// are left out once the table would exceed `table_bytes_max`.
    pub(crate) fn render<'a>(
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

    /// Renders a record published over AMQP, byte for byte as it was published.
    fn own<'a>(&'a mut self, headers: HeaderView<'a>, body: &'a [u8]) -> Outgoing<'a> {
        let mut known = Known::default();
        for property in headers.typed_properties() {
            known.take(property);
        }
        let (exchange, routing_key) =
            (known.exchange.unwrap_or_default(), known.routing_key.unwrap_or_default());
        let Renderer { properties, table, .. } = self;
        if known.deaths.is_empty() {
            if let Some(properties) = known.verbatim {
                return Outgoing { exchange, routing_key, properties, body };
            }
            if headers.has_user() {
                known.properties.headers = Some(written(&headers, table));
            }
            properties.clear();
            known.properties.encode(properties);
        } else {
            let mut all = match known.verbatim {
                Some(raw) => Properties::parse(raw).unwrap_or_default(),
                None if headers.has_user() => {
                    Properties { headers: Some(written(&headers, table)), ..known.properties }
                }
                None => known.properties,
            };
            let mut died = Vec::new();
            deaths::write(&known.deaths, all.headers.unwrap_or_default(), &mut died);
            all.headers = Some(Table::of(&died));
            // The death record has the original expiration.
            all.expiration = None;
            properties.clear();
            all.encode(properties);
        }
        Outgoing { exchange, routing_key, properties, body }
    }

    /// Renders a record from another protocol, by the shared properties.
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
            let property = Property::decode(name, value);
            // AMQP validates `user_id`: a client that publishes the message on, unchanged, would claim another's name.
            let is_validated = matches!(property, Property::UserId(_));
            if is_validated || !known.take(property) {
                table.add(name, Some(value.unwrap_or_default()));
            }
        }
        if let Some(key) = &record.key {
            table.add(name::RECORD_KEY.as_bytes(), Some(key));
        }
        if record.value.is_none() {
            table.put(name::NULL_VALUE.as_bytes(), Value::Bool(true));
        }
        let from_batch = known.routing_key.is_none() && known.address.is_none();
        if from_batch {
            known.properties.timestamp = u64::try_from(record.timestamp_ms / 1000).ok();
            table.put(TIMESTAMP_IN_MS, Value::I64(record.timestamp_ms));
        }
        if from_batch {
            known.address = headers.named_address();
        }
        for (name, value) in headers.shown() {
            if is_brokers(&name) || (from_batch && *name == *TIMESTAMP_IN_MS) {
                table.add(&[CLAIMED, &*name].concat(), value);
            } else {
                table.add(&name, value);
            }
        }
        let mut all = known.properties;
        if let Some(qos) = known.qos {
            all.delivery_mode = all.delivery_mode.or(Some(if qos == 0 { 1 } else { 2 }));
        }
        // AMQP writes addresses with dots, so that a consumer can use `reply-to` as a routing key.
        let reply_to = known
            .properties
            .reply_to
            .filter(|_| known.address.is_some() && !from_batch)
            .map(|slashed| rewrite(Form::Slashed, Form::Dotted, slashed));
        if let Some(dotted) = reply_to.as_deref().and_then(short) {
            all.reply_to = Some(dotted);
        }
        // AMQP validates it: only a channel that consumes replies may publish it.
        if let Some(reserved) = all.reply_to.take_if(|to| *to == DIRECT_REPLY_TO.as_bytes()) {
            table.add(name::REPLY_TO, Some(reserved));
        }
        let left_ms = known.expires_ms.map(|at| at.saturating_sub(now_ms).max(0).unsigned_abs());
        all.expiration = left_ms.map(|left| self.number.format(left).as_bytes());
        if !self.table.is_empty() {
            all.headers = Some(Table::of(&self.table));
        }
        let mut died = Vec::new();
        if !known.deaths.is_empty() {
            deaths::write(&known.deaths, all.headers.unwrap_or_default(), &mut died);
            all.headers = Some(Table::of(&died));
        }
        all.encode(&mut self.properties);
        let (exchange, routing_key) = match (known.routing_key, known.address) {
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

/// The user's headers as a table of AMQP.
fn written<'t>(headers: &HeaderView<'_>, table: &'t mut Vec<u8>) -> Table<'t> {
    table.clear();
    let mut writer = TableWriter::new(table);
    for (name, value) in headers.written() {
        writer.field(name, value.map_or(Value::Void, Value::Text));
    }
    Table::of(table)
}

/// The header with the number of earlier deliveries of a message from a quorum queue.
const DELIVERY_COUNT: &[u8] = b"x-delivery-count";

/// The header with the offset of a message from a stream.
const STREAM_OFFSET: &[u8] = b"x-stream-offset";

/// What deliveries tell in a header of the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    Nothing,
    /// From the second one on, how often the message was delivered before.
    Deliveries,
    /// Where the message is in the stream.
    Offset,
}

impl Tells {
    /// What deliveries from a queue tell. Those from a stream tell their offsets, if its reader is a consumer.
    pub(crate) fn of_queue(queue: &QueueSpec) -> Tells {
        if queue.is_quorum() { Tells::Deliveries } else { Tells::Nothing }
    }

    /// The header of a delivery.
    #[inline]
    pub(crate) fn of(self, delivery: &Delivery) -> Option<(&'static [u8], i64)> {
        match self {
            Tells::Nothing => None,
            Tells::Deliveries if delivery.redelivered == 0 => None,
            Tells::Deliveries => Some((DELIVERY_COUNT, delivery.redelivered.into())),
            Tells::Offset => Some((STREAM_OFFSET, i64::try_from(delivery.id.offset).unwrap_or(i64::MAX))),
        }
    }
}

/// Adds the broker's header to properties, in a reusable buffer.
#[derive(Default)]
pub(crate) struct Told {
    properties: Vec<u8>,
    table: Vec<u8>,
}

impl Told {
    /// The properties, with the header in place of what the client wrote under its name.
    pub(crate) fn properties<'a>(
        &'a mut self,
        properties: &'a [u8],
        told: Option<(&'static [u8], i64)>,
    ) -> &'a [u8] {
        let Some((name, value)) = told else { return properties };
        let mut all = Properties::parse(properties).unwrap_or_default();
        self.table.clear();
        let mut writer = TableWriter::new(&mut self.table);
        writer.field(name, Value::I64(value));
        let others = all.headers.unwrap_or_default();
        for (other, value) in others.iter().filter(|(other, _)| *other != name) {
            writer.field(other, value);
        }
        all.headers = Some(Table::of(&self.table));
        self.properties.clear();
        all.encode(&mut self.properties);
        &self.properties
    }
}

/// The headers of a stored message by which headers exchanges route it: those that a consumer is given.
pub(crate) fn routed_headers(headers: &HeaderView<'_>) -> Arguments {
    let (mut verbatim, mut deaths) = (None, Vec::new());
    for property in headers.typed_properties() {
        match property {
            Property::Other(PROPERTY_LIST, raw) => verbatim = Some(raw),
            Property::Death(death) => deaths.extend(Death::decode(death)),
            _ => {}
        }
    }
    let own = verbatim.and_then(|raw| Properties::parse(raw).ok()).and_then(|list| list.headers);
    let mut arguments = own.map(core_arguments).unwrap_or_else(|| {
        let text =
            |value: Option<&[u8]>| value.map_or(CoreValue::Null, |text| CoreValue::Text(text.to_vec()));
        let named = |(name, value): (&[u8], _)| (String::from_utf8_lossy(name).into_owned(), text(value));
        headers.written().map(named).collect()
    });
    let mut died = Vec::new();
    deaths::write(&deaths, Table::default(), &mut died);
    arguments.extend(core_arguments(Table::of(&died)));
    arguments
}

/// Whether a header of this name means something to AMQP's broker: routing keys, which it validates, and what it writes
/// into messages of other protocols.
fn is_brokers(name: &[u8]) -> bool {
    let of_record = [name::RECORD_KEY, name::NULL_VALUE];
    matches!(name, CC | BCC) || of_record.iter().any(|own| own.as_bytes() == name) || deaths::is_own(name)
}

/// A headers table of bounded size.
struct BoundedTable<'a> {
    bytes: &'a mut Vec<u8>,
    bytes_max: usize,
}

impl BoundedTable<'_> {
    /// Adds a header with a value of bytes: a string if it is UTF-8, binary otherwise, void if null.
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
