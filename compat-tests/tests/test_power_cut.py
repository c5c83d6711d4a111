"""Power cuts: the image of a file system is copied while the broker works on it, as a disk is at the instant of a cut, and the
copy is mounted. Everything that was acknowledged before the copy began is there.

Needs root, for a loop device with ext4; skipped otherwise. `INVER_TEST_CUTS` sets the number of cuts.
"""

import os
import random
import subprocess
import time

import pytest

from clients import amqp, amqp_take, kafka_create, kafka_read_all, mqtt
from harness import wait_until
from test_disk_faults import FOR_EVER, Load

CUTS = int(os.environ.get("INVER_TEST_CUTS", "4"))
SEED = int(os.environ.get("INVER_TEST_SEED", random.randrange(1 << 32)))
MIB = 1 << 20


def run(*command):
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def mounts(tmp_path):
    """Mounts images, and unmounts them in the end."""
    mounted = []

    def mount(image, place):
        place.mkdir(exist_ok=True)
        done = run("mount", "-o", "loop", image, place)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stdout.decode()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        run("umount", "--lazy", place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount ext4 on a loop device")
@pytest.mark.timeout(120 + 40 * CUTS)
def test_everything_acknowledged_survives_power_cuts(own_broker, mounts, tmp_path):
    print(f"seed {SEED}")
    instants = random.Random(SEED)
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(256 * MIB)
    if run("mkfs.ext4", "-q", "-m", "0", image).returncode != 0:
        pytest.skip("no ext4 can be made here")
    volume = mounts(image, tmp_path / "volume")
    settings = {"INVER_LOG_SEGMENT_BYTES_MAX": "4 MiB", "INVER_LOG_CHECKPOINT_INTERVAL_MS": "700"}
    broker = own_broker(environment={"INVER_DATA_DIR": str(volume / "data"), **settings})
    kafka_create(broker, "t")
    with amqp(broker) as channel:
        channel.queue_declare("q", durable=True)
    with mqtt(broker, "keeper", clean=False, expiry=FOR_EVER) as keeper:
        keeper.subscribe("s/#", 1)
    load = Load(broker)
    try:
        for cut in range(CUTS):
            before = {name: len(acked) for name, acked in load.acked.items()}
            wait_until(lambda before=before: all(len(load.acked[name]) > count + 5 for name, count in before.items()), 60,
                       "acknowledgements")
            time.sleep(instants.uniform(0, 0.7))
            promised = {name: list(acked) for name, acked in load.acked.items()}
            copy = tmp_path / f"copy-{cut}"
            # As the disk is at one instant: the process and the file system stand still meanwhile, with what is cached unwritten.
            broker.process.send_signal(19)
            try:
                assert run("cp", "--sparse=always", "--reflink=never", image, copy).returncode == 0
            finally:
                broker.process.send_signal(18)
            after = own_broker(environment={"INVER_DATA_DIR": str(mounts(copy, tmp_path / f"volume-{cut}") / "data"), **settings})
            found = read(after)
            for name, acked in promised.items():
                lost = set(acked) - set(found[name])
                assert not lost, f"cut {cut}: {name}: {len(lost)} of {len(acked)} are lost"
                assert [body for body in found[name] if body in set(acked)] == acked, f"cut {cut}: {name}: another order"
            after.end()
            assert run("umount", tmp_path / f"volume-{cut}").returncode == 0
            copy.unlink()
            print(f"cut {cut}: {({name: len(acked) for name, acked in promised.items()})} are there")
    finally:
        load.end()


def read(broker):
    """What is stored, by protocol."""
    with amqp(broker) as channel:
        count = channel.queue_declare("q", passive=True).method.message_count
        queue = [body for _, _, body in amqp_take(channel, "q", count, ack=False)] if count else []
    with mqtt(broker, "keeper", clean=False, expiry=FOR_EVER) as keeper:
        assert keeper.session_present
        keeper.publish("s/end", b"end", 1)
        inbox = []
        while not inbox or inbox[-1] != b"end":
            inbox.append(keeper.get().payload)
    return {"amqp": queue, "kafka": [record.value() for record in kafka_read_all(broker, "t")], "mqtt": inbox[:-1]}
