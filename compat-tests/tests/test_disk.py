"""Small and full disks: publishers are held back or told, consumers go on, and what they remove makes room.

The volumes are ext4 on a loop device and tmpfs, mounted by root. Without root a tmpfs is mounted in a user namespace, in
which the broker runs; where the system allows neither, the tests are skipped with the reason.
"""

import contextlib
import os
import pathlib
import subprocess
import threading

import confluent_kafka
import pika
import pytest

from clients import QUIET, WAIT_SECONDS, Mqtt, amqp, amqp_connection, amqp_take, kafka_consumer, kafka_create, kafka_take, mqtt
from harness import wait_until

MIB = 1 << 20
BODY = os.urandom(64 << 10)


class Volume:
    """A file system of its own for a data folder."""

    def __init__(self, kind, folder, mib):
        self.kind, self.mib = kind, mib
        self.place = folder / "volume"
        self.place.mkdir()
        self.prefix, self.keeper, self.is_mounted = [], None, False
        if os.geteuid() == 0:
            self.mount(folder)
        elif kind == "tmpfs":
            self.mount_in_namespace()
        else:
            pytest.skip("only root can mount ext4 on a loop device")

    def mount(self, folder):
        if self.kind == "ext4":
            image = folder / "image"
            with open(image, "wb") as file:
                file.truncate(self.mib * MIB)
            self.run("mkfs.ext4", "-q", "-m", "0", image)
            self.run("mount", "-o", "loop", image, self.place)
        else:
            self.run("mount", "-t", "tmpfs", "-o", f"size={self.mib}m", "none", self.place)
        self.is_mounted, self.seen = True, self.place

    def mount_in_namespace(self):
        script = f'mount -t tmpfs -o size={self.mib}m none "{self.place}" && echo mounted && exec cat'
        self.keeper = subprocess.Popen(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.keeper.stdout.readline() != b"mounted\n":
            pytest.skip(f"no file system can be mounted here: {self.keeper.stderr.read().decode()}")
        pid = self.keeper.pid
        self.prefix = ["nsenter", "--preserve-credentials", "--user", "--mount", f"--target={pid}"]
        self.seen = pathlib.Path(f"/proc/{pid}/root{self.place}")

    def run(self, *command):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stdout.decode()}")

    def free(self):
        space = os.statvfs(self.seen)
        return space.f_bavail * space.f_frsize

    def used(self):
        space = os.statvfs(self.seen)
        return (space.f_blocks - space.f_bfree) * space.f_frsize

    def fill(self, leave=0):
        """Takes all space but so much, as another user of the disk would."""
        with open(self.seen / "other", "ab") as file, contextlib.suppress(OSError):
            while self.free() > leave:
                file.write(bytes(min(MIB, self.free() - leave)))
                file.flush()

    def give_back(self):
        (self.seen / "other").unlink()

    def end(self):
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.place)], check=False)
        if self.keeper:
            self.keeper.stdin.close()
            self.keeper.wait()


@pytest.fixture
def volume(tmp_path):
    made = []

    def make(kind, mib):
        made.append(Volume(kind, tmp_path, mib))
        return made[-1]

    yield make
    for volume in made:
        volume.end()


@pytest.fixture
def broker_on(own_broker):
    def make(volume, **environment):
        settings = {"INVER_DATA_DIR": str(volume.place / "data"), **environment}
        return own_broker(environment=settings, prefix=volume.prefix)
    return make


def is_low(broker):
    status, text = broker.get("/health/alarms")
    assert status in (200, 503)
    return "disk_low" in text


def fill_queue(broker, name, seconds=60):
    """Publishes until the broker blocks; the bodies that were confirmed, and what the client was told."""
    told, confirmed = [], []
    # Longer than the test: the library ends a connection that is blocked for this time.
    connection = amqp_connection(broker, blocked_connection_timeout=600)
    # That of the connection itself calls back only between two publishes.
    connection._impl.add_on_connection_blocked_callback(lambda _c, frame: told.append(frame.method.reason))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(name, durable=True)

    def publish():
        with contextlib.suppress(pika.exceptions.AMQPError):
            for number in range(100_000):
                body = str(number).encode().ljust(20) + BODY
                channel.basic_publish("", name, body, pika.BasicProperties(delivery_mode=2))
                confirmed.append(body)

    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    wait_until(lambda: told, seconds, "connection.blocked")
    return confirmed, told, publisher


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_an_empty_broker_fits_a_small_volume(volume, broker_on, kind):
    small = volume(kind, 64)
    before = small.used()
    broker = broker_on(small)
    with amqp(broker) as channel:
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"x", pika.BasicProperties(delivery_mode=2))
    wait_until(lambda: broker.metric("inver_log_disk_bytes"))
    assert small.used() - before <= 20 * MIB
    assert not is_low(broker)
    broker.restart()
    with amqp(broker) as channel:
        assert [body for _, _, body in amqp_take(channel, "q", 1)] == [b"x"]


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_disk_holds_publishers_back_until_consumers_made_room(volume, broker_on, kind):
    disk = volume(kind, 64)
    broker = broker_on(disk)
    kafka_create(broker, "t")
    delivered = []
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.kafka, "linger.ms": 0, **QUIET})
    produce = lambda value: producer.produce("t", value, on_delivery=lambda error, _: delivered.append((value, error)))
    produce(b"before")
    assert producer.flush(WAIT_SECONDS) == 0 and delivered == [(b"before", None)]
    with mqtt(broker, "keeper", expiry=3600) as keeper:
        keeper.subscribe("held/#")
    confirmed, told, _ = fill_queue(broker, "q")
    assert told == ["low on disk"]
    assert len(confirmed) * len(BODY) >= 4 * MIB
    assert is_low(broker)
    assert broker.metric("inver_publishers_held_back") == 1

    # Each protocol tells its publishers in its own way.
    with mqtt(broker, version=5) as client:
        reasons = []
        client.client.on_publish = lambda _c, _d, _mid, reason, _p: reasons.append(reason.value)
        client.publish("held/5", b"refused", qos=1)
        client.publish("held/5", b"refused", qos=2)
        wait_until(lambda: len(reasons) == 2)
        # The library answers the PUBREC with PUBREL all the same, and reports the PUBCOMP to it: not found.
        assert reasons == [0x97, 0x92]
    old = Mqtt(broker, "old", version=4)
    waiting = old.client.publish("held/4", b"waits", qos=1)
    produce(b"waits")
    producer.poll(1)
    assert not waiting.is_published() and len(delivered) == 1

    # Nothing of it is lost or changed by a kill and a start on the full disk.
    broker.kill()
    disk.fill()
    assert disk.free() == 0
    broker.start()
    assert is_low(broker)
    # Consumers go on, and what they remove makes room.
    old.drop()
    with kafka_consumer(broker, "t", group="g") as consumer:
        [message] = kafka_take(consumer, 1)
        assert message.value() == b"before"
        consumer.commit(message, asynchronous=False)
    with amqp(broker) as channel:
        count = channel.queue_declare("q", passive=True).method.message_count
        assert count >= len(confirmed)
        bodies = [body for _, _, body in amqp_take(channel, "q", count)]
        assert set(confirmed) <= set(bodies)
    disk.give_back()
    wait_until(lambda: not is_low(broker), 30, "the end of the alarm")
    # Publishers go on where they were.
    producer.poll(0)
    wait_until(lambda: producer.poll(0.1) or len(delivered) == 2, 60)
    assert delivered[1:] == [(b"waits", None)]
    with amqp(broker) as channel:
        channel.basic_publish("", "q", b"after", pika.BasicProperties(delivery_mode=2))
        assert [body for _, _, body in amqp_take(channel, "q", 1)] == [b"after"]
    with mqtt(broker, version=4) as client:
        client.publish("held/4", b"after", qos=1)
    with mqtt(broker, "keeper", clean=False, expiry=0) as keeper:
        got = keeper.take(1)
        assert b"refused" not in got and got[-1] in (b"after", b"waits")


def test_draining_alone_frees_the_disk_and_opens_the_gate(volume, broker_on):
    disk = volume("ext4" if os.geteuid() == 0 else "tmpfs", 64)
    broker = broker_on(disk)
    confirmed, _, publisher = fill_queue(broker, "q")
    held = len(confirmed)
    with amqp(broker) as channel:
        amqp_take(channel, "q", held)
    # The publisher that was blocked goes on by itself, and fills the disk again.
    wait_until(lambda: len(confirmed) > held + 10, 60, "the end of the block")
    assert publisher.is_alive()
    wait_until(lambda: is_low(broker), 60, "the second shortage")
    count = len(confirmed)
    with amqp(broker) as channel:
        bodies = [body for _, _, body in amqp_take(channel, "q", count - held)]
    assert set(confirmed[held:count]) <= set(bodies) | set(confirmed[:held])


# A disk that hangs: `fdatasync` returns only once a file is gone. One with a bad place: it fails for the files of a name.
FAULTS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    const char *hang = getenv("TEST_HANG_WHILE"), *fail = getenv("TEST_FAIL_WHILE");
    while (hang && access(hang, F_OK) == 0) usleep(10000);
    if (fail && access(fail, F_OK) == 0) {
        char link[64], name[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        ssize_t length = readlink(link, name, sizeof name - 1);
        name[length < 0 ? 0 : length] = 0;
        if (strstr(name, getenv("TEST_FAIL_NAME"))) {
            errno = EIO;
            return -1;
        }
    }
    return real(file);
}
"""


@pytest.fixture
def faults(tmp_path):
    """A library that makes syncs hang or fail; the environment that loads it."""
    source, library = tmp_path / "faults.c", tmp_path / "faults.so"
    source.write_text(FAULTS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def test_a_second_checkpoint_file_that_cannot_be_written_is_an_alarm(own_broker, faults, tmp_path):
    fail = tmp_path / "fail"
    broker = own_broker(environment={**faults, "TEST_FAIL_WHILE": str(fail), "TEST_FAIL_NAME": "checkpoint-copy.redb",
                                     "INVER_LOG_CHECKPOINT_INTERVAL_MS": "100"})
    with mqtt(broker) as client:
        client.publish("a", b"1", qos=1)
        wait_until(lambda: broker.metric("inver_log_checkpoint_files") == 2, 20, "both files")
        assert broker.get("/health/alarms")[0] == 200
        fail.touch()
        client.publish("a", b"2", qos=1)
        wait_until(lambda: "checkpoint_copy_failed: the checkpoint is in one file only" in broker.get("/health/alarms")[1],
                   20, "the alarm")
        assert broker.metric("inver_alarm", 'alarm="checkpoint_copy_failed"') == 1
        wait_until(lambda: broker.metric("inver_log_checkpoint_files") == 1, 20, "one file")
        # The log goes on, and checkpoints are taken into the first file.
        client.publish("a", b"3", qos=1)
        fail.unlink()
        wait_until(lambda: broker.get("/health/alarms")[0] == 200, 60, "the end of the alarm")
        wait_until(lambda: broker.metric("inver_log_checkpoint_files") == 2, 20, "both files")


def test_a_disk_that_hangs_is_an_alarm_and_ends_readiness_until_it_goes_on(own_broker, faults, tmp_path):
    hang = tmp_path / "hang"
    broker = own_broker(environment={**faults, "TEST_HANG_WHILE": str(hang),
                                     "INVER_LOG_COMMIT_WAIT_MAX_MS": "3000"})
    with mqtt(broker) as client:
        client.publish("a", b"before", qos=1)
        hang.touch()
        waiting = client.client.publish("a", b"waits", qos=1)
        wait_until(lambda: "log_stalled" in broker.get("/health/alarms")[1], 20, "the alarm")
        assert "oldest uncommitted group is" in broker.get("/health/alarms")[1]
        wait_until(lambda: broker.get("/health/ready")[0] == 503, 20, "the end of readiness")
        assert broker.get("/health/live")[0] == 200 and not waiting.is_published()
        assert broker.metric("inver_log_oldest_wait_seconds") >= 3
        hang.unlink()
        waiting.wait_for_publish(WAIT_SECONDS)
        assert waiting.is_published()
        wait_until(lambda: broker.get("/health/alarms")[0] == 200, 20, "the end of the alarm")
        assert broker.get("/health/ready")[0] == 200
