"""Client certificates over TLS: which name is the user, what it may do, and who is refused, by real clients of each protocol."""

import json
import queue
import ssl

import confluent_kafka
import paho.mqtt.client as paho
import pika
import pika.exceptions
import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import (AclBinding, AclOperation, AclPermissionType, AdminClient, NewTopic, ResourcePatternType,
                                   ResourceType)

from clients import QUIET, WAIT_SECONDS, java, kafka_tool
from harness import Broker, free_port, run, wait_until
from permission_table import Rule, user
from proxies import Authority

# Every certificate of a device has all of these names; the listener says which one is the user.
SUBJECT, SUBJECT_TEXT = "/C=DE/O=Ex ample, Inc/CN=device-1", r"CN=device-1,O=Ex ample\, Inc,C=DE"
ALTERNATIVE = "DNS:d1.example,DNS:d2.example,email:d1@example.org,URI:urn:dev:1,IP:192.0.2.1"
USERS = {"common_name": "device-1", "subject": SUBJECT_TEXT, "dns": "d1.example", "email": "d1@example.org", "uri": "urn:dev:1"}
# Certificates that name no user, an unknown and a disabled one, and the first of two names.
OTHERS = {"nobody": "/CN=nobody", "disabled": "/CN=disabled", "two": "/CN=device-1/CN=admin", "nameless": "/O=Example",
          "admin": "/CN=admin"}


def entry(name, protocol, port, kind, authority, auth="require"):
    return f"""
[[listeners]]
name = "{name}"
protocol = "{protocol}"
address = "127.0.0.1:{port}"
tls_cert = "{authority.folder}/server.pem"
tls_key = "{authority.folder}/server.key"
tls_client_ca = "{authority.cert}"
tls_client_auth = "{auth}"
certificate_user = "{kind}"
"""


class Server:
    """A broker with a listener for each protocol and each name of a certificate, and certificates for it."""

    def __init__(self, folder):
        self.authority, self.foreign = Authority(folder / "ca"), Authority(folder / "foreign", "Another CA")
        self.authority.sign("localhost", file="server")
        self.authority.sign("device", ALTERNATIVE, subject=SUBJECT)
        self.foreign.sign("device", ALTERNATIVE, subject=SUBJECT)
        for name, subject in OTHERS.items():
            self.authority.sign(name, subject=subject)
        self.ports = {(protocol, user): free_port() for protocol in ("amqp", "kafka", "mqtt") for user in USERS}
        self.requested = {protocol: free_port() for protocol in ("amqp", "kafka", "mqtt")}
        parts = [entry(f"{protocol}-{user}", protocol, port, user, self.authority)
                 for (protocol, user), port in self.ports.items()]
        parts += [entry(f"{protocol}-requested", protocol, port, "common_name", self.authority, "request")
                  for protocol, port in self.requested.items()]
        self.websocket = free_port()
        parts.append(entry("websocket", "mqtt", self.websocket, "common_name", self.authority) + 'websocket_path = "/mqtt"\n')
        parts.append('[users.admin]\ntags = ["administrator"]\n[users.disabled]\ndisabled = true\n')
        # Two who have passwords: the first one may do nothing.
        parts += [user("idle"), user("writer"), Rule("topic", ("write",), "prefix", "own.").text("writer")]
        for name in USERS.values():
            quoted = json.dumps(name)
            parts.append(f"[users.{quoted}]\n")
            for kind, pattern in (("topic", 'prefix = "own."'), ("exchange", ""), ("address", 'filter = "own/{username}"')):
                operations = '["write", "read", "create", "describe"]' if kind != "address" else '["write", "subscribe", "receive"]'
                parts.append(f"[[permissions]]\nuser = {quoted}\nkind = \"{kind}\"\n{pattern}\noperations = {operations}\n")
        config = folder / "inver.toml"
        config.write_text("\n".join(parts))
        self.broker = Broker(folder, arguments=["--config", config])

    def files(self, name, authority=None):
        folder = (authority or self.authority).folder
        return folder / f"{name}.pem", folder / f"{name}.key"

    def refusals(self, user=None):
        """The lines of refused logins, of a user if one is named."""
        return [line for line in self.broker.log().splitlines()
                if "login refused" in line and (user is None or f"user={json.dumps(user)}" in line or f"user={user}" in line)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("certificates"))
    server.broker.start()
    admin = AdminClient(kafka_settings(server, "common_name", "admin"))
    for made in admin.create_topics([NewTopic(name, 1) for name in ("own.t", "other", "by.acl")]).values():
        made.result(WAIT_SECONDS)
    yield server
    try:
        server.broker.check()
    finally:
        server.broker.end()


# What each test of refusals tries: the certificate, its authority, and how it is refused.
FOREIGN = ("device", "foreign")
UNKNOWN, DISABLED, TWO, NAMELESS = [(name, None) for name in ("nobody", "disabled", "two", "nameless")]


# ---- AMQP: EXTERNAL


def amqp_external(server, port, name, foreign=None):
    context = ssl.create_default_context(cafile=server.authority.cert)
    if name:
        context.load_cert_chain(*server.files(name, foreign and server.foreign))
    return pika.BlockingConnection(pika.ConnectionParameters(
        "localhost", port, credentials=pika.credentials.ExternalCredentials(), connection_attempts=1, socket_timeout=5,
        ssl_options=pika.SSLOptions(context, "localhost")))


@pytest.mark.parametrize("kind", USERS)
def test_amqp_external_by_pika(server, kind):
    user, port = USERS[kind], server.ports["amqp", kind]
    with amqp_external(server, port, "device") as connection:
        channel = connection.channel()
        channel.queue_declare("own.q")
        channel.basic_publish("", "own.q", b"x", pika.BasicProperties(user_id=user))
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_get("other")
        assert refused.value.reply_code == 403
        assert refused.value.reply_text == f"ACCESS_REFUSED - read access to queue 'other' in vhost '/' refused for user '{user}'"
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            other = connection.channel()
            other.confirm_delivery()
            other.basic_publish("", "own.q", b"x", pika.BasicProperties(user_id="admin"))
        assert refused.value.reply_code == 406


@pytest.mark.parametrize("certificate", (UNKNOWN, DISABLED))
def test_amqp_external_of_a_user_who_may_not_log_in(server, certificate):
    with pytest.raises(pika.exceptions.ProbableAuthenticationError) as refused:
        amqp_external(server, server.ports["amqp", "common_name"], *certificate)
    assert "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL." in str(refused.value)
    assert any("unknown or disabled" in line for line in server.refusals(certificate[0])), server.refusals()


@pytest.mark.parametrize("certificate", (TWO, NAMELESS, (None, None)))
def test_amqp_external_is_not_offered_without_one_common_name(server, certificate):
    with pytest.raises(pika.exceptions.AuthenticationError, match="EXTERNAL"):
        amqp_external(server, server.requested["amqp"], *certificate)


def test_amqp_external_with_a_wrong_certificate(server):
    for certificate in (FOREIGN, (None, None)):
        with pytest.raises((pika.exceptions.AMQPConnectionError, ssl.SSLError, ConnectionError)):
            amqp_external(server, server.ports["amqp", "common_name"], *certificate)


def by_java(server, protocol, name, tries):
    """What came of the tries (port, certificate, foreign) of RabbitMQ's or Kafka's own client."""
    arguments = []
    for port, certificate, foreign in tries:
        authority = server.foreign if foreign else server.authority
        arguments += [port, authority.key_store(certificate) if certificate else "-"]
    return java("apps", "CertificateApp", protocol, server.authority.cert, name, *arguments).splitlines()


def test_amqp_external_by_rabbitmqs_java_client(server):
    own = [(server.ports["amqp", kind], "device", None) for kind in USERS]
    required, requested = server.ports["amqp", "common_name"], server.requested["amqp"]
    told = by_java(server, "amqp", "other", [
        *own, (requested, "admin", None), (required, *UNKNOWN), (required, *DISABLED), (required, *FOREIGN),
        (required, None, None)])
    for user, line in zip(USERS.values(), told):
        assert f"read access to queue 'other' in vhost '/' refused for user '{user}'" in line
    missing, unknown, disabled, foreign, none = told[len(USERS):]
    assert "no queue 'other' in vhost '/'" in missing, "an administrator may read it"
    for line in (unknown, disabled):
        assert "AuthenticationFailureException: ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL" in line
    for line in (foreign, none):
        assert "allowed" not in line and "ACCESS_REFUSED" not in line, line


# ---- Kafka: the principal is the certificate's


def kafka_settings(server, kind, name, foreign=None, port=None):
    settings = {"bootstrap.servers": f"localhost:{port or server.ports['kafka', kind]}", **QUIET, "security.protocol": "ssl",
                "ssl.ca.location": str(server.authority.cert)}
    if name:
        cert, key = server.files(name, foreign and server.foreign)
        settings |= {"ssl.certificate.location": str(cert), "ssl.key.location": str(key)}
    return settings


def produce(settings, topic, milliseconds=10_000):
    producer = confluent_kafka.Producer({**settings, "message.timeout.ms": milliseconds})
    errors = []
    producer.produce(topic, b"value", on_delivery=lambda error, _message: errors.append(error and error.code()))
    producer.flush(WAIT_SECONDS)
    return errors[0]


@pytest.mark.parametrize("kind", USERS)
def test_kafka_principals_by_librdkafka(server, kind):
    settings = kafka_settings(server, kind, "device")
    assert produce(settings, "own.t") is None
    assert produce(settings, "other") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert set(AdminClient(settings).list_topics(timeout=WAIT_SECONDS).topics) == {"own.t"}
    # An ACL on the principal holds at once.
    assert produce(settings, "by.acl") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    acl = AclBinding(ResourceType.TOPIC, "by.acl", ResourcePatternType.LITERAL, f"User:{USERS[kind]}", "*",
                     AclOperation.WRITE, AclPermissionType.ALLOW)
    admin = AdminClient(kafka_settings(server, "common_name", "admin"))
    admin.create_acls([acl])[acl].result(WAIT_SECONDS)
    assert produce(settings, "by.acl") is None


@pytest.mark.parametrize("auth, certificate", [
    *(("require", each) for each in (UNKNOWN, DISABLED, TWO, NAMELESS, FOREIGN, (None, None))),
    *(("request", each) for each in (TWO, FOREIGN, (None, None))),
])
def test_kafka_clients_that_are_not_let_in_by_librdkafka(server, auth, certificate):
    port = server.requested["kafka"] if auth == "request" else None
    settings = kafka_settings(server, "common_name", *certificate, port=port)
    # Kafka has no message for a refusal outside of SASL: the connection ends, and the log says why.
    assert produce(settings, "own.t", 700) in (KafkaError._MSG_TIMED_OUT, KafkaError._SSL)
    if certificate in (UNKNOWN, DISABLED):
        assert any("unknown or disabled" in line for line in server.refusals(certificate[0])), server.refusals()


def test_kafka_sasl_comes_before_the_certificate(server):
    def login(name):
        return {"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN", "sasl.username": name, "sasl.password": name}

    device, disabled = (kafka_settings(server, "common_name", name) for name in ("device", "disabled"))
    assert produce(device, "own.t") is None
    assert produce({**device, **login("idle")}, "own.t") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert produce({**disabled, **login("writer")}, "own.t") is None
    for settings in (device, disabled):
        assert produce({**settings, **login("nobody")}, "own.t", 700) == KafkaError._MSG_TIMED_OUT


def test_amqp_clients_may_choose_their_password_over_their_certificate(server):
    context = ssl.create_default_context(cafile=server.authority.cert)
    context.load_cert_chain(*server.files("disabled"))
    options = {"ssl_options": pika.SSLOptions(context, "localhost"), "connection_attempts": 1}
    with pika.BlockingConnection(pika.ConnectionParameters(
            "localhost", server.ports["amqp", "common_name"], credentials=pika.PlainCredentials("writer", "writer"), **options)) as connection:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="refused for user 'writer'"):
            connection.channel().basic_get("other")


def test_kafka_principals_by_kafkas_java_client(server):
    own = [(server.ports["kafka", kind], "device", None) for kind in USERS]
    required = server.ports["kafka", "common_name"]
    told = by_java(server, "kafka", "own.t", [*own, (required, *UNKNOWN), (required, *FOREIGN), (required, None, None)])
    assert told[:len(USERS)] == ["allowed"] * len(USERS)
    assert not any("allowed" in line for line in told[len(USERS):]), told
    told = by_java(server, "kafka", "other", own)
    assert all(line.startswith("TopicAuthorizationException: Not authorized to access topics: [other]") for line in told), told


def test_kafkas_tools_with_a_key_store(server, tmp_path):
    def tool(kind, name, *arguments):
        path = tmp_path / f"{name}.properties"
        path.write_text(
            f"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={server.authority.cert}\n"
            f"ssl.keystore.type=PKCS12\nssl.keystore.location={server.authority.key_store(name)}\n"
            "ssl.keystore.password=secret\nssl.key.password=secret\n")
        at = ["--bootstrap-server", f"localhost:{server.ports['kafka', kind]}", "--command-config", path]
        return kafka_tool(*arguments[:1], *at, *arguments[1:])

    # The name in an ACL is the whole subject, commas included.
    tool("common_name", "admin", "AclCommand", "--add", "--allow-principal", f"User:{SUBJECT_TEXT}", "--operation", "Describe",
         "--topic", "other")
    assert f"principal=User:{SUBJECT_TEXT}, host=*, operation=DESCRIBE" in tool(
        "common_name", "admin", "AclCommand", "--list", "--topic", "other")
    assert "other" in tool("subject", "device", "TopicCommand", "--list").split()


# ---- MQTT by Mosquitto's clients


def mosquitto(server, port, name, foreign=None, topic="own/device-1", version="mqttv5", more=()):
    arguments = ["mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", server.authority.cert, "-t", topic, "-m", "x",
                 "-q", "1", "-V", version, *more]
    if name:
        cert, key = server.files(name, foreign and server.foreign)
        arguments += ["--cert", cert, "--key", key]
    done = run(arguments, timeout=20, check=False)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("version", ("mqttv311", "mqttv5"))
@pytest.mark.parametrize("kind", USERS)
def test_mqtt_certificates_by_mosquitto(server, kind, version):
    user, port = USERS[kind], server.ports["mqtt", kind]
    # A user name beside the certificate does not matter.
    for more in ((), ("-u", "admin", "-P", "wrong")):
        assert mosquitto(server, port, "device", topic=f"own/{user}", version=version, more=more) == (0, "")
    code, said = mosquitto(server, port, "device", topic="own/admin", version=version)
    assert ("Not authorized" in said) == (version == "mqttv5"), said
    cert, key = server.files("device")
    mosquitto(server, port, "device", topic=f"own/{user}", version=version, more=("-r",))
    got = run(["mosquitto_sub", "-h", "localhost", "-p", port, "--cafile", server.authority.cert, "--cert", cert, "--key", key,
               "-V", version, "-t", f"own/{user}", "-C", "1", "-W", "10"])
    assert got.stdout == b"x\n"
    denied = run(["mosquitto_sub", "-h", "localhost", "-p", port, "--cafile", server.authority.cert, "--cert", cert, "--key", key,
                  "-V", version, "-t", "own/#", "-C", "1", "-W", "10"])
    assert b"All subscription requests were denied" in denied.stderr


@pytest.mark.parametrize("name, reason", (("device", 0), ("disabled", 0x87), ("two", 0x87)))
def test_a_certificate_counts_over_a_websocket_too(server, name, reason):
    cert, key = server.files(name)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, transport="websockets", reconnect_on_failure=False)
    client.tls_set(server.authority.cert, cert, key)
    reasons = queue.Queue()
    client.on_connect = lambda _client, _data, _flags, code, _properties: reasons.put(code.value)
    client.on_publish = lambda _client, _data, _mid, code, _properties: reasons.put(code.value)
    client.connect("localhost", server.websocket)
    client.loop_start()
    assert reasons.get(timeout=WAIT_SECONDS) == reason
    if not reason:
        client.publish("own/admin", b"x", qos=1)
        assert reasons.get(timeout=WAIT_SECONDS) == 0x87, "not the device's own address"
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("version", ("mqttv311", "mqttv5"))
def test_mqtt_clients_that_are_not_let_in_by_mosquitto(server, version):
    required, requested = server.ports["mqtt", "common_name"], server.requested["mqtt"]
    not_authorized = (135, "Not authorized") if version == "mqttv5" else (5, "not authorised")
    for name, foreign in (UNKNOWN, DISABLED, TWO, NAMELESS):
        code, said = mosquitto(server, required, name, foreign, version=version)
        assert code == not_authorized[0] and not_authorized[1] in said, (name, code, said)
    code, said = mosquitto(server, requested, None, version=version)
    assert code == not_authorized[0] and not_authorized[1] in said, (code, said)
    for name, foreign in (FOREIGN, (None, None)):
        code, said = mosquitto(server, required, name, foreign, version=version)
        assert code != 0 and not_authorized[1] not in said, (name, code, said)
    for user in ("nobody", "disabled"):
        wait_until(lambda: any("unknown or disabled" in line for line in server.refusals(user)), what="the reason in the log")


# ---- All of them: a user who is disabled later


def test_disabling_a_user_ends_its_connections_and_keeps_it_out(server):
    """The kind: what the certificate said at the handshake is not believed for ever."""
    config = server.broker.folder / "inver.toml"
    before = config.read_text()
    port = server.ports["amqp", "dns"]
    connection = amqp_external(server, port, "device")
    try:
        config.write_text(before.replace('[users."d1.example"]\n', '[users."d1.example"]\ndisabled = true\n'))
        server.broker.process.send_signal(1)
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            wait_until(lambda: connection.process_data_events(0.1), what="the end of the connection")
        assert closed.value.reply_code == 320
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            amqp_external(server, port, "device")
        code, _ = mosquitto(server, server.ports["mqtt", "dns"], "device", topic="own/d1.example")
        assert code == 135
        assert produce(kafka_settings(server, "dns", "device"), "own.t", 700) == KafkaError._MSG_TIMED_OUT
    finally:
        config.write_text(before)
        server.broker.process.send_signal(1)
        wait_until(lambda: mosquitto(server, server.ports["mqtt", "dns"], "device", topic="own/d1.example")[0] == 0,
                   what="the user again")
