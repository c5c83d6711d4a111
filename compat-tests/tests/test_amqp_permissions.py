"""Permissions over AMQP: a table of users, operations and resources, with RabbitMQ's codes and texts.

The table was also run against RabbitMQ 4.0.5: every cell has the same answer there but those of passive declarations, which
need nothing before RabbitMQ 4.3.1.
"""

import base64
import hashlib
import itertools
import json
import urllib.request

import pika
import pika.exceptions
import pytest

from harness import wait_until

# What the users may do, they may do to these names.
OWN = r"^(mine|amq\\.(gen-|default$|direct$))"
RIGHTS = {"c": "configure", "w": "write", "r": "read"}
USERS = ["".join(some) for count in range(4) for some in itertools.combinations("cwr", count)]


def password(text):
    salt = b"salt"
    digest = hashlib.sha256(salt + text.encode()).digest()
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return "$salted-sha256$before$" + "$".join(encoded)


def user(name, tags=(), limits=""):
    return f'[users.{name}]\npasswords = ["{password(name)}"]\ntags = {list(tags)}\n{limits}\n'


def permission(who, operations, kind, pattern, **more):
    fields = {"user": f'"{who}"', "namespace": '"/"', "kind": f'"{kind}"', "operations": str(operations), **more}
    return "[[permissions]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()) + pattern + "\n"


def configuration():
    parts = [user("root", ["administrator"]), user("nobody"), user("imp", ["impersonator"])]
    parts.append(permission("imp", ["write"], "exchange", ""))
    parts.append(user("few", limits="connections_max = 1\nchannels_max = 2"))
    parts.append(permission("few", ["connect"], "namespace", ""))
    for rights in USERS:
        name = f"u{rights}"
        parts.append(user(name))
        # An entry without rights is enough to connect.
        parts.append(permission(name, ["connect"], "namespace", ""))
        for right, kind in itertools.product(rights, ("topic", "exchange")):
            parts.append(permission(name, [RIGHTS[right]], kind, f'regex = "{OWN}"'))
    for name in ("topics", "hub", "narrow"):
        parts.append(user(name))
        for kind in ("topic", "exchange"):
            parts.append(permission(name, ["configure", "write", "read"], kind, ""))
    key = {"exchange": '"mine.topic"'}
    parts.append(permission("topics", ["write"], "routing-key", r'regex = "^{username}\\."', **key))
    parts.append(permission("topics", ["read"], "routing-key", r'regex = "^r\\."', **key))
    parts.append(permission("hub", ["write"], "address", 'filter = "up/{username}/#"'))
    parts.append(permission("hub", ["subscribe", "receive"], "address", 'filter = "down/+/{username}"'))
    return "\n".join(parts)


def connect(port, name, vhost="/", secret=None, **options):
    login = pika.PlainCredentials(name, secret or name)
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, vhost, login, **options))


def publish(channel, exchange, key, **properties):
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"", pika.BasicProperties(**properties))


def declare_and_delete(channel, queue, arguments):
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_delete(queue)


# Each operation: what it does, and the rights that it needs in order, {n} being `mine` or `other`.
OPERATIONS = {
    "declare a queue": (lambda ch, n: ch.queue_declare(f"{n}.q"), ["configure queue {n}.q"]),
    "inspect a queue": (lambda ch, n: ch.queue_declare(f"{n}.q", passive=True), ["any queue {n}.q"]),
    "delete a queue": (lambda ch, n: ch.queue_delete(f"{n}.none"), ["configure queue {n}.none"]),
    "purge": (lambda ch, n: ch.queue_purge(f"{n}.q"), ["read queue {n}.q"]),
    "get": (lambda ch, n: ch.basic_get(f"{n}.q", auto_ack=True), ["read queue {n}.q"]),
    "consume": (lambda ch, n: ch.basic_consume(f"{n}.q", lambda *_: None), ["read queue {n}.q"]),
    "bind a queue": (
        lambda ch, n: ch.queue_bind(f"{n}.q", f"{n}.x", "k"), ["write queue {n}.q", "read exchange {n}.x"]),
    "unbind a queue": (
        lambda ch, n: ch.queue_unbind(f"{n}.q", f"{n}.x", "k"), ["write queue {n}.q", "read exchange {n}.x"]),
    "bind an exchange": (
        lambda ch, n: ch.exchange_bind(f"{n}.x", f"{n}.y", "k"), ["write exchange {n}.x", "read exchange {n}.y"]),
    "unbind an exchange": (
        lambda ch, n: ch.exchange_unbind(f"{n}.x", f"{n}.y", "k"), ["write exchange {n}.x", "read exchange {n}.y"]),
    "declare an exchange": (lambda ch, n: ch.exchange_declare(f"{n}.x"), ["configure exchange {n}.x"]),
    "inspect an exchange": (lambda ch, n: ch.exchange_declare(f"{n}.x", passive=True), ["any exchange {n}.x"]),
    "delete an exchange": (lambda ch, n: ch.exchange_delete(f"{n}.none"), ["configure exchange {n}.none"]),
    "publish": (lambda ch, n: publish(ch, f"{n}.x", "k"), ["write exchange {n}.x"]),
    "publish to the default exchange": (lambda ch, n: publish(ch, "", f"{n}.q"), ["write exchange amq.default"]),
    "declare with a dead-letter exchange": (
        lambda ch, n: declare_and_delete(ch, f"{n}.dead", {"x-dead-letter-exchange": f"{n}.x"}),
        ["configure queue {n}.dead", "read queue {n}.dead", "write exchange {n}.x"]),
    "declare with an alternate exchange": (
        lambda ch, n: (
            ch.exchange_declare(f"{n}.alt", arguments={"alternate-exchange": f"{n}.x"}),
            ch.exchange_delete(f"{n}.alt")),
        ["configure exchange {n}.alt", "read exchange {n}.alt", "write exchange {n}.x"]),
    "declare a queue named by the broker": (
        lambda ch, n: ch.queue_declare("", exclusive=True), ["configure queue amq.gen-"]),
    "consume replies": (
        lambda ch, n: ch.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True), []),
    "delete a predeclared exchange": (lambda ch, n: ch.exchange_delete("amq.direct"), ["system exchange amq.direct"]),
}


def expected(rights, needs, resource):
    """The text that refuses it, as far as it is known; None if it is allowed."""
    for need in needs:
        right, kind, name = need.format(n=resource).split(" ")
        if right == "system":
            return f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"
        is_own = name.startswith(("mine", "amq."))
        if right == "any" and is_own and rights:
            continue
        right = "configure" if right == "any" else right
        if not is_own or right[0] not in rights:
            return f"ACCESS_REFUSED - {right} access to {kind} '{name}"
    return None


def prepare(port):
    """Makes the resources of the table; `root` may do everything."""
    with connect(port, "root") as connection:
        channel = connection.channel()
        for name in ("mine", "other"):
            channel.queue_declare(f"{name}.q")
            for exchange in ("x", "y"):
                channel.exchange_declare(f"{name}.{exchange}")
        channel.exchange_declare("mine.topic", "topic")


def refusal(connection, act):
    """What closes the channel of an operation, if anything."""
    channel = connection.channel()
    try:
        act(channel)
        channel.close()
    except pika.exceptions.UnroutableError:
        channel.close()
    except pika.exceptions.ChannelClosedByBroker as closed:
        return closed.reply_code, closed.reply_text
    return None


def run_table(port):
    """Tries every cell; returns those with another answer than expected."""
    wrong = []
    for rights in USERS:
        with connect(port, f"u{rights}") as connection:
            for (what, (act, needs)), resource in itertools.product(OPERATIONS.items(), ("mine", "other")):
                want = expected(rights, needs, resource)
                got = refusal(connection, lambda channel: act(channel, resource))
                end = f"in vhost '/' refused for user 'u{rights}'"
                is_right = got is None if want is None else got is not None and got[0] == 403 and (
                    got[1] == want or got[1].startswith(want) and got[1].endswith(end))
                if not is_right:
                    wrong.append((rights, what, resource, want, got))
    return wrong


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


def test_every_user_operation_and_resource(guarded):
    assert run_table(guarded.amqp_port) == []


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
        return refusal(connection, lambda channel: publish(channel, exchange, key, **properties))

    def bind(key, exchange="mine.topic"):
        return refusal(connection, lambda channel: channel.queue_bind("mine.q", exchange, key))

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
        assert refusal(connection, lambda ch: ch.queue_unbind("mine.q", "mine.topic", "w")) == text("read", "w")


def test_the_hub_needs_the_permission_of_the_address(guarded):
    def act(right, key):
        with connect(guarded.amqp_port, "hub") as connection:
            if right == "write":
                return refusal(connection, lambda channel: publish(channel, "amq.topic", key))
            return refusal(connection, lambda channel: channel.queue_bind("mine.q", "amq.topic", key))

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
            return refusal(connection, lambda channel: publish(channel, "mine.x", "k", user_id=name))

        assert claim("ucwr") is None
        assert claim("root") == (
            406, "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'ucwr'")
    with connect(guarded.amqp_port, "imp") as connection:
        assert refusal(connection, lambda channel: publish(channel, "mine.x", "k", user_id="root")) is None


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
            assert refusal(connection, consume)[1].startswith("ACCESS_REFUSED - read access to queue 'other.log'")
        with connect(guarded.amqp_port, "root") as connection:
            assert refusal(connection, lambda channel: publish(channel, "amq.topic", "other.log")) is None
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
        assert refusal(connection, lambda ch: publish(ch, "mine.topic", "other")) is None
        add(kind="routing-key", exchange="mine.topic", regex=r"^late\.", operations=["write"])
        assert refusal(connection, lambda ch: publish(ch, "mine.topic", "late.a")) is None
        assert refusal(connection, lambda ch: publish(ch, "mine.topic", "other"))[0] == 403
        rules = api("GET", "/permissions?user=late")["items"]
        assert ("mine.topic", r"^late\.") in [(rule["exchange"], rule["regex"]) for rule in rules]
        question = "/permissions/check?user=late&kind=routing-key&exchange=mine.topic&operation=write&name="
        assert api("GET", question + "late.a")["allowed"] and not api("GET", question + "other")["allowed"]
        api("DELETE", f"/permissions/{read}")
        assert refusal(connection, lambda ch: ch.basic_get("mine.q")) == (
            403, "ACCESS_REFUSED - read access to queue 'mine.q' in vhost '/' refused for user 'late'")

        def is_cancelled():
            connection.process_data_events(0.01)
            return cancelled == [tag]

        wait_until(is_cancelled, what="basic.cancel of the consumer that may not read any more")
        api("DELETE", "/users/late")
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            wait_until(lambda: connection.process_data_events(0.01), what="the end of the connection")
        assert (closed.value.reply_code, closed.value.reply_text) == (320, "CONNECTION_FORCED - user 'late' is deleted")
