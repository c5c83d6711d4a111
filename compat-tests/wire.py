"""The three protocols in bytes, for tests that send what client libraries do not: very many requests at once, or very large ones."""

import socket
import struct
import time

import crc32c

# ---- AMQP 0-9-1


def short(text):
    data = text.encode()
    return bytes([len(data)]) + data


def long(data):
    return struct.pack(">I", len(data)) + data


def table(pairs):
    body = b""
    for name, value in pairs.items():
        body += short(name) + (b"l" + struct.pack(">q", value) if isinstance(value, int) else b"S" + long(value.encode()))
    return long(body)


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(class_, number, arguments=b"", channel=1):
    return frame(1, channel, struct.pack(">HH", class_, number) + arguments)


def queue_declare(queue, durable=True, nowait=False, arguments=None):
    bits = durable << 1 | nowait << 4
    return method(50, 10, b"\0\0" + short(queue) + bytes([bits]) + table(arguments or {}))


def queue_delete(queue, nowait=False):
    return method(50, 40, b"\0\0" + short(queue) + bytes([nowait << 2]))


def queue_purge(queue):
    return method(50, 30, b"\0\0" + short(queue) + b"\0")


def queue_bind(queue, exchange, key, nowait=False):
    return method(50, 20, b"\0\0" + short(queue) + short(exchange) + short(key) + bytes([nowait]) + table({}))


def exchange_declare(exchange, kind, nowait=False):
    return method(40, 10, b"\0\0" + short(exchange) + short(kind) + bytes([nowait << 4]) + table({}))


def exchange_delete(exchange, nowait=False):
    return method(40, 20, b"\0\0" + short(exchange) + bytes([nowait << 1]))


def basic_consume(queue, tag, no_ack=False, nowait=False, arguments=None):
    bits = no_ack << 1 | nowait << 3
    return method(60, 20, b"\0\0" + short(queue) + short(tag) + bytes([bits]) + table(arguments or {}))


def basic_cancel(tag):
    return method(60, 30, short(tag) + b"\1")


def basic_get(queue):
    return method(60, 70, b"\0\0" + short(queue) + b"\1")


def basic_publish(exchange, key, body, persistent=True):
    properties = b"\x10\0\2" if persistent else b"\0\0"
    head = frame(2, 1, struct.pack(">HHQ", 60, 0, len(body)) + properties)
    return method(60, 40, b"\0\0" + short(exchange) + short(key) + b"\0") + head + frame(3, 1, body)


CHANNEL_OPEN = method(20, 10, b"\0")
CONFIRM_SELECT = method(85, 10, b"\0")
TX_SELECT, TX_COMMIT = method(90, 10), method(90, 20)


def settle(tag, requeue=None):
    """`basic.ack`, or `basic.nack` if `requeue` is given, of all deliveries up to a tag."""
    if requeue is None:
        return method(60, 80, struct.pack(">QB", tag, 1))
    return method(60, 120, struct.pack(">QB", tag, 1 | requeue << 1))


class Connection:
    """A socket that is read in whole pieces."""

    def __init__(self, port, seconds=60):
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 18)
        self.read = self.file.read

    def send(self, *data):
        self.socket.sendall(b"".join(data))

    def exactly(self, count):
        data = self.read(count)
        if len(data) < count:
            raise ConnectionError("the broker closed the connection")
        return data

    def close(self):
        # The socket is open as long as either is.
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Amqp(Connection):
    """A connection with one channel."""

    def __init__(self, port, seconds=60):
        super().__init__(port, seconds)
        login = table({}) + short("PLAIN") + long(b"\0guest\0guest") + short("en_US")
        self.send(b"AMQP\0\0\x09\x01", method(10, 11, login, 0))
        tune = struct.pack(">HIH", 2047, 131072, 0)
        self.expect(10, 30)
        self.send(method(10, 31, tune, 0), method(10, 40, short("/") + b"\0\0", 0), CHANNEL_OPEN)
        self.expect(20, 11)

    def frame(self):
        kind, _, length = struct.unpack(">BHI", self.exactly(7))
        return kind, self.exactly(length + 1)[:-1]

    def expect(self, class_, number):
        """The arguments of the next method, which must be this one once deliveries are passed over."""
        while True:
            kind, payload = self.frame()
            if kind != 1:
                continue
            at = struct.unpack(">HH", payload[:4])
            if at == (class_, number):
                return payload[4:]
            assert at not in ((10, 50), (20, 40)), payload
        return None

    def call(self, request, class_, number):
        self.send(request)
        return self.expect(class_, number)

    def deliveries(self, count):
        """Reads deliveries; returns the last delivery tag."""
        for _ in range(count):
            arguments = self.expect(60, 60)
        tag_at = 1 + arguments[0]
        return struct.unpack(">Q", arguments[tag_at:tag_at + 8])[0]


# ---- MQTT 5


def text(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">H", len(data)) + data


def packet(first, body):
    length, rest = b"", len(body)
    while True:
        length += bytes([rest & 127 | (128 if rest > 127 else 0)])
        rest >>= 7
        if not rest:
            return bytes([first]) + length + body


def mqtt_publish(topic, payload, qos=0, packet_id=1, retain=False):
    number = struct.pack(">H", packet_id) if qos else b""
    return packet(0x30 | qos << 1 | retain, text(topic) + number + b"\0" + payload)


def mqtt_subscribe(filters, qos=0, packet_id=1):
    return packet(0x82, struct.pack(">H", packet_id) + b"\0" + b"".join(text(f) + bytes([qos]) for f in filters))


def mqtt_unsubscribe(filters, packet_id=1):
    return packet(0xA2, struct.pack(">H", packet_id) + b"\0" + b"".join(map(text, filters)))


class Mqtt(Connection):
    def __init__(self, port, client_id, seconds=60):
        super().__init__(port, seconds)
        self.send(packet(0x10, text("MQTT") + b"\5\2\0\0\0" + text(client_id)))
        self.expect(2)

    def packet(self):
        first, length, shift = self.exactly(1)[0], 0, 0
        while True:
            byte = self.exactly(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self.exactly(length)

    def expect(self, kind):
        """The next packet of this type, once publishes are passed over."""
        while True:
            first, body = self.packet()
            if first >> 4 == kind:
                return body
            assert first >> 4 == 3, (first, body)


# ---- Kafka


def string(value):
    return struct.pack(">h", len(value)) + value.encode()


def request(key, version, body, correlation=1):
    head = struct.pack(">hhi", key, version, correlation) + string("client")
    return struct.pack(">i", len(head) + len(body)) + head + body


def number(value):
    """A number as records have it."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while True:
        out.append(value & 127 | (128 if value > 127 else 0))
        value >>= 7
        if not value:
            return bytes(out)


def record(at, value, headers=(), key=None):
    body = b"\0\0" + number(at) + (number(-1) if key is None else number(len(key)) + key)
    body += number(len(value)) + value + number(len(headers))
    for name, content in headers:
        body += number(len(name)) + name + number(len(content)) + content
    return number(len(body)) + body


def batch(records, count, codec=0):
    """A batch of encoded records, compressed by `codec` if that is not 0."""
    now = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", codec, count - 1, now, now, -1, -1, -1, count) + records
    inner = struct.pack(">ibI", 0, 2, crc32c.crc32c(body)) + body
    return struct.pack(">qi", 0, len(inner)) + inner


def produce(topic, batches):
    """A request with batches for partition 0."""
    body = struct.pack(">hhii", -1, -1, 60000, 1) + string(topic) + struct.pack(">i", len(batches))
    return request(0, 7, body + b"".join(struct.pack(">ii", 0, len(data)) + data for data in batches))


def create_topics(names, partitions):
    body = struct.pack(">i", len(names))
    body += b"".join(string(name) + struct.pack(">ihii", partitions, 1, 0, 0) for name in names)
    return request(19, 2, body + struct.pack(">ib", 60000, 0))


def delete_topics(names):
    return request(20, 1, struct.pack(">i", len(names)) + b"".join(map(string, names)) + struct.pack(">i", 60000))


def offset_commit(group, topic, partitions):
    body = string(group) + struct.pack(">i", -1) + string("") + struct.pack(">qi", -1, 1) + string(topic)
    body += struct.pack(">i", partitions)
    return request(8, 2, body + b"".join(struct.pack(">iqh", at, at, -1) for at in range(partitions)))


def offset_fetch_all(group):
    return request(9, 2, string(group) + struct.pack(">i", -1))


def delete_groups(names):
    return request(42, 0, struct.pack(">i", len(names)) + b"".join(map(string, names)))


METADATA_OF_ALL = request(3, 1, struct.pack(">i", -1))


class Kafka(Connection):
    def call(self, data):
        """The response, without its correlation id."""
        self.send(data)
        return self.response()

    def response(self):
        return self.exactly(struct.unpack(">i", self.exactly(4))[0])[4:]

    def produced(self, topic, *batches):
        """The error codes of the partitions."""
        answer = self.call(produce(topic, batches))
        at = 4 + 2 + len(topic) + 4
        return [struct.unpack(">h", answer[at + 30 * n + 4:at + 30 * n + 6])[0] for n in range(len(batches))]
