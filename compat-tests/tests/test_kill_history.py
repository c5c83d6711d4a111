"""SIGKILL while clients of all protocols go on: their histories are checked against what the broker promises.

The clients live through all kills and connect again. `INVER_TEST_HISTORY_KILLS` sets the number of kills, 50 for the long
form; `INVER_TEST_SEED` repeats the instants of a run.

Checked at the end: order per publisher in a queue and per partition; every confirmed message once over a queue and the one
that transactions move it to, and over queues and their dead letters; QoS 2 once, also over the members of a shared
subscription; delivery counts that only grow; retained values and committed offsets that never go back.
"""

import collections
import contextlib
import os
import random
import threading
import time

import confluent_kafka
import paho.mqtt.client as paho
import pika
import pytest

from clients import QUIET, WAIT_SECONDS, Mqtt, amqp, amqp_connection, amqp_take, kafka_consumer, kafka_create, kafka_read_all, mqtt
from harness import wait_until

KILLS = int(os.environ.get("INVER_TEST_HISTORY_KILLS", "10"))
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))
LOAD_SECONDS = (0.2, 1.2)
FOR_EVER = 0xFFFFFFFF


class Client:
    """A thread that works until it is told to end, and begins again when the broker was killed."""

    def __init__(self, broker):
        self.broker, self.ending, self.failure = broker, threading.Event(), None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ending.is_set():
            try:
                self.work()
            except AssertionError as failure:
                self.failure = failure
                return
            except Exception:  # noqa: BLE001: the broker is killed, any exception of a library is expected then
                time.sleep(0.02)

    def check(self):
        if self.failure:
            raise self.failure

    def end(self):
        self.ending.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.check()


class Publisher(Client):
    """Publishes numbers to a queue and waits for each confirm. A number whose fate is open is not repeated."""

    def __init__(self, broker, name, queue):
        super().__init__(broker)
        self.name, self.queue, self.next, self.confirmed = name, queue, 0, []

    def work(self):
        with amqp(self.broker) as channel:
            while not self.ending.is_set():
                number, self.next = self.next, self.next + 1
                body = f"{self.name} {number}".encode()
                channel.basic_publish("", self.queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
                self.confirmed.append(body)


class Mover(Client):
    """Moves messages from one queue to another by transactions."""

    def __init__(self, broker, source, target):
        super().__init__(broker)
        self.source, self.target, self.moved = source, target, []

    def work(self):
        with amqp(self.broker, confirm=False) as channel:
            channel.tx_select()
            while not self.ending.is_set():
                got = []
                while len(got) < 3:
                    method, _, body = channel.basic_get(self.source)
                    if method is None:
                        break
                    channel.basic_publish("", self.target, body, pika.BasicProperties(delivery_mode=2))
                    channel.basic_ack(method.delivery_tag)
                    got.append(body)
                channel.tx_commit()
                self.moved += got
                if not got:
                    time.sleep(0.01)


class Rejecter(Client):
    """Rejects what it gets: it becomes a dead letter."""

    def work(self):
        with amqp(self.broker, confirm=False) as channel:
            while not self.ending.is_set():
                method, _, _ = channel.basic_get("rejected")
                if method is None:
                    time.sleep(0.01)
                else:
                    channel.basic_reject(method.delivery_tag, requeue=False)


class Holder(Client):
    """Holds messages until the broker is killed, and compares their delivery counts with what it has seen."""

    def __init__(self, broker):
        super().__init__(broker)
        self.least = collections.Counter()
        # Messages were confirmed after this: what was held then is known to the log.
        self.noted = 0

    def work(self):
        connection = amqp_connection(self.broker)
        held = {}
        try:
            channel = connection.channel()
            for method, properties, body in channel.consume("counted", inactivity_timeout=0.05):
                if self.ending.is_set():
                    return
                if method is None:
                    continue
                count = (properties.headers or {}).get("x-delivery-count", 0)
                assert count >= self.least[body], f"{body} was delivered {self.least[body]} times before, not {count}"
                assert method.redelivered == (count > 0)
                held[body] = time.monotonic()
        finally:
            self.least.update(body for body, since in held.items() if since < self.noted)
            with contextlib.suppress(Exception):
                connection.close()


class Session:
    """An MQTT client that keeps its state in memory, and connects again when the broker is back.

    Not by itself: after an attempt that fails the library sends a message again whose PUBREL it had sent.
    """

    def __init__(self, broker, name, filters=()):
        self.got, self.connected = [], threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311, clean_session=False,
                                  reconnect_on_failure=False)
        self.client.max_inflight_messages_set(50)
        self.client.on_message = lambda _c, _d, message: self.got.append(message.payload)
        self.client.on_connect = lambda *_: self.connected.set()
        self.client.connect("127.0.0.1", broker.mqtt_port)
        self.begin()
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        if filters:
            self.client.subscribe([(filter_, 2) for filter_ in filters])
            assert subscribed.wait(WAIT_SECONDS)

    def begin(self):
        self.client.loop_start()
        assert self.connected.wait(WAIT_SECONDS)

    def again(self):
        self.client.loop_stop()
        self.connected.clear()
        self.client.reconnect()
        self.begin()

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class ExactlyOnce(Client):
    """Publishes at QoS 2; its client repeats the exchange with the broker after a kill."""

    def __init__(self, broker):
        super().__init__(broker)
        self.session, self.sent, self.done = Session(broker, "exactly-once"), [], []
        # Held while the library connects again; then how many exchanges have ended, if some have not.
        self.connecting, self.unfinished_at = threading.Lock(), None
        # What is published while the broker is down is queued by the library; only its end tells.
        self.session.client.on_publish = lambda _c, _d, mid, _reason, _p: self.done.append(mid)

    def again(self):
        """Connects again. The library would send what is published meanwhile before what it sends again: nothing is, until
        the first exchange that was under way has ended."""
        with self.connecting:
            self.session.again()
            self.unfinished_at = len(self.done) if len(self.done) < len(self.sent) else None

    def work(self):
        with self.connecting:
            has_resent = self.unfinished_at is None or len(self.done) > self.unfinished_at
            if has_resent and len(self.sent) - len(self.done) < 40:
                body = f"once {len(self.sent)}".encode()
                self.sent.append(body)
                self.session.client.publish("once/x", body, 2)
        time.sleep(0.001)

    def settle(self):
        wait_until(lambda: len(self.done) >= len(self.sent), 60, "every QoS 2 exchange")


class Retainer(Client):
    """Retains increasing numbers."""

    def __init__(self, broker):
        super().__init__(broker)
        self.next, self.kept = 0, -1

    def work(self):
        client = Mqtt(self.broker)
        try:
            while not self.ending.is_set():
                number, self.next = self.next, self.next + 1
                info = client.client.publish("kept/x", str(number).encode(), 1, retain=True)
                info.wait_for_publish(1)
                if not info.is_published():
                    return
                self.kept = number
        finally:
            client.close()


class Producer(Client):
    """An idempotent Kafka producer: every record once, in order."""

    def __init__(self, broker):
        super().__init__(broker)
        self.delivered, self.next = [], 0
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": broker.kafka, "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 60_000,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, **QUIET})

    def answered(self, error, message):
        if error is None:
            self.delivered.append((message.partition(), message.offset(), message.value()))

    def work(self):
        if len(self.producer) < 100:
            self.producer.produce("records", str(self.next).encode(), partition=self.next % 2, on_delivery=self.answered)
            self.next += 1
        self.producer.poll(0.001)

    def settle(self):
        assert self.producer.flush(60) == 0


class Committer(Client):
    """Commits increasing offsets of a group."""

    def __init__(self, broker):
        super().__init__(broker)
        self.next, self.committed = 1, 0

    def work(self):
        with kafka_consumer(self.broker, group="committer", session_timeout_ms=6000) as consumer:
            at = confluent_kafka.TopicPartition("records", 0)
            while not self.ending.is_set():
                at.offset, self.next = self.next, self.next + 1
                consumer.commit(offsets=[at], asynchronous=False)
                self.committed = at.offset


def drain(channel, queue):
    count = channel.queue_declare(queue, passive=True).method.message_count
    return [body for _, _, body in amqp_take(channel, queue, count, 30)] if count else []


def is_once(wanted, found, where):
    """Every message that was confirmed is there, and none twice."""
    counts = collections.Counter(found)
    twice = [body for body, count in counts.items() if count > 1]
    assert not twice, f"{where}: {len(twice)} are there more than once: {sorted(twice)[:5]}"
    lost = [body for body in wanted if body not in counts]
    assert not lost, f"{where}: {len(lost)} of {len(wanted)} are lost: {lost[:5]}"


def is_in_order(found, where):
    """Each publisher's messages are in the order of their numbers."""
    last = {}
    for body in found:
        name, number = body.split()
        assert int(number) > last.get(name, -1), f"{where}: {body} is behind {last[name]}"
        last[name] = int(number)


@pytest.mark.timeout(240 + 15 * KILLS)
def test_the_histories_of_all_clients_hold_through_kills(own_broker):
    print(f"seed {SEED}")
    instants = random.Random(SEED)
    broker = own_broker()
    kafka_create(broker, "records", partitions=2)
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    queues = {"kept": {}, "source": {}, "target": {}, "dead": {}, "rejected": dead, "expired": {**dead, "x-message-ttl": 100},
              "short": {**dead, "x-max-length": 20},
              "counted": {"x-queue-type": "quorum", "x-delivery-limit": 1000}}
    with amqp(broker) as channel:
        for queue, arguments in queues.items():
            channel.queue_declare(queue, durable=True, arguments=arguments)
        for n in range(20):
            channel.basic_publish("", "counted", f"c {n}".encode(), pika.BasicProperties(delivery_mode=2))
    alone = Session(broker, "alone", ["once/#"])
    members = [Session(broker, f"member-{n}", ["$share/g/once/#"]) for n in range(2)]
    publishers = {queue: [Publisher(broker, f"{queue}-{n}", queue) for n in range(2)]
                  for queue in ("kept", "source", "rejected", "expired", "short")}
    movers = [Mover(broker, "source", "target") for _ in range(2)]
    once, retainer, producer, committer = ExactlyOnce(broker), Retainer(broker), Producer(broker), Committer(broker)
    holder = Holder(broker)
    clients = [*(p for pair in publishers.values() for p in pair), *movers, Rejecter(broker), holder, once, retainer, producer,
               committer]
    for client in clients:
        client.thread.start()
    try:
        for kill in range(KILLS):
            noted = time.monotonic()
            # The second one was published after that.
            before = [(p, len(p.confirmed) + 1) for pair in publishers.values() for p in pair]
            wait_until(lambda before=before: all(len(p.confirmed) > count for p, count in before), 60, "confirms")
            holder.noted = noted
            time.sleep(instants.uniform(*LOAD_SECONDS))
            broker.kill()
            broker.start()
            for session in (alone, *members, once):
                session.again()
            for client in clients:
                client.check()
    finally:
        for client in clients:
            client.ending.set()
    for client in clients:
        client.end()
    once.settle()
    producer.settle()
    once.session.close()

    confirmed = {queue: [body for p in pair for body in p.confirmed] for queue, pair in publishers.items()}
    with amqp(broker) as channel:
        found = drain(channel, "kept")
        is_once(confirmed["kept"], found, "a queue")
        is_in_order(found, "a queue")
        source, target = drain(channel, "source"), drain(channel, "target")
        is_once(confirmed["source"], source + target, "a queue and where transactions move its messages")
        is_once([body for mover in movers for body in mover.moved], target, "the target of transactions")
        wait_until(lambda: channel.queue_declare("expired", passive=True).method.message_count == 0, 30, "expiry")
        rest, letters = drain(channel, "rejected") + drain(channel, "short"), drain(channel, "dead")
        is_once(confirmed["rejected"] + confirmed["short"] + confirmed["expired"], rest + letters, "queues and dead letters")
    wait_until(lambda: len(alone.got) >= len(once.sent), 60, "all of QoS 2")
    wait_until(lambda: sum(len(member.got) for member in members) >= len(once.sent), 60, "all of the shared subscription")
    assert alone.got == once.sent, "QoS 2: once, in order"
    is_once(once.sent, [body for member in members for body in member.got], "a shared subscription")
    with mqtt(broker) as client:
        client.subscribe("kept/x", 1)
        assert int(client.get().payload) >= retainer.kept, "a retained value went back"
    for session in (alone, *members):
        session.close()
    records = kafka_read_all(broker, "records")
    for partition in range(2):
        values = [int(record.value()) for record in records if record.partition() == partition]
        assert values == list(range(partition, producer.next, 2)), "records once, in order"
    at = {(record.partition(), record.offset()): record.value() for record in records}
    assert all(at[partition, offset] == value for partition, offset, value in producer.delivered)
    with kafka_consumer(broker, group="committer") as consumer:
        position = consumer.committed([confluent_kafka.TopicPartition("records", 0)], 10)[0].offset
        assert position >= committer.committed, "an offset went back"
    print({name: len(bodies) for name, bodies in confirmed.items()}, "moved", sum(len(m.moved) for m in movers),
          "once", len(once.sent), "records", producer.next, "commits", committer.committed, "retained", retainer.kept)


def test_what_was_with_an_mqtt_client_at_a_kill_comes_again_with_dup(own_broker):
    broker = own_broker()
    options = dict(client_id="held", clean=False, expiry=FOR_EVER, manual_ack=True)
    client = Mqtt(broker, **options)
    client.subscribe("d/#", 1)
    with mqtt(broker) as sender:
        for n in range(3):
            sender.publish("d/x", b"%d" % n, 1)
        first = [client.get() for _ in range(3)]
        assert not any(message.dup for message in first)
        client.client.ack(first[1].mid, 1)
        # Answered behind the acknowledgement, which is on the disk with it.
        client.publish("probe", b"", 1)
    broker.kill()
    client.drop()
    broker.start()
    again = Mqtt(broker, **options)
    assert again.session_present
    assert [(message.payload, message.dup) for message in (again.get(), again.get())] == [(b"0", True), (b"2", True)]
    again.close()
