"""The API at /api/v1: what clients of every protocol made is listed as it is, and what the API does reaches them."""

import re
import subprocess
import sys

import pika
import pytest

from clients import amqp, amqp_get, http_api, kafka_consumer, kafka_create, kafka_read, kafka_send, mqtt
from harness import wait_until


class Api:
    def __init__(self, broker):
        self.broker = broker
        self.base = f"http://127.0.0.1:{broker.http_port}/api/v1"

    def ask(self, method, path, body=None, headers=None):
        """Status and JSON of a request."""
        return http_api(self.broker, method, path, body, headers=headers)

    def get(self, path):
        status, body = self.ask("GET", path)
        assert status == 200, body
        return body


@pytest.fixture
def api(broker):
    return Api(broker)


def test_queues_groups_sessions_and_shared_subscriptions_are_listed(broker, api, unique):
    topic, group, queue = f"{unique}-log", f"{unique}-group", f"{unique}-queue"
    kafka_create(broker, topic)
    for value in (b"1", b"2", b"3"):
        kafka_send(broker, topic, value)
    with amqp(broker) as channel, mqtt(broker, client_id=f"{unique}-on") as on, \
            kafka_consumer(broker, topic, group=group) as consumer:
        channel.queue_declare(queue, durable=True)
        for body in (b"a", b"b"):
            channel.basic_publish("", queue, body)
        wait_until(lambda: api.get(f"/queues/{queue}")["ready"] == 2)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, lambda *_: None)
        def consumed():
            channel.connection.process_data_events(time_limit=0.01)
            return api.get(f"/queues/{queue}")["unacked"] == 1
        wait_until(consumed)
        shown = api.get(f"/queues/{queue}")
        assert (shown["ready"], shown["consumers"]) == (1, 1)
        assert [(member["protocol"], member["unacked"]) for member in shown["members"]] == [("amqp", 1)]
        listed = api.get(f"/queues?filter={unique}&sort=-ready&columns=name,ready")
        assert listed["items"] == [{"name": queue, "ready": 1}]

        # A Kafka group that has read one record of three.
        record = None
        def read():
            nonlocal record
            record = consumer.poll(0.1)
            return record is not None and record.error() is None
        wait_until(read, 20)
        consumer.commit(record, asynchronous=False)
        detail = api.get(f"/subscriptions/group/{group}")
        assert (detail["lag"], detail["members"], detail["mode"]) == (2, {"kafka": 1}, "Stable")
        assert detail["lag_ms"] >= 0 and detail["positions"][0]["offset"] == 1
        assert detail["group_members"][0]["assigned"] == [{"topic": topic, "partition": 0}]
        assert api.ask("DELETE", f"/subscriptions/group/{group}")[0] == 409
        assert api.ask("POST", f"/subscriptions/group/{group}/reset", {"to": "earliest"})[0] == 409

        # A connected session and one that is away, with what waits for it.
        on.subscribe(f"$share/{unique}/{unique}/+", 1)
        with mqtt(broker, client_id=f"{unique}-away", expiry=600, clean=False) as away:
            away.subscribe(f"{unique}/#", 1)
        wait_until(lambda: not api.get(f"/sessions/{unique}-away")["connected"])
        on.publish(f"{unique}/x", b"1", 1)
        sessions = api.get(f"/sessions?filter={unique}")["items"]
        assert [(s["name"], s["connected"], s["queued"]) for s in sessions] == [
            (f"{unique}-away", False, 1), (f"{unique}-on", True, 0)]
        assert api.get(f"/sessions/{unique}-away")["filters"] == [
            {"filter": f"{unique}/#", "guaranteed": True, "no_local": False}]
        shared = api.get(f"/subscriptions?kind=shared&filter={unique}")["items"]
        assert [(s["name"], sum(s["members"].values())) for s in shared] == [(f"$share/{unique}/{unique}/+", 1)]
        peeked = api.get(f"/messages?source=inbox&name={unique}-away")["messages"]
        assert [message["value"] for message in peeked] == [{"text": "1"}]
    # Nothing of the above took the message.
    with mqtt(broker, client_id=f"{unique}-away", expiry=600, clean=False) as away:
        assert away.messages.get(timeout=15).payload == b"1"
    assert api.ask("DELETE", f"/sessions/{unique}-away")[0] == 204
    assert api.ask("GET", f"/sessions/{unique}-away")[0] == 404


def test_peeking_takes_nothing_and_marks_nothing(broker, api, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        channel.basic_publish("", unique, b"\xff\x00binary")
        wait_until(lambda: api.get(f"/queues/{unique}")["ready"] == 1)
        for _ in range(3):
            message, = api.get(f"/messages?source=queue&name={unique}")["messages"]
            assert message["value"] == {"base64": "/wBiaW5hcnk="} and message["origin"] == "amqp"
        method, _, body = amqp_get(channel, unique)
        assert body == b"\xff\x00binary" and not method.redelivered
        assert api.get(f"/messages?source=queue&name={unique}")["messages"] == []
        # A transient queue, which is in memory.
        name = channel.queue_declare(f"{unique}-transient", auto_delete=True).method.queue
        channel.basic_publish("", name, b"memory")
        wait_until(lambda: api.get(f"/queues/{name}")["ready"] == 1)
        message, = api.get(f"/messages?source=queue&name={name}")["messages"]
        assert message["value"] == {"text": "memory"}
        method, _, body = amqp_get(channel, name)
        assert body == b"memory" and not method.redelivered


def test_a_publish_reaches_clients_of_all_protocols(broker, api, unique):
    kafka_create(broker, f"{unique}.a")
    with mqtt(broker) as subscriber, amqp(broker) as channel:
        subscriber.subscribe(f"{unique}/#", 1)
        channel.queue_declare(unique, durable=True)
        channel.queue_bind(unique, "amq.topic", f"{unique}.*")
        to = {"address": f"{unique}/a"}
        route = api.ask("POST", "/routes/test", {"to": to})[1]
        assert (route["queues"], route["topics"]) == ([unique], [{"topic": f"{unique}.a", "partition": 0}])
        assert [session["client_id"] for session in route["sessions"]] == [subscriber.client_id]
        assert api.get(f"/queues/{unique}")["ready"] == 0, "a test publishes nothing"
        status, published = api.ask("POST", "/publish", {
            "to": to, "value": {"text": "hello"}, "headers": {"h": "1"},
            "properties": {"content_type": "text/plain"}})
        assert status == 200 and published["destinations"] == 3
        assert subscriber.messages.get(timeout=15).payload == b"hello"
        _, properties, body = amqp_get(channel, unique)
        assert body == b"hello" and properties.content_type == "text/plain" and properties.headers["h"] == "1"
        assert [record.value() for record in kafka_read(broker, f"{unique}.a", 1)] == [b"hello"]


def test_a_group_is_set_back_and_reads_again(broker, api, unique):
    kafka_create(broker, unique)
    for value in (b"1", b"2", b"3"):
        kafka_send(broker, unique, value)

    def read_all():
        with kafka_consumer(broker, unique, group=unique) as consumer:
            values = []
            def more():
                record = consumer.poll(0.1)
                if record is not None and record.error() is None:
                    values.append(record.value())
                return len(values) == 3
            wait_until(more, 20)
            consumer.commit(asynchronous=False)
            return values

    assert read_all() == [b"1", b"2", b"3"]
    wait_until(lambda: api.get(f"/subscriptions/group/{unique}")["members"] == {})
    assert api.get(f"/subscriptions/group/{unique}")["lag"] == 0
    status, moved = api.ask("POST", f"/subscriptions/group/{unique}/reset", {"to": "earliest", "dry_run": True})
    assert (status, moved) == (200, [{"topic": unique, "partition": 0, "from": 3, "to": 0}])
    assert api.get(f"/subscriptions/group/{unique}")["lag"] == 0
    assert api.ask("POST", f"/subscriptions/group/{unique}/reset", {"to": {"time": 0}})[0] == 200
    assert read_all() == [b"1", b"2", b"3"]
    wait_until(lambda: api.ask("DELETE", f"/subscriptions/group/{unique}")[0] == 204)


def test_a_connection_is_closed_with_a_reason(broker, api, unique):
    with amqp(broker, name=unique) as channel:
        connection, = api.get(f"/connections?filter={unique}")["items"]
        assert (connection["protocol"], connection["name"], connection["namespace"]) == ("amqp", unique, "/")
        assert api.get(f"/connections/{connection['id']}")["user"] == "guest"
        assert api.ask("DELETE", f"/connections/{connection['id']}?reason=maintenance")[0] == 204
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="maintenance"):
            channel.connection.process_data_events(time_limit=15)
    wait_until(lambda: api.get(f"/connections?filter={unique}")["total"] == 0)


def test_schemathesis_finds_no_fault(own_broker, tmp_path):
    """Property-based requests from the OpenAPI document: no server error, no answer that the document does not describe."""
    broker = own_broker()
    api = Api(broker)
    api.ask("POST", "/topics", {"name": "t", "partitions": 2})
    api.ask("PUT", "/queues/q", {})
    api.ask("POST", "/publish", {"to": {"queue": "q"}, "value": {"text": "x"}})
    checks = ",".join([
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance"])
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{api.base}/openapi.json",
               "--checks", checks, "--max-examples", "15", "--phases", "examples,coverage,fuzzing",
               "--exclude-path", "/logout", "--suppress-health-check", "filter_too_much",
               # It does not end.
               "--exclude-path", "/events",
               "--generation-deterministic", "--no-color", "--request-timeout", "20"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed|No issues found", done.stdout), done.stdout[-2000:]
    broker.check()
