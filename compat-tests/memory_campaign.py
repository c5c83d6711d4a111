"""The long form of the tests of memory: a broker in a control group, mixed load, and each attack in turn.

`python memory_campaign.py [--mebibytes 64,128,256] [--seconds 300] [--attacks NAME,…]`, as root, prints a line for each
client of each run; see docs/testing/memory.md.
"""

import argparse
import contextlib
import sys
import tempfile
import threading
import time

from clients import amqp, kafka_create, kafka_producer, mqtt
from harness import Broker, wait_until
from memory_attacks import (
    ATTACKS, MIB, MemoryGroup, amqp_wire, held_bytes, method, mqtt_wire, short, subscribe,
)
from witness import NAMES, Witness

RECORD = bytes(10_000)
IDLE_SECONDS = 5
# For the memory of clients that have gone; members of groups stay for longer.
GIVEN_BACK_SECONDS = 10
SLOW_READ_BYTES = 65536


class Load:
    """Publishers of three protocols with consumers that take 640 KB a second each."""

    def __init__(self, broker):
        self.broker, self.ends = broker, threading.Event()
        kafka_create(broker, "load-topic")
        with amqp(broker) as channel:
            channel.queue_declare("load-queue", durable=True, arguments={"x-max-length": 2000})
        parts = [self.amqp, self.mqtt, self.kafka, self.slow_amqp, self.slow_mqtt]
        self.threads = [threading.Thread(target=self.again, args=[part]) for part in parts]
        for thread in self.threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()

    def again(self, part):
        while not self.ends.is_set():
            with contextlib.suppress(Exception):
                part()
            time.sleep(0.1)

    def paced(self):
        while not self.ends.is_set():
            yield
            time.sleep(0.002)

    def amqp(self):
        with amqp(self.broker, confirm=False) as channel:
            for _ in self.paced():
                channel.basic_publish("", "load-queue", RECORD)

    def mqtt(self):
        with mqtt(self.broker, "load") as client:
            for _ in self.paced():
                client.publish("load/a", RECORD)

    def kafka(self):
        producer = kafka_producer(self.broker)
        for _ in self.paced():
            producer.produce("load-topic", RECORD)
            producer.poll(0)

    def slow(self, wire):
        for _ in self.paced():
            if not wire.read_some(SLOW_READ_BYTES):
                break
            time.sleep(0.1)
        wire.close()

    def slow_amqp(self):
        wire = amqp_wire(self.broker, receive_bytes=SLOW_READ_BYTES)
        consume = b"\0\0" + short(b"load-queue") + short(b"") + b"\x02\0\0\0\0"
        wire.send(method(1, 20, 10, b"\0") + method(1, 60, 20, consume))
        self.slow(wire)

    def slow_mqtt(self):
        wire = mqtt_wire(self.broker, "load-slow", receive_bytes=SLOW_READ_BYTES)
        wire.send(subscribe("load/#", 0))
        self.slow(wire)


class Resident:
    """The greatest resident memory of a broker."""

    def __init__(self, broker):
        self.broker, self.most, self.ends = broker, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()

    def watch(self):
        while not self.ends.wait(0.1):
            with contextlib.suppress(OSError, StopIteration, AttributeError):
                self.most = max(self.most, self.broker.rss_bytes())


def wait_given_back(broker):
    """Waits until nothing is held for clients, or until it has had its time; returns how long that took."""
    start = time.monotonic()
    with contextlib.suppress(AssertionError):
        wait_until(lambda: held_bytes(broker) == 0, GIVEN_BACK_SECONDS)
    return time.monotonic() - start


def attack(name, broker, seconds, has_load):
    """One attack beside the witness. Returns what the witness saw of the idle broker and of the attack, and a line."""
    at_start = broker.rss_bytes()
    with Witness(broker, IDLE_SECONDS) as witness:
        idle = witness.report()
    kafka_create(broker, "empty")
    kafka_create(broker, "many", 200)
    with contextlib.ExitStack() as open_until_end:
        if has_load:
            open_until_end.enter_context(Load(broker))
        resident = open_until_end.enter_context(Resident(broker))
        witness = open_until_end.enter_context(Witness(broker, seconds))
        witness.wait_begun()
        if name in ATTACKS:
            ATTACKS[name](broker, time.monotonic() + seconds - 3)
        seen = witness.report(seconds + 300)
    took = wait_given_back(broker)
    line = (f"resident {at_start // MIB} → {resident.most // MIB} → {broker.rss_bytes() // MIB} MiB, held "
            f"{held_bytes(broker) // MIB} MiB {took:.1f} s after")
    return idle, seen, line


def run(name, mebibytes, seconds, has_load):
    """One attack in a control group; prints what the witness saw. False if it found a fault."""
    group = MemoryGroup(mebibytes * MIB)
    with tempfile.TemporaryDirectory(prefix="memory-campaign-") as folder:
        broker = Broker(folder, prefix=group.prefix)
        try:
            broker.start()
            idle, seen, line = attack(name, broker, seconds, has_load)
            alive = broker.process.poll() is None
        except (AssertionError, OSError) as error:
            print(f"{mebibytes} MiB {name}: the broker failed: {str(error)[:300]}\n  kills {group.kills()}", flush=True)
            return False
        finally:
            broker.end()
            kills = group.kills()
            group.remove()
    print(f"{mebibytes} MiB {name}: {line}, alive {alive}, kills {kills}", flush=True)
    for client in NAMES:
        one, before = seen[client], idle[client]
        print(f"  {client:8} acts {one['acts']:6} p50 {one['p50']:7} p99 {one['p99']:7} (idle {before['p99']}) "
              f"max {one['max']:8} errors {one['errors']} lost {one.get('lost', '-')} {one['last'] or ''}", flush=True)
    return alive and kills == 0 and all(one.get("lost", 0) == 0 for one in seen.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", default="64,128,256", help="limits of the control group")
    parser.add_argument("--seconds", type=float, default=300, help="for each run")
    parser.add_argument("--attacks", default=",".join(["none", *ATTACKS]), help="names; none: the mixed load alone")
    parser.add_argument("--no-load", action="store_true", help="without the mixed load")
    options = parser.parse_args()
    good = True
    for mebibytes in map(int, options.mebibytes.split(",")):
        for name in options.attacks.split(","):
            good &= run(name, mebibytes, options.seconds, not options.no_load)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
