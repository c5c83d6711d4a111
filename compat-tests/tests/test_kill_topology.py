"""SIGKILL while clients change the topology: what was acknowledged holds, above all that deleted objects stay deleted.

`INVER_TEST_SEED` repeats the choices of a run.
"""

import contextlib
import os
import random
import threading
import time

import pika
import pytest

from clients import amqp, amqp_connection
from harness import wait_until

ROUNDS = 6
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))
QUEUES, KEYS = 4, 3
LOAD_SECONDS = (0.02, 0.3)


class Changes:
    """One connection that changes its own queues, exchange and bindings, and knows what was acknowledged."""

    def __init__(self, broker, name, seed, known):
        self.broker, self.name, self.random = broker, name, random.Random(seed)
        # True or False: acknowledged to be there or not. None: the last change was not acknowledged.
        self.known = known
        self.acknowledged = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        # The broker is killed: any exception of the client is expected then.
        with contextlib.suppress(Exception), amqp(self.broker, confirm=False) as channel:
            while True:
                self.change(channel)
                self.acknowledged += 1

    def change(self, channel):
        queue = f"{self.name}-{self.random.randrange(QUEUES)}"
        key = f"k{self.random.randrange(KEYS)}"
        of_queue = [item for item in self.known if item[0] == queue]
        match self.random.randrange(6):
            case 0 | 1:
                self.about((queue, None))
                channel.queue_declare(queue, durable=True)
                self.known[queue, None] = True
            case 2:
                self.about(*of_queue)
                channel.queue_delete(queue)
                for item in of_queue:
                    self.known[item] = False
            case 3:
                self.about((queue, key))
                channel.queue_unbind(queue, "made", f"{self.name}.{queue}.{key}")
                self.known[queue, key] = False
            case _ if self.known.get((queue, None)):
                self.about((queue, key))
                channel.queue_bind(queue, "made", f"{self.name}.{queue}.{key}")
                self.known[queue, key] = True

    def about(self, *items):
        for item in items:
            self.known[item] = None


def exists(broker, queue):
    connection = amqp_connection(broker)
    try:
        connection.channel().queue_declare(queue, passive=True)
        return True
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404
        return False
    finally:
        connection.close()


def is_bound(broker, name, queue, key):
    with amqp(broker) as channel:
        try:
            channel.basic_publish("made", f"{name}.{queue}.{key}", b"x", mandatory=True)
            return True
        except pika.exceptions.UnroutableError:
            return False


@pytest.mark.timeout(120)
def test_acknowledged_changes_of_the_topology_survive_kills(own_broker):
    print(f"seed {SEED}")
    choices = random.Random(SEED)
    broker = own_broker()
    with amqp(broker) as channel:
        channel.exchange_declare("made", "direct", durable=True)
    known = {name: {} for name in ("a", "b")}
    for round_ in range(ROUNDS):
        all_changes = [Changes(broker, name, choices.random(), known[name]) for name in known]
        wait_until(lambda: all(changes.acknowledged > 10 for changes in all_changes), 30, "changes")
        time.sleep(choices.uniform(*LOAD_SECONDS))
        broker.kill()
        for changes in all_changes:
            changes.thread.join(20)
        broker.start()
        for name, items in known.items():
            for (queue, key), is_there in list(items.items()):
                found = exists(broker, queue) if key is None else is_bound(broker, name, queue, key)
                assert is_there in (None, found), f"round {round_}: {queue}, {key}: {found}, not {is_there}"
                items[queue, key] = found
