"""Arbitrary bytes on each port, and excessive requests, while normal clients continue undisturbed."""

import gzip
import os
import random
import socket
import struct
import threading
import time

import pytest

from clients import amqp, amqp_get, amqp_take, kafka_create, kafka_read, kafka_send, mqtt

SECONDS = float(os.environ.get("INVER_TEST_ATTACK_SECONDS", "4"))
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))
RSS_GROWTH_BYTES_MAX = 256 << 20


def mqtt_connect(version, client_id=b"x"):
    body = b"\0\4MQTT" + bytes([version, 2, 0, 60]) + (b"\0" if version == 5 else b"")
    body += struct.pack(">H", len(client_id)) + client_id
    return b"\x10" + bytes([len(body)]) + body


def kafka_request(key, version, body, correlation=1):
    head = struct.pack(">hhih", key, version, correlation, -1)
    return struct.pack(">i", len(head) + len(body)) + head + body


AMQP_HEADER = b"AMQP\0\0\x09\x01"


def amqp_frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


AMQP_START_OK = amqp_frame(1, 0, struct.pack(">HH", 10, 11) + struct.pack(">I", 0) + b"\x05PLAIN"
                           + struct.pack(">I", 12) + b"\0guest\0guest" + b"\x05en_US")
AMQP_OPENED = (AMQP_HEADER + AMQP_START_OK + amqp_frame(1, 0, struct.pack(">HHHIH", 10, 31, 2047, 131072, 0))
               + amqp_frame(1, 0, struct.pack(">HH", 10, 40) + b"\x01/\0\0")
               + amqp_frame(1, 1, struct.pack(">HH", 20, 10) + b"\0"))


WS_UPGRADE = (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
              b"Sec-WebSocket-Protocol: mqtt\r\n\r\n")


def ws_frame(kind, payload):
    """A frame masked with zeros."""
    long = struct.pack(">BH", 0xFE, len(payload)) if len(payload) > 125 else bytes([0x80 | len(payload)])
    return bytes([0x80 | kind]) + long + bytes(4) + payload


def starts(port_name, rng):
    """Well-formed beginnings, so that the noise reaches deeper layers."""
    if port_name in ("mqtt",):
        return rng.choice([b"", mqtt_connect(4), mqtt_connect(5), mqtt_connect(5) + b"\x82"])
    if port_name == "kafka":
        return rng.choice([b"", kafka_request(18, 0, b""), struct.pack(">i", rng.randrange(1, 400)),
                           struct.pack(">ihhih", rng.randrange(20, 4000), rng.randrange(0, 80), rng.randrange(0, 18), 1, -1)])
    if port_name == "amqp":
        return rng.choice([b"", AMQP_HEADER, AMQP_HEADER + AMQP_START_OK, AMQP_OPENED])
    if port_name == "ws":
        return rng.choice([b"", WS_UPGRADE])
    return rng.choice([b"", b"GET /metrics HTTP/1.1\r\n", b"GET "])


def noise(rng):
    """Random bytes, nearly valid bytes, and huge claimed sizes."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 3000))
    if kind == 1:
        return b"\xff" * rng.randrange(1, 200)
    if kind == 2:
        return b"\0" * rng.randrange(1, 2000)
    if kind == 3:
        return struct.pack(">I", 0x7FFFFFFF) + rng.randbytes(100)
    frame = bytearray(rng.choice([mqtt_connect(5), kafka_request(3, 4, b"\0\0\0\1\0\1x\1"), AMQP_OPENED,
                                  amqp_frame(1, 1, struct.pack(">HHH", 60, 40, 0) + b"\0\0\0"),
                                  b"\x30\x05\0\3a/bx", b"\x82\x08\0\1\0\3a/b\1"]))
    for _ in range(rng.randrange(0, 4)):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)


# Requests that have crashed other brokers: huge claims in small requests, deep nesting.
def known_bad():
    nested = b""
    for _ in range(1500):
        nested = b"\x01aF" + struct.pack(">I", len(nested)) + nested
    deep = struct.pack(">HH", 10, 11) + struct.pack(">I", len(nested)) + nested
    yield "amqp", AMQP_HEADER + amqp_frame(1, 0, deep)
    yield "amqp", AMQP_HEADER + struct.pack(">BHI", 1, 0, 0xFFFFFFFF)
    yield "amqp", AMQP_OPENED + struct.pack(">BHI", 3, 1, 0xFFFFFFF0) + b"x" * 100
    yield "amqp", AMQP_OPENED + amqp_frame(1, 1, struct.pack(">HHH", 60, 40, 0) + b"\0\0\0") + amqp_frame(
        2, 1, struct.pack(">HHQH", 60, 0, 1 << 62, 0))
    yield "kafka", kafka_request(3, 1, struct.pack(">i", 64_000_000))
    yield "kafka", kafka_request(3, 1, struct.pack(">i", 0x7FFFFFFF))
    yield "kafka", kafka_request(3, 9, b"\0\xff\xff\xff\xff\x0f")
    yield "kafka", kafka_request(0, 3, struct.pack(">hhi", -1, -1, 1000) + struct.pack(">i", 50_000_000))
    yield "kafka", kafka_request(1, 4, struct.pack(">iiiib", -1, 0, 0, 0, 0) + struct.pack(">i", 50_000_000))
    yield "kafka", struct.pack(">i", 0x7FFFFFFF) + b"\0" * 64
    yield "kafka", struct.pack(">i", -1)
    yield "mqtt", b"\x10\xff\xff\xff\x7f" + b"\0" * 64
    yield "mqtt", mqtt_connect(5) + b"\x30\xff\xff\xff\x7f" + b"\0\3a/b"
    yield "mqtt", mqtt_connect(5) + b"\x82\xff\xff\xff\xff\xff"
    yield "mqtt", mqtt_connect(4) + b"\x82" + b"\x86\x4e" + b"\0\1" + (struct.pack(">H", 2496) + b"/" * 2496 + b"\1") * 4


def poke(port, data):
    with socket.create_connection(("127.0.0.1", port), 5) as attacker:
        attacker.settimeout(0.05)
        try:
            attacker.sendall(data)
            while attacker.recv(65536):
                pass
        except (TimeoutError, ConnectionError):
            pass


def test_known_bad_requests(broker, unique):
    before = broker.rss_bytes()
    for port_name, data in known_bad():
        poke(broker.ports[port_name], data)
        broker.check()
    assert broker.rss_bytes() - before < RSS_GROWTH_BYTES_MAX
    with mqtt(broker) as client:
        client.publish(unique, b"x")


@pytest.mark.timeout(120)
def test_noise_on_every_port_while_clients_continue(own_broker, unique):
    print(f"seed {SEED}")
    broker = own_broker()
    before = broker.rss_bytes()
    deadline = time.monotonic() + SECONDS
    counts = dict.fromkeys(broker.ports, 0)

    def attack(port_name, number):
        rng = random.Random(f"{SEED}{port_name}{number}")
        while time.monotonic() < deadline:
            with socket.create_connection(("127.0.0.1", broker.ports[port_name]), 10) as attacker:
                attacker.settimeout(0.01)
                try:
                    start = starts(port_name, rng)
                    attacker.sendall(start)
                    if start is WS_UPGRADE:
                        # Bytes sent with the request itself are refused; frames follow the response.
                        attacker.settimeout(1)
                        attacker.recv(4096)
                        attacker.settimeout(0.01)
                    for _ in range(rng.randrange(1, 6)):
                        data = noise(rng)
                        if start is WS_UPGRADE and rng.random() < 0.7:
                            data = ws_frame(rng.choice([0, 1, 2, 2, 2, 8, 9, 10]), data)
                        at = rng.randrange(len(data) + 1)
                        attacker.sendall(data[:at])
                        attacker.sendall(data[at:])
                    attacker.recv(4096)
                except (TimeoutError, ConnectionError):
                    pass
            counts[port_name] += 1

    attackers = [threading.Thread(target=attack, args=(name, n)) for name in broker.ports for n in range(2)]
    for attacker in attackers:
        attacker.start()
    sent = 0
    with mqtt(broker) as client, amqp(broker) as channel:
        client.subscribe(f"{unique}/x")
        channel.queue_declare(unique)
        while time.monotonic() < deadline:
            body = f"{sent}".encode()
            client.publish(f"{unique}/x", body)
            assert client.get().payload == body
            channel.basic_publish("", unique, body)
            assert amqp_get(channel, unique)[2] == body
            kafka_send(broker, f"{unique}-kafka", body)
            sent += 1
    for attacker in attackers:
        attacker.join(20)
    broker.check()
    print(f"{counts} attacks, {sent} rounds of normal work")
    assert sent > 0 and all(counts.values())
    assert len(kafka_read(broker, f"{unique}-kafka", sent)) == sent
    assert broker.rss_bytes() - before < RSS_GROWTH_BYTES_MAX


# ---- excessive requests


def expect(connection, wanted):
    """Reads until these bytes have arrived."""
    seen = b""
    while wanted not in seen:
        got = connection.recv(65536)
        assert got, f"closed after {seen[-200:]}"
        seen = seen[-len(wanted):] + got


def test_unread_ping_responses_are_bounded(own_broker, unique):
    broker = own_broker()
    before = broker.rss_bytes()
    with socket.create_connection(("127.0.0.1", broker.ws_port), 5) as attacker:
        attacker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        attacker.sendall(WS_UPGRADE)
        expect(attacker, b"\r\n\r\n")
        pings = ws_frame(9, b"x" * 125) * 1000
        try:
            for _ in range(600):
                attacker.sendall(pings)
        except (TimeoutError, ConnectionError):
            pass  # The broker reads no more, or has ended it: both are bounds.
        with mqtt(broker, transport="websockets") as client:
            client.publish(unique, b"x")
        assert broker.rss_bytes() - before < 32 << 20


def test_ten_thousands_of_wildcard_filters(own_broker, unique):
    broker = own_broker()
    count = 40_000
    with socket.create_connection(("127.0.0.1", broker.mqtt_port), 60) as attacker:
        attacker.sendall(mqtt_connect(4))
        started = time.monotonic()
        body = bytearray()
        for number in range(count):
            name = f"{unique}/{number}/+/#".encode()
            filters = struct.pack(">HH", number % 65535 + 1, len(name)) + name + b"\1"
            body += bytes([0x82, len(filters)]) + filters
        attacker.sendall(body)
        expect(attacker, struct.pack(">BBHB", 0x90, 3, count, 1))
        seconds = time.monotonic() - started
    # Comparing every pair took half a minute.
    assert seconds < 15, f"{count} subscriptions took {seconds:.1f} s"


def varint(number):
    number = number << 1 if number >= 0 else (-number << 1) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def record(delta, value):
    body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def compressed_batch(records, claimed):
    """A gzip batch that claims this many records."""
    now = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", 1, claimed - 1, now, now, -1, -1, -1, claimed) + gzip.compress(records)
    return struct.pack(">qiib", 0, len(body) + 9, 0, 2) + struct.pack(">I", crc32c(body)) + body


def produce_raw(broker, topic, batch):
    """Produces a batch unchanged and returns the error code of the response."""
    name = topic.encode()
    body = struct.pack(">hhiih", -1, -1, 5000, 1, len(name)) + name + struct.pack(">iii", 1, 0, len(batch)) + batch
    with socket.create_connection(("127.0.0.1", broker.kafka_port), 10) as connection:
        connection.sendall(kafka_request(0, 7, body))
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack(">i", answer[:4])[0]:
            got = connection.recv(65536)
            assert got
            answer += got
    at = 4 + 4 + 4 + 2 + len(name) + 4
    return struct.unpack(">ih", answer[at:at + 6])[1]


FORGED = {
    "fewer records than claimed": compressed_batch(record(0, b"first"), 3),
    "one number for all records": compressed_batch(record(0, b"first") * 3, 3),
    "numbers that go backwards": compressed_batch(record(2, b"first") + record(1, b"x") + record(0, b"x"), 3),
    "no record": compressed_batch(b"noise" * 10, 3),
    "more than may be unpacked": compressed_batch(record(0, bytes(200 << 20)), 1),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_batch_at_the_end_is_skipped(own_broker, unique, kind):
    broker = own_broker()
    kafka_create(broker, unique)
    if produce_raw(broker, unique, FORGED[kind]) != 0:
        return  # refused at once: better still
    arguments = {"x-subscription": "s"}
    with amqp(broker) as channel, mqtt(broker) as client:
        client.subscribe(unique)
        for method, _, _ in channel.consume(unique, inactivity_timeout=0.5, arguments=arguments):
            if method is None:
                break
        channel.cancel()
        assert produce_raw(broker, unique, FORGED[kind]) == 0
        kafka_send(broker, unique, b"sound")
        while client.get().payload != b"sound":
            pass
        taken = []
        while b"sound" not in taken:
            taken.append(amqp_take(channel, unique, 1, arguments=arguments)[0][2])
        assert len(broker.log()) < 100_000, "the log is flooded"
