"""Each example of `examples/` does what its README says."""

import sys

import pytest

from clients import background
from harness import ROOT, run

EXAMPLES = ROOT / "examples"


def test_device(own_broker):
    broker = own_broker()
    reader = background([sys.executable, EXAMPLES / "device" / "reader.py", "--bootstrap", broker.kafka, "--count", 5])
    run([sys.executable, EXAMPLES / "device" / "device.py", "--port", broker.mqtt_port, "--count", 5, "--interval", 0.01])
    output, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    assert output.count(b"sensors/room1/temp") == 5


def test_work_queue(broker, unique):
    queue = ["--url", broker.amqp + "/", "--queue", unique]
    workers = [background([sys.executable, EXAMPLES / "work-queue" / "worker.py", *queue, "--name", name, "--idle", 3])
               for name in ("one", "two")]
    run([sys.executable, EXAMPLES / "work-queue" / "task.py", *queue, "--count", 40])
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    done = [line.split(b"  ")[1] for output in outputs for line in output.splitlines()]
    assert sorted(done) == sorted(b"task %d" % n for n in range(40))


def test_fan_out(broker):
    output = run([sys.executable, EXAMPLES / "fan-out" / "fan_out.py", "--mqtt", broker.mqtt_port, "--amqp",
                  broker.amqp_port, "--kafka", broker.kafka_port]).stdout
    assert output.count(b"received by") == 3


def test_the_readme_s_first_command(tmp_path):
    """`./try` builds, starts a broker, publishes over MQTT and reads with Kafka; run with the built binary."""
    import os
    from harness import CLIENTS, binary
    environment = {**os.environ, "INVER_TRY_BINARY": str(binary()), "INVER_TRY_PYTHON": sys.executable}
    output = run([ROOT / "try"], timeout=120, env=environment).stdout
    assert output.count(b"device   sensors/") == 5 and output.count(b"kafka    sensors/") == 5
