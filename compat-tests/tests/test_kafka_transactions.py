"""Kafka transactions with real clients: librdkafka (the protocol before KIP-890), Kafka's own (with it), its tools, and
readers of the other protocols."""

import concurrent.futures
import os
import random
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka import KafkaException, TopicPartition

from clients import (QUIET, amqp, java, kafka_consumer, kafka_create, kafka_send, kafka_take, kafka_tool, node)
from harness import wait_until

WAIT = 30
KILLS = int(os.environ.get("INVER_TEST_TRANSACTION_KILLS", "6"))
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))


def transactional(broker, name, **config):
    # After a re-bootstrap librdkafka 2.16 sends TxnOffsetCommit to a broker handle that it has given up, and waits for ever.
    producer = confluent_kafka.Producer({
        "bootstrap.servers": broker.kafka, **QUIET, "transactional.id": name, "linger.ms": 1,
        "metadata.recovery.strategy": "none",
        **{key.replace("_", "."): value for key, value in config.items()},
    })
    producer.init_transactions(WAIT)
    return producer


def send(producer, topic, values, partition=0):
    for value in values:
        producer.produce(topic, value=value, partition=partition)
    producer.flush(WAIT)


def read(broker, topic, isolation="read_committed", partition=0):
    """All values of a partition that a client of this isolation level sees."""
    with kafka_consumer(broker, isolation_level=isolation, enable_partition_eof=True) as consumer:
        consumer.assign([TopicPartition(topic, partition, 0)])
        values, deadline = [], time.monotonic() + WAIT
        while True:
            assert time.monotonic() < deadline, f"no end of {topic}"
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error() is None:
                values.append(message.value().decode())
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                return values
            else:
                raise AssertionError(message.error())


def end_of(broker, topic, isolation, partition=0):
    with kafka_consumer(broker, isolation_level=isolation) as consumer:
        return consumer.get_watermark_offsets(TopicPartition(topic, partition), WAIT)[1]


def test_committed_aborted_and_open(broker, unique):
    kafka_create(broker, unique, partitions=2)
    producer = transactional(broker, unique)
    producer.begin_transaction()
    for partition in range(2):
        send(producer, unique, ["a", "b"], partition)
    assert read(broker, unique) == [] and read(broker, unique, "read_uncommitted") == ["a", "b"]
    kafka_send(broker, unique, "plain", partition=0)
    assert read(broker, unique) == [], "behind an open transaction"
    assert end_of(broker, unique, "read_committed") == 0
    producer.commit_transaction(WAIT)
    for partition in range(2):
        assert read(broker, unique, partition=partition)[:2] == ["a", "b"]
    producer.begin_transaction()
    send(producer, unique, ["never"])
    producer.abort_transaction(WAIT)
    assert read(broker, unique) == ["a", "b", "plain"]
    assert "never" in read(broker, unique, "read_uncommitted")
    for n in range(20):
        producer.begin_transaction()
        send(producer, unique, [f"{n}"], 1)
        if n % 3 == 0:
            producer.abort_transaction(WAIT)
        else:
            producer.commit_transaction(WAIT)
    assert read(broker, unique, partition=1) == ["a", "b"] + [f"{n}" for n in range(20) if n % 3]
    assert end_of(broker, unique, "read_committed", 1) == end_of(broker, unique, "read_uncommitted", 1)


def test_a_new_producer_fences_the_old_one(broker, unique):
    kafka_create(broker, unique)
    old = transactional(broker, unique)
    old.begin_transaction()
    send(old, unique, ["old"])
    new = transactional(broker, unique)
    assert read(broker, unique) == [] and end_of(broker, unique, "read_committed") == 2
    with pytest.raises(KafkaException) as error:
        old.commit_transaction(WAIT)
    assert error.value.args[0].fatal()
    new.begin_transaction()
    send(new, unique, ["new"])
    new.commit_transaction(WAIT)
    assert read(broker, unique) == ["new"]


def test_consume_transform_produce(broker, unique):
    source, target, group = f"{unique}-in", f"{unique}-out", f"{unique}-g"
    kafka_create(broker, source)
    kafka_create(broker, target)
    for n in range(30):
        kafka_send(broker, source, f"{n}")
    done = []
    for attempt in range(3):
        producer = transactional(broker, unique)
        with kafka_consumer(broker, source, group=group, isolation_level="read_committed") as consumer:
            while len(done) < 10 * (attempt + 1):
                producer.begin_transaction()
                taken = kafka_take(consumer, 5)
                send(producer, target, [message.value() for message in taken])
                positions = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), WAIT)
                producer.commit_transaction(WAIT)
                done += taken
            # What was begun and not ended is done again by the next one.
            producer.begin_transaction()
            if attempt < 2:
                taken = kafka_take(consumer, 5)
                send(producer, target, [message.value() for message in taken])
                positions = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), WAIT)
                if attempt == 1:
                    producer.abort_transaction(WAIT)
    assert read(broker, target) == [f"{n}" for n in range(30)]


def test_a_transaction_goes_on_after_a_kill(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique, partitions=2)
    producer = transactional(broker, unique)
    for ends in ("commit", "abort", "commit"):
        producer.begin_transaction()
        for partition in range(2):
            send(producer, unique, [f"{ends} one"], partition)
        broker.kill()
        broker.start()
        for partition in range(2):
            send(producer, unique, [f"{ends} two"], partition)
        if ends == "abort":
            producer.abort_transaction(WAIT)
        else:
            producer.commit_transaction(WAIT)
    for partition in range(2):
        assert read(broker, unique, partition=partition) == ["commit one", "commit two"] * 2


def test_timeouts(own_broker, unique):
    broker = own_broker(environment={"INVER_KAFKA_TRANSACTION_TIMEOUT_MAX_MS": "20000"})
    with pytest.raises(KafkaException):
        transactional(broker, unique, transaction_timeout_ms=30000)
    kafka_create(broker, unique)
    producer = transactional(broker, unique, transaction_timeout_ms=5000)
    producer.begin_transaction()
    send(producer, unique, ["late"])
    wait_until(lambda: end_of(broker, unique, "read_committed") == 2, WAIT, "the transaction being aborted")
    with pytest.raises(KafkaException):
        producer.commit_transaction(WAIT)
    assert read(broker, unique) == []


def test_java_client(broker, unique):
    """Kafka's own client speaks the protocol of KIP-890: no request adds partitions, and each end has an epoch."""
    assert java("apps", "TransactionApp", broker.kafka, unique).endswith("done\n")


@pytest.mark.timeout(300)
def test_streams_exactly_once(own_broker, unique, tmp_path):
    """Kafka Streams with exactly_once_v2 counts every record once, though the broker is killed again and again."""
    broker = own_broker()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        app = pool.submit(java, "streams", "StreamsApp", broker.kafka, unique, 800, tmp_path / "state", timeout=240)
        for kill in range(3):
            wait_until(lambda: app.done() or counts_of(broker, f"{unique}-out") > 60 * kill, 90, "more counts")
            if app.done():
                break
            broker.kill()
            broker.start()
        assert app.result().endswith("done\n")
    assert kill > 0


def counts_of(broker, topic):
    """Records that readers of committed ones can read, markers included; 0 while there is no such topic."""
    try:
        return sum(end_of(broker, topic, "read_committed", partition) for partition in range(2))
    except KafkaException:
        return 0


def test_kafkajs(broker, unique):
    assert node("kafka-transactions.js", broker.kafka, unique).strip() == "ok"


def test_transaction_tool(broker, unique):
    kafka_create(broker, unique)
    producer = transactional(broker, unique)
    producer.begin_transaction()
    send(producer, unique, ["hangs"])
    at = ["--bootstrap-server", broker.kafka]
    rows = kafka_tool("TransactionsCommand", *at, "list").splitlines()
    (row,) = [line.split() for line in rows if line.startswith(f"{unique}\t") or line.split()[:1] == [unique]]
    assert "Ongoing" in row
    said = kafka_tool("TransactionsCommand", *at, "describe", "--transactional-id", unique)
    assert f"{unique}-0" in said and "Ongoing" in said
    said = kafka_tool("TransactionsCommand", *at, "describe-producers", "--topic", unique, "--partition", 0)
    assert said.splitlines()[1].split()[-1] == "0", said
    kafka_tool("TransactionsCommand", *at, "abort", "--topic", unique, "--partition", 0, "--start-offset", 0)
    assert end_of(broker, unique, "read_committed") == 2 and read(broker, unique) == []


def test_readers_of_other_protocols_see_committed_records(broker, unique):
    """A named subscription over AMQP reads the topic, and a queue is bound to its address in the hub."""
    kafka_create(broker, unique)
    with amqp(broker) as channel:
        channel.queue_declare(f"{unique}-q", durable=True)
        channel.queue_bind(f"{unique}-q", "amq.topic", unique)
        channel.basic_qos(prefetch_count=100)
        got = []
        channel.basic_consume(unique, lambda c, m, p, body: (got.append(body), c.basic_ack(m.delivery_tag)),
                              arguments={"x-subscription": "s", "x-stream-offset": "first"})
        producer = transactional(broker, unique)
        producer.begin_transaction()
        send(producer, unique, ["never"])
        producer.abort_transaction(WAIT)
        producer.begin_transaction()
        send(producer, unique, ["one", "two"])
        kafka_send(broker, unique, "plain")
        channel.connection.process_data_events(0.3)
        assert got == [], "of an open transaction, and behind it"
        producer.commit_transaction(WAIT)
        deadline = time.monotonic() + WAIT
        while len(got) < 3:
            assert time.monotonic() < deadline, got
            channel.connection.process_data_events(0.1)
        assert got == [b"one", b"two", b"plain"]
        bodies = [body for _, _, body in (channel.basic_get(f"{unique}-q", auto_ack=True) for _ in range(4))]
        assert bodies == [b"plain", b"one", b"two", None], "a queue gets a transaction when it is committed"


class Mover:
    """Moves numbers from one topic to another in transactions, until it is told to end; a broker that is killed is met
    by a new producer."""

    def __init__(self, broker, name):
        self.broker, self.name = broker, name
        self.chance = random.Random(SEED + 1)
        self.ending = threading.Event()
        self.committed = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ending.is_set():
            try:
                self.move()
            except (KafkaException, AssertionError):
                time.sleep(0.1)

    def move(self):
        producer = transactional(self.broker, self.name)
        with kafka_consumer(self.broker, f"{self.name}-in", group=self.name, isolation_level="read_committed") as consumer:
            while not self.ending.is_set():
                taken = [m for m in consumer.consume(10, timeout=0.5) if m.error() is None]
                if not taken:
                    continue
                producer.begin_transaction()
                for message in taken:
                    producer.produce(f"{self.name}-out", value=message.value(), partition=int(message.value()) % 3)
                positions = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), WAIT)
                if self.chance.random() < 0.2:
                    producer.abort_transaction(WAIT)
                    return
                producer.commit_transaction(WAIT)
                self.committed += len(taken)


@pytest.mark.slow
def test_history_over_kills(own_broker, unique):
    """Every number arrives once and in order, and the last stable offset never goes back, whatever is killed."""
    print(f"INVER_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    broker = own_broker()
    kafka_create(broker, f"{unique}-in")
    kafka_create(broker, f"{unique}-out", partitions=3)
    source = confluent_kafka.Producer({"bootstrap.servers": broker.kafka, **QUIET, "enable.idempotence": True})
    for n in range(300):
        source.produce(f"{unique}-in", value=f"{n}", partition=0)
    assert source.flush(WAIT) == 0
    mover = Mover(broker, unique)
    stable = [0, 0, 0]
    try:
        for _ in range(KILLS):
            before = mover.committed
            deadline = time.monotonic() + chance.uniform(0.2, 2.0)
            wait_until(lambda: time.monotonic() > deadline or mover.committed >= 300 or mover.committed > before + 40,
                       WAIT, "the next kill")
            broker.kill()
            broker.start()
            now = [end_of(broker, f"{unique}-out", "read_committed", partition) for partition in range(3)]
            assert all(old <= new for old, new in zip(stable, now)), (stable, now)
            stable = now
        wait_until(lambda: sum(len(read(broker, f"{unique}-out", partition=p)) for p in range(3)) >= 300, 120,
                   "all numbers being moved")
    finally:
        mover.ending.set()
        mover.thread.join()
    for partition in range(3):
        numbers = [int(value) for value in read(broker, f"{unique}-out", partition=partition)]
        assert numbers == [n for n in range(300) if n % 3 == partition]
