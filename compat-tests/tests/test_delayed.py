"""Delayed messages over AMQP and MQTT, their list and withdrawal over HTTP, and that a kill loses none."""

import time
import uuid

import pika
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import amqp, amqp_get, amqp_refusal, http_api, mqtt
from harness import wait_until

WAIT_SECONDS = 60


def name(start):
    return f"{start}-{uuid.uuid4().hex[:8]}"


def delaying(channel, kind="topic"):
    exchange, queue = name("delaying"), name("q")
    channel.exchange_declare(exchange, "x-delayed-message", durable=True, arguments={"x-delayed-type": kind})
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, exchange, "#" if kind == "topic" else queue)
    return exchange, queue


def publish(channel, exchange, key, body, delay_ms=None, **properties):
    headers = {} if delay_ms is None else {"x-delay": delay_ms}
    channel.basic_publish(exchange, key, body, pika.BasicProperties(headers=headers, delivery_mode=2, **properties))


def listed(broker, **query):
    text = "&".join(f"{key}={value}" for key, value in query.items())
    status, answer = http_api(broker, "GET", f"/delayed?{text}")
    assert status == 200, answer
    return answer


def depth(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def test_an_exchange_delays_what_asks_for_it_in_the_order_of_the_delays(broker):
    with amqp(broker) as channel:
        exchange, queue = delaying(channel)
        before = time.monotonic()
        for delay_ms in (None, 0, -1):
            publish(channel, exchange, "k", b"at once", delay_ms)
        publish(channel, exchange, "k", b"second", 5000, content_type="text/plain")
        publish(channel, exchange, "k", b"first", 700)
        assert [amqp_get(channel, queue)[2] for _ in range(3)] == [b"at once"] * 3
        assert amqp_get(channel, queue)[2] == b"first"
        method, properties, body = amqp_get(channel, queue)
        assert time.monotonic() - before >= 4.9
        assert (body, method.exchange, method.routing_key) == (b"second", exchange, "k")
        assert properties.content_type == "text/plain" and properties.headers == {"x-delay": 5000}


def test_declarations_of_delaying_exchanges(broker):
    with amqp(broker) as channel:
        exchange, _ = delaying(channel, "direct")
        connection = channel.connection

        def declare(**arguments):
            return amqp_refusal(connection, lambda ch: ch.exchange_declare(
                exchange, "x-delayed-message", durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()}))

        assert declare(x_delayed_type="direct") is None
        assert declare(x_delayed_type="topic")[0] == 406
        for arguments in ({}, {"x_delayed_type": "no-such"}):
            assert declare(**arguments) == (
                406, "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type")
        refused = amqp_refusal(connection, lambda ch: ch.exchange_declare(exchange, "direct", durable=True))
        assert refused[1].endswith("received 'direct' but current is 'x-delayed-message'")


def test_delayed_messages_are_listed_and_withdrawn(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        exchange, queue = delaying(channel)
        publish(channel, exchange, "a.b", b"kept", 50_000)
        publish(channel, exchange, "a.b", b"withdrawn", 3_600_000)
        publish(channel, exchange, "a.b", b"far", 400_000_000)
        answer = listed(broker)
        assert answer["total"] == 3 and answer["next"] is None
        assert [item["value"]["text"] for item in answer["items"]] == ["kept", "withdrawn", "far"]
        one = answer["items"][1]
        assert (one["exchange"], one["routing_key"], one["address"]) == (exchange, "a.b", None)
        assert one["due_ms"] - one["timestamp_ms"] == 3_600_000
        first = listed(broker, count=1)
        assert listed(broker, count=1, after=first["next"])["items"] == [one]
        assert http_api(broker, "DELETE", f"/delayed/{one['id']}")[0] == 204
        assert http_api(broker, "DELETE", f"/delayed/{one['id']}")[0] == 404
        assert http_api(broker, "DELETE", "/delayed/nonsense")[0] == 400
        publish(channel, exchange, "a.b", b"soon", 100)
        assert amqp_get(channel, queue)[2] == b"soon"
        wait_until(lambda: listed(broker)["total"] == 2)


def test_delayed_messages_survive_kills_and_come_once(own_broker):
    broker = own_broker()
    count = 3000
    with amqp(broker) as channel:
        exchange, queue = delaying(channel)
        for number in range(count):
            publish(channel, exchange, "k", b"%d" % number, 1 + number * 7919 % count * 2)
    for _ in range(3):
        broker.kill()
        broker.start()
        with amqp(broker) as channel:
            enough = min(count, depth(channel, queue) + count // 4)
            wait_until(lambda: depth(channel, queue) >= enough, WAIT_SECONDS)
    with amqp(broker) as channel:
        wait_until(lambda: depth(channel, queue) == count, WAIT_SECONDS)
        got = sorted(int(amqp_get(channel, queue)[2]) for _ in range(count))
        assert got == list(range(count)) and listed(broker)["total"] == 0


# ---- MQTT


def test_a_delayed_publish_of_mqtt(broker, unique):
    topic = f"{unique}/t"
    with mqtt(broker) as subscriber, mqtt(broker) as client:
        subscriber.subscribe(f"{unique}/#")
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "text/plain"
        before = time.monotonic()
        client.publish(topic, b"now")
        client.publish(f"$delayed/6/{topic}", b"later", properties=properties)
        client.publish(f"$delayed/1/{topic}", b"sooner", retain=True)
        got = [subscriber.get() for _ in range(3)]
        assert time.monotonic() - before >= 5.9
        assert [(message.topic, message.payload) for message in got] == [
            (topic, b"now"), (topic, b"sooner"), (topic, b"later")]
        assert got[2].properties.ContentType == "text/plain"
    with mqtt(broker) as late:
        late.subscribe(topic)
        message = late.get()
        assert (message.payload, message.retain) == (b"sooner", True)


@pytest.mark.parametrize("topic", ["$delayed/x/a", "$delayed/5", "$delayed/4294968/a", "$delayed/5/"])
def test_a_delay_that_is_not_well_formed_is_refused(broker, topic):
    with mqtt(broker) as client:
        codes = {}
        client.client.on_publish = lambda _c, _d, mid, code, _p: codes.setdefault(mid, code.value)
        info = client.client.publish(topic, b"x", 1)
        wait_until(lambda: info.mid in codes)
        assert codes[info.mid] == 0x90
