"""Policies by the command line, and what AMQP clients see of them."""

import json
import time

import pika
import pytest

from clients import amqp, amqp_get
from harness import binary, run, wait_until


def policy(broker, *arguments, check=True):
    done = run([binary(), "policy", *arguments], env={"INVER_URL": f"http://127.0.0.1:{broker.http_port}"}, check=check)
    return done.stdout.decode(), done.stderr.decode()


def listed(broker, *arguments):
    return json.loads(policy(broker, "list", "--output", "json", *arguments)[0])


def count(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def test_the_command_line_sets_lists_and_deletes(own_broker):
    broker = own_broker()
    _, said = policy(broker, "set", "short", "^tmp", '{"max-length": 2, "queue-mode": "lazy"}', "--apply-to", "queues",
                     "--priority", "3")
    assert "queue-mode has no effect" in said
    policy(broker, "set", "ceiling", "", '{"max-length": 1}', "--operator")
    assert listed(broker) == [{"name": "short", "pattern": "^tmp", "applies_to": "queues", "priority": 3,
                               "definition": {"queue-mode": "lazy", "max-length": 2}, "without_effect": ["queue-mode"]}]
    assert [it["name"] for it in listed(broker, "--operator")] == ["ceiling"]
    _, refused = policy(broker, "set", "wrong", "^tmp", '{"max-length": -1}', check=False)
    assert "-1 is not a valid maximum length" in refused
    policy(broker, "delete", "ceiling", "--operator")
    policy(broker, "delete", "short")
    assert listed(broker) == listed(broker, "--operator") == []
    assert "there is no policy" in policy(broker, "delete", "short", check=False)[1]


@pytest.mark.parametrize("durable", [True, False])
def test_limits_and_dead_letters_of_queues_that_exist(own_broker, durable):
    broker = own_broker()
    with amqp(broker) as channel:
        for name in ("work", "dead"):
            channel.queue_declare(name, durable=durable, exclusive=False)
        for n in range(5):
            channel.basic_publish("", "work", str(n).encode())
        wait_until(lambda: count(channel, "work") == 5)
        definition = {"max-length": 3, "dead-letter-exchange": "", "dead-letter-routing-key": "dead"}
        policy(broker, "set", "p", "^work$", json.dumps(definition))
        wait_until(lambda: (count(channel, "work"), count(channel, "dead")) == (3, 2))
        _, properties, body = amqp_get(channel, "dead")
        assert body == b"0" and properties.headers["x-death"][0]["reason"] == "maxlen"
        policy(broker, "set", "p", "^work$", json.dumps({**definition, "message-ttl": 1}))
        wait_until(lambda: (count(channel, "work"), count(channel, "dead")) == (0, 4))
        policy(broker, "delete", "p")
        channel.basic_publish("", "work", b"stays")
        wait_until(lambda: count(channel, "work") == 1)
        assert amqp_get(channel, "work")[-1] == b"stays"


def test_publishes_beyond_the_length_are_refused_by_policy(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        channel.queue_declare("work", durable=True)
        policy(broker, "set", "p", "^work$", '{"max-length": 1, "overflow": "reject-publish"}')
        channel.basic_publish("", "work", b"1")
        with pytest.raises(pika.exceptions.NackError):
            channel.basic_publish("", "work", b"2")
        assert count(channel, "work") == 1


def test_an_unused_queue_expires_by_policy(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        channel.queue_declare("idle", durable=True)
    started = time.monotonic()
    policy(broker, "set", "p", "^idle$", '{"expires": 300}')
    url = "/api/v1/queues/idle"
    wait_until(lambda: broker.get(url)[0] == 404)
    assert time.monotonic() - started > 0.25
