"""The audit log: what clients of each protocol did or were refused, read by a Kafka consumer from the audit topic."""

import json

import confluent_kafka
import confluent_kafka.admin
import kafka
import pika
import pytest

from clients import amqp_connection, http_api, kafka_login, mqtt
from harness import Broker, binary, run, wait_until

TOPIC = "events-of-all"
USERS = """
[users.root]
passwords = ["{hash}"]
tags = ["administrator"]
[users.ann]
passwords = ["{hash}"]

[[permissions]]
user = "ann"
kind = "topic"
prefix = "ann."
operations = ["configure", "read", "write"]

[[permissions]]
user = "ann"
kind = "group"
operations = ["read"]

[[permissions]]
user = "ann"
kind = "topic"
name = "ann.secret"
operations = ["write"]
effect = "deny"
"""


@pytest.fixture(scope="module")
def hashed(tmp_path_factory):
    """The hash of the password `secret`."""
    config = tmp_path_factory.mktemp("hash") / "inver.toml"
    config.write_text("")
    run([binary(), "user", "add", "any", "--config", config], stdin=b"secret\n")
    return next(line.split('"')[1] for line in config.read_text().splitlines() if "$argon2id$" in line)


@pytest.fixture(scope="module")
def audited(tmp_path_factory, hashed):
    folder = tmp_path_factory.mktemp("audit")
    config = folder / "inver.toml"
    config.write_text(USERS.format(hash=hashed) + f'\n[audit]\ntopic = "{TOPIC}"\n')
    broker = Broker(folder, arguments=("--config", str(config))).start()
    yield broker
    broker.kill()


def ask(broker, method, path, user="root", password="secret", body=None):
    """The status of a request to the HTTP API."""
    return http_api(broker, method, path, body, login=(user, password))[0]


class Events:
    """The events of the topic so far, as a Kafka consumer reads them."""

    def __init__(self, broker, user="root"):
        self.consumer = confluent_kafka.Consumer(
            kafka_login(broker, user, "secret") | {"group.id": "auditors", "enable.auto.commit": False})
        self.consumer.assign([confluent_kafka.TopicPartition(TOPIC, 0, 0)])
        self.seen, self.errors = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.consumer.close()

    def find(self, **wanted):
        for message in self.consumer.consume(1000, timeout=0.2):
            if message.error():
                self.errors.append(message.error().name())
            else:
                self.seen.append(json.loads(message.value()))
        return next((one for one in self.seen if wanted.items() <= one.items()), None)

    def wait(self, **wanted):
        wait_until(lambda: self.find(**wanted), what=f"an event with {wanted}")
        return self.find(**wanted)


def test_logins_of_every_protocol(audited):
    with amqp_connection(audited, user="ann", password="secret"), mqtt(audited, user=("ann", "secret")):
        pass
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        amqp_connection(audited, user="ann", password="wrong")
    assert ask(audited, "GET", "/users", user="ann", password="wrong") == 401
    with Events(audited) as events:
        for protocol in ("amqp", "mqtt"):
            event = events.wait(event="login", result="accepted", protocol=protocol, user="ann")
            assert event["namespace"] == "/" and event["address"].startswith("127.0.0.1:")
        events.wait(event="login", result="accepted", protocol="kafka", user="root")
        assert "wrong" in events.wait(event="login", result="refused", protocol="amqp", user="ann")["reason"]
        events.wait(event="login", result="refused", protocol="http", user="ann")


def test_a_user_who_handles_its_own_tokens_is_denied_nothing(audited):
    user = {"password": "secret", "tags": ["management"]}
    assert ask(audited, "PUT", "/users/man", body=user) == 201
    assert ask(audited, "POST", "/tokens", user="man", body={"name": "ci"}) == 201
    assert ask(audited, "GET", "/tokens", user="man") == 200
    assert ask(audited, "DELETE", "/tokens/ci", user="man") == 204
    with Events(audited) as events:
        for operation in ("create", "delete"):
            events.wait(event="access", operation=operation, resource="token", name="ci", user="man", protocol="http")
        assert events.find(event="denied", user="man") is None


def test_a_denial_names_the_client_the_resource_and_the_rule(audited):
    producer = confluent_kafka.Producer(
        kafka_login(audited, "ann", "secret") | {"message.timeout.ms": 10000})
    errors = []
    producer.produce("ann.secret", b"x", on_delivery=lambda error, _: errors.append(error.name()))
    producer.flush(20)
    assert errors == ["TOPIC_AUTHORIZATION_FAILED"]
    with amqp_connection(audited, user="ann", password="secret") as connection:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker):
            connection.channel().queue_declare("bob.queue")
    with mqtt(audited, user=("ann", "secret"), client_id="sensor") as device:
        device.publish("doors/1", b"open")
        assert device.subscribe("doors/#")[0].is_failure
    with Events(audited) as events:
        kafka = events.wait(event="denied", protocol="kafka", user="ann", name="ann.secret", operation="write",
                            resource="topic")
        assert kafka["namespace"] == "/" and kafka["rule"] > 0
        amqp = events.wait(event="denied", protocol="amqp", user="ann", name="bob.queue", operation="create")
        assert amqp["result"] == "refused" and "rule" not in amqp
        publish = events.wait(event="denied", protocol="mqtt", client_id="sensor", operation="write", name="doors/1")
        assert publish["resource"] == "address"
        events.wait(event="denied", protocol="mqtt", client_id="sensor", operation="subscribe", name="doors/#")
    log = audited.log()
    assert any("permission denied" in line and "sensor" in line and "doors/1" in line for line in log.splitlines())


def test_changes_deletions_and_purges(audited):
    with amqp_connection(audited, user="ann", password="secret") as connection:
        channel = connection.channel()
        channel.queue_declare("ann.jobs", durable=True)
        channel.queue_declare("ann.short", exclusive=True)
        channel.queue_purge("ann.jobs")
        channel.queue_delete("ann.jobs")
    admin = confluent_kafka.admin.AdminClient(kafka_login(audited, "root", "secret"))
    admin.create_topics([confluent_kafka.admin.NewTopic("ann.log", 1)])["ann.log"].result(20)
    admin.delete_topics(["ann.log"])["ann.log"].result(20)
    assert ask(audited, "PUT", "/namespaces/shop", body={}) == 201
    assert ask(audited, "PUT", "/users/eve", body={"password": "p"}) == 201
    assert ask(audited, "DELETE", "/users/eve") == 204
    assert ask(audited, "DELETE", "/namespaces/shop") == 204
    with Events(audited) as events:
        events.wait(event="topology", protocol="amqp", user="ann", operation="create", resource="queue", name="ann.jobs")
        events.wait(event="deleted", protocol="amqp", operation="purge", resource="queue", name="ann.jobs")
        events.wait(event="deleted", protocol="amqp", operation="delete", resource="queue", name="ann.jobs")
        events.wait(event="topology", protocol="kafka", user="root", operation="create", resource="topic", name="ann.log")
        events.wait(event="deleted", protocol="kafka", user="root", operation="delete", resource="topic", name="ann.log")
        events.wait(event="access", protocol="http", user="root", operation="create", resource="user", name="eve")
        events.wait(event="access", protocol="http", user="root", operation="delete", resource="user", name="eve")
        events.wait(event="topology", protocol="http", operation="create", resource="namespace", name="shop")
        events.wait(event="deleted", protocol="http", operation="delete", resource="namespace", name="shop")
        assert events.find(name="ann.short") is None, "what ends with its connection is not recorded by default"


def test_the_topic_needs_permission_and_is_not_in_the_hub(audited):
    with Events(audited, user="ann") as events:
        known = events.consumer.list_topics(TOPIC, timeout=20).topics[TOPIC]
        assert known.error.name() == "TOPIC_AUTHORIZATION_FAILED" and events.find() is None
    heard = []
    with mqtt(audited, user=("root", "secret")) as listener:
        listener.client.on_message = lambda _c, _u, message: heard.append(message.topic)
        listener.subscribe("#")
        listener.subscribe(TOPIC)
        with mqtt(audited, user=("ann", "secret")):
            pass
        with mqtt(audited, user=("root", "secret")) as other:
            other.publish("last", b"x")
        wait_until(lambda: "last" in heard, what="the last message")
    assert TOPIC not in heard


def test_a_flood_of_denials_is_limited_and_told(own_broker, tmp_path, hashed):
    config = tmp_path / "inver.toml"
    config.write_text(USERS.format(hash=hashed) + f'\n[audit]\ntopic = "{TOPIC}"\n'
                      "[logging]\nconnection_lines_per_minute_max = 60\n")
    broker = own_broker(arguments=("--config", str(config)))
    done = []
    with mqtt(broker, user=("ann", "secret")) as device:
        device.client.on_publish = lambda *_: done.append(True)
        for _ in range(500):
            device.client.publish("doors/1", b"x", qos=1)
        wait_until(lambda: len(done) == 500, what="all refusals")
    with Events(broker) as events:
        events.wait(event="denied", name="doors/1")
        events.wait(event="login", protocol="kafka")
        denials = [one for one in events.seen if one["event"] == "denied"]
        assert 60 <= len(denials) <= 70


def test_deleted_groups_and_offsets(audited):
    admin = confluent_kafka.admin.AdminClient(kafka_login(audited, "root", "secret"))
    admin.create_topics([confluent_kafka.admin.NewTopic("of-groups", 2)])["of-groups"].result(20)
    for group in ("g-kafka", "g-http", "g-offsets"):
        consumer = confluent_kafka.Consumer(kafka_login(audited, "root", "secret") | {"group.id": group})
        offsets = [confluent_kafka.TopicPartition("of-groups", number, 0) for number in range(2)]
        consumer.commit(offsets=offsets, asynchronous=False)
        consumer.close()
    admin.delete_consumer_groups(["g-kafka"])["g-kafka"].result(20)
    assert ask(audited, "DELETE", "/subscriptions/group/g-http") == 204
    tool = kafka.KafkaAdminClient(
        bootstrap_servers=audited.kafka, security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN",
        sasl_plain_username="root", sasl_plain_password="secret")
    tool.delete_group_offsets("g-offsets", [kafka.TopicPartition("of-groups", 1)])
    tool.close()
    with Events(audited) as events:
        for protocol, group in (("kafka", "g-kafka"), ("http", "g-http")):
            events.wait(event="deleted", protocol=protocol, user="root", operation="delete", resource="group", name=group,
                        namespace="/")
        events.wait(event="deleted", protocol="kafka", operation="delete-offsets", resource="group", name="g-offsets")


def test_changes_by_the_configuration(own_broker, tmp_path, hashed):
    config = tmp_path / "inver.toml"
    text = USERS.format(hash=hashed) + f'\n[audit]\ntopic = "{TOPIC}"\n'
    config.write_text(text)
    broker = own_broker(arguments=("--config", str(config)))
    config.write_text(text.replace("[users.ann]", "[users.eve]").replace('user = "ann"', 'user = "eve"'))
    assert ask(broker, "POST", "/reload") == 200
    config.write_text("users = 3\n")
    assert ask(broker, "POST", "/reload") == 422
    with Events(broker) as events:
        start = events.wait(event="access", operation="load", resource="configuration", name="users")
        assert start["reason"] == "2 in the configuration" and "protocol" not in start
        assert events.wait(operation="load", name="permissions")["reason"] == "3 in the configuration"
        events.wait(event="access", operation="reload", resource="configuration", protocol="http", user="root")
        users = events.wait(event="access", result="accepted", operation="alter", resource="configuration", name="users")
        assert users["reason"] == "new: eve; gone: ann"
        events.wait(operation="alter", resource="configuration", name="permissions")
        refused = events.wait(event="access", result="refused", operation="reload", resource="configuration")
        assert "users" in refused["reason"]
