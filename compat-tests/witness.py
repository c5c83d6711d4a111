"""Clients of three protocols that note how long the broker takes, and that nothing acknowledged is lost.

`python witness.py AMQP MQTT KAFKA SECONDS` runs them in a process of their own and prints JSON: for each client the number
of acts, the quantiles of their times in milliseconds, errors, and how many acknowledged messages are missing at the end.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import types

import pika

from clients import amqp, amqp_take, kafka_create, kafka_producer, kafka_read_all, kafka_send, mqtt
from harness import wait_until

PAUSE = 0.005
# Unique for each process.
QUEUE, TOPIC, SESSION = (f"witness-{kind}-{os.getpid()}" for kind in ("queue", "topic", "session"))
NAMES = ("amqp", "mqtt", "kafka", "connect", "large")
LARGE = bytes(1 << 20)
# The line that says that every client has acted once.
BEGUN = "begun"


class Acts:
    """One client: acts one after the other until a deadline, again with a new connection after an error."""

    def __init__(self, name, until, pause=PAUSE):
        self.name, self.until, self.pause = name, until, pause
        self.times, self.errors, self.last, self.acked = [], 0, None, []
        self.number = 0

    def run(self, client):
        while time.monotonic() < self.until:
            start = None
            try:
                with client() as act:
                    while time.monotonic() < self.until:
                        self.number += 1
                        start = time.monotonic()
                        act(self.number)
                        self.times.append(time.monotonic() - start)
                        self.acked.append(self.number)
                        time.sleep(self.pause)
            except Exception as error:
                if start is not None:
                    self.times.append(time.monotonic() - start)
                self.errors += 1
                self.last = repr(error)[:200]
                time.sleep(0.1)

    def report(self):
        times = sorted(self.times) or [0]
        of = lambda part: round(times[min(len(times) - 1, int(len(times) * part))] * 1000, 2)
        return {"acts": len(self.times), "p50": of(0.5), "p99": of(0.99), "max": of(1), "errors": self.errors,
                "last": self.last}


def run(broker, seconds):
    until = time.monotonic() + seconds
    kafka_create(broker, TOPIC)
    with amqp(broker) as channel:
        channel.queue_declare(QUEUE, durable=True)
    with mqtt(broker, SESSION, clean=False, expiry=3600) as keeper:
        keeper.subscribe(f"{SESSION}/#", 1)
    acts = {name: Acts(name, until, 0.2 if name in ("connect", "large") else PAUSE) for name in NAMES}

    @contextlib.contextmanager
    def by_amqp():
        with amqp(broker) as channel:
            yield lambda number: channel.basic_publish("", QUEUE, b"%d" % number,
                                                       pika.BasicProperties(delivery_mode=2))

    @contextlib.contextmanager
    def by_mqtt():
        with mqtt(broker, "witness", version=4) as client:
            yield lambda number: client.publish(f"{SESSION}/a", b"%d" % number)

    @contextlib.contextmanager
    def by_kafka():
        producer = kafka_producer(broker)
        yield lambda number: kafka_send(broker, TOPIC, b"%d" % number, producer=producer)

    @contextlib.contextmanager
    def connecting():
        def act(number):
            with mqtt(broker, f"witness-{number}"):
                pass
        yield act

    @contextlib.contextmanager
    def large():
        with amqp(broker) as channel:
            queue = channel.queue_declare("", exclusive=True).method.queue

            def act(_):
                channel.basic_publish("", queue, LARGE)
                amqp_take(channel, queue, 1)
            yield act

    clients = dict(zip(NAMES, (by_amqp, by_mqtt, by_kafka, connecting, large)))
    threads = [threading.Thread(target=acts[name].run, args=[clients[name]]) for name in NAMES]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(one.times for one in acts.values()), seconds, "that every client has acted once")
    print(BEGUN, flush=True)
    for thread in threads:
        thread.join()
    report = {name: acts[name].report() for name in NAMES}
    missing = {
        "amqp": set(acts["amqp"].acked) - set(in_queue(broker)),
        "mqtt": set(acts["mqtt"].acked) - set(in_session(broker, acts["mqtt"].acked)),
        "kafka": set(acts["kafka"].acked) - {int(record.value()) for record in kafka_read_all(broker, TOPIC)},
    }
    for name, numbers in missing.items():
        report[name]["lost"] = len(numbers)
    return report


def in_queue(broker):
    with amqp(broker) as channel:
        count = channel.queue_declare(QUEUE, passive=True).method.message_count
        bodies = [int(body) for _, _, body in amqp_take(channel, QUEUE, count)] if count else []
        channel.queue_delete(QUEUE)
    return bodies


def in_session(broker, acked):
    numbers, wanted = set(), set(acked)
    with mqtt(broker, SESSION, clean=False, expiry=0) as keeper:
        def has_all():
            while not keeper.messages.empty():
                numbers.add(int(keeper.messages.get().payload))
            return wanted <= numbers
        with contextlib.suppress(AssertionError):
            wait_until(has_all, 60, "that the session has everything")
    return numbers


class Witness:
    """The clients, in a process of their own for so long."""

    def __init__(self, broker, seconds):
        ports = [broker.amqp_port, broker.mqtt_port, broker.kafka_port]
        arguments = [sys.executable, __file__, *map(str, ports), str(seconds)]
        # Unbuffered: lines are read one by one, then the rest.
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, bufsize=0, cwd=pathlib.Path(__file__).parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def wait_begun(self):
        """Waits until every client has acted once; it gives up after the time that it has."""
        assert self.process.stdout.readline().strip() == BEGUN.encode(), "the witness failed: is the broker there?"

    def report(self, seconds=180):
        out, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, "the witness failed: is the broker there?"
        return json.loads(out.splitlines()[-1])


if __name__ == "__main__":
    ports = [int(port) for port in sys.argv[1:4]]
    there = types.SimpleNamespace(**dict(zip(("amqp_port", "mqtt_port", "kafka_port"), ports)),
                                  kafka=f"127.0.0.1:{ports[2]}")
    print(json.dumps(run(there, float(sys.argv[4]))))
