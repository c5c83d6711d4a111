"""The hub and Kafka topics: what the topic setting `inver.hub` and the configuration key `hub.default` let pass."""

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from clients import (amqp, amqp_get, kafka_admin, kafka_create, kafka_producer, kafka_read_all, kafka_send, mqtt)
from harness import run

INTERNAL = ["_schemas", "__offsets", "connect-configs", "docker-connect-offsets",
            "app-STATE-STORE-0000000003-changelog", "app-STATE-STORE-0000000003-repartition", "mm2-offsets.a.internal"]


class Everyone:
    """Subscribers of everything and of one address, over MQTT and AMQP."""

    def __init__(self, broker, topic):
        self.address = topic.replace(".", "/")
        self.contexts = [mqtt(broker), mqtt(broker), amqp(broker)]
        self.wild, self.exact, self.channel = (context.__enter__() for context in self.contexts)
        self.wild.subscribe("#", 1)
        self.exact.subscribe(self.address, 1)
        self.queues = {}
        for key in ("#", topic):
            self.queues[key] = self.channel.queue_declare("", exclusive=True).method.queue
            self.channel.queue_bind(self.queues[key], "amq.topic", key)
        self.topic = topic

    def next(self):
        """The next message of each: MQTT and AMQP by wildcard, then MQTT and AMQP by name."""
        by_wildcard = [self.wild.get().payload, amqp_get(self.channel, self.queues["#"])[2]]
        by_name = [self.exact.get().payload, amqp_get(self.channel, self.queues[self.topic])[2]]
        return by_wildcard, by_name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for context in self.contexts:
            context.__exit__(None, None, None)


def heard(broker, everyone, value=b"record"):
    """Whether a record of the topic is received by wildcard and by name."""
    kafka_send(broker, everyone.topic, value)
    everyone.channel.basic_publish("amq.topic", everyone.topic, b"end")
    found = everyone.next()
    for received in (*found[0], *found[1]):
        assert received in (value, b"end")
    by_wildcard, by_name = (set(received) for received in found)
    assert len(by_wildcard) == len(by_name) == 1, "MQTT and AMQP clients receive the same"
    for received in (by_wildcard, by_name):
        if value in received:
            everyone_end(everyone, by_wildcard is received)
    return value in by_wildcard, value in by_name


def everyone_end(everyone, by_wildcard):
    """Takes the message that ends a round from those that received the record before it."""
    client, key = (everyone.wild, "#") if by_wildcard else (everyone.exact, everyone.topic)
    assert client.get().payload == amqp_get(everyone.channel, everyone.queues[key])[2] == b"end"


def alter(broker, topic, value):
    entry = ConfigEntry("inver.hub", value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = kafka_admin(broker)
    admin.incremental_alter_configs([resource])[resource].result(15)


def described(broker, topic):
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = kafka_admin(broker)
    return admin.describe_configs([resource])[resource].result(15)["inver.hub"].value


def test_a_topic_is_named_until_its_setting_changes(own_broker):
    broker = own_broker()
    kafka_create(broker, "a.b")
    with Everyone(broker, "a.b") as everyone:
        assert described(broker, "a.b") == "named"
        assert heard(broker, everyone) == (False, True)
        alter(broker, "a.b", "open")
        assert heard(broker, everyone) == (True, True)
        alter(broker, "a.b", "off")
        assert heard(broker, everyone) == (False, False)
        # What was published at the address while it was off is not in the topic.
        assert [r.value() for r in kafka_read_all(broker, "a.b")] == [b"record", b"end", b"record", b"end", b"record"]
    broker.restart()
    assert described(broker, "a.b") == "off"


@pytest.mark.parametrize("default,by_wildcard,by_name", [("open", True, True), ("off", False, False)])
def test_the_default_is_a_configuration_key(own_broker, default, by_wildcard, by_name):
    broker = own_broker(environment={"INVER_HUB_DEFAULT": default})
    kafka_create(broker, "a.b")
    kafka_create(broker, "own.named", **{"inver.hub": "named"})
    assert (described(broker, "a.b"), described(broker, "own.named")) == (default, "named")
    with Everyone(broker, "a.b") as everyone:
        assert heard(broker, everyone) == (by_wildcard, by_name)
    with Everyone(broker, "own.named") as everyone:
        assert heard(broker, everyone) == (False, True)


@pytest.mark.parametrize("topic", INTERNAL)
def test_internal_topics_never_meet_the_hub(own_broker, topic):
    broker = own_broker(environment={"INVER_HUB_DEFAULT": "open"})
    kafka_create(broker, topic)
    assert described(broker, topic) == "off"
    with Everyone(broker, topic) as everyone:
        assert heard(broker, everyone, b"secret") == (False, False)
        everyone.exact.publish(everyone.address, b"by mqtt")
        everyone.channel.basic_publish("amq.topic", topic, b"by amqp")
        kafka_send(broker, topic, b"by name", headers=[("mqtt-topic", everyone.address.encode())])
        # One of them is guaranteed, the other one is not: their order is not promised.
        assert sorted(everyone.exact.take(2)) == [b"by amqp", b"by mqtt"]
    assert [record.value() for record in kafka_read_all(broker, topic)] == [b"secret", b"by name"]
    with pytest.raises(KafkaException, match="always off"):
        alter(broker, topic, "open")


def test_an_internal_topic_cannot_be_created_with_another_setting(broker, unique):
    with pytest.raises(KafkaException, match="always off"):
        kafka_create(broker, f"_{unique}", **{"inver.hub": "open"})
    with pytest.raises(KafkaException, match="inver.hub"):
        kafka_create(broker, unique, **{"inver.hub": "closed"})


@pytest.mark.parametrize("mode,goes", [("named", True), ("open", True), ("off", False)])
def test_a_record_with_an_address_goes_there_unless_the_topic_is_off(broker, unique, mode, goes):
    topic, device = f"{unique}-commands", f"{unique}/device/set"
    kafka_create(broker, topic, **{"inver.hub": mode})
    kafka_create(broker, device.replace("/", "."))
    with mqtt(broker) as client, amqp(broker) as channel:
        client.subscribe(f"{unique}/+/set")
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", f"{unique}.#")
        producer = kafka_producer(broker, linger_ms=50)
        producer.produce(topic, b"plain")
        producer.produce(topic, b"open", headers=[("mqtt-topic", device.encode())])
        assert producer.flush(15) == 0
        client.publish(device, b"end")
        wanted = [b"open", b"end"] if goes else [b"end"]
        assert client.take(len(wanted)) == wanted
        assert [amqp_get(channel, queue)[2] for _ in wanted] == wanted
        # A log topic of that name has what was published at its address.
        assert [record.value() for record in kafka_read_all(broker, device.replace("/", "."))] == wanted


def test_kcat_and_mosquitto(broker, unique):
    """The same with two other clients."""
    topic = f"{unique}.b"
    kafka_create(broker, topic)
    with mqtt(broker) as wild, mqtt(broker) as exact:
        wild.subscribe(f"{unique}/#")
        exact.subscribe(f"{unique}/b")
        run(["kcat", "-P", "-b", broker.kafka, "-t", topic], stdin=b"record")
        run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.mqtt_port), "-q", "1", "-t", f"{unique}/b",
             "-m", "publish"])
        assert exact.take(2) == [b"record", b"publish"]
        assert wild.take(1) == [b"publish"]
    assert [record.value() for record in kafka_read_all(broker, topic)] == [b"record", b"publish"]
