"""SIGKILL under mixed load of the three protocols: every acknowledged message is there afterwards.

One folder lives through all kills, so each start also recovers what the earlier ones left. `INVER_TEST_KILLS` sets
their number, `INVER_TEST_SEED` repeats the instants of a run.
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

from clients import QUIET, Mqtt, amqp, amqp_take, kafka_consumer, kafka_create, kafka_read_all, mqtt
from harness import wait_until

KILLS = int(os.environ.get("INVER_TEST_KILLS", "50"))
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))
LOAD_SECONDS = (0.05, 0.6)
TOPIC, QUEUE, WORK, KEEPER = "load", "load-queue", "load-work", "keeper"
FOR_EVER = 0xFFFFFFFF
IN_FLIGHT_MAX = 100


class Load:
    """Clients of all protocols, and what the broker acknowledged to them."""

    def __init__(self, broker, round_):
        self.broker, self.round = broker, round_
        self.ending = threading.Event()
        self.acked = {name: set() for name in ("kafka", "amqp", "work", "mqtt")}
        self.settled = set()
        self.retained = -1
        self.declared = -1
        self.committed = -1
        self.sent = {}
        jobs = [self.kafka, self.kafka_commits, self.amqp_publishes, self.amqp_works, self.amqp_declares, self.mqtt,
                self.mqtt_retains]
        self.threads = [threading.Thread(target=self.guard, args=(job,)) for job in jobs]
        for thread in self.threads:
            thread.start()

    def guard(self, job):
        # The broker is killed: any exception of a client library is expected then.
        with contextlib.suppress(Exception):
            job()

    def is_under_way(self):
        return all(self.acked.values()) and self.settled and min(self.retained, self.declared, self.committed) >= 0

    def body(self, kind, n):
        return f"{self.round}-{kind}-{n}".encode().ljust(random.randrange(20, 300), b".")

    def kafka(self):
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
                producer.produce(TOPIC, self.body("kafka", n), key=str(n), on_delivery=answered)
                n += 1
            producer.poll(0.005 if len(producer) >= IN_FLIGHT_MAX else 0)
        # Publishes answered before the kill are counted; the rest is discarded.
        producer.poll(0.05)
        producer.purge()
        producer.flush(1)

    def kafka_commits(self):
        """A group that commits increasing offsets; the last acknowledged one must be kept."""
        def answered(error, partitions):
            if error is None and partitions[0].error is None:
                self.committed = max(self.committed, partitions[0].offset)
            waiting.clear()
        waiting = threading.Event()
        # Kept open, because closing it while the broker is down would block.
        self.consumer = confluent_kafka.Consumer({"bootstrap.servers": self.broker.kafka, "group.id": "committer",
                                                  "on_commit": answered, "enable.auto.commit": False, **QUIET})
        offset = self.round * 1_000_000
        while not self.ending.is_set():
            if not waiting.is_set():
                waiting.set()
                self.consumer.commit(offsets=[confluent_kafka.TopicPartition(TOPIC, 0, offset)], asynchronous=True)
                offset += 1
            self.consumer.poll(0.01)

    def amqp_publishes(self):
        with amqp(self.broker) as channel:
            for n in range(1 << 30):
                body = self.body("amqp", n)
                channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
                self.acked["amqp"].add(body)

    def amqp_works(self):
        """Consumes what it published. Acknowledgements sent before a confirmed publish are settled."""
        with amqp(self.broker) as channel:
            done = set()
            for n in range(1 << 30):
                body = self.body("work", n)
                before = set(done)
                channel.basic_publish("", WORK, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
                self.settled |= before
                self.acked["work"].add(body)
                method, _, got = channel.basic_get(WORK)
                if method:
                    channel.basic_ack(method.delivery_tag)
                    done.add(got)

    def amqp_declares(self):
        with amqp(self.broker) as channel:
            for n in range(1 << 30):
                name = f"made-{self.round}-{n % 5}"
                channel.queue_declare(name, durable=True)
                channel.queue_bind(name, "made", name)
                self.declared = max(self.declared, n % 5)

    def mqtt_client(self, name, job):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"{name}-{self.round}", protocol=paho.MQTTv5,
                             reconnect_on_failure=False)
        client.max_inflight_messages_set(IN_FLIGHT_MAX)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", self.broker.mqtt_port)
        client.loop_start()
        try:
            if connected.wait(5):
                job(client)
        finally:
            client.loop_stop()

    def mqtt(self):
        # The PUBACK may arrive before `publish` returns the packet identifier, so both are matched later.
        answered = []

        def publishing(client):
            client.on_publish = lambda _client, _data, mid, reason, _: reason.is_failure or answered.append(mid)
            n = 0
            while not self.ending.is_set() and client.is_connected():
                if n - len(answered) > IN_FLIGHT_MAX:
                    time.sleep(0.001)
                    continue
                body = self.body("mqtt", n)
                self.sent[client.publish(f"load/{n % 7}", body, qos=1 + n % 2).mid] = body
                n += 1
                if n % 10 == 0 and answered and not self.acked["mqtt"]:
                    self.acked["mqtt"] = {self.sent[mid] for mid in list(answered)}
        try:
            self.mqtt_client("load", publishing)
        finally:
            self.acked["mqtt"] = {self.sent[mid] for mid in answered if mid in self.sent}

    def mqtt_retains(self):
        """Increasing retained values; the last acknowledged one, or a later one, must be kept."""
        def retaining(client):
            n = 0
            while not self.ending.is_set() and client.is_connected():
                info = client.publish("state/retained", f"{self.round}-{n}", qos=1, retain=True)
                info.wait_for_publish(1)
                if info.is_published():
                    self.retained = n
                    n += 1
        self.mqtt_client("retain", retaining)

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


class Checks:
    """Checks after each kill; remembers what it saw in earlier rounds."""

    def __init__(self, broker):
        self.broker = broker
        self.drained = {"queue": set(), "session": set()}
        self.read = {}

    def everything(self, load):
        checks = [self.queue, self.work, self.session, self.topic, self.captured, self.topology, self.retained,
                  self.position]
        failures = []

        def checked(check):
            try:
                check(load)
            except BaseException as failure:  # noqa: BLE001: told by the test's own thread
                failures.append(failure)
        threads = [threading.Thread(target=checked, args=(check,)) for check in checks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def lacks_none(self, wanted, got, what):
        lost = wanted - got
        assert not lost, f"{len(lost)} of {len(wanted)} {what} are lost: {sorted(lost)[:5]}"

    def nothing_again(self, name, got):
        again = got & self.drained[name]
        assert not again, f"{len(again)} acknowledged messages were redelivered: {sorted(again)[:5]}"
        self.drained[name] |= got

    def drain(self, queue):
        with amqp(self.broker) as channel:
            depth = channel.queue_declare(queue, passive=True).method.message_count
            got = {body for _, _, body in amqp_take(channel, queue, depth)} if depth else set()
            assert channel.queue_declare(queue, passive=True).method.message_count == 0
        return got

    def queue(self, load):
        got = self.drain(QUEUE)
        self.lacks_none(load.acked["amqp"], got, "confirmed messages")
        self.nothing_again("queue", got)

    def work(self, load):
        got = self.drain(WORK)
        again = got & load.settled
        assert not again, f"{len(again)} of {len(load.settled)} settled messages were redelivered: {sorted(again)[:5]}"

    def session(self, load):
        got, missing = set(), set(load.acked["mqtt"])
        keeper = Mqtt(self.broker, client_id=KEEPER, clean=False, expiry=FOR_EVER)
        try:
            assert keeper.session_present, "the session survived"
            # The inbox keeps its order: everything before this round's marker was in it. At QoS 2, because the
            # client delivers such messages at their PUBREL.
            end = f"end {load.round}".encode()
            keeper.publish("load/end", end, qos=2)
            while end not in got:
                got.add(keeper.get(30).payload)
        finally:
            keeper.close()
        self.lacks_none(missing, got, "acknowledged publishes")
        self.nothing_again("session", got)

    def new_records(self, topic):
        """The records since the last call."""
        got = set()
        with kafka_consumer(self.broker) as consumer:
            for partition in consumer.list_topics(topic, 10).topics[topic].partitions:
                at = confluent_kafka.TopicPartition(topic, partition)
                _, high = consumer.get_watermark_offsets(at, 10)
                next_ = self.read.get((topic, partition), 0)
                assert high >= next_, "records read before are still there"
                consumer.assign([confluent_kafka.TopicPartition(topic, partition, next_)])
                while next_ < high:
                    for message in consumer.consume(min(high - next_, 1000), timeout=5):
                        assert message.error() is None, message.error()
                        assert message.offset() == next_, "offsets are dense"
                        next_ += 1
                        got.add(message.value())
                self.read[topic, partition] = next_
        return got

    def topic(self, load):
        self.lacks_none(load.acked["kafka"], self.new_records(TOPIC), "acknowledged records")

    def captured(self, load):
        self.lacks_none(load.acked["mqtt"], self.new_records("mqtt"), "captured publishes")

    def topology(self, load):
        with amqp(self.broker) as channel:
            for n in range(load.declared + 1):
                # Mandatory: raises if nothing is bound.
                channel.basic_publish("made", f"made-{load.round}-{n}", b"routed", mandatory=True)

    def retained(self, load):
        with mqtt(self.broker) as client:
            client.subscribe("state/#")
            round_, n = map(int, client.get().payload.split(b"-"))
        assert round_ == load.round and n >= load.retained

    def position(self, load):
        with kafka_consumer(self.broker, group="committer") as consumer:
            position = consumer.committed([confluent_kafka.TopicPartition(TOPIC, 0)], 10)[0].offset
        assert position >= load.committed, "an acknowledged offset commit is kept"


@pytest.mark.timeout(120 + 15 * KILLS)
def test_every_acknowledged_message_survives_kills(own_broker):
    print(f"seed {SEED}")
    instants = random.Random(SEED)
    broker = own_broker()
    kafka_create(broker, TOPIC, partitions=3)
    with amqp(broker) as channel:
        channel.exchange_declare("made", "direct", durable=True)
        for queue in (QUEUE, WORK):
            channel.queue_declare(queue, durable=True)
    with mqtt(broker, client_id=KEEPER, clean=False, expiry=FOR_EVER) as keeper:
        keeper.subscribe("load/#", 2)
        keeper.publish("load/made", b"so that the topic of captured messages is there")
    checks = Checks(broker)
    acked = {"kafka": set(), "mqtt": set()}
    for round_ in range(KILLS):
        begun = time.monotonic()
        load = Load(broker, round_)
        wait_until(load.is_under_way, 30, "every client's first acknowledgement")
        time.sleep(instants.uniform(*LOAD_SECONDS))
        killed = time.monotonic()
        broker.kill()
        load.end()
        broker.start()
        load.consumer.close()
        started = time.monotonic()
        checks.everything(load)
        counts = {name: len(messages) for name, messages in load.acked.items()}
        print(f"round {round_}: acknowledged {counts}, settled {len(load.settled)}; load {killed - begun:.1f} s, "
              f"restart {started - killed:.1f} s, checks {time.monotonic() - started:.1f} s")
        for name in acked:
            acked[name] |= load.acked[name]
    # Records found after one kill are still there after the others.
    values = [record.value() for record in kafka_read_all(broker, TOPIC)]
    checks.lacks_none(acked["kafka"], set(values), "acknowledged records")
    checks.lacks_none(acked["mqtt"], {record.value() for record in kafka_read_all(broker, "mqtt")}, "publishes")
    # Records of an idempotent producer are there once.
    idempotent = [value for value in values if int(value.split(b"-")[0]) % 2 == 0]
    assert len(idempotent) == len(set(idempotent)), "an idempotent producer's records are there once"
