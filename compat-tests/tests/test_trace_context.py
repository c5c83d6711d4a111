"""W3C trace context: `traceparent` and `tracestate` reach consumers of every protocol as headers or user properties."""

import pika
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import amqp, amqp_get, kafka_consumer, kafka_create, kafka_send, kafka_take, mqtt

CONTEXT = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=opaque,other=1",
}


def of_kafka(record):
    return {name: value.decode() for name, value in record.headers() or [] if name in CONTEXT}


def of_mqtt(message):
    return {name: value for name, value in message.properties.UserProperty if name in CONTEXT}


def of_amqp(properties):
    return {name: value for name, value in (properties.headers or {}).items() if name in CONTEXT}


@pytest.fixture
def user_properties():
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = list(CONTEXT.items())
    return properties


def test_from_mqtt(own_broker, user_properties):
    broker = own_broker()
    with amqp(broker) as channel, mqtt(broker) as client, kafka_consumer(broker, "mqtt", group="g") as consumer:
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "amq.topic", "a.b")
        client.subscribe("a/b")
        client.publish("a/b", b"x", properties=user_properties)
        assert of_mqtt(client.get()) == CONTEXT
        assert of_amqp(amqp_get(channel, "q")[1]) == CONTEXT
        assert of_kafka(kafka_take(consumer, 1)[0]) == CONTEXT


def test_from_amqp(own_broker):
    broker = own_broker()
    with amqp(broker) as channel, mqtt(broker) as client:
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "amq.topic", "a.b")
        client.subscribe("a/b")
        channel.basic_publish("amq.topic", "a.b", b"x", pika.BasicProperties(headers=dict(CONTEXT)))
        assert of_mqtt(client.get()) == CONTEXT
        with kafka_consumer(broker, "q", group="g") as consumer:
            assert of_kafka(kafka_take(consumer, 1)[0]) == CONTEXT
        assert of_amqp(amqp_get(channel, "q")[1]) == CONTEXT


def test_from_kafka(own_broker):
    broker = own_broker()
    kafka_create(broker, "t", 1)
    with amqp(broker) as channel, mqtt(broker) as client:
        channel.queue_declare("q", durable=True)
        client.subscribe("$share/group/t")
        kafka_send(broker, "t", b"x", headers=list(CONTEXT.items()))
        kafka_send(broker, "q", b"x", headers=list(CONTEXT.items()))
        assert of_mqtt(client.get()) == CONTEXT
        assert of_amqp(amqp_get(channel, "q")[1]) == CONTEXT
