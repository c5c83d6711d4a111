"""Clients that make the broker hold memory: `memory.limit` bounds them in sum, and others are served meanwhile."""

import contextlib
import socket
import struct

import pika
import pytest

from clients import amqp, amqp_take, kafka_create, kafka_send, mqtt
from harness import wait_until

MIB = 1 << 20
LIMIT = 64 * MIB
# What a broker has without clients, and what the allocator keeps.
BESIDE = 96 * MIB


@pytest.fixture
def small(own_broker):
    broker = own_broker(environment={"INVER_MEMORY_LIMIT": str(LIMIT)})
    kafka_create(broker, "t")
    return broker


def short(text):
    return bytes([len(text)]) + text


class Wire:
    """A raw connection whose sends end with the connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data):
        """False once the broker has closed the connection."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)
            return True
        return False

    def close(self):
        self.socket.close()


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, class_id, method_id, arguments=b""):
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def amqp_wire(broker):
    wire = Wire(broker.amqp_port)
    login = b"\0guest\0guest"
    start_ok = struct.pack(">I", 0) + short(b"PLAIN") + struct.pack(">I", len(login)) + login + short(b"en_US")
    tune_ok = struct.pack(">HIH", 2047, 131072, 0)
    wire.send(b"AMQP\0\0\x09\x01" + method(0, 10, 11, start_ok) + method(0, 10, 31, tune_ok)
              + method(0, 10, 40, short(b"/") + b"\0\0"))
    return wire


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


def held_bytes(broker):
    """What is held for clients, against `memory.limit`."""
    shares = ("input", "transactions", "queues", "groups", "offsets")
    return sum(broker.metric("inver_memory_used_bytes", f'share="{share}"') for share in shares)


def is_given_back(broker):
    wait_until(lambda: held_bytes(broker) == 0, 15, "giving memory back")


def test_unfinished_bodies_of_many_channels(small):
    wire = amqp_wire(small)
    body = frame(3, 0, bytes(131064))
    for channel in range(1, 101):
        wire.send(
            method(channel, 20, 10, b"\0") + method(channel, 60, 40, b"\0\0" + short(b"") + short(b"q") + b"\0")
            + frame(2, channel, struct.pack(">HHQH", 60, 0, 16 * MIB, 0))
            + (body[:1] + struct.pack(">H", channel) + body[3:]) * 127)
    wait_until(lambda: "memory is used up" in small.log(), 15, "that the connection ends")
    is_bounded(small)
    wire.close()
    is_given_back(small)


def test_unfinished_packets_of_many_clients(small):
    wires = []
    for number in range(40):
        name = f"p{number}".encode()
        connect = b"\0\x04MQTT\x05\x02\0\0\0" + struct.pack(">H", len(name)) + name
        wires.append(Wire(small.mqtt_port))
        wires[-1].send(bytes([0x10, len(connect)]) + connect)
        # A PUBLISH of 16 MiB less 100 bytes.
        wires[-1].send(b"\x30\x9c\xff\xff\x07\0\x01t\0" + bytes(15 * MIB))
    # Connections are served by several threads: each may be a step beyond.
    assert held_bytes(small) <= LIMIT + MIB
    assert small.rss_bytes() < LIMIT + BESIDE, f"{small.rss_bytes() // MIB} MiB"
    for wire in wires:
        wire.close()
    is_given_back(small)
    others_are_served(small)


def test_transactions(small):
    wire = amqp_wire(small)
    body = bytes(131064)
    for channel in range(1, 21):
        publish = (method(channel, 60, 40, b"\0\0" + short(b"") + short(b"q") + b"\0")
                   + frame(2, channel, struct.pack(">HHQH", 60, 0, 8 * len(body), 0)) + frame(3, channel, body) * 8)
        if not wire.send(method(channel, 20, 10, b"\0") + method(channel, 90, 10) + publish * 30):
            break
    assert small.rss_bytes() < LIMIT + BESIDE, f"{small.rss_bytes() // MIB} MiB"
    wire.close()
    is_given_back(small)
    others_are_served(small)


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
