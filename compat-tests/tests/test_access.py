"""Users, permissions and namespaces of the running broker, by the command line, and what they mean on each protocol."""

import json
import queue

import confluent_kafka
import confluent_kafka.admin
import pika
import pytest

from clients import WAIT_SECONDS, Mqtt, amqp_connection, mqtt
from harness import binary, free_port, run, wait_until
from permission_table import user


def inver(broker, *arguments, password=None, check=True):
    """Runs `inver` as the administrator `root` once there is one."""
    stdin = (password + "\n").encode() if password else None
    done = run([binary(), *arguments], env=broker.environment, stdin=stdin, check=check)
    return done.stdout.decode() + done.stderr.decode()


@pytest.fixture
def managed(own_broker, tmp_path):
    """A broker with the administrator `root` and the user `ann`, who may do nothing yet, both added by the command line."""
    broker = own_broker()
    secret = tmp_path / "root.password"
    secret.write_text("root's secret\n")
    refused = inver(broker, "user", "add", "ann", password="secret", check=False)
    assert "administrator" in refused, "the first user must be able to administer the broker"
    assert "added user root" in inver(broker, "user", "add", "root", "--tags", "administrator", password="root's secret")
    broker.root = ["--login", "root", "--password-file", str(secret)]
    added = inver(broker, "user", "add", "ann", *broker.root, password="secret")
    assert "may do nothing yet" in added
    return broker


def produce(broker, topic, user="ann", password="secret"):
    """Produces a record; the error's name, or none."""
    producer = confluent_kafka.Producer({
        "bootstrap.servers": broker.kafka, "security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user, "sasl.password": password, "message.timeout.ms": 20000,
    })
    errors = []
    producer.produce(topic, b"x", on_delivery=lambda error, _: errors.append(error and error.name()))
    producer.flush(30)
    return errors[0]


def publish_mqtt(device, topic):
    """Publishes at QoS 1; the reason of the acknowledgement."""
    reasons = queue.Queue()
    device.client.on_publish = lambda _client, _data, _mid, reason, _properties: reasons.put(str(reason))
    device.client.publish(topic, b"x", qos=1)
    return reasons.get(timeout=WAIT_SECONDS)


def publish_amqp(broker, queue):
    """Publishes to a queue by way of the default exchange; the code of the channel's end, or none."""
    connection = amqp_connection(broker, user="ann", password="secret")
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, passive=True)
        channel.basic_publish("", queue, b"x")
        return None
    except pika.exceptions.ChannelClosedByBroker as error:
        return error.reply_code
    finally:
        connection.close()


def test_a_user_gets_permissions_on_all_protocols_at_once(managed):
    broker = managed
    root = broker.root
    admin = confluent_kafka.admin.AdminClient({
        "bootstrap.servers": broker.kafka, "security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN",
        "sasl.username": "root", "sasl.password": "root's secret",
    })
    for topic in ("orders", "other"):
        admin.create_topics([confluent_kafka.admin.NewTopic(topic, 1)])[topic].result()
    assert "denied: no rule allows it" in inver(
        broker, "permission", "check", *root, "--user", "ann", "--kind", "topic", "--name", "orders",
        "--operation", "write", check=False)
    assert produce(broker, "orders") == "TOPIC_AUTHORIZATION_FAILED"

    with mqtt(broker, user=("ann", "secret")) as device:
        assert publish_mqtt(device, "orders/1") == "Not authorized"
        rule = inver(broker, "permission", "add", *root, "--user", "ann", "--kind", "topic", "--prefix", "ord",
                     "--operations", "read,write").split()[0]
        inver(broker, "permission", "add", *root, "--user", "ann", "--kind", "address", "--filter", "orders/#",
              "--operations", "write")
        # The connection is the one from before.
        assert publish_mqtt(device, "orders/1") in ("Success", "No matching subscribers")
        assert publish_mqtt(device, "elsewhere") == "Not authorized"

    assert produce(broker, "orders") is None
    assert produce(broker, "other") == "TOPIC_AUTHORIZATION_FAILED"
    assert f"allowed: rule {rule} allows it" in inver(
        broker, "permission", "check", *root, "--user", "ann", "--kind", "topic", "--name", "orders", "--operation", "write")
    assert publish_amqp(broker, "elsewhere") == 403

    listed = inver(broker, "permission", "list", *root, "--user", "ann", "--output", "json")
    assert '"prefix": "ord"' in listed and "secret" not in listed
    inver(broker, "permission", "delete", *root, rule)
    assert produce(broker, "orders") == "TOPIC_AUTHORIZATION_FAILED"


def test_rules_for_clients_without_a_user(own_broker, tmp_path):
    """Added by the command line and by Kafka's ACLs, they are the same rules, and hold for every protocol."""
    port, kafka_port, config, secret = free_port(), free_port(), tmp_path / "inver.toml", tmp_path / "root.password"
    secret.write_text("root\n")
    config.write_text(user("root", ["administrator"]) + "".join(
        f'[[listeners]]\nprotocol = "{protocol}"\naddress = "127.0.0.1:{at}"\nanonymous = "always"\n'
        for protocol, at in (("mqtt", port), ("kafka", kafka_port))))
    broker = own_broker(arguments=["--config", config])
    root = ["--login", "root", "--password-file", str(secret)]
    with mqtt(broker, port=port) as device:
        assert publish_mqtt(device, "public/a") == "Not authorized"
        rule = inver(broker, "permission", "add", *root, "--anonymous", "--kind", "address", "--filter", "public/#",
                     "--operations", "write").split()[0]
        assert publish_mqtt(device, "public/a") in ("Success", "No matching subscribers")
        assert publish_mqtt(device, "private/a") == "Not authorized"
    admin = confluent_kafka.admin.AdminClient({
        "bootstrap.servers": f"127.0.0.1:{kafka_port}", "security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN",
        "sasl.username": "root", "sasl.password": "root"})
    acl = confluent_kafka.admin.AclBinding(
        confluent_kafka.admin.ResourceType.TOPIC, "open", confluent_kafka.admin.ResourcePatternType.LITERAL, "User:ANONYMOUS", "*",
        confluent_kafka.admin.AclOperation.DESCRIBE, confluent_kafka.admin.AclPermissionType.ALLOW)
    admin.create_topics([confluent_kafka.admin.NewTopic("open", 1)])["open"].result(WAIT_SECONDS)
    admin.create_acls([acl])[acl].result(WAIT_SECONDS)
    without = confluent_kafka.admin.AdminClient({"bootstrap.servers": f"127.0.0.1:{kafka_port}"})
    assert list(without.list_topics(timeout=WAIT_SECONDS).topics) == ["open"]
    listed = json.loads(inver(broker, "permission", "list", *root, "--output", "json"))
    assert [(each["anonymous"], each["user"], each["filter"] or each["name"]) for each in listed] == [
        (True, None, "public/#"), (True, None, "open")]
    assert f"allowed: rule {rule} allows it" in inver(
        broker, "permission", "check", *root, "--kind", "address", "--name", "public/x", "--operation", "write")


def test_users_are_changed_disabled_and_deleted(managed):
    broker, root = managed, managed.root
    assert "ann" in inver(broker, "user", "list", *root)
    assert "name an administrator with --login" in inver(broker, "user", "list", check=False)
    inver(broker, "user", "set", "ann", *root, "--tags", "administrator")
    with mqtt(broker, user=("ann", "secret")) as device:
        inver(broker, "user", "set", "ann", *root, "--disabled", "true")
        assert str(device.disconnects.get(timeout=WAIT_SECONDS)) == "Administrative action"
    assert Mqtt(broker, user=("ann", "secret")).reason.is_failure
    inver(broker, "user", "set", "ann", *root, "--disabled", "false")
    with mqtt(broker, user=("ann", "secret")):
        pass
    inver(broker, "user", "set", "ann", *root, "--tags", "")
    assert "no user would be left" in inver(broker, "user", "delete", "root", *root, check=False)
    inver(broker, "user", "delete", "ann", *root)
    assert Mqtt(broker, user=("ann", "secret")).reason.is_failure


def test_namespaces_separate_users(managed):
    broker, root = managed, managed.root
    inver(broker, "namespace", "add", "team", *root, "--description", "a team", "--queues-max", "1")
    assert "a team" in inver(broker, "namespace", "list", *root)
    inver(broker, "permission", "add", *root, "--user", "ann", "--namespace", "team", "--operations", "all")
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="530"):
        amqp_connection(broker, user="ann", password="secret")
    connection = amqp_connection(broker, user="ann", password="secret", virtual_host="team")
    channel = connection.channel()
    channel.queue_declare("q")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        channel.queue_declare("r")
    with mqtt(broker, user=("team:ann", "secret")) as device:
        device.subscribe("a")
    inver(broker, "namespace", "delete", "team", *root)
    wait_until(lambda: "team" not in inver(broker, "namespace", "list", *root), what="the namespace is gone")
    with pytest.raises(pika.exceptions.AMQPError):
        connection.process_data_events(1)
        connection.channel()


def test_permissions_in_rabbitmqs_form(managed):
    broker, root = managed, managed.root

    def permission(*arguments, check=True):
        return inver(broker, "permission", *arguments, *root, check=check)

    def listed(kind):
        return json.loads(permission("list", kind, "-o", "json"))

    def attempt(act):
        """The code with which the broker closes the channel, or none."""
        connection = amqp_connection(broker, user="ann", password="secret")
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            act(channel)
            return None
        except pika.exceptions.ChannelClosedByBroker as error:
            return error.reply_code
        finally:
            connection.close()

    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="530"):
        amqp_connection(broker, user="ann", password="secret")
    permission("set", "--user", "ann", "--configure", "^ann-", "--write", "^(ann-|amq\\.topic$|amq\\.default$)",
               "--read", "^(ann-|amq\\.topic$)")
    assert listed("--expressions") == [{
        "user": "ann", "namespace": "/", "configure": "^ann-", "write": "^(ann-|amq\\.topic$|amq\\.default$)",
        "read": "^(ann-|amq\\.topic$)"}]
    assert attempt(lambda channel: channel.queue_declare("ann-q")) is None
    assert attempt(lambda channel: channel.queue_declare("bob-q")) == 403
    assert attempt(lambda channel: channel.basic_publish("", "ann-q", b"x")) is None
    assert attempt(lambda channel: channel.basic_publish("amq.direct", "ann-q", b"x")) == 403
    assert attempt(lambda channel: channel.basic_get("ann-q", auto_ack=True)) is None
    # Topic permissions narrow the keys.
    bind = lambda key: attempt(lambda channel: channel.queue_bind("ann-q", "amq.topic", key))
    send = lambda key: attempt(lambda channel: channel.basic_publish("amq.topic", key, b"x"))
    assert bind("other.#") is None and send("other.x") is None
    permission("set-topic", "--user", "ann", "--exchange", "amq.topic", "--write", "^{username}\\.", "--read", "^ann\\.")
    assert (bind("ann.#"), bind("other.1"), send("ann.x"), send("other.x")) == (None, 403, None, 403)
    [topic] = listed("--topics")
    assert topic == {"user": "ann", "namespace": "/", "exchange": "amq.topic", "write": "^{username}\\.", "read": "^ann\\."}
    assert "rabbitmq" in permission("list", "--user", "ann", "-o", "json")
    # Setting replaces what was set, and leaves topic permissions as they are.
    permission("set", "--user", "ann", "--configure", "", "--write", ".*", "--read", "")
    assert attempt(lambda channel: channel.queue_declare("ann-r")) == 403
    assert attempt(lambda channel: channel.basic_get("ann-q")) == 403
    assert send("other.x") == 403 and len(listed("--topics")) == 1
    permission("clear-topic", "--user", "ann", "--exchange", "amq.topic")
    assert send("other.x") is None and listed("--topics") == []
    permission("clear", "--user", "ann")
    assert listed("--expressions") == []
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="530"):
        amqp_connection(broker, user="ann", password="secret")
    # What cannot be.
    every = ["--configure", ".*", "--write", ".*", "--read", ".*"]
    assert "there is no user `bob`" in permission("set", "--user", "bob", *every, check=False)
    assert "there is no namespace `n`" in permission("set", "--user", "ann", "--namespace", "n", *every, check=False)
    wrong = permission("set", "--user", "ann", "--configure", "(?=x)", "--write", "", "--read", "", check=False)
    assert "look-around" in wrong, wrong
    assert "no permission of this form" in permission("clear", "--user", "ann", check=False)
    assert "no such topic permission" in permission("clear-topic", "--user", "ann", check=False)
    refused = inver(broker, "permission", "clear", "--user", "root", "--login", "ann", password="secret", check=False)
    assert "tag" in refused, refused
