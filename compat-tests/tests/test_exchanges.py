"""Exchanges that give each message to one of their queues, with the texts of RabbitMQ 4.0.5 and its plugins."""

import uuid

import pika
import pytest

import wire
from clients import amqp, amqp_get, amqp_refusal, mqtt
from harness import wait_until
from wire import Amqp, Mqtt

MESSAGES = 1200


def name(start):
    return f"{start}-{uuid.uuid4().hex[:8]}"


def shares(channel, kind, weights, arguments=None, key=lambda n: f"k{n}", headers=lambda _n: {}):
    """The messages that each of as many queues as there are weights gets."""
    exchange, queues = name("choosing"), [name("q") for _ in weights]
    channel.exchange_declare(exchange, kind, arguments=arguments)
    for queue, weight in zip(queues, weights):
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, exchange, weight)
    for n in range(MESSAGES):
        channel.basic_publish(exchange, key(n), b"", pika.BasicProperties(headers=headers(n), message_id=f"m{n % 300}"))

    def depths():
        return [channel.queue_declare(queue, passive=True).method.message_count for queue in queues]

    wait_until(lambda: sum(depths()) == MESSAGES)
    return depths()


@pytest.mark.parametrize("kind, weights, wanted", [
    ("x-consistent-hash", ["1", "1", "2"], [300, 300, 600]),
    ("x-modulus-hash", ["", "", ""], [400, 400, 400]),
    ("x-random", ["a", "", "c"], [400, 400, 400]),
    ("x-local-random", ["", "", ""], [400, 400, 400]),
])
def test_each_message_goes_to_one_queue_by_its_share(broker, kind, weights, wanted):
    with amqp(broker) as channel:
        got = shares(channel, kind, weights)
        assert all(abs(count - share) < 120 for count, share in zip(got, wanted)), got


@pytest.mark.parametrize("kind", ["x-consistent-hash", "x-modulus-hash"])
def test_messages_of_one_key_go_to_one_queue(broker, kind):
    with amqp(broker) as channel:
        assert sorted(shares(channel, kind, ["1", "1", "1"], key=lambda _: "same")) == [0, 0, MESSAGES]


def test_the_hash_can_be_of_a_header_or_a_property(broker):
    with amqp(broker) as channel:
        of_header = {"hash-header": "who"}
        got = shares(channel, "x-consistent-hash", ["1", "1", "1"], of_header, lambda _: "same", lambda n: {"who": n % 300})
        assert all(abs(count - 400) < 200 for count in got), got
        assert sorted(shares(channel, "x-consistent-hash", ["1"] * 3, of_header)) == [0, 0, MESSAGES], "without the header"
        of_property = {"hash-property": "message_id"}
        got = shares(channel, "x-consistent-hash", ["1", "1", "1"], of_property, lambda _: "same")
        assert all(abs(count - 400) < 200 for count in got), got


def test_the_way_of_a_message_is_the_same_after_a_restart(own_broker):
    broker = own_broker()
    queues = ["a", "b", "c"]

    def ways():
        with amqp(broker) as channel:
            found = []
            for n in range(50):
                channel.basic_publish("x", f"k{n}", b"")
                found.append(wait_until(lambda: next((q for q in queues if channel.basic_get(q, auto_ack=True)[0]), None)))
            return found

    with amqp(broker) as channel:
        channel.exchange_declare("x", "x-consistent-hash", durable=True)
        for queue in queues:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "x", "1")
    before = ways()
    broker.kill()
    broker.start()
    assert ways() == before


def test_refusals(broker):
    with amqp(broker) as channel:
        exchange, local, queue = name("x"), name("l"), name("q")
        channel.exchange_declare(exchange, "x-consistent-hash")
        channel.exchange_declare(local, "x-local-random")
        channel.queue_declare(queue, exclusive=True)

        def bind(source, key):
            return amqp_refusal(channel.connection, lambda ch: ch.queue_bind(queue, source, key))

        def declare(arguments):
            return amqp_refusal(channel.connection, lambda ch: ch.exchange_declare(name("y"), "x-consistent-hash",
                                                                                   arguments=arguments))

        start = "PRECONDITION_FAILED - "
        assert bind(exchange, "x") == (406, start + 'The binding key must be an integer: <<"x">>')
        assert bind(exchange, "") == (406, start + "The binding key must be an integer: <<>>")
        for key in ("0", "-1"):
            assert bind(exchange, key) == (406, start + "The binding key must be greater than 0")
        assert bind(exchange, "10") is None
        assert bind(local, "key") == (406, start + "Non empty binding 'key' key not permitted")
        assert declare({"hash-header": "a", "hash-property": "message_id"}) == (
            406, start + "hash-header and hash-property are mutually exclusive")
        assert declare({"hash-property": "app_id"}) == (406, start + "Unsupported property: app_id")


# ---- recent history


def test_a_queue_that_is_bound_gets_the_last_messages(broker, unique):
    with amqp(broker) as channel:
        channel.exchange_declare(unique, "x-recent-history", durable=True, arguments={"x-recent-history-length": 2})
        for number in range(5):
            channel.basic_publish(unique, f"k{number}", b"%d" % number, pika.BasicProperties(headers={"i": number}))
        channel.basic_publish(unique, "no", b"no", pika.BasicProperties(headers={"x-recent-history-no-store": True}))
        for arguments in ({"durable": True}, {"exclusive": True}):
            queue = channel.queue_declare(f"{unique}-{len(arguments)}{[*arguments][0]}", **arguments).method.queue
            for key in ("x", "x", "y"):
                channel.queue_bind(queue, unique, key)
            got = [amqp_get(channel, queue) for _ in range(4)]
            # Once for each binding; one that is there already gives nothing.
            assert [(m.routing_key, m.exchange, p.headers, body) for m, p, body in got] == [
                (f"k{n}", unique, {"i": n}, b"%d" % n) for n in (3, 4)] * 2
            channel.basic_publish(unique, "z", b"after", pika.BasicProperties(headers={"x-recent-history-no-store": True}))
            assert amqp_get(channel, queue)[2] == b"after"
            assert channel.queue_declare(queue, passive=True).method.message_count == 0
        for length, shown in [("a", '<<"a">>'), (0, "0"), (-1, "-1")]:
            refused = amqp_refusal(channel.connection, lambda ch: ch.exchange_declare(
                f"{unique}-bad", "x-recent-history", arguments={"x-recent-history-length": length}))
            assert refused == (406, f"PRECONDITION_FAILED - Invalid argument {shown}, 'x-recent-history-length' must be "
                                    "a positive integer")


def test_the_last_messages_are_those_that_reached_the_exchange_and_were_published(broker, unique):
    with amqp(broker) as channel, mqtt(broker) as device:
        channel.exchange_declare(unique, "x-recent-history", durable=True)
        channel.exchange_bind(unique, "amq.topic", f"{unique}.#")
        channel.exchange_declare(f"{unique}-first", "direct", arguments={"alternate-exchange": unique})
        device.publish(f"{unique}/mqtt", b"mqtt")
        channel.basic_publish(f"{unique}-first", "no binding", b"alternate")
        with amqp(broker, confirm=False) as transactional:
            transactional.tx_select()
            transactional.basic_publish(unique, "k", b"rolled back")
            transactional.tx_rollback()
            transactional.basic_publish(unique, "k", b"committed")
            transactional.tx_commit()
        full = channel.queue_declare(f"{unique}-full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}).method.queue
        channel.queue_bind(full, unique, "")
        assert channel.queue_declare(full, passive=True).method.message_count == 1, "it takes no more"
        with pytest.raises(pika.exceptions.NackError):
            channel.basic_publish(unique, "k", b"refused")
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, unique, "")
        assert sorted(amqp_get(channel, queue)[2] for _ in range(3)) == [b"alternate", b"committed", b"mqtt"]
        assert channel.queue_declare(queue, passive=True).method.message_count == 0


def test_a_message_to_very_many_queues_is_there_before_what_the_client_sends_next(broker):
    count, exchange, queue = 3_000, name("many"), name("q")
    with Amqp(broker.amqp_port) as client:
        client.call(wire.exchange_declare(exchange, "fanout"), 40, 11)
        for at in range(count):
            client.send(wire.queue_declare(f"{queue}-{at}", durable=False, nowait=True),
                        wire.queue_bind(f"{queue}-{at}", exchange, "", nowait=True))
        client.call(wire.CONFIRM_SELECT, 85, 11)
        for body in (b"1", b"2"):
            # Not waited for.
            client.send(wire.basic_publish(exchange, "", body, persistent=False), wire.basic_get(f"{queue}-{count - 1}"))
            client.expect(60, 80)
            client.expect(60, 71)
        client.send(wire.basic_publish(exchange, "", b"3", persistent=False))
        # The client goes at once.
    with Amqp(broker.amqp_port) as client:
        def depth(at):
            return int.from_bytes(client.call(wire.queue_declare(f"{queue}-{at}", durable=False), 50, 11)[-8:-4], "big")

        for at in range(count):
            wait_until(lambda: depth(at) == (3 if at < count - 1 else 1), 30, f"the messages of queue {at}")
        client.send(*(wire.queue_delete(f"{queue}-{at}", nowait=True) for at in range(count)))
        client.call(wire.queue_declare(queue, durable=False), 50, 11)


def test_a_message_to_very_many_mqtt_sessions(broker):
    topic, count = name("many"), 700
    clients = [Mqtt(broker.mqtt_port, f"{topic}-{at}") for at in range(count)]
    for client in clients:
        client.send(wire.mqtt_subscribe([topic]))
        client.expect(9)
    publisher = Mqtt(broker.mqtt_port, topic)
    for body in (b"1", b"2"):
        publisher.send(wire.mqtt_publish(topic, body, 1))
    for _ in range(2):
        publisher.expect(4)
    for client in clients:
        assert [client.packet()[1][-1:] for _ in range(2)] == [b"1", b"2"]
    for client in (publisher, *clients):
        client.close()


# ---- deduplication

DEDUPLICATING = "x-message-deduplication"


def send(channel, exchange, value, body, **headers):
    known = {} if value is None else {"x-deduplication-header": value}
    channel.basic_publish(exchange, "k", body, pika.BasicProperties(headers={**known, **headers}, delivery_mode=2))


def bodies(channel, queue):
    got = []
    while (message := channel.basic_get(queue, auto_ack=True))[0]:
        got.append(message[2])
    return got


def test_a_message_with_a_value_that_was_seen_is_left_out(broker):
    with amqp(broker) as channel:
        exchange, queue = name("once"), name("q")
        channel.exchange_declare(exchange, DEDUPLICATING, durable=True, arguments={"x-cache-size": 3})
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, exchange, "whatever")
        for value, body in [("a", b"1"), ("b", b"2"), ("a", b"3"), (None, b"4"), (None, b"5"), (7, b"6"), (7, b"7")]:
            send(channel, exchange, value, body)
        assert bodies(channel, queue) == [b"1", b"2", b"4", b"5", b"6"]
        # The oldest makes room.
        for value, body in [("c", b"8"), ("b", b"9"), ("a", b"10")]:
            send(channel, exchange, value, body)
        assert bodies(channel, queue) == [b"8", b"10"]
        channel.queue_delete(queue)
        channel.exchange_delete(exchange)


def test_a_value_is_seen_for_the_time_of_the_exchange_or_the_message(broker):
    with amqp(broker) as channel:
        exchange, queue = name("once"), name("q")
        channel.exchange_declare(exchange, DEDUPLICATING, arguments={"x-cache-size": 10, "x-cache-ttl": 3_600_000})
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, exchange, "")
        send(channel, exchange, "long", b"1")
        send(channel, exchange, "short", b"2", **{"x-cache-ttl": 100})

        def passes():
            send(channel, exchange, "short", b"again", **{"x-cache-ttl": 100})
            send(channel, exchange, "long", b"never")
            return bodies(channel, queue)

        assert bodies(channel, queue) == [b"1", b"2"]
        assert wait_until(passes) == [b"again"]


def test_a_message_that_a_queue_refused_can_be_sent_again(broker):
    with amqp(broker) as channel:
        exchange, queue = name("once"), name("q")
        channel.exchange_declare(exchange, DEDUPLICATING, arguments={"x-cache-size": 10})
        channel.queue_declare(queue, exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        send(channel, exchange, "a", b"unbound")
        channel.queue_bind(queue, exchange, "")
        send(channel, exchange, "a", b"1")
        with pytest.raises(pika.exceptions.NackError):
            send(channel, exchange, "b", b"2")
        assert bodies(channel, queue) == [b"1"]
        send(channel, exchange, "b", b"3")
        assert bodies(channel, queue) == [b"3"]


def test_messages_of_one_turn_and_of_other_exchanges_are_compared(broker):
    with amqp(broker, confirm=False) as channel:
        exchange, queue, other = name("once"), name("q"), name("q")
        channel.exchange_declare(exchange, DEDUPLICATING, arguments={"x-cache-size": 1000})
        for it in queue, other:
            channel.queue_declare(it, exclusive=True)
        channel.queue_bind(queue, exchange, "")
        first = name("x")
        channel.exchange_declare(first, "fanout")
        channel.exchange_bind(exchange, first)
        channel.queue_bind(other, first)
        for n in range(300):
            send(channel, first, f"v{n // 3}", b"%d" % n)

        def depths():
            return [channel.queue_declare(it, passive=True).method.message_count for it in (queue, other)]

        wait_until(lambda: depths() == [100, 300])
        assert bodies(channel, queue) == [b"%d" % n for n in range(0, 300, 3)]


@pytest.mark.parametrize("arguments, code, text", [
    ({}, 406, "PRECONDITION_FAILED - Invalid argument, 'x-cache-size' must be an integer greater than 0"),
    ({"x-cache-size": 0}, 406, "PRECONDITION_FAILED - Invalid argument, 'x-cache-size' must be an integer greater than 0"),
    ({"x-cache-size": 10, "x-cache-ttl": "x"}, 406,
     "PRECONDITION_FAILED - Invalid argument, 'x-cache-ttl' must be an integer greater than 0"),
    ({"x-cache-size": 10, "x-cache-persistence": "disk"}, 406,
     "PRECONDITION_FAILED - Invalid argument, 'x-cache-persistence' must be 'memory'"),
    ({"x-cache-size": 100_001}, 406,
     "PRECONDITION_FAILED - limit reached: at most 100000 values that an exchange remembers"),
])
def test_what_a_deduplicating_exchange_cannot_be_is_refused(broker, arguments, code, text):
    with amqp(broker) as channel:
        refused = amqp_refusal(channel.connection, lambda ch: ch.exchange_declare(name("x"), DEDUPLICATING,
                                                                                 arguments=arguments))
        assert refused == (code, text)
