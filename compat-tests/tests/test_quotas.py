"""Quotas: clients of every protocol are held to their rates, lose nothing, and do not slow others down."""

import json
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

import confluent_kafka
import kafka
import kafka.admin
import kafka.errors
import pika
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from clients import (QUIET, WAIT_SECONDS, Mqtt, amqp_connection, java, kafka_admin, kafka_create, kafka_take, kafka_tool, mqtt,
                     wait_until)
from harness import binary, run

# A second's worth is saved up by a client that was quiet.
SAVED_SECONDS = 1


def quota(broker, *arguments, check=True):
    done = run([binary(), "quota", *arguments], env={"INVER_URL": f"http://127.0.0.1:{broker.http_port}"}, check=check)
    return done.stdout.decode() if check else done.stderr.decode()


def set_quota(broker, *arguments):
    quota(broker, "set", *arguments)


def listed(broker):
    return json.loads(quota(broker, "list", "--output", "json"))


def is_rate(units, seconds, rate):
    """Whether so many units in so many seconds are the rate, without what was saved up."""
    measured = (units - rate * SAVED_SECONDS) / seconds
    print(f"{measured:.1f} a second of {rate}")
    return 0.85 * rate <= measured <= 1.15 * rate


def configs(broker, *arguments, check=True):
    return java("console", "kafka.admin.ConfigCommand", "--bootstrap-server", broker.kafka, *arguments, check=check)


def test_kafkas_tool_sets_describes_and_deletes_quotas(own_broker):
    broker = own_broker()
    ann = ("--entity-type", "users", "--entity-name", "ann")
    both = (*ann, "--entity-type", "clients", "--entity-default")
    configs(broker, "--alter", *ann, "--add-config", "producer_byte_rate=1000,consumer_byte_rate=2000")
    configs(broker, "--alter", *both, "--add-config", "request_percentage=12.5")
    configs(broker, "--alter", "--entity-type", "users", "--entity-default", "--add-config", "producer_byte_rate=3000")
    configs(broker, "--alter", "--entity-type", "clients", "--entity-name", "c", "--add-config", "producer_byte_rate=4000")
    configs(broker, "--alter", "--entity-type", "ips", "--entity-name", "127.0.0.9", "--add-config",
            "connection_creation_rate=5")
    told = configs(broker, "--describe", *ann)
    assert re.search(r"user-principal 'ann' are .*producer_byte_rate=1000", told) and "consumer_byte_rate=2000" in told
    assert "request_percentage=12.5" in configs(broker, "--describe", *both)
    users = configs(broker, "--describe", "--entity-type", "users")
    assert "the default user-principal" in users and "'ann'" in users and "4000" not in users
    assert "connection_creation_rate=5" in configs(broker, "--describe", "--entity-type", "ips")
    assert {(each["user"], each["client_id"], each["ip"]) for each in listed(broker)} == {
        ("ann", None, None), ("ann", "*", None), ("*", None, None), (None, "c", None), (None, None, "127.0.0.9")}
    configs(broker, "--alter", *ann, "--delete-config", "producer_byte_rate")
    assert "producer_byte_rate" not in configs(broker, "--describe", *ann)
    configs(broker, "--alter", *ann, "--add-config", "controller_mutation_rate=0.5")
    assert "controller_mutation_rate=0.5" in configs(broker, "--describe", *ann)
    assert [each["mutations_per_second"] for each in listed(broker) if each["user"] == "ann" and not each["client_id"]] == [0.5]
    broker.restart()
    told = configs(broker, "--describe", *ann)
    assert "consumer_byte_rate=2000" in told and "controller_mutation_rate=0.5" in told
    assert re.search("inver::audit: changed.*quota.*user `ann`", broker.log())


def run_config(broker, *arguments):
    with pytest.raises(AssertionError) as failed:
        configs(broker, *arguments)
    return str(failed.value)


def test_kafkas_producer_is_held_to_its_rate_and_told_so(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    rate, records, size = 200_000, 800, 2500
    configs(broker, "--alter", "--entity-type", "clients", "--entity-name", "slow", "--add-config",
            f"producer_byte_rate={rate}")
    told = kafka_tool(
        "ProducerPerformance", "--topic", unique, "--num-records", records, "--record-size", size, "--throughput", -1,
        "--producer-props", f"bootstrap.servers={broker.kafka}", "client.id=slow", "batch.size=16384",
        "--print-metrics")
    seconds = float(re.findall(r"(\d+) records sent, ([\d.]+) records/sec", told)[-1][1])
    assert is_rate(records * size, records / seconds, rate), told
    throttled = re.search(r"produce-throttle-time-max.*: *([\d.]+)", told)
    assert float(throttled.group(1)) >= 50, throttled
    assert broker.metric("inver_quota_throttles_total") >= 10


def test_a_kafka_consumer_is_held_to_its_rate_and_others_are_not(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    rate, count, size = 200_000, 500, 2000
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.kafka, **QUIET, "batch.size": 20_000})
    for _ in range(count):
        producer.produce(unique, b"x" * size)
    assert producer.flush(WAIT_SECONDS) == 0
    set_quota(broker, "--client-id", "slow", "--bytes-out", str(rate))
    throttles = []

    def read(client_id):
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": broker.kafka, **QUIET, "client.id": client_id, "group.id": client_id,
            "enable.auto.commit": False, "throttle_cb": lambda event: throttles.append(event.throttle_time)})
        consumer.assign([confluent_kafka.TopicPartition(unique, 0, 0)])
        started = time.monotonic()
        taken = kafka_take(consumer, count, 60)
        seconds = time.monotonic() - started
        consumer.close()
        assert [message.offset() for message in taken] == list(range(count))
        return seconds

    slow = []
    reader = threading.Thread(target=lambda: slow.append(read("slow")))
    reader.start()
    assert read("fast") < 2
    reader.join()
    assert is_rate(count * size, slow[0], rate)
    assert max(throttles) > 0


@pytest.mark.parametrize("version", (4, 5))
@pytest.mark.parametrize("qos", (0, 1, 2))
def test_mqtt_publishers_are_read_at_their_rate(broker, unique, version, qos):
    rate, count = 200, 700
    client_id = f"slow-{unique}"
    set_quota(broker, "--client-id", client_id, "--messages-in", str(rate))
    with mqtt(broker, version=version) as listener, mqtt(broker, client_id, version=version) as slow:
        listener.subscribe(unique, qos=qos)
        started = time.monotonic()
        sent = [slow.client.publish(unique, b"%d" % number, qos) for number in range(count)]
        with mqtt(broker, version=version) as other:
            before = time.monotonic()
            for _ in range(50):
                other.publish(f"{unique}/other", b"", qos=1)
            assert time.monotonic() - before < 1, "another client is slowed down"
        assert listener.take(count, 30) == [b"%d" % number for number in range(count)]
        assert is_rate(count, time.monotonic() - started, rate)
        for info in sent:
            info.wait_for_publish(WAIT_SECONDS)
            assert info.is_published()
    quota(broker, "delete", "--client-id", client_id)


@pytest.mark.parametrize("version", (4, 5))
@pytest.mark.parametrize("qos", (0, 1, 2))
def test_mqtt_subscribers_are_sent_messages_at_their_rate(broker, unique, version, qos):
    rate, count = 100, 300
    client_id = f"slow-{unique}"
    set_quota(broker, "--client-id", client_id, "--messages-out", str(rate))
    with mqtt(broker, client_id, version=version) as slow, mqtt(broker) as other, mqtt(broker) as sender:
        slow.subscribe(unique, qos=qos)
        other.subscribe(unique, qos=qos)
        started = time.monotonic()
        for number in range(count):
            info = sender.client.publish(unique, b"%d" % number, qos)
        info.wait_for_publish(WAIT_SECONDS)
        expected = [b"%d" % number for number in range(count)]
        assert other.take(count, 5) == expected
        assert time.monotonic() - started < 1.5, "another subscriber is slowed down"
        # Answers to the client are not held back.
        before = time.monotonic()
        slow.publish(f"{unique}/answer", b"", qos=1)
        assert time.monotonic() - before < 0.5
        assert slow.take(count, 30) == expected
        assert is_rate(count, time.monotonic() - started, rate)
    quota(broker, "delete", "--client-id", client_id)


def slow_amqp(broker, name, **options):
    return amqp_connection(broker, client_properties={"connection_name": name}, **options)


def states(broker, name):
    body = json.loads(broker.get(f"/api/v1/connections?filter={name}")[1])
    return [each["state"] for each in body["items"]]


def test_amqp_publishers_and_consumers_are_held_to_their_rates(broker, unique):
    rate, count = 100, 300
    set_quota(broker, "--client-id", f"in-{unique}", "--messages-in", str(rate))
    set_quota(broker, "--client-id", f"out-{unique}", "--messages-out", str(rate))
    sender, receiver = slow_amqp(broker, f"in-{unique}"), slow_amqp(broker, f"out-{unique}")
    channel = sender.channel()
    channel.queue_declare(unique)
    started = time.monotonic()
    for number in range(count):
        channel.basic_publish("", unique, b"%d" % number)
    wait_until(lambda: states(broker, f"in-{unique}") == ["flow"], 5, "state flow")
    # The answer comes when everything before it was read.
    channel.confirm_delivery()
    assert is_rate(count, time.monotonic() - started, rate)
    assert channel.queue_declare(unique, passive=True).method.message_count == count

    other = receiver.channel()
    bodies = []
    started = time.monotonic()
    for method, _properties, body in other.consume(unique, inactivity_timeout=WAIT_SECONDS):
        assert method is not None, f"{len(bodies)} messages came"
        bodies.append(body)
        other.basic_ack(method.delivery_tag)
        if len(bodies) == count:
            break
    assert is_rate(count, time.monotonic() - started, rate)
    assert bodies == [b"%d" % number for number in range(count)]
    for connection in (sender, receiver):
        connection.close()
    for name in ("in", "out"):
        quota(broker, "delete", "--client-id", f"{name}-{unique}")


def test_large_amqp_messages_are_read_at_the_rate_of_their_bytes(broker, unique):
    rate = 500_000
    set_quota(broker, "--client-id", unique, "--bytes-in", str(rate))
    connection = slow_amqp(broker, unique, heartbeat=2)
    channel = connection.channel()
    channel.queue_declare(unique)
    channel.confirm_delivery()
    started = time.monotonic()
    channel.basic_publish("", unique, b"x" * 2_000_000)
    assert is_rate(2_000_000, time.monotonic() - started, rate)
    connection.close()
    quota(broker, "delete", "--client-id", unique)


def test_connections_that_come_too_fast_wait_or_may_try_again(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    set_quota(broker, "--namespace", "/", "--connections", "1")
    for version, code in ((5, 0x9f), (4, 0x88)):
        first = wait_until(lambda: connected(broker, version), 5, "a connection")
        # Paho shows code 3 of version 3.1.1 as "server unavailable" of version 5.
        assert {Mqtt(broker, version=version).reason.value for _ in range(2)} == {code}
        first.close()
    started = time.monotonic()
    connections = [slow_amqp(broker, f"{unique}-{number}") for number in range(4)]
    for connection in connections:
        connection.channel()
    assert 2.5 <= time.monotonic() - started <= 5
    for connection in connections:
        connection.close()
    quota(broker, "set", "--namespace", "/", "--connections", "0")
    quota(broker, "set", "--ip", "127.0.0.1", "--connections", "1")
    started = time.monotonic()
    for number in range(3):
        producer = confluent_kafka.Producer({"bootstrap.servers": broker.kafka, **QUIET})
        producer.produce(unique, b"%d" % number)
        assert producer.flush(WAIT_SECONDS) == 0
    assert time.monotonic() - started >= 2
    assert broker.metric("inver_logins_total") > 0


def all_at_once(act, count):
    """Runs `act` in so many threads and returns what each returned."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(act())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_amqp_connections_beyond_the_wait_are_refused(own_broker):
    broker = own_broker()
    set_quota(broker, "--namespace", "/", "--connections", "1")

    def connect():
        try:
            return amqp_connection(broker)
        except pika.exceptions.AMQPConnectionError as refused:
            return str(refused)

    came = all_at_once(connect, 12)
    refused = [each for each in came if isinstance(each, str)]
    # One at once, and five that wait up to 5 s to be served.
    assert 1 <= len(refused) <= 7, refused
    text = "(320) 'CONNECTION_FORCED - connections come faster than their quota allows, try again later'"
    assert all(text in each for each in refused), refused
    for each in came:
        if not isinstance(each, str):
            each.channel()
            each.close()


def test_kafka_clients_beyond_the_wait_try_again_and_get_in(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    set_quota(broker, "--namespace", "/", "--connections", "1")
    # Each makes one connection, and another if that is closed.
    listed = all_at_once(lambda: kafka_admin(broker).list_topics(timeout=30).topics, 8)
    assert all(unique in topics for topics in listed)
    refused = [line for line in broker.get("/metrics")[1].splitlines()
               if line.startswith("inver_logins_total") and 'protocol="kafka"' in line and 'reason="limit"' in line]
    assert refused and float(refused[0].rsplit(" ", 1)[1]) >= 1, "no connection was refused"


def connected(broker, version):
    client = Mqtt(broker, version=version)
    return None if client.reason.is_failure else client


def test_a_namespaces_quota_is_shared_by_the_protocols(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    rate, count = 100, 150
    set_quota(broker, "--namespace", "/", "--messages-in", str(rate))
    started = time.monotonic()

    def by_mqtt():
        with mqtt(broker) as client:
            infos = [client.client.publish("a/b", b"", 1) for _ in range(count)]
            for info in infos:
                info.wait_for_publish(WAIT_SECONDS)

    def by_amqp():
        connection = amqp_connection(broker)
        channel = connection.channel()
        channel.queue_declare(unique + "-q")
        for _ in range(count):
            channel.basic_publish("", unique + "-q", b"")
        channel.confirm_delivery()
        connection.close()

    def by_kafka():
        producer = confluent_kafka.Producer({"bootstrap.servers": broker.kafka, **QUIET, "batch.num.messages": 5})
        for _ in range(count):
            producer.produce(unique, b"")
        assert producer.flush(WAIT_SECONDS) == 0

    threads = [threading.Thread(target=act) for act in (by_mqtt, by_amqp, by_kafka)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_rate(3 * count, time.monotonic() - started, rate)


def test_request_time_is_limited(own_broker, unique):
    broker = own_broker()
    set_quota(broker, "--client-id", unique, "--request-time-percent", "0.05")
    with mqtt(broker, unique) as client:
        for number in range(100):
            client.publish("a/b", b"%d" % number)
    assert broker.metric("inver_quota_throttles_total") > 0


def test_quotas_of_the_configuration_are_read_only_and_reloaded(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    config.write_text('[[quotas]]\nuser = "ann"\nbytes_in_per_second = 1000\n')
    broker = own_broker(arguments=["--config", str(config)])
    only, = listed(broker)
    assert (only["user"], only["bytes_in_per_second"], only["source"]) == ("ann", 1000, "configuration")
    assert "read-only" in quota(broker, "set", "--user", "ann", "--bytes-in", "1", check=False)
    assert "read-only" in run_config(broker, "--alter", "--entity-type", "users", "--entity-name", "ann",
                                     "--add-config", "producer_byte_rate=1")
    config.write_text('[[quotas]]\nnamespace = "*"\nconnections_per_second = 5\n')
    run([binary(), "reload"], env={"INVER_URL": f"http://127.0.0.1:{broker.http_port}"})
    only, = listed(broker)
    assert (only["namespace"], only["connections_per_second"]) == ("*", 5)
    status, problem = send(broker, "PUT", "?ip=127.0.0.1", {"bytes_in_per_second": 1})
    assert (status, problem["status"]) == (400, 400) and "only have a limit of connections" in problem["detail"]
    assert send(broker, "PUT", "?user=a&namespace=b", {"bytes_in_per_second": 1})[0] == 400
    assert send(broker, "DELETE", "?user=nobody", None)[0] == 404


def send(broker, method, query, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{broker.http_port}/api/v1/quotas{query}", method=method,
        data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_creating_topics_is_held_to_a_rate(own_broker, unique):
    broker = own_broker()
    set_quota(broker, "--client-id", "maker", "--mutations", "2")
    maker = kafka.KafkaAdminClient(bootstrap_servers=broker.kafka, client_id="maker")
    # 22 partitions may be saved up; more are accepted once, and paid for afterwards.
    maker.create_topics([kafka.admin.NewTopic(f"{unique}a", 26, 1)])
    with pytest.raises(kafka.errors.ThrottlingQuotaExceededError):
        maker.create_topics([kafka.admin.NewTopic(f"{unique}b", 1, 1)])
    maker.close()
    # Others are free.
    other = AdminClient({"bootstrap.servers": broker.kafka, **QUIET})
    assert f"{unique}b" not in other.list_topics(timeout=WAIT_SECONDS).topics
    other.create_topics([NewTopic(f"{unique}c", 30)])[f"{unique}c"].result(WAIT_SECONDS)
    config = broker.folder / "maker.properties"
    config.write_text("client.id=maker\n")

    def create():
        return java("console", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.kafka, "--command-config",
                    config, "--create", "--topic", f"{unique}d", "--partitions", "9", check=False)

    # Kafka's tool does not wait and try again.
    wait_until(lambda: "Created topic" in create(), WAIT_SECONDS, "that the quota flowed in again")
    assert f"{unique}d" in other.list_topics(timeout=WAIT_SECONDS).topics


def test_every_response_tells_the_request_time_that_is_owed(own_broker, unique):
    broker = own_broker()
    set_quota(broker, "--client-id", "busy", "--request-time-percent", "0.001")
    client = KafkaClient(broker.kafka_port, "busy")
    # What the first one takes may be within the quota of a second.
    waits = [client.list_groups_throttle_ms() for _ in range(3)]
    assert all(wait > 0 for wait in waits[1:]), waits
    assert KafkaClient(broker.kafka_port, "other").list_groups_throttle_ms() == 0


class KafkaClient:
    """Sends ListGroups (version 1) by hand: client libraries do not tell the field."""

    def __init__(self, port, client_id):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
        self.client_id = client_id.encode()

    def list_groups_throttle_ms(self):
        request = struct.pack(">hhih", 16, 1, 7, len(self.client_id)) + self.client_id
        self.socket.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < 12:
            received = self.socket.recv(4096)
            assert received, "closed"
            answer += received
        _length, correlation, throttle = struct.unpack(">iii", answer[:12])
        assert correlation == 7
        return throttle
