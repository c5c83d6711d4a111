"""Mosquitto's bridges into Inver, with their defaults: in, out, both, prefixes, retained, restart of either side."""

import contextlib

import pytest

from clients import mqtt
from harness import wait_until
from mosquitto import Mosquitto


def bridged_mosquitto(folder, port, version, name):
    """A Mosquitto with a bridge to `port`."""
    return Mosquitto(folder, f"""
        connection {name}
        address 127.0.0.1:{port}
        bridge_protocol_version {version}
        cleansession false
        restart_timeout 1
        topic {name}/up/# out 2
        topic {name}/down/# in 2
        topic {name}/both/# both 1
        topic pre/# both 1 {name}/l/ {name}/r/
    """)


@pytest.fixture
def bridged(own_broker, tmp_path, unique, request):
    """Inver and a Mosquitto that is bridged to it."""
    inver = own_broker()
    local = bridged_mosquitto(tmp_path / "mosquitto", inver.mqtt_port, request.param, unique).start()
    wait_until_connected(inver, local, unique)
    yield inver, local, unique
    local.stop()


def wait_until_connected(inver, local, name):
    """A message of each direction has come through: the bridge has subscribed."""
    with mqtt(inver) as there, mqtt(local) as here:
        there.subscribe(f"{name}/up/probe/x")
        here.subscribe(f"{name}/down/probe/x")

        def passes(sender, receiver, topic):
            sender.publish(topic, b"probe")
            return not receiver.messages.empty()

        wait_until(lambda: passes(here, there, f"{name}/up/probe/x"), 30, "the bridge's way out")
        wait_until(lambda: passes(there, here, f"{name}/down/probe/x"), 30, "the bridge's way in")


def heard(client, count):
    messages = [client.get() for _ in range(count)]
    return sorted((message.topic, message.payload, message.retain) for message in messages)


def retained(broker, topic):
    """The retained payload of a topic, or none yet."""
    with mqtt(broker) as client:
        client.subscribe(topic)
        client.publish(f"{topic}-end", b"")
        with contextlib.suppress(Exception):
            return client.messages.get(timeout=1).payload
    return None


versions = pytest.mark.parametrize("bridged", ["mqttv311", "mqttv50"], indirect=True)


@versions
def test_a_bridge_of_mosquitto_carries_both_ways(bridged):
    inver, local, name = bridged
    with mqtt(inver) as there, mqtt(local) as here:
        there.subscribe(f"{name}/up/+")
        there.subscribe(f"{name}/both/+")
        there.subscribe(f"{name}/r/#")
        here.subscribe(f"{name}/down/+")
        here.subscribe(f"{name}/both/+")
        here.subscribe(f"{name}/l/#")
        here.publish(f"{name}/up/1", b"out", qos=2)
        here.publish(f"{name}/both/h", b"from here")
        here.publish(f"{name}/l/pre/x", b"prefixed out")
        there.publish(f"{name}/down/1", b"in", qos=2)
        there.publish(f"{name}/both/t", b"from there")
        there.publish(f"{name}/r/pre/y", b"prefixed in")
        own = [(f"{name}/both/h", b"from here", False), (f"{name}/both/t", b"from there", False)]
        assert heard(there, 5) == sorted([
            *own, (f"{name}/up/1", b"out", False), (f"{name}/r/pre/x", b"prefixed out", False),
            (f"{name}/r/pre/y", b"prefixed in", False)])
        assert heard(here, 5) == sorted([
            *own, (f"{name}/down/1", b"in", False), (f"{name}/l/pre/x", b"prefixed out", False),
            (f"{name}/l/pre/y", b"prefixed in", False)])
        # No echo: the next of each is a message that comes last.
        here.publish(f"{name}/up/end", b"end")
        there.publish(f"{name}/down/end", b"end")
        assert (there.get().payload, here.get().payload) == (b"end", b"end")


@versions
def test_a_bridge_keeps_retained_messages_and_its_state(bridged):
    inver, local, name = bridged
    state = f"$SYS/broker/connection/{name}/state"
    states = wait_until(lambda: state_topics(inver), what="the state of the bridge")
    assert [payload for _, payload in states] == [b"1"], state
    with mqtt(inver) as there, mqtt(local) as here:
        here.publish(f"{name}/up/r", b"kept out", retain=True)
        there.publish(f"{name}/down/r", b"kept in", retain=True)
        there.publish(f"{name}/both/r", b"kept both", retain=True)
    for broker, topic, payload in [(inver, "up/r", b"kept out"), (local, "down/r", b"kept in"), (local, "both/r", b"kept both")]:
        wait_until(lambda: retained(broker, f"{name}/{topic}") == payload, 20, f"{topic}, retained")
    local.stop()
    wait_until(lambda: [payload for _, payload in state_topics(inver)] == [b"0"], 20, "the state after the end")


def state_topics(broker):
    with mqtt(broker) as client:
        client.subscribe("$SYS/broker/connection/+/state")
        client.subscribe("end-of-states")
        client.publish("end-of-states", b"")
        found = []
        while (message := client.get()).topic != "end-of-states":
            found.append((message.topic, message.payload))
        return found


@versions
def test_a_bridge_delivers_what_waited_after_a_restart_of_either_side(bridged):
    inver, local, name = bridged
    inver.kill()
    with mqtt(local) as here:
        here.publish(f"{name}/up/waits", b"for inver", qos=1)
    inver.start()
    with mqtt(inver) as there:
        there.subscribe(f"{name}/up/#")
        assert next_of(there, f"{name}/up/waits") == b"for inver"
    local.stop()
    with mqtt(inver) as there:
        there.publish(f"{name}/down/waits", b"for mosquitto", qos=1, retain=True)
    local.start()
    wait_until(lambda: retained(local, f"{name}/down/waits") == b"for mosquitto", 30, "the message from before")


def next_of(client, topic):
    while (message := client.get()).topic != topic:
        pass
    return message.payload
