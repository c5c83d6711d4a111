"""Data folders written by earlier versions open, and real clients find everything in them."""

import pathlib
import tarfile
import time

import paho.mqtt.client as mqtt
import pika
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import QUIET, kafka_tool
from harness import binary, run, wait_until

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
KEPT = sorted(path.name for path in DATA.glob("format-*.tar.gz"))
KEPT_TRANSACTIONS = sorted(path.name for path in DATA.glob("transactions-*.tar.gz"))


def opened(own_broker, archive_name):
    """A broker on a copy of a kept data folder."""
    broker = own_broker(start=False)
    with tarfile.open(DATA / archive_name) as archive:
        archive.extractall(broker.folder, filter="data")
    (unpacked,) = [path for path in broker.folder.iterdir() if path.is_dir()]
    unpacked.rename(broker.data)
    return broker.start()


@pytest.fixture(params=KEPT)
def kept(request, own_broker):
    """A broker on a copy of a kept data folder with everything but transactions."""
    return opened(own_broker, request.param)


def committed_end(broker, topic, partition):
    """Offset that readers of committed records get to."""
    consumer = Consumer({"bootstrap.servers": broker.kafka, "group.id": "reader", "isolation.level": "read_committed"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)[1]
    finally:
        consumer.close()


def read(broker, topic, partition, count):
    """The first `count` records of a partition."""
    consumer = Consumer({"bootstrap.servers": broker.kafka, "group.id": "reader", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        records, deadline = [], time.monotonic() + 20
        while len(records) < count and time.monotonic() < deadline:
            records += [record for record in consumer.consume(count, timeout=0.2) if record.error() is None]
        return records
    finally:
        consumer.close()


def test_kafka_topics_and_committed_offsets_are_kept(kept):
    records = read(kept, "orders", 0, 10) + read(kept, "orders", 1, 10)
    expected = {f"{codec}-{i}".encode() for codec in ("none", "gzip", "lz4", "zstd", "snappy") for i in range(4)}
    assert {record.value() for record in records} == expected
    for record in records:
        assert record.key() == b"k" + record.value()[-1:]
        headers = [(name, value) for name, value in record.headers() if name in ("h", "n")]
        assert headers == [("h", b"one"), ("h", b"two"), ("n", None)]
        assert record.timestamp()[1] == 1700000000000 + int(record.value()[-1:])
    latest = {record.key(): record.value() for record in read(kept, "latest", 0, 3)}
    assert latest == {b"a": b"2", b"b": None}
    group = Consumer({"bootstrap.servers": kept.kafka, "group.id": "billing"})
    try:
        committed = group.committed([TopicPartition("orders", 0), TopicPartition("orders", 1)], timeout=20)
        assert [position.offset for position in committed] == [3, 7]
    finally:
        group.close()


def test_queues_bindings_and_dead_letters_are_kept(kept):
    connection = pika.BlockingConnection(pika.URLParameters(kept.amqp))
    channel = connection.channel()

    def drain(queue):
        messages = []
        while (found := channel.basic_get(queue, auto_ack=True))[0] is not None:
            messages.append(found)
        return messages

    work = drain("work")
    assert [body for _, _, body in work] == [b"w2", b"w3", b"w4"]
    method, properties, _ = work[0]
    assert method.routing_key == "a.b" and method.exchange == "events" and method.redelivered
    assert properties.headers["n"] == 2 and properties.headers["t"] == [1, "x", {"y": True}]
    assert (properties.content_type, properties.priority, properties.delivery_mode) == ("text/plain", 3, 2)
    assert (properties.message_id, properties.type, properties.app_id) == ("m2", "ty", "app")
    single = []
    tag = channel.basic_consume("q-single", lambda _c, _m, _p, body: single.append(body), auto_ack=True)
    wait_until(lambda: connection.process_data_events(0.05) or single, what="the message of q-single")
    channel.basic_cancel(tag)
    assert single == [b"hv"]
    assert [body for _, _, body in drain("q-quorum")] == [b"20", b"21", b"22"]

    dead = {body: properties.headers for _, properties, body in drain("gr\\new")}
    assert set(dead) == {b"expires", b"w0"}
    (expired,), (rejected,) = dead[b"expires"]["x-death"], dead[b"w0"]["x-death"]
    assert (expired["queue"], expired["reason"], expired["count"]) == ("short", "expired", 1)
    assert expired["routing-keys"] == ["short"] and expired["exchange"] == ""
    assert (rejected["queue"], rejected["reason"], rejected["exchange"]) == ("work", "rejected", "events")
    assert dead[b"expires"]["x-first-death-queue"] == "short" and dead[b"expires"]["orig"] == "yes"

    # Declarations are unchanged: the same declaration is accepted and bindings route.
    channel.confirm_delivery()
    channel.queue_declare("work", durable=True, arguments={"x-dead-letter-exchange": "graves", "x-max-length": 1000})
    channel.queue_declare("q-single", durable=True, arguments={"x-single-active-consumer": True})
    channel.basic_publish("events", "a.c", b"new", mandatory=True)
    assert [body for _, _, body in drain("work")] == [b"new"]
    channel.basic_publish("by-headers", "", b"alternate", mandatory=True)
    assert [body for _, _, body in drain("gr\\new")] == [b"alternate"]

    # The named subscription continues after the messages that it acknowledged.
    received = []
    channel.basic_consume(
        "jobs", lambda _c, _m, _p, body: received.append(body), auto_ack=True, arguments={"x-subscription": "crew"}
    )
    wait_until(lambda: connection.process_data_events(0.05) or len(received) >= 4, what="the remaining jobs")
    assert sorted(received) == [b"job-1", b"job-2", b"job-3", b"job-4"]
    connection.close()


def test_sessions_and_retained_messages_are_kept(kept):
    received, connected = [], []

    def connect(client_id, expiry):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        client.on_message = lambda _c, _u, message: received.append(message)
        client.on_connect = lambda _c, _u, flags, _r, _p: connected.append(flags.session_present)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = expiry
        client.connect("127.0.0.1", kept.mqtt_port, clean_start=expiry == 0, properties=properties)
        client.loop_start()
        return client

    sleeper = connect("sleeper", 0xFFFFFFFF)
    wait_until(lambda: len(received) >= 4, what="the messages of the inbox")
    assert connected == [True]
    inbox = {message.topic: message for message in received}
    assert {topic: message.payload for topic, message in inbox.items()} == {
        "sensors/room0/temp": b"20", "sensors/room1/temp": b"21", "sensors/room2/temp": b"22", "tasks/1": b"t1",
    }
    properties = inbox["sensors/room0/temp"].properties
    assert properties.UserProperty == [("u", "1"), ("u", "2")]
    assert (properties.ContentType, properties.ResponseTopic, properties.CorrelationData) == ("text/plain", "r/t", b"cd")
    sleeper.disconnect()
    sleeper.loop_stop()

    received.clear()
    late = connect("late", 0)
    wait_until(lambda: len(connected) == 2)
    late.subscribe("state/#", qos=1)
    wait_until(lambda: received, what="the retained message")
    late.publish("state/last", b"last", qos=1)
    wait_until(lambda: received[-1].topic == "state/last")
    assert [(message.topic, message.payload, message.retain) for message in received] == [
        ("state/a.b/c", b"on", True), ("state/last", b"last", False),
    ]
    late.disconnect()
    late.loop_stop()


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_folder_is_upgraded_once(tmp_path, name):
    with tarfile.open(DATA / name) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert b"upgraded to the newest format" in run([binary(), "log", "upgrade", folder]).stdout
    assert b"nothing to do" in run([binary(), "log", "upgrade", folder]).stdout
    assert run([binary(), "log", "verify", folder]).returncode == 0


@pytest.mark.parametrize("name", KEPT_TRANSACTIONS)
def test_transactions_are_kept(own_broker, name):
    """Committed and aborted ones are told apart, and an open one is found with its partitions and offsets: its time is over."""
    broker = opened(own_broker, name)
    ends = {0: 8, 1: 5}
    for partition, end in ends.items():
        wait_until(lambda: committed_end(broker, "ledger", partition) == end, 30, "the end of the open transaction")
    assert [record.value() for record in read(broker, "ledger", 0, 3)] == [b"a", b"b", b"behind"]
    assert [record.value() for record in read(broker, "ledger", 1, 2)] == [b"a", b"b"]
    group = Consumer({"bootstrap.servers": broker.kafka, "group.id": "mover", "isolation.level": "read_committed"})
    try:
        assert group.committed([TopicPartition("source", 0)], timeout=20)[0].offset == 2
    finally:
        group.close()
    said = kafka_tool("TransactionsCommand", "--bootstrap-server", broker.kafka, "list")
    states = {line.split()[0]: line.split()[-1] for line in said.splitlines() if line.strip()}
    assert (states["done"], states["open"]) == ("CompleteAbort", "CompleteAbort")
    producer = Producer({"bootstrap.servers": broker.kafka, **QUIET, "transactional.id": "open"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce("ledger", "new", partition=1)
    producer.commit_transaction(20)
    assert [record.value() for record in read(broker, "ledger", 1, 3)] == [b"a", b"b", b"new"]
