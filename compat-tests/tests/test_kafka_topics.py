"""Topic configurations and administration, with librdkafka and kafka-python."""

import os
import time

import confluent_kafka
import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AlterConfigOpType,
                                   ConfigEntry, ConfigResource, OffsetSpec, ResourcePatternType, ResourceType)

from clients import (java, kafka_admin, kafka_consumer, kafka_create, kafka_producer, kafka_read, kafka_read_all, kafka_send,
                     kafka_take, mqtt)
from harness import wait_until


def alter(broker, topic, operation=AlterConfigOpType.SET, **settings):
    entries = [ConfigEntry(name.replace("_", "."), value, incremental_operation=operation)
               for name, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = kafka_admin(broker)
    admin.incremental_alter_configs([resource])[resource].result(10)


def refused(future):
    with pytest.raises(KafkaException) as error:
        future.result(10)
    return error.value.args[0].code()


def test_compaction_keeps_the_last_record_of_each_key(own_broker, unique):
    # Fetches are served from the tail cache, compacted or not.
    broker = own_broker(environment={"INVER_LOG_SEGMENT_BYTES_MAX": "1 MiB", "INVER_LOG_TAIL_CACHE_BYTES_MAX": "1 MiB"})
    kafka_create(broker, unique, **{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"})
    rounds, keys = 5, 300
    producer = kafka_producer(broker, compression_type="lz4")
    for n in range(rounds):
        for key in range(keys):
            # Incompressible values.
            producer.produce(unique, b"%d/" % n + os.urandom(1500), key=b"k%d" % key)
        assert producer.flush(20) == 0
    # More than a segment of later data, so that their segments are sealed.
    kafka_create(broker, f"{unique}-other")
    for n in range(3):
        for _ in range(10):
            producer.produce(f"{unique}-other", os.urandom(100_000))
        assert producer.flush(20) == 0

    def compacted():
        kept = kafka_read_all(broker, unique)
        return kept if len(kept) < 2 * keys else None

    kept = wait_until(compacted, 60, "the earlier records of each key going")
    last = {record.key(): record for record in kept}
    assert set(last) == {b"k%d" % key for key in range(keys)}
    assert all(record.value().startswith(b"%d/" % (rounds - 1)) for record in last.values())
    offsets = [record.offset() for record in kept]
    assert offsets == sorted(offsets) and offsets[-1] == rounds * keys - 1, "remaining records keep their offsets"
    # A fetch at a compacted offset continues with the next remaining record.
    with kafka_consumer(broker) as consumer:
        consumer.assign([TopicPartition(unique, 0, 0)])
        assert kafka_take(consumer, 1)[0].offset() == offsets[0]
    broker.restart()
    assert [record.offset() for record in kafka_read_all(broker, unique)][-1] == offsets[-1]


def test_a_compacted_topic_requires_keys(broker, unique):
    kafka_create(broker, unique, **{"cleanup.policy": "compact"})
    with pytest.raises(AssertionError, match="INVALID_RECORD|record"):
        kafka_send(broker, unique, b"value")
    kafka_send(broker, unique, b"value", key=b"key")
    alter(broker, unique, AlterConfigOpType.APPEND, cleanup_policy="delete")
    alter(broker, unique, AlterConfigOpType.SUBTRACT, cleanup_policy="compact")
    kafka_send(broker, unique, b"value")


def test_log_append_time(broker, unique):
    kafka_create(broker, unique, **{"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"})
    kafka_send(broker, unique, b"value", timestamp=1000)
    kind, at = kafka_read(broker, unique, 1)[0].timestamp()
    assert kind == confluent_kafka.TIMESTAMP_LOG_APPEND_TIME
    assert abs(at - time.time() * 1000) < 60_000
    alter(broker, unique, message_timestamp_type="CreateTime")
    kafka_send(broker, unique, b"value", timestamp=1000)
    assert kafka_read(broker, unique, 2)[1].timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, 1000)


def test_timestamps_far_ahead_are_refused(broker, unique):
    kafka_create(broker, unique)
    ahead = int(time.time() * 1000) + 7_200_000
    with pytest.raises(AssertionError, match="timestamp|TIMESTAMP"):
        kafka_send(broker, unique, b"value", timestamp=ahead)
    alter(broker, unique, message_timestamp_after_max_ms="86400000")
    kafka_send(broker, unique, b"value", timestamp=ahead)


def test_max_message_bytes(broker, unique):
    kafka_create(broker, unique, **{"max.message.bytes": "2000"})
    kafka_send(broker, unique, b"x" * 1000)
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE|too large|exceeds"):
        kafka_send(broker, unique, b"x" * 5000)
    alter(broker, unique, max_message_bytes="10000")
    kafka_send(broker, unique, b"x" * 5000)


def test_retention_by_size(own_broker, unique):
    broker = own_broker(environment={"INVER_LOG_SEGMENT_BYTES_MAX": "1 MiB"})
    kafka_create(broker, unique, **{"retention.bytes": "200000"})
    producer = kafka_producer(broker)
    for _ in range(60):
        producer.produce(unique, b"x" * 50_000)
        producer.flush(10)
    with kafka_consumer(broker) as consumer:
        start = lambda: consumer.get_watermark_offsets(TopicPartition(unique, 0), 10)[0]
        wait_until(lambda: start() > 0, 50, "removal of the first records (checked twice a minute)")
        assert start() <= 56, "retention.bytes remains"


def test_a_topic_captures_by_its_configuration(broker, unique):
    kafka_create(broker, unique, **{"inver.capture.filter": f"{unique}/+/temp", "inver.capture.key": "{1}",
                                    "inver.headers": "none", "compression.type": "zstd"})
    with mqtt(broker) as device:
        device.publish(f"{unique}/a/temp", b"21", qos=1)
        device.publish(f"{unique}/a/humidity", b"50", qos=1)
        device.publish(f"{unique}/b/temp", b"22", qos=1)
        records = kafka_read(broker, unique, 2)
        assert [(r.key(), r.value()) for r in records] == [(b"a", b"21"), (b"b", b"22")]
        assert not any(name == "mqtt-qos" for r in records for name, _ in r.headers() or [])
        alter(broker, unique, AlterConfigOpType.DELETE, inver_capture_filter=None)
        device.publish(f"{unique}/c/temp", b"23", qos=1)
    assert len(kafka_read_all(broker, unique)) == 2


def test_invalid_configurations_are_refused(broker, unique):
    kafka_create(broker, unique)
    for settings in ({"cleanup_policy": "shred"}, {"retention_ms": "soon"}, {"no_such_setting": "1"},
                     {"remote_storage_enable": "true"}):
        with pytest.raises(KafkaException) as error:
            alter(broker, unique, **settings)
        assert error.value.args[0].code() == KafkaError.INVALID_CONFIG, settings
    broker_resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[
        ConfigEntry("num.partitions", "7", incremental_operation=AlterConfigOpType.SET)])
    admin = kafka_admin(broker)
    assert refused(admin.incremental_alter_configs([broker_resource])[broker_resource]) == KafkaError.POLICY_VIOLATION


def test_offsets_by_every_specification(broker, unique):
    kafka_create(broker, unique, **{"retention.ms": "-1"})
    for n, at in enumerate([1000, 3000, 2000]):
        kafka_send(broker, unique, b"%d" % n, timestamp=at)
    admin, partition = kafka_admin(broker), TopicPartition(unique, 0)
    admin.delete_records([TopicPartition(unique, 0, 1)])[TopicPartition(unique, 0, 1)].result(10)
    for isolation in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
        def offset(specification):
            listed = admin.list_offsets({partition: specification}, isolation_level=isolation)
            return listed[partition].result(10).offset
        assert offset(OffsetSpec.earliest()) == 1
        assert offset(OffsetSpec.latest()) == 3
        assert offset(OffsetSpec.max_timestamp()) == 1
        assert offset(OffsetSpec.for_timestamp(2500)) == 1
        assert offset(OffsetSpec.for_timestamp(9000)) == -1


def test_acls_are_disabled(broker, unique):
    admin = kafka_admin(broker)
    binding = AclBinding(ResourceType.TOPIC, unique, ResourcePatternType.LITERAL, "User:ann", "*", AclOperation.READ,
                         AclPermissionType.ALLOW)
    # (This client does not report a missing authorizer when it describes ACLs.)
    every = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY,
                             AclPermissionType.ANY)
    assert admin.describe_acls(every).result(10) == []
    assert refused(admin.create_acls([binding])[binding]) == KafkaError.SECURITY_DISABLED
    assert refused(admin.delete_acls([every])[every]) == KafkaError.SECURITY_DISABLED


def test_leaders_need_no_election(broker, unique):
    kafka_create(broker, unique)
    admin = kafka_admin(broker)
    elected = admin.elect_leaders(confluent_kafka.ElectionType.PREFERRED, [TopicPartition(unique, 0)])
    error = elected.result(10)[TopicPartition(unique, 0)]
    assert error.code() == KafkaError.ELECTION_NOT_NEEDED


def test_topics_and_the_cluster_are_described(broker, unique):
    kafka_create(broker, unique, partitions=3)
    admin = kafka_admin(broker)
    described = admin.describe_topics(TopicCollection([unique]))[unique].result(10)
    assert [len(partition.isr) for partition in described.partitions] == [1, 1, 1]
    cluster = admin.describe_cluster(include_authorized_operations=True).result(10)
    assert cluster.controller.id == cluster.nodes[0].id and cluster.authorized_operations


def test_broker_configurations_with_kafkas_tool(broker):
    at = ["--bootstrap-server", broker.kafka, "--describe"]
    told = java("console", "kafka.admin.ConfigCommand", *at, "--all", "--entity-type", "brokers", "--entity-name", "1")
    assert "offsets.retention.minutes=10080" in told and "num.partitions=" in told
    java("console", "kafka.admin.ConfigCommand", *at, "--entity-type", "users")


def test_committed_offsets_of_an_empty_group_expire(own_broker, unique):
    broker = own_broker(environment={"INVER_KAFKA_GROUP_OFFSETS_RETENTION_MS": "1500"})
    kafka_create(broker, unique)
    kafka_send(broker, unique, b"value")
    at = TopicPartition(unique, 0)
    with kafka_consumer(broker, unique, group="g") as consumer:
        kafka_take(consumer, 1)
        consumer.commit(asynchronous=False)
        begun = time.monotonic()
        while time.monotonic() - begun < 2.5:
            consumer.poll(0.1)
            assert consumer.committed([at], 10)[0].offset == 1, "a group with a member keeps its committed offsets"
    with kafka_consumer(broker, group="g") as consumer:
        wait_until(lambda: consumer.committed([at], 10)[0].offset < 0, 20, "the position going")
    admin = kafka_admin(broker)
    listed = admin.list_consumer_groups().result(10)
    assert "g" not in {group.group_id for group in listed.valid}
