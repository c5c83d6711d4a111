"""`$SYS` topics are the server's: no protocol publishes there, except the state that a bridge tells of itself."""

import queue

import pika
import pytest

from clients import amqp, kafka_create, kafka_send, mqtt
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
