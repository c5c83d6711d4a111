"""Limits of a namespace over MQTT and Kafka, each in the protocol's own error; AMQP's are in test_namespaces.py."""

import queue

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from clients import QUIET, WAIT_SECONDS, Mqtt, java, mqtt, wait_until
from harness import binary, run


@pytest.fixture
def limited(own_broker, tmp_path):
    """Starts a broker whose user `ann` is at home in a namespace with limits, and may do everything there."""
    def start(**limits):
        config = tmp_path / "inver.toml"
        run([binary(), "user", "add", "ann", "--scram", "--config", config], stdin=b"secret\n")
        text = config.read_text().replace("[users]\nann = ", '[users.ann]\nnamespace = "plant"\ntags = ["administrator"]\npasswords = ')
        assert "passwords" in text, text
        config.write_text(text + '[[namespaces]]\nname = "plant"\n' + "".join(f"{key} = {value}\n" for key, value in limits.items()))
        return own_broker(arguments=["--config", config])
    return start


ANN = ("ann", "secret")


def kafka(broker, **more):
    return {"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
            "sasl.username": "ann", "sasl.password": "secret", **more}


def kafka_properties(path):
    path.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nrequest.timeout.ms=10000\n"
        'sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="ann" password="secret";\n')
    return path


def login_error(broker):
    said = []
    producer = confluent_kafka.Producer(kafka(broker, error_cb=said.append))

    def failed():
        producer.poll(0.02)
        return [error.str() for error in said if error.code() == KafkaError._AUTHENTICATION]

    return wait_until(failed, WAIT_SECONDS, "an authentication error")[0]


def create(broker, topic):
    """The error of creating a topic, or none."""
    admin = AdminClient(kafka(broker))
    try:
        admin.create_topics([NewTopic(topic, 1)])[topic].result(WAIT_SECONDS)
        return None
    except KafkaException as error:
        return error.args[0]


def produce(broker, topic, value=b"x", **more):
    producer = confluent_kafka.Producer(kafka(broker, **{"message.timeout.ms": 5000, **more}))
    errors = []
    producer.produce(topic, value, on_delivery=lambda error, _message: errors.append(error))
    producer.flush(WAIT_SECONDS)
    return errors[0]


def test_connections(limited, tmp_path):
    broker = limited(connections_max=1)
    with mqtt(broker, user=ANN):
        for version, code in ((5, 0x97), (4, 0x88)):
            # Paho shows code 3 of version 3.1.1 as "server unavailable" of version 5.
            assert Mqtt(broker, version=version, user=ANN).reason.value == code
        text = "Authentication failed: namespace `plant` has reached its limit of 1 connections"
        assert text in login_error(broker)
        said = java("console", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.kafka, "--command-config",
                    kafka_properties(tmp_path / "ann.properties"), "--list", check=False)
        assert text in said
    # Another namespace, and this one again, have room.
    assert Mqtt(broker, user=("/:ann", "secret")).reason.value == 0
    wait_until(lambda: Mqtt(broker, user=ANN).reason.value == 0, what="a free place")


@pytest.mark.parametrize("version, code", ((4, 0x88), (5, 0x97)))
def test_sessions(limited, version, code):
    broker = limited(sessions_max=1)
    kept = {"clean": False, "expiry": 60 if version == 5 else None, "version": version, "user": ANN}
    first = Mqtt(broker, "one", **kept)
    assert first.reason.value == 0
    first.subscribe("a")
    first.close()
    # The session stays without its client, and the place is taken.
    assert Mqtt(broker, "two", **kept).reason.value == code
    assert Mqtt(broker, "two", version=version, user=ANN).reason.value == code
    again = Mqtt(broker, "one", **kept)
    assert (again.reason.value, again.session_present) == (0, True)
    again.close()
    with mqtt(broker, "one", version=version, user=ANN):
        pass
    assert Mqtt(broker, "two", **kept).reason.value == 0, "the session is gone"


def test_topics(limited, tmp_path):
    broker = limited(topics_max=2)
    names = AdminClient(kafka(broker)).list_topics(timeout=WAIT_SECONDS).topics
    for number in range(2 - len(names)):
        assert create(broker, f"t{number}") is None
    error = create(broker, "more")
    assert (error.code(), "topics" in error.str()) == (KafkaError.POLICY_VIOLATION, True), error
    # One that a producer makes by naming it, too.
    assert produce(broker, "made-by-use", **{"allow.auto.create.topics": True}) is not None
    settings = kafka_properties(tmp_path / "ann.properties")
    said = java("console", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.kafka, "--command-config", settings,
                "--create", "--topic", "by-the-tool", check=False)
    assert "PolicyViolationException" in said or "topics" in said, said
    assert len(AdminClient(kafka(broker)).list_topics(timeout=WAIT_SECONDS).topics) == 2


def test_bytes_of_kafka_records(limited):
    broker = limited(bytes_max=100_000)
    assert create(broker, "t") is None
    refused = wait_until(lambda: produce(broker, "t", bytes(20_000)), 15, "a refusal")
    assert refused.code() == KafkaError.POLICY_VIOLATION, refused
    # What is stored is still read, and room is made by deleting it.
    consumer = confluent_kafka.Consumer(kafka(broker, **{"group.id": "g", "auto.offset.reset": "earliest"}))
    consumer.subscribe(["t"])
    assert wait_until(lambda: consumer.poll(0.2), what="a record").error() is None
    consumer.close()
    with mqtt(broker, user=ANN) as device:
        assert publish(device, "a/b") == "Quota exceeded", "bytes of every protocol are counted together"
    admin = AdminClient(kafka(broker))
    admin.delete_topics(["t"])["t"].result(WAIT_SECONDS)
    assert create(broker, "t") is None
    wait_until(lambda: produce(broker, "t") is None, what="room again")


def publish(device, topic, qos=1, payload=b"x"):
    """Publishes and returns the reason of the acknowledgement."""
    reasons = queue.Queue()
    device.client.on_publish = lambda _client, _data, _mid, reason, _properties: reasons.put(str(reason))
    device.client.publish(topic, payload, qos=qos)
    return reasons.get(timeout=WAIT_SECONDS)


def test_bytes_of_mqtt_messages(limited):
    broker = limited(bytes_max=100_000)
    with mqtt(broker, "kept", clean=False, expiry=600, user=ANN) as receiver:
        receiver.subscribe("a/#")
    with mqtt(broker, user=ANN) as device:
        wait_until(lambda: publish(device, "a/b", payload=bytes(20_000)) == "Quota exceeded", 15, "a refusal")
    old = Mqtt(broker, version=4, user=ANN)
    old.client.publish("a/b", b"x", qos=1)
    assert old.disconnects.get(timeout=WAIT_SECONDS) is not None, "MQTT 3.1.1 has no other way to refuse"
    with mqtt(broker, "kept", clean=False, expiry=600, user=ANN) as receiver:
        assert receiver.get().payload == bytes(20_000)
    with mqtt(broker, "kept", user=ANN):
        pass
    with mqtt(broker, user=ANN) as device:
        admin = AdminClient(kafka(broker))
        if "mqtt" in admin.list_topics(timeout=WAIT_SECONDS).topics:
            admin.delete_topics(["mqtt"])["mqtt"].result(WAIT_SECONDS)
        wait_until(lambda: publish(device, "a/b") != "Quota exceeded", what="room again")


@pytest.mark.parametrize("version, code", ((4, 0x80), (5, 0x97)))
def test_queues_that_mqtt_would_make(limited, version, code):
    """A shared subscription needs a queue of its own."""
    broker = limited(queues_max=1)
    with mqtt(broker, version=version, user=ANN) as device:
        assert not device.subscribe("$share/group/a/b")[0].is_failure
        assert device.subscribe("$share/other/a/b")[0].value == code
        assert not device.subscribe("a/b")[0].is_failure
        device.unsubscribe("$share/group/a/b")
