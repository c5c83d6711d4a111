"""Kafka clients: Kafka's own (new and old) and its console tools, librdkafka, kcat, kafkajs, kafka-python."""

import os
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import ConfigResource, NewPartitions, ResourceType

from clients import (java, kafka_admin, kafka_consumer, kafka_create, kafka_producer, kafka_read, kafka_read_all,
                     kafka_send, kafka_take, kafka_tool, mqtt, node)
from harness import run, wait_until


def test_java_client(broker, unique):
    assert java("apps", "KafkaApp", broker.kafka, unique).endswith("done\n")


def test_java_client_2_8(broker, unique):
    assert java("old", "KafkaApp", broker.kafka, unique).endswith("done\n")


def test_kafkajs(broker, unique):
    assert node("kafka.js", broker.kafka, unique) == "done\n"


def test_console_tools(broker, unique):
    at = ["--bootstrap-server", broker.kafka]
    assert "Created" in kafka_tool("TopicCommand", *at, "--create", "--topic", unique, "--partitions", 3)
    assert unique in kafka_tool("TopicCommand", *at, "--list").split()
    assert "PartitionCount: 3" in kafka_tool("TopicCommand", *at, "--describe", "--topic", unique)
    kafka_tool("ConsoleProducer", *at, "--topic", unique, "--reader-property", "parse.key=true", "--reader-property",
               "key.separator=:", stdin=b"".join(b"k%d:line %d\n" % (n, n) for n in range(50)))
    lines = kafka_tool("consumer.ConsoleConsumer", *at, "--topic", unique, "--from-beginning", "--max-messages", 50,
                       "--timeout-ms", 20000, "--group", f"{unique}-g").splitlines()
    assert sorted(lines) == sorted(f"line {n}" for n in range(50))
    groups = kafka_tool("consumer.group.ConsumerGroupCommand", *at, "--describe", "--group", f"{unique}-g")
    rows = [line.split() for line in groups.splitlines() if line.startswith(f"{unique}-g")]
    assert sum(int(row[3]) for row in rows) == 50 and all(row[5] == "0" for row in rows), groups
    offsets = kafka_tool("GetOffsetShell", *at, "--topic", unique)
    assert sum(int(line.rsplit(":", 1)[1]) for line in offsets.split()) == 50
    kafka_tool("TopicCommand", *at, "--alter", "--topic", unique, "--partitions", 5)
    assert "PartitionCount: 5" in kafka_tool("TopicCommand", *at, "--describe", "--topic", unique)
    kafka_tool("TopicCommand", *at, "--delete", "--topic", unique)
    assert unique not in kafka_tool("TopicCommand", *at, "--list").split()


def test_config_tool(broker, unique):
    kafka_create(broker, unique)
    at = ["--bootstrap-server", broker.kafka, "--entity-type", "topics", "--entity-name", unique]
    java("console", "kafka.admin.ConfigCommand", *at, "--alter", "--add-config", "retention.ms=86400000")
    assert "retention.ms=86400000" in java("console", "kafka.admin.ConfigCommand", *at, "--describe")


def test_performance_tools(broker, unique):
    at = f"bootstrap.servers={broker.kafka}"
    kafka_create(broker, unique, partitions=2)
    said = kafka_tool("ProducerPerformance", "--topic", unique, "--num-records", 20000, "--record-size", 100,
                      "--throughput", -1, "--producer-props", at, "acks=all")
    assert "20000 records sent" in said
    said = kafka_tool("ConsumerPerformance", "--bootstrap-server", broker.kafka, "--topic", unique,
                      "--num-records", 20000)
    assert "20000" in said


def test_kcat(broker, unique):
    run(["kcat", "-b", broker.kafka, "-P", "-t", unique, "-K:", "-X", "acks=all"],
        stdin=b"".join(b"k:line %d\n" % n for n in range(100)))
    lines = run(["kcat", "-b", broker.kafka, "-C", "-t", unique, "-o", "beginning", "-e", "-q", "-K:"]).stdout
    assert sorted(lines.splitlines()) == sorted(b"k:line %d" % n for n in range(100))
    assert unique.encode() in run(["kcat", "-b", broker.kafka, "-L"]).stdout
    grouped = run(["kcat", "-b", broker.kafka, "-G", f"{unique}-g", "-X", "auto.offset.reset=earliest", "-c", "100",
                   "-q", unique]).stdout
    assert len(grouped.splitlines()) == 100


def test_kafka_python(broker, unique):
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.admin import NewTopic
    admin = KafkaAdminClient(bootstrap_servers=broker.kafka)
    admin.create_topics([NewTopic(name=unique, num_partitions=2, replication_factor=1)])
    producer = KafkaProducer(bootstrap_servers=broker.kafka, acks="all", compression_type="gzip")
    sent = [producer.send(unique, key=b"k%d" % n, value=b"v%d" % n, headers=[("h", b"\0"), ("h", b"\1")])
            for n in range(100)]
    assert {future.get(20).partition for future in sent} == {0, 1}
    consumer = KafkaConsumer(unique, bootstrap_servers=broker.kafka, group_id=f"{unique}-g", enable_auto_commit=False,
                             auto_offset_reset="earliest", consumer_timeout_ms=20000)
    got = []
    for record in consumer:
        assert record.headers == [("h", b"\0"), ("h", b"\1")]
        got.append(record.value)
        if len(got) == 100:
            break
    assert sorted(got) == sorted(b"v%d" % n for n in range(100))
    consumer.commit()
    consumer.close()
    producer.close()
    offsets = admin.list_group_offsets([f"{unique}-g"]) if hasattr(admin, "list_group_offsets") else None
    if offsets is not None:
        assert "100" in str(offsets) or offsets
    admin.close()


# ---- librdkafka in detail


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_are_delivered_unchanged(broker, unique, compression):
    # The records are old.
    kafka_create(broker, unique, **{"retention.ms": "-1"})
    producer = kafka_producer(broker, compression_type=compression, linger_ms=20)
    records = [
        (b"key", b"value", []),
        (None, b"no key", [("h", b"1"), ("h", b"2"), ("h", None), ("binary", bytes(range(256)))]),
        (b"", b"", [("", b"")]),
        (b"tombstone", None, []),
        (bytes(range(256)), os.urandom(50_000), []),
    ]
    for key, value, headers in records:
        producer.produce(unique, value, key, headers=headers, timestamp=1_700_000_000_123)
    assert producer.flush(15) == 0
    got = kafka_read(broker, unique, len(records))
    assert [(r.key(), r.value(), r.headers() or []) for r in got] == records
    assert [r.offset() for r in got] == list(range(len(records)))
    assert {r.timestamp() for r in got} == {(confluent_kafka.TIMESTAMP_CREATE_TIME, 1_700_000_000_123)}


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(broker, unique, acks):
    kafka_create(broker, unique)
    producer = kafka_producer(broker, acks=acks)
    for n in range(200):
        producer.produce(unique, b"%d" % n)
    assert producer.flush(15) == 0
    assert [r.value() for r in kafka_read(broker, unique, 200)] == [b"%d" % n for n in range(200)]


def test_an_unknown_topic_is_created_on_first_use(broker, unique):
    kafka_send(broker, unique, b"x")
    assert len(kafka_admin(broker).list_topics(unique, 10).topics[unique].partitions) == 1


def test_idempotent_producer(broker, unique):
    kafka_create(broker, unique)
    producer = kafka_producer(broker, enable_idempotence=True)
    for n in range(5000):
        producer.produce(unique, b"%d" % n)
        producer.poll(0)
    assert producer.flush(15) == 0
    assert [r.value() for r in kafka_read(broker, unique, 5000)] == [b"%d" % n for n in range(5000)]


def test_partitions_of_an_idempotent_producer_share_an_inbox(broker, unique):
    """Each partition has its own sequence numbers, and copies of all records go to one MQTT session."""
    kafka_create(broker, unique, partitions=3)
    with mqtt(broker, client_id=unique, clean=False, expiry=100) as client:
        client.subscribe(unique, 1)
        producer = kafka_producer(broker, enable_idempotence=True)
        for n in range(3000):
            producer.produce(unique, b"%d" % n, partition=n % 3)
            if n % 100 == 0:
                producer.flush(10)
        assert producer.flush(15) == 0
        assert len(kafka_read_all(broker, unique)) == 3000
        assert sorted(client.take(3000), key=int) == [b"%d" % n for n in range(3000)]


def test_a_fetch_inside_a_batch(broker, unique):
    kafka_create(broker, unique)
    producer = kafka_producer(broker, linger_ms=100)
    for n in range(100):
        producer.produce(unique, b"%d" % n)
    producer.flush(15)
    with kafka_consumer(broker) as consumer:
        consumer.assign([confluent_kafka.TopicPartition(unique, 0, 42)])
        assert [r.offset() for r in kafka_take(consumer, 58)] == list(range(42, 100))


def test_offsets_by_time_and_watermarks(broker, unique):
    # The records are old.
    kafka_create(broker, unique, **{"retention.ms": "-1"})
    producer = kafka_producer(broker)
    for n in range(10):
        kafka_send(broker, unique, b"%d" % n, producer=producer, timestamp=1_000_000 + n * 1000)
    with kafka_consumer(broker) as consumer:
        partition = confluent_kafka.TopicPartition(unique, 0)
        assert consumer.get_watermark_offsets(partition, 10) == (0, 10)
        at = lambda time_ms: consumer.offsets_for_times(
            [confluent_kafka.TopicPartition(unique, 0, time_ms)], 10)[0].offset
        assert at(1_000_000) == 0
        assert at(1_004_500) == 5
        assert at(2_000_000) == confluent_kafka.OFFSET_END


def test_a_long_poll_returns_when_data_arrives(broker, unique):
    kafka_create(broker, unique)
    with kafka_consumer(broker, fetch_wait_max_ms=5000, fetch_error_backoff_ms=10) as consumer:
        consumer.assign([confluent_kafka.TopicPartition(unique, 0, 0)])
        assert consumer.poll(0.5) is None
        kafka_send(broker, unique, b"x")
        begun = time.monotonic()
        assert kafka_take(consumer, 1)[0].value() == b"x"
        assert time.monotonic() - begun < 2


def test_groups_share_partitions_and_take_over(broker, unique):
    kafka_create(broker, unique, partitions=4)
    options = {"group": f"{unique}-g", "partition_assignment_strategy": "cooperative-sticky",
               "heartbeat_interval_ms": 200}
    with kafka_consumer(broker, unique, **options) as one:
        with kafka_consumer(broker, unique, **options) as two:
            def both():
                one.poll(0.05)
                two.poll(0.05)
                return len(one.assignment()) == 2 and len(two.assignment()) == 2
            wait_until(both, 30, "each member having two partitions")
        def alone():
            one.poll(0.05)
            return len(one.assignment()) == 4
        wait_until(alone, 30, "the one that is left having all")


def test_committed_offsets_are_kept(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    producer = kafka_producer(broker)
    for n in range(20):
        producer.produce(unique, b"%d" % n)
    producer.flush(10)
    with kafka_consumer(broker, unique, group="g") as consumer:
        kafka_take(consumer, 20)
        consumer.commit(offsets=[confluent_kafka.TopicPartition(unique, 0, 7, "a note")], asynchronous=False)
    broker.restart()
    with kafka_consumer(broker, unique, group="g") as consumer:
        committed = consumer.committed([confluent_kafka.TopicPartition(unique, 0)], 10)[0]
        assert (committed.offset, committed.metadata) == (7, "a note")
        assert [r.value() for r in kafka_take(consumer, 13)] == [b"%d" % n for n in range(7, 20)]


def test_group_administration(broker, unique):
    kafka_create(broker, unique)
    kafka_send(broker, unique, b"x")
    group = f"{unique}-g"
    admin = kafka_admin(broker)
    with kafka_consumer(broker, unique, group=group) as consumer:
        kafka_take(consumer, 1)
        consumer.commit(asynchronous=False)
        described = admin.describe_consumer_groups([group])[group].result(10)
        assert described.state == confluent_kafka.ConsumerGroupState.STABLE
        assert len(described.members) == 1
    listed = admin.list_consumer_groups().result(10)
    assert group in {each.group_id for each in listed.valid}
    wait_until(lambda: admin.describe_consumer_groups([group])[group].result(10).state
               == confluent_kafka.ConsumerGroupState.EMPTY, what="the group being empty")
    admin.delete_consumer_groups([group])[group].result(10)
    listed = admin.list_consumer_groups().result(10)
    assert group not in {each.group_id for each in listed.valid}


def test_topic_administration(broker, unique):
    admin = kafka_admin(broker)
    kafka_create(broker, unique, partitions=2, **{"retention.ms": "1000000"})
    with pytest.raises(confluent_kafka.KafkaException) as clash:
        kafka_create(broker, unique)
    assert clash.value.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS
    admin.create_partitions([NewPartitions(unique, 5)])[unique].result(10)
    assert len(admin.list_topics(unique, 10).topics[unique].partitions) == 5
    resource = ConfigResource(ResourceType.TOPIC, unique)
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["retention.ms"].value == "1000000"
    for n in range(5):
        kafka_send(broker, unique, b"%d" % n, partition=0)
    admin.delete_records([confluent_kafka.TopicPartition(unique, 0, 3)])
    with kafka_consumer(broker) as consumer:
        wait_until(lambda: consumer.get_watermark_offsets(confluent_kafka.TopicPartition(unique, 0), 10) == (3, 5))
    admin.delete_topics([unique])[unique].result(10)
    assert unique not in admin.list_topics(timeout=10).topics


def test_many_producers_at_once(broker, unique):
    kafka_create(broker, unique, partitions=4)
    def work(number):
        producer = kafka_producer(broker)
        for n in range(500):
            producer.produce(unique, b"%d-%d" % (number, n), key=b"%d" % number)
        assert producer.flush(20) == 0
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    records = kafka_read_all(broker, unique)
    assert len(records) == 4000
    for number in range(8):
        mine = [r.value() for r in sorted(records, key=lambda r: (r.partition(), r.offset()))
                if r.value().startswith(b"%d-" % number)]
        assert mine == [b"%d-%d" % (number, n) for n in range(500)], "a key's order is kept"


def test_a_message_that_is_too_large_is_refused(own_broker, unique):
    broker = own_broker(environment={"INVER_LIMITS_MESSAGE_BYTES_MAX": "64 KiB"})
    kafka_send(broker, unique, b"x" * 10_000)
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE|too large|exceeds"):
        kafka_send(broker, unique, b"x" * 500_000)
    kafka_send(broker, unique, b"x" * 10_000)
