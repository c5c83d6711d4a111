"""Streams over AMQP 0-9-1, as RabbitMQ 4.0 answers, and as a topic of Kafka clients."""

import datetime
import time
import uuid

import confluent_kafka
import pika
import pytest
from confluent_kafka.admin import ConfigResource, ResourceType

from clients import amqp, amqp_refusal, http_api, kafka_admin, kafka_read, kafka_send
from harness import wait_until
from test_policies import policy

WAIT_SECONDS = 60
STREAM = {"x-queue-type": "stream"}


def stream(channel, **arguments):
    name = f"s-{uuid.uuid4().hex[:8]}"
    channel.queue_declare(name, durable=True, arguments={**STREAM, **arguments})
    return name


def fill(channel, name, count, **properties):
    channel.confirm_delivery()
    for number in range(count):
        channel.basic_publish("", name, b"%d" % number, pika.BasicProperties(delivery_mode=2, **properties))


def read(channel, name, count, offset="first", settle=lambda ch, tag: ch.basic_ack(tag), prefetch=10, **arguments):
    """The bodies and offsets of the first messages that a consumer gets, each acknowledged or settled otherwise."""
    got = []

    def take(ch, method, properties, body):
        assert not method.redelivered
        got.append((body.decode(), properties.headers["x-stream-offset"]))
        settle(ch, method.delivery_tag)

    channel.basic_qos(prefetch_count=prefetch)
    if offset is not None:
        arguments["x-stream-offset"] = offset
    tag = channel.basic_consume(name, take, arguments={key.replace("_", "-"): v for key, v in arguments.items()})
    deadline = time.monotonic() + WAIT_SECONDS
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} messages arrived"
        channel.connection.process_data_events(0.1)
    channel.basic_cancel(tag)
    return got[:count]


def numbered(*numbers):
    return [(str(n), n) for n in numbers]


@pytest.mark.parametrize("arguments,text", [
    ({"x-max-age": "7D", "x-max-length-bytes": 10 ** 9, "x-stream-max-segment-size-bytes": 10 ** 6,
      "x-initial-cluster-size": 3, "x-queue-leader-locator": "balanced", "x-stream-filter-size-bytes": 32}, None),
    ({"x-max-age": "5x"}, "invalid arg 'x-max-age' for queue '{}' in vhost '/': invalid_max_age"),
    ({"x-max-age": ""}, "invalid arg 'x-max-age' for queue '{}' in vhost '/': invalid_max_age"),
    ({"x-max-age": 5}, "invalid arg 'x-max-age' for queue '{}' in vhost '/': {{unacceptable_type,signedint}}"),
    ({"x-max-length-bytes": -1}, "invalid arg 'x-max-length-bytes' for queue '{}' in vhost '/': {{value_negative,-1}}"),
    ({"x-stream-max-segment-size-bytes": 4 * 10 ** 9}, "Exceeded max value for x-stream-max-segment-size-bytes"),
    ({"x-stream-filter-size-bytes": 10}, "Invalid value for  x-stream-filter-size-bytes"),
    ({"x-initial-cluster-size": 0}, "invalid arg 'x-initial-cluster-size' for queue '{}' in vhost '/': {{value_zero,0}}"),
    ({"x-queue-leader-locator": "foo"},
     "invalid arg 'x-queue-leader-locator' for queue '{}' in vhost '/': invalid_queue_locator_arg"),
] + [({name: value}, f"invalid arg '{name}' for queue '{{}}' in vhost '/' of queue type rabbit_stream_queue")
     for name, value in [("x-max-length", 5), ("x-message-ttl", 5), ("x-expires", 1000), ("x-overflow", "drop-head"),
                         ("x-dead-letter-exchange", "x"), ("x-max-priority", 5), ("x-single-active-consumer", True),
                         ("x-delivery-limit", 3), ("x-queue-mode", "lazy"), ("x-quorum-initial-group-size", 3)]])
def test_arguments_of_streams(broker, unique, arguments, text):
    with amqp(broker) as channel:
        refused = amqp_refusal(channel.connection, lambda ch: ch.queue_declare(
            unique, durable=True, arguments={**STREAM, **arguments}))
        assert refused == (text and (406, "PRECONDITION_FAILED - " + text.format(unique)))


@pytest.mark.parametrize("how,property_", [
    ({"durable": False}, "non-durable"), ({"exclusive": True}, "exclusive-owner"), ({"auto_delete": True}, "auto-delete")])
def test_a_stream_is_durable_and_shared(broker, unique, how, property_):
    with amqp(broker) as channel:
        refused = amqp_refusal(channel.connection, lambda ch: ch.queue_declare(
            unique, arguments=STREAM, **{"durable": True, **how}))
        assert refused == (406, f"PRECONDITION_FAILED - invalid property '{property_}' for queue '{unique}' in vhost '/'")


def test_a_consumer_starts_where_it_asks_for(broker):
    with amqp(broker) as channel:
        name = stream(channel)
        fill(channel, name, 30)
        assert channel.queue_declare(name, passive=True).method.message_count == 30
        for offset, first in [("first", 0), (5, 5), (29, 29), (-1, 0), ("last", 29), ("1h", 0), ("5m", 0),
                              (datetime.datetime(2020, 1, 1), 0)]:
            count = min(3, 30 - first)
            assert read(channel, name, count, offset) == numbered(*range(first, first + count)), offset
        # Those that wait for what comes.
        for number, offset in enumerate(["next", None, datetime.datetime(2100, 1, 1)], 30):
            got = []
            channel.basic_qos(prefetch_count=10)
            arguments = {} if offset is None else {"x-stream-offset": offset}
            tag = channel.basic_consume(name, lambda ch, m, p, b: got.append(p.headers["x-stream-offset"]), arguments=arguments)
            channel.basic_publish("", name, b"%d" % number)
            deadline = time.monotonic() + WAIT_SECONDS
            while not got and time.monotonic() < deadline:
                channel.connection.process_data_events(0.1)
            assert got == [number]
            channel.basic_cancel(tag)
        for bad, shown in [("1x", '{longstr,<<"1x">>}'), ("foo", '{longstr,<<"foo">>}'), (True, "bool")]:
            refused = amqp_refusal(channel.connection, lambda ch: (ch.basic_qos(prefetch_count=1), ch.basic_consume(
                name, print, arguments={"x-stream-offset": bad})))
            assert refused == (406, f"PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue '{name}' in vhost "
                                    f"'/': {{invalid_stream_offset_arg,{shown}}}")


def test_consumers_read_on_their_own_and_nothing_is_taken_out(broker):
    with amqp(broker) as channel:
        name = stream(channel)
        fill(channel, name, 20)
        assert read(channel, name, 20, prefetch=3) == read(channel, name, 20) == numbered(*range(20))
        # What is returned or rejected only gives room for more.
        returned = read(channel, name, 6, prefetch=2, settle=lambda ch, tag: ch.basic_nack(tag, requeue=True))
        rejected = read(channel, name, 6, prefetch=2, settle=lambda ch, tag: ch.basic_reject(tag, requeue=False))
        assert returned == rejected == numbered(*range(6))
        held = []
        channel.basic_qos(prefetch_count=4)
        channel.basic_consume(name, lambda ch, m, p, b: held.append(b), arguments={"x-stream-offset": "first"})
        wait_until(lambda: channel.connection.process_data_events(0.1) or len(held) == 4, WAIT_SECONDS)
        channel.queue_declare(name, passive=True)
        channel.connection.process_data_events(0.1)
        assert len(held) == 4


def test_filter_values(broker):
    with amqp(broker) as channel:
        name = stream(channel)
        channel.confirm_delivery()
        for number in range(60):
            headers = {"x-stream-filter-value": "ab"[number % 2]} if number % 3 else {}
            channel.basic_publish("", name, b"%d" % number, pika.BasicProperties(headers=headers))
        a = [n for n in range(60) if n % 3 and n % 2 == 0]
        assert read(channel, name, len(a), x_stream_filter="a", prefetch=1) == numbered(*a)
        both = [n for n in range(60) if n % 3]
        assert read(channel, name, len(both), x_stream_filter=["a", "b"]) == numbered(*both)
        none = [n for n in range(60) if n % 3 == 0]
        assert read(channel, name, len(none), x_stream_filter="z", x_stream_match_unfiltered=True) == numbered(*none)


def test_what_streams_refuse(broker):
    with amqp(broker) as channel:
        name = stream(channel)
        what = f"queue '{name}' in vhost '/'"
        connection = channel.connection

        def consume(ch, prefetch=None, **options):
            if prefetch:
                ch.basic_qos(prefetch_count=prefetch)
            ch.basic_consume(name, print, **options)

        for act, refusal in [
                (consume, f"PRECONDITION_FAILED - consumer prefetch count is not set for stream {what}"),
                (lambda ch: consume(ch, 5, arguments={"x-priority": 1}),
                 f"PRECONDITION_FAILED - invalid arg 'x-priority' for {what} of queue type rabbit_stream_queue"),
                (lambda ch: ch.queue_declare(name, durable=True, arguments={**STREAM, "x-max-age": "7D"}),
                 f"PRECONDITION_FAILED - inequivalent arg 'x-max-age' for {what}: received the value '7D' of type "
                 "'longstr' but current is none")]:
            assert amqp_refusal(connection, act) == (406, refusal)
    assert http_api(broker, "POST", f"/queues/{name}/purge")[0] == 409
    for act, refusal in [(lambda ch: ch.basic_get(name), "basic.get not supported by stream queues"),
                         (lambda ch: ch.queue_purge(name), "queue.purge not supported by stream queues"),
                         (lambda ch: consume(ch, 5, auto_ack=True), "automatic acknowledgement not supported by stream")]:
        connection = pika.BlockingConnection(pika.URLParameters(broker.amqp))
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            act(connection.channel())
        assert (closed.value.reply_code, closed.value.reply_text) == (540, f"NOT_IMPLEMENTED - {refusal} {what}")


def test_a_stream_takes_bindings_and_is_a_topic_of_kafka_clients(broker, unique):
    with amqp(broker) as channel:
        name = stream(channel, **{"x-max-age": "2h", "x-max-length-bytes": 5000})
        channel.exchange_declare(unique, "topic")
        channel.queue_bind(name, unique, "a.#")
        channel.confirm_delivery()
        channel.basic_publish(unique, "a.b", b"bound", pika.BasicProperties(headers={"mine": "1"}))
        assert kafka_send(broker, name, b"produced", key=b"k") == (0, 1)
        first, second = kafka_read(broker, name, 2)
        assert (first.value(), second.value(), second.key()) == (b"bound", b"produced", b"k")
        assert read(channel, name, 2) == [("bound", 0), ("produced", 1)]
        resource = ConfigResource(ResourceType.TOPIC, name)
        admin = kafka_admin(broker)
        config = admin.describe_configs([resource])[resource].result(WAIT_SECONDS)
        assert (config["retention.ms"].value, config["retention.bytes"].value) == ("7200000", "5000")
        with pytest.raises(confluent_kafka.KafkaException) as refused:
            admin.delete_topics([name])[name].result(WAIT_SECONDS)
        assert not refused.value.args[0].name().startswith("_"), "the broker refuses it"
        # Deleting the queue ends its consumers and the topic.
        cancelled = []
        channel.add_on_cancel_callback(cancelled.append)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(name, print, arguments={"x-stream-offset": "next"})
        with amqp(broker) as other:
            other.queue_delete(name)
        wait_until(lambda: channel.connection.process_data_events(0.1) or cancelled, WAIT_SECONDS)
        wait_until(lambda: name not in admin.list_topics(timeout=WAIT_SECONDS).topics, WAIT_SECONDS)
        refused = amqp_refusal(channel.connection, lambda ch: ch.queue_declare(name, passive=True))
        assert refused[0] == 404


def test_a_stream_survives_a_kill(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        name = stream(channel, **{"x-max-age": "7D"})
        channel.queue_bind(name, "amq.topic", "k")
        fill(channel, name, 50)
    for round_ in range(2):
        broker.kill()
        broker.start()
        with amqp(broker) as channel:
            channel.queue_declare(name, durable=True, arguments={**STREAM, "x-max-age": "7D"})
            channel.confirm_delivery()
            channel.basic_publish("amq.topic", "k", b"%d" % (50 + round_))
            count = 51 + round_
            assert read(channel, name, count) == numbered(*range(count))


@pytest.mark.parametrize("by", ["argument", "policy"])
def test_retention_of_a_stream(own_broker, by):
    broker = own_broker()
    with amqp(broker) as channel:
        name = stream(channel, **{"x-max-age": "1s" if by == "argument" else "7D"})
        fill(channel, name, 5)
        if by == "policy":
            policy(broker, "set", "short", "", '{"max-age": "1s"}', "--apply-to", "streams")
        wait_until(lambda: channel.queue_declare(name, passive=True).method.message_count == 0, 120)
        got = []
        channel.basic_qos(prefetch_count=10)
        channel.basic_consume(name, lambda ch, m, p, b: got.append((b.decode(), p.headers["x-stream-offset"])),
                              arguments={"x-stream-offset": "next"})
        channel.basic_publish("", name, b"5")
        wait_until(lambda: channel.connection.process_data_events(0.1) or got, WAIT_SECONDS)
        assert got == numbered(5)


@pytest.mark.parametrize("kind,arguments,text", [
    ("quorum", {"x-quorum-initial-group-size": 3, "x-quorum-target-group-size": 0, "x-max-in-memory-length": 3,
                "x-max-in-memory-bytes": 9, "x-queue-leader-locator": "client-local", "x-overflow": "reject-publish-dlx",
                "x-delivery-limit": -5, "x-unknown": 1}, None),
    ("quorum", {"x-quorum-initial-group-size": 0}, "invalid arg '{0}' for queue '{1}' in vhost '/': {{value_zero,0}}"),
    ("quorum", {"x-quorum-initial-group-size": "a"},
     "invalid arg '{0}' for queue '{1}' in vhost '/': \"expected integer, got longstr\""),
    ("quorum", {"x-max-in-memory-length": -1}, "invalid arg '{0}' for queue '{1}' in vhost '/': {{value_negative,-1}}"),
    ("quorum", {"x-queue-leader-locator": 5},
     "invalid arg '{0}' for queue '{1}' in vhost '/': {{unacceptable_type,signedint}}"),
    ("classic", {"x-queue-mode": "lazy", "x-queue-version": 2, "x-queue-master-locator": "x"}, None),
    ("classic", {"x-queue-mode": "foo"}, "invalid arg '{0}' for queue '{1}' in vhost '/': \"unsupported queue mode 'foo'\""),
    ("classic", {"x-queue-version": 9}, "invalid arg '{0}' for queue '{1}' in vhost '/': \"unsupported queue version '9'\""),
] + [(kind, {name: 1}, f"invalid arg '{{0}}' for queue '{{1}}' in vhost '/' of queue type rabbit_{kind}_queue")
     for kind, names in [("quorum", ["x-max-age", "x-max-priority", "x-queue-mode", "x-queue-version",
                                     "x-stream-max-segment-size-bytes", "x-initial-cluster-size"]),
                         ("classic", ["x-max-age", "x-quorum-initial-group-size", "x-initial-cluster-size",
                                      "x-max-in-memory-length", "x-dead-letter-strategy"])] for name in names])
def test_arguments_of_other_types_are_refused(broker, unique, kind, arguments, text):
    with amqp(broker) as channel:
        refused = amqp_refusal(channel.connection, lambda ch: ch.queue_declare(
            unique, durable=True, arguments={"x-queue-type": kind, **arguments}))
        name = next(iter(arguments))
        assert refused == (text and (406, "PRECONDITION_FAILED - " + text.format(name, unique)))
