"""Share groups (KIP-932) with Kafka's own client and tools, beside AMQP and MQTT members of the same subscription."""

import contextlib
import threading
import time

import pika
import pytest

from clients import (CLIENTS, amqp_connection, background, java, kafka_create, kafka_producer, kafka_send, kafka_tool,
                     mqtt)
from harness import wait_until

WAIT = 60
CONSOLE = "consumer.ConsoleShareConsumer"
SHARE_GROUPS = "consumer.group.ShareGroupCommand"


class Member:
    """A Java member of a share group beside the test, and what it got: values with their delivery counts."""

    def __init__(self, broker, group, topic, accepts=True):
        jars = CLIENTS / "java"
        self.got = {}
        self.process = background(
            ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/classes:{jars}/apps/*",
             "ShareApp", broker.kafka, "member", group, topic, "accept" if accepts else "hold"])
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        # Its diagnostics must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            value, deliveries = line.decode().split()
            assert value not in self.got, f"{value} came twice"
            self.got[value] = int(deliveries)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join(WAIT)


class AmqpMember(threading.Thread):
    """An AMQP consumer of a named subscription; without acknowledgements if it holds."""

    def __init__(self, broker, group, topic, accepts=True):
        super().__init__(daemon=True)
        self.broker, self.group, self.topic, self.accepts = broker, group, topic, accepts
        self.got, self.over, self.ready = [], threading.Event(), threading.Event()
        self.start()
        assert self.ready.wait(WAIT)

    def run(self):
        connection = amqp_connection(self.broker)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=20)

        def received(channel, method, _properties, body):
            if self.accepts:
                channel.basic_ack(method.delivery_tag)
            self.got.append(body.decode())
        channel.basic_consume(self.topic, received, arguments={"x-subscription": self.group})
        self.ready.set()
        # The broker may be killed under it.
        with contextlib.suppress(pika.exceptions.AMQPError):
            while not self.over.is_set():
                connection.process_data_events(0.05)
            connection.close()

    def end(self):
        self.over.set()
        self.join(WAIT)


@pytest.mark.parametrize("what", ["sharing", "acknowledging", "offsets"])
def test_with_kafkas_own_client(broker, unique, what):
    assert java("apps", "ShareApp", broker.kafka, what, unique, timeout=120).endswith("ok\n")


def test_records_that_are_held_too_long_come_to_others(own_broker, unique):
    broker = own_broker(environment={"INVER_KAFKA_GROUP_SHARE_RECORD_LOCK_DURATION_MS": "3000"})
    assert java("apps", "ShareApp", broker.kafka, "locks", unique, timeout=120).endswith("ok\n")


def test_members_of_three_protocols_share_a_topic(broker, unique):
    """Each record goes to one of them, also while one of them dies with records that it holds."""
    kafka_create(broker, unique, partitions=3)
    producer = kafka_producer(broker)
    amqp_member = AmqpMember(broker, unique, unique)
    holder = None
    member = Member(broker, unique, unique)
    try:
        with mqtt(broker) as device:
            device.subscribe(f"$share/{unique}/{unique}")
            from_mqtt, sent = [], 0

            def all_got():
                while not device.messages.empty():
                    from_mqtt.append(device.messages.get().payload.decode())
                return [*amqp_member.got, *from_mqtt, *member.got]

            def send(count):
                nonlocal sent
                for _ in range(count):
                    producer.produce(unique, value=f"m{sent}", partition=sent % 3)
                    sent += 1
                producer.flush(WAIT)

            def each_has_some():
                send(10)
                all_got()
                time.sleep(0.05)
                return member.got and amqp_member.got and from_mqtt
            wait_until(each_has_some, WAIT, "records at each of three members")
            wait_until(lambda: len(all_got()) >= sent, WAIT, "all records")
            assert sorted(all_got()) == sorted(f"m{i}" for i in range(sent))
            # A further Kafka member takes records and dies with them.
            holder = Member(broker, unique, unique, accepts=False)

            def holder_has_some():
                send(10)
                time.sleep(0.05)
                return holder.got
            wait_until(holder_has_some, WAIT, "records at the member that holds")
            holder.kill()
            send(100)
            wait_until(lambda: len(all_got()) >= sent, WAIT, "the records of the member that died")
            got = all_got()
            assert sorted(got) == sorted(f"m{i}" for i in range(sent)), "a record came to two members, or to none"
            again = [member.got[value] for value in holder.got if value in member.got]
            assert all(deliveries >= 2 for deliveries in again), again  # Those that came to the others are counted above.
    finally:
        for started in (member, holder):
            if started is not None:
                started.kill()
        amqp_member.end()


def test_what_was_acknowledged_before_a_crash_does_not_come_again(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique, partitions=3)
    # Its subscription begins with the first record.
    AmqpMember(broker, unique, unique).end()
    producer = kafka_producer(broker)
    for i in range(100):
        producer.produce(unique, value=f"m{i}", partition=i % 3)
    producer.flush(WAIT)
    first = Member(broker, unique, unique)
    holder = second = None
    try:
        wait_until(lambda: len(first.got) == 100, WAIT, "all records")
        assert set(first.got.values()) == {1}
        first.kill()
        holder = AmqpMember(broker, unique, unique, accepts=False)
        for i in range(100, 110):
            kafka_send(broker, unique, f"m{i}", partition=i % 3)
        wait_until(lambda: len(holder.got) == 10, WAIT, "records at the member that holds")
        broker.kill()
        broker.start()
        second = Member(broker, unique, unique)
        wait_until(lambda: len(second.got) >= 10, WAIT, "the records that were not acknowledged")
        kafka_send(broker, unique, "last")
        wait_until(lambda: "last" in second.got, WAIT, "the last record")
        expected = {**{f"m{i}": 2 for i in range(100, 110)}, "last": 1}
        assert second.got == expected
    finally:
        for started in (first, second):
            if started is not None:
                started.kill()


def test_kafkas_tools(broker, unique):
    kafka_create(broker, unique, partitions=2)
    at = ("--bootstrap-server", broker.kafka)
    # Otherwise it begins with the next record: Kafka's tool for settings is not published with the others.
    java("apps", "ShareApp", broker.kafka, "earliest", unique)
    for i in range(4):
        kafka_send(broker, unique, f"m{i}", partition=i % 2)
    printed = kafka_tool(CONSOLE, *at, "--topic", unique, "--group", unique, "--max-messages", "4", "--timeout-ms", "30000")
    assert sorted(printed.split()) == ["m0", "m1", "m2", "m3"]
    assert unique in kafka_tool(SHARE_GROUPS, *at, "--list").split()
    offsets = kafka_tool(SHARE_GROUPS, *at, "--describe", "--group", unique, "--offsets")
    rows = [line.split() for line in offsets.splitlines() if line.startswith(unique)]
    assert sorted((row[2], row[3]) for row in rows) == [("0", "2"), ("1", "2")], offsets
    state = kafka_tool(SHARE_GROUPS, *at, "--describe", "--group", unique, "--state")
    assert "Empty" in state, state
    reset = ("--reset-offsets", "--to-earliest", "--topic", unique, "--group", unique, "--execute")
    kafka_tool(SHARE_GROUPS, *at, *reset)
    printed = kafka_tool(CONSOLE, *at, "--topic", unique, "--group", unique, "--max-messages", "4", "--timeout-ms", "30000")
    assert sorted(printed.split()) == ["m0", "m1", "m2", "m3"]
    kafka_tool(SHARE_GROUPS, *at, "--delete-offsets", "--topic", unique, "--group", unique)
    kafka_tool(SHARE_GROUPS, *at, "--delete", "--group", unique)
    assert unique not in kafka_tool(SHARE_GROUPS, *at, "--list").split()
