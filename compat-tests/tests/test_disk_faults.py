"""Faults of the disk under a running broker, by a library that is preloaded: a failed write or sync ends the broker with a
clear error and without a false acknowledgement, a slow sync only makes clients wait, and after a restart everything that
was acknowledged is there.
"""

import contextlib
import subprocess
import threading
import time

import confluent_kafka
import pika
import pytest

from clients import QUIET, WAIT_SECONDS, Mqtt, amqp, amqp_take, kafka_create, kafka_read_all, mqtt
from harness import ROOT, wait_until

FOR_EVER = 0xFFFFFFFF
BODY_BYTES = 2000


class Disk:
    """The library, and the file that says how the disk fails."""

    def __init__(self, folder):
        self.fault, self.library, self.data = folder / "fault", folder / "faults.so", folder / "broker-0" / "data"
        source = ROOT / "compat-tests" / "faults.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self.library, source, "-ldl"], check=True)

    def environment(self):
        return {"LD_PRELOAD": str(self.library), "TEST_FAULT": str(self.fault), "TEST_FAULT_FOLDER": str(self.data),
                "INVER_LOG_CHECKPOINT_INTERVAL_MS": "500"}

    def fail(self, how):
        # Put in place whole: the library may read it at any moment.
        new = self.fault.with_suffix(".new")
        new.write_text(how)
        new.rename(self.fault)

    def mend(self):
        self.fault.unlink(missing_ok=True)


class Load:
    """Publishers of all protocols, and what was acknowledged to them."""

    def __init__(self, broker):
        self.broker, self.ending = broker, threading.Event()
        self.acked = {"amqp": [], "kafka": [], "mqtt": []}
        self.threads = [threading.Thread(target=self.guard, args=(job,)) for job in (self.amqp, self.kafka, self.mqtt)]
        for thread in self.threads:
            thread.start()

    def guard(self, job):
        # The broker may end: any exception of a client library is expected then.
        with contextlib.suppress(Exception):
            job()

    def body(self, n):
        return str(n).encode().ljust(BODY_BYTES, b".")

    def amqp(self):
        with amqp(self.broker) as channel:
            for n in range(1 << 30):
                if self.ending.is_set():
                    return
                channel.basic_publish("", "q", self.body(n), pika.BasicProperties(delivery_mode=2), mandatory=True)
                self.acked["amqp"].append(self.body(n))

    def kafka(self):
        producer = confluent_kafka.Producer({"bootstrap.servers": self.broker.kafka, "acks": "all", "linger.ms": 0,
                                             "message.timeout.ms": 2000, "retries": 0, **QUIET})
        n = 0
        while not self.ending.is_set():
            body = self.body(n)
            n += 1
            producer.produce("t", body, on_delivery=lambda error, m: error or self.acked["kafka"].append(m.value()))
            producer.flush(2)

    def mqtt(self):
        client, reasons = Mqtt(self.broker), {}
        client.client.on_publish = lambda _client, _data, mid, reason, _properties: reasons.update({mid: reason})
        for n in range(1 << 30):
            if self.ending.is_set():
                return
            info = client.client.publish("s/x", self.body(n), 1)
            info.wait_for_publish(2)
            # A PUBACK that says why the message was not taken acknowledges nothing.
            if info.is_published() and not reasons[info.mid].is_failure:
                self.acked["mqtt"].append(self.body(n))
            elif not client.client.is_connected():
                return

    def is_under_way(self, more=0):
        return all(len(acked) > more for acked in self.acked.values())

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def faulty(own_broker, tmp_path):
    disk = Disk(tmp_path)
    broker = own_broker(environment=disk.environment())
    kafka_create(broker, "t")
    with amqp(broker) as channel:
        channel.queue_declare("q", durable=True)
    keeper = Mqtt(broker, "keeper", clean=False, expiry=FOR_EVER)
    keeper.subscribe("s/#", 1)
    keeper.close()
    yield disk, broker
    disk.mend()


def nothing_is_lost(broker, load):
    """Everything that was acknowledged is there once, in its order."""
    with amqp(broker) as channel:
        count = channel.queue_declare("q", passive=True).method.message_count
        queue = [body for _, _, body in amqp_take(channel, "q", count)] if count else []
    records = [record.value() for record in kafka_read_all(broker, "t")]
    with mqtt(broker, "keeper", clean=False, expiry=FOR_EVER) as keeper:
        assert keeper.session_present
        keeper.publish("s/end", b"end", 1)
        inbox = []
        while not inbox or inbox[-1] != b"end":
            inbox.append(keeper.get().payload)
    for name, found in (("amqp", queue), ("kafka", records), ("mqtt", inbox[:-1])):
        acked = load.acked[name]
        assert len(found) == len(set(found)), f"{name}: messages are there twice"
        lost = set(acked) - set(found)
        assert not lost, f"{name}: {len(lost)} of {len(acked)} are lost"
        assert [body for body in found if body in set(acked)] == acked, f"{name}: another order"


@pytest.mark.parametrize("how", ["eio-sync", "eio-write", "erofs"])
def test_a_failed_disk_ends_the_broker_and_nothing_acknowledged_is_lost(faulty, how):
    disk, broker = faulty
    load = Load(broker)
    wait_until(lambda: load.is_under_way(20), 60, "acknowledgements")
    disk.fail(how)
    assert broker.process.wait(60) not in (0, -6, -11), "it ends with an error"
    broker.process = None
    load.end()
    said = broker.log()
    assert "panicked" not in said
    assert {"eio-sync": "os error 5", "eio-write": "os error 5", "erofs": "os error 30"}[how] in said, said[-2000:]
    # Nothing starts on it, and nothing is changed.
    if how == "erofs":
        broker.spawn()
        assert broker.process.wait(60) != 0
        broker.process = None
    disk.mend()
    broker.start()
    nothing_is_lost(broker, load)


def test_a_disk_filled_by_others_loses_nothing(faulty):
    disk, broker = faulty
    load = Load(broker)
    wait_until(lambda: load.is_under_way(20), 60, "acknowledgements")
    disk.fail("enospc")
    assert broker.process.wait(60) not in (0, -6, -11), "a write that fails ends the log"
    broker.process = None
    load.end()
    assert "os error 28" in broker.log(), broker.log()[-2000:]
    disk.mend()
    broker.start()
    nothing_is_lost(broker, load)


def test_slow_syncs_make_clients_wait_and_nobody_else(faulty):
    disk, broker = faulty
    disk.fail("slow 300")
    load = Load(broker)
    wait_until(lambda: load.is_under_way(2), 60, "acknowledgements")
    with mqtt(broker) as client:
        client.subscribe("live/#", 0)
        # Who waits for no write is served meanwhile.
        disk.fail("hang")
        assert broker.get("/health/live")[0] == 200
        client.publish("live/x", b"now", 0)
        assert client.get().payload == b"now"
        disk.fail("slow 300")
    disk.mend()
    before = {name: len(acked) for name, acked in load.acked.items()}
    wait_until(lambda: all(len(load.acked[name]) > count + 5 for name, count in before.items()), 60, "a fast disk")
    load.end()
    broker.restart()
    nothing_is_lost(broker, load)


def test_a_disk_that_hangs_confirms_nothing(faulty):
    disk, broker = faulty
    load = Load(broker)
    wait_until(load.is_under_way, 60, "acknowledgements")
    disk.fail("hang")
    # The sync that hangs may have been preceded by one that did not.
    wait_until(lambda: (broker.metric("inver_log_oldest_wait_seconds") or 0) > 1, 60, "a group that waits")
    held = {name: list(acked) for name, acked in load.acked.items()}
    # Killed meanwhile: what was not confirmed promises nothing, the rest is there.
    broker.kill()
    load.end()
    assert held == load.acked
    disk.mend()
    broker.start()
    nothing_is_lost(broker, load)
