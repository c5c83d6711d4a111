"""Publish with a real client of each protocol, consume with all three, byte for byte; and what the Kafka topic's setting
`inver.hub` lets pass in each of the nine directions.

The address holds a dot inside an MQTT level, so that its name has to be escaped on the way and back.
"""

import os
import time

import pytest

from clients import (Mqtt, amqp, amqp_get, amqp_take, kafka_consumer, kafka_create, kafka_producer, kafka_read,
                     kafka_send, kafka_take, mqtt)

PAYLOADS = {
    "every-byte": bytes(range(256)),
    "text": "Grüße, 水, 🌊".encode(),
    "large": os.urandom(200_000),
    "one-byte": b"\0",
}


def slashed(unique):
    return f"{unique}/a.b/c"


def dotted(unique):
    return f"{unique}.a%2Eb.c"


def publish_by_mqtt(broker, unique, payload):
    with mqtt(broker) as client:
        client.publish(slashed(unique), payload, qos=1)


def publish_by_amqp(broker, unique, payload):
    with amqp(broker) as channel:
        channel.basic_publish("amq.topic", dotted(unique), payload, mandatory=True)


def publish_by_kafka(broker, unique, payload):
    kafka_send(broker, dotted(unique), payload)


class ByMqtt:
    """An MQTT subscription."""

    def __init__(self, broker, unique, wildcard=False):
        self.client = Mqtt(broker)
        self.wanted = slashed(unique)
        self.client.subscribe(f"{unique}/#" if wildcard else self.wanted, 1)

    def take(self):
        message = self.client.get()
        assert message.topic == self.wanted
        return message.payload

    def close(self):
        self.client.close()


class ByAmqp:
    """A queue bound to the hub."""

    def __init__(self, broker, unique, wildcard=False):
        self.context = amqp(broker)
        self.channel = self.context.__enter__()
        self.wanted = dotted(unique)
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(self.queue, "amq.topic", f"{unique}.#" if wildcard else self.wanted)

    def take(self):
        method, _, body = amqp_get(self.channel, self.queue)
        # A record of a Kafka topic also reaches the hub, under the topic's name.
        assert method.routing_key == self.wanted
        return body

    def close(self):
        self.context.__exit__(None, None, None)


class ByKafka:
    """A Kafka topic of that name, created before the publish."""

    def __init__(self, broker, unique):
        self.broker, self.topic = broker, dotted(unique)
        kafka_create(broker, self.topic)

    def take(self):
        return kafka_read(self.broker, self.topic, 1)[0].value()

    def close(self):
        pass


PUBLISHERS = {"mqtt": publish_by_mqtt, "amqp": publish_by_amqp, "kafka": publish_by_kafka}
CONSUMERS = {"mqtt": ByMqtt, "amqp": ByAmqp, "kafka": ByKafka}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_nine_directions(broker, unique, publisher, consumer, payload):
    if publisher == "kafka" and consumer != "kafka":
        kafka_create(broker, dotted(unique))
    receiver = CONSUMERS[consumer](broker, unique)
    try:
        PUBLISHERS[publisher](broker, unique, payload)
        assert receiver.take() == payload
    finally:
        receiver.close()


def passes(mode, publisher, consumer, wildcard):
    """Whether a message passes, by docs/cross-protocol.md."""
    if "kafka" not in (publisher, consumer) or publisher == consumer:
        return True
    return mode == "open" or (mode == "named" and not wildcard)


@pytest.mark.parametrize("publisher", PUBLISHERS)
@pytest.mark.parametrize("mode", ["named", "open", "off"])
def test_the_setting_of_the_topic_says_what_passes(broker, unique, mode, publisher):
    """Each of the three is read by its name, and, where the protocol has wildcards, by one that matches."""
    kafka_create(broker, dotted(unique), **{"inver.hub": mode})
    receivers = {(name, wildcard): CONSUMERS[name](broker, unique, wildcard)
                 for name in ("mqtt", "amqp") for wildcard in (False, True)}
    try:
        PUBLISHERS[publisher](broker, unique, b"message")
        # What arrives next tells whether the message did.
        publish_by_mqtt(broker, unique, b"end")
        publish_by_kafka(broker, unique, b"end")
        for (name, wildcard), receiver in receivers.items():
            wanted = b"message" if passes(mode, publisher, name, wildcard) else b"end"
            assert receiver.take() == wanted, (name, wildcard)
        record = kafka_read(broker, dotted(unique), 1)[0]
        assert record.value() == (b"message" if passes(mode, publisher, "kafka", False) else b"end")
    finally:
        for receiver in receivers.values():
            receiver.close()


@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_one_publish_reaches_all_three_at_once(broker, unique, publisher):
    receivers = [ByKafka(broker, unique), ByMqtt(broker, unique), ByAmqp(broker, unique)]
    try:
        PUBLISHERS[publisher](broker, unique, b"to everyone")
        assert [receiver.take() for receiver in receivers] == [b"to everyone"] * 3
    finally:
        for receiver in receivers:
            receiver.close()


@pytest.mark.parametrize("level", ["plain", "a.b", "50%", "a%2Eb", "%252E", "ünï.x", "..", "%2"])
def test_addresses_are_escaped_reversibly(broker, unique, level):
    """A level with dots and percent signs survives MQTT → AMQP → MQTT."""
    topic = f"{unique}/{level}/end"
    with mqtt(broker) as client, amqp(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", f"{unique}.#")
        client.publish(topic, b"there")
        method, _, body = amqp_get(channel, queue)
        assert body == b"there"
        assert method.routing_key.count(".") == 2, "a level is one word"
        client.subscribe(topic)
        channel.basic_publish("amq.topic", method.routing_key, b"back")
        message = client.get()
        assert (message.topic, message.payload) == (topic, b"back")


def test_mqtt_data_is_in_the_kafka_topic_mqtt_without_configuration(broker, unique):
    topics = [f"{unique}/room{room}/temp" for room in range(3)]
    with mqtt(broker) as client, kafka_consumer(broker, "mqtt") as consumer:
        for round_ in range(5):
            for topic in topics:
                client.publish(topic, f"{topic} {round_}".encode(), qos=round_ % 3)
        mine = []
        deadline = time.monotonic() + 30
        while len(mine) < 15:
            assert time.monotonic() < deadline
            mine += [m for m in kafka_take(consumer, 1) if (m.key() or b"").startswith(unique.encode() + b"/")]
    for topic in topics:
        of_topic = [message for message in mine if message.key() == topic.encode()]
        assert [message.value() for message in of_topic] == [f"{topic} {n}".encode() for n in range(5)]
        assert len({message.partition() for message in of_topic}) == 1, "a key maps to one partition"


def test_a_system_topic_is_not_captured(broker, unique):
    with mqtt(broker) as client:
        client.publish(f"$private/{unique}", b"no", qos=1)
        client.publish(f"{unique}/after", b"yes", qos=1)
    with kafka_consumer(broker, "mqtt") as consumer:
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline
            record = kafka_take(consumer, 1)[0]
            assert record.key() != f"$private/{unique}".encode()
            if record.key() == f"{unique}/after".encode():
                break


def test_a_kafka_topic_is_shared_by_two_amqp_consumers(broker, unique):
    kafka_create(broker, unique, partitions=3)
    with amqp(broker) as one, amqp(broker) as two:
        arguments = {"x-subscription": "workers"}
        got = {1: [], 2: []}
        for number, channel in ((1, one), (2, two)):
            channel.basic_qos(prefetch_count=5)
            def take(ch, method, _properties, body, number=number):
                got[number].append(body)
                ch.basic_ack(method.delivery_tag)
            channel.basic_consume(unique, take, arguments=arguments)
        producer = kafka_producer(broker)
        wanted = [f"job {n}".encode() for n in range(200)]
        for n, body in enumerate(wanted):
            producer.produce(unique, body, partition=n % 3)
        assert producer.flush(15) == 0
        deadline = time.monotonic() + 20
        while len(got[1]) + len(got[2]) < len(wanted):
            assert time.monotonic() < deadline, f"{len(got[1])} + {len(got[2])} of {len(wanted)} messages arrived"
            one.connection.process_data_events(0.01)
            two.connection.process_data_events(0.01)
        assert sorted(got[1] + got[2]) == sorted(wanted), "each message was delivered once"
        assert got[1] and got[2], "both consumers received messages"
    # Acknowledging removes nothing from the topic's other consumers.
    assert sorted(m.value() for m in kafka_read(broker, unique, len(wanted))) == sorted(wanted)


def test_unacked_messages_of_one_amqp_consumer_go_to_another(broker, unique):
    kafka_create(broker, unique)
    arguments = {"x-subscription": "workers"}
    kafka_send(broker, unique, b"job")
    with amqp(broker) as two:
        with amqp(broker) as one:
            taken = amqp_take(one, unique, 1, ack=False, arguments=arguments)
            assert taken[0][2] == b"job" and not taken[0][0].redelivered
        again = amqp_take(two, unique, 1, arguments=arguments)
        assert again[0][2] == b"job" and again[0][0].redelivered


def test_a_kafka_client_reads_a_durable_amqp_queue(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        for n in range(10):
            channel.basic_publish("", unique, f"order {n}".encode())
        records = kafka_read(broker, unique, 10)
        assert [record.value() for record in records] == [f"order {n}".encode() for n in range(10)]
        # Reading over Kafka removes nothing.
        assert [body for _, _, body in amqp_take(channel, unique, 10)] == [f"order {n}".encode() for n in range(10)]


def test_a_kafka_client_writes_to_a_durable_amqp_queue(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        producer = kafka_producer(broker)
        for n in range(10):
            kafka_send(broker, unique, f"order {n}".encode(), key=b"k", producer=producer)
        assert [body for _, _, body in amqp_take(channel, unique, 10)] == [f"order {n}".encode() for n in range(10)]
        assert channel.queue_declare(unique, passive=True).method.message_count == 0


def test_a_kafka_producer_commands_a_device(broker, unique):
    kafka_create(broker, f"{unique}-commands")
    with mqtt(broker) as device:
        device.subscribe(f"{unique}/device.7/command")
        kafka_send(broker, f"{unique}-commands", b"open", headers=[("mqtt-topic", f"{unique}/device.7/command")])
        message = device.get()
        assert (message.topic, message.payload) == (f"{unique}/device.7/command", b"open")
