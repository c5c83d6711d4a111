"""Clients that make a broker hold memory for ever, by hand-written frames; and a control group that bounds its memory.

An attack is a function of a broker and a deadline. It goes on until then: a connection that the broker closes is opened
again. `ATTACKS` has all of them by name.
"""

import contextlib
import os
import pathlib
import socket
import struct
import time

from harness import wait_until

MIB = 1 << 20
CHUNK = bytes(MIB)
CONNECTIONS = 40


class Wire:
    """A raw connection. What it sends and receives ends quietly with the connection."""

    def __init__(self, port, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(2)
        self.is_open = True
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.is_open = False

    def send(self, *parts):
        """False once the broker has closed the connection, or has not read for two seconds."""
        with contextlib.suppress(OSError):
            for part in parts:
                self.socket.sendall(part)
            return True
        self.is_open = False
        return False

    def read_some(self, count=4096):
        with contextlib.suppress(OSError):
            return self.socket.recv(count)
        return b""

    def has_ended(self):
        """Whether the broker has closed the connection; takes what it has sent."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(2)

    def close(self):
        self.socket.close()


# ---- frames


def short(text):
    return bytes([len(text)]) + text


def text(content):
    return struct.pack(">H", len(content)) + content


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, class_id, method_id, arguments=b""):
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def header(channel, body_bytes):
    return frame(2, channel, struct.pack(">HHQH", 60, 0, body_bytes, 0))


def basic_publish(channel, queue):
    return method(channel, 60, 40, b"\0\0" + short(b"") + short(queue) + b"\0")


def amqp_wire(broker, **options):
    wire = Wire(broker.amqp_port, **options)
    login = b"\0guest\0guest"
    start_ok = struct.pack(">I", 0) + short(b"PLAIN") + struct.pack(">I", len(login)) + login + short(b"en_US")
    wire.send(b"AMQP\0\0\x09\x01" + method(0, 10, 11, start_ok)
              + method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0)) + method(0, 10, 40, short(b"/") + b"\0\0"))
    return wire


def connect(name):
    packet = b"\0\x04MQTT\x05\x02\0\0\0" + text(name.encode())
    return bytes([0x10, len(packet)]) + packet


def mqtt_wire(broker, name, **options):
    wire = Wire(broker.mqtt_port, **options)
    wire.send(connect(name))
    return wire


def subscribe(topic, qos):
    packet = struct.pack(">HB", 1, 0) + text(topic.encode()) + bytes([qos])
    return bytes([0x82, len(packet)]) + packet


def request(api, version, body):
    message = struct.pack(">hhih", api, version, 1, -1) + body
    return struct.pack(">i", len(message)) + message


# ---- attacks


def repeat(make, until, count=CONNECTIONS):
    """Keeps `count` connections open that `make(number)` opens."""
    wires = []
    try:
        while time.monotonic() < until:
            for number in range(count):
                if number >= len(wires):
                    wires.append(make(number))
                elif not wires[number].is_open or wires[number].has_ended():
                    wires[number].close()
                    wires[number] = make(number)
                if time.monotonic() > until:
                    break
            time.sleep(0.1)
    finally:
        for wire in wires:
            wire.close()


def amqp_bodies(broker, until):
    """Each connection has 100 channels with 16 MiB less one frame of a body."""
    def make(_):
        wire, piece = amqp_wire(broker), frame(3, 0, bytes(131064))
        for channel in range(1, 101):
            body = (piece[:1] + struct.pack(">H", channel) + piece[3:]) * 127
            opened = method(channel, 20, 10, b"\0") + basic_publish(channel, b"q") + header(channel, 16 * MIB)
            if time.monotonic() > until or wire.has_ended() or not wire.send(opened, body):
                break
        return wire
    repeat(make, until, 4)


def amqp_transactions(broker, until):
    """Transactions of 63 MiB on many channels that are never committed."""
    def make(_):
        wire, body = amqp_wire(broker), bytes(131064)
        for channel in range(1, 41):
            publish = basic_publish(channel, b"nowhere") + header(channel, 8 * len(body)) + frame(3, channel, body) * 8
            opened = method(channel, 20, 10, b"\0") + method(channel, 90, 10)
            if time.monotonic() > until or wire.has_ended() or not wire.send(opened, publish * 63):
                break
        return wire
    repeat(make, until, 2)


def amqp_queues(broker, until):
    """Transient queues that nobody consumes."""
    wire = amqp_wire(broker)
    body, number = bytes(131064), 0
    wire.send(method(1, 20, 10, b"\0"))
    while time.monotonic() < until and number < 40:
        name = f"transient-{number}".encode()
        number += 1
        wire.send(method(1, 50, 10, b"\0\0" + short(name) + b"\0" + struct.pack(">I", 0)))
        publish = basic_publish(1, name) + header(1, 8 * len(body)) + frame(3, 1, body) * 8
        for _ in range(30):
            if time.monotonic() > until or not wire.send(publish):
                break
        if not wire.is_open:
            wire = amqp_wire(broker)
            wire.send(method(1, 20, 10, b"\0"))
    time.sleep(max(0, until - time.monotonic()))
    for number in range(number):
        name = f"transient-{number}".encode()
        wire.send(method(1, 50, 40, b"\0\0" + short(name) + b"\0"))
        wire.has_ended()
    wire.close()


def mqtt_packets(broker, until):
    """Clients that each send 15 MiB of a PUBLISH of 16 MiB."""
    def make(number):
        wire = mqtt_wire(broker, f"packet-{number}")
        wire.send(b"\x30\x9c\xff\xff\x07\0\x01t\0", *[CHUNK] * 15)
        return wire
    repeat(make, until)


def mqtt_small_packets(broker, until):
    """Very many clients that each send 60 KiB of a PUBLISH of 16 MiB."""
    def make(number):
        wire = mqtt_wire(broker, f"small-{number}")
        wire.send(b"\x30\x9c\xff\xff\x07\0\x01t\0", bytes(60_000))
        return wire
    repeat(make, until, 1500)


def mqtt_subscribers(broker, until):
    """Subscribers at QoS 1 that take nothing, and a publisher to them."""
    wires = []
    for number in range(30):
        wires.append(mqtt_wire(broker, f"slow-{number}", receive_bytes=4096))
        wires[-1].send(subscribe("slow/#", 1))
    publisher, identifier = mqtt_wire(broker, "slow-publisher"), 0
    while time.monotonic() < until:
        identifier = identifier % 65535 + 1
        packet = text(b"slow/x") + struct.pack(">HB", identifier, 0) + CHUNK
        length = len(packet)
        prefix = bytes([0x32, length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
        if not publisher.send(prefix + packet) or publisher.has_ended():
            publisher.close()
            publisher = mqtt_wire(broker, "slow-publisher")
            time.sleep(0.1)
    for wire in [*wires, publisher]:
        wire.close()


def websocket_frames(broker, until):
    """Clients without a login that send all but a byte of a WebSocket frame of 16 MiB."""
    upgrade = (b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
               b"Sec-WebSocket-Protocol: mqtt\r\n\r\n")

    def make(_):
        wire = Wire(broker.ws_port)
        wire.send(upgrade)
        wire.read_some()
        wire.send(b"\x82\xff" + struct.pack(">Q", 16 * MIB) + bytes(4), *[CHUNK] * 15)
        return wire
    repeat(make, until)


def kafka_requests(broker, until):
    """Clients that each send 3 MiB of a produce request that claims 50 MiB."""
    def make(_):
        wire = Wire(broker.kafka_port)
        wire.send(struct.pack(">i", 50 * MIB) + struct.pack(">hhih", 0, 7, 1, -1), *[CHUNK] * 3)
        return wire
    repeat(make, until)


def kafka_fetches(broker, until):
    """Fetches of 1 MiB each that wait behind one that waits for records."""
    def fetch(partitions):
        body = struct.pack(">iiiib", -1, 290_000, 1, MIB, 0) + struct.pack(">i", 1) + text(b"empty")
        body += struct.pack(">i", partitions)
        body += b"".join(struct.pack(">iqi", number, 0, 1000) for number in range(partitions))
        return request(1, 4, body)
    first, further = fetch(1), fetch(60_000)

    def make(_):
        wire = Wire(broker.kafka_port)
        wire.send(first)
        for _ in range(100):
            if not wire.send(further):
                break
        wire.is_open = True
        return wire
    repeat(make, until, 4)


def kafka_groups(broker, until):
    """Groups of members with 1 MB of metadata each."""
    metadata = bytes(1_000_000)

    def make(number):
        wire = Wire(broker.kafka_port)
        body = text(f"group-{number // 40}".encode()) + struct.pack(">i", 300_000) + text(b"") + text(b"consumer")
        body += struct.pack(">i", 1) + text(b"range") + struct.pack(">i", len(metadata)) + metadata
        wire.send(request(11, 0, body))
        return wire
    repeat(make, until, 400)


def kafka_offsets(broker, until):
    """Committed offsets with 4 KiB of text each."""
    wire, number = Wire(broker.kafka_port), 0
    while time.monotonic() < until:
        body = text(f"offsets-{number}".encode()) + struct.pack(">i", -1) + text(b"") + struct.pack(">q", -1)
        body += struct.pack(">i", 1) + text(b"many") + struct.pack(">i", 200)
        body += b"".join(struct.pack(">iq", at, 1) + text(b"m" * 4096) for at in range(200))
        number += 1
        if not wire.send(request(8, 2, body)) or wire.has_ended():
            wire.close()
            wire = Wire(broker.kafka_port)
    wire.close()


ATTACKS = {attack.__name__: attack for attack in (
    amqp_bodies, amqp_transactions, amqp_queues, mqtt_packets, mqtt_small_packets, mqtt_subscribers, websocket_frames,
    kafka_requests, kafka_fetches, kafka_groups, kafka_offsets)}


# ---- a bound of memory


def held_bytes(broker):
    """What is held for clients, against `memory.limit`."""
    shares = ("input", "transactions", "output", "queues", "groups", "offsets")
    return sum(broker.metric("inver_memory_used_bytes", f'share="{share}"') for share in shares)


class MemoryGroup:
    """A control group with a limit of memory, of either version; `prefix` starts a program in it."""

    def __init__(self, limit_bytes):
        self.is_v1 = pathlib.Path("/sys/fs/cgroup/memory/cgroup.procs").exists()
        root = pathlib.Path("/sys/fs/cgroup/memory" if self.is_v1 else "/sys/fs/cgroup")
        self.folder = root / f"inver-test-{os.getpid()}-{time.monotonic_ns()}"
        self.folder.mkdir()
        limit = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        (self.folder / limit).write_text(str(limit_bytes))
        self.prefix = ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]

    @staticmethod
    def is_possible():
        with contextlib.suppress(OSError):
            MemoryGroup(64 * MIB).remove()
            return True
        return False

    def kills(self):
        """How often the kernel has killed for want of memory."""
        lines = (self.folder / ("memory.oom_control" if self.is_v1 else "memory.events")).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == "oom_kill")

    def remove(self):
        def removed():
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            return not self.folder.exists()
        wait_until(removed, 10, "that the control group is empty")
