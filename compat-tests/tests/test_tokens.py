"""JSON Web Tokens as credentials: every protocol's clients, expiry, renewal, and keys from a file and from a URL."""

import http.server
import json
import re
import socket
import ssl
import struct
import threading
import time
import urllib.error
import urllib.request

import confluent_kafka
import kafka
import paho.mqtt.client as paho
import pika
import pytest
from kafka.net.sasl.oauth import AbstractTokenProvider
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import QUIET, WAIT_SECONDS, Mqtt, amqp_connection, background, mqtt, wait_until
from harness import CLIENTS, binary, free_port, run
from proxies import Authority
from tokens import ALL, Issuer, encoded


@pytest.fixture
def trusting(own_broker, tmp_path):
    """A broker that believes one issuer, without users of its own."""
    issuer = Issuer(tmp_path / "issuer")
    config = tmp_path / "inver.toml"
    config.write_text(f"""
[[jwt]]
jwks_file = "{issuer.set}"
issuer = "https://idp"
audience = "inver"
leeway_s = 0
""")
    broker = own_broker(arguments=["--config", config])
    broker.issuer = issuer
    return broker


# ---- AMQP by pika


def test_a_token_is_the_password_of_an_amqp_client(trusting):
    broker, issuer = trusting, trusting.issuer
    connection = amqp_connection(broker, "anything", issuer.token(scope="configure:%2F/q* write:%2F/amq.default write:%2F/q*"))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("q1")
    channel.basic_publish("", "q1", b"x")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.basic_get("q1")
    assert refused.value.reply_code == 403 and "read access to queue 'q1'" in refused.value.reply_text
    assert "for user 'ann'" in refused.value.reply_text
    # A new token changes what the connection may do.
    connection.update_secret(issuer.token(scope=ALL), "more is needed")
    channel = connection.channel()
    assert channel.basic_get("q1")[2] == b"x"
    connection.update_secret(issuer.token(scope="read:%2F/q1"), "less is enough")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.queue_delete("q1")
    assert refused.value.reply_code == 403
    connection.close()


@pytest.mark.parametrize("wrong", ["other user", "forged", "no token"])
def test_a_wrong_new_secret_closes_the_connection(trusting, tmp_path, wrong):
    broker, issuer = trusting, trusting.issuer
    connection = amqp_connection(broker, "x", issuer.token(scope=ALL))
    secret = {"other user": lambda: issuer.token("bob", scope=ALL), "no token": lambda: "secret",
              "forged": lambda: Issuer(tmp_path / "other").token(scope=ALL)}[wrong]()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        connection.update_secret(secret, "test")
    assert closed.value.reply_code == 530
    assert closed.value.reply_text == "NOT_ALLOWED - New secret was refused by one of the backends"


def test_an_amqp_connection_ends_when_its_token_expires(trusting):
    broker, issuer = trusting, trusting.issuer
    connection = amqp_connection(broker, "x", issuer.token(lives=3, scope=ALL))
    connection.update_secret(issuer.token(lives=6, scope=ALL), "renewed")
    began = time.monotonic()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        while time.monotonic() < began + WAIT_SECONDS:
            connection.process_data_events(time_limit=1)
    assert time.monotonic() > began + 3.5, "the renewed token holds"
    assert (closed.value.reply_code, closed.value.reply_text) == (320, "CONNECTION_FORCED - credential expired")


@pytest.mark.parametrize("tokens", [3, 1])
def test_rabbitmqs_java_client_renews_its_token_by_itself(trusting, tokens):
    """With tokens that it renews in time it works on, on one connection, when the first one is over; with one it cannot."""
    broker, issuer = trusting, trusting.issuer
    jars = CLIENTS / "java"
    app = background(["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/classes:{jars}/apps/*",
                      "AmqpTokenApp", broker.amqp_port, "q", "7000", "3000"], stdin=-1)
    try:
        # The tokens live from when the program runs: its start takes a while.
        assert app.stdout.readline() == b"ready\n"
        given = "".join(issuer.token(lives=5 + 3 * number, scope=ALL) + "\n" for number in range(tokens))
        said = app.communicate(given.encode(), timeout=60)[0].decode()
    finally:
        app.kill()
        app.wait()
    sent, ended = said.strip().split(" sent, ")
    if tokens == 3:
        assert ended == "open", said
    else:
        assert "reply-code=320, reply-text=CONNECTION_FORCED - credential expired" in ended, said
    with_all = amqp_connection(broker, "x", issuer.token(scope=ALL))
    # The one that waited for its confirm when the connection was closed may be stored too.
    unconfirmed = int(tokens == 1)
    stored = with_all.channel().queue_declare("q", passive=True).method.message_count
    assert 10 < int(sent) <= stored <= int(sent) + unconfirmed
    with_all.close()


def refused(broker, token):
    with pytest.raises((pika.exceptions.ProbableAuthenticationError, pika.exceptions.AMQPConnectionError)):
        amqp_connection(broker, "x", token).close()


def test_tokens_that_do_not_hold_are_refused(trusting, tmp_path):
    broker, issuer = trusting, trusting.issuer
    right = issuer.token(scope=ALL)
    head, claims, signature = right.split(".")
    for wrong in (
        issuer.token(lives=-5), issuer.token(iss="https://other"), issuer.token(aud="other"), issuer.token(exp="never"),
        issuer.token(algorithm="RS512"), Issuer(tmp_path / "forger").token(),
        f"{head}.{encoded({'sub': 'root', 'exp': time.time() + 60})}.{signature}",
        f"{encoded({'alg': 'none'})}.{claims}.", "guest",
    ):
        refused(broker, wrong)
    refused(broker, "")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}/api/v1/queues", timeout=WAIT_SECONDS)
    amqp_connection(broker, "x", right).close()
    log = broker.log()
    assert "login refused" in log and "it has expired" in log
    assert signature not in log and claims not in log


# ---- Kafka


def oauth(broker, token, **options):
    return {
        "bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _config: token(), **options,
    }


def test_librdkafka_authenticates_again_before_its_token_expires(trusting):
    broker, issuer = trusting, trusting.issuer
    made = []

    def token():
        made.append(1)
        return issuer.token(lives=6, scope=ALL), time.time() + 6

    producer = confluent_kafka.Producer(oauth(broker, token))
    failures, began = [], time.monotonic()
    while time.monotonic() < began + 14:
        producer.produce("t", b"x", on_delivery=lambda error, _message: failures.append(error))
        assert producer.flush(WAIT_SECONDS) == 0
        producer.poll(0.2)
    assert set(failures) == {None} and len(made) > 2
    # None of its connections was refused: it renewed in time.
    assert "credential expired" not in broker.log()


def test_librdkafka_is_told_that_its_token_is_not_accepted(trusting, tmp_path):
    broker, said = trusting, []
    forger = Issuer(tmp_path / "forger")
    options = oauth(broker, lambda: (forger.token(scope=ALL), time.time() + 600))
    producer = confluent_kafka.Producer({**options, "error_cb": lambda error: said.append(error)})
    failed = lambda: producer.poll(0.1) is not None and any(
        error.code() == confluent_kafka.KafkaError._AUTHENTICATION for error in said)
    wait_until(failed, WAIT_SECONDS, "an authentication error")
    assert any("invalid_token" in error.str() for error in said), said


class Provider(AbstractTokenProvider):
    def __init__(self, token):
        super().__init__()
        self._token = token

    def token(self):
        return self._token


def test_kafka_python(trusting):
    broker, issuer = trusting, trusting.issuer
    options = {"bootstrap_servers": broker.kafka, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER",
               "sasl_oauth_token_provider": Provider(issuer.token(scope=ALL))}
    producer = kafka.KafkaProducer(**options)
    assert producer.send("t", b"value").get(WAIT_SECONDS).offset == 0
    producer.close()
    consumer = kafka.KafkaConsumer("t", **options, auto_offset_reset="earliest", consumer_timeout_ms=WAIT_SECONDS * 1000)
    assert next(consumer).value == b"value"
    consumer.close()


def test_kafkas_own_tools_take_the_token_of_a_file(trusting, tmp_path):
    broker, issuer = trusting, trusting.issuer
    (tmp_path / "token").write_text(issuer.token(scope=ALL))
    url = (tmp_path / "token").as_uri()
    settings = tmp_path / "client.properties"
    settings.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n"
        "sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler\n"
        f"sasl.oauthbearer.token.endpoint.url={url}\n"
        "sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;\n"
        "request.timeout.ms=10000\ndefault.api.timeout.ms=15000\n")
    jars = CLIENTS / "java"
    tool = ["java", "-Xmx128m", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={url}",
            f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.files={tmp_path / 'token'}",
            "-cp", f"{jars}/console/*", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.kafka,
            "--command-config", settings]
    run([*tool, "--create", "--topic", "of-the-tool"], timeout=90)
    assert "of-the-tool" in run([*tool, "--list"], timeout=90).stdout.decode().split()


# ---- MQTT


@pytest.mark.parametrize("version", [4, 5])
def test_a_token_is_the_password_of_an_mqtt_client(trusting, version):
    broker, issuer = trusting, trusting.issuer
    token = issuer.token(lives=4, scope="write:*/amq.topic/up.* read:*/amq.topic/up.*")
    with mqtt(broker, version=version, user=("ignored", token)) as device:
        assert not device.reason.is_failure
        assert not device.subscribe("up/#")[0].is_failure
        device.publish("up/1", b"x")
        device.publish("down/1", b"x") if version == 4 else None
        assert device.get().payload == b"x"
        assert device.subscribe("#")[0].is_failure
        reason = device.disconnects.get(timeout=WAIT_SECONDS)
        if version == 5:
            assert reason.value == 0xA0, "the maximum connect time"
    wrong = Mqtt(broker, version=version, user=("ann", issuer.token(lives=-1)))
    assert wrong.reason.value == 0x86 or "Bad user name" in str(wrong.reason)


def connect_packet(client_id, method, data):
    """A CONNECT of MQTT 5 with an authentication method."""
    text = lambda value: struct.pack("!H", len(value)) + value
    properties = b"\x15" + text(method) + b"\x16" + text(data)
    body = text(b"MQTT") + b"\x05\x02" + struct.pack("!H", 60) + variable(len(properties)) + properties + text(client_id)
    return b"\x10" + variable(len(body)) + body


def auth_packet(method, data):
    """An AUTH that asks to authenticate again."""
    text = lambda value: struct.pack("!H", len(value)) + value
    properties = b"\x15" + text(method) + b"\x16" + text(data)
    body = b"\x19" + variable(len(properties)) + properties
    return b"\xf0" + variable(len(body)) + body


def variable(length):
    out = b""
    while True:
        length, low = divmod(length, 128)
        out += bytes([low | 0x80 if length else low])
        if not length:
            return out


def read_packet(stream):
    """A packet without its length."""
    kind = stream.read(1)
    length, shift = 0, 0
    while kind:
        byte = stream.read(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return kind + stream.read(length) if kind else b""


def test_enhanced_authentication_of_mqtt_5_renews_a_token(trusting):
    broker, issuer = trusting, trusting.issuer
    message = lambda token: b"n,,\x01auth=Bearer " + token.encode() + b"\x01\x01"
    with socket.create_connection(("127.0.0.1", broker.mqtt_port), WAIT_SECONDS) as plain:
        stream = plain.makefile("rb")
        plain.sendall(connect_packet(b"c1", b"OAUTHBEARER", message(issuer.token(lives=3, scope=ALL))))
        connack = read_packet(stream)
        assert connack[0] == 0x20 and connack[2] == 0 and b"OAUTHBEARER" in connack
        began = time.monotonic()
        plain.sendall(auth_packet(b"OAUTHBEARER", message(issuer.token(lives=6, scope=ALL))))
        answer = read_packet(stream)
        assert answer[0] == 0xF0 and answer[1] == 0
        disconnect = read_packet(stream)
        assert disconnect[0] == 0xE0 and disconnect[1] == 0xA0
        assert time.monotonic() > began + 3.5
    with socket.create_connection(("127.0.0.1", broker.mqtt_port), WAIT_SECONDS) as plain:
        stream = plain.makefile("rb")
        plain.sendall(connect_packet(b"c2", b"OAUTHBEARER", message(issuer.token(scope=ALL))))
        assert read_packet(stream)[2] == 0
        plain.sendall(auth_packet(b"OAUTHBEARER", message(issuer.token("bob", scope=ALL))))
        disconnect = read_packet(stream)
        assert disconnect[0] == 0xE0 and disconnect[1] == 0x87, "another user"


# ---- HTTP, and where keys come from


def api(broker, path, token):
    request = urllib.request.Request(f"http://127.0.0.1:{broker.http_port}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_http_api_takes_a_token(trusting):
    broker, issuer = trusting, trusting.issuer
    assert api(broker, "/api/v1/users", issuer.token(scope="tag:administrator")) == 200
    assert api(broker, "/api/v1/users", issuer.token(scope="tag:monitoring")) in (200, 403)
    assert api(broker, "/api/v1/users", issuer.token()) == 403
    assert api(broker, "/api/v1/users", issuer.token(lives=-1)) == 401


class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.server.jwks else 503)
        self.send_header("Content-Length", str(len(self.server.jwks)))
        self.end_headers()
        self.wfile.write(self.server.jwks.encode())

    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_keys_come_from_a_url_and_are_looked_for_again(own_broker, tmp_path, scheme):
    issuer = Issuer(tmp_path / "one")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    server.jwks, more = issuer.jwks, ""
    if scheme == "https":
        authority = Authority(tmp_path / "ca")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.sign("localhost"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        more = f'jwks_ca = "{authority.cert}"'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        config = tmp_path / "inver.toml"
        config.write_text(f"""
[[jwt]]
jwks_url = "{scheme}://localhost:{server.server_port}/keys"
audience = "inver"
refresh_s = 1
{more}
""")
        broker = own_broker(arguments=["--config", config])
        accepts = lambda token: api(broker, "/api/v1/users", token) == 200
        first = issuer.token(scope="tag:administrator")
        wait_until(lambda: accepts(first), WAIT_SECONDS, "a token of the first key")
        server.jwks = ""
        wait_until(lambda: "failed to load the keys of tokens" in broker.log(), WAIT_SECONDS, "a failed fetch")
        assert accepts(first), "the keys stay while they cannot be fetched"
        other = Issuer(tmp_path / "two", kid="k2")
        server.jwks = other.jwks
        second = other.token(scope="tag:administrator")
        wait_until(lambda: accepts(second), 25, "a token of the second key")
        assert not accepts(first)
        assert ("without TLS" in broker.log()) == (scheme == "http")
    finally:
        server.shutdown()
        server.server_close()


def test_a_reload_changes_the_issuers(trusting, tmp_path):
    broker, first = trusting, trusting.issuer
    second = Issuer(tmp_path / "second")
    config = tmp_path / "inver.toml"
    text = config.read_text()
    token = lambda issuer: issuer.token(scope="tag:administrator")
    assert (api(broker, "/api/v1/users", token(first)), api(broker, "/api/v1/users", token(second))) == (200, 401)
    config.write_text(text.replace(str(first.set), str(second.set)))
    broker.process.send_signal(1)
    wait_until(lambda: api(broker, "/api/v1/users", token(second)) == 200, WAIT_SECONDS, "the new issuer")
    assert api(broker, "/api/v1/users", token(first)) == 401
    config.write_text(text.replace(str(first.set), "/nowhere.json"))
    broker.process.send_signal(1)
    wait_until(lambda: "reload refused" in broker.log(), WAIT_SECONDS, "a refused reload")
    assert api(broker, "/api/v1/users", token(second)) == 200


# ---- The command line


def test_permission_check_shows_what_a_token_brings(own_broker, tmp_path):
    issuer = Issuer(tmp_path / "issuer")
    config = tmp_path / "inver.toml"
    config.write_text(f'[[jwt]]\njwks_file = "{issuer.set}"\n'
                      '[[permissions]]\nuser = "ann"\nkind = "topic"\nname = "q9"\noperations = "all"\neffect = "deny"\n')
    broker = own_broker(arguments=["--config", config])
    root = tmp_path / "root.password"
    root.write_text(issuer.token("root", scope="tag:administrator"))

    def check(token, name, *arguments):
        file = tmp_path / "token"
        file.write_text(token + "\n")
        done = run([binary(), "permission", "check", "--login", "x", "--password-file", root, "--token-file", file,
                    "--kind", "topic", "--name", name, "--operation", "read", *arguments],
                   env=broker.environment, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    token = issuer.token(scope="read:%2F/q* tag:monitoring")
    code, said, error = check(token, "q1")
    assert (code, said.splitlines()[0]) == (0, "allowed: a rule of the token allows it"), said + error
    assert "of user ann" in said and re.search(r"topic +.*read", said), said
    code, said, _ = check(token, "other", "-o", "json")
    answer = json.loads(said)
    assert code == 1 and answer["reason"] == "no rule allows it" and answer["tags"] == ["monitoring"]
    assert {rule["kind"] for rule in answer["rules"]} == {"topic", "exchange", "group", "routing-key"}
    assert all(rule["source"] == "token" and rule["namespace"] == "/" for rule in answer["rules"])
    assert check(token, "q9")[1].startswith("denied: rule "), "a rule of the configuration denies it"
    code, said, _ = check(issuer.token(lives=-100), "q1")
    assert code == 1 and "the token is not accepted" in said, said
    assert token not in broker.log()
