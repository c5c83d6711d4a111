"""Consumer groups whose assignment the broker makes (KIP-848), with librdkafka, Kafka's own client and its tools."""

import time

import confluent_kafka
import pytest
from confluent_kafka import ConsumerGroupType, TopicPartition

from clients import QUIET, java, kafka_admin, kafka_create, kafka_send, kafka_tool
from harness import wait_until

WAIT = 60


class Members:
    """Consumers of one group, which are polled together."""

    def __init__(self, broker, group):
        self.broker, self.group = broker, group
        self.members, self.got = {}, []

    def join(self, name, *topics, **config):
        self.members[name] = confluent_kafka.Consumer({
            "bootstrap.servers": self.broker.kafka, **QUIET, "group.id": self.group, "group.protocol": "consumer",
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
            **{key.replace("_", "."): value for key, value in config.items()},
        })
        self.members[name].subscribe(list(topics))

    def leave(self, name):
        self.members.pop(name).close()

    def poll(self):
        for member in self.members.values():
            while (message := member.poll(0.02)) is not None:
                if message.error() is None:
                    self.got.append(message.value().decode())
        return self.sizes()

    def sizes(self):
        return sorted(len(member.assignment()) for member in self.members.values())

    def until(self, sizes):
        wait_until(lambda: self.poll() == sizes, WAIT, f"assignments of {sizes}")
        parts = [(p.topic, p.partition) for member in self.members.values() for p in member.assignment()]
        assert len(parts) == len(set(parts)), "a partition with two members"

    def receive(self, count):
        wait_until(lambda: self.poll() and len(self.got) >= count, WAIT, f"{count} messages")

    def commit(self):
        for member in self.members.values():
            if any(p.offset >= 0 for p in member.position(member.assignment())):
                member.commit(asynchronous=False)

    def close(self):
        for name in list(self.members):
            self.leave(name)


@pytest.fixture
def members(broker, unique):
    members = Members(broker, unique)
    yield members
    members.close()


def described(broker, group):
    admin = kafka_admin(broker)
    return admin.describe_consumer_groups([group])[group].result(WAIT)


def test_members_share_partitions(broker, unique, members):
    kafka_create(broker, unique, partitions=6)
    members.join("a", unique)
    members.until([6])
    members.join("b", unique)
    members.until([3, 3])
    members.join("c", unique)
    members.until([2, 2, 2])
    for n in range(60):
        kafka_send(broker, unique, f"{n}", partition=n % 6)
    members.receive(60)
    assert sorted(members.got, key=int) == [f"{n}" for n in range(60)]
    members.commit()
    group = described(broker, unique)
    assert group.type == ConsumerGroupType.CONSUMER and len(group.members) == 3
    assert group.partition_assignor == "uniform"
    said = kafka_tool("consumer.group.ConsumerGroupCommand", "--bootstrap-server", broker.kafka, "--describe", "--group", unique)
    lags = [line.split()[5] for line in said.splitlines() if line.startswith(unique)]
    assert lags == ["0"] * 6, said
    members.leave("b")
    members.until([3, 3])
    members.close()
    admin = kafka_admin(broker)
    listed = admin.list_consumer_groups(types={ConsumerGroupType.CONSUMER}).result(WAIT)
    assert unique in [group.group_id for group in listed.valid]
    assert admin.delete_consumer_groups([unique])[unique].result(WAIT) is None


def test_range(broker, unique, members):
    for topic in ("one", "two"):
        kafka_create(broker, f"{unique}-{topic}", partitions=3)
    for name in "ab":
        members.join(name, f"{unique}-one", f"{unique}-two", group_remote_assignor="range")
    members.until([2, 4])
    for member in members.members.values():
        by_topic = {topic: [p.partition for p in member.assignment() if p.topic == f"{unique}-{topic}"] for topic in ("one", "two")}
        assert by_topic["one"] == by_topic["two"]
    assert described(broker, unique).partition_assignor == "range"


def test_patterns(broker, unique, members):
    kafka_create(broker, f"{unique}-a1")
    members.join("a", f"^{unique}-a.*")
    members.until([1])
    kafka_create(broker, f"{unique}-a2", partitions=2)
    kafka_create(broker, f"{unique}-b")
    members.until([3])


def test_static_members(broker, unique, members):
    kafka_create(broker, unique, partitions=4)
    members.join("a", unique, group_instance_id="one")
    members.join("b", unique, group_instance_id="two")
    members.until([2, 2])
    had = {p.partition for p in members.members["a"].assignment()}
    members.leave("a")
    # It has left for now: its partitions stay its own.
    members.poll()
    assert {p.partition for p in members.members["b"].assignment()} == {0, 1, 2, 3} - had
    members.join("a", unique, group_instance_id="one")
    members.until([2, 2])
    assert {p.partition for p in members.members["a"].assignment()} == had


def test_members_go_on_after_a_kill(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique, partitions=4)
    members = Members(broker, unique)
    try:
        for name in "ab":
            members.join(name, unique)
        members.until([2, 2])
        for n in range(20):
            kafka_send(broker, unique, f"{n}", partition=n % 4)
        members.receive(20)
        members.commit()
        for kill in range(2):
            broker.kill()
            broker.start()
            for n in range(20):
                kafka_send(broker, unique, f"{20 * kill + 20 + n}", partition=n % 4)
            members.receive(20 * kill + 40)
        members.until([2, 2])
        assert sorted(members.got, key=int) == [f"{n}" for n in range(60)], "each once: nothing was rewound"
        assert len(described(broker, unique).members) == 2
    finally:
        members.close()


def test_both_protocols_one_after_the_other(broker, unique, members):
    kafka_create(broker, unique, partitions=2)
    members.join("new", unique)
    members.until([2])
    kafka_send(broker, unique, "one", partition=0)
    members.receive(1)
    members.commit()
    # While it has members of one protocol, a group takes none of the other.
    members.join("old", unique, group_protocol="classic")
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert members.poll() == [0, 2]
    members.leave("new")
    members.until([2])
    kafka_send(broker, unique, "two", partition=0)
    members.receive(2)
    members.commit()
    members.leave("old")
    members.join("newer", unique)
    kafka_send(broker, unique, "three", partition=0)
    members.receive(3)
    assert members.got == ["one", "two", "three"]


def test_java_client(broker, unique):
    assert java("apps", "ConsumerGroupApp", broker.kafka, unique, timeout=170).endswith("done\n")
