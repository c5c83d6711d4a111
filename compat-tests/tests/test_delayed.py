"""Delayed messages over AMQP, MQTT and Kafka, their list and withdrawal over HTTP, and that a kill loses none."""

import time
import uuid

import pika
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import (amqp, amqp_get, amqp_refusal, http_api, kafka_consumer, kafka_create, kafka_producer, kafka_read,
                     kafka_send, kafka_take, mqtt)
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


# ---- Kafka


def delayed_topic(broker, topic, partitions=1):
    kafka_create(broker, topic, partitions, **{"inver.delay": "true"})


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd", "snappy"])
def test_records_are_appended_when_they_are_due(broker, unique, compression):
    """In batches of delayed and other records, by a producer with sequence numbers; twice, so that these go on."""
    delayed_topic(broker, unique)
    producer = kafka_producer(broker, enable_idempotence=True, linger_ms=200, compression_type=compression)
    answers = []
    for round_ in range(2):
        for number in range(6):
            headers = [("mine", b"1")] + ([("inver-deliver-after", b"1500")] if number % 3 == 0 else [])
            producer.produce(unique, b"%d-%d" % (round_, number), b"key", headers=headers,
                             on_delivery=lambda error, _: answers.append(error))
        assert producer.flush(WAIT_SECONDS) == 0
    assert answers == [None] * 12
    got = kafka_read(broker, unique, 12)
    at_once = [b"%d-%d" % (r, n) for r in range(2) for n in range(6) if n % 3]
    assert [m.value() for m in got[:8]] == at_once
    assert sorted(m.value() for m in got[8:]) == [b"0-0", b"0-3", b"1-0", b"1-3"]
    assert all((m.key(), m.headers()) == (b"key", [("mine", b"1")]) for m in got)
    offsets = [m.offset() for m in got]
    assert offsets == sorted(set(offsets)) and offsets[8] >= 12


def test_records_that_are_all_delayed_leave_consumers_waiting(broker, unique):
    delayed_topic(broker, unique)
    with kafka_consumer(broker, unique) as consumer:
        at = int((time.time() + 2) * 1000)
        kafka_send(broker, unique, b"later", headers=[("inver-deliver-at", str(at).encode())])
        kafka_send(broker, unique, b"past", headers=[("inver-deliver-at", b"1000")])
        first, second = kafka_take(consumer, 2)
        assert (first.value(), second.value()) == (b"past", b"later")
        assert second.headers() is None and second.timestamp()[1] >= at


def test_delayed_records_reach_subscribers_of_other_protocols_when_they_are_due(broker, unique):
    topic = f"{unique}.t"
    delayed_topic(broker, topic)
    with mqtt(broker) as client:
        client.subscribe(f"{unique}/t")
        kafka_send(broker, topic, b"later", headers=[("inver-deliver-after", b"1500")])
        kafka_send(broker, topic, b"now")
        assert [client.get().payload for _ in range(2)] == [b"now", b"later"]


@pytest.mark.parametrize("value", [b"soon", b"", None, b"99999999999999999999"])
def test_a_delay_that_is_no_number_is_refused(broker, unique, value):
    delayed_topic(broker, unique)
    refused = []
    producer = kafka_producer(broker)
    producer.produce(unique, b"x", headers=[("inver-deliver-after", value)],
                     on_delivery=lambda error, _: refused.append(error))
    producer.flush(WAIT_SECONDS)
    assert "INVALID_RECORD" in refused[0].name()


def test_delayed_records_are_listed_and_survive_a_kill(own_broker):
    broker = own_broker()
    delayed_topic(broker, "t", partitions=3)
    kafka_create(broker, "plain")
    kafka_send(broker, "plain", b"at once: the topic has no such setting", headers=[("inver-deliver-after", b"3600000")])
    for partition in range(3):
        for number in range(50):
            kafka_send(broker, "t", b"%d" % number, b"k", [("inver-deliver-after", b"%d" % (1000 + number))],
                       partition=partition)
    kafka_send(broker, "t", b"far", b"k", [("inver-deliver-after", b"3600000")])
    broker.kill()
    broker.start()
    got = kafka_read(broker, "t", 150)
    assert sorted((m.partition(), int(m.value())) for m in got) == [(p, n) for p in range(3) for n in range(50)]
    wait_until(lambda: listed(broker)["total"] == 1)
    item = listed(broker)["items"][0]
    assert (item["topic"], item["exchange"], item["address"]) == ("t", None, None)
    assert http_api(broker, "DELETE", f"/delayed/{item['id']}")[0] == 204
    assert len(kafka_read(broker, "plain", 1)) == 1


def test_records_of_transactions_are_not_delayed(broker, unique):
    delayed_topic(broker, unique)
    producer = kafka_producer(broker, transactional_id=unique)
    producer.init_transactions(WAIT_SECONDS)
    producer.begin_transaction()
    refused = []
    producer.produce(unique, b"x", headers=[("inver-deliver-after", b"1000")],
                     on_delivery=lambda error, _: refused.append(error))
    producer.flush(WAIT_SECONDS)
    assert "INVALID_RECORD" in refused[0].name()
    producer.abort_transaction(WAIT_SECONDS)
