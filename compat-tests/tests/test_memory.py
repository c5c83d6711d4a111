"""Clients that make the broker hold memory: `memory.limit` bounds them in sum, and others are served meanwhile.

The long form of these tests is `compat-tests/memory_campaign.py`.
"""

import struct
import time

import pika
import pytest

from clients import amqp, amqp_take, kafka_create, kafka_producer, kafka_send, mqtt
from harness import wait_until
from memory_attacks import (
    ATTACKS, MIB, MemoryGroup, Wire, amqp_wire, basic_publish, frame, header, held_bytes, method, mqtt_wire,
)
from witness import Witness

LIMIT = 64 * MIB
# What a broker has without clients, and what the allocator keeps.
BESIDE = 96 * MIB


@pytest.fixture
def small(own_broker):
    broker = own_broker(environment={"INVER_MEMORY_LIMIT": str(LIMIT)})
    kafka_create(broker, "t")
    return broker


def others_are_served(broker):
    with amqp(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"x" * MIB, pika.BasicProperties(delivery_mode=2))
        assert len(amqp_take(channel, queue, 1)[0][2]) == MIB
    with mqtt(broker) as client:
        client.subscribe("a")
        client.publish("a", b"y" * MIB)
        assert client.take(1) == [b"y" * MIB]
    kafka_send(broker, "t", b"z" * 1000)


def is_bounded(broker):
    others_are_served(broker)
    assert broker.rss_bytes() < LIMIT + BESIDE, f"{broker.rss_bytes() // MIB} MiB"


def is_given_back(broker):
    wait_until(lambda: held_bytes(broker) == 0, 15, "giving memory back")


ATTACK_SECONDS = 4
# Far above what it takes on a quiet machine (milliseconds), and below any time-out.
P99_MS_MAX = 2000


@pytest.mark.parametrize("name", [
    "amqp_bodies", "amqp_transactions", "mqtt_packets", "mqtt_small_packets", "mqtt_subscribers", "websocket_frames",
    "kafka_requests", "kafka_groups"])
def test_others_go_on_while_clients_hold_the_limit(small, name):
    kafka_create(small, "empty")
    witness = Witness(small, ATTACK_SECONDS + 1)
    ATTACKS[name](small, time.monotonic() + ATTACK_SECONDS)
    assert small.rss_bytes() < LIMIT + BESIDE, f"{small.rss_bytes() // MIB} MiB"
    for client, report in witness.report().items():
        assert report["errors"] == 0 and report["acts"] > 0, (client, report)
        assert report.get("lost", 0) == 0, (client, report)
        assert report["p99"] < P99_MS_MAX, (client, report)


@pytest.mark.skipif(not MemoryGroup.is_possible(), reason="control groups cannot be made here")
def test_a_container_of_128_mib_takes_more_than_its_memory_in_records(own_broker):
    group = MemoryGroup(128 * MIB)
    broker = own_broker(prefix=group.prefix)
    try:
        kafka_create(broker, "t")
        producer, errors = kafka_producer(broker, queue_buffering_max_kbytes=32_000), []
        for _ in range(20_000):
            while True:
                try:
                    producer.produce("t", bytes(10_000), on_delivery=lambda error, _: error and errors.append(error))
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0 and not errors, errors[:3]
        others_are_served(broker)
        assert group.kills() == 0
    finally:
        broker.end()
        group.remove()


def test_who_holds_most_is_told_and_counted(small):
    wire = amqp_wire(small)
    piece = frame(3, 0, bytes(131064))
    for channel in range(1, 101):
        wire.send(method(channel, 20, 10, b"\0") + basic_publish(channel, b"q") + header(channel, 16 * MIB)
                  + (piece[:1] + struct.pack(">H", channel) + piece[3:]) * 127)
    wait_until(lambda: small.metric("inver_connections_evicted_total") == 1, 15, "that the connection ends")
    assert "memory is used up" in small.log()
    assert "closed the connections that held most for longest" in small.log()
    is_bounded(small)
    wire.close()
    is_given_back(small)
    # A PUBLISH of 16 MiB less 100 bytes each.
    wires = [mqtt_wire(small, f"p{number}") for number in range(5)]
    for wire in wires:
        wire.send(b"\x30\x9c\xff\xff\x07\0\x01t\0" + bytes(15 * MIB))
    wait_until(lambda: small.metric("inver_connections_evicted_total") >= 3, 15, "that the largest end")
    answers = b"".join(wire.read_some() for wire in wires)
    assert b"\xe0\x16\x97\x14\x1f\0\x11memory is used up" in answers, "DISCONNECT: quota exceeded, and why"
    for wire in wires:
        wire.close()
    is_given_back(small)


def test_fetches_that_wait_for_another(small):
    wire = Wire(small.kafka_port)
    wire.socket.settimeout(2)

    def fetch(partitions):
        body = struct.pack(">iiiib", -1, 290_000, 1, MIB, 0) + struct.pack(">ih1si", 1, 1, b"t", partitions)
        body += b"".join(struct.pack(">iqi", number, 0, 1000) for number in range(partitions))
        request = struct.pack(">hhih", 1, 4, 1, -1) + body
        return struct.pack(">i", len(request)) + request

    wire.send(fetch(1))
    large = fetch(60_000)
    # It is not read beyond what may wait.
    assert not all(wire.send(large) for _ in range(100))
    is_bounded(small)
    wire.close()


def test_transient_queues_continue_in_the_log(small):
    with amqp(small, confirm=False) as channel:
        for number in range(30):
            channel.queue_declare(f"q{number}")
            for _ in range(10):
                channel.basic_publish("", f"q{number}", bytes(MIB))
        assert channel.queue_declare("q29", passive=True).method.message_count == 10
        is_bounded(small)
        for number in range(30):
            bodies = [body for _, _, body in amqp_take(channel, f"q{number}", 10)]
            assert bodies == [bytes(MIB)] * 10
