"""SIGKILL in the middle of mixed load of the three protocols: every acknowledged message is there afterwards.

One folder lives through all kills, so each start also recovers what the earlier ones left. `INVER_TEST_KILLS`
raises their number, `INVER_TEST_SEED` repeats the instants of a run.
"""

import contextlib
import os
import random
import threading
import time

import confluent_kafka
import paho.mqtt.client as paho
import pika
import pytest

from clients import QUIET, amqp, kafka_consumer, kafka_create, kafka_read_all, mqtt
from harness import wait_until

KILLS = int(os.environ.get("INVER_TEST_KILLS", "10"))
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))
LOAD_SECONDS = (0.3, 1.5)
TOPIC, QUEUE, KEEPER = "load", "load-queue", "keeper"
IN_FLIGHT_MAX = 500
PACKET_IDS = 65_000


class Load:
    """Publishers of all protocols, and which of their messages the broker acknowledged."""

    def __init__(self, broker, round_):
        self.broker, self.round = broker, round_
        self.ending = threading.Event()
        self.acked = {"kafka": set(), "amqp": set(), "mqtt": set()}
        self.committed = -1
        self.publishing = threading.Event()
        jobs = [self.kafka, self.amqp, self.amqp, self.mqtt, self.kafka_commits]
        self.threads = [threading.Thread(target=self.guard, args=(job, n)) for n, job in enumerate(jobs)]
        for thread in self.threads:
            thread.start()

    def guard(self, job, number):
        # The broker dies under the publishers: whatever their library throws then is expected.
        with contextlib.suppress(Exception):
            job(number)

    def body(self, number, n):
        return f"{self.round}-{number}-{n}".encode().ljust(random.randrange(20, 300), b".")

    def kafka(self, number):
        def answered(error, message):
            if error is None:
                self.acked["kafka"].add(message.value())
        producer = confluent_kafka.Producer({
            "bootstrap.servers": self.broker.kafka, "acks": "all", "linger.ms": 1, "message.timeout.ms": 3000,
            "enable.idempotence": self.round % 2 == 0, **QUIET,
        })
        n = 0
        while not self.ending.is_set():
            if len(producer) < IN_FLIGHT_MAX:
                producer.produce(TOPIC, self.body(number, n), key=str(n), on_delivery=answered)
                n += 1
            producer.poll(0.001 if len(producer) >= IN_FLIGHT_MAX else 0)
        producer.poll(0.2)
        producer.purge()
        producer.flush(1)

    def amqp(self, number):
        with amqp(self.broker) as channel:
            n = 0
            while not self.ending.is_set():
                body = self.body(number, n)
                channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
                self.acked["amqp"].add(body)
                n += 1

    def mqtt(self, number):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"load-{self.round}", protocol=paho.MQTTv5,
                             reconnect_on_failure=False)
        client.max_inflight_messages_set(IN_FLIGHT_MAX)
        # The answer may come before `publish` has told the packet's id, so both are matched at the end.
        sent, answered, connected = {}, set(), threading.Event()

        def published(_client, _data, mid, reason, _properties):
            if not reason.is_failure:
                answered.add(mid)
        client.on_publish = published
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", self.broker.mqtt_port)
        client.loop_start()
        connected.wait(5)
        n = 0
        try:
            while not self.ending.is_set() and client.is_connected() and n < PACKET_IDS:
                if n - len(answered) > IN_FLIGHT_MAX:
                    time.sleep(0.001)
                    continue
                body = self.body(number, n)
                sent[client.publish(f"load/{n % 7}", body, qos=1 + n % 2).mid] = body
                n += 1
                self.publishing.set()
            self.ending.wait()
        finally:
            client.loop_stop()
            self.acked["mqtt"] = {sent[mid] for mid in answered}

    def kafka_commits(self, _number):
        """A group that commits one offset after the other; the last that was answered must be kept."""
        def answered(error, partitions):
            if error is None and partitions[0].error is None:
                self.committed = max(self.committed, partitions[0].offset)
            waiting.clear()
        waiting = threading.Event()
        # Kept, for closing it while the broker is away would wait for it.
        self.consumer = confluent_kafka.Consumer({"bootstrap.servers": self.broker.kafka, "group.id": "committer",
                                                  "on_commit": answered, "enable.auto.commit": False, **QUIET})
        offset = self.round * 1_000_000
        while not self.ending.is_set():
            if not waiting.is_set():
                waiting.set()
                self.consumer.commit(offsets=[confluent_kafka.TopicPartition(TOPIC, 0, offset)], asynchronous=True)
                offset += 1
            self.consumer.poll(0.01)

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def drain_queue(broker, wanted):
    """Takes the queue's messages until all wanted ones came; acknowledges all."""
    got = []
    with amqp(broker) as channel:
        depth = channel.queue_declare(QUEUE, durable=True, passive=True).method.message_count
        for method, _, body in channel.consume(QUEUE, inactivity_timeout=5):
            if method is None:
                break
            got.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(got) >= depth:
                break
        channel.cancel()
        wait_until(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == 0)
    assert not wanted - set(got), f"{len(wanted - set(got))} of {len(wanted)} confirmed messages are lost"
    return set(got)


def drain_session(broker, wanted):
    """Takes what waits in the persistent session."""
    got, missing = set(), set(wanted)
    with mqtt(broker, client_id=KEEPER, clean=False, expiry=0xFFFFFFFF) as keeper:
        assert keeper.session_present, "the session survived"
        deadline = time.monotonic() + 60
        while missing and time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                body = keeper.get(2).payload
                got.add(body)
                missing.discard(body)
        # What was in flight unacknowledged at the kill may still come: take it off the next round.
        with contextlib.suppress(Exception):
            while True:
                got.add(keeper.get(0.3).payload)
    assert not missing, f"{len(missing)} of {len(wanted)} acknowledged messages are lost"
    return got


@pytest.mark.timeout(90 + 45 * KILLS)
def test_every_acknowledged_message_survives_kills(own_broker):
    print(f"seed {SEED}")
    instants = random.Random(SEED)
    broker = own_broker()
    kafka_create(broker, TOPIC, partitions=3)
    with amqp(broker) as channel:
        channel.queue_declare(QUEUE, durable=True)
    with mqtt(broker, client_id=KEEPER, clean=False, expiry=0xFFFFFFFF) as keeper:
        keeper.subscribe("load/#", 2)
    with mqtt(broker) as client:
        client.publish("state/retained", b"kept", qos=1, retain=True)
    acked = {"kafka": set(), "mqtt": set()}
    drained = {"amqp": set(), "session": set()}
    for round_ in range(KILLS):
        load = Load(broker, round_)
        wait_until(lambda: load.acked["kafka"] and load.acked["amqp"] and load.publishing.is_set()
                   and load.committed >= 0, 20, "every protocol acknowledging something")
        time.sleep(instants.uniform(*LOAD_SECONDS))
        broker.kill()
        load.end()
        broker.start()
        load.consumer.close()
        assert all(load.acked.values())
        counts = {name: len(messages) for name, messages in load.acked.items()}
        print(f"round {round_}: acknowledged {counts}")
        acked["kafka"] |= load.acked["kafka"]
        acked["mqtt"] |= load.acked["mqtt"]

        got = drain_queue(broker, load.acked["amqp"])
        assert not got & drained["amqp"], "nothing that was acknowledged by a consumer comes back"
        drained["amqp"] |= got

        got = drain_session(broker, load.acked["mqtt"])
        assert not got & drained["session"], "nothing that a session acknowledged comes back"
        drained["session"] |= got

        there = {record.value() for record in kafka_read_all(broker, TOPIC)}
        lost = acked["kafka"] - there
        assert not lost, f"{len(lost)} of {len(acked['kafka'])} acknowledged records are lost: {sorted(lost)[:5]}"
        there = {record.value() for record in kafka_read_all(broker, "mqtt")}
        lost = acked["mqtt"] - there
        assert not lost, f"{len(lost)} of {len(acked['mqtt'])} acknowledged publishes are lost from `mqtt`"
        with mqtt(broker) as client:
            client.subscribe("state/#")
            assert client.get().payload == b"kept"
        with kafka_consumer(broker, group="committer") as consumer:
            position = consumer.committed([confluent_kafka.TopicPartition(TOPIC, 0)], 10)[0].offset
        assert position >= load.committed, "an answered offset commit is kept"
    # What was idempotent came once.
    values = [record.value() for record in kafka_read_all(broker, TOPIC)]
    idempotent = [value for value in values if int(value.split(b"-")[0]) % 2 == 0]
    assert len(idempotent) == len(set(idempotent)), "an idempotent producer's records are there once"
