"""Permissions over AMQP beside those of the permission table: connecting, limits of users, topic permissions, the hub, changes."""

import base64
import json
import urllib.request

import paho.mqtt.client as paho
import pika
import pika.exceptions
import pytest

from clients import MqttUser, amqp_refusal
from harness import wait_until
from permission_table import USERS, user


def permission(who, operations, kind, pattern, **more):
    fields = {"user": f'"{who}"', "namespace": '"/"', "kind": f'"{kind}"', "operations": str(operations), **more}
    return "[[permissions]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()) + pattern + "\n"


def configuration():
    parts = [user("root", ["administrator"]), user("nobody"), user("imp", ["impersonator"])]
    parts.append(permission("imp", ["write"], "exchange", ""))
    parts.append(user("few", limits="connections_max = 1\nchannels_max = 2"))
    parts.append(permission("few", ["connect"], "namespace", ""))
    for rights in ("r", "cwr"):
        parts += [user(f"u{rights}"), *(rule.text(f"u{rights}") for rule in USERS[f"u{rights}"].rules)]
    for name in ("topics", "hub", "narrow"):
        parts.append(user(name))
        for kind in ("topic", "exchange"):
            parts.append(permission(name, ["configure", "write", "read"], kind, ""))
    key = {"exchange": '"mine.topic"'}
    parts.append(permission("topics", ["write"], "routing-key", r'regex = "^{username}\\."', **key))
    parts.append(permission("topics", ["read"], "routing-key", r'regex = "^r\\."', **key))
    # Topic permissions hold for administrators too.
    parts.append(user("chief", ["administrator"]))
    for exchange in ("mine.topic", "amq.topic"):
        for right in ("write", "read"):
            parts.append(permission("chief", [right], "routing-key", r'regex = "^{username}\\."', exchange=f'"{exchange}"'))
    parts.append(permission("hub", ["write"], "address", 'filter = "up/{username}/#"'))
    parts.append(permission("hub", ["subscribe", "receive"], "address", 'filter = "down/+/{username}"'))
    return "\n".join(parts)


def connect(port, name, vhost="/", secret=None, **options):
    login = pika.PlainCredentials(name, secret or name)
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, vhost, login, **options))


def publish(channel, exchange, key, **properties):
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"", pika.BasicProperties(**properties))


def prepare(port):
    """Makes the resources of the table; `root` may do everything."""
    with connect(port, "root") as connection:
        channel = connection.channel()
        for name in ("mine", "other"):
            channel.queue_declare(f"{name}.q")
            for exchange in ("x", "y"):
                channel.exchange_declare(f"{name}.{exchange}")
        channel.exchange_declare("mine.topic", "topic")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    from harness import Broker

    folder = tmp_path_factory.mktemp("permissions")
    path = folder / "inver.toml"
    path.write_text(configuration())
    broker = Broker(folder, arguments=["--config", path]).start()
    prepare(broker.amqp_port)
    yield broker
    try:
        broker.check()
    finally:
        broker.end()


def test_connecting_needs_a_permission(guarded):
    def refused(*arguments, **options):
        with pytest.raises(pika.exceptions.AMQPConnectionError) as caught:
            connect(guarded.amqp_port, *arguments, **options)
        return str(caught.value)

    assert "(530) \"NOT_ALLOWED - access to vhost '/' refused for user 'nobody'\"" in refused("nobody")
    assert "(530) 'NOT_ALLOWED - vhost nowhere not found'" in refused("nobody", "nowhere")
    assert "(530) 'NOT_ALLOWED - vhost  not found'" in refused("root", "")
    text = refused("root", secret="wrong")
    assert "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN." in text


def test_limits_of_a_user(guarded):
    with connect(guarded.amqp_port, "few") as connection:
        with pytest.raises(pika.exceptions.AMQPConnectionError) as caught:
            connect(guarded.amqp_port, "few")
        assert "(530) \"NOT_ALLOWED - connection refused for user 'few': user connection limit (1) is reached\"" in str(
            caught.value)
        connection.channel().close()
        connection.channel()
        connection.channel()
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            connection.channel()
        assert (closed.value.reply_code, closed.value.reply_text) == (
            530, "NOT_ALLOWED - number of channels opened for user 'few' has reached the maximum allowed user limit of (2)")


def test_topic_permissions(guarded):
    def write(key, exchange="mine.topic", **properties):
        return amqp_refusal(connection, lambda channel: publish(channel, exchange, key, **properties))

    def bind(key, exchange="mine.topic"):
        return amqp_refusal(connection, lambda channel: channel.queue_bind("mine.q", exchange, key))

    def text(right, key):
        return 403, (f"ACCESS_REFUSED - {right} access to topic '{key}' in exchange 'mine.topic' in vhost '/' "
                     "refused for user 'topics'")

    with connect(guarded.amqp_port, "topics") as connection:
        assert write("topics.a") is None
        assert write("other.a") == text("write", "other.a")
        assert write("topics.a", headers={"CC": ["cc"]}) == text("write", "cc")
        assert write("other.a", exchange="mine.x") is None, "no topic exchange"
        assert bind("r.#") is None
        assert bind("w.#") == text("read", "w.#")
        assert amqp_refusal(connection, lambda ch: ch.queue_unbind("mine.q", "mine.topic", "w")) == text("read", "w")


def test_topic_permissions_narrow_an_administrator_on_every_protocol(guarded):
    with connect(guarded.amqp_port, "chief") as connection:
        for exchange in ("mine.topic", "amq.topic"):
            for key, expected in (("chief.a", None), ("other.a", 403)):
                said = amqp_refusal(connection, lambda channel: publish(channel, exchange, key))
                assert (said and said[0]) == expected, (exchange, key, said)
                said = amqp_refusal(connection, lambda channel: channel.queue_bind("mine.q", exchange, key))
                assert (said and said[0]) == expected, (exchange, key, said)
        # Nothing else is narrowed.
        assert amqp_refusal(connection, lambda channel: publish(channel, "other.x", "k")) is None
        assert amqp_refusal(connection, lambda channel: channel.queue_declare("any")) is None
    chief = MqttUser(guarded, "chief", paho.MQTTv5, "chief")
    assert chief.connect() == 0
    assert chief.subscribe("chief/#") == 1 and chief.subscribe("#") == 0x87
    assert chief.publish("chief/a", b"x") in (0, 0x10) and chief.publish("other/a", b"x") == 0x87
    chief.close()


def test_the_hub_needs_the_permission_of_the_address(guarded):
    def act(right, key):
        with connect(guarded.amqp_port, "hub") as connection:
            if right == "write":
                return amqp_refusal(connection, lambda channel: publish(channel, "amq.topic", key))
            return amqp_refusal(connection, lambda channel: channel.queue_bind("mine.q", "amq.topic", key))

    for right, allowed, denied in [
        ("write", ["up.hub", "up.hub.a"], ["up.other", "up"]),
        ("read", ["down.*.hub", "down.a.hub"], ["down.#", "#", "down.a.other", "down.a.*"]),
    ]:
        for key in allowed:
            assert act(right, key) is None, key
        for key in denied:
            assert act(right, key) == (
                403, f"ACCESS_REFUSED - {right} access to topic '{key}' in exchange 'amq.topic' in vhost '/' "
                     "refused for user 'hub'")


def test_who_may_write_may_not_claim_to_be_another(guarded):
    with connect(guarded.amqp_port, "ucwr") as connection:
        def claim(name):
            return amqp_refusal(connection, lambda channel: publish(channel, "mine.x", "k", user_id=name))

        assert claim("ucwr") is None
        assert claim("root") == (
            406, "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'ucwr'")
    with connect(guarded.amqp_port, "imp") as connection:
        assert amqp_refusal(connection, lambda channel: publish(channel, "mine.x", "k", user_id="root")) is None


def test_a_log_topic_is_reached_only_with_its_own_permission(guarded):
    confluent_kafka = pytest.importorskip("confluent_kafka")
    from confluent_kafka.admin import AdminClient, NewTopic

    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "root",
             "sasl.password": "root", "log_level": 0}
    admin = AdminClient({"bootstrap.servers": guarded.kafka, **login})
    for made in admin.create_topics([NewTopic("other.log", 1)]).values():
        made.result(20)
    reader = confluent_kafka.Consumer({"bootstrap.servers": guarded.kafka, "group.id": "g", **login})

    def records():
        return reader.get_watermark_offsets(confluent_kafka.TopicPartition("other.log", 0), timeout=20)[1]

    try:
        with connect(guarded.amqp_port, "ur") as connection:
            consume = lambda channel: channel.basic_consume("other.log", lambda *_: None)  # noqa: E731
            assert amqp_refusal(connection, consume)[1].startswith("ACCESS_REFUSED - read access to queue 'other.log'")
        with connect(guarded.amqp_port, "root") as connection:
            assert amqp_refusal(connection, lambda channel: publish(channel, "amq.topic", "other.log")) is None
        wait_until(lambda: records() == 1, what="the record of the administrator")
    finally:
        reader.close()


def test_rules_change_while_clients_are_connected(guarded):
    basic = base64.b64encode(b"root:root").decode()

    def api(method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{guarded.http_port}/api/v1{path}", method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {basic}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or "null")

    def add(**rule):
        return api("POST", "/permissions", {"user": "late", "namespace": "/", **rule})["ids"][0]

    api("PUT", "/users/late", {"password": "late-password"})
    add(kind="exchange", operations=["write"])
    read = add(kind="topic", name="mine.q", operations=["read"])
    with connect(guarded.amqp_port, "late", secret="late-password") as connection:
        channel = connection.channel()
        cancelled = []
        channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        tag = channel.basic_consume("mine.q", lambda *_: None, auto_ack=True)
        assert amqp_refusal(connection, lambda ch: publish(ch, "mine.topic", "other")) is None
        add(kind="routing-key", exchange="mine.topic", regex=r"^late\.", operations=["write"])
        assert amqp_refusal(connection, lambda ch: publish(ch, "mine.topic", "late.a")) is None
        assert amqp_refusal(connection, lambda ch: publish(ch, "mine.topic", "other"))[0] == 403
        rules = api("GET", "/permissions?user=late")["items"]
        assert ("mine.topic", r"^late\.") in [(rule["exchange"], rule["regex"]) for rule in rules]
        question = "/permissions/check?user=late&kind=routing-key&exchange=mine.topic&operation=write&name="
        assert api("GET", question + "late.a")["allowed"] and not api("GET", question + "other")["allowed"]
        api("DELETE", f"/permissions/{read}")
        assert amqp_refusal(connection, lambda ch: ch.basic_get("mine.q")) == (
            403, "ACCESS_REFUSED - read access to queue 'mine.q' in vhost '/' refused for user 'late'")

        def is_cancelled():
            connection.process_data_events(0.01)
            return cancelled == [tag]

        wait_until(is_cancelled, what="basic.cancel of the consumer that may not read any more")
        api("DELETE", "/users/late")
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            wait_until(lambda: connection.process_data_events(0.01), what="the end of the connection")
        assert (closed.value.reply_code, closed.value.reply_text) == (320, "CONNECTION_FORCED - user 'late' is deleted")
