"""AMQP 0-9-1 clients: pika, RabbitMQ's Java client, its PerfTest, amqplib."""

import os
import re
import socket
import threading
import time

import pika
import pika.exceptions
import pytest

from clients import amqp, amqp_connection, amqp_get, amqp_take, java, node
from harness import wait_until


def test_java_client(broker, unique):
    assert java("apps", "AmqpApp", broker.amqp, unique).endswith("done\n")


def test_amqplib(broker, unique):
    assert node("amqp.js", broker.amqp, unique) == "done\n"


@pytest.mark.parametrize("extra", [
    [], ["--flag", "persistent", "--confirm", "50", "--auto-delete", "false", "--qos", "100"], ["--autoack"],
], ids=["transient", "persistent-confirmed", "auto-ack"])
def test_perf_test(broker, unique, extra):
    perf_test(broker, "--queue", unique, "--pmessages", "5000", "--cmessages", "5000", "--size", "200", *extra)


def test_perf_test_over_several_queues(broker, unique):
    perf_test(broker, "--queue-pattern", f"{unique}-%d", "--queue-pattern-from", "1", "--queue-pattern-to", "5",
              "--producers", "5", "--consumers", "5", "--pmessages", "500", "--cmessages", "500", "--confirm", "20")


def test_perf_test_on_a_quorum_queue_that_is_then_predeclared(broker, unique):
    many = ["--queue", unique, "--pmessages", "1000", "--cmessages", "1000", "--flag", "persistent", "--confirm", "50"]
    perf_test(broker, "--quorum-queue", *many)
    perf_test(broker, "--predeclared", *many)
    with amqp(broker) as channel:
        assert channel.queue_declare(unique, passive=True).method.message_count == 0


def perf_test(broker, *options):
    said = java("perf", "com.rabbitmq.perf.PerfTest", "--uri", broker.amqp, "--time", "60", *options)
    received = re.search(r"receiving rate avg: (\d+) msg/s", said)
    assert received and int(received.group(1)) > 0, said


# ---- pika in detail


def test_properties_and_headers_are_delivered_unchanged(broker, unique):
    import datetime
    import decimal
    headers = {
        "text": "Grüße", "bytes": b"\0\xff", "true": True, "small": 1, "int": -(1 << 30), "long": 1 << 40,
        "void": None, "time": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc),
        "decimal": decimal.Decimal("12.34"), "table": {"inner": {"deep": [1, "two", {"three": 3}]}}, "list": [True, None],
    }
    properties = pika.BasicProperties(
        content_type="text/plain", content_encoding="utf-8", headers=headers, delivery_mode=2, priority=4,
        correlation_id="c", reply_to="r", expiration="600000", message_id="m", timestamp=1234567, type="t",
        user_id="guest", app_id="a", cluster_id="k",
    )
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        channel.basic_publish("", unique, b"body", properties)
        _, got, body = amqp_get(channel, unique)
        assert body == b"body"
        for name in ("content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
                     "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id"):
            assert getattr(got, name) == getattr(properties, name), name


@pytest.mark.parametrize("size", [0, 1, 4096, 131_064, 131_065, 1 << 20, 10 << 20])
def test_sizes(broker, unique, size):
    body = os.urandom(size)
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        channel.basic_publish("", unique, body, pika.BasicProperties(delivery_mode=2))
        assert amqp_get(channel, unique)[2] == body
        channel.queue_delete(unique)


def test_exchanges_route(broker, unique):
    with amqp(broker) as channel:
        for kind in ("direct", "fanout", "topic", "headers"):
            channel.exchange_declare(f"{unique}-{kind}", kind)
        def queue(exchange, key="", arguments=None):
            name = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(name, exchange, key, arguments)
            return name
        def depth(name):
            return channel.queue_declare(name, passive=True).method.message_count
        direct, fan_1, fan_2 = queue(f"{unique}-direct", "k"), queue(f"{unique}-fanout"), queue(f"{unique}-fanout")
        topic, wild = queue(f"{unique}-topic", "a.*.c"), queue(f"{unique}-topic", "a.#")
        every = queue(f"{unique}-headers", "", {"x-match": "all", "n": 1, "s": "x"})
        some = queue(f"{unique}-headers", "", {"x-match": "any", "n": 1, "s": "x"})
        publish = lambda kind, key, headers=None: channel.basic_publish(
            f"{unique}-{kind}", key, b"", pika.BasicProperties(headers=headers))
        publish("direct", "k"), publish("direct", "other"), publish("fanout", "whatever")
        for key in ("a.b.c", "a.b.d", "a", "b"):
            publish("topic", key)
        publish("headers", "", {"n": 1, "s": "x", "more": True}), publish("headers", "", {"n": 1, "s": "y"})
        publish("headers", "", {"n": "1"})
        assert [depth(each) for each in (direct, fan_1, fan_2, topic, wild, every, some)] == [1, 1, 1, 1, 3, 1, 2]


def test_an_exchange_can_be_bound_to_an_exchange(broker, unique):
    with amqp(broker) as channel:
        channel.exchange_declare(f"{unique}-a", "topic")
        channel.exchange_declare(f"{unique}-b", "fanout")
        channel.exchange_bind(f"{unique}-b", f"{unique}-a", "x.#")
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, f"{unique}-b")
        channel.basic_publish(f"{unique}-a", "x.y", b"through", mandatory=True)
        assert amqp_get(channel, queue)[2] == b"through"


def test_unroutable_and_mandatory_is_returned(broker, unique):
    with amqp(broker) as channel:
        with pytest.raises(pika.exceptions.UnroutableError):
            channel.basic_publish("amq.direct", unique, b"", mandatory=True)
        channel.basic_publish("amq.direct", unique, b"")


def test_prefetch_and_requeue(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        for n in range(10):
            channel.basic_publish("", unique, b"%d" % n)
        channel.basic_qos(prefetch_count=3)
        got = []
        channel.basic_consume(unique, lambda _c, method, _p, body: got.append((method, body)))
        wait_until(lambda: channel.connection.process_data_events(0.01) or len(got) >= 3, 10)
        channel.queue_declare(unique, passive=True)
        assert [body for _, body in got] == [b"0", b"1", b"2"], "no more than the prefetch count"
        channel.basic_nack(got[1][0].delivery_tag, multiple=True, requeue=True)
        channel.basic_ack(got[2][0].delivery_tag)
        wait_until(lambda: channel.connection.process_data_events(0.01) or len(got) >= 6, 10)
        assert [(method.redelivered, body) for method, body in got[3:6]] == [(True, b"0"), (True, b"1"), (False, b"3")]


def test_unacked_messages_of_a_lost_consumer_are_redelivered(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        for n in range(5):
            channel.basic_publish("", unique, b"%d" % n)
        connection = amqp_connection(broker)
        other = connection.channel()
        held = [other.basic_get(unique) for _ in range(3)]
        assert [each[2] for each in held] == [b"0", b"1", b"2"]
        # The connection breaks without a close.
        connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: channel.queue_declare(unique, passive=True).method.message_count == 5,
                   what="the return of what it held")
        taken = amqp_take(channel, unique, 5)
        assert [body for _, _, body in taken] == [b"%d" % n for n in range(5)], "in their original order"
        assert [method.redelivered for method, _, _ in taken] == [True] * 3 + [False] * 2


def test_durable_objects_survive_a_restart(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        channel.exchange_declare("kept-x", "topic", durable=True)
        channel.exchange_declare("gone-x", "topic")
        channel.queue_declare("kept", durable=True)
        channel.queue_declare("gone")
        channel.queue_bind("kept", "kept-x", "a.#")
        for n in range(50):
            channel.basic_publish("kept-x", "a.b", b"%d" % n, pika.BasicProperties(delivery_mode=2))
        for method, _, _ in amqp_take(channel, "kept", 20, ack=False)[5:10]:
            channel.basic_ack(method.delivery_tag)
    broker.restart()
    with amqp(broker) as channel:
        bodies = [int(body) for _, _, body in amqp_take(channel, "kept", 45)]
        assert bodies == [n for n in range(50) if not 5 <= n < 10]
        channel.basic_publish("kept-x", "a", b"still bound", mandatory=True)
    for name, declare in (("gone", "queue_declare"), ("gone-x", "exchange_declare")):
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            getattr(channel, declare)(name, passive=True)
        assert closed.value.reply_code == 404


@pytest.mark.parametrize("act, code", [
    (lambda c, n: c.queue_declare(n, passive=True), 404),
    (lambda c, n: c.exchange_declare(n, passive=True), 404),
    (lambda c, n: c.basic_get(n), 404),
    (lambda c, n: c.queue_bind(n, "amq.topic"), 404),
    (lambda c, n: (c.queue_declare(n), c.queue_declare(n, durable=True)), 406),
    (lambda c, n: (c.exchange_declare(n, "topic"), c.exchange_declare(n, "direct")), 406),
    (lambda c, n: c.exchange_declare("amq.mine", "topic"), 403),
    (lambda c, n: c.queue_declare("amq.mine"), 403),
    (lambda c, n: c.basic_ack(77), 406),
    (lambda c, n: c.exchange_delete("amq.topic"), 403),
    (lambda c, n: (c.queue_declare(n), c.basic_publish("", n, b""), c.queue_delete(n, if_empty=True)), 406),
], ids=["queue", "exchange", "get", "bind", "queue-clash", "exchange-clash", "reserved-exchange", "reserved-queue",
        "tag", "built-in", "not-empty"])
def test_errors_close_the_channel_with_their_code(broker, unique, act, code):
    connection = amqp_connection(broker)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            act(channel, unique)
            wait_until(lambda: connection.process_data_events(0.05) or channel.is_closed, 5, "the channel being closed")
            reason = channel._closing_reason
        except pika.exceptions.ChannelClosedByBroker as closed:
            reason = closed
        assert reason.reply_code == code, reason
        assert connection.is_open
        connection.channel().queue_declare("", exclusive=True)
    finally:
        connection.close()


def test_exclusive_and_auto_delete(broker, unique):
    with amqp(broker) as other:
        with amqp(broker) as channel:
            channel.queue_declare(unique, exclusive=True)
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
                other.queue_declare(unique, passive=True)
            assert closed.value.reply_code == 405
    def gone():
        with amqp(broker) as channel:
            try:
                channel.queue_declare(unique, passive=True)
            except pika.exceptions.ChannelClosedByBroker as closed:
                return closed.reply_code == 404
    wait_until(gone, what="the exclusive queue going with its connection")
    with amqp(broker) as channel:
        channel.queue_declare(unique, auto_delete=True)
        with amqp(broker) as consuming:
            consuming.basic_consume(unique, lambda *_: None)
    wait_until(gone, what="the auto-delete queue going with its last consumer")


def test_tx(broker, unique):
    with amqp(broker, confirm=False) as channel, amqp(broker) as watcher:
        depth = lambda: watcher.queue_declare(unique, passive=True).method.message_count
        channel.queue_declare(unique, durable=True)
        channel.tx_select()
        channel.basic_publish("", unique, b"rolled back")
        channel.tx_rollback()
        channel.basic_publish("", unique, b"one")
        channel.basic_publish("", unique, b"two")
        assert depth() == 0
        channel.tx_commit()
        assert depth() == 2


def test_time_to_live_and_dead_letters(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(f"{unique}-dead", durable=True)
        channel.queue_declare(unique, durable=True, arguments={
            "x-message-ttl": 300, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{unique}-dead"})
        channel.basic_publish("", unique, b"expires", pika.BasicProperties(headers={"mine": 1}))
        _, properties, body = amqp_get(channel, f"{unique}-dead")
        assert body == b"expires" and properties.headers["mine"] == 1
        death = properties.headers["x-death"][0]
        assert (death["reason"], death["queue"], death["count"]) == ("expired", unique, 1)
        channel.basic_publish("", unique, b"rejected")
        method, _, _ = channel.basic_get(unique)
        channel.basic_reject(method.delivery_tag, requeue=False)
        _, properties, _ = amqp_get(channel, f"{unique}-dead")
        assert properties.headers["x-death"][0]["reason"] == "rejected"


def test_max_length_is_enforced(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, arguments={"x-max-length": 3})
        for n in range(10):
            channel.basic_publish("", unique, b"%d" % n)
        assert [body for _, _, body in amqp_take(channel, unique, 3)] == [b"7", b"8", b"9"]
        channel.queue_declare(f"{unique}-r", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        channel.basic_publish("", f"{unique}-r", b"fits")
        with pytest.raises(pika.exceptions.NackError):
            channel.basic_publish("", f"{unique}-r", b"too many")


def test_single_active_consumer(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, arguments={"x-single-active-consumer": True})
        one, two = amqp_connection(broker), amqp_connection(broker)
        got = {1: 0, 2: 0}
        for number, connection in ((1, one), (2, two)):
            def take(ch, method, _properties, _body, number=number):
                got[number] += 1
                ch.basic_ack(method.delivery_tag)
            connection.channel().basic_consume(unique, take)
        def work():
            for connection in (one, two):
                if connection.is_open:
                    connection.process_data_events(0.01)
            return sum(got.values())
        for _ in range(10):
            channel.basic_publish("", unique, b"")
        wait_until(lambda: work() == 10)
        assert got == {1: 10, 2: 0}
        one.close()
        for _ in range(5):
            channel.basic_publish("", unique, b"")
        wait_until(lambda: work() == 15)
        assert got == {1: 10, 2: 5}
        two.close()


def test_heartbeats_keep_a_connection_and_close_a_silent_one(broker):
    connection = amqp_connection(broker, heartbeat=1)
    deadline = time.monotonic() + 3
    wait_until(lambda: connection.process_data_events(0.1) or time.monotonic() > deadline, 5)
    assert connection.is_open
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    # The client neither reads nor writes from here on.
    def dropped():
        with amqp(broker) as other:
            try:
                other.queue_declare(queue, passive=True)
            except pika.exceptions.ChannelClosedByBroker as closed:
                return closed.reply_code == 404
    wait_until(dropped, 10, "the silent connection being dropped")


def test_a_wrong_password_is_refused_as_rabbitmq_does(broker):
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        amqp_connection(broker, user="guest", password="wrong")


def test_an_unknown_virtual_host_is_refused(broker):
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="530.*vhost /nowhere not found"):
        amqp_connection(broker, virtual_host="/nowhere")


def test_many_channels_and_publishers(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        def work(number):
            with amqp(broker) as own:
                for n in range(100):
                    own.basic_publish("", unique, b"%d-%d" % (number, n), pika.BasicProperties(delivery_mode=2))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        bodies = [body for _, _, body in amqp_take(channel, unique, 600)]
        assert len(set(bodies)) == 600
        for number in range(6):
            mine = [body for body in bodies if body.startswith(b"%d-" % number)]
            assert mine == [b"%d-%d" % (number, n) for n in range(100)], "each publisher's order is kept"
