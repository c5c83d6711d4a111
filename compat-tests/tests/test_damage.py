"""A damaged batch in the log: consumers of every protocol go on behind it, and an operator is told."""

import json

import confluent_kafka
import pika
import pytest

from clients import Mqtt, amqp, amqp_get, amqp_take, kafka_consumer, kafka_create, kafka_producer, kafka_take
from harness import binary, run, wait_until

MESSAGES = 1500
FOR_EVER = 0xFFFFFFFF


def body(kind, n):
    return f"{kind}{n:05}".encode().ljust(700, b"x")


def flip(folder, wanted):
    """Damages the stored message; its segment is sealed."""
    for segment in sorted(folder.glob("*.seg")):
        data = segment.read_bytes()
        at = data.find(wanted)
        if at >= 0:
            with open(segment, "r+b") as file:
                file.seek(at + 20)
                file.write(b"\1")
            return
    raise AssertionError(f"{wanted[:8]} is not in the log")


def test_consumers_step_over_a_damaged_batch_and_are_told(own_broker):
    broker = own_broker(environment={"INVER_LOG_SEGMENT_BYTES_MAX": "1 MiB", "INVER_LOG_CHECKPOINT_INTERVAL_MS": "500"})
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    session.subscribe("s/#", 1)
    session.close()
    with amqp(broker) as channel:
        channel.queue_declare("dead", durable=True)
        channel.queue_declare("q", durable=True, arguments={"x-dead-letter-exchange": "",
                                                            "x-dead-letter-routing-key": "dead"})
        for n in range(MESSAGES):
            channel.basic_publish("", "q", body("Q", n), pika.BasicProperties(delivery_mode=2))
            channel.basic_publish("amq.topic", "s.x", body("S", n), pika.BasicProperties(delivery_mode=2))
    broker.kill()
    flip(broker.data, body("Q", 200)[:40])
    flip(broker.data, body("S", 300)[:40])
    broker.start()
    assert broker.metric("inver_messages_damaged_total") in (None, 0)
    with amqp(broker) as channel:
        got = [message for _, _, message in amqp_take(channel, "q", MESSAGES - 1, seconds=30)]
        assert got == [body("Q", n) for n in range(MESSAGES) if n != 200]
        _, properties, letter = amqp_get(channel, "dead")
        assert (properties.headers["x-first-death-reason"], letter) == ("damaged", b"")
        # It goes on as if nothing had been.
        channel.basic_publish("", "q", b"new")
        assert amqp_get(channel, "q")[2] == b"new"
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    assert session.take(MESSAGES - 1, 30) == [body("S", n) for n in range(MESSAGES) if n != 300]
    session.close()
    assert broker.metric("inver_messages_damaged_total") == 2
    wait_until(lambda: "stepped over messages" in broker.log(), what="a line in the log")
    status, alarms = broker.get("/health/alarms")
    assert status == 503 and "messages_damaged: 2 messages" in alarms


def test_priorities_named_subscriptions_and_kafka_readers_at_a_damaged_batch(own_broker):
    broker = own_broker(environment={"INVER_LOG_SEGMENT_BYTES_MAX": "1 MiB", "INVER_LOG_CHECKPOINT_INTERVAL_MS": "500"})
    kafka_create(broker, "k")
    # Each record is a batch.
    producer = kafka_producer(broker, batch_num_messages=1)
    with amqp(broker) as channel:
        channel.queue_declare("p", durable=True, arguments={"x-max-priority": 3})
        for n in range(MESSAGES):
            channel.basic_publish("", "p", body("P", n), pika.BasicProperties(delivery_mode=2, priority=n % 2))
            producer.produce("k", body("K", n))
    assert producer.flush(15) == 0
    broker.kill()
    flip(broker.data, body("P", 200)[:40])
    flip(broker.data, body("K", 300)[:40])
    broker.start()
    with amqp(broker) as channel:
        got = [message for _, _, message in amqp_take(channel, "p", MESSAGES - 1, seconds=30)]
        by_priority = sorted(range(MESSAGES), key=lambda n: (-(n % 2), n))
        assert got == [body("P", n) for n in by_priority if n != 200]
        terms = {"x-subscription": "s", "x-subscription-start": "earliest"}
        got = [message for _, _, message in amqp_take(channel, "k", MESSAGES - 1, seconds=30, arguments=terms)]
        assert got == [body("K", n) for n in range(MESSAGES) if n != 300]
    # A reader by offset is not led past it, and can go on behind it.
    with kafka_consumer(broker) as reader:
        reader.assign([confluent_kafka.TopicPartition("k", 0, 0)])
        assert [record.value() for record in kafka_take(reader, 300, 30)] == [body("K", n) for n in range(300)]
        # The client retries after the error, without telling it.
        assert reader.consume(1, timeout=2) == []
        reader.assign([confluent_kafka.TopicPartition("k", 0, 301)])
        rest = kafka_take(reader, MESSAGES - 301, 30)
        assert [record.value() for record in rest] == [body("K", n) for n in range(301, MESSAGES)]
    assert broker.metric("inver_messages_damaged_total") == 2


def test_consumers_are_stopped_at_a_damaged_batch_until_an_operator_skips_it(own_broker):
    broker = own_broker(environment={"INVER_LOG_SEGMENT_BYTES_MAX": "1 MiB", "INVER_LOG_CHECKPOINT_INTERVAL_MS": "500",
                                     "INVER_LOG_ON_DAMAGE": "stop"})
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    session.subscribe("s/#", 1)
    session.close()
    with amqp(broker) as channel:
        channel.queue_declare("q", durable=True)
        for n in range(MESSAGES):
            channel.basic_publish("", "q", body("Q", n), pika.BasicProperties(delivery_mode=2))
            channel.basic_publish("amq.topic", "s.x", body("S", n), pika.BasicProperties(delivery_mode=2))
    broker.kill()
    flip(broker.data, body("Q", 200)[:40])
    flip(broker.data, body("S", 300)[:40])
    broker.start()

    def skip(*what):
        environment = {"INVER_URL": f"http://127.0.0.1:{broker.http_port}"}
        return json.loads(run([binary(), "skip", *what, "--output", "json"], env=environment).stdout)["messages"]

    # A consumer gets what is in front of the damage, and then the channel is closed with a reason: each that comes.
    left = 200
    for _ in range(2):
        with amqp(broker) as channel:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="cannot be read") as closed:
                channel.basic_qos(prefetch_count=50)
                for method, _, message in channel.consume("q", inactivity_timeout=30):
                    assert message == body("Q", 200 - left)
                    channel.basic_ack(method.delivery_tag)
                    left -= 1
            assert closed.value.reply_code == 406
    assert left == 0
    with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="cannot be read"):
        channel.basic_get("q")
    # A channel that holds a delivery of another queue is closed once that is settled: closing it would requeue the delivery.
    with amqp(broker) as channel:
        channel.queue_declare("other")
        channel.basic_publish("", "other", b"o")
        held = []
        channel.basic_consume("other", lambda _channel, method, *_: held.append(method))
        wait_until(lambda: channel.connection.process_data_events(0) or held, what="the delivery")
        stopped = broker.metric("inver_subscriptions_unreadable_total")
        channel.basic_consume("q", lambda *_: None)
        wait_until(lambda: broker.metric("inver_subscriptions_unreadable_total") > stopped, what="the damage is met")
        assert channel.queue_declare("other", passive=True).method.consumer_count == 1
        channel.basic_ack(held[0].delivery_tag)
        wait_until(lambda: channel.connection.process_data_events(0.1) or channel.is_closed, what="the close")
    with amqp(broker) as channel:
        assert channel.queue_declare("other", passive=True).method.message_count == 0
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    assert session.take(300, 30) == [body("S", n) for n in range(300)]
    assert session.disconnects.get(timeout=30).value == 0x83
    status, alarms = broker.get("/health/alarms")
    assert status == 503 and "consumers were stopped" in alarms
    assert (skip("q"), skip("q")) == (1, 0)
    assert (skip("--session", "keeper"), skip("--session", "keeper")) == (1, 0)
    with amqp(broker) as channel:
        got = [message for _, _, message in amqp_take(channel, "q", MESSAGES - 201, seconds=30)]
        assert got == [body("Q", n) for n in range(201, MESSAGES)]
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    assert session.take(MESSAGES - 301, 30) == [body("S", n) for n in range(301, MESSAGES)]
    session.close()
