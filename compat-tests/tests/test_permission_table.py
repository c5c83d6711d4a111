"""Every user, operation and resource of the permission table, over AMQP, Kafka and MQTT, allowed and refused, with the codes
and texts of each protocol; and the broker's own answer to `permission check`.

RabbitMQ 4.0.5 gives the users of its three rights (`u…`) the same answers, but to passive declarations, which need nothing
before RabbitMQ 4.3.1.
"""

import base64
import functools
import json
import urllib.parse
import urllib.request

import confluent_kafka
import kafka
import kafka.admin
import kafka.errors
import paho.mqtt.client as paho
import pika
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient, AlterConfigOpType,
                                   ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourcePatternType,
                                   ResourceType, ScramMechanism, UserScramCredentialDeletion)

import permission_table as table
from clients import QUIET, WAIT_SECONDS, MqttUser, amqp_refusal, wait_until
from harness import Broker


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("permission-table")
    path = folder / "inver.toml"
    path.write_text(table.configuration())
    broker = Broker(folder, arguments=["--config", path]).start()
    yield broker
    try:
        broker.check()
    finally:
        broker.end()


def wrong_cells(operations, attempt):
    """The cells with another answer than the table's; `attempt` returns what is wrong, or none."""
    wrong = []
    for cell in table.cells(operations):
        said = attempt(*cell)
        if said is not None:
            wrong.append((*cell, said))
    return wrong


# ---- AMQP


def publish(channel, exchange, key):
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"")


def declare_and_delete(channel, queue, arguments):
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_delete(queue)


def declare_and_delete_exchange(channel, exchange, arguments):
    channel.exchange_declare(exchange, arguments=arguments)
    channel.exchange_delete(exchange)


AMQP_ACTS = {
    "declare a queue": lambda ch, n: ch.queue_declare(f"{n}.q", durable=True),
    "inspect a queue": lambda ch, n: ch.queue_declare(f"{n}.q", passive=True),
    "delete a queue": lambda ch, n: ch.queue_delete(f"{n}.none"),
    "purge": lambda ch, n: ch.queue_purge(f"{n}.q"),
    "get": lambda ch, n: ch.basic_get(f"{n}.q", auto_ack=True),
    "consume": lambda ch, n: ch.basic_consume(f"{n}.q", lambda *_: None),
    "bind a queue": lambda ch, n: ch.queue_bind(f"{n}.q", f"{n}.x", "k"),
    "unbind a queue": lambda ch, n: ch.queue_unbind(f"{n}.q", f"{n}.x", "k"),
    "bind an exchange": lambda ch, n: ch.exchange_bind(f"{n}.x", f"{n}.y", "k"),
    "unbind an exchange": lambda ch, n: ch.exchange_unbind(f"{n}.x", f"{n}.y", "k"),
    "declare an exchange": lambda ch, n: ch.exchange_declare(f"{n}.x"),
    "inspect an exchange": lambda ch, n: ch.exchange_declare(f"{n}.x", passive=True),
    "delete an exchange": lambda ch, n: ch.exchange_delete(f"{n}.none"),
    "publish": lambda ch, n: publish(ch, f"{n}.x", "k"),
    "publish to the default exchange": lambda ch, n: publish(ch, "", f"{n}.none"),
    "declare with a dead-letter exchange": lambda ch, n: declare_and_delete(ch, f"{n}.dead", {"x-dead-letter-exchange": f"{n}.x"}),
    "declare with an alternate exchange": lambda ch, n: declare_and_delete_exchange(ch, f"{n}.alt", {"alternate-exchange": f"{n}.x"}),
    "declare a queue named by the broker": lambda ch, n: ch.queue_declare("", exclusive=True),
    "consume replies": lambda ch, n: ch.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True),
}


def amqp_connect(port, name):
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=pika.PlainCredentials(name, name)))


def amqp_text(who, need):
    """How the text of a refusal begins and ends; between them is what the broker adds to a name of its own."""
    kind, name, operation = need
    right = "configure" if operation in ("create", "delete", "describe") else operation
    kind = "queue" if kind == "topic" else kind
    return f"ACCESS_REFUSED - {right} access to {kind} '{name}", f"' in vhost '/' refused for user '{who}'"


def amqp_cells(port):
    with amqp_connect(port, "root") as connection:
        channel = connection.channel()
        for name in table.RESOURCES:
            channel.queue_declare(f"{name}.q", durable=True)
            for exchange in ("x", "y"):
                channel.exchange_declare(f"{name}.{exchange}")
    connections = {}

    def attempt(who, what, resource, refused):
        if who not in connections:
            connections[who] = amqp_connect(port, who)
        got = amqp_refusal(connections[who], lambda channel: AMQP_ACTS[what](channel, resource))
        if not refused or got is None:
            return "allowed" if refused else got
        # Rights are asked for in order.
        begin, end = amqp_text(who, refused[0])
        is_right = got[0] == 403 and got[1].startswith(begin) and got[1].endswith(end)
        return None if is_right and (refused[0][1] == "amq.gen-" or got[1] == begin + end) else got

    wrong = wrong_cells(table.AMQP, attempt)
    for connection in connections.values():
        connection.close()
    return wrong


def test_amqp(guarded):
    assert amqp_cells(guarded.amqp_port) == []


# ---- Kafka


REFUSED = {"topic": KafkaError.TOPIC_AUTHORIZATION_FAILED, "group": KafkaError.GROUP_AUTHORIZATION_FAILED,
           "cluster": KafkaError.CLUSTER_AUTHORIZATION_FAILED}
EVERY_ACL = kafka.admin.ACLFilter(
    principal=None, host=None, operation=kafka.admin.ACLOperation.ANY, permission_type=kafka.admin.ACLPermissionType.ANY,
    resource_pattern=kafka.admin.ResourcePatternFilter(kafka.admin.ResourceType.ANY, None, kafka.admin.ACLResourcePatternType.ANY))
# What matches nothing.
NO_ACL = AclBindingFilter(ResourceType.TOPIC, "nothing", ResourcePatternType.LITERAL, "User:no", None, AclOperation.READ,
                          AclPermissionType.ALLOW)
# What the broker refuses as already there, or not there, once the permission is granted.
ACL = AclBinding(ResourceType.TOPIC, "nothing", ResourcePatternType.LITERAL, "User:no", "*", AclOperation.READ,
                 AclPermissionType.DENY)


def result(futures):
    """The result of the only call."""
    future, = futures.values()
    return future.result(WAIT_SECONDS)


class KafkaUser:
    """The clients of one user; each call raises what the broker refuses."""

    def __init__(self, broker, who):
        self.login = {"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT",
                      "sasl.mechanism": "PLAIN", "sasl.username": who, "sasl.password": who}
        self.admin = AdminClient(self.login)
        self.options = {"bootstrap_servers": broker.kafka, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN",
                        "sasl_plain_username": who, "sasl_plain_password": who}
        self.producers = {}

    @functools.cached_property
    def python(self):
        """kafka-python: librdkafka's Python client has no errors for some calls."""
        return kafka.KafkaAdminClient(**self.options)

    def produce(self, n, with_id=False):
        # A producer that was refused a producer id is of no more use.
        producer = self.producers.get(with_id) or confluent_kafka.Producer(
            {**self.login, "enable.idempotence": with_id, "linger.ms": 0, "message.timeout.ms": 10_000,
             "topic.metadata.refresh.interval.ms": -1, "error_cb": self.note})
        if not with_id:
            self.producers[with_id] = producer
        self.fatal, errors = None, []
        producer.produce(f"{n}.q", b"x", on_delivery=lambda error, _message: errors.append(error))

        def is_done():
            producer.poll(0.01)
            return errors or self.fatal

        wait_until(is_done, WAIT_SECONDS, "an answer to a record")
        error = self.fatal or errors[0]
        if error:
            raise KafkaException(error)

    def note(self, error):
        if error.code() in REFUSED.values():
            self.fatal = error

    def fetch(self, n):
        consumer = confluent_kafka.Consumer({**self.login, "group.id": "none", "enable.auto.commit": False,
                                             "fetch.wait.max.ms": 10, "enable.partition.eof": True})
        try:
            # The library tells an application that consumes nothing of a topic that it may not describe.
            known = consumer.list_topics(f"{n}.q", WAIT_SECONDS).topics[f"{n}.q"]
            if known.error:
                raise KafkaException(known.error)
            consumer.assign([TopicPartition(f"{n}.q", 0, 0)])

            def answer():
                message = consumer.poll(0.02)
                is_of_group = message is not None and message.error() and message.error().code() == REFUSED["group"]
                return None if is_of_group else message

            error = wait_until(answer, WAIT_SECONDS, "a record or an error").error()
            if error and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        finally:
            consumer.close()

    def join(self, n):
        """Joins a group; what it may read there does not matter."""
        consumer = confluent_kafka.Consumer({**self.login, "group.id": f"{n}.g", "session.timeout.ms": 6000})
        seen = []
        consumer.subscribe([f"{n}.q"], on_assign=lambda *_: seen.append(None))

        def answer():
            message = consumer.poll(0.02)
            if message is not None and message.error():
                seen.append(message.error())
            return seen

        try:
            error = wait_until(answer, WAIT_SECONDS, "an assignment or an error")[0]
            if error:
                raise KafkaException(error)
        finally:
            consumer.close()

    def delete_offsets(self, n):
        """Of a partition without any: what may be read stays as it is."""
        for error in self.python.delete_group_offsets(f"{n}.g", [kafka.TopicPartition(f"{n}.q", 1)]).values():
            if error is not kafka.errors.NoError:
                raise error()

    def offsets(self, n, call):
        """Offsets of a group: an error may be the group's or the partition's."""
        told = result(call)
        for partition in told.topic_partitions:
            if partition.error:
                raise KafkaException(partition.error)

    def group_offsets(self, n, offset=None):
        partition = TopicPartition(f"{n}.q", 0) if offset is None else TopicPartition(f"{n}.q", 0, offset)
        return [confluent_kafka.ConsumerGroupTopicPartitions(f"{n}.g", [partition])]


def describe_topic(user, n):
    topic = result(user.admin.describe_topics(confluent_kafka.TopicCollection([f"{n}.q"])))
    assert topic.name == f"{n}.q"


def alter(user, resource):
    entry = ConfigEntry("retention.ms", "100000000", incremental_operation=AlterConfigOpType.SET)
    of = ConfigResource(*resource, incremental_configs=[entry])
    result(user.admin.incremental_alter_configs([of], validate_only=True))


KAFKA_ACTS = {
    "produce": lambda u, n: u.produce(n),
    "produce with a producer id": lambda u, n: u.produce(n, with_id=True),
    "fetch": lambda u, n: u.fetch(n),
    "describe a topic": describe_topic,
    "list offsets": lambda u, n: result(u.admin.list_offsets({TopicPartition(f"{n}.q", 0): OffsetSpec.latest()})),
    "create a topic": lambda u, n: result(u.admin.create_topics([NewTopic(f"{n}.new", 1)], validate_only=True)),
    "delete a topic": lambda u, n: result(u.admin.delete_topics([f"{n}.none"])),
    "delete records": lambda u, n: result(u.admin.delete_records([TopicPartition(f"{n}.q", 0, 0)])),
    "create partitions": lambda u, n: result(u.admin.create_partitions([NewPartitions(f"{n}.q", 2)], validate_only=True)),
    "describe settings": lambda u, n: result(u.admin.describe_configs([ConfigResource(ResourceType.TOPIC, f"{n}.q")])),
    "alter settings": lambda u, n: alter(u, (ResourceType.TOPIC, f"{n}.q")),
    "describe settings of the broker": lambda u, n: result(u.admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")])),
    "join a group": lambda u, n: u.join(n),
    "describe a group": lambda u, n: result(u.admin.describe_consumer_groups([f"{n}.g"])),
    "delete a group": lambda u, n: result(u.admin.delete_consumer_groups([f"{n}.none"])),
    "commit offsets": lambda u, n: u.offsets(n, u.admin.alter_consumer_group_offsets(u.group_offsets(n, 1))),
    "read offsets": lambda u, n: u.offsets(n, u.admin.list_consumer_group_offsets(u.group_offsets(n))),
    "delete offsets": lambda u, n: u.delete_offsets(n),
    "list ACLs": lambda u, n: u.python.describe_acls(EVERY_ACL),
    "describe SCRAM users": lambda u, n: u.python.describe_user_scram_credentials(["root"]),
    "create an ACL": lambda u, n: result(u.admin.create_acls([ACL])),
    "delete ACLs": lambda u, n: result(u.admin.delete_acls([NO_ACL])),
    "delete a SCRAM user": lambda u, n: result(u.admin.alter_user_scram_credentials(
        [UserScramCredentialDeletion("no", ScramMechanism.SCRAM_SHA_256)])),
}


def prepare_kafka(broker):
    """Topics with a record, and groups with an offset."""
    root = KafkaUser(broker, "root")
    for name in table.RESOURCES:
        if f"{name}.q" not in root.admin.list_topics(timeout=WAIT_SECONDS).topics:
            result(root.admin.create_topics([NewTopic(f"{name}.q", 1)]))
        root.produce(name)
        KAFKA_ACTS["commit offsets"](root, name)


def test_kafka(guarded):
    prepare_kafka(guarded)
    users = {}

    def attempt(who, what, resource, refused):
        if who not in users:
            users[who] = KafkaUser(guarded, who)
        try:
            KAFKA_ACTS[what](users[who], resource)
            code = None
        except KafkaException as error:
            code = error.args[0].code()
        except kafka.errors.KafkaError as error:
            code = error.errno
        if not refused:
            return code if code in (*REFUSED.values(), KafkaError._NOENT) else None
        # Which of several requests is refused first depends on the client.
        right = {REFUSED[kind] for kind, _name, _operation in refused}
        if refused[0] == ("topic", f"{resource}.q", "describe"):
            # What librdkafka makes of a topic that it may not see, where it asks for the leaders of partitions.
            right.add(KafkaError._NOENT)
        return None if code in right else code or "allowed"

    assert wrong_cells(table.KAFKA, attempt) == []


def test_kafka_lists_what_may_be_described(guarded):
    prepare_kafka(guarded)
    for who in table.USERS:
        admin = KafkaUser(guarded, who).admin
        topics = [name for name in admin.list_topics(timeout=WAIT_SECONDS).topics if name.endswith(".q")]
        assert sorted(topics) == [f"{n}.q" for n in table.RESOURCES if table.decide(who, "topic", f"{n}.q", "describe")], who
        groups = [group.group_id for group in admin.list_consumer_groups().result(WAIT_SECONDS).valid]
        may_see_all = table.decide(who, "cluster", "", "describe")
        assert sorted(name for name in groups if name.endswith(".g")) == [
            f"{n}.g" for n in table.RESOURCES if may_see_all or table.decide(who, "group", f"{n}.g", "describe")], who


# ---- MQTT


PUBLISHED, DENIED = (0, 0x10), 0x87


class MqttCells:
    """Tries cells of users by one version; `root` sees what is delivered."""

    def __init__(self, broker, version):
        self.broker, self.version, self.users, self.count = broker, version, {}, 0
        self.root = MqttUser(broker, "root", paho.MQTTv5, f"watcher-{version}")
        assert self.root.connect() == 0
        for name in (*table.RESOURCES, "marker"):
            assert self.root.subscribe(f"{name}/#") == 1

    def user(self, who):
        if who not in self.users:
            self.users[who] = MqttUser(self.broker, who, self.version, f"{who}-{self.version}")
            assert self.users[who].connect() == 0, who
        return self.users[who]

    def payload(self):
        self.count += 1
        return b"%d of version %d" % (self.count, self.version)

    def seen(self, payload):
        """Whether root received it, or has by when a later message comes."""
        marker = self.payload()
        self.root.publish("marker/a", marker)
        wait_until(lambda: any(each[1] == marker for each in self.root.messages), WAIT_SECONDS, "the marker")
        return any(each[1] == payload for each in self.root.messages)

    def publish(self, who, n, qos, retain=False):
        """What is wrong with the acknowledgement, or whether the message was delivered."""
        payload = self.payload()
        code = self.user(who).publish(f"{n}/a", payload, qos, retain)
        # An answer shows that what came before it was taken.
        self.user(who).unsubscribe("nothing")
        is_seen = self.seen(payload)
        if qos == 1 and self.version == paho.MQTTv5 and (code in PUBLISHED) != is_seen:
            return f"{code:#x}, delivered: {is_seen}"
        if qos == 1 and not is_seen and code != (DENIED if self.version == paho.MQTTv5 else 0):
            return f"{code:#x}"
        return is_seen

    def retain(self, who, n):
        payload = self.payload()
        self.user(who).publish(f"{n}/a", payload, 1, retain=True)
        self.root.messages.clear()
        self.root.subscribe(f"{n}/#")
        is_kept = self.seen(payload)
        self.root.publish(f"{n}/a", b"", retain=True)
        return is_kept

    def will(self, who, n):
        payload, client_id = self.payload(), f"will-{who}-{self.version}"
        client = MqttUser(self.broker, who, self.version, client_id)
        client.client.will_set(f"{n}/a", payload, 1)
        assert client.connect() == 0
        client.drop()
        # Its session is over before another has its name.
        again = MqttUser(self.broker, who, self.version, client_id)
        assert again.connect() == 0
        again.close()
        return self.seen(payload)

    def subscribe(self, who, topic):
        user = self.user(who)
        code = user.subscribe(topic)
        if code < 0x80:
            user.unsubscribe(topic)
            return True
        return False if code == (DENIED if self.version == paho.MQTTv5 else 0x80) else f"{code:#x}"

    def receive(self, who, n):
        """What comes to `mine/a` afterwards shows that nothing more comes."""
        user, payload, last = self.user(who), self.payload(), self.payload()
        granted = {name: user.subscribe(f"{name}/a") < 0x80 for name in {n, "mine"}}
        self.root.publish(f"{n}/a", payload)
        self.root.publish("mine/a", last)
        has = lambda wanted: any(each[1] == wanted for each in user.messages)  # noqa: E731
        if table.decide(who, "address", "mine/a", "receive") and granted["mine"]:
            wait_until(lambda: has(last), WAIT_SECONDS, "the later message")
        for name in granted:
            user.unsubscribe(f"{name}/a")
        return has(payload)

    def resume(self, who, n):
        client_id, kept = f"{n}-{who}", {"clean_start": False} if self.version == paho.MQTTv5 else {}
        options = {} if kept else {"clean_session": False}
        if kept:
            properties = paho.Properties(paho.PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600
            kept["properties"] = properties
        owner = MqttUser(self.broker, "root", self.version, client_id, **options)
        assert owner.connect(**kept) == 0
        owner.close()
        other = MqttUser(self.broker, who, self.version, client_id, **options)
        code = other.connect(**kept)
        other.close()
        gone = MqttUser(self.broker, "root", paho.MQTTv5, client_id)
        assert gone.connect(clean_start=True) == 0
        gone.close()
        return True if code == 0 else False if code == DENIED else f"{code:#x}"

    def attempt(self, who, what, n, refused):
        said = MQTT_ACTS[what](self, who, n)
        return None if said is (not refused) else said

    def close(self):
        for user in (self.root, *self.users.values()):
            user.close()


MQTT_ACTS = {
    "publish at QoS 0": lambda cells, who, n: cells.publish(who, n, 0),
    "publish at QoS 1": lambda cells, who, n: cells.publish(who, n, 1),
    "publish at QoS 2": lambda cells, who, n: cells.publish(who, n, 2),
    "retain": lambda cells, who, n: cells.retain(who, n),
    "leave a will": lambda cells, who, n: cells.will(who, n),
    "subscribe": lambda cells, who, n: cells.subscribe(who, f"{n}/a"),
    "subscribe to a filter": lambda cells, who, n: cells.subscribe(who, f"{n}/#"),
    "share a subscription": lambda cells, who, n: cells.subscribe(who, f"$share/g-{cells.version}/{n}/a"),
    "receive": lambda cells, who, n: cells.receive(who, n),
    "resume a session of another user": lambda cells, who, n: cells.resume(who, n),
}


@pytest.mark.parametrize("version", (paho.MQTTv311, paho.MQTTv5))
def test_mqtt(guarded, version):
    cells = MqttCells(guarded, version)
    try:
        assert wrong_cells(table.MQTT, cells.attempt) == []
    finally:
        cells.close()


# ---- The broker's own word


def test_permission_check_says_the_same(guarded):
    """What an administrator is told is what the clients above met."""
    basic = base64.b64encode(b"root:root").decode()
    asked = {(who, *need) for operations in (table.AMQP, table.KAFKA, table.MQTT) for who in table.USERS
             for needs in operations.values() for choice in needs for n in table.RESOURCES
             for need in [(kind, name.format(n=n, u=who), operation)
                          for kind, name, operation in (choice if isinstance(choice, list) else [choice])]}
    wrong = []
    for who, kind, name, operation in sorted(asked):
        query = urllib.parse.urlencode({"user": who, "kind": kind, "name": name, "operation": operation, "host": table.HERE})
        request = urllib.request.Request(f"http://127.0.0.1:{guarded.http_port}/api/v1/permissions/check?{query}",
                                         headers={"Authorization": f"Basic {basic}"})
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            told = json.loads(answer.read())
        # A question about an address is none about a filter.
        if not name.endswith("#") and told["allowed"] != table.decide(who, kind, name, operation):
            wrong.append((who, kind, name, operation, told))
    assert wrong == []
