"""The image: built, run with published ports, used through all three protocols, stopped, and started again on its volume."""

import json
import os
import re
import types

import pytest
import pika

from clients import QUIET, Mqtt, amqp, amqp_get
from dockerd import Daemon, Unavailable
from harness import ROOT, binary, free_port, run, wait_until

IMAGE_BYTES_MAX = 40 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    try:
        daemon = Daemon(tmp_path_factory.mktemp("docker"))
    except Unavailable as why:
        pytest.skip(str(why))
    yield daemon
    daemon.close()


@pytest.mark.timeout(1800)
def test_the_image(daemon, unique):
    import confluent_kafka
    run([ROOT / "docker" / "build", "inver-test"], timeout=1700, env=daemon.environment)
    image = json.loads(daemon.run("image", "inspect", "inver-test"))[0]
    layers = daemon.run("history", "--no-trunc", "inver-test"), daemon.run("info", "-f", "{{.Driver}} {{.ServerVersion}}")
    assert image["Size"] < IMAGE_BYTES_MAX, (image["Size"], (ROOT / "target/image/root.tar").stat().st_size, *layers)
    assert image["Config"]["User"] == "10001:10001" and list(image["Config"]["Volumes"]) == ["/data"]

    ports = {name: free_port() for name in ("mqtt", "amqp", "kafka")}
    inner = {"mqtt": 1883, "amqp": 5672, "kafka": 9092}
    publish = [each for name in ports for each in ("-p", f"127.0.0.1:{ports[name]}:{inner[name]}")]
    line = run([binary(), "user", "add", "demo", "--print"], stdin=b"secret\n").stdout.decode().strip()
    name = f"inver-{unique}"
    daemon.run("run", "-d", "--name", name, *publish, "-v", f"{name}:/data", "-e", "INVER_USERS={ " + line + " }",
               "-e", f"INVER_KAFKA_ADVERTISED=127.0.0.1:{ports['kafka']}", "--read-only", "inver-test")
    health = lambda: daemon.run("inspect", "-f", "{{.State.Health.Status}}", name) == "healthy"
    wait_until(health, 40, "the container being healthy")

    broker = types.SimpleNamespace(mqtt_port=ports["mqtt"], amqp_port=ports["amqp"])
    kafka = {"bootstrap.servers": f"127.0.0.1:{ports['kafka']}", "security.protocol": "SASL_PLAINTEXT",
             "sasl.mechanism": "PLAIN", "sasl.username": "demo", "sasl.password": "secret", **QUIET}

    def by_kafka(count):
        consumer = confluent_kafka.Consumer({**kafka, "group.id": os.urandom(4).hex(), "auto.offset.reset": "earliest"})
        consumer.subscribe(["mqtt"])
        got = []
        def some():
            got.extend(m.value() for m in consumer.consume(10, 0.5) if m.error() is None)
            return len(got) >= count
        wait_until(some, 30, "records")
        consumer.close()
        return got

    client = Mqtt(broker, user=("demo", "secret"))
    client.publish("a/b", b"one", 1)
    with amqp(broker, user="demo", password="secret") as channel:
        channel.queue_declare("kept", durable=True)
        channel.basic_publish("", "kept", b"two", pika.BasicProperties(delivery_mode=2))
    assert by_kafka(1) == [b"one"]
    client.close()

    daemon.run("stop", name)
    assert daemon.run("inspect", "-f", "{{.State.ExitCode}}", name) == "0"
    daemon.run("start", name)
    wait_until(health, 40, "the container being healthy again")
    with amqp(broker, user="demo", password="secret") as channel:
        assert amqp_get(channel, "kept")[2] == b"two"
    assert by_kafka(1) == [b"one"]

    # Without users no remote client is accepted, and the log says how to allow them.
    daemon.run("rm", "-f", name)
    daemon.run("run", "-d", "--name", name, *publish, "inver-test")
    wait_until(health, 40, "the container being healthy")
    import socket
    with socket.create_connection(("127.0.0.1", ports["mqtt"]), 5) as outside:
        outside.settimeout(5)
        try:
            assert outside.recv(1) == b""
        except ConnectionResetError:
            pass
    logs = lambda: run(["docker", "logs", name], env=daemon.environment).stderr.decode()
    wait_until(lambda: "inver user add" in logs(), what="the log says how to open it")
    daemon.run("rm", "-f", name)


def test_the_compose_file_s_user_is_demo():
    """The hash in the compose file is one of the password that its comment names."""
    text = (ROOT / "docker" / "compose.yaml").read_text()
    written = re.search(r"demo = \"([^\"]+)\"", text).group(1)
    assert written.replace("$$", "").count("$") == 0, "compose wants $ doubled"
    environment = {**os.environ, "INVER_USERS": '{ demo = "' + written.replace("$$", "$") + '" }'}
    assert b"valid" in run([binary(), "config", "check"], env=environment).stdout
