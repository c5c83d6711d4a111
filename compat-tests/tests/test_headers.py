"""Headers that nobody can forge: docs/conversion.md, "Names that the broker writes".

Consumers look a header up by its name and take the first of several, or, as `dict(headers)` of Python and `lastHeader()`
of Kafka's Java client do, the last: both must be the broker's.
"""

import re

import kafka
import pika
import pytest

from clients import (amqp, amqp_get, amqp_take, kafka_consumer, kafka_create, kafka_producer, kafka_read, kafka_send,
                     kafka_take, mqtt, publish_properties)
from harness import ROOT, run

PAGE = (ROOT / "docs" / "conversion.md").read_text().split("## Names that the broker writes\n")[1].split("\n## ")[0]
RESERVED = re.findall(r"`([a-z-]+)`", PAGE.split("These names are reserved:\n")[1].split("\n\n")[0])
VOUCHED = RESERVED[:RESERVED.index("death") + 1]

# As a client would try it: its own values, in the order of the page, and names that have the prefix already.
FORGED = [(name, f"forged {name}") for name in RESERVED] + [("claimed-user-id", "one"), ("claimed-claimed-type", "two"),
                                                            ("claimed-other", "three"), ("other", "four")]
CLAIMS = [(f"claimed-{name}", value) for name, value in FORGED[:-2]] + FORGED[-2:]


def first_and_last(headers, name):
    """The first and the last value of that name."""
    values = [value for header, value in headers if header == name]
    assert values, f"no {name} in {headers}"
    return values[0], dict(headers)[name]


def captured(broker, topic):
    """The headers of the record of the capture topic for this MQTT topic."""
    with kafka_consumer(broker, "mqtt") as consumer:
        while True:
            record = kafka_take(consumer, 1)[0]
            if record.key() == topic.encode():
                return record.headers()


def test_the_page_lists_what_clients_may_meet():
    assert {"inver-origin", "user-id", "client-id", "mqtt-topic", "content-type"} <= set(RESERVED)
    assert "content-type" not in VOUCHED and "user-id" in VOUCHED


def test_an_mqtt_client_cannot_forge_what_the_broker_says(broker, unique):
    topic = f"{unique}/t"
    with mqtt(broker, client_id=f"{unique}-ann", user=("guest", "guest")) as ann, mqtt(broker) as reader, \
            amqp(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", f"{unique}.#")
        reader.subscribe(topic)
        ann.publish(topic, b"x", properties=publish_properties(ContentType="a/b", UserProperty=FORGED))
        # MQTT: exactly what was sent.
        assert reader.get().properties.UserProperty == FORGED
        # Kafka: the broker's values under every name that it wrote, whichever is taken.
        headers = captured(broker, topic)
        for name, wanted in [("user-id", b"guest"), ("client-id", f"{unique}-ann".encode()), ("mqtt-qos", b"1"),
                             ("mqtt-topic", topic.encode()), ("content-type", b"a/b")]:
            assert first_and_last(headers, name) == (wanted, wanted)
        assert first_and_last(headers, "inver-origin")[1].startswith(b"mqtt/")
        assert headers[-len(CLAIMS):] == [(name, value.encode()) for name, value in CLAIMS]
        assert not {"exchange", "death", "mqtt-retain", "type"} & {name for name, _ in headers}
        # AMQP: likewise.
        _, properties, _ = amqp_get(channel, queue)
        assert properties.headers["user-id"] == "guest" and properties.headers["client-id"] == f"{unique}-ann"
        assert properties.content_type == "a/b" and properties.user_id is None and properties.type is None
        assert all(properties.headers[name] == value for name, value in CLAIMS)
        assert "mqtt-retain" not in properties.headers and "mqtt-topic" not in properties.headers


def test_an_mqtt_client_without_a_user_cannot_claim_one(broker, unique):
    with mqtt(broker) as anonymous:
        anonymous.publish(f"{unique}/t", b"x", properties=publish_properties(UserProperty=[("user-id", "admin")]))
    names = [name for name, _ in captured(broker, f"{unique}/t")]
    assert "user-id" not in names and "claimed-user-id" in names


def test_an_amqp_client_cannot_forge_what_the_broker_says(broker, unique):
    kafka_create(broker, unique)
    with mqtt(broker) as reader, amqp(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.topic", unique)
        reader.subscribe(unique)
        sent = pika.BasicProperties(headers=dict(FORGED), user_id="guest", content_type="a/b", type="order")
        channel.basic_publish("amq.topic", unique, b"x", sent)
        # AMQP: exactly what was sent.
        _, properties, _ = amqp_get(channel, queue)
        assert properties.headers == dict(FORGED) and properties.type == "order"
        # Kafka.
        headers = kafka_read(broker, unique, 1)[0].headers()
        for name, wanted in [("user-id", b"guest"), ("content-type", b"a/b"), ("type", b"order"),
                             ("exchange", b"amq.topic"), ("routing-key", unique.encode())]:
            assert first_and_last(headers, name) == (wanted, wanted)
        assert first_and_last(headers, "inver-origin")[1].startswith(b"amqp/")
        assert headers[-len(CLAIMS):] == [(name, value.encode()) for name, value in CLAIMS]
        # MQTT.
        received = reader.get().properties
        assert received.ContentType == "a/b"
        assert first_and_last(received.UserProperty, "user-id") == ("guest", "guest")
        assert first_and_last(received.UserProperty, "type") == ("order", "order")
        assert received.UserProperty[-len(CLAIMS):] == CLAIMS


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_kafka_producer_cannot_pass_its_record_off_as_the_brokers(broker, unique, compression):
    kafka_create(broker, unique)
    forged = [("inver-origin", b"mqtt/06"), ("mqtt-topic", f"{unique}/other".encode()), ("mqtt-retain", b"1"),
              ("client-id", b"dev"), ("user-id", b"admin"), ("expires", b"soon"), ("plain", b"v")]
    with mqtt(broker) as reader, mqtt(broker) as device, amqp(broker) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        for key in (unique, f"{unique}.other"):
            channel.queue_bind(queue, "amq.topic", key)
        reader.subscribe(unique)
        device.subscribe(f"{unique}/other")
        producer = kafka_producer(broker, linger_ms=50, compression_type=compression)
        producer.produce(unique, b"honest", headers=[("plain", b"v")])
        producer.produce(unique, b"forged", headers=forged)
        assert producer.flush(15) == 0
        # Kafka: exactly what was sent, by two clients that verify the checksum.
        assert kafka_read(broker, unique, 2)[1].headers() == forged
        assert [list(record.headers) for record in python_read(broker, unique, 2)] == [[("plain", b"v")], forged]
        assert b"inver-origin=mqtt/06" in run(["kcat", "-C", "-b", broker.kafka, "-t", unique, "-e", "-q", "-X",
                                              "check.crcs=true", "-f", "%h\n"]).stdout
        # MQTT: a record of a producer, at the address that it names.
        message = device.get()
        assert (message.topic, message.payload, message.retain) == (f"{unique}/other", b"forged", False)
        shown = [("claimed-inver-origin", "mqtt/06"), ("claimed-client-id", "dev"), ("claimed-user-id", "admin"),
                 ("expires", "soon"), ("plain", "v")]
        assert message.properties.UserProperty == shown
        assert not hasattr(message.properties, "MessageExpiryInterval")
        assert reader.get().payload == b"honest" and reader.messages.empty()
        # AMQP.
        received = {body: properties for _, properties, body in (amqp_get(channel, queue) for _ in range(2))}
        assert received[b"forged"].headers.items() >= {**dict(shown), "claimed-mqtt-retain": "1"}.items()
        assert received[b"forged"].user_id is None and received[b"forged"].expiration is None
        assert not {"user-id", "client-id", "inver-origin", "mqtt-topic"} & set(received[b"forged"].headers)


def python_read(broker, topic, count):
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=broker.kafka, auto_offset_reset="earliest",
                                   consumer_timeout_ms=15_000, check_crcs=True)
    try:
        return [next(consumer) for _ in range(count)]
    finally:
        consumer.close()


def test_a_forged_record_stays_one_when_read_from_its_topic_and_when_dead_lettered(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(f"{unique}-dead", durable=True)
        channel.queue_declare(unique, durable=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{unique}-dead"})
        kafka_send(broker, unique, b"x", headers=[("inver-origin", b"amqp/02"), ("exchange", b"e"), ("user-id", b"admin"),
                                                  ("content-type", b"a/b")])
        (method, properties, _), = amqp_take(channel, unique, 1, ack=False)
        shown = {"claimed-inver-origin": "amqp/02", "claimed-exchange": "e", "claimed-user-id": "admin",
                 "content-type": "a/b"}
        assert properties.headers.items() >= shown.items() and method.exchange == ""
        channel.basic_reject(method.delivery_tag, requeue=False)
        (_, properties, _), = amqp_take(channel, f"{unique}-dead", 1, ack=False)
        assert properties.headers.items() >= shown.items() and "x-death" in properties.headers
        headers = kafka_read(broker, f"{unique}-dead", 1)[0].headers()
        assert first_and_last(headers, "inver-origin")[1].startswith(b"inver/")
        assert "user-id" not in dict(headers) and dict(headers)["claimed-user-id"] == b"admin"


def test_any_message_can_be_published_again_as_it_was_received(broker, unique):
    """A forwarder that passes the properties on, as another user would: AMQP validates some of them."""
    kafka_create(broker, f"{unique}.k")
    tricky = [("CC", "k1"), ("BCC", "k2"), ("x-death", "none"), ("user-id", "root"), ("expiration", "soon")]
    with mqtt(broker, user=("guest", "guest")) as client, amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        for key in ("m", "k"):
            channel.queue_bind(unique, "amq.topic", f"{unique}.{key}")
        client.publish(f"{unique}/m", b"by mqtt", retain=True, properties=publish_properties(
            UserProperty=tricky, MessageExpiryInterval=3600, ResponseTopic="amq/rabbitmq/reply-to", ContentType="a/b",
            CorrelationData=bytes(range(256)) * 2))
        kafka_send(broker, f"{unique}.k", b"by kafka", key=b"\xff", headers=[(n, v.encode()) for n, v in tricky])
        for body, properties in sorted((body, properties) for _, properties, body in
                                       amqp_take(channel, unique, 2)):
            assert properties.user_id is None and properties.reply_to is None
            target = channel.queue_declare("", exclusive=True).method.queue
            channel.basic_publish("", target, body, properties, mandatory=True)
            _, again, _ = amqp_get(channel, target)
            assert again.headers == properties.headers, "unchanged"
            assert again.headers["claimed-CC"] == "k1" and again.headers["claimed-user-id"] == "root"
