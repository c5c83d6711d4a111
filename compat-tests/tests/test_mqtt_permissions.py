"""Permissions of MQTT clients: a Mosquitto acl_file with Paho in both versions and mosquitto_pub, and SCRAM."""

import base64
import hashlib
import hmac
import signal
import socket
import subprocess

import paho.mqtt.client as paho
import pytest

from clients import MqttUser
from harness import Broker, binary, run, wait_until
from mosquitto import hashed

ACL = """
topic read public/#

user ann
topic read all/#
topic write up/+
topic deny all/secret
pattern readwrite devices/%c/#
"""
PASSWORDS = ("ann", "bob")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mqtt-permissions")
    (folder / "acl").write_text(ACL)
    users = "".join(f'[users.{name}]\npasswords = ["{hashed(name)}"]\n' for name in PASSWORDS)
    users += f'[users.root]\npasswords = ["{hashed("root")}"]\ntags = ["administrator"]\n'
    (folder / "inver.toml").write_text(f'{users}[mqtt]\nacl_file = "{folder / "acl"}"\n')
    config = folder / "inver.toml"
    run([binary(), "user", "add", "sam", "--scram", "--config", config], stdin=b"secret\n")
    broker = Broker(folder, arguments=("--config", str(config))).start()
    yield broker
    broker.kill()


class Client(MqttUser):
    """Connects at once, publishes one payload, and keeps the topics of what it receives."""

    def __init__(self, server, version, user, client_id):
        super().__init__(server, user, version, client_id)
        self.client.on_message = lambda _c, _u, message: self.messages.append(message.topic)
        self.client.connect(*self.address)
        self.client.loop_start()

    def publish(self, topic, qos=1):
        return super().publish(topic, b"x", qos)


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_a_mosquitto_file_decides(server, version):
    refused = 0x87 if version == paho.MQTTv5 else 0
    ann, root = Client(server, version, "ann", "c1"), Client(server, version, "root", "r1")
    try:
        assert (ann.code("connect"), root.code("connect")) == (0, 0)
        assert ann.subscribe("#") == 1, "every subscription is accepted"
        assert {ann.publish("up/1", qos) for qos in (1, 2)} <= {0, 0x10}
        for topic in ["up/1/2", "all/x", "devices/c2/x"]:
            assert ann.publish(topic) == refused, topic
            # Paho answers a PUBREC that refuses with PUBREL, and is told that the packet identifier is not in use.
            assert ann.publish(topic, 2) == (0x92 if refused else 0), topic
        assert ann.publish("devices/c1/up") in (0, 0x10)
        for topic in ["all/secret", "up/1", "other", "all/x"]:
            root.publish(topic)
        wait_until(lambda: "all/x" in ann.messages, 20, "the permitted message")
        assert ann.messages == ["devices/c1/up", "all/x"]
    finally:
        ann.close()
        root.close()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_learns_of_wrong_passwords_only(server, version):
    def publish(password):
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(server.mqtt_port), "-V", version, "-q", "1"]
        command += ["-u", "ann", "-P", password, "-i", "c9", "-t", "up/1", "-m", "x"]
        return subprocess.run(command, capture_output=True, timeout=30).returncode

    assert publish("ann") == 0
    assert publish("wrong") != 0


def length(number):
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def field(data):
    return len(data).to_bytes(2, "big") + data


def authentication(method, data):
    """Properties with Authentication Method and Data."""
    properties = b"\x15" + field(method) + b"\x16" + field(data)
    return length(len(properties)) + properties


class Raw:
    """An MQTT 5 client for packets that no library has."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.mqtt_port), timeout=20)
        self.stream = self.socket.makefile("rb")

    def send(self, first_byte, body):
        self.socket.sendall(bytes([first_byte]) + length(len(body)) + body)

    def packet(self):
        """Type and body of the next packet; they are shorter than 16,384 bytes."""
        first_byte, low = self.stream.read(2)
        size = low if low < 0x80 else low - 0x80 + 128 * self.stream.read(1)[0]
        return first_byte >> 4, self.stream.read(size)


@pytest.mark.parametrize("method", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_enhanced_authentication_with_scram(server, method):
    digest = method[6:].replace("-", "").lower()

    def exchange(client, password, begin):
        """Begins, answers the server's first message; returns the last packet and what it must hold."""
        first = b"n=sam,r=nonce"
        begin(b"n,," + first)
        kind, body = client.packet()
        assert (kind, body[0]) == (15, 0x18), "AUTH, continue authentication"
        challenge = body[body.index(b"r=nonce"):]
        nonce, salt, iterations = (part[2:] for part in challenge.split(b","))
        salted = hashlib.pbkdf2_hmac(digest, password, base64.b64decode(salt), int(iterations))
        last = b"c=biws,r=" + nonce
        signed = b",".join([first, challenge, last])
        key = hmac.digest(salted, b"Client Key", digest)
        signature = hmac.digest(hashlib.new(digest, key).digest(), signed, digest)
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature)))
        answer = authentication(method.encode(), last + b",p=" + proof)
        client.send(0xF0, b"\x18" + answer)
        verifier = hmac.digest(hmac.digest(salted, b"Server Key", digest), signed, digest)
        return *client.packet(), b"v=" + base64.b64encode(verifier)

    def connect(client, data):
        head = field(b"MQTT") + b"\x05\x02\x00\x3c"
        client.send(0x10, head + authentication(method.encode(), data) + field(b"scram-client"))

    wrong = Raw(server)
    kind, body, _ = exchange(wrong, b"wrong", lambda data: connect(wrong, data))
    assert (kind, body[1]) == (2, 0x86)
    client = Raw(server)
    kind, body, verifier = exchange(client, b"secret", lambda data: connect(client, data))
    assert (kind, body[1]) == (2, 0) and verifier in body, "CONNACK with the server's proof"

    def again(data):
        client.send(0xF0, b"\x19" + authentication(method.encode(), data))

    kind, body, verifier = exchange(client, b"secret", again)
    assert (kind, body[0]) == (15, 0) and verifier in body
    kind, body, _ = exchange(client, b"wrong", again)
    assert (kind, body[0]) == (14, 0x87), "DISCONNECT, not authorized"


def test_a_changed_file_is_read_at_a_reload_and_holds_at_once(server):
    acl = server.folder / "acl"
    before = acl.read_text()
    bob, root = Client(server, paho.MQTTv5, "bob", "c3"), Client(server, paho.MQTTv5, "root", "r3")
    try:
        assert (bob.subscribe("late/#"), bob.publish("late/x")) == (1, 0x87)
        acl.write_text(before + "\nuser bob\ntopic readwrite late/#\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: bob.publish("late/x") != 0x87, 20, "the new permission")
        wait_until(lambda: "late/x" in bob.messages, 20, "the message that may be received now")
        acl.write_text(before + "\nuser bob\ntopic fly late/#\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "unknown access" in server.log(), 20, "the complaint about the file")
        assert bob.publish("late/x") != 0x87, "a wrong file changes nothing"
        acl.write_text(before)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: bob.publish("late/x") == 0x87, 20, "the old permissions")
    finally:
        bob.close()
        root.close()
