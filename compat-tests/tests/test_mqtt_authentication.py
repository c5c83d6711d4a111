"""Enhanced authentication of MQTT 5 by clients that have it: HiveMQ's with Kafka's SCRAM, and mqtt.js. Proofs, renewal, tokens."""

import base64
import contextlib
import json
import time
import urllib.request

import pytest

from clients import WAIT_SECONDS, background, java, mqtt
from harness import CLIENTS, ROOT, binary, run, wait_until
from tokens import ALL, Issuer

CLIENT_NAMES = ("hivemq", "mqtt.js")
METHODS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
BAD_PASSWORD, NOT_AUTHORIZED, BUSY, CONNECT_TIME = 0x86, 0x87, 0x89, 0xA0


class Client:
    """A client program that takes a command a line."""

    def __init__(self, name, broker, method, user, secret, client_id):
        given = [client_id, method, user, secret]
        if name == "hivemq":
            jars = CLIENTS / "java"
            command = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp",
                       f"{jars}/classes:{jars}/mqtt/*:{jars}/apps/*", "AuthApp", "127.0.0.1", broker.mqtt_port, *given]
            environment = None
        else:
            command = ["node", ROOT / "compat-tests" / "clients" / "node" / "mqtt-auth.js",
                       f"mqtt://127.0.0.1:{broker.mqtt_port}", *given]
            environment = {"NODE_PATH": str(CLIENTS / "node" / "node_modules"), "PATH": "/usr/bin:/usr/local/bin:/bin"}
        self.process = background(command, stdin=-1, env=environment)
        self.messages = []

    def __call__(self, command):
        """The answer to a command; messages that come before it are kept."""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline().decode().strip()
            if not line.startswith("message "):
                assert line, self.process.stderr.read().decode()
                return line
            self.messages.append(line)


@pytest.fixture
def client():
    """Starts clients and ends them after the test."""
    with contextlib.ExitStack() as stack:
        def start(name, broker, method, user, secret, client_id="c1"):
            made = Client(name, broker, method, user, secret, client_id)
            stack.callback(made.process.wait, WAIT_SECONDS)
            stack.callback(made.process.kill)
            return made
        yield start


@pytest.fixture
def keyed(own_broker, tmp_path):
    """A broker with the users `ann` and `bob`, who have SCRAM keys, and one issuer of tokens."""
    issuer = Issuer(tmp_path / "issuer")
    config = tmp_path / "inver.toml"
    config.write_text("")
    for name in ("ann", "bob"):
        run([binary(), "user", "add", name, "--scram", "--config", config], stdin=f"{name}-secret\n".encode())
    with config.open("a") as file:
        file.write(f'[[jwt]]\njwks_file = "{issuer.set}"\nissuer = "https://idp"\naudience = "inver"\nleeway_s = 0\n')
    broker = own_broker(arguments=["--config", config])
    broker.issuer = issuer
    return broker


@pytest.mark.parametrize("name", CLIENT_NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_scram_proves_both_sides_and_is_repeated(keyed, client, name, method):
    ann = client(name, keyed, method, "ann", "ann-secret")
    assert ann("connect") == "connected", "the client verified the server's proof"
    assert ann("subscribe a/#") == "granted 1"
    for _ in range(3):
        assert ann("reauth") == "reauthenticated"
        assert ann("publish a/b") == "published"
    with mqtt(keyed, user=("bob", "bob-secret")) as bob:
        bob.publish("a/c", b"x")
    wait_until(lambda: ann("publish b") == "published" and "message a/c x" in ann.messages, what="the session's message")
    ann("secret wrong")
    assert ann("reauth") == f"disconnected {NOT_AUTHORIZED}"
    wrong = client(name, keyed, method, "ann", "wrong", "c2")
    assert wrong("connect") == f"refused {BAD_PASSWORD}"
    wrong = client(name, keyed, method, "nobody", "ann-secret", "c3")
    assert wrong("connect") == f"refused {BAD_PASSWORD}"
    assert "ann-secret" not in keyed.log()


@pytest.mark.parametrize("name", CLIENT_NAMES)
def test_a_client_that_proves_to_be_another_user_is_disconnected(keyed, client, name):
    issuer = keyed.issuer
    ann = client(name, keyed, "OAUTHBEARER", "-", issuer.token("ann", scope=ALL))
    assert ann("connect") == "connected"
    assert ann(f"secret {issuer.token('bob', scope=ALL)}") == "ok"
    assert ann("reauth") == f"disconnected {NOT_AUTHORIZED}"


@pytest.mark.parametrize("name", CLIENT_NAMES)
def test_a_new_password_is_asked_for_at_the_next_proof(own_broker, client, name, tmp_path):
    broker = own_broker()

    def put(user, body, login=None):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{broker.http_port}/api/v1/users/{user}", method="PUT",
                                         data=json.dumps(body).encode(), headers=headers)
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()

    put("root", {"password": "root-secret", "tags": ["administrator"]})
    put("ann", {"password": "first", "tags": ["administrator"]}, "root:root-secret")
    ann = client(name, broker, "SCRAM-SHA-256", "ann", "first")
    assert (ann("connect"), ann("reauth")) == ("connected", "reauthenticated")
    put("ann", {"password": "second", "tags": ["administrator"]}, "root:root-secret")
    ann("secret second")
    assert ann("reauth") == "reauthenticated"
    ann("secret first")
    assert ann("reauth") == f"disconnected {NOT_AUTHORIZED}"


@pytest.mark.parametrize("name", CLIENT_NAMES)
def test_a_delegation_token_logs_in_until_it_is_ended(keyed, client, name, tmp_path):
    login = tmp_path / "ann.properties"
    login.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="ann" password="ann-secret";\n')

    def tool(*arguments):
        return java("console", "org.apache.kafka.tools.DelegationTokenCommand", "--bootstrap-server", keyed.kafka,
                    "--command-config", login, *arguments)

    said = tool("--create", "--max-life-time-period", "-1")
    [[token, hmac, *_]] = [line.split() for line in said.splitlines() if "== User:" in line]
    by_token = []
    for number, method in enumerate(METHODS):
        by_token.append(client(name, keyed, method, f"token:{token}", hmac, f"c{number}"))
        assert by_token[-1]("connect") == "connected"
        assert by_token[-1](f"subscribe {number}/#") == "granted 1"
        assert by_token[-1]("reauth") == "reauthenticated"
        assert by_token[-1](f"publish {number}/a") == "published"
        # The token is no user, and its secret no password of its owner.
        for user, secret in ((token, hmac), ("ann", hmac), (f"token:{token}", "ann-secret"), ("token:other", hmac)):
            wrong = client(name, keyed, method, user, secret, f"wrong-{number}")
            assert wrong("connect") == f"refused {BAD_PASSWORD}", user
    with mqtt(keyed, user=("bob", "bob-secret")) as bob:
        bob.publish("0/c", b"x")
    wait_until(lambda: by_token[0]("publish 0/b") == "published" and "message 0/c x" in by_token[0].messages,
               what="the owner's session")
    tool("--expire", "--expiry-time-period", "-1", "--hmac", hmac)
    assert [each("wait") for each in by_token] == [f"disconnected {CONNECT_TIME}"] * 2
    late = client(name, keyed, METHODS[0], f"token:{token}", hmac, "late")
    assert late("connect") == f"refused {BAD_PASSWORD}"
    assert hmac not in keyed.log()


# ---- Tokens


@pytest.mark.parametrize("name", CLIENT_NAMES)
def test_a_token_is_renewed_before_it_expires_and_then_expires(keyed, client, name):
    issuer = keyed.issuer
    token = lambda lives: issuer.token(lives=lives, scope=ALL)  # noqa: E731
    device = client(name, keyed, "OAUTHBEARER", "-", "-")
    # Once the program runs: its start takes a while.
    began = time.monotonic()
    device(f"secret {token(5)}")
    assert device("connect") == "connected"
    assert device("subscribe up/#") == "granted 1"
    for lives in (7, 8):
        device(f"secret {token(lives)}")
        assert device("reauth") == "reauthenticated"
    published = 0
    while time.monotonic() < began + 6:
        assert device("publish up/1") == "published"
        published += 1
    assert device("wait") == f"disconnected {CONNECT_TIME}"
    assert time.monotonic() > began + 7, "the last token holds"
    assert device.messages and set(device.messages) == {"message up/1 x"} and len(device.messages) <= published


@pytest.mark.parametrize("name", CLIENT_NAMES)
def test_what_a_renewed_token_allows_holds_at_once(keyed, client, name):
    # A user of the broker with rules would have those too.
    token = lambda **claims: keyed.issuer.token("device", **claims)  # noqa: E731
    device = client(name, keyed, "OAUTHBEARER", "-", token(scope="write:*/amq.topic/up.*"))
    assert device("connect") == "connected"
    assert (device("publish up/1"), device("publish down/1")) == ("published", f"refused {NOT_AUTHORIZED}")
    assert device("subscribe up/#") == f"refused {NOT_AUTHORIZED}"
    device(f"secret {token(scope='write:*/amq.topic/down.* read:*/amq.topic/up.*')}")
    assert device("reauth") == "reauthenticated"
    assert (device("publish up/1"), device("publish down/1")) == (f"refused {NOT_AUTHORIZED}", "published")
    assert device("subscribe up/#") == "granted 1"
    device(f"secret {token(lives=-1, scope=ALL)}")
    assert device("reauth") == f"disconnected {NOT_AUTHORIZED}"


def test_mqtt_js_connects_again_with_a_new_token_to_its_session(keyed, client):
    issuer = keyed.issuer
    with mqtt(keyed, user=("bob", "bob-secret")) as bob:
        device = client("mqtt.js", keyed, "password", "ignored", "-")
        device(f"secret {issuer.token(lives=3, scope=ALL)}")
        assert device("connect") == "connected"
        assert device("subscribe up/#") == "granted 1"
        # The library takes it when the old one is over.
        device(f"secret {issuer.token(scope=ALL)}")
        assert device("wait") == f"disconnected {CONNECT_TIME}"
        bob.publish("up/1", b"while away")
        assert device("again") == "again true"
        wait_until(lambda: device("publish other") == "published" and device.messages, what="the message of the session")
        assert device.messages == ["message up/1 while away"]
