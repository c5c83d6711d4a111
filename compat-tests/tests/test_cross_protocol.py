"""docs/cross-protocol.md, row by row: what one protocol publishes, the others receive.."""

import json
import queue
import re

import pika
import pytest

from clients import (WAIT_SECONDS, amqp, amqp_get, amqp_take, kafka_admin, kafka_create, kafka_producer, kafka_read,
                     kafka_read_all, kafka_send, mqtt, publish_properties)
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from harness import ROOT, run, wait_until

PAGE = (ROOT / "docs" / "cross-protocol.md").read_text()


def bound_queue(channel, key):
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", key)
    return queue


def with_rules(*rules):
    """An environment with these capture rules."""
    lines = ", ".join("{ " + ", ".join(f"{name} = {json.dumps(text)}" for name, text in rule.items()) + " }"
                      for rule in rules)
    return {"INVER_CAPTURE_RULES": f"[{lines}]"}


# ---- addresses


@pytest.mark.parametrize("slashed,dotted", re.findall(r"^\| `(\S+/\S+)` \| `(\S+)` \|$", PAGE, re.M))
def test_addresses_of_the_page(broker, unique, slashed, dotted):
    """Each line of the table of addresses, in both directions."""
    slashed, dotted = f"{unique}/{slashed}", f"{unique}.{dotted}"
    kafka_create(broker, dotted)
    with mqtt(broker) as client, amqp(broker) as channel:
        queue = bound_queue(channel, dotted)
        client.subscribe(slashed)
        client.publish(slashed, b"there")
        assert amqp_get(channel, queue)[0].routing_key == dotted
        assert client.get().topic == slashed
        assert kafka_read(broker, dotted, 1)[0].value() == b"there"
        kafka_send(broker, dotted, b"back")
        assert client.get().topic == slashed and amqp_get(channel, queue)[0].routing_key == dotted


def test_names_as_those_of_rabbitmqs_mqtt_plugin(own_broker, unique):
    """`mqtt.amqp_names = "rabbitmq"`: separators are replaced both ways, of topics, filters, wills and responses."""
    broker = own_broker(environment={"INVER_MQTT_AMQP_NAMES": "rabbitmq"})
    with mqtt(broker) as client, amqp(broker) as channel:
        bound = bound_queue(channel, "#")
        client.subscribe("a.b/+")
        client.subscribe("x/#")
        response = publish_properties(ResponseTopic="re.ply/to")
        client.publish("a/b/c", b"1", retain=True, properties=response)
        client.publish("a/b.d", b"2")
        channel.basic_publish("amq.topic", "x.a/b", b"3")
        channel.basic_publish("amq.topic", "x/y", b"no word of it is x")
        got = [client.get() for _ in range(3)]
        assert [(m.topic, m.payload) for m in got] == [("a/b/c", b"1"), ("a/b/d", b"2"), ("x/a/b", b"3")]
        assert got[0].properties.ResponseTopic == "re/ply/to"
        first, second = amqp_get(channel, bound), amqp_get(channel, bound)
        assert (first[0].routing_key, first[1].reply_to) == ("a.b.c", "re.ply.to")
        assert second[0].routing_key == "a.b.d"
    with mqtt(broker) as later:
        later.subscribe("a/b.c")
        kept = later.get()
        assert (kept.topic, kept.payload, bool(kept.retain)) == ("a/b/c", b"1", True)


def test_names_as_those_of_rabbitmqs_mqtt_plugin_in_subscriptions_by_the_server(own_broker):
    """Filters that the server subscribes its clients to name the topics that its clients publish to."""
    filters = '[{filter = "com.mands/{client_id}", qos = 1}, {filter = "$share/g.1/jo.bs/+", qos = 1}]'
    broker = own_broker(environment={"INVER_MQTT_AMQP_NAMES": "rabbitmq", "INVER_MQTT_AUTO_SUBSCRIBE": filters})
    with mqtt(broker, client_id="d.1") as device, amqp(broker) as channel:
        for topic in ("com.mands/d.1", "com/mands/d/1", "jo/bs/1"):
            device.publish(topic, topic.encode())
        channel.basic_publish("amq.topic", "com.mands.d.1", b"amqp")
        got = sorted((message.topic, message.payload) for message in (device.get() for _ in range(4)))
        assert got == [("com/mands/d/1", b"amqp"), ("com/mands/d/1", b"com.mands/d.1"),
                       ("com/mands/d/1", b"com/mands/d/1"), ("jo/bs/1", b"jo/bs/1")]


# ---- who receives a message


def test_mqtt_publishes_reach_all_protocols(broker, unique):
    kafka_create(broker, f"{unique}.b")
    with mqtt(broker) as client, amqp(broker) as channel:
        exact, pattern, rest = (bound_queue(channel, f"{unique}.{end}") for end in ("b", "*", "#"))
        other = bound_queue(channel, f"{unique}.c")
        for filter_ in (f"{unique}/b", f"{unique}/+"):
            client.subscribe(filter_)
        client.publish(f"{unique}/b", b"x")
        assert client.get().payload == b"x"
        for queue in (exact, pattern, rest):
            assert amqp_get(channel, queue)[2] == b"x"
        assert channel.queue_declare(other, passive=True).method.message_count == 0
        assert kafka_read(broker, f"{unique}.b", 1)[0].value() == b"x"
        captured = lambda: [r.value() for r in kafka_read_all(broker, "mqtt") if r.key() == f"{unique}/b".encode()]
        assert wait_until(captured, what="capture") == [b"x"]


def test_amqp_publishes_reach_all_protocols_and_are_not_captured(broker, unique):
    kafka_create(broker, f"{unique}.b")
    with mqtt(broker) as client, amqp(broker) as channel:
        queue = bound_queue(channel, f"{unique}.b")
        client.subscribe(f"{unique}/#")
        channel.basic_publish("amq.topic", f"{unique}.b", b"x", mandatory=True)
        assert client.get().topic == f"{unique}/b" and amqp_get(channel, queue)[2] == b"x"
        assert kafka_read(broker, f"{unique}.b", 1)[0].value() == b"x"
        client.publish(f"{unique}/after", b"y")
        keys = lambda: [r.key() for r in kafka_read_all(broker, "mqtt") if (r.key() or b"").startswith(unique.encode())]
        assert wait_until(keys) == [f"{unique}/after".encode()]


def test_a_durable_queue_is_readable_until_acknowledged_and_not_over_mqtt(broker, unique):
    with mqtt(broker) as client, amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        client.subscribe("#", 0)
        for n in range(5):
            channel.basic_publish("", unique, b"%d" % n, pika.BasicProperties(delivery_mode=2))
        assert [record.value() for record in kafka_read(broker, unique, 5)] == [b"%d" % n for n in range(5)]
        taken = amqp_take(channel, unique, 5)
        assert [body for _, _, body in taken] == [b"%d" % n for n in range(5)]
        wait_until(lambda: kafka_read_all(broker, unique) == [], what="acknowledged messages being gone")
        client.publish(f"{unique}/probe", b"probe")
        got = []
        while not got or got[-1].topic != f"{unique}/probe":
            got.append(client.get())
        assert all(message.topic != unique for message in got)


def test_kafka_produces_to_a_queue(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        kafka_send(broker, unique, b"x", key=b"k", headers=[("h", b"v")])
        _, properties, body = amqp_get(channel, unique)
        assert body == b"x" and properties.headers["h"] == "v" and properties.headers["inver-key"] == "k"
        assert kafka_admin(broker).list_topics(unique, 10).topics[unique].error is None


def test_a_kafka_topic_reaches_all_protocols(broker, unique):
    topic = f"{unique}.b"
    kafka_create(broker, topic, partitions=2)
    with mqtt(broker) as client, amqp(broker) as channel:
        queue = bound_queue(channel, topic)
        client.subscribe(f"{unique}/b")
        producer = kafka_producer(broker)
        for n in range(10):
            producer.produce(topic, b"%d" % n, partition=n % 2)
        assert producer.flush(15) == 0
        wanted = sorted(b"%d" % n for n in range(10))
        assert sorted(client.take(10)) == wanted
        assert sorted(amqp_get(channel, queue)[2] for _ in range(10)) == wanted
        taken = amqp_take(channel, topic, 10, arguments={"x-subscription": "s"})
        assert sorted(body for _, _, body in taken) == wanted
        assert sorted(record.value() for record in kafka_read(broker, topic, 10)) == wanted


def test_an_mqtt_topic_header_overrides_the_topic_name(broker, unique):
    topic = f"{unique}-commands"
    kafka_create(broker, topic)
    with mqtt(broker) as device, mqtt(broker) as listener, amqp(broker) as channel:
        device.subscribe(f"{unique}/device.7/set")
        listener.subscribe(topic)
        queue = bound_queue(channel, f"{unique}.device%2E7.set")
        producer = kafka_producer(broker, linger_ms=50)
        # In one batch with others: each record is routed by itself.
        producer.produce(topic, b"before")
        producer.produce(topic, b"open", headers=[("mqtt-topic", f"{unique}/device.7/set")])
        producer.produce(topic, b"after")
        assert producer.flush(15) == 0
        assert device.take(1) == [b"open"] and device.messages.empty()
        assert amqp_get(channel, queue)[2] == b"open"
        assert listener.take(2) == [b"before", b"after"] and listener.messages.empty()
        assert [record.value() for record in kafka_read(broker, topic, 3)] == [b"before", b"open", b"after"]


@pytest.mark.parametrize("kind", ["exclusive", "server-named"])
def test_hidden_queues_are_not_listed_as_topics(broker, unique, kind):
    with amqp(broker) as channel:
        name = channel.queue_declare(unique if kind == "exclusive" else "", exclusive=kind == "exclusive").method.queue
        assert name not in kafka_admin(broker).list_topics(timeout=10).topics


# ---- captures


def test_the_first_matching_capture_rule_applies(own_broker, unique):
    broker = own_broker(environment=with_rules(
        {"filter": "site/+/alarm/#", "topic": "alarms", "key": "{1}"},
        {"protocol": "mqtt", "filter": "site/+/+", "topic": "site-{1}", "key": "{2}:{address}"},
        {"protocol": "amqp", "filter": "#", "topic": "from-amqp", "key": "{address}"},
    ))
    with mqtt(broker) as client, amqp(broker) as channel:
        client.publish("site/north/alarm/fire", b"by mqtt")
        channel.basic_publish("amq.topic", "site.south.alarm.flood", b"by amqp")
        client.publish("site/north/temp", b"21")
        client.publish("elsewhere", b"not captured")
        channel.basic_publish("amq.topic", "orders.7", b"order")
    read = lambda topic, count: sorted((r.key(), r.value()) for r in kafka_read(broker, topic, count))
    assert read("alarms", 2) == [(b"north", b"by mqtt"), (b"south", b"by amqp")]
    assert read("site-north", 1) == [(b"temp:site/north/temp", b"21")]
    assert read("from-amqp", 1) == [(b"orders/7", b"order")]
    assert "mqtt" not in kafka_admin(broker).list_topics(timeout=10).topics, "the default is replaced"


def test_capture_can_be_disabled(own_broker):
    broker = own_broker(environment={"INVER_CAPTURE_RULES": "[]"})
    with mqtt(broker) as client:
        client.subscribe("a")
        client.publish("a", b"x")
        assert client.get().payload == b"x"
    assert "mqtt" not in kafka_admin(broker).list_topics(timeout=10).topics


def test_a_message_that_cannot_be_captured_is_refused(own_broker, unique):
    """The name of a capture's topic is too long, or a limit forbids to create it: such a message is not acknowledged."""
    rules = with_rules({"filter": "#", "topic": "t-{1}", "key": "{address}"})
    broker = own_broker(environment={**rules, "INVER_LIMITS_TOPICS_MAX": "1"})
    long = "x" * 300

    def reason(device, topic, qos):
        reasons = queue.Queue()
        device.client.on_publish = lambda _client, _data, _mid, reason, _properties: reasons.put(reason.value)
        device.client.publish(topic, b"x", qos)
        return reasons.get(timeout=WAIT_SECONDS)

    with mqtt(broker) as client:
        client.subscribe("#", 1)
        assert reason(client, "first", 1) in (0x00, 0x10)
        assert reason(client, long, 1) == 0x97 and reason(client, "second", 1) == 0x97
        # Paho does not show the reason of a PUBREC; this client does.
        for topic in (long, "second"):
            said = run(["mosquitto_pub", "-p", broker.mqtt_port, "-V", "5", "-q", "2", "-t", topic, "-m", "x"]).stderr
            assert b"Quota exceeded" in said, said
        client.publish(long, b"best effort", qos=0)
        assert client.take(2) == [b"x", b"best effort"], "refused ones reach nobody"
        with mqtt(broker, version=4) as old:
            old.client.publish(long, b"x", 1)
            assert old.disconnects.get(timeout=WAIT_SECONDS), "MQTT 3.1.1 can say no only so"
        with amqp(broker) as channel:
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.NackError):
                channel.basic_publish("amq.topic", "second", b"x")
            channel.basic_publish("amq.topic", "first", b"by amqp")
        assert [record.value() for record in kafka_read_all(broker, "t-first")] == [b"x", b"by amqp"]
        # QoS 0 is not refused, and counted too.
        counted = re.search(r'inver_messages_capture_refused_total{[^}]*} (\d+)', broker.get("/metrics")[1])
        assert int(counted[1]) == 7, counted
        assert broker.log().count("failed to create a capture's topic") == 1, "one line a minute"


def test_captured_records_are_not_published_again(own_broker):
    broker = own_broker(environment=with_rules({"filter": "a/#", "topic": "a.b", "key": "{address}"}))
    with mqtt(broker) as client, amqp(broker) as channel:
        queue = bound_queue(channel, "#")
        client.subscribe("#")
        client.publish("a/c", b"x")
        client.publish("end", b"end")
        assert [client.get().topic for _ in range(2)] == ["a/c", "end"]
        assert [amqp_get(channel, queue)[0].routing_key for _ in range(2)] == ["a.c", "end"]
        assert [record.value() for record in kafka_read_all(broker, "a.b")] == [b"x"]


def test_a_topic_configuration_is_a_capture_rule(own_broker, unique):
    """Set at creation, altered and removed by a Kafka admin client; kept across a restart."""
    broker = own_broker()
    kafka_create(broker, "halls", **{"inver.capture.filter": "site/+/room/+", "inver.capture.key": "{2}"})
    broker.restart()

    def alter(operation, value=None):
        entry = ConfigEntry("inver.capture.filter", value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, "halls", incremental_configs=[entry])
        admin = kafka_admin(broker)
        admin.incremental_alter_configs([resource])[resource].result(15)
    with mqtt(broker) as client, amqp(broker) as channel:
        client.publish("site/north/room/7", b"one")
        channel.basic_publish("amq.topic", "site.north.room.8", b"two")
        client.publish("site/north/hall", b"elsewhere")
        assert sorted((r.key(), r.value()) for r in kafka_read(broker, "halls", 2)) == [(b"7", b"one"), (b"8", b"two")]
        assert [r.key() for r in kafka_read(broker, "mqtt", 1)] == [b"site/north/hall"], "the first rule wins"
        alter(AlterConfigOpType.SET, "other/+/+")
        client.publish("site/north/room/7", b"three")
        client.publish("other/x/y", b"four")
        assert sorted(r.value() for r in kafka_read(broker, "halls", 3)) == [b"four", b"one", b"two"]
        alter(AlterConfigOpType.DELETE)
        client.publish("other/x/y", b"five")
        assert sorted(r.value() for r in kafka_read(broker, "mqtt", 3)) == [b"elsewhere", b"five", b"three"]
        assert len(kafka_read_all(broker, "halls")) == 3
