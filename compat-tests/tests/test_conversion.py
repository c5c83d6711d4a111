"""docs/conversion.md, cell by cell: published by a real client of one protocol, read by clients of the other two.

A row of the page is named here by its section and its first cell, a cell by its row and the reader's protocol. The
last test fails where page and tests do not name the same cells.
"""

import dataclasses
import datetime
import decimal
import json
import re
import struct
import time

import pika
import pika.data
import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from clients import (amqp, amqp_get, kafka_create, kafka_producer, kafka_read, kafka_read_all, kafka_send, mqtt,
                     publish_properties)
from harness import ROOT, Broker, wait_until

HOUR_S = 3600
LEEWAY_S = 120
# Of the record that says so itself; the tests may run long after they are collected.
EXPIRES_MS = int((time.time() + 10 * HOUR_S) * 1000)
BINARY = bytes(range(256))
PAGE = ROOT / "docs" / "conversion.md"


# ---- messages as their consumers see them


class Table(dict):
    """A headers table that also keeps the fields as received: in order, with duplicates."""

    def __init__(self):
        super().__init__()
        self.pairs = []


def decode_table(encoded, offset):
    """Pika's decoder, keeping what it drops: see `Table`."""
    table = Table()
    end = offset + 4 + struct.unpack_from(">I", encoded, offset)[0]
    offset += 4
    while offset < end:
        name, offset = pika.data.decode_short_string(encoded, offset)
        value, offset = pika.data.decode_value(encoded, offset)
        table[name] = value
        table.pairs.append((name, value))
    return table, offset


def encode_value(pieces, value, encode=pika.data.encode_value):
    """Pika's encoder with floats, which pika only decodes."""
    if isinstance(value, float):
        pieces.append(struct.pack(">cd", b"d", value))
        return 9
    return encode(pieces, value)


@dataclasses.dataclass
class InAmqp:
    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes

    @property
    def headers(self):
        return self.properties.headers or Table()

    @property
    def pairs(self):
        return getattr(self.headers, "pairs", [])


@dataclasses.dataclass
class InKafka:
    record: object

    @property
    def pairs(self):
        return self.record.headers() or []

    def header(self, name):
        """The single header of that name."""
        values = [value for header, value in self.pairs if header == name]
        assert len(values) == 1, f"{name} appears {len(values)} times in {self.pairs}"
        return values[0]

    def lacks(self, name):
        return all(header != name for header, _ in self.pairs)


@dataclasses.dataclass
class InMqtt:
    message: object

    @property
    def properties(self):
        return self.message.properties

    @property
    def pairs(self):
        return getattr(self.properties, "UserProperty", [])


# ---- the cells


@dataclasses.dataclass
class Cell:
    section: str
    row: str
    reader: str
    number: int
    check: object


class Section:
    """The rows of a section of the page: each publishes messages and says what consumers must find."""

    def __init__(self, title):
        self.title = title
        self.messages = []
        self.cells = []

    def row(self, name, message, **checks):
        number = len(self.messages)
        self.messages.append(message)
        self.cells += [Cell(self.title, name, reader, number, check) for reader, check in checks.items()]


def near(value, wanted, leeway):
    return wanted - leeway <= value <= wanted + leeway


def expires_in_an_hour(milliseconds):
    return near(int(milliseconds) / 1000, time.time() + HOUR_S, LEEWAY_S)


def left_of_an_hour(seconds):
    return HOUR_S - LEEWAY_S <= seconds <= HOUR_S


from_mqtt = Section("From MQTT")
m = from_mqtt.row
m("topic name", {"topic": "m/a.b/c"},
  kafka=lambda it: it.record.key() == b"m/a.b/c" and it.header("mqtt-topic") == b"m/a.b/c",
  amqp=lambda it: (it.exchange, it.routing_key) == ("amq.topic", "m.a%2Eb.c"))
m("payload", {"payload": BINARY}, kafka=lambda it: it.record.value() == BINARY, amqp=lambda it: it.body == BINARY)
for qos in (0, 1, 2):
    m("QoS 0 / 1 / 2", {"qos": qos},
      kafka=lambda it, qos=qos: it.lacks("mqtt-qos") if qos == 0 else it.header("mqtt-qos") == str(qos).encode(),
      amqp=lambda it, qos=qos: it.properties.delivery_mode != 2 and "mqtt-qos" not in it.headers if qos == 0
      else it.properties.delivery_mode == 2 and it.headers["mqtt-qos"] == str(qos))
m("retain flag", {"retain": True}, kafka=lambda it: it.header("mqtt-retain") == b"1",
  amqp=lambda it: it.headers["mqtt-retain"] == "1")
m("retain flag", {}, kafka=lambda it: it.lacks("mqtt-retain"), amqp=lambda it: "mqtt-retain" not in it.headers)
m("client id, user", {},
  kafka=lambda it: it.header("client-id") == b"converter" and it.header("user-id") == b"guest",
  amqp=lambda it: it.headers["client-id"] == "converter" and it.headers["user-id"] == "guest"
  and it.properties.user_id is None)
m("payload format indicator", {"PayloadFormatIndicator": 1},
  kafka=lambda it: it.header("mqtt-payload-format") == b"1", amqp=lambda it: it.headers["mqtt-payload-format"] == "1")
m("message expiry interval", {"MessageExpiryInterval": HOUR_S},
  kafka=lambda it: expires_in_an_hour(it.header("expires")),
  amqp=lambda it: left_of_an_hour(int(it.properties.expiration) / 1000))
m("content type", {"ContentType": "text/plain; charset=utf-8"},
  kafka=lambda it: it.header("content-type") == b"text/plain; charset=utf-8",
  amqp=lambda it: it.properties.content_type == "text/plain; charset=utf-8")
m("response topic", {"ResponseTopic": "replies/to.me"}, kafka=lambda it: it.header("reply-to") == b"replies/to.me",
  amqp=lambda it: it.properties.reply_to == "replies.to%2Eme")
m("correlation data", {"CorrelationData": BINARY[:255]}, kafka=lambda it: it.header("correlation-id") == BINARY[:255],
  amqp=lambda it: it.properties.correlation_id == BINARY[:255])
m("correlation data", {"CorrelationData": BINARY + BINARY},
  kafka=lambda it: it.header("correlation-id") == BINARY + BINARY,
  amqp=lambda it: it.properties.correlation_id is None and it.headers["correlation-id"] == BINARY + BINARY)
IN_ORDER = [("b", "1"), ("a", "2"), ("b", "3"), ("ü", "水"), ("", "")]
m("user properties", {"UserProperty": IN_ORDER},
  kafka=lambda it: it.pairs[-5:] == [(name, value.encode()) for name, value in IN_ORDER],
  amqp=lambda it: it.pairs[-5:] == IN_ORDER)
m("time of the publish", {}, kafka=lambda it: near(it.record.timestamp()[1] / 1000, time.time(), LEEWAY_S))
# An AMQP consumer of the capture topic: only there the record has the key.
m("record key set by a capture", {"topic": "m/key"}, kafka=lambda it: it.record.key() == b"m/key",
  captured=lambda it: it.headers["inver-key"] == "m/key")

from_amqp = Section("From AMQP")
a = from_amqp.row
a("exchange, routing key", {"routing_key": "q.a%2Eb.c"},
  kafka=lambda it: it.header("exchange") == b"amq.topic" and it.header("routing-key") == b"q.a%2Eb.c",
  mqtt=lambda it: it.message.topic == "q/a.b/c")
a("body", {"body": BINARY}, kafka=lambda it: it.record.value() == BINARY, mqtt=lambda it: it.message.payload == BINARY)
a("delivery mode 2", {"delivery_mode": 2}, kafka=lambda it: it.header("delivery-mode") == b"2",
  mqtt=lambda it: it.message.qos == 1)
a("delivery mode 2", {}, kafka=lambda it: it.lacks("delivery-mode"), mqtt=lambda it: it.message.qos == 0)
a("expiration", {"expiration": str(HOUR_S * 1000)}, kafka=lambda it: expires_in_an_hour(it.header("expires")),
  mqtt=lambda it: left_of_an_hour(it.properties.MessageExpiryInterval))
a("content-type, correlation-id", {"content_type": "a/b", "correlation_id": "c-1"},
  kafka=lambda it: (it.header("content-type"), it.header("correlation-id")) == (b"a/b", b"c-1"),
  mqtt=lambda it: (it.properties.ContentType, it.properties.CorrelationData) == ("a/b", b"c-1"))
a("reply-to", {"reply_to": "replies.to%2Eme"}, kafka=lambda it: it.header("reply-to") == b"replies.to%2Eme",
  mqtt=lambda it: it.properties.ResponseTopic == "replies/to.me")
OTHERS = {"content-encoding": "gzip", "message-id": "m-1", "type": "order", "app-id": "shop", "user-id": "guest",
          "priority": "7", "timestamp": "1700000000"}
a("content-encoding, message-id, type, app-id, user-id, priority, timestamp",
  {"content_encoding": "gzip", "message_id": "m-1", "type": "order", "app_id": "shop", "user_id": "guest",
   "priority": 7, "timestamp": 1_700_000_000},
  kafka=lambda it: all(it.header(name) == value.encode() for name, value in OTHERS.items()),
  mqtt=lambda it: all(it.pairs.count(pair) == 1 for pair in OTHERS.items()))
a("headers table: strings", {"headers": {"b": "1", "a": "ü水"}},
  kafka=lambda it: it.pairs[-2:] == [("b", b"1"), ("a", "ü水".encode())],
  mqtt=lambda it: it.pairs[-2:] == [("b", "1"), ("a", "ü水")])
NUMBERS = {"int": -7, "long": 1 << 40, "float": 1.5, "bool": True, "no": False, "decimal": decimal.Decimal("1.23"),
           "when": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)}
TEXTS = [("int", "-7"), ("long", "1099511627776"), ("float", "1.5"), ("bool", "true"), ("no", "false"),
         ("decimal", "1.23"), ("when", "1704067200")]
a("– integers, floats, booleans, decimals, timestamps", {"headers": NUMBERS},
  kafka=lambda it: it.pairs[-7:] == [(name, text.encode()) for name, text in TEXTS],
  mqtt=lambda it: it.pairs[-7:] == TEXTS)
a("– byte arrays", {"headers": {"text": b"abc", "binary": BINARY}},
  kafka=lambda it: it.pairs[-2:] == [("text", b"abc"), ("binary", BINARY)],
  mqtt=lambda it: it.pairs[-1] == ("text", "abc"))
a("– void", {"headers": {"nothing": None}}, kafka=lambda it: it.pairs[-1] == ("nothing", None),
  mqtt=lambda it: it.pairs[-1] == ("nothing", ""))
NESTED = {"table": {"x": {"y": [1, "two", None, True]}}, "list": [1, [2, {"three": 3}]]}
a("– nested tables and arrays", {"headers": NESTED},
  kafka=lambda it: {name: json.loads(value) for name, value in it.pairs[-2:]} == NESTED,
  mqtt=lambda it: {name: json.loads(value) for name, value in it.pairs[-2:]} == NESTED)
a("the property list as on the wire, if the rows above would lose types", {"headers": {"n": 1}},
  kafka=lambda it: b"\x01n" in it.header("amqp-properties"))
a("the property list as on the wire, if the rows above would lose types", {"headers": {"n": "1"}},
  kafka=lambda it: it.lacks("amqp-properties"))
a("header `inver-key` (sets the record's key)", {"headers": {"inver-key": "order-7"}},
  kafka=lambda it: it.record.key() == b"order-7")
a("header `inver-key` (sets the record's key)", {"headers": {"inver-key": BINARY}},
  kafka=lambda it: it.record.key() == BINARY)
a("header `inver-null` with an empty body", {"headers": {"inver-null": True}, "body": b""},
  kafka=lambda it: it.record.value() is None, mqtt=lambda it: it.message.payload == b"")

from_kafka = Section("From Kafka")
k = from_kafka.row
k("topic name", {}, amqp=lambda it: it.routing_key == "k.a%2Eb.c", mqtt=lambda it: it.message.topic == "k/a.b/c")
k("header `mqtt-topic`", {"headers": [("mqtt-topic", b"k/device.7/set")]},
  amqp=lambda it: it.routing_key == "k.device%2E7.set",
  mqtt=lambda it: it.message.topic == "k/device.7/set" and all(name != "mqtt-topic" for name, _ in it.pairs))
k("header `mqtt-qos`: `0`, `1` or `2`", {"headers": [("mqtt-qos", b"0")]},
  amqp=lambda it: it.headers["claimed-mqtt-qos"] == "0", mqtt=lambda it: it.message.qos == 0 and it.pairs == [])
k("header `mqtt-retain`: `1` or `true`", {"headers": [("mqtt-retain", b"true")]},
  amqp=lambda it: it.headers["claimed-mqtt-retain"] == "true", mqtt=lambda it: it.message.retain and it.pairs == [])
k("header `mqtt-payload-format`: `0` or `1`", {"headers": [("mqtt-payload-format", b"1")]},
  amqp=lambda it: it.headers["claimed-mqtt-payload-format"] == "1",
  mqtt=lambda it: it.properties.PayloadFormatIndicator == 1 and it.pairs == [])
k("header `content-type`", {"headers": [("content-type", b"text/plain")]},
  amqp=lambda it: it.headers["content-type"] == "text/plain",
  mqtt=lambda it: it.properties.ContentType == "text/plain" and it.pairs == [])
k("header `reply-to` (slashed)", {"headers": [("reply-to", b"k/answers")]},
  amqp=lambda it: it.headers["reply-to"] == "k/answers",
  mqtt=lambda it: it.properties.ResponseTopic == "k/answers" and it.pairs == [])
k("header `correlation-id`, bytes", {"headers": [("correlation-id", BINARY)]},
  amqp=lambda it: it.headers["correlation-id"] == BINARY,
  mqtt=lambda it: it.properties.CorrelationData == BINARY and it.pairs == [])
k("header `expires`: milliseconds since 1970", {"headers": [("expires", str(EXPIRES_MS).encode())]},
  amqp=lambda it: int(it.headers["expires"]) == EXPIRES_MS,
  mqtt=lambda it: near(it.properties.MessageExpiryInterval, EXPIRES_MS / 1000 - time.time(), LEEWAY_S) and it.pairs == [])
k("value", {"value": BINARY}, amqp=lambda it: it.body == BINARY, mqtt=lambda it: it.message.payload == BINARY)
k("null value (a tombstone)", {"value": None, "key": b"k"},
  amqp=lambda it: it.body == b"" and it.headers["inver-null"] is True, mqtt=lambda it: it.message.payload == b"")
k("key", {"key": b"order-7"}, amqp=lambda it: it.headers["inver-key"] == "order-7",
  mqtt=lambda it: ("inver-key", "order-7") in it.pairs)
k("key", {"key": BINARY}, amqp=lambda it: it.headers["inver-key"] == BINARY,
  mqtt=lambda it: all(name != "inver-key" for name, _ in it.pairs))
k("headers, UTF-8", {"headers": [(name, value.encode()) for name, value in IN_ORDER]},
  amqp=lambda it: [pair for pair in it.pairs if pair in IN_ORDER] == IN_ORDER,
  mqtt=lambda it: [pair for pair in it.pairs if pair in IN_ORDER] == IN_ORDER)
k("headers, other bytes", {"headers": [("binary", BINARY), ("after", b"x")]},
  amqp=lambda it: it.headers["binary"] == BINARY and it.headers["after"] == "x",
  mqtt=lambda it: it.pairs == [("after", "x")])
k("headers, null value", {"headers": [("nothing", None)]}, amqp=lambda it: ("nothing", None) in it.pairs,
  mqtt=lambda it: it.pairs == [("nothing", "")])
WHEN_MS = 1_700_000_000_123
k("timestamp", {"timestamp": WHEN_MS},
  amqp=lambda it: it.properties.timestamp == WHEN_MS // 1000 and it.headers["timestamp_in_ms"] == WHEN_MS)
k("none of these", {}, amqp=lambda it: it.properties.delivery_mode is None, mqtt=lambda it: it.message.qos == 1)

SECTIONS = (from_mqtt, from_amqp, from_kafka)


# ---- publish everything once and collect what each consumer received


@pytest.fixture(scope="module")
def got(tmp_path_factory):
    """What each consumer received, by section, in the order of the messages."""
    module = pytest.MonkeyPatch()
    module.setattr(pika.data, "decode_table", decode_table)
    module.setattr(pika.data, "encode_value", encode_value)
    broker = Broker(tmp_path_factory.mktemp("conversion")).start()
    try:
        yield {"From MQTT": publish_by_mqtt(broker), "From AMQP": publish_by_amqp(broker),
               "From Kafka": publish_by_kafka(broker)}
        broker.check()
    finally:
        broker.end()
        module.undo()


def drained(channel, queue, count):
    taken = [amqp_get(channel, queue) for _ in range(count)]
    return [InAmqp(method.exchange, method.routing_key, properties, body) for method, properties, body in taken]


def publish_by_mqtt(broker):
    count = len(from_mqtt.messages)
    with amqp(broker) as channel, mqtt(broker, client_id="converter", user=("guest", "guest")) as client:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", "m.#")
        for number, message in enumerate(from_mqtt.messages):
            values = {name: value for name, value in message.items() if name[0].isupper()}
            client.publish(message.get("topic", f"m/{number}"), message.get("payload", b"x"), message.get("qos", 1),
                           message.get("retain", False), publish_properties(**values))
        topics = [message.get("topic", f"m/{number}") for number, message in enumerate(from_mqtt.messages)]
        records = {record.key().decode(): InKafka(record) for record in kafka_read_all(broker, "mqtt")}
        wait_until(lambda: set(topics) <= set(records) or records.update(
            {record.key().decode(): InKafka(record) for record in kafka_read_all(broker, "mqtt")}), what="capture")
        captured = {}
        channel.basic_consume("mqtt", lambda _c, method, properties, body: captured.update(
            {properties.headers["inver-key"]: InAmqp(method.exchange, method.routing_key, properties, body)}),
            arguments={"x-subscription": "converted"}, auto_ack=True)
        wait_until(lambda: channel.connection.process_data_events(0.05) or len(captured) == count, what="consuming")
        return {"amqp": drained(channel, queue, count), "kafka": [records[topic] for topic in topics],
                "captured": [captured[topic] for topic in topics]}


def publish_by_amqp(broker):
    count = len(from_amqp.messages)
    with amqp(broker) as channel, mqtt(broker) as client:
        channel.queue_declare("from-amqp", durable=True)
        channel.queue_bind("from-amqp", "amq.topic", "q.#")
        client.subscribe("q/#", 2)
        for number, message in enumerate(from_amqp.messages):
            values = {name: value for name, value in message.items() if name not in ("routing_key", "body")}
            channel.basic_publish("amq.topic", message.get("routing_key", f"q.{number}"), message.get("body", b"x"),
                                  pika.BasicProperties(**values), mandatory=True)
        # Persistent and transient messages arrive on two paths, each in order, so they are separated by topic.
        messages = {}
        for _ in range(count):
            message = client.get()
            messages[message.topic] = InMqtt(message)
        topics = [message.get("routing_key", f"q.{number}") for number, message in enumerate(from_amqp.messages)]
        slashed = ["q/a.b/c" if topic == "q.a%2Eb.c" else topic.replace(".", "/") for topic in topics]
        return {"kafka": [InKafka(record) for record in kafka_read(broker, "from-amqp", count)],
                "mqtt": [messages[topic] for topic in slashed]}


def publish_by_kafka(broker):
    count, topic = len(from_kafka.messages), "k.a%2Eb.c"
    kafka_create(broker, topic, **{"inver.hub": "open"})
    with amqp(broker) as channel, mqtt(broker) as client:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", "k.#")
        client.subscribe("k/#", options=SubscribeOptions(qos=2, retainAsPublished=True))
        producer = kafka_producer(broker)
        for message in from_kafka.messages:
            producer.produce(topic, **{"value": b"x", **message})
        assert producer.flush(15) == 0
        return {"amqp": drained(channel, queue, count), "mqtt": [InMqtt(client.get()) for _ in range(count)]}


# ---- the tests


def label(cell):
    return f"{cell.section}: {cell.row} ({cell.number}) read by {cell.reader}"


CELLS = [cell for section in SECTIONS for cell in section.cells]


@pytest.mark.parametrize("cell", CELLS, ids=map(label, CELLS))
def test_a_cell_of_the_page(got, cell):
    it = got[cell.section][cell.reader][cell.number]
    shown = {"kafka": lambda: (it.record.key(), it.pairs), "mqtt": lambda: (it.message.topic, it.properties)}.get(
        cell.reader, lambda: (it.routing_key, it.properties, it.pairs))
    assert cell.check(it), f"{label(cell)}: {shown()}"


def rows_of(section):
    """First cell → the consumers for which the page's table has an entry."""
    text = PAGE.read_text().split(f"## {section}\n", 1)[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = lambda line: [cell.strip() for cell in line.strip("|").split("|")]
    readers = ["kafka" if "Kafka" in head else "amqp" if "AMQP" in head else "mqtt" for head in cells(lines[0])[1:]]
    return {cells(line)[0]: {reader for reader, cell in zip(readers, cells(line)[1:]) if cell != "–"}
            for line in lines[2:]}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_page_and_tests_name_the_same_cells(section):
    tested = {}
    for cell in section.cells:
        tested.setdefault(cell.row, set()).add({"captured": "amqp"}.get(cell.reader, cell.reader))
    assert rows_of(section.title) == tested


def test_the_table_of_addresses(broker, unique):
    """MQTT `a.b/c`, AMQP and Kafka `a%2Eb.c`: each written by its own protocol, read by the two others."""
    example = re.findall(r"`([^`]*a[^`]*b[^`]*c)`", PAGE.read_text().split("## Addresses\n")[1].split("\n## ")[0])
    assert example == ["a.b/c", "a%2Eb.c", "a%2Eb.c"]
    slashed, dotted = f"{unique}/a.b/c", f"{unique}.a%2Eb.c"
    kafka_create(broker, dotted)
    with mqtt(broker) as client, amqp(broker) as channel:
        client.subscribe(slashed)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", dotted)
        client.publish(slashed, b"by mqtt")
        channel.basic_publish("amq.topic", dotted, b"by amqp")
        kafka_send(broker, dotted, b"by kafka")
        wanted = [b"by amqp", b"by kafka", b"by mqtt"]
        assert sorted(client.take(3)) == wanted
        assert sorted(amqp_get(channel, queue)[2] for _ in range(3)) == wanted
        assert sorted(record.value() for record in kafka_read(broker, dotted, 3)) == wanted


@pytest.mark.parametrize("level,wanted", [("a+b", "a%2Bb"), ("a#b", "a%23b"), ("a\0b", "a%00b")])
def test_characters_not_allowed_in_topic_names_are_escaped_for_mqtt(broker, unique, level, wanted):
    with mqtt(broker) as client, amqp(broker) as channel:
        client.subscribe(f"{unique}/#")
        channel.basic_publish("amq.topic", f"{unique}.{level}", b"x")
        assert client.get().topic == f"{unique}/{wanted}"


def test_mqtt_drops_properties_that_are_too_long(broker, unique):
    kafka_create(broker, unique)
    with mqtt(broker) as client:
        client.subscribe(unique)
        kafka_send(broker, unique, b"x", headers=[("long", b"v" * 65_536), ("fits", b"v" * 65_535)])
        assert [(name, len(value)) for name, value in InMqtt(client.get()).pairs] == [("fits", 65_535)]


def test_amqp_drops_headers_beyond_a_frame(broker, unique):
    kafka_create(broker, unique)
    with amqp(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", unique)
        kafka_send(broker, unique, b"x", headers=[("large", b"v" * 200_000), ("small", b"v")])
        _, properties, body = amqp_get(channel, queue)
        assert body == b"x" and "large" not in properties.headers and properties.headers["small"] == "v"


def test_mqtt_3_1_1_drops_all_properties(broker, unique):
    with mqtt(broker, version=4) as old, mqtt(broker) as new:
        old.subscribe(unique)
        new.publish(unique, b"x", properties=publish_properties(ContentType="a/b", UserProperty=[("a", "b")]))
        assert old.get().payload == b"x"


def test_messages_of_other_protocols_get_x_death(broker, unique):
    """An MQTT message that is dead-lettered from an AMQP queue has the same headers as an AMQP message."""
    with amqp(broker) as channel, mqtt(broker) as client:
        channel.queue_declare(f"{unique}-dead", durable=True)
        channel.queue_declare(unique, durable=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{unique}-dead"})
        channel.queue_bind(unique, "amq.topic", f"{unique}.x")
        client.publish(f"{unique}/x", b"x")
        wait_until(lambda: channel.queue_declare(unique, passive=True).method.message_count == 1)
        method, _, _ = channel.basic_get(unique)
        channel.basic_reject(method.delivery_tag, requeue=False)
        _, properties, body = amqp_get(channel, f"{unique}-dead")
        death = properties.headers["x-death"][0]
        assert body == b"x" and (death["reason"], death["queue"]) == ("rejected", unique)
        assert properties.headers["x-first-death-reason"] == "rejected"
