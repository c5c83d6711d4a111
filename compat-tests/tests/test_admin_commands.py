"""The commands that administer a running broker over its API, beside clients of the protocols; and what the node shows."""

import json
import os
import urllib.request

from clients import amqp, kafka_create, kafka_send
from harness import binary, run, wait_until


def inver(broker, *arguments, check=True):
    """A command's output as text."""
    environment = {"PATH": os.environ["PATH"], "INVER_URL": f"http://127.0.0.1:{broker.http_port}"}
    done = run([binary(), *arguments], env=environment, check=check)
    return done.stdout.decode() if check else (done.returncode, done.stderr.decode())


def as_json(broker, *arguments):
    return json.loads(inver(broker, *arguments, "--output", "json"))


def test_queues_are_created_published_to_read_purged_and_deleted(broker, unique):
    assert as_json(broker, "create", "queue", unique)["durable"] is True
    assert as_json(broker, "publish", "--queue", unique, "hello")["destinations"] == 1
    with amqp(broker) as channel:
        channel.basic_publish("", unique, b"from AMQP")
        exported = [json.loads(line)["value"]["text"] for line in inver(broker, "export", "queue", unique).splitlines()]
        assert exported == ["hello", "from AMQP"]
        assert channel.basic_get(unique, auto_ack=True)[2] == b"hello"
    table = inver(broker, "list", "queues", f"--filter={unique}").splitlines()
    assert table[0].split() == ["NAME", "DURABLE", "READY", "UNACKED", "CONSUMERS"]
    assert table[1].split() == [unique, "true", "1", "0", "0"]
    assert as_json(broker, "route", "--queue", unique)["queues"] == [unique]
    assert "from AMQP" in inver(broker, "peek", "queue", unique)
    assert as_json(broker, "purge", unique) == {"messages": 1}
    inver(broker, "delete", "queue", unique)
    code, error = inver(broker, "describe", "queue", unique, check=False)
    assert code == 1 and unique in error


def test_records_of_kafka_are_read_and_exported(broker, unique):
    kafka_create(broker, unique)
    for number in range(3):
        kafka_send(broker, unique, b"%d" % number)
    values = [item["value"]["text"] for item in as_json(broker, "peek", "topic", unique, "--offset", "1")]
    assert values == ["1", "2"]
    lines = inver(broker, "export", "topic", unique).splitlines()
    assert [json.loads(line)["offset"] for line in lines] == [0, 1, 2]


def test_a_connection_is_closed_by_its_number(broker, unique):
    with amqp(broker, name=unique) as channel:
        connection, = as_json(broker, "list", "connections", f"--filter={unique}")
        inver(broker, "close", str(connection["id"]), "--reason", "maintenance")
        try:
            channel.connection.process_data_events(time_limit=15)
            raise AssertionError("the connection is open")
        except Exception as error:
            assert "maintenance" in repr(error)


def test_the_log_level_changes_until_the_next_reload(own_broker):
    broker = own_broker()
    before = as_json(broker, "log-level")["filter"]
    assert as_json(broker, "log-level", "inver_mqtt=debug,warn")["filter"] == "inver_mqtt=debug,warn"
    code, error = inver(broker, "log-level", "a=b=c", check=False)
    assert code == 1 and "filter" in error
    broker.process.send_signal(1)
    wait_until(lambda: as_json(broker, "log-level")["filter"] == before)


def test_the_node_shows_its_configuration_with_sources(own_broker):
    broker = own_broker()
    node = as_json(broker, "describe", "node")
    assert node["process_id"] == broker.process.pid and node["disk"]["total_bytes"] > node["disk"]["free_bytes"] > 0
    assert as_json(broker, "describe", "alarms") == {"alarms": []}
    keys = {key["name"]: key for key in as_json(broker, "list", "config")}
    assert keys["http.listen"]["value"] == f"127.0.0.1:{broker.http_port}"
    assert keys["http.listen"]["source"] != "default" and keys["http.login_s"]["source"] == "default"


def test_figures_are_sent_every_second(broker):
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}/api/v1/events", timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        lines = [answer.readline().decode().strip() for _ in range(6)]
    assert lines[0] == lines[3] == "event: figures"
    first, second = (json.loads(lines[at].removeprefix("data: ")) for at in (1, 4))
    assert second["time_ms"] > first["time_ms"] and first["overview"]["version"]


def test_completions_and_man_pages_are_made(broker, tmp_path):
    assert "log-level" in inver(broker, "make", "completions", "bash")
    inver(broker, "make", "man", str(tmp_path))
    assert (tmp_path / "inver-list.1").exists()
