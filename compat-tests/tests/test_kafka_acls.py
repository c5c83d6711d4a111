"""Users, access control lists and their enforcement, by Kafka's own tools, librdkafka and kafka-python."""

import json
import tomllib

import confluent_kafka
import kafka
import kafka.admin
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient,
                                   ConfigResource, NewPartitions, NewTopic, ResourcePatternType, ResourceType,
                                   ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion)

from clients import QUIET, WAIT_SECONDS, java, kafka_tool, wait_until
from harness import binary, run

PASSWORDS = {"admin": "admin-secret", "ann": "ann-secret", "bob": "bob-secret"}


def settings(broker, user, **more):
    return {"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user, "sasl.password": PASSWORDS[user], **more}


def properties(path, user):
    path.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\n"
        "request.timeout.ms=10000\ndefault.api.timeout.ms=15000\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{user}" password="{PASSWORDS[user]}";\n')
    return path


def code(future):
    """The error code of a call, or 0."""
    try:
        future.result(WAIT_SECONDS)
        return 0
    except KafkaException as error:
        return error.args[0].code()


def put_user(admin, name):
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(name, info, PASSWORDS[name].encode())
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(WAIT_SECONDS)


@pytest.fixture
def users(own_broker):
    """A broker whose users were made over the wire: `admin`, the first, and `ann` and `bob`, who may do nothing."""
    broker = own_broker()
    put_user(AdminClient({"bootstrap.servers": broker.kafka, **QUIET}), "admin")
    admin = AdminClient(settings(broker, "admin"))
    put_user(admin, "ann")
    put_user(admin, "bob")
    return broker


def acl(kind, name, operation, user="ann", pattern=ResourcePatternType.LITERAL, permission=AclPermissionType.ALLOW,
        host="*"):
    return AclBinding(kind, name, pattern, f"User:{user}", host, operation, permission)


def allow(admin, *bindings):
    for future in admin.create_acls(list(bindings)).values():
        future.result(WAIT_SECONDS)


EVERY = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY,
                         AclPermissionType.ANY)


def test_kafka_configs_and_kafka_acls(own_broker, tmp_path):
    broker = own_broker()
    at = ["--bootstrap-server", broker.kafka]

    def configs(*arguments, check=True):
        return java("console", "kafka.admin.ConfigCommand", *at, "--entity-type", "users", *arguments, check=check)

    configs("--alter", "--entity-name", "admin", "--add-config", f"SCRAM-SHA-512=[password={PASSWORDS['admin']}]")
    by_admin = ["--command-config", properties(tmp_path / "admin.properties", "admin")]
    configs(*by_admin, "--alter", "--entity-name", "ann", "--add-config",
            f"SCRAM-SHA-512=[iterations=8192,password={PASSWORDS['ann']}],SCRAM-SHA-256=[password=other]")
    configs(*by_admin, "--alter", "--entity-name", "ann", "--delete-config", "SCRAM-SHA-256")
    described = configs(*by_admin, "--describe")
    assert "'ann' are SCRAM-SHA-512=iterations=8192" in described, described
    assert "'admin' are SCRAM-SHA-512=iterations=4096" in described, described
    def acls(*arguments, by=by_admin, check=True):
        return java("console", "org.apache.kafka.tools.AclCommand", *at, *by, *arguments, check=check)

    ann = ["--allow-principal", "User:ann"]
    acls("--add", *ann, "--producer", "--topic", "orders")
    acls("--add", *ann, "--consumer", "--topic", "orders-", "--group", "*", "--resource-pattern-type", "prefixed")
    acls("--add", "--deny-principal", "User:*", "--deny-host", "192.0.2.1", "--operation", "All", "--topic", "*")
    acls("--add", *ann, "--operation", "IdempotentWrite", "--cluster", "--transactional-id", "tx", check=False)
    acls("--add", *ann, "--operation", "Describe", "--cluster")
    acls("--add", *ann, "--operation", "Write", "--transactional-id", "tx")
    everything = acls("--list")
    for line in (
        "resourceType=TOPIC, name=orders, patternType=LITERAL",
        "(principal=User:ann, host=*, operation=WRITE, permissionType=ALLOW)",
        "(principal=User:ann, host=*, operation=CREATE, permissionType=ALLOW)",
        "resourceType=TOPIC, name=orders-, patternType=PREFIXED",
        "(principal=User:*, host=192.0.2.1, operation=ALL, permissionType=DENY)",
        "resourceType=CLUSTER, name=kafka-cluster, patternType=LITERAL",
        "resourceType=TRANSACTIONAL_ID, name=tx, patternType=LITERAL",
    ):
        assert line in everything, everything
    matching = acls("--list", "--topic", "orders-1", "--resource-pattern-type", "match")
    assert "name=orders-," in matching and "name=*," in matching and "name=orders," not in matching, matching
    assert "TRANSACTIONAL_ID" not in acls("--list", "--principal", "User:bob")
    acls("--remove", "--force", *ann, "--operation", "Write", "--topic", "orders")
    left = acls("--list", "--topic", "orders")
    assert "operation=CREATE" in left and "operation=WRITE" not in left, left
    acls("--remove", "--force", "--topic", "*")
    assert "DENY" not in acls("--list")
    # Ann may see the rules, and not change them.
    by_ann = ["--command-config", properties(tmp_path / "ann.properties", "ann")]
    assert "orders-" in acls("--list", by=by_ann)
    assert "Cluster authorization failed" in acls("--add", *ann, "--operation", "All", "--topic", "*", by=by_ann,
                                                  check=False)
    said = java("console", "org.apache.kafka.tools.TopicCommand", *at, *by_ann, "--create", "--topic", "others",
                check=False)
    assert "Authorization failed" in said, said
    kafka_tool("TopicCommand", *at, *by_ann, "--create", "--topic", "orders", "--partitions", "1")
    assert PASSWORDS["ann"] not in broker.log()


def test_each_operation_needs_its_permission(users):
    admin, ann = AdminClient(settings(users, "admin")), AdminClient(settings(users, "ann"))
    for future in admin.create_topics([NewTopic("t", 1), NewTopic("other", 1)]).values():
        future.result(WAIT_SECONDS)
    topic, cluster, group = ResourceType.TOPIC, ResourceType.BROKER, ResourceType.GROUP
    no_topic, no_cluster, no_group = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
                                      KafkaError.GROUP_AUTHORIZATION_FAILED)
    of_t, of_broker = ConfigResource(topic, "t"), ConfigResource(ResourceType.BROKER, "1")
    calls = [
        # (call, error, ACL that lets ann)
        (lambda: ann.create_partitions([NewPartitions("t", 2)])["t"], no_topic, (topic, "t", AclOperation.ALTER)),
        (lambda: ann.describe_configs([of_t])[of_t], no_topic, (topic, "t", AclOperation.DESCRIBE_CONFIGS)),
        (lambda: ann.alter_configs([of_t])[of_t], no_topic, (topic, "t", AclOperation.ALTER_CONFIGS)),
        (lambda: ann.create_topics([NewTopic("new", 1)])["new"], no_topic, (topic, "new", AclOperation.CREATE)),
        (lambda: ann.delete_topics(["other"])["other"], no_topic, (topic, "other", AclOperation.DELETE)),
        (lambda: ann.delete_topics(["missing"])["missing"], no_topic, None),
        (lambda: ann.describe_configs([of_broker])[of_broker], no_cluster,
         (cluster, "kafka-cluster", AclOperation.DESCRIBE_CONFIGS)),
        (lambda: ann.describe_consumer_groups(["g"])["g"], no_group, (group, "g", AclOperation.DESCRIBE)),
        (lambda: ann.delete_consumer_groups(["g"])["g"], no_group, (group, "g", AclOperation.DELETE)),
    ]
    for number, (call, error, needed) in enumerate(calls):
        assert code(call()) == error, f"call {number} without permission"
        if needed:
            allow(admin, acl(*needed))
            assert code(call()) not in (no_topic, no_cluster, no_group), f"call {number} with permission"


def test_producers_and_consumers_are_held_to_their_topics_and_groups(users):
    admin = AdminClient(settings(users, "admin"))
    for future in admin.create_topics([NewTopic("t", 1), NewTopic("secret", 1)]).values():
        future.result(WAIT_SECONDS)
    allow(admin, acl(ResourceType.TOPIC, "t", AclOperation.WRITE), acl(ResourceType.TOPIC, "t", AclOperation.READ, "bob"),
          acl(ResourceType.GROUP, "g", AclOperation.READ, "bob"))

    def produce(topic):
        producer = confluent_kafka.Producer(settings(users, "ann", **{"enable.idempotence": True}))
        errors = []
        producer.produce(topic, b"value", on_delivery=lambda error, _message: errors.append(error))
        producer.flush(WAIT_SECONDS)
        return errors[0] and errors[0].code()

    assert produce("t") is None
    for topic in ("secret", "missing"):
        assert produce(topic) == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert "missing" not in admin.list_topics(timeout=WAIT_SECONDS).topics
    listed = AdminClient(settings(users, "bob")).list_topics(timeout=WAIT_SECONDS).topics
    assert list(listed) == ["t"]

    def consume(group, topic):
        consumer = confluent_kafka.Consumer(settings(users, "bob", **{"group.id": group,
                                                                     "auto.offset.reset": "earliest"}))
        consumer.subscribe([topic])
        try:
            message = wait_until(lambda: consumer.poll(0.2), WAIT_SECONDS, "a message or an error")
            return message.value() if message.error() is None else message.error().code()
        finally:
            consumer.close()

    assert consume("g", "t") == b"value"
    assert consume("other", "t") == KafkaError.GROUP_AUTHORIZATION_FAILED
    assert consume("g", "secret") == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_consumer_at_work_notices_that_its_right_is_gone(users):
    admin = AdminClient(settings(users, "admin"))
    admin.create_topics([NewTopic("t", 1)])["t"].result(WAIT_SECONDS)
    reads = acl(ResourceType.TOPIC, "t", AclOperation.READ, "bob")
    allow(admin, reads, acl(ResourceType.GROUP, "g", AclOperation.READ, "bob"))
    consumer = confluent_kafka.Consumer(settings(users, "bob", **{"group.id": "g", "auto.offset.reset": "earliest"}))
    consumer.subscribe(["t"])
    producer = confluent_kafka.Producer(settings(users, "admin"))
    producer.produce("t", b"1")
    producer.flush(WAIT_SECONDS)
    assert wait_until(lambda: consumer.poll(0.2), WAIT_SECONDS, "a message").value() == b"1"
    gone = AclBindingFilter(ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, "User:bob", None, AclOperation.ANY,
                            AclPermissionType.ANY)
    assert admin.delete_acls([gone])[gone].result(WAIT_SECONDS) == [reads]
    producer.produce("t", b"2")
    producer.flush(WAIT_SECONDS)
    message = wait_until(lambda: consumer.poll(0.2), WAIT_SECONDS, "an error")
    assert message.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    allow(admin, reads)
    def second():
        message = consumer.poll(0.2)
        return message is not None and message.error() is None and message.value() == b"2"
    wait_until(second, WAIT_SECONDS, "the second message")
    consumer.close()


def test_kafka_python_manages_acls_and_users(users):
    options = {"bootstrap_servers": users.kafka, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512",
               "sasl_plain_username": "admin", "sasl_plain_password": PASSWORDS["admin"]}
    admin = kafka.KafkaAdminClient(**options)
    pattern = kafka.admin.ResourcePattern(kafka.admin.ResourceType.TOPIC, "p-", kafka.admin.ACLResourcePatternType.PREFIXED)
    binding = kafka.admin.ACL(principal="User:ann", host="*", operation=kafka.admin.ACLOperation.READ,
                              permission_type=kafka.admin.ACLPermissionType.ALLOW, resource_pattern=pattern)
    assert admin.create_acls([binding])["succeeded"] == [binding]
    every = kafka.admin.ACLFilter(
        principal=None, host=None, operation=kafka.admin.ACLOperation.ANY,
        permission_type=kafka.admin.ACLPermissionType.ANY,
        resource_pattern=kafka.admin.ResourcePatternFilter(
            kafka.admin.ResourceType.ANY, None, kafka.admin.ACLResourcePatternType.ANY))
    described, _ = admin.describe_acls(every)
    assert described == [binding]
    [(_filter, deleted, _error)] = admin.delete_acls([every])
    assert deleted == [binding]
    assert admin.describe_acls(every)[0] == []


def test_authorized_operations_are_told(users):
    admin, ann = AdminClient(settings(users, "admin")), AdminClient(settings(users, "ann"))
    admin.create_topics([NewTopic("t", 1)])["t"].result(WAIT_SECONDS)
    allow(admin, acl(ResourceType.TOPIC, "t", AclOperation.READ), acl(ResourceType.BROKER, "kafka-cluster", AclOperation.DESCRIBE))
    names = confluent_kafka.TopicCollection(["t"])
    topic = ann.describe_topics(names, include_authorized_operations=True)["t"].result(WAIT_SECONDS)
    assert set(topic.authorized_operations) == {AclOperation.READ, AclOperation.DESCRIBE}
    cluster = ann.describe_cluster(include_authorized_operations=True).result(WAIT_SECONDS)
    assert set(cluster.authorized_operations) == {AclOperation.DESCRIBE}


def test_users_and_rules_of_the_configuration_are_shown_and_stay(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    run([binary(), "user", "add", "admin", "--scram", "--config", config], stdin=PASSWORDS["admin"].encode() + b"\n")
    with config.open("a") as file:
        file.write('[[permissions]]\nuser = "ann"\nkind = "topic"\nprefix = "fixed-"\noperations = ["read"]\n')
    broker = own_broker(arguments=["--config", config])
    admin = AdminClient(settings(broker, "admin"))
    told = admin.describe_user_scram_credentials(["admin"])["admin"].result(WAIT_SECONDS)
    assert ScramMechanism.SCRAM_SHA_512 in {info.mechanism for info in told.scram_credential_infos}
    with pytest.raises(KafkaException) as refused:
        put_user(admin, "admin")
    assert refused.value.args[0].code() == KafkaError.POLICY_VIOLATION
    fixed = acl(ResourceType.TOPIC, "fixed-", AclOperation.READ, pattern=ResourcePatternType.PREFIXED)
    assert fixed in admin.describe_acls(EVERY).result(WAIT_SECONDS)
    by_admin = ["--command-config", properties(tmp_path / "admin.properties", "admin")]
    said = java("console", "org.apache.kafka.tools.AclCommand", "--bootstrap-server", broker.kafka, *by_admin,
                "--remove", "--force", "--topic", "fixed-", "--resource-pattern-type", "prefixed", check=False)
    assert "read-only" in said, said
    assert fixed in admin.describe_acls(EVERY).result(WAIT_SECONDS)


def test_users_of_two_namespaces_meet_nowhere(own_broker, tmp_path):
    made = tmp_path / "users.toml"
    for name in ("admin", "ann"):
        run([binary(), "user", "add", name, "--scram", "--config", made], stdin=PASSWORDS[name].encode() + b"\n")
    hashes = tomllib.loads(made.read_text())["users"]
    config = tmp_path / "inver.toml"
    config.write_text(
        '[[namespaces]]\nname = "plant"\n'
        f'[users]\nadmin = {json.dumps(hashes["admin"])}\n'
        f'[users.ann]\npasswords = {json.dumps(hashes["ann"])}\nnamespace = "plant"\ntags = ["administrator"]\n')
    broker = own_broker(arguments=["--config", config])
    for name in ("admin", "ann"):
        client = AdminClient(settings(broker, name))
        client.create_topics([NewTopic("t", 1), NewTopic(f"of-{name}", 1)])["t"].result(WAIT_SECONDS)
        producer = confluent_kafka.Producer(settings(broker, name, **{"enable.idempotence": True}))
        producer.produce("t", name.encode())
        assert producer.flush(WAIT_SECONDS) == 0
    for name in ("admin", "ann"):
        client = AdminClient(settings(broker, name))
        assert set(client.list_topics(timeout=WAIT_SECONDS).topics) - {"mqtt"} == {"t", f"of-{name}"}
        consumer = confluent_kafka.Consumer(settings(broker, name, **{"group.id": "g", "auto.offset.reset": "earliest"}))
        consumer.subscribe(["t"])
        message = wait_until(lambda: consumer.poll(0.2), WAIT_SECONDS, "a message")
        assert (message.value(), message.offset()) == (name.encode(), 0)
        consumer.commit(message, asynchronous=False)
        consumer.close()
        groups = client.list_consumer_groups().result(WAIT_SECONDS).valid
        assert [group.group_id for group in groups] == ["g"]
        bound = acl(ResourceType.TOPIC, f"of-{name}", AclOperation.READ, "bob")
        allow(client, bound)
        mine = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, "User:bob", None, AclOperation.ANY,
                                AclPermissionType.ANY)
        assert client.describe_acls(mine).result(WAIT_SECONDS) == [bound]


def test_rules_with_the_client_id(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    made = tmp_path / "users.toml"
    run([binary(), "user", "add", "ann", "--scram", "--config", made], stdin=PASSWORDS["ann"].encode() + b"\n")
    config.write_text(
        f'[users.ann]\npasswords = {json.dumps(tomllib.loads(made.read_text())["users"]["ann"])}\n'
        '[[permissions]]\nuser = "ann"\nkind = "topic"\nprefix = "{client_id}."\noperations = ["create", "write"]\n')
    broker = own_broker(arguments=["--config", config])
    for client_id in ("app-1", "app-2"):
        admin = AdminClient(settings(broker, "ann", **{"client.id": client_id}))
        assert code(admin.create_topics([NewTopic(f"{client_id}.t", 1)])[f"{client_id}.t"]) == 0
        other = code(admin.create_topics([NewTopic("app-3.t", 1)])["app-3.t"])
        assert other == KafkaError.TOPIC_AUTHORIZATION_FAILED
    producer = confluent_kafka.Producer(settings(broker, "ann", **{"client.id": "app-1"}))
    errors = {}
    for topic in ("app-1.t", "app-2.t"):
        producer.produce(topic, b"x", on_delivery=lambda error, message: errors.update({message.topic(): error}))
    producer.flush(WAIT_SECONDS)
    assert errors["app-1.t"] is None
    assert errors["app-2.t"].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
