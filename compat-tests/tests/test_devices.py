"""Devices over MQTT and applications over Kafka: requests with responses, commands, retained state, the last value of each."""

import subprocess

import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from clients import kafka_create, kafka_producer, kafka_read, kafka_send, mqtt, publish_properties
from harness import binary, wait_until


def test_a_kafka_application_answers_a_device(broker, unique):
    """The application copies the headers of the request, and knows nothing of MQTT but the name of the topic's header."""
    requests, answers = f"{unique}-requests", f"{unique}-answers"
    kafka_create(broker, requests, **{"inver.capture.filter": f"{unique}/ask/+"})
    kafka_create(broker, answers)
    with mqtt(broker, version=5) as device:
        device.subscribe(f"{unique}/answer/d1")
        asked = publish_properties(ResponseTopic=f"{unique}/answer/d1", CorrelationData=b"\x00\xff17")
        device.publish(f"{unique}/ask/d1", b"time?", properties=asked)
        [request] = kafka_read(broker, requests, 1)
        headers = dict(request.headers())
        kafka_send(broker, answers, b"noon", headers=[
            ("mqtt-topic", headers["reply-to"]), ("correlation-id", headers["correlation-id"]), ("content-type", b"text/plain"),
            ("mqtt-qos", b"1"), ("trace", b"t1")])
        answer = device.get()
    assert (answer.topic, answer.payload, answer.qos) == (f"{unique}/answer/d1", b"noon", 1)
    assert (answer.properties.CorrelationData, answer.properties.ContentType) == (b"\x00\xff17", "text/plain")
    assert answer.properties.UserProperty == [("trace", "t1")]


def test_the_properties_of_a_command_are_those_of_its_headers(broker, unique):
    commands = f"{unique}-commands"
    kafka_create(broker, commands)
    with mqtt(broker, version=5) as device, mqtt(broker) as old:
        device.subscribe(f"{unique}/d", options=SubscribeOptions(qos=2, retainAsPublished=True))
        old.subscribe(f"{unique}/d", qos=2)
        far = str(4_000_000_000_000).encode()
        for qos in (0, 1, 2):
            kafka_send(broker, commands, b"on", headers=[
                ("mqtt-topic", f"{unique}/d".encode()), ("mqtt-qos", str(qos).encode()), ("mqtt-retain", b"1"),
                ("expires", far), ("mqtt-payload-format", b"1"), ("reply-to", b"to/a.b")])
            command = device.get()
            assert (command.payload, command.qos, command.retain) == (b"on", qos, True)
            assert (command.properties.PayloadFormatIndicator, command.properties.ResponseTopic) == (1, "to/a.b")
            assert command.properties.MessageExpiryInterval > 10_000_000
            assert not hasattr(command.properties, "UserProperty")
            assert (old.get().qos, old.messages.empty()) == (qos, True)
        # What has expired is not delivered.
        kafka_send(broker, commands, b"late", headers=[("mqtt-topic", f"{unique}/d".encode()), ("expires", b"1000")])
        kafka_send(broker, commands, b"next", headers=[("mqtt-topic", f"{unique}/d".encode())])
        assert device.get().payload == b"next"


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_kafka_producer_sets_and_clears_retained_messages(broker, unique, compression):
    commands = f"{unique}-commands"
    kafka_create(broker, commands, **{"inver.hub.retain": "true"})
    producer = kafka_producer(broker, compression_type=compression)

    def send(device, value):
        kafka_send(broker, commands, value, producer=producer,
                   headers=[("mqtt-topic", f"{unique}/{device}/wanted".encode()), ("mqtt-retain", b"1")])

    send("d1", b"on")
    send("d2", b"on")
    send("d1", b"off")
    send("d2", None)
    with mqtt(broker, version=5) as device:
        device.subscribe(f"{unique}/+/wanted")
        wanted = device.get()
        assert (wanted.topic, wanted.payload, wanted.retain, wanted.qos) == (f"{unique}/d1/wanted", b"off", True, 1)
        device.publish(f"{unique}/x/wanted", b"end")
        assert device.get().payload == b"end"


def test_a_cleared_retained_message_is_a_tombstone(broker, unique):
    topic = f"{unique}-last"
    kafka_create(broker, topic, **{
        "inver.capture.filter": f"{unique}/+/state", "inver.capture.key": "{1}", "inver.capture.tombstones": "true",
        "cleanup.policy": "compact"})
    with mqtt(broker) as device:
        device.publish(f"{unique}/d1/state", b"on", retain=True)
        device.publish(f"{unique}/d1/state", b"")
        device.publish(f"{unique}/d1/state", b"", retain=True)
    records = kafka_read(broker, topic, 3)
    assert [(record.key(), record.value()) for record in records] == [(b"d1", b"on"), (b"d1", b""), (b"d1", None)]


def test_what_cannot_be_captured_goes_to_the_next_rule(own_broker):
    rules = ('[{filter = "site/+/#", topic = "site-{1}", on_failure = "next"}, {filter = "strict/+", topic = "strict-{1}"},'
             ' {filter = "#", topic = "rest"}]')
    broker = own_broker(environment={"INVER_CAPTURE_RULES": rules})
    long = "l" * 250
    with mqtt(broker, version=5) as device:
        codes = []
        device.client.on_publish = lambda _c, _u, _mid, code, _p: codes.append(code.value)
        for topic in ("site/a/t", f"site/{long}/t", f"strict/{long}"):
            device.publish(topic, b"x")
        wait_until(lambda: len(codes) == 3, what="the acknowledgements")
        assert codes[2] == 0x97 and max(codes[:2]) < 0x80
    assert [record.key() for record in kafka_read(broker, "site-a", 1)] == [b"site/a/t"]
    assert [record.key() for record in kafka_read(broker, "rest", 1)] == [f"site/{long}/t".encode()]
    assert broker.metric("inver_messages_capture_passed_on_total") == 1
    assert broker.metric("inver_messages_capture_refused_total") == 1


@pytest.mark.parametrize("rule, said", [
    ('{filter = "$share/g/#", topic = "t"}', "matches no message"),
    ('{filter = "a/#/b", topic = "t"}', "filter"),
    ('{filter = "#", topic = "t", on_failure = "drop"}', "drop"),
])
def test_rules_that_cannot_work_are_refused(own_broker, rule, said):
    broker = own_broker(start=False, environment={"INVER_CAPTURE_RULES": f"[{rule}]"})
    checked = subprocess.run([binary(), "config", "check"], env=broker.environment, cwd=broker.folder, capture_output=True,
                             text=True, timeout=60)
    assert checked.returncode != 0 and said in checked.stdout + checked.stderr


def test_a_topic_does_not_capture_a_shared_subscription(broker, unique):
    for filter in ("$share/g/a", "$queue/a", "$exclusive/a"):
        with pytest.raises(Exception, match="matches no message"):
            kafka_create(broker, f"{unique}-t", **{"inver.capture.filter": filter})
