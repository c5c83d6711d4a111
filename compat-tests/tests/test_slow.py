"""A consumer that does not read: the broker stays within its limits, and other clients continue.

Each protocol's laggard asks for everything and then reads nothing from its socket, while many megabytes are published
that it should get, and a second consumer of the same gets all of them.
"""

import contextlib
import socket
import struct

import pika
import pytest

from clients import Mqtt, amqp, amqp_take, kafka_consumer, kafka_create, kafka_producer, kafka_take, mqtt
from harness import wait_until

MESSAGE = bytes(20_000)
COUNT = 5_000  # 100 MB
GROWTH_BYTES_MAX = 160 << 20  # the log's cache of recent entries (64 MiB) and each connection's buffers
FETCHED_BYTES_MAX = 256 << 20  # what all Kafka connections together may have fetched and not written yet


def stuck(port):
    """A connection with a tiny receive buffer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port))
    return connection


def exactly(connection, count):
    got = b""
    while len(got) < count:
        part = connection.recv(count - len(got))
        assert part, "the broker closed the connection"
        got += part
    return got


def stuck_mqtt(broker, topic, qos):
    connection = stuck(broker.mqtt_port)
    client_id = b"laggard"
    body = b"\0\4MQTT\4\2" + struct.pack(">H", 0) + struct.pack(">H", len(client_id)) + client_id
    connection.sendall(bytes([0x10, len(body)]) + body)
    exactly(connection, 4)
    name = topic.encode()
    body = struct.pack(">HH", 1, len(name)) + name + bytes([qos])
    connection.sendall(bytes([0x82, len(body)]) + body)
    exactly(connection, 5)
    return connection


def method(channel, class_, number, arguments=b""):
    body = struct.pack(">HH", class_, number) + arguments
    return struct.pack(">BHI", 1, channel, len(body)) + body + b"\xce"


def stuck_amqp(broker, queue):
    connection = stuck(broker.amqp_port)
    short = lambda text: bytes([len(text)]) + text.encode()

    def answer():
        _, _, size = struct.unpack(">BHI", exactly(connection, 7))
        return exactly(connection, size + 1)
    connection.sendall(b"AMQP\0\0\x09\x01")
    answer()
    login = b"\0guest\0guest"
    connection.sendall(method(0, 10, 11, struct.pack(">I", 0) + short("PLAIN") + struct.pack(">I", len(login)) + login
                              + short("en_US")))
    answer()
    connection.sendall(method(0, 10, 31, struct.pack(">HIH", 16, 131_072, 0)) + method(0, 10, 40, short("/") + b"\0\0"))
    answer()
    connection.sendall(method(1, 20, 10, b"\0"))
    answer()
    # Automatic acknowledgement and no prefetch limit.
    connection.sendall(method(1, 60, 20, struct.pack(">H", 0) + short(queue) + short("t") + b"\x02" +
                              struct.pack(">I", 0)))
    answer()
    return connection


def stuck_kafka(broker, topic):
    """Many fetch requests in a row, no response read."""
    connection = stuck(broker.kafka_port)
    name = topic.encode()
    body = struct.pack(">iiiib", -1, 0, 1, 50 << 20, 0) + struct.pack(">ih", 1, len(name)) + name
    body += struct.pack(">iiqi", 1, 0, 0, 50 << 20)
    header = struct.pack(">hhih", 1, 4, 7, -1)
    connection.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        for _ in range(2_000):
            connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
    return connection


@pytest.fixture
def grown(own_broker):
    broker = own_broker()
    # Warm up: allocations at first use are not growth.
    with mqtt(broker) as client, amqp(broker):
        client.publish("warm", MESSAGE)
    before = broker.rss_bytes()
    broker.growth_bytes_max = GROWTH_BYTES_MAX
    yield broker
    growth = broker.rss_bytes() - before
    assert growth < broker.growth_bytes_max, f"grew by {growth >> 20} MiB"


def publish_by_kafka(broker, topic, count=COUNT):
    producer = kafka_producer(broker)
    for n in range(count):
        while True:
            with contextlib.suppress(BufferError):
                producer.produce(topic, MESSAGE)
                break
            producer.poll(0.1)
    assert producer.flush(60) == 0


@pytest.mark.parametrize("qos", [0, 1])
def test_mqtt(grown, unique, qos):
    kafka_create(grown, unique)
    # The other session is durable, so its queued messages are in the log and not in memory.
    keeping = {"client_id": f"{unique}-other", "clean": False, "expiry": 600}
    with contextlib.closing(stuck_mqtt(grown, unique, qos)), mqtt(grown, **keeping) as other:
        other.subscribe(unique, 1)
        publish_by_kafka(grown, unique)
        for _ in range(COUNT):
            assert len(other.get(30).payload) == len(MESSAGE)


def test_amqp(grown, unique):
    with amqp(grown) as channel:
        for queue in (f"{unique}-slow", f"{unique}-other"):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.topic", unique)
        kafka_create(grown, unique)
        with contextlib.closing(stuck_amqp(grown, f"{unique}-slow")):
            publish_by_kafka(grown, unique)
            assert len(amqp_take(channel, f"{unique}-other", COUNT, ack=False)) == COUNT


def test_amqp_queue_in_memory(grown, unique):
    """A transient queue spills to the log at its memory limit."""
    with amqp(grown, confirm=False) as channel:
        channel.queue_declare(unique)
        with contextlib.closing(stuck_amqp(grown, unique)):
            for _ in range(COUNT):
                channel.basic_publish("", unique, MESSAGE)
            # A round trip of another client meanwhile.
            with mqtt(grown) as client:
                client.subscribe("ping")
                client.publish("ping", b"x")
                assert client.get().payload == b"x"


def test_kafka(grown, unique):
    grown.growth_bytes_max += FETCHED_BYTES_MAX
    kafka_create(grown, unique)
    publish_by_kafka(grown, unique)
    with contextlib.closing(stuck_kafka(grown, unique)), kafka_consumer(grown, unique) as other:
        assert len(kafka_take(other, COUNT, 60)) == COUNT


def test_members_of_one_subscription(grown, unique):
    """A member that does not read keeps its unacked messages; the other receives the rest."""
    kafka_create(grown, unique, partitions=2)
    with contextlib.closing(stuck_mqtt(grown, f"$share/g/{unique}", 1)), amqp(grown) as channel:
        channel.basic_qos(prefetch_count=50)
        got = []
        channel.basic_consume(unique, lambda ch, m, _p, body: (got.append(body), ch.basic_ack(m.delivery_tag)),
                              arguments={"x-subscription": "g"})
        publish_by_kafka(grown, unique, 1_000)
        # The default receive maximum and the socket buffers limit what it holds.
        def came():
            channel.connection.process_data_events(0.05)
            return len(got) >= 400
        wait_until(came, 30, "the other member working on")
