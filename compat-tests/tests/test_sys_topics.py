"""`$SYS` topics are the server's: no protocol publishes there, except the state that a bridge tells of itself."""

import queue

import paho.mqtt.client as paho
import pika
import pytest

from clients import WAIT_SECONDS, amqp, kafka_create, kafka_send, mqtt
from harness import wait_until


def test_no_protocol_publishes_below_sys(broker, unique):
    topic = f"{unique}-log"
    kafka_create(broker, topic)
    wanted = f"$SYS/{unique}"
    with mqtt(broker) as listener:
        listener.subscribe(wanted)
        listener.subscribe(f"{unique}/end")
        with mqtt(broker) as device:
            device.publish(wanted, b"mqtt")
        with amqp(broker) as channel:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
                channel.basic_publish("amq.topic", f"$SYS.{unique}", b"amqp")
            assert closed.value.reply_code == 403
        kafka_send(broker, topic, b"kafka", headers=[("mqtt-topic", wanted.encode())])
        kafka_send(broker, topic, b"end", headers=[("mqtt-topic", f"{unique}/end".encode())])
        message = listener.get()
        assert (message.topic, message.payload) == (f"{unique}/end", b"end")
        with pytest.raises(queue.Empty):
            listener.messages.get_nowait()


@pytest.mark.parametrize("version", [4, 5])
def test_a_bridge_tells_its_state(broker, unique, version):
    state = f"$SYS/broker/connection/{unique}/state"
    will = {"topic": state, "payload": b"0", "qos": 1, "retain": True}
    with mqtt(broker) as listener:
        listener.subscribe(state)
        with mqtt(broker, version=version, will=will) as bridge:
            bridge.publish(state, b"1", retain=True)
            assert listener.get().payload == b"1"
            with mqtt(broker) as late:
                late.subscribe(state)
                message = late.get()
                assert (message.payload, message.retain) == (b"1", True)
            bridge.drop()
        assert listener.get().payload == b"0"
    with mqtt(broker) as late:
        late.subscribe(state)
        wait_until(lambda: late.get().payload == b"0", what="the will, retained")


def test_a_bridge_hears_no_echo_and_keeps_the_retain_flag(broker, unique):
    """Paho's bridge mode sets the highest bit of the protocol level, as Mosquitto's bridges do."""
    heard, ready = queue.Queue(), queue.Queue()
    bridge = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"{unique}-bridge", protocol=paho.MQTTv311)
    bridge.enable_bridge_mode()
    bridge.on_connect = lambda _c, _d, _f, reason, _p: ready.put(reason)
    bridge.on_subscribe = lambda *_: ready.put("subscribed")
    bridge.on_message = lambda _c, _d, message: heard.put((message.payload, message.retain))
    bridge.connect("127.0.0.1", broker.mqtt_port)
    bridge.loop_start()
    try:
        assert not ready.get(timeout=WAIT_SECONDS).is_failure
        bridge.subscribe(f"{unique}/#", qos=1)
        assert ready.get(timeout=WAIT_SECONDS) == "subscribed"
        bridge.publish(f"{unique}/own", b"own", qos=1).wait_for_publish(WAIT_SECONDS)
        with mqtt(broker) as device:
            device.publish(f"{unique}/kept", b"kept", retain=True)
            device.publish(f"{unique}/plain", b"plain")
        assert [heard.get(timeout=WAIT_SECONDS) for _ in range(2)] == [(b"kept", True), (b"plain", False)]
    finally:
        bridge.disconnect()
        bridge.loop_stop()
