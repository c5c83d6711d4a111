"""One client works at the documented limits; what an ordinary client waits for meanwhile stays about what it was.

Connections share threads, so any request that costs much is felt by others. Each kind of work is done by this process, and
judged by two measures:

- The CPU time for which a connection has its thread before others get theirs (`limits.slow_turn_cpu`). The load of the machine
  does not change it, so its bound is narrow: sizes are such that work which is not shared out over turns or left to other
  threads exceeds it. A debug build, which is some ten times slower, is given a tenth of the sizes.
- What `bystander.py` waits for, in a process of its own: it finds what no turn does, such as a lock that is held for long. It is
  compared with what was measured just before, idle, because the machine may be busy with something else, and much more is
  allowed where others want the cores too; a kind of work that fails is measured again.

In the long form (`INVER_TEST_BYSTANDER=long`, a release build, a quiet machine) the sizes are the documented limits, and the
bystander's 99th percentile must be within three times the idle one and 50 ms.
"""

import gzip
import os
import subprocess
import sys
import threading
import time

import pytest

import wire
from harness import ROOT, Broker, binary, wait_until
from wire import Amqp, Kafka, Mqtt

LONG = os.environ.get("INVER_TEST_BYSTANDER") == "long"
SCALE = 0.1 if "debug" in str(binary()) else 1
SLACK_MS = 50 if LONG else 300
IDLE_SECONDS = 1.0
WORK_SECONDS_MIN = 1.0
PAUSE_SECONDS = 0.3
KINDS = ("amqp", "mqtt", "kafka", "connect")
GZIP = 1
# CPU time of the loop in `slowness`, where the bounds of turns were measured.
LOOP_SECONDS = 0.045


def slack_ms():
    """What may be added on this machine as it is now: where others want each core too, a turn's CPU takes that much longer."""
    return SLACK_MS * (1 if LONG else max(1.0, os.getloadavg()[0] / os.cpu_count()))


def size(short, long):
    """A size in the short form of a release build, and in the long form."""
    return long if LONG else max(1, int(short * SCALE))


class Bystander:
    """The measuring process, whose samples are read as they come."""

    def __init__(self, broker):
        ports = [str(port) for port in (broker.amqp_port, broker.mqtt_port, broker.kafka_port)]
        self.process = subprocess.Popen([sys.executable, ROOT / "compat-tests" / "bystander.py", *ports],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.samples = []
        threading.Thread(target=self.read, daemon=True).start()
        wait_until(lambda: {kind for kind, _, _ in list(self.samples)} == set(KINDS), 30, "the bystander's start")

    def read(self):
        for line in self.process.stdout:
            kind, since, took = line.split()
            self.samples.append((kind, float(since), float(took) * 1000))

    def between(self, start, end, whole=False):
        """The 99th percentile of what was under way in this time (`whole`: began and ended), milliseconds, by kind; what it
        waits for is awaited first."""
        wait_until(lambda: all(any(k == kind and s > end for k, s, _ in reversed(self.samples)) for kind in KINDS),
                   60, "the bystander's answers")
        assert self.process.poll() is None, "the bystander ended"
        found = {}
        for kind in KINDS:
            counts = (lambda s, t: start <= s and s + t / 1000 <= end) if whole else (
                lambda s, t: s <= end and s + t / 1000 >= start)
            took = sorted(t for k, s, t in list(self.samples) if k == kind and counts(s, t))
            found[kind] = took[min(len(took) - 1, len(took) * 99 // 100)] if took else 0.0
        return found

    def end(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    # As large as the broker accepts: compressed, a batch of tiny records is above the default.
    broker = Broker(tmp_path_factory.mktemp("bystander"), {"INVER_KAFKA_MESSAGE_BYTES_MAX": "16 MiB",
                                                           "INVER_LIMITS_SLOW_TURN_CPU": "true"}).start()
    bystander = Bystander(broker)
    yield broker, bystander, slowness()
    bystander.end()
    broker.check()
    broker.end()


# ---- AMQP


def declares(broker, name):
    """Queues are declared and deleted without waiting."""
    with Amqp(broker.amqp_port) as client:
        queues = [f"{name}-{at}" for at in range(size(20_000, 100_000))]
        client.send(*(wire.queue_declare(queue, nowait=True) for queue in queues))
        client.send(*(wire.queue_delete(queue, nowait=True) for queue in queues))
        client.call(wire.queue_declare(name, durable=False), 50, 11)


def bindings(broker, name):
    """A queue is bound by patterns of wildcards, and messages are routed by all of them."""
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_declare(name, durable=False), 50, 11)
        patterns = (".".join("#" if bits >> at & 1 else "*" for at in range(13)) for bits in range(size(5_000, 8_000)))
        client.send(*(wire.queue_bind(name, "amq.topic", pattern, nowait=True) for pattern in patterns))
        client.call(wire.CONFIRM_SELECT, 85, 11)
        for at in range(20):
            client.send(wire.basic_publish("amq.topic", ".".join("abcdefghijklmnop") + str(at), b"x"))
            client.send(wire.queue_bind(name, "amq.topic", f"more.{at}", nowait=True))
        client.call(wire.queue_delete(name), 50, 41)


def exchanges(broker, name):
    """Exchanges are declared and deleted without waiting."""
    with Amqp(broker.amqp_port) as client:
        count = size(30_000, 50_000)
        client.send(*(wire.exchange_declare(f"{name}-{at}", "topic", nowait=True) for at in range(count)))
        client.send(*(wire.exchange_delete(f"{name}-{at}", nowait=True) for at in range(count)))
        client.call(wire.queue_declare(name, durable=False), 50, 11)


def fanout(broker, name):
    """Messages to very many queues, each after a change of the topology."""
    count = size(10_000, 50_000)
    with Amqp(broker.amqp_port) as client:
        client.call(wire.exchange_declare(name, "fanout"), 40, 11)
        for at in range(count):
            client.send(wire.queue_declare(f"{name}-{at}", durable=False, nowait=True),
                        wire.queue_bind(f"{name}-{at}", name, "", nowait=True))
        client.call(wire.CONFIRM_SELECT, 85, 11)
        for at in range(20):
            client.send(wire.queue_declare(f"{name}-more-{at}", durable=False, nowait=True))
            client.call(wire.basic_publish(name, "", b"x", persistent=False), 60, 80)
        client.send(wire.exchange_delete(name, nowait=True))
        client.send(*(wire.queue_delete(f"{name}-{at}", nowait=True) for at in range(count)))
        client.call(wire.queue_declare(name, durable=False), 50, 11)


def unacknowledged(broker, name):
    """Very many deliveries are requeued, redelivered, left by a consumer that goes, and purged."""
    count = size(200_000, 1_000_000)
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_declare(name), 50, 11)
        client.call(wire.CONFIRM_SELECT, 85, 11)
        one = wire.basic_publish("", name, b"x")
        for _ in range(count // 1_000):
            client.send(one * 1_000)
        client.send(wire.basic_consume(name, "c", nowait=True))
        last = client.deliveries(count)
        client.send(wire.settle(last, requeue=True))
        client.deliveries(count)
        client.send(wire.settle(0, requeue=True), wire.basic_cancel("c"))
    with Amqp(broker.amqp_port) as client:
        client.send(wire.basic_consume(name, "c", nowait=True))
        client.deliveries(count)
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_purge(name), 50, 31)
        client.call(wire.queue_delete(name), 50, 41)


def acknowledged(broker, name):
    """Very many deliveries are acknowledged by one method."""
    count = size(200_000, 1_000_000)
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_declare(name), 50, 11)
        one = wire.basic_publish("", name, b"x")
        for _ in range(count // 1_000):
            client.send(one * 1_000)
        client.send(wire.basic_consume(name, "c", nowait=True))
        client.send(wire.settle(client.deliveries(count)))
        client.call(wire.queue_delete(name), 50, 41)


def transactions(broker, name):
    """A transaction of many messages."""
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_declare(name), 50, 11)
        client.call(wire.TX_SELECT, 90, 11)
        client.send(wire.basic_publish("", name, b"x") * size(10_000, 50_000))
        client.call(wire.TX_COMMIT, 90, 21)
        client.call(wire.queue_delete(name), 50, 41)


def consumers(broker, name):
    """Consumers come without waiting, and go with their connection."""
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_declare(name), 50, 11)
        client.send(*(wire.basic_consume(name, f"c{at}", nowait=True) for at in range(size(20_000, 50_000))))
        client.call(wire.queue_declare(name), 50, 11)
    with Amqp(broker.amqp_port) as client:
        client.call(wire.queue_delete(name), 50, 41)


def by_key(broker, name):
    """Very many consumers share a topic's records by their keys, and go."""
    with Kafka(broker.kafka_port) as producer, Amqp(broker.amqp_port) as client:
        producer.call(wire.create_topics([name], 1))
        terms = {"x-subscription": "g", "x-subscription-type": "key_shared"}
        client.send(*(wire.basic_consume(name, f"c{at}", nowait=True, arguments=terms) for at in range(size(1_000, 1_000))))
        one = wire.batch(b"".join(wire.record(at, b"x", key=b"%d" % at) for at in range(1_000)), 1_000)
        count = size(20, 100)
        for _ in range(count):
            assert producer.produced(name, one) == [0]
        client.deliveries(1_000 * count)


# ---- MQTT


def filters(broker, name):
    """Packets of very many filters, and the end of several sessions together."""
    many = [f"{name}/{at}/+/x" for at in range(size(10_000, 100_000))]
    clients = [Mqtt(broker.mqtt_port, f"{name}-{at}") for at in range(size(10, 10))]
    for client in clients:
        client.send(wire.mqtt_subscribe(many))
        client.expect(9)
    clients[0].send(wire.mqtt_unsubscribe(many[:len(many) // 2]))
    clients[0].expect(11)
    for client in clients:
        client.close()


def publishes(broker, name):
    """Messages to very many topics, without waiting for their acknowledgements."""
    client = Mqtt(broker.mqtt_port, name)
    client.send(*(wire.mqtt_publish(f"{name}/{at}", bytes(100)) for at in range(size(120_000, 200_000))))
    client.send(wire.mqtt_publish(f"{name}/end", b"", 1))
    client.expect(4)
    client.close()


def retained(broker, name):
    """Very many retained messages are set, and sent to clients that subscribe to all of them."""
    count = size(30_000, 50_000)
    client = Mqtt(broker.mqtt_port, name)
    client.send(*(wire.mqtt_publish(f"{name}/{at}", bytes(100), retain=True) for at in range(count)))
    client.send(wire.mqtt_publish(f"{name}/end", b"", 1))
    client.expect(4)
    readers = [Mqtt(broker.mqtt_port, f"{name}-{at}") for at in range(10)]
    for reader in readers:
        reader.send(wire.mqtt_subscribe([f"{name}/#"]))
    for reader in readers:
        reader.expect(9)
        reader.close()
    client.send(*(wire.mqtt_publish(f"{name}/{at}", b"", retain=True) for at in range(count)))
    client.send(wire.mqtt_publish(f"{name}/end", b"", 1))
    client.expect(4)
    client.close()


# ---- Kafka


def inflating(broker, name):
    """One small request whose batches decompress to very much."""
    zeros = gzip.compress(wire.record(0, bytes(100 << 20)), 6)
    with Kafka(broker.kafka_port) as client:
        client.call(wire.create_topics([name], 1))
        codes = client.produced(name, *[wire.batch(zeros, 1, GZIP)] * size(40, 60))
    assert set(codes) <= {0, 10}, codes  # NONE, MESSAGE_TOO_LARGE


def tiny_records(broker, name):
    """A batch of very many records while somebody hears the hub."""
    count = size(2_000_000, 4_000_000)
    records = b"".join(wire.record(at, b"") for at in range(count))
    with Kafka(broker.kafka_port) as client, Mqtt(broker.mqtt_port, name) as hearing:
        hearing.send(wire.mqtt_subscribe(["nothing/here"]))
        hearing.expect(9)
        client.call(wire.create_topics([name], 1))
        assert client.produced(name, wire.batch(gzip.compress(records, 1), count, GZIP)) == [0]


def addresses(broker, name):
    """Records that name an address each, and one that names a very long one, while somebody hears the hub."""
    count = size(20_000, 200_000)
    named = (wire.record(at, b"x", [(b"mqtt-topic", b"%s/%d" % (name.encode(), at))]) for at in range(count))
    long = wire.record(0, b"x", [(b"mqtt-topic", b"/" * 15_000_000)])
    with Kafka(broker.kafka_port) as client, Mqtt(broker.mqtt_port, name) as hearing:
        hearing.send(wire.mqtt_subscribe([f"{name}/1/#"], qos=1))
        hearing.expect(9)
        client.call(wire.create_topics([name], 1))
        assert client.produced(name, wire.batch(gzip.compress(b"".join(named), 1), count, GZIP)) == [0]
        assert client.produced(name, wire.batch(gzip.compress(long, 1), 1, GZIP)) == [87]  # INVALID_RECORD


def metadata(broker, name):
    """Very many partitions are created, described to many clients at once, and deleted."""
    with Kafka(broker.kafka_port) as client:
        names = [f"{name}-{at}" for at in range(size(8, 20))]
        for topic in names:
            client.call(wire.create_topics([topic], 5_000))
        many = [Kafka(broker.kafka_port) for _ in range(size(50, 50))]
        for one in many:
            one.send(*[wire.METADATA_OF_ALL] * 8)
        for one in many:
            for _ in range(8):
                one.response()
            one.close()
        client.call(wire.delete_topics(names))


def topics(broker, name):
    """Very many topics are created and deleted by one request each."""
    with Kafka(broker.kafka_port) as client:
        names = [f"{name}-{at}" for at in range(size(8_000, 8_000))]
        client.call(wire.create_topics(names, 1))
        client.call(wire.delete_topics(names))


def offsets(broker, name):
    """Offsets of very many partitions are committed, fetched and deleted with their group, beside deleted queues."""
    with Kafka(broker.kafka_port) as client, Amqp(broker.amqp_port) as other:
        client.call(wire.create_topics([name], 10_000))
        groups = [f"{name}-{at}" for at in range(size(10, 50))]
        for group in groups:
            client.call(wire.offset_commit(group, name, 10_000))
            client.call(wire.offset_fetch_all(group))
        for at in range(50):
            other.call(wire.queue_declare(f"{name}-q{at}"), 50, 11)
            other.call(wire.queue_delete(f"{name}-q{at}"), 50, 41)
        client.call(wire.delete_groups(groups))
        client.call(wire.delete_topics([name]))


# ---- HTTP


def scrapes(broker, name):
    """Metrics and lists are asked for without a pause."""
    with Amqp(broker.amqp_port) as client:
        client.send(*(wire.queue_declare(f"{name}-{at}", nowait=True) for at in range(size(2_000, 20_000))))
        client.call(wire.queue_declare(name), 50, 11)
        for _ in range(10):
            for path in ("/metrics", "/metrics/rabbitmq/per-object", "/api/v1/queues", "/api/v1/topics"):
                assert broker.get(path)[0] == 200, path
        client.send(*(wire.queue_delete(f"{name}-{at}", nowait=True) for at in range(size(2_000, 20_000))))
        client.call(wire.queue_delete(name), 50, 41)


# The bound of each kind's longest turn, seconds of CPU: above what a turn takes and below what it would take if the work were not
# shared out. More is allowed on a slower machine.
WORK = {declares: 0.01, bindings: 0.01, exchanges: 0.01, fanout: 0.025, unacknowledged: 0.05, acknowledged: 0.05,
        transactions: 0.01, consumers: 0.01, by_key: 0.05, filters: 0.025, publishes: 0.01, retained: 0.05, inflating: 0.01,
        tiny_records: 0.05, addresses: 0.05, metadata: 0.01, topics: 0.01, offsets: 0.01, scrapes: 0.01}


def turns_by_cpu(broker):
    """How many turns there were, by the upper bound of their CPU time in seconds."""
    counts = {}
    for line in broker.get("/metrics")[1].splitlines():
        if line.startswith("inver_protocol_turn_cpu_seconds_bucket"):
            name, value = line.rsplit(" ", 1)
            bound = float(name.split('le="')[1].split('"')[0].replace("+Inf", "inf"))
            counts[bound] = counts.get(bound, 0) + float(value)
    below = 0
    for bound in sorted(counts):
        counts[bound], below = counts[bound] - below, counts[bound]
    return counts


def longest_turn(before, after):
    """The CPU time that the longest turn since exceeded."""
    longer_than = dict(zip(sorted(after), [0.0, *sorted(after)]))
    return max((longer_than[bound] for bound, count in after.items() if count > before.get(bound, 0)), default=0.0)


def slowness():
    """How much slower this machine computes than the one on which the bounds of turns were measured; at least 1."""
    taken = []
    for _ in range(3):
        began, total = time.thread_time(), 0
        for at in range(1_000_000):
            total += at * at
        taken.append(time.thread_time() - began)
    return max(1.0, min(taken) / LOOP_SECONDS)


def measure(broker, bystander, work, name):
    """What the bystander waited for before the work, and during it; the longest turn during it."""
    idle = time.monotonic()
    time.sleep(IDLE_SECONDS)
    turns, began = turns_by_cpu(broker), time.monotonic()
    work(broker, name)
    # The end of a connection is work too.
    time.sleep(max(PAUSE_SECONDS, began + WORK_SECONDS_MIN - time.monotonic()))
    ended = time.monotonic()
    return (bystander.between(idle, began, whole=True), bystander.between(began, ended),
            longest_turn(turns, turns_by_cpu(broker)))


@pytest.mark.timeout(900 if LONG else 180)
@pytest.mark.parametrize("work, turn_max", [pytest.param(*kind, id=kind[0].__name__) for kind in WORK.items()])
def test_others_are_served_beside(measured, unique, work, turn_max):
    broker, bystander, slower = measured
    for attempt in range(3):
        before, during, turn = measure(broker, bystander, work, f"{unique}-{attempt}")
        slack = slack_ms()
        slow = {kind: (before[kind], during[kind]) for kind in KINDS if during[kind] > 3 * before[kind] + slack}
        print(f"{work.__name__}: longest turn above {turn * 1000:g} ms of CPU, slowness {slower:.1f}; 99th percentiles in ms, before:",
              {k: round(v, 1) for k, v in before.items()}, "during:", {k: round(v, 1) for k, v in during.items()})
        if turn >= turn_max * slower:
            # Others may have come to the machine since.
            slower = max(slower, slowness())
        if not slow and turn < turn_max * slower:
            return
    lines = "\n".join(line for line in broker.log().splitlines() if "slow turn" in line)
    raise AssertionError(f"{work.__name__}: the longest turn took more than {turn} s of CPU, {turn_max} on a machine without "
                         f"slowness ({slower:.1f}) are allowed; "
                         f"99th percentiles in ms that are too long, before and during: {slow}\n{lines}")
