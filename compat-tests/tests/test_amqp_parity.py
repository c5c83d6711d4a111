"""What RabbitMQ's users rely on: dead letters, delivery counts, active consumers, texts of refusals."""

import uuid

import pika
import pytest

from clients import amqp, amqp_connection, amqp_get, amqp_take
from harness import wait_until

QUORUM = {"x-queue-type": "quorum"}


def name(start):
    return f"{start}-{uuid.uuid4().hex[:8]}"


def declare(channel, start, **arguments):
    queue = name(start)
    channel.queue_declare(queue, durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()})
    return queue


def rejected(channel, queue):
    """Rejects the next message."""
    method = wait_until(lambda: channel.basic_get(queue)[0], what=f"a message in {queue}")
    channel.basic_reject(method.delivery_tag, requeue=False)


def dead_lettering(channel, exchange, **arguments):
    return declare(channel, "source", **{"x-dead-letter-exchange": exchange, **arguments})


@pytest.mark.parametrize("kind", ["topic", "fanout", "headers"])
def test_an_internal_exchange_takes_dead_letters(broker, kind):
    with amqp(broker) as channel:
        dlx, dead = name("dlx"), declare(channel, "dead")
        channel.exchange_declare(dlx, kind, durable=True, internal=True)
        source = dead_lettering(channel, dlx)
        channel.queue_bind(dead, dlx, "#")
        channel.basic_publish("", source, b"letter")
        rejected(channel, source)
        assert amqp_get(channel, dead)[2] == b"letter"
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_publish(dlx, "k", b"of a client")
        assert refused.value.reply_code == 403


@pytest.mark.parametrize("match, headers", [
    ("all", {"mine": 1}),
    ("all", {"text": "t"}),
    ("all-with-x", {"x-first-death-reason": "rejected"}),
    ("any-with-x", {"x-last-death-reason": "rejected", "mine": 7}),
])
def test_a_headers_exchange_routes_dead_letters_by_what_they_carry(broker, match, headers):
    with amqp(broker) as channel:
        dlx, dead, other = name("dlx"), declare(channel, "dead"), declare(channel, "other")
        channel.exchange_declare(dlx, "headers", durable=True)
        channel.queue_bind(dead, dlx, "", {"x-match": match, **headers})
        channel.queue_bind(other, dlx, "", {"x-match": "all-with-x", "x-first-death-reason": "expired"})
        source = dead_lettering(channel, dlx)
        channel.basic_publish("", source, b"letter", pika.BasicProperties(headers={"mine": 1, "text": "t"}))
        rejected(channel, source)
        assert amqp_get(channel, dead)[2] == b"letter"
        assert channel.basic_get(other)[0] is None


def test_a_publish_of_another_protocol_matches_a_headers_exchange(broker):
    from clients import mqtt, publish_properties
    with amqp(broker) as channel, mqtt(broker) as client:
        headers, queue = name("headers"), declare(channel, "q")
        channel.exchange_declare(headers, "headers", durable=True)
        channel.exchange_bind(headers, "amq.topic", "parity.#")
        channel.queue_bind(queue, headers, "", {"colour": "red"})
        for colour in ("blue", "red"):
            client.publish("parity/a", colour, properties=publish_properties(UserProperty=[("colour", colour)]))
        assert amqp_get(channel, queue)[2] == b"red"
        assert channel.basic_get(queue)[0] is None


def test_a_dead_letter_goes_by_all_keys_that_it_was_published_with(broker):
    with amqp(broker) as channel:
        dlx = name("dlx")
        channel.exchange_declare(dlx, "direct", durable=True)
        source, queues = dead_lettering(channel, dlx), {}
        for key in (source, "cc", "bcc"):
            queues[key] = declare(channel, "dead")
            channel.queue_bind(queues[key], dlx, key)
        channel.basic_publish("", source, b"letter", pika.BasicProperties(headers={"CC": ["cc"], "BCC": ["bcc"]}))
        rejected(channel, source)
        for queue in queues.values():
            _, properties, body = amqp_get(channel, queue)
            assert body == b"letter"
            assert properties.headers["CC"] == ["cc"] and "BCC" not in properties.headers
            assert properties.headers["x-death"][0]["routing-keys"] == [source, "cc"]


def test_a_dead_letter_is_left_out_of_queues_it_died_in_unless_it_was_rejected(broker):
    with amqp(broker) as channel:
        dlx, copies = name("dlx"), declare(channel, "copies")
        channel.exchange_declare(dlx, "fanout", durable=True)
        loop = dead_lettering(channel, dlx)
        for queue in (loop, copies):
            channel.queue_bind(queue, dlx, "")
        channel.basic_publish("", loop, b"expired", pika.BasicProperties(expiration="1"))
        assert amqp_get(channel, copies)[2] == b"expired"
        assert channel.basic_get(loop)[0] is None, "it died there"
        channel.basic_publish("", loop, b"rejected")
        for _ in range(3):
            rejected(channel, loop)
        deaths = [amqp_get(channel, copies)[1].headers["x-death"] for _ in range(3)]
        assert [death[0]["count"] for death in deaths] == [1, 2, 3]


def test_the_original_expiration_is_kept_at_the_second_death(broker):
    with amqp(broker) as channel:
        dlx = name("dlx")
        channel.exchange_declare(dlx, "fanout", durable=True)
        source = dead_lettering(channel, dlx)
        back = declare(channel, "back", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": source})
        channel.queue_bind(back, dlx, "")
        channel.basic_publish("", source, b"m", pika.BasicProperties(expiration="1"))
        for _ in range(2):
            rejected(channel, back)
            rejected(channel, source)
        _, properties, _ = amqp_get(channel, back)
        by = {(death["queue"], death["reason"]): death for death in properties.headers["x-death"]}
        assert by[source, "expired"]["original-expiration"] == "1"
        first = properties.headers["x-death"][0]
        assert (first["queue"], first["reason"], first["count"]) == (source, "rejected", 2), "the last death is first"


def test_the_delivery_count_of_a_quorum_queue(broker):
    with amqp(broker) as channel:
        quorum, classic = declare(channel, "quorum", **QUORUM), declare(channel, "classic")
        for queue, wanted in ((quorum, [9, 1, 2]), (classic, [9, 9, 9])):
            channel.basic_publish("", queue, b"m", pika.BasicProperties(headers={"x-delivery-count": 9, "mine": 1}))
            seen = []
            for _ in range(3):
                method, properties, _ = channel.basic_get(queue)
                seen.append(properties.headers["x-delivery-count"])
                assert properties.headers["mine"] == 1
                channel.basic_nack(method.delivery_tag, requeue=True)
            assert seen == wanted
        # It also counts a consumer's end, and goes with deliveries.
        with amqp(broker) as dying:
            dying.basic_get(quorum)
        _, properties, _ = amqp_take(channel, quorum, 1)[0]
        assert properties.headers["x-delivery-count"] == 4


@pytest.mark.parametrize("signal", ["kill", "stop"])
def test_deliveries_are_counted_across_restarts(own_broker, signal):
    broker = own_broker()
    persistent = pika.BasicProperties(delivery_mode=2)
    with amqp(broker) as channel:
        channel.queue_declare("q", durable=True, arguments=QUORUM)
        channel.queue_declare("limited", durable=True, arguments={"x-delivery-limit": 2, **QUORUM})
        for body in (b"out", b"waiting"):
            channel.basic_publish("", "q", body, persistent)
        channel.basic_publish("", "limited", b"poison", persistent)
    for count in range(3):
        # A consumer that dies with the message, and one that has it when the broker ends.
        with amqp(broker) as dying:
            method, properties, _ = dying.basic_get("q")
            assert (properties.headers or {}).get("x-delivery-count", 0) == 2 * count
            assert method.redelivered == (count > 0)
        connection = amqp_connection(broker)
        channel = connection.channel()
        method, properties, body = channel.basic_get("q")
        assert (body, properties.headers["x-delivery-count"], method.redelivered) == (b"out", 2 * count + 1, True)
        poison = channel.basic_get("limited")[0]
        assert (poison is not None) == (count < 3)
        # What is delivered is noted with the next commit: that of a confirmed publish at the latest.
        with amqp(broker) as confirmed:
            confirmed.queue_declare("other", durable=True)
            confirmed.basic_publish("", "other", b"x", persistent)
        if signal == "kill":
            broker.kill()
        else:
            assert broker.stop() == 0
        broker.start()
    with amqp(broker) as channel:
        assert channel.basic_get("limited")[0] is None, "the delivery limit holds across restarts"
        taken = amqp_take(channel, "q", 2)
        assert [(method.redelivered, body) for method, _, body in taken] == [(True, b"out"), (False, b"waiting")]


def consumer(broker, queue, got, priority=None):
    connection = amqp_connection(broker)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    arguments = {} if priority is None else {"x-priority": priority}
    channel.basic_consume(queue, lambda _c, method, _p, body: got.append((method.delivery_tag, body)),
                          arguments=arguments)
    return connection, channel


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_one_consumer_is_active_whatever_the_priorities(broker, kind):
    with amqp(broker) as channel:
        queue = declare(channel, "sac", **{"x-queue-type": kind, "x-single-active-consumer": True})
        low_got, high_got = [], []
        low, low_channel = consumer(broker, queue, low_got)
        for body in (b"1", b"2", b"3"):
            channel.basic_publish("", queue, body)

        def got(connection, bodies, count):
            def done():
                connection.process_data_events(0)
                return len(bodies) >= count
            wait_until(done, what="a delivery")
        got(low, low_got, 1)
        high, high_channel = consumer(broker, queue, high_got, priority=9)
        high.process_data_events(0.2)
        assert high_got == [], "the other one has a message"
        low_channel.basic_ack(low_got[0][0])
        if kind == "classic":
            got(low, low_got, 2)
            assert high_got == [] and low_got[1][1] == b"2"
            # The message that the cancelled consumer holds returns with its channel, and not before.
            low_channel.basic_cancel(low_channel.consumer_tags[0])
            got(high, high_got, 1)
            assert high_got[0][1] == b"3"
            low.close()
        else:
            got(high, high_got, 1)
            low.process_data_events(0.1)
            assert (high_got[0][1], len(low_got)) == (b"2", 1)
            low.close()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            high.channel().basic_consume(queue, lambda *_: None, exclusive=True)
        assert (refused.value.reply_code, "in exclusive use" in refused.value.reply_text) == (403, True)
        high.close()


def test_a_queue_of_no_length_hands_messages_on(broker):
    with amqp(broker) as channel:
        queue = declare(channel, "none", **{"x-max-length": 0})
        got = []
        connection = amqp_connection(broker)
        connection.channel().basic_consume(queue, lambda _c, _m, _p, body: got.append(body), auto_ack=True)
        connection.process_data_events(0)
        channel.basic_publish("", queue, b"handed on")

        def arrived():
            connection.process_data_events(0)
            return got
        assert wait_until(arrived) == [b"handed on"]
        connection.close()
        channel.basic_publish("", queue, b"dropped")
        wait_until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 0)


def test_an_empty_routing_key_has_no_word(broker):
    with amqp(broker) as channel:
        exchange = name("topic")
        channel.exchange_declare(exchange, "topic", durable=True)
        queues = {key: declare(channel, "q") for key in ("*", "*.#", "#", "#.#", "")}
        for key, queue in queues.items():
            channel.queue_bind(queue, exchange, key)
        channel.basic_publish(exchange, "", b"m")
        reached = {key for key, queue in queues.items() if channel.basic_get(queue, auto_ack=True)[0]}
        assert reached == {"#", "#.#", ""}


@pytest.mark.parametrize("arguments, text", [
    ({"x-expires": 10**13}, "invalid arg 'x-expires' for queue '{}' in vhost '/': {value_too_large,10000000000000}"),
    ({"x-message-ttl": "1"}, "invalid arg 'x-message-ttl' for queue '{}' in vhost '/': \"expected integer, got longstr\""),
    ({"x-queue-type": "odd"}, "invalid arg 'x-queue-type' for queue '{}' in vhost '/': \"unsupported queue type 'odd'\""),
    ({"x-max-priority": 5, **QUORUM}, "invalid arg 'x-max-priority' for queue '{}' in vhost '/' of queue type "
                                      "rabbit_quorum_queue"),
])
def test_texts_of_refused_arguments(broker, arguments, text):
    queue = name("q")
    with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.queue_declare(queue, durable=True, arguments=arguments)
    assert refused.value.reply_code == 406
    assert refused.value.reply_text == "PRECONDITION_FAILED - " + text.replace("{}", queue)


def test_the_pseudo_queue_of_replies_in_every_method(broker):
    reply_to = "amq.rabbitmq.reply-to"
    with amqp(broker) as channel:
        for passive in (False, True):
            declared = channel.queue_declare(reply_to, passive=passive).method
            assert (declared.queue, declared.message_count, declared.consumer_count) == (reply_to, 0, 1)
        channel.queue_delete(reply_to)
    for act in (lambda c: c.basic_get(reply_to), lambda c: c.queue_purge(reply_to),
                lambda c: c.queue_bind(reply_to, "amq.direct", "k")):
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            act(channel)
        assert refused.value.reply_code == 404
        assert refused.value.reply_text == f"NOT_FOUND - no queue '{reply_to}' in vhost '/'"


def test_a_long_chain_of_exchanges_routes(broker):
    with amqp(broker) as channel:
        queue, chain = declare(channel, "q"), [name("chain") for _ in range(300)]
        for exchange in chain:
            channel.exchange_declare(exchange, "fanout")
        for source, destination in zip(chain, chain[1:]):
            channel.exchange_bind(destination, source)
        channel.queue_bind(queue, chain[-1])
        channel.basic_publish(chain[0], "", b"m", mandatory=True)
        assert amqp_get(channel, queue)[2] == b"m"
        for exchange in chain:
            channel.exchange_delete(exchange)


@pytest.mark.parametrize("messages, consumers", [(6, 2), (90, 3)])
def test_a_burst_goes_to_the_consumers_in_turn(broker, messages, consumers):
    """As RabbitMQ's second tutorial shows it: each gets the same number."""
    with amqp(broker) as publishing, amqp(broker) as channel:
        queue = declare(publishing, "work")
        taken = {}
        for number in range(consumers):
            taken[channel.basic_consume(queue, lambda _, method, *__: taken[method.consumer_tag].append(method), auto_ack=True)] = []
        for _ in range(3):
            for number in range(messages):
                publishing.basic_publish("", queue, str(number).encode())

            def all_taken():
                channel.connection.process_data_events(time_limit=0)
                return sum(map(len, taken.values())) == messages

            wait_until(all_taken, what="every message")
            assert {tag: len(all) for tag, all in taken.items()} == dict.fromkeys(taken, messages // consumers)
            for all in taken.values():
                all.clear()
