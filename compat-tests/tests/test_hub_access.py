"""Permissions where Kafka topics meet the hub: a binding passes on what its client may read, a record goes to the address
where its producer may publish, a publish is appended to the topic that its client may write."""

import base64
import hashlib

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from clients import QUIET, amqp, amqp_get

TOPICS = {"orders.new": {}, "commands": {}, "device.1": {}}

# ann may read the topic `orders.new`, and write `device.1` through the hub; bob may do neither. Both may use the hub.
RULES = [
    ("ann", "topic", ["read"], 'name = "orders.new"'), ("ann", "topic", ["write"], 'name = "device.1"'),
    *((user, "namespace", ["connect"], "") for user in ("ann", "bob")),
    *((user, "exchange", ["all"], "") for user in ("ann", "bob")),
    *((user, "address", ["all"], "") for user in ("ann", "bob")),
    *((user, "topic", ["configure", "write", "read"], f'prefix = "{user}-"') for user in ("ann", "bob")),
    # The producer may publish at one address.
    ("kim", "topic", ["write", "describe"], 'name = "commands"'),
    ("kim", "address", ["write"], 'name = "device/1"'),
]


def password(text):
    salt = b"salt"
    digest = hashlib.sha256(salt + text.encode()).digest()
    return "$salted-sha256$before$" + "$".join(base64.b64encode(part).decode() for part in (salt, digest))


def configuration():
    users = [f'[users.{name}]\npasswords = ["{password(name)}"]\ntags = {tags}\n'
             for name, tags in [("root", ["administrator"]), ("ann", []), ("bob", []), ("kim", [])]]
    rules = [f'[[permissions]]\nuser = "{user}"\nkind = "{kind}"\noperations = {operations}\n{pattern}\n'
             for user, kind, operations, pattern in RULES]
    return "\n".join(users + rules)


def client(broker, user, **more):
    return {"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN", "sasl.username": user, "sasl.password": user, **more}


def send(broker, user, topic, *records):
    producer = Producer(client(broker, user, **{"linger.ms": 50, "acks": "all"}))
    failed = []
    for value, address in records:
        headers = [("mqtt-topic", address)] if address else None
        producer.produce(topic, value, headers=headers, on_delivery=lambda error, _: error and failed.append(error))
    assert producer.flush(15) == 0 and not failed


def end_offset(broker, topic):
    consumer = Consumer(client(broker, "root", **{"group.id": "g"}))
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), 15)[1]
    finally:
        consumer.close()


@pytest.fixture
def broker(own_broker, tmp_path):
    path = tmp_path / "inver.toml"
    path.write_text(configuration())
    broker = own_broker(arguments=["--config", path])
    admin = AdminClient(client(broker, "root"))
    for future in admin.create_topics([NewTopic(name, 1, 1, config=config) for name, config in TOPICS.items()]).values():
        future.result(15)
    return broker


def bound(channel, queue, key):
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, "amq.topic", key)


def test_a_binding_passes_on_what_its_client_may_read(broker):
    for restarts in (False, True):
        if restarts:
            broker.restart()
        with amqp(broker, user="ann", password="ann") as ann, amqp(broker, user="bob", password="bob") as bob:
            if not restarts:
                bound(ann, "ann-q", "orders.new")
                bound(bob, "bob-q", "orders.new")
            send(broker, "root", "orders.new", (b"record", None))
            # A publish is not the topic's own record: both receive it.
            bob.basic_publish("amq.topic", "orders.new", b"publish")
            assert [amqp_get(ann, "ann-q")[2] for _ in range(2)] == [b"record", b"publish"]
            assert amqp_get(bob, "bob-q")[2] == b"publish"
    assert end_offset(broker, "orders.new") == 2, "bob may not write the topic"


def test_a_record_goes_to_the_address_where_its_producer_may_publish(broker):
    with amqp(broker, user="ann", password="ann") as ann:
        bound(ann, "ann-q", "device.*")
        send(broker, "kim", "commands", (b"forbidden", "device/2"), (b"on", "device/1"))
        assert amqp_get(ann, "ann-q")[2] == b"on"
        assert end_offset(broker, "device.1") == 0, "the producer may not write the topic of that name"
        ann.basic_publish("amq.topic", "device.1", b"by ann")
        assert amqp_get(ann, "ann-q")[2] == b"by ann"
        assert end_offset(broker, "device.1") == 1
    assert end_offset(broker, "commands") == 2
