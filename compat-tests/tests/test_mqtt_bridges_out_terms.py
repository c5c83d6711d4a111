"""Bridges from Inver to a real Mosquitto where the two sides differ in their limits, and where what was told changes."""

import pytest

from clients import http_api, mqtt
from harness import wait_until
from test_mqtt_bridges_out import CONNECT_SECONDS, VERSIONS, mosquitto, put, settings, shown, wait_carries, wait_connected  # noqa: F401


def sessions(inver):
    return {session["name"] for session in http_api(inver, "GET", "/sessions")[1]["items"]}


@VERSIONS
def test_a_deleted_session_is_made_again_while_the_other_side_is_away(own_broker, mosquitto, unique, version):
    inver, other, name = own_broker(), mosquitto(), unique
    with mqtt(other, f"{name}-there", clean=False, expiry=3600) as there:
        there.subscribe(f"{name}/up/+", qos=2)
    put(inver, name, other.mqtt_port, version=version)
    wait_carries(inver, other, name)
    wait_until(lambda: shown(inver, name)["queued"] == 0, 30, "that no probe is under way")
    other.stop()
    wait_until(lambda: shown(inver, name)["state"] == "waiting", 60, "that the other side is away")
    with mqtt(inver) as here:
        here.publish(f"{name}/up/lost", b"lost", qos=2)
    assert shown(inver, name)["queued"] == 1
    assert http_api(inver, "DELETE", f"/sessions/bridge-{name}")[0] == 204
    wait_until(lambda: f"bridge-{name}" in sessions(inver), CONNECT_SECONDS, "the session")

    def is_queued():
        with mqtt(inver) as here:
            here.publish(f"{name}/up/kept", b"kept", qos=2)
        return shown(inver, name)["queued"] >= 1

    wait_until(is_queued, CONNECT_SECONDS, "that messages are queued again")
    # The new session is a new one for the other side also after a restart.
    inver.kill()
    inver.start()
    other.start()
    with mqtt(other, f"{name}-there", clean=False, expiry=3600) as there:
        assert there.get(CONNECT_SECONDS).payload == b"kept"
    wait_carries(inver, other, name)


def test_a_bridge_with_another_session_leaves_none_behind(own_broker, mosquitto, unique):
    inver, other, name = own_broker(), mosquitto(), unique
    put(inver, name, other.mqtt_port)
    wait_connected(inver, name)
    body = settings(other.mqtt_port, "second", local_client_id=f"bridge-{name}")
    status, problem = http_api(inver, "PUT", "/bridges/second", body)
    assert status == 409 and f"`{name}`" in problem["detail"], problem
    put(inver, name, other.mqtt_port, local_client_id=f"{name}-other")
    wait_carries(inver, other, name)
    assert f"bridge-{name}" not in sessions(inver) and f"{name}-other" in sessions(inver)


@VERSIONS
def test_topics_that_are_no_longer_told_are_unsubscribed_from(own_broker, mosquitto, unique, version):
    inver, other, name = own_broker(), mosquitto(), unique
    put(inver, name, other.mqtt_port, version=version)
    wait_carries(inver, other, name)
    # The other side is away when the topics change, and this one starts again before it is back.
    other.stop()
    put(inver, name, other.mqtt_port, version=version, topics=[{"filter": f"{name}/new/#", "direction": "in", "qos": 1}])
    inver.kill()
    inver.start()
    other.start()
    wait_connected(inver, name)
    with mqtt(other) as there, mqtt(inver) as here:
        here.subscribe(f"{name}/new/+")

        def arrives():
            there.publish(f"{name}/new/1", b"new", qos=1)
            return not here.messages.empty()

        wait_until(arrives, CONNECT_SECONDS, "what is told now")
        before = shown(inver, name)["in"]
        there.publish(f"{name}/down/1", b"old", qos=1)
        there.publish(f"{name}/new/1", b"end", qos=1)
        wait_until(lambda: here.get(CONNECT_SECONDS).payload == b"end", CONNECT_SECONDS, "the message behind it")
        assert shown(inver, name)["in"]["dropped"] == before["dropped"]


def test_qos_2_becomes_qos_1_where_the_other_side_has_no_more(own_broker, mosquitto, unique):
    inver, other, name = own_broker(), mosquitto("max_qos 1"), unique
    with mqtt(other, f"{name}-there", clean=False, expiry=3600) as there:
        there.subscribe(f"{name}/up/+", qos=1)
    other.stop()
    put(inver, name, other.mqtt_port, version="5")
    # The bridge is added before it has made its session, in which messages wait.
    wait_until(lambda: shown(inver, name)["state"] == "waiting", 30, "that the other side is away")
    with mqtt(inver) as here:
        for number in range(50):
            here.publish(f"{name}/up/{number}", b"%d" % number, qos=2)
    other.start()
    with mqtt(other, f"{name}-there", clean=False, expiry=3600) as there:
        got = [there.get(CONNECT_SECONDS) for _ in range(50)]
        assert {int(message.payload) for message in got} == set(range(50))
        assert {message.qos for message in got} == {1}
    wait_until(lambda: shown(inver, name)["queued"] == 0, 30, "that all are acknowledged")


@VERSIONS
def test_a_message_that_is_too_long_here_is_dropped_and_acknowledged(own_broker, mosquitto, unique, version):
    inver, other, name = own_broker(environment={"INVER_LIMITS_MESSAGE_BYTES_MAX": "64 KiB"}), mosquitto(), unique
    put(inver, name, other.mqtt_port, version=version)
    wait_carries(inver, other, name)
    with mqtt(other) as there, mqtt(inver) as here:
        here.subscribe(f"{name}/down/+", qos=2)
        there.publish(f"{name}/down/long", b"x" * 100_000, qos=2)
        there.publish(f"{name}/down/short", b"short", qos=2)
        assert here.get(CONNECT_SECONDS).payload == b"short"
    wait_connected(inver, name)
    # An MQTT 5 server is told, and does not send it.
    assert shown(inver, name)["in"]["dropped"] == (1 if version == "3.1.1" else 0)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_window_above_the_receive_maximum_here_is_no_error(own_broker, mosquitto, unique, qos):
    inver, other, name = own_broker(environment={"INVER_MQTT_RECEIVE_MAXIMUM": "2"}), mosquitto("max_inflight_messages 500"), unique
    put(inver, name, other.mqtt_port, version="3.1.1")
    wait_carries(inver, other, name)
    with mqtt(inver, f"{name}-here", clean=False, expiry=3600) as here:
        here.subscribe(f"{name}/down/+", qos=qos)
    inver.kill()
    with mqtt(other) as there:
        for number in range(500):
            there.publish(f"{name}/down/{number}", b"%d" % number, qos=qos)
    inver.start()
    with mqtt(inver, f"{name}-here", clean=False, expiry=3600) as here:
        assert {int(here.get(CONNECT_SECONDS).payload) for _ in range(500)} == set(range(500))
    assert shown(inver, name)["state"] == "connected"


def test_a_retained_message_beyond_the_limit_comes_once(own_broker, mosquitto, unique):
    inver, other, name = own_broker(environment={"INVER_LIMITS_RETAINED_MESSAGES_MAX": "1"}), mosquitto(), unique
    put(inver, name, other.mqtt_port, notifications=False)
    wait_carries(inver, other, name)
    with mqtt(other) as there, mqtt(inver) as here:
        here.subscribe(f"{name}/down/+", qos=2)
        for number in range(3):
            there.publish(f"{name}/down/{number}", b"%d" % number, qos=2, retain=True)
        there.publish(f"{name}/down/end", b"end", qos=2)
        assert [here.get(CONNECT_SECONDS).payload for _ in range(4)] == [b"0", b"1", b"2", b"end"]
    # The refusals reach the bridge behind the messages.
    wait_until(lambda: shown(inver, name)["in"]["refused"] == 2, 30, "the two refusals")
    assert shown(inver, name)["state"] == "connected"


def test_topics_of_a_bridge_are_not_rewritten(own_broker, mosquitto, unique):
    name = unique
    rule = '{source = "%s/%s/#", destination = "elsewhere/{1}", action = "%s"}'
    rules = f'[{rule % (name, "down", "publish")}, {rule % (name, "up", "subscribe")}]'
    inver, other = own_broker(environment={"INVER_MQTT_REWRITE": rules}), mosquitto()
    put(inver, name, other.mqtt_port)
    wait_carries(inver, other, name)


def test_local_topics_of_a_bridge_are_named_as_those_of_clients(own_broker, mosquitto, unique):
    """`mqtt.amqp_names = "rabbitmq"` holds for this side: the other server's topics keep their dots."""
    name = unique
    inver, other = own_broker(environment={"INVER_MQTT_AMQP_NAMES": "rabbitmq"}), mosquitto()
    topic = {"filter": "#", "direction": "both", "qos": 1, "local_prefix": f"{name}.l/", "remote_prefix": f"{name}.r/"}
    put(inver, name, other.mqtt_port, topics=[topic])
    wait_connected(inver, name)
    up, down = (f"{name}.l/up/1", f"{name}.r/up/1"), (f"{name}.r/down.2", f"{name}/l/down/2")
    with mqtt(inver) as here, mqtt(other) as there:
        there.subscribe(up[1])
        here.subscribe(down[1])

        def passes(sender, receiver, topic):
            sender.publish(topic, b"probe")
            return not receiver.messages.empty()

        for sender, receiver, (sent, comes) in ((here, there, up), (there, here, down)):
            wait_until(lambda: passes(sender, receiver, sent), CONNECT_SECONDS, f"{sent} as {comes}")
            assert receiver.get().topic == comes
