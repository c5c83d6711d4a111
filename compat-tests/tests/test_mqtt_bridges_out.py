"""Bridges from Inver to a real Mosquitto: both ways, prefixes, retained, restarts of either side, kill -9, TLS, HTTP."""

import contextlib
import json
import subprocess
import threading
import time

import pytest

from clients import http_api, mqtt
from harness import binary, free_port, wait_until
from mosquitto import Mosquitto, hashed
from proxies import Authority

VERSIONS = pytest.mark.parametrize("version", ["3.1.1", "5"])
CONNECT_SECONDS = 60
RETRY = {"retry_s_min": 1, "retry_s_max": 1}


@pytest.fixture
def mosquitto(tmp_path):
    """Makes Mosquittos for one test and stops them after it."""
    made = []

    def make(more="", start=True):
        made.append(Mosquitto(tmp_path / f"mosquitto-{len(made)}", more))
        return made[-1].start() if start else made[-1]

    yield make
    for one in made:
        one.stop()


def topics(name):
    """Out, in, both, and with prefixes."""
    topic = lambda filter, direction, qos, local="", remote="": {
        "filter": filter, "direction": direction, "qos": qos, "local_prefix": local, "remote_prefix": remote}
    return [topic(f"{name}/up/#", "out", 2), topic(f"{name}/down/#", "in", 2), topic(f"{name}/both/#", "both", 1),
            topic("pre/#", "both", 1, f"{name}/l/", f"{name}/r/")]


def settings(port, name, **more):
    return {"address": f"127.0.0.1:{port}", "topics": topics(name), **RETRY, **more}


def put(inver, name, port, **more):
    status, bridge = http_api(inver, "PUT", f"/bridges/{name}", settings(port, name, **more))
    assert status in (200, 201), bridge
    return bridge


def shown(inver, name):
    status, bridge = http_api(inver, "GET", f"/bridges/{name}")
    assert status == 200, bridge
    return bridge


def wait_connected(inver, name):
    def is_connected():
        nonlocal last
        last = shown(inver, name)
        return last["state"] == "connected"

    last = None
    try:
        wait_until(is_connected, CONNECT_SECONDS, "that the bridge is connected")
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error


def wait_carries(inver, other, name):
    """A message of each way has come through: both sides have subscribed. Further probes may still be under way then: a test's
    own subscriptions must not match them."""
    wait_connected(inver, name)
    up, down = f"{name}/up/probe/1", f"{name}/down/probe/1"
    with mqtt(inver) as here, mqtt(other) as there:
        there.subscribe(up)
        here.subscribe(down)

        def passes(sender, receiver, topic):
            sender.publish(topic, b"probe")
            return not receiver.messages.empty()

        wait_until(lambda: passes(here, there, up), CONNECT_SECONDS, "the way out")
        wait_until(lambda: passes(there, here, down), CONNECT_SECONDS, "the way in")


def heard(client, count):
    messages = [client.get() for _ in range(count)]
    return sorted((message.topic, message.payload, message.retain) for message in messages)


@VERSIONS
def test_a_bridge_carries_both_ways_without_echo(own_broker, mosquitto, unique, version):
    inver, other, name = own_broker(), mosquitto(), unique
    assert put(inver, name, other.mqtt_port, version=version)["name"] == name
    wait_carries(inver, other, name)
    with mqtt(inver) as here, mqtt(other) as there:
        for client, own in ((there, "r"), (here, "l")):
            client.subscribe(f"{name}/both/+")
            client.subscribe(f"{name}/{own}/#")
        there.subscribe(f"{name}/up/+", qos=2)
        here.subscribe(f"{name}/down/+", qos=2)
        here.publish(f"{name}/up/1", b"out", qos=2)
        here.publish(f"{name}/both/h", b"from here")
        here.publish(f"{name}/both/0", b"at most once", qos=0)
        here.publish(f"{name}/l/pre/x", b"prefixed out")
        there.publish(f"{name}/down/1", b"in", qos=2)
        there.publish(f"{name}/both/t", b"from there")
        there.publish(f"{name}/r/pre/y", b"prefixed in")
        both = [(f"{name}/both/h", b"from here", False), (f"{name}/both/t", b"from there", False),
                (f"{name}/both/0", b"at most once", False)]
        assert heard(there, 6) == sorted([
            *both, (f"{name}/up/1", b"out", False), (f"{name}/r/pre/x", b"prefixed out", False),
            (f"{name}/r/pre/y", b"prefixed in", False)])
        assert heard(here, 6) == sorted([
            *both, (f"{name}/down/1", b"in", False), (f"{name}/l/pre/x", b"prefixed out", False),
            (f"{name}/l/pre/y", b"prefixed in", False)])
        # No echo: the next of each is a message that comes last.
        here.publish(f"{name}/up/end", b"end")
        there.publish(f"{name}/down/end", b"end")
        assert (there.get().payload, here.get().payload) == (b"end", b"end")
    bridge = shown(inver, name)
    assert bridge["out"]["passed"] >= 5 and bridge["in"]["passed"] >= 4, bridge
    assert bridge["out"]["refused"] == bridge["in"]["refused"] == 0, bridge


def retained(broker, topic):
    """The retained payload of a topic, or none yet."""
    with mqtt(broker) as client:
        client.subscribe(topic)
        client.subscribe(f"{topic}-end")
        client.publish(f"{topic}-end", b"end")
        first = client.get()
        return first.payload if first.topic == topic else None


@VERSIONS
def test_a_bridge_carries_retained_messages_and_shows_its_state(own_broker, mosquitto, unique, version):
    inver, other, name = own_broker(), mosquitto(), unique
    with mqtt(inver) as here, mqtt(other) as there:
        here.publish(f"{name}/up/before", b"out before", retain=True)
        there.publish(f"{name}/down/before", b"in before", retain=True)
    put(inver, name, other.mqtt_port, version=version, notifications_local_only=False)
    wait_carries(inver, other, name)
    with mqtt(inver) as here, mqtt(other) as there:
        here.publish(f"{name}/up/r", b"kept out", retain=True)
        there.publish(f"{name}/down/r", b"kept in", retain=True)
    state = f"$SYS/broker/connection/inver-{name}/state"
    expected = [(other, f"{name}/up/before", b"out before"), (inver, f"{name}/down/before", b"in before"),
                (other, f"{name}/up/r", b"kept out"), (inver, f"{name}/down/r", b"kept in")]
    for broker, topic, payload in expected:
        wait_until(lambda: retained(broker, topic) == payload, 30, f"{topic}, retained")

    def state_at(broker):
        with mqtt(broker) as client:
            client.subscribe(state)
            with contextlib.suppress(Exception):
                return client.messages.get(timeout=1).payload
        return None

    for broker in (inver, other):
        wait_until(lambda: state_at(broker) == b"1", 30, "the state of the bridge")
    assert http_api(inver, "DELETE", f"/bridges/{name}")[0] == 204
    for broker in (inver, other):
        wait_until(lambda: state_at(broker) == b"0", 30, "the state after the end")


@VERSIONS
def test_what_waits_is_delivered_after_a_restart_of_either_side(own_broker, mosquitto, unique, version):
    inver, other, name = own_broker(), mosquitto(), unique
    with mqtt(other, f"{name}-there", clean=False, expiry=3600) as there:
        there.subscribe(f"{name}/up/+", qos=2)
    other.stop()
    # The bridge has never seen the other side.
    put(inver, name, other.mqtt_port, version=version)
    wait_until(lambda: shown(inver, name)["state"] == "waiting", 30, "that the other side is away")
    with mqtt(inver) as here:
        here.publish(f"{name}/up/1", b"first", qos=1)
        here.publish(f"{name}/up/2", b"second", qos=2)
    assert shown(inver, name)["queued"] == 2
    other.start()
    with mqtt(other, f"{name}-there", clean=False, expiry=3600) as there:
        assert {there.get(CONNECT_SECONDS).payload for _ in range(2)} == {b"first", b"second"}
    wait_carries(inver, other, name)
    with mqtt(inver, f"{name}-here", clean=False, expiry=3600) as here:
        here.subscribe(f"{name}/down/1", qos=1)
    inver.kill()
    with mqtt(other) as there:
        there.publish(f"{name}/down/1", b"while inver is away", qos=1)
    inver.start()
    with mqtt(inver, f"{name}-here", clean=False, expiry=3600) as here:
        assert here.get(CONNECT_SECONDS).payload == b"while inver is away"


def numbers(broker, client_id, topic, until, seconds=120):
    """What a lasting session gets, until it has all that was acknowledged."""
    got = []
    with mqtt(broker, client_id, clean=False, expiry=3600) as client:
        client.subscribe(topic, qos=2)

        def has_all():
            while not client.messages.empty():
                got.append(int(client.messages.get().payload))
            return until <= set(got)

        try:
            wait_until(has_all, seconds, "that everything arrives")
        except AssertionError as error:
            missing = sorted(until - set(got))
            raise AssertionError(f"{error}: {topic}: {len(missing)} of {len(until)} are missing: {missing[:20]}") from error
    return got


class Publishing(threading.Thread):
    """Publishes numbers, also while the broker is killed; a number without an acknowledgement is not used again."""

    def __init__(self, broker, topic, qos):
        super().__init__()
        self.broker, self.topic, self.qos = broker, topic, qos
        self.acked, self.ends, self.number = set(), threading.Event(), 0

    def run(self):
        while not self.ends.is_set():
            with contextlib.suppress(Exception), mqtt(self.broker) as client:
                while not self.ends.is_set():
                    self.number += 1
                    info = client.client.publish(self.topic, b"%d" % self.number, self.qos)
                    info.wait_for_publish(3)
                    if not info.is_published():
                        break
                    self.acked.add(self.number)
            time.sleep(0.05)

    def end(self):
        self.ends.set()
        self.join()


def carry_while_killed(inver, other, name, qos, victims):
    """Publishes both ways while brokers are killed; at QoS 2 nothing comes twice."""
    up, down = f"{name}/up/n", f"{name}/down/n"
    for broker, topic in ((other, up), (inver, down)):
        with mqtt(broker, f"{name}-reader", clean=False, expiry=3600) as reader:
            reader.subscribe(topic, qos=2)
    out, incoming = Publishing(inver, up, qos), Publishing(other, down, qos)
    out.start()
    incoming.start()
    try:
        for victim in victims:
            before = len(out.acked), len(incoming.acked)
            wait_until(lambda: len(out.acked) > before[0] + 100 and len(incoming.acked) > before[1] + 100, 60,
                       "that messages are under way")
            victim.kill()
            victim.start()
    finally:
        out.end()
        incoming.end()
    for broker, topic, publishing in ((other, up, out), (inver, down, incoming)):
        got = numbers(broker, f"{name}-reader", topic, publishing.acked)
        if qos == 2:
            repeated = {number for number in got if got.count(number) > 1}
            assert not repeated, f"{topic}: {sorted(repeated)[:20]}"


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_kill_9_loses_nothing_of_either_way(own_broker, mosquitto, unique, version, qos):
    inver, other, name = own_broker(), mosquitto(), unique
    put(inver, name, other.mqtt_port, version=version)
    wait_carries(inver, other, name)
    carry_while_killed(inver, other, name, qos, [inver] * 3)


@VERSIONS
def test_kill_9_of_either_end_loses_and_repeats_nothing_between_two_of_inver(own_broker, unique, version):
    inver, other, name = own_broker(), own_broker(), unique
    put(inver, name, other.mqtt_port, version=version)
    wait_carries(inver, other, name)
    carry_while_killed(inver, other, name, 2, [inver, other] * 2)


def test_a_bridge_by_tls_with_a_certificate(own_broker, mosquitto, unique, tmp_path):
    authority = Authority(tmp_path / "ca")
    (server, server_key), (client, client_key) = authority.sign("localhost"), authority.sign("bridge")
    port, name = free_port(), unique
    other = mosquitto(f"""
        listener {port} 127.0.0.1
        cafile {authority.cert}
        certfile {server}
        keyfile {server_key}
        require_certificate true
        use_identity_as_username true
    """)
    inver = own_broker()
    tls = {"ca": str(authority.cert), "cert": str(client), "key": str(client_key)}
    put(inver, name, port, address=f"localhost:{port}", tls=tls)
    wait_carries(inver, other, name)
    # Not trusted: it is not connected, and says why.
    put(inver, name, port, address=f"localhost:{port}", tls={})
    why = lambda: shown(inver, name)["last_error"] or ""
    wait_until(lambda: "certificate" in why().lower(), 30, "the refusal of the certificate")


def test_bridges_are_managed_over_http_and_by_commands(own_broker, mosquitto, unique, tmp_path):
    other, name = mosquitto(), unique
    configured = "[{ name = \"fixed\", address = \"127.0.0.1:%d\", topics = [{ filter = \"fixed/#\", qos = 1 }] }]"
    inver = own_broker(environment={"INVER_MQTT_BRIDGES": configured % other.mqtt_port})
    wait_connected(inver, "fixed")
    status, problem = http_api(inver, "DELETE", "/bridges/fixed")
    assert status == 409 and "configuration" in problem["detail"]

    def command(*arguments):
        done = subprocess.run([binary(), "bridge", *arguments, "--url", f"http://127.0.0.1:{inver.http_port}"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "password").write_text("secret\n")
    command("set", name, "--address", f"127.0.0.1:{other.mqtt_port}", "--topic", f"{name}/up/# out 1",
            "--topic", f"{name}/down/# in 1", "--remote-user", "ann", "--remote-password-file", str(tmp_path / "password"),
            "--more", json.dumps(RETRY))
    wait_carries(inver, other, name)
    listed = {bridge["name"]: bridge for bridge in json.loads(command("list", "--output", "json"))}
    assert listed[name]["settings"]["password"] == "***" and not listed[name]["configured"]
    assert listed["fixed"]["configured"] and listed["fixed"]["state"] == "connected"
    for bad in ({"address": "nowhere"}, {"topics": []}, {"unknown": 1}, {"password": "***"}, {"topics": [{"filter": "a/#/b"}]}):
        status, problem = http_api(inver, "PUT", "/bridges/bad", {**settings(1, "bad"), **bad})
        assert status == 400, problem
    # It is there after a crash, and gone with its session once it is removed.
    inver.kill()
    inver.start()
    wait_carries(inver, other, name)
    sessions = lambda: {session["name"] for session in http_api(inver, "GET", "/sessions")[1]["items"]}
    assert f"bridge-{name}" in sessions()
    command("remove", name)
    assert f"bridge-{name}" not in sessions()
    assert http_api(inver, "GET", f"/bridges/{name}")[0] == 404


def test_a_stored_bridge_that_is_not_started_keeps_its_password(own_broker, mosquitto, unique, tmp_path):
    (tmp_path / "passwords").write_text(f"ann:{hashed('secret')}\n")
    other, name = mosquitto(f"password_file {tmp_path / 'passwords'}"), unique
    inver = own_broker()
    put(inver, name, other.mqtt_port, user="ann", password="secret", local_client_id="shared")
    wait_connected(inver, name)
    inver.kill()
    fixed = "[{ name = \"fixed\", address = \"127.0.0.1:1\", local_client_id = \"shared\", topics = [{ filter = \"fixed/#\" }] }]"
    inver.environment["INVER_MQTT_BRIDGES"] = fixed
    inver.start()
    assert http_api(inver, "GET", f"/bridges/{name}")[0] == 404
    body = settings(other.mqtt_port, name, user="ann", password="***", local_client_id="own")
    status, bridge = http_api(inver, "PUT", f"/bridges/{name}", body)
    assert status == 200, bridge
    wait_connected(inver, name)
    # The session of the other bridge is left alone.
    assert "shared" in {session["name"] for session in http_api(inver, "GET", "/sessions")[1]["items"]}


def test_a_bridge_may_do_what_its_local_user_may(own_broker, mosquitto, unique, tmp_path):
    other, name = mosquitto(), unique
    (tmp_path / "acl").write_text(f"user edge\ntopic readwrite {name}/both/#\n")
    users = f'[users.ann]\npasswords = ["{hashed("ann")}"]\ntags = ["administrator"]\n'
    users += f'[users.edge]\npasswords = ["{hashed("edge")}"]\n'
    config = tmp_path / "inver.toml"
    config.write_text(f'{users}[mqtt]\nacl_file = "{tmp_path / "acl"}"\n')
    inver, login = own_broker(arguments=("--config", str(config))), ("ann", "ann")
    status, bridge = http_api(inver, "PUT", f"/bridges/{name}", settings(other.mqtt_port, name), login=login)
    assert status == 201, bridge
    state = lambda: http_api(inver, "GET", f"/bridges/{name}", login=login)[1]
    # Anonymous clients are not let in where there are users.
    wait_until(lambda: "this broker refused" in (state()["last_error"] or ""), 30, "the refusal")
    body = settings(other.mqtt_port, name, local_user="edge")
    assert http_api(inver, "PUT", f"/bridges/{name}", body, login=login)[0] == 200
    wait_until(lambda: state()["state"] == "connected", CONNECT_SECONDS, "that the bridge is connected")
    with mqtt(other) as there:
        def counted():
            there.publish(f"{name}/both/x", b"may")
            there.publish(f"{name}/down/x", b"may not")
            return state()["in"]["refused"] >= 1 and state()["in"]["passed"] > state()["in"]["refused"]

        wait_until(counted, 30, "the counts")
