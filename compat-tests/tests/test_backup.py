"""Backup of a running broker and restore; what a copy of the files does."""

import itertools
import json
import shutil
import subprocess
import tarfile
import threading
import time

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Producer

from clients import amqp, kafka_read, kafka_read_all, kafka_send
from harness import binary, run, wait_until

SMALL_SEGMENTS = {"INVER_LOG_SEGMENT_BYTES_MAX": str(1 << 20)}
PAYLOAD_BYTES = 4_000


def inver(*arguments, check=True, **options):
    done = run([binary(), *arguments], check=check, timeout=120, **options)
    assert b"panicked" not in done.stderr, done.stderr
    return done


def backup(broker, destination):
    return inver("backup", destination, "--url", f"http://127.0.0.1:{broker.http_port}")


def fill(broker, count):
    producer = Producer({"bootstrap.servers": broker.kafka})
    for number in range(count):
        producer.produce("topic", value(number))
    assert producer.flush(30) == 0


def value(number):
    return (b"%d " % number).ljust(PAYLOAD_BYTES, b".")


class Load:
    """Publishers of three protocols, each with the numbers of its acknowledged messages."""

    def __init__(self, broker):
        self.broker = broker
        self.acknowledged = {"kafka": set(), "amqp": set(), "mqtt": set()}
        self.failures = []
        with amqp(broker) as channel:
            for queue in ("amqp", "mqtt"):
                channel.queue_declare(f"from-{queue}", durable=True)
            channel.queue_bind("from-mqtt", "amq.topic", "load.mqtt")
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.guard, args=(work,)) for work in (self.kafka, self.amqp, self.mqtt)]

    def guard(self, work):
        try:
            work()
        except Exception as error:
            self.failures.append(error)

    def kafka(self):
        producer = Producer({"bootstrap.servers": self.broker.kafka, "linger.ms": 1})
        acknowledged = self.acknowledged["kafka"]

        def delivered(error, message):
            if error is None:
                acknowledged.add(int(message.key()))

        for number in itertools.count():
            if self.stopping.is_set():
                break
            producer.produce("from-kafka", value(number), key=b"%d" % number, on_delivery=delivered)
            producer.poll(0.002)
        producer.flush(20)

    def amqp(self):
        with amqp(self.broker) as channel:
            for number in itertools.count():
                if self.stopping.is_set():
                    break
                channel.basic_publish("", "from-amqp", value(number))
                self.acknowledged["amqp"].add(number)

    def mqtt(self):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.broker.mqtt_port)
        client.loop_start()
        for number in itertools.count():
            if self.stopping.is_set():
                break
            client.publish("load/mqtt", value(number), qos=1).wait_for_publish(20)
            self.acknowledged["mqtt"].add(number)
        client.disconnect()
        client.loop_stop()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.failures, self.failures

    def reach(self, count):
        wait_until(lambda: self.failures or all(len(found) >= count for found in self.acknowledged.values()), 60)

    def so_far(self):
        return {protocol: set(found) for protocol, found in self.acknowledged.items()}


def stored(broker):
    """The numbers of all messages that the broker has."""
    found = {"kafka": {int(record.key()) for record in kafka_read_all(broker, "from-kafka")}}
    with amqp(broker) as channel:
        for queue in ("amqp", "mqtt"):
            count = channel.queue_declare(f"from-{queue}", passive=True).method.message_count
            bodies = [channel.basic_get(f"from-{queue}", auto_ack=True)[2] for _ in range(count)]
            found[queue] = {int(body.split(b" ")[0]) for body in bodies}
    return found


def has_all(broker, expected):
    found = stored(broker)
    for protocol, numbers in expected.items():
        assert not numbers - found[protocol], protocol


def test_a_backup_under_load_has_everything_acknowledged_before_it(own_broker, tmp_path):
    broker = own_broker(environment=SMALL_SEGMENTS)
    with Load(broker) as load:
        load.reach(150)
        before_first = load.so_far()
        first = backup(broker, tmp_path / "kept").stdout.decode()
        shutil.copytree(tmp_path / "kept", tmp_path / "first")
        load.reach(300)
        before_second = load.so_far()
        second = backup(broker, tmp_path / "kept").stdout.decode()
        before_stream = load.so_far()
        archive = backup(broker, "-").stdout
    total, copied = [int(second.split(" bytes")[at].rsplit(" ", 1)[1]) for at in (0, 1)]
    assert copied < total - (1 << 20), f"sealed segments are not copied again: {first}{second}"
    for name, source, before, stdin in (
        ("a", tmp_path / "first", before_first, None),
        ("b", tmp_path / "kept", before_second, None),
        ("c", "-", before_stream, archive),
    ):
        restored = own_broker(start=False, environment=SMALL_SEGMENTS)
        text = inver("restore", source, restored.data, stdin=stdin).stdout.decode()
        assert text.startswith("restored to position "), text
        assert all(path.stat().st_mode & 0o077 == 0 for path in restored.data.iterdir()), name
        restored.start()
        has_all(restored, before)
        assert restored.stop() == 0
        assert inver("log", "verify", restored.data).returncode == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "kept").rglob("*"))


def test_a_stopped_broker_is_backed_up_from_its_folder(own_broker, tmp_path):
    broker = own_broker()
    kafka_send(broker, "topic", b"kept")
    done = inver("backup", tmp_path / "kept", "--data-dir", broker.data, check=False)
    assert done.returncode == 1 and b"is in use by another process" in done.stderr
    assert broker.stop() == 0
    inver("backup", tmp_path / "kept", "--data-dir", broker.data)
    restored = own_broker(start=False)
    inver("restore", tmp_path / "kept", restored.data)
    restored.start()
    assert kafka_read(restored, "topic", 1)[0].value() == b"kept"


@pytest.fixture
def kept(own_broker, tmp_path):
    broker = own_broker(environment=SMALL_SEGMENTS)
    fill(broker, 600)
    backup(broker, tmp_path / "kept")
    return tmp_path / "kept"


def refused(source, data, message, stdin=None):
    done = inver("restore", source, data, check=False, stdin=stdin)
    assert done.returncode == 1 and message in done.stderr.decode(), done.stderr
    assert not any(data.iterdir()), "nothing was put in place"


def test_a_damaged_backup_is_not_restored(kept, tmp_path):
    segment = sorted((kept / "segments").iterdir())[0]
    original = segment.read_bytes()
    segment.write_bytes(original[:5000] + b"?" + original[5001:])
    refused(kept, tmp_path / "data", "is not what the manifest says")
    segment.unlink()
    refused(kept, tmp_path / "data", "No such file")
    segment.write_bytes(original)
    manifest = json.loads((kept / "manifest.json").read_text())
    manifest["position"] += 8
    (kept / "manifest.json").write_text(json.dumps(manifest))
    refused(kept, tmp_path / "data", "the manifest says")
    (kept / "manifest.json").write_text("{")
    refused(kept, tmp_path / "data", "manifest.json")


def test_a_stream_that_is_cut_is_not_restored(own_broker, tmp_path):
    broker = own_broker()
    kafka_send(broker, "topic", b"x")
    archive = backup(broker, "-").stdout
    (tmp_path / "whole.tar").write_bytes(archive)
    assert tarfile.open(tmp_path / "whole.tar").getnames()[-1] == "manifest.json"
    refused("-", tmp_path / "data", "ends", stdin=archive[:len(archive) // 2])
    (tmp_path / "data" / "mine").write_text("mine")
    done = inver("restore", tmp_path / "whole.tar", tmp_path / "data", check=False)
    assert done.returncode == 1 and b"is not empty (mine)" in done.stderr
    assert inver("restore", tmp_path / "whole.tar", tmp_path / "other").returncode == 0


def test_one_backup_at_a_time(own_broker, tmp_path):
    broker = own_broker()
    fill(broker, 10_000)
    url = f"http://127.0.0.1:{broker.http_port}"
    # Nobody reads its output.
    slow = subprocess.Popen([binary(), "backup", "-", "--url", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: "backup begun" in broker.log(), 20)
        done = inver("backup", tmp_path / "kept", "--url", url, check=False)
        assert done.returncode == 1 and b"another backup is running" in done.stderr, done.stderr
    finally:
        slow.kill()
        slow.communicate()
    wait_until(lambda: "backup failed" in broker.log(), 20)
    backup(broker, tmp_path / "kept")


def test_files_copied_from_a_running_broker(own_broker):
    broker = own_broker(environment=SMALL_SEGMENTS)
    opened = 0
    with Load(broker) as load:
        for attempt in range(4):
            load.reach(150 * (attempt + 1))
            before = load.so_far()
            copy = own_broker(start=False, environment=SMALL_SEGMENTS)
            copy.data.mkdir()
            # In the order of names, as rsync and cp do it.
            for name in sorted(path.name for path in broker.data.iterdir()):
                try:
                    shutil.copy(broker.data / name, copy.data / name)
                except FileNotFoundError:
                    continue
                time.sleep(0.02)
            copy.spawn()
            ready = wait_until(lambda: copy.process.poll() is not None or copy.is_ready(), 30)
            if ready and copy.process.poll() is None:
                opened += 1
                has_all(copy, before)
                assert copy.stop() == 0
            else:
                copy.process = None
                assert "`inver backup`" in copy.log() or "`inver restore`" in copy.log(), copy.log()
    print(f"{opened} of 4 copies opened")
