"""What an attacker tries: a client without rights, or with few, that reaches for what is others'."""

import base64
import hashlib
import hmac
import json
import socket
import struct
import time
import urllib.error
import urllib.request

import pika
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from clients import QUIET, WAIT_SECONDS, amqp, kafka_login, mqtt
from harness import free_port, wait_until

SECRET = "of-the-issuer-0123456789abcdef0123456789abcdef"

# ann may use the hub below `a/`, and topics, queues and exchanges of her own. She may use the HTTP API.
RULES = [
    ("namespace", ["connect"], ""),
    ("exchange", ["all"], 'name = "amq.topic"'),
    ("exchange", ["all"], 'prefix = "ann-"'),
    ("exchange", ["all"], 'name = "amq.default"'),
    ("topic", ["all"], 'prefix = "ann-"'),
    # Topics of the names below `a/`, hers among them.
    ("topic", ["read"], 'prefix = "a"'),
    ("group", ["all"], 'prefix = "ann-"'),
    ("address", ["all"], 'filter = "a/#"'),
    ("address", ["subscribe"], 'filter = "+"'),
]


def password(text):
    digest = hashlib.sha256(b"salt" + text.encode()).digest()
    return "$salted-sha256$before$" + "$".join(base64.b64encode(part).decode() for part in (b"salt", digest))


def configuration(more=""):
    users = [f'[users.{name}]\npasswords = ["{password(name)}"]\ntags = {tags}\n'
             for name, tags in [("root", ["administrator"]), ("ann", ["management"]), ("bob", []), ("eve", ["management"])]]
    rules = [f'[[permissions]]\nuser = "ann"\nkind = "{kind}"\noperations = {operations}\n{pattern}\n'
             for kind, operations, pattern in RULES]
    rules += ['[[permissions]]\nuser = "bob"\noperations = ["all"]\n']
    rules += ['[[permissions]]\nuser = "eve"\nkind = "namespace"\noperations = ["connect"]\n']
    return "\n".join([more, *users, *rules])


@pytest.fixture
def broker(own_broker, tmp_path):
    path = tmp_path / "inver.toml"
    (tmp_path / "secret").write_text(SECRET)
    issuer = f'[[jwt]]\nsecret_file = "{tmp_path / "secret"}"\nalgorithms = ["HS256"]\nissuer = "i"\ntags_claim = "roles"\n'
    path.write_text(configuration(issuer))
    return own_broker(arguments=["--config", path])


def token(user, *tags):
    """A JSON Web Token of the issuer."""
    def part(of):
        return base64.urlsafe_b64encode(json.dumps(of).encode()).rstrip(b"=")
    claims = {"iss": "i", "sub": user, "roles": tags, "exp": int(time.time()) + 600}
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()


def ask(broker, login, method, path, body=None):
    """Status and JSON of a request. `login` is a user whose password is its name, or a bearer token."""
    basic = "Basic " + base64.b64encode(f"{login}:{login}".encode()).decode()
    headers = {"Authorization": f"Bearer {login}" if len(login) > 20 else basic}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json"
    url = f"http://127.0.0.1:{broker.http_port}/api/v1{path}"
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as answer:
        return answer.code, json.loads(answer.read())


def status(*arguments):
    return ask(*arguments)[0]


def refused(code, act):
    """`act` of a channel of its own is refused with a code."""
    with pytest.raises((pika.exceptions.ChannelClosedByBroker, pika.exceptions.ConnectionClosedByBroker)) as error:
        act()
    assert error.value.reply_code == code, error.value


def test_the_hub_is_not_reached_around_its_addresses(broker):
    """By a binding of an own exchange to the hub, as its alternate exchange, and by dead letters."""
    with mqtt(broker, user=("bob", "bob")) as bob, amqp(broker, user="root", password="root") as root:
        bob.subscribe("#")
        bob.subscribe("$SYS/forged/#")
        # An administrator may bind: then who publishes must still be allowed to, at each address.
        root.exchange_declare("ann-x", "fanout")
        root.exchange_bind("amq.topic", "ann-x", "")
        with amqp(broker, user="ann", password="ann") as ann:
            ann.confirm_delivery()
            for key in ("secret.x", "$SYS.forged.x", "a.x"):
                ann.basic_publish("ann-x", key, key.encode())
        root.basic_publish("ann-x", "$SYS.forged.y", b"by root")
        root.basic_publish("ann-x", "end", b"end")
        assert bob.take(2) == [b"a.x", b"end"]
    for act in (
        lambda ann: (ann.exchange_declare("ann-y", "fanout"), ann.exchange_bind("amq.topic", "ann-y", "")),
        lambda ann: ann.exchange_declare("ann-z", "direct", arguments={"alternate-exchange": "amq.topic"}),
        lambda ann: ann.queue_declare("ann-q", arguments={"x-dead-letter-exchange": "amq.topic"}),
        lambda ann: ann.queue_declare("ann-q", arguments={
            "x-dead-letter-exchange": "amq.topic", "x-dead-letter-routing-key": "secret.x"}),
    ):
        with amqp(broker, user="ann", password="ann") as ann:
            refused(403, lambda: act(ann))
    with amqp(broker, user="ann", password="ann") as ann:
        ann.queue_declare("ann-q", arguments={"x-dead-letter-exchange": "amq.topic", "x-dead-letter-routing-key": "a.x"})


def test_a_topic_captures_only_what_its_owner_may_receive(broker):
    admin = AdminClient({"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT",
                         "sasl.mechanism": "PLAIN", "sasl.username": "ann", "sasl.password": "ann"})

    def create(name, filter):
        admin.create_topics([NewTopic(name, 1, 1, config={"inver.capture.filter": filter})])[name].result(15)

    for filter in ("#", "secret/#", "+/x"):
        with pytest.raises(KafkaException) as error:
            create("ann-all", filter)
        assert error.value.args[0].name() == "TOPIC_AUTHORIZATION_FAILED", filter
    create("ann-own", "a/#")
    entry = ConfigEntry("inver.capture.filter", "#", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "ann-own", incremental_configs=[entry])
    with pytest.raises(KafkaException) as error:
        admin.incremental_alter_configs([resource])[resource].result(15)
    assert error.value.args[0].name() == "TOPIC_AUTHORIZATION_FAILED"
    assert status(broker, "ann", "POST", "/topics", {"name": "ann-http", "settings": {"inver.capture.filter": "#"}}) == 403
    with mqtt(broker, user=("bob", "bob")) as bob:
        bob.publish("secret/1", b"secret")
        bob.publish("a/1", b"captured")
    def records(name):
        return ask(broker, "root", "GET", f"/messages?source=topic&name={name}")[1]["messages"]
    assert [record["value"] for record in records("ann-own")] == [{"text": "captured"}] or len(records("ann-own")) == 1


def test_http_asks_for_what_amqp_and_mqtt_ask_for(broker):
    with mqtt(broker, user=("bob", "bob")) as bob:
        for topic in ("secret", "a/1", "secret/1"):
            bob.publish(topic, b"retained", retain=True)
    with amqp(broker, user="root", password="root") as root:
        root.queue_declare("ann-q", durable=True)
    binding = {"source": "amq.topic", "destination": "ann-q"}
    assert status(broker, "ann", "POST", "/bindings", {**binding, "key": "a.#"}) == 201
    for key in ("#", "secret.*", "*"):
        wanted = 201 if key == "*" else 403
        assert status(broker, "ann", "POST", "/bindings", {**binding, "key": key}) == wanted, key
    # A filter of one level is no filter of all, and who may subscribe to it receives only what he may.
    assert status(broker, "ann", "GET", "/retained?filter=%23") == 403
    assert status(broker, "ann", "GET", "/retained/secret") == 403
    answer = ask(broker, "ann", "GET", "/retained?filter=%2B")[1]
    assert answer["items"] == []
    assert [item["address"] for item in ask(broker, "ann", "GET", "/retained?filter=a/%23")[1]["items"]] == ["a/1"]
    # What is published to elsewhere later.
    exchange = {"kind": "direct", "arguments": {"alternate-exchange": "amq.fanout"}}
    assert status(broker, "ann", "PUT", "/exchanges/ann-x", exchange) == 403
    for to in ("amq.fanout", "amq.topic"):
        assert status(broker, "ann", "PUT", "/queues/ann-d", {"dead_letter_exchange": to}) == 403, to
    assert status(broker, "ann", "PUT", "/queues/ann-d", {"dead_letter_exchange": "ann-x"}) == 201
    # Where others' publishes go.
    for to in ({"address": "secret/1"}, {"exchange": {"name": "amq.fanout"}}, {"queue": "others"}):
        assert status(broker, "ann", "POST", "/routes/test", {"to": to}) == 403, to
    assert status(broker, "ann", "POST", "/routes/test", {"to": {"address": "a/1"}}) == 200


def test_connections_of_others_are_neither_seen_nor_closed(broker):
    with mqtt(broker, client_id="of-bob", user=("bob", "bob")) as bob, \
            mqtt(broker, client_id="of-eve", user=("eve", "eve")):
        def listed(user):
            return {it["name"]: it["id"] for it in ask(broker, user, "GET", "/connections")[1]["items"]}
        everybody = listed("root")
        assert set(everybody) == {"of-bob", "of-eve"}
        assert set(listed("eve")) == {"of-eve"} and set(listed("ann")) == set()
        assert status(broker, "eve", "GET", f"/connections/{everybody['of-bob']}") == 404
        assert status(broker, "eve", "DELETE", f"/connections/{everybody['of-bob']}") == 404
        assert status(broker, "eve", "DELETE", f"/connections/{everybody['of-eve']}") == 204
        bob.publish("alive", b"")


def test_a_token_of_an_issuer_becomes_no_user_of_the_broker(broker):
    """The names of an issuer's users may be those of the broker's, an administrator's among them."""
    root = token("root", "management")
    assert ask(broker, root, "GET", "/whoami")[1] == {"user": "root", "tags": ["management"]}
    assert status(broker, root, "GET", "/users") == 403
    assert status(broker, root, "POST", "/tokens", {"name": "mine"}) == 403
    made = ask(broker, "root", "POST", "/tokens", {"name": "of-root"})
    assert made[0] == 201
    assert ask(broker, root, "GET", "/tokens")[1]["items"] == []
    assert status(broker, root, "DELETE", "/tokens/of-root") == 404
    assert status(broker, made[1]["token"], "GET", "/users") == 200


@pytest.mark.parametrize("durable", [False, True])
def test_exclusive_queues_are_used_by_their_connection_only(broker, durable):
    name = f"own-{durable}"
    with amqp(broker, user="root", password="root") as own, amqp(broker, user="root", password="root") as other:
        own.queue_declare(name, exclusive=True, durable=durable)
        own.basic_publish("", name, b"mine", pika.BasicProperties(delivery_mode=2))
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            other.queue_purge(name)
        assert refused.value.reply_code == 405
        assert ask(broker, "root", "GET", f"/queues/{name}")[1]["exclusive"]
        binding = {"source": "amq.topic", "destination": name, "key": "a"}
        query = "&".join(f"{key}={value}" for key, value in binding.items())
        for method, path, body in [
                ("PUT", f"/queues/{name}", {"durable": durable}), ("POST", f"/queues/{name}/purge", None),
                ("GET", f"/messages?source=queue&name={name}", None), ("DELETE", f"/queues/{name}", None),
                ("POST", "/bindings", binding), ("DELETE", f"/bindings?{query}", None)]:
            assert status(broker, "root", method, path, body) == 409, (method, path)
        # It is no topic, however it was declared.
        for method, path in [("GET", f"/topics/{name}"), ("GET", f"/messages?source=topic&name={name}"),
                             ("DELETE", f"/topics/{name}"), ("PATCH", f"/topics/{name}")]:
            assert status(broker, "root", method, path, {} if method == "PATCH" else None) == 404, (method, path)
        admin = AdminClient(kafka_login(broker, "root", "root"))
        assert name not in admin.list_topics(timeout=WAIT_SECONDS).topics
        assert own.basic_get(name, auto_ack=True)[2] == b"mine"


def test_a_token_makes_nothing_that_outlives_it(broker):
    made = ask(broker, "root", "POST", "/tokens", {"name": "short", "expires_after_s": 3600})[1]["token"]
    assert status(broker, made, "POST", "/tokens", {"name": "long"}) == 403
    assert status(broker, made, "PUT", "/users/root", {"password": "another one"}) == 403
    assert status(broker, made, "PUT", "/users/root2", {"password": "another", "tags": ["administrator"]}) == 403
    assert status(broker, made, "PUT", "/users/plain", {"password": "plainplain", "tags": ["management"]}) == 201
    assert status(broker, made, "PUT", "/users/plain", {"tags": ["administrator"]}) == 403
    assert status(broker, "root", "PUT", "/users/plain", {"tags": ["administrator"]}) == 200
    assert status(broker, made, "PUT", "/users/plain", {"password": "mine now"}) == 403
    assert status(broker, made, "DELETE", "/users/plain") == 403
    assert status(broker, "root", "DELETE", "/users/plain") == 204
    # What it has open ends with it.
    url = f"http://127.0.0.1:{broker.http_port}/api/v1/events"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {made}"})
    with urllib.request.urlopen(request, timeout=20) as events:
        assert events.readline()
        assert status(broker, "root", "DELETE", "/tokens/short") == 204
        while events.readline():
            pass


def test_a_deleted_user_leaves_no_key_behind(broker):
    for _ in range(2):
        body = {"password": "carolcarol", "tags": ["management"]}
        assert status(broker, "root", "PUT", "/users/carol", body) == 201
        basic = "Basic " + base64.b64encode(b"carol:carolcarol").decode()
        url = f"http://127.0.0.1:{broker.http_port}/api/v1"
        request = urllib.request.Request(f"{url}/tokens", data=b'{"name": "t"}', method="POST",
                                         headers={"Authorization": basic, "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            made = json.loads(answer.read())["token"]
        assert status(broker, made, "GET", "/whoami") == 200
        assert status(broker, "root", "DELETE", "/users/carol") == 204
        assert status(broker, made, "GET", "/whoami") == 401
        # A later user of that name is another one.
        assert status(broker, "root", "PUT", "/users/carol", body) == 201
        assert status(broker, made, "GET", "/whoami") == 401
        assert status(broker, "root", "DELETE", "/users/carol") == 204


def test_disabling_a_user_ends_what_it_opened_with_a_token(broker):
    assert status(broker, "root", "PUT", "/users/dan", {"password": "dandandan"}) == 201
    with mqtt(broker, user=("dan", token("dan", "administrator"))) as dan:
        assert status(broker, "root", "PUT", "/users/dan", {"disabled": True}) == 200
        dan.disconnects.get(timeout=15)
    assert mqtt_refused(broker, "dan", token("dan", "administrator"))


def mqtt_refused(broker, user, password):
    with mqtt(broker, user=(user, password)) as client:
        return client.reason.is_failure


def test_texts_of_clients_do_not_forge_lines_of_the_log(broker):
    topic = b"secret\n2026-01-01T00:00:00Z  INFO forged \x1b[31m"
    body = b"".join(struct.pack(">H", len(part)) + part for part in (b"id", topic, b"x", b"ann", b"ann"))
    body = b"\0\4MQTT\4\xc6\0\x3c" + body
    with opened(broker.mqtt_port, b"\x10" + bytes([len(body)]) + body) as connection:
        assert connection.recv(4) == b"\x20\2\0\0"
    # ann may not publish her will there.
    line = wait_until(lambda: [line for line in broker.log().splitlines() if "will dropped" in line])[0]
    assert "forged" in line and "\x1b" not in broker.log()


def opened(port, *pieces):
    """A connection that has sent bytes."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    for piece in pieces:
        connection.sendall(piece)
    return connection


def is_closed(connection):
    """Whether the broker has closed it; what it sends before is dropped."""
    connection.settimeout(0.05)
    try:
        while connection.recv(4096):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


PARTS = {
    "kafka": struct.pack(">ihhih", 60_000, 18, 0, 1, -1) + bytes(50_000),
    "mqtt": b"\x10\x80\x80\x10" + b"\0\4MQTT\5\2\0\x3c" + bytes(100_000),
}


def test_memory_of_clients_that_do_not_log_in_is_bounded_in_sum(own_broker, tmp_path):
    path = tmp_path / "inver.toml"
    path.write_text(configuration())
    broker = own_broker(arguments=["--config", path],
                        environment={"INVER_LIMITS_UNAUTHENTICATED_BYTES_MAX": "1 MiB"})
    held = []
    try:
        for name, part in PARTS.items():
            held += [opened(broker.ports[name]) for _ in range(30)]
            for connection in held[-30:]:
                try:
                    connection.sendall(part)
                except OSError:
                    pass
        # 60 clients send 50 kB and more each: not more than 21 of them fit 1 MiB. All are closed in time, but later.
        def few_are_left():
            return len([connection for connection in held if not is_closed(connection)]) <= 21
        wait_until(few_are_left, 8, "closing what does not fit")
        # A login of ordinary size finds its place.
        with amqp(broker, user="bob", password="bob") as channel, mqtt(broker, user=("bob", "bob")) as client:
            channel.queue_declare("q", exclusive=True)
            client.publish("a", b"x")
        assert broker.get("/health/live")[0] == 200
    finally:
        for connection in held:
            connection.close()
    # It is given back.
    with mqtt(broker, user=("bob", "bob"), will={"topic": "w", "payload": bytes(60_000)}) as client:
        client.publish("a", b"x")


def test_http_does_not_wait_for_a_body_without_end(broker):
    """A request that needs no login has a small body. (That it must come in time is a test of the server.)"""
    head = b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with opened(broker.http_port, head % (1 << 20), b"{" * 20_000) as connection:
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


def test_a_client_that_the_proxy_does_not_know_is_not_on_this_machine(own_broker, tmp_path):
    path = tmp_path / "inver.toml"
    broker = own_broker(start=False, arguments=["--config", path])
    port = free_port()
    path.write_text(f'''[[listeners]]
protocol = "mqtt"
address = "127.0.0.1:{port}"
proxy_protocol = true
proxy_trusted = ["127.0.0.1"]
''')
    broker.start()
    connect = b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1x"
    for header, is_let_in in [(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", True), (b"PROXY UNKNOWN\r\n", False),
                              (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0", False)]:
        with opened(port, header, connect) as connection:
            try:
                answer = connection.recv(4)
            except ConnectionResetError:
                answer = b""
            assert (answer == b"\x20\2\0\0") == is_let_in, header
