"""RabbitMQ's extensions of AMQP 0-9-1 and its error texts, tested with pika."""

import time

import pika
import pika.exceptions
import pytest

from clients import amqp, amqp_connection, amqp_get, amqp_take
from harness import wait_until


def depth(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


class Taker:
    """A consumer on its own connection, which processes events on request."""

    def __init__(self, broker, queue, prefetch=0, ack=True, **consume):
        self.connection = amqp_connection(broker)
        self.channel = self.connection.channel()
        self.bodies, self.tags = [], []
        if prefetch:
            self.channel.basic_qos(prefetch_count=prefetch)
        self.ack = ack
        self.tag = self.channel.basic_consume(queue, self.take, **consume)

    def take(self, channel, method, _properties, body):
        self.bodies.append(body)
        self.tags.append(method.delivery_tag)
        if self.ack:
            channel.basic_ack(method.delivery_tag)

    def serve(self):
        self.connection.process_data_events(0)
        return self.bodies

    def close(self):
        self.connection.close()


def served(*takers):
    return [len(taker.serve()) for taker in takers]


# ---- delivery order


def test_consumers_with_a_higher_priority_are_served_first(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        low = Taker(broker, unique, ack=False)
        high = Taker(broker, unique, prefetch=3, ack=False, arguments={"x-priority": 5})
        for n in range(3):
            channel.basic_publish("", unique, b"%d" % n)
            wait_until(lambda: sum(served(low, high)) == n + 1)
        assert served(low, high) == [0, 3]
        # Its prefetch is used up: the others get the rest.
        for n in range(2):
            channel.basic_publish("", unique, b"more")
        wait_until(lambda: served(low, high) == [2, 3])
        low.close()
        high.close()


def test_a_get_does_not_bypass_a_waiting_consumer(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        waiting = Taker(broker, unique)
        for n in range(20):
            channel.basic_publish("", unique, b"%d" % n)
            assert channel.basic_get(unique, auto_ack=True)[0] is None
        wait_until(lambda: served(waiting) == [20])
        waiting.close()


def test_prefetch_of_a_consumer_and_of_a_channel(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        for n in range(10):
            channel.basic_publish("", unique, b"%d" % n)
        own = amqp_connection(broker)
        mine = own.channel()
        got = []
        mine.basic_qos(prefetch_count=2)
        mine.basic_qos(prefetch_count=3, global_qos=True)
        for tag in ("a", "b"):
            mine.basic_consume(unique, lambda ch, m, p, b: got.append(m), consumer_tag=tag)
        def held():
            own.process_data_events(0)
            return len(got) == 3 and got
        wait_until(held)
        counts = [[m.consumer_tag for m in got].count(tag) for tag in ("a", "b")]
        assert sorted(counts) == [1, 2], "two by the consumer's prefetch, three by the channel's"
        assert depth(channel, unique) == 7
        mine.basic_ack(got[-1].delivery_tag, multiple=True)
        wait_until(lambda: own.process_data_events(0) or len(got) == 6)
        own.close()


# ---- time


@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
@pytest.mark.parametrize("by", ["queue", "message"])
def test_a_ttl_of_zero_delivers_only_to_a_waiting_consumer(broker, unique, by, durable):
    with amqp(broker) as channel:
        arguments = {"x-message-ttl": 0} if by == "queue" else {}
        properties = pika.BasicProperties(expiration="0" if by == "message" else None, delivery_mode=2)
        channel.queue_declare(unique, durable=durable, arguments=arguments)
        channel.basic_publish("", unique, b"nobody waits", properties)
        assert channel.basic_get(unique)[0] is None
        waiting = Taker(broker, unique, ack=False)
        channel.basic_publish("", unique, b"at once", properties)
        wait_until(lambda: waiting.serve() == [b"at once"])
        waiting.channel.basic_nack(waiting.tags[0], requeue=True)
        waiting.channel.basic_cancel(waiting.tag)
        assert waiting.channel.basic_get(unique)[0] is None, "a requeued message has expired"
        waiting.close()


def test_a_message_expires_on_time_without_a_consumer(broker, unique):
    dead = f"{unique}-dead"
    with amqp(broker) as channel:
        channel.queue_declare(dead)
        taker = Taker(broker, dead)
        channel.queue_declare(unique, arguments={
            "x-message-ttl": 60, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
        times = []
        for n in range(5):
            started = time.monotonic()
            channel.basic_publish("", unique, b"%d" % n)
            wait_until(lambda: served(taker) == [n + 1])
            times.append(time.monotonic() - started)
        assert min(times) >= 0.05
        assert sorted(times)[2] < 0.5, times
        taker.close()


@pytest.mark.parametrize("name", ["loop", "loop\\new", "loop\\\\new"])
@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
def test_a_dead_letter_cycle_without_rejections_is_dropped(broker, unique, durable, name):
    """A queue that dead-letters to itself by TTL. The names contain what an escaped line feed would look like."""
    queue, copies, exchange = f"{unique}-{name}", f"{unique}-copies", f"{unique}-dlx"
    with amqp(broker) as channel:
        channel.exchange_declare(exchange, "fanout")
        channel.queue_declare(queue, durable=durable, arguments={
            "x-message-ttl": 1, "x-dead-letter-exchange": exchange})
        channel.queue_declare(copies)
        channel.queue_bind(queue, exchange)
        channel.queue_bind(copies, exchange)
        channel.basic_publish("", queue, b"x", pika.BasicProperties(delivery_mode=2))
        _, properties, body = amqp_get(channel, copies)
        assert (body, properties.headers["x-last-death-queue"]) == (b"x", queue)
        wait_until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 0)
        assert channel.basic_get(copies)[0] is None
        channel.queue_delete(queue)


def test_an_unused_queue_expires_and_use_keeps_it(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, arguments={"x-expires": 400})
        until = time.monotonic() + 1.2
        wait_until(lambda: channel.basic_get(unique)[0] is None and time.monotonic() > until)
        def gone():
            with amqp(broker) as other:
                try:
                    # A passive declaration would count as use.
                    other.queue_bind(unique, "amq.direct", "k")
                except pika.exceptions.ChannelClosedByBroker as closed:
                    return closed.reply_code == 404
        wait_until(gone)


# ---- routing


def test_cc_and_bcc_apply_to_every_exchange_of_the_route(broker, unique):
    first, second = f"{unique}-first", f"{unique}-second"
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        channel.exchange_declare(first, "direct", auto_delete=True)
        channel.exchange_declare(second, "topic", auto_delete=True)
        channel.exchange_bind(second, first, "by-cc")
        channel.queue_bind(unique, second, "by.*")
        headers = {"CC": ["by-cc"], "BCC": ["by.bcc"], "mine": 1}
        channel.basic_publish(first, "nowhere", b"copied", pika.BasicProperties(headers=headers), mandatory=True)
        _, properties, body = amqp_get(channel, unique)
        assert body == b"copied"
        assert properties.headers == {"CC": ["by-cc"], "mine": 1}, "BCC is removed"


def test_alternate_and_internal_exchanges(broker, unique):
    with amqp(broker) as channel:
        inner, outer = f"{unique}-inner", f"{unique}-outer"
        channel.exchange_declare(inner, "fanout", internal=True, auto_delete=True)
        channel.exchange_declare(outer, "direct", auto_delete=True, arguments={"alternate-exchange": inner})
        channel.queue_declare(unique)
        channel.queue_bind(unique, inner)
        channel.basic_publish(outer, "nobody", b"unroutable", mandatory=True)
        assert amqp_get(channel, unique)[2] == b"unroutable"
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_publish(inner, "", b"")
        assert refused.value.args == (
            403, f"ACCESS_REFUSED - cannot publish to internal exchange '{inner}' in vhost '/'")
    with amqp(broker) as channel:
        channel.exchange_delete(outer)


def test_direct_reply_to(broker, unique):
    with amqp(broker) as server, amqp(broker, confirm=False) as client:
        server.queue_declare(unique)
        replies = []
        client.basic_consume("amq.rabbitmq.reply-to", lambda ch, m, p, b: replies.append((p.correlation_id, b)),
                             auto_ack=True)
        client.basic_publish("", unique, b"question",
                             pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="7"))
        _, properties, body = amqp_get(server, unique)
        assert body == b"question" and properties.reply_to.startswith("amq.rabbitmq.reply-to.")
        server.basic_publish("", properties.reply_to, b"answer",
                             pika.BasicProperties(correlation_id=properties.correlation_id))
        wait_until(lambda: client.connection.process_data_events(0) or replies == [("7", b"answer")])


# ---- queues


def test_a_quorum_queue_enforces_its_delivery_limit(broker, unique):
    dead = f"{unique}-dead"
    with amqp(broker) as channel:
        channel.queue_declare(dead, durable=True)
        channel.queue_declare(unique, durable=True, arguments={
            "x-queue-type": "quorum", "x-delivery-limit": 2,
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
        channel.basic_publish("", unique, b"poison", pika.BasicProperties(delivery_mode=2))
        for _ in range(3):
            method, _, body = channel.basic_get(unique)
            assert body == b"poison"
            channel.basic_nack(method.delivery_tag, requeue=True)
        _, properties, _ = amqp_get(channel, dead)
        assert properties.headers["x-death"][0]["reason"] == "delivery_limit"
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.queue_declare(f"{unique}-t", arguments={"x-queue-type": "quorum"})
        assert refused.value.args == (
            406, f"PRECONDITION_FAILED - invalid property 'non-durable' for queue '{unique}-t' in vhost '/'")


def test_max_length_bytes_is_enforced(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, arguments={"x-max-length-bytes": 100})
        for n in range(10):
            channel.basic_publish("", unique, bytes([n]) * 30)
        assert [body[0] for _, _, body in amqp_take(channel, unique, 3)] == [7, 8, 9]


def test_messages_over_the_length_limit_are_dead_lettered_at_once(broker, unique):
    dead = f"{unique}-dead"
    with amqp(broker) as channel:
        channel.queue_declare(dead)
        channel.queue_declare(unique, arguments={
            "x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
        for n in range(3):
            channel.basic_publish("", unique, b"%d" % n)
        _, properties, body = amqp_get(channel, dead, 2)
        assert body == b"0" and properties.headers["x-first-death-reason"] == "maxlen"


def test_a_consumer_is_cancelled_when_its_queue_is_deleted(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        taker = Taker(broker, unique)
        told = []
        taker.channel.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
        channel.queue_delete(unique)
        wait_until(lambda: taker.connection.process_data_events(0) or told == [taker.tag])
        taker.close()


def test_recover_requeues_all_unacked_messages(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        for n in range(3):
            channel.basic_publish("", unique, b"%d" % n)
        assert [channel.basic_get(unique)[2] for _ in range(3)] == [b"0", b"1", b"2"]
        channel.basic_recover(requeue=True)
        again = [channel.basic_get(unique) for _ in range(3)]
        assert [(method.redelivered, body) for method, _, body in again] == [
            (True, b"0"), (True, b"1"), (True, b"2")]


# ---- connections


def test_update_secret(broker, unique):
    with amqp(broker) as channel:
        channel.connection.update_secret(b"new", "the old one expires")
        channel.queue_declare(unique, auto_delete=True)


def test_a_message_over_the_size_limit_closes_only_the_channel(broker, unique):
    connection = amqp_connection(broker)
    channel = connection.channel()
    channel.queue_declare(unique)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.basic_publish("", unique, bytes((16 << 20) + 1))
        channel.queue_declare(unique)
    assert refused.value.args == (
        406, "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216")
    channel = connection.channel()
    channel.queue_delete(unique)
    connection.close()


@pytest.mark.parametrize(("act", "error"), [
    (lambda ch, q: ch.queue_declare(q, durable=True), (
        406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{q}' in vhost '/': received 'true' but "
             "current is 'false'")),
    (lambda ch, q: ch.queue_declare(q, arguments={"x-message-ttl": 5}), (
        406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{q}' in vhost '/': received the value "
             "'5' of type 'signedint' but current is none")),
    (lambda ch, q: ch.exchange_declare("amq.direct", "fanout"), (
        406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'fanout' "
             "but current is 'direct'")),
    (lambda ch, q: ch.exchange_declare("amq.mine", "fanout"), (
        403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")),
    (lambda ch, q: ch.queue_bind(q, f"{q}-none", ""), (404, "NOT_FOUND - no exchange '{q}-none' in vhost '/'")),
    (lambda ch, q: ch.queue_declare(f"{q}-none", passive=True), (404, "NOT_FOUND - no queue '{q}-none' in vhost '/'")),
    (lambda ch, q: ch.queue_delete(q, if_empty=True), (
        406, "PRECONDITION_FAILED - queue '{q}' in vhost '/' not empty")),
    (lambda ch, q: ch.basic_ack(99) or ch.queue_declare(q), (406, "PRECONDITION_FAILED - unknown delivery tag 99")),
], ids=["durable", "argument", "type", "reserved", "no exchange", "no queue", "not empty", "tag"])
def test_error_texts_equal_rabbitmqs(broker, unique, act, error):
    with amqp(broker) as channel:
        channel.queue_declare(unique)
        channel.basic_publish("", unique, b"")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            act(channel, unique)
        assert refused.value.args == (error[0], error[1].format(q=unique))


def test_an_exclusive_queue_is_locked_to_others(broker, unique):
    with amqp(broker) as owner, amqp(broker) as other:
        owner.queue_declare(unique, exclusive=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            other.queue_declare(unique, passive=True)
        assert refused.value.args[0] == 405
        assert refused.value.args[1].startswith(
            f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{unique}' in vhost '/'.")
