"""MQTT clients: Eclipse Paho (Python, Java), aiomqtt, mqtt.js over TCP and WebSocket, HiveMQ's, mosquitto's."""

import asyncio
import os
import re
import ssl
import subprocess
import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from clients import QUIET, Mqtt, background, java, mqtt, node, publish_properties
from harness import run, wait_until


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_qos(broker, unique, version, transport, qos):
    with mqtt(broker, version=version, transport=transport) as client:
        client.subscribe(f"{unique}/+/end", qos)
        wanted = [os.urandom(size) for size in (0, 1, 100, 5000, 200_000)] + [b"%d" % n for n in range(50)]
        for payload in wanted:
            client.publish(f"{unique}/x/end", payload, qos)
        assert client.take(len(wanted)) == wanted


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("over", ["mqtt", "ws"])
def test_mqtt_js(broker, unique, version, over):
    port = broker.ws_port if over == "ws" else broker.mqtt_port
    assert node("mqtt.js", f"{over}://127.0.0.1:{port}/mqtt", version, unique) == "done\n"


def test_paho_java(broker, unique):
    assert java("mqtt", "PahoApp", f"tcp://127.0.0.1:{broker.mqtt_port}", unique).endswith("done\n")


def test_hivemq(broker, unique):
    assert java("mqtt", "HiveApp", "127.0.0.1", broker.mqtt_port, unique).endswith("done\n")


def test_aiomqtt(broker, unique):
    import aiomqtt

    async def work():
        async with aiomqtt.Client("127.0.0.1", broker.mqtt_port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe(f"{unique}/#", qos=2)
            for n in range(50):
                await client.publish(f"{unique}/{n}", b"%d" % n, qos=n % 3)
            got = []
            async with asyncio.timeout(15):
                async for message in client.messages:
                    got.append(message.payload)
                    if len(got) == 50:
                        return got
    assert sorted(asyncio.run(work()), key=int) == [b"%d" % n for n in range(50)]


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquitto_clients(broker, unique, version):
    at = ["-h", "127.0.0.1", "-p", broker.mqtt_port, "-V", version]
    run(["mosquitto_pub", *at, "-t", f"{unique}/kept", "-m", "retained", "-q", "1", "-r"])
    assert run(["mosquitto_sub", *at, "-t", f"{unique}/#", "-C", "1", "-W", "10", "-v"]).stdout == \
        f"{unique}/kept retained\n".encode()
    # A persistent session queues messages meanwhile.
    session = ["-c", "-i", f"{unique}-{version}", "-q", "2"] + (["-x", "1000"] if version == "mqttv5" else [])
    run(["mosquitto_sub", *at, *session, "-t", f"{unique}/later", "-E"])
    run(["mosquitto_pub", *at, "-t", f"{unique}/later", "-q", "2", "-l"], stdin=b"one\ntwo\nthree\n")
    assert run(["mosquitto_sub", *at, *session, "-t", f"{unique}/later", "-C", "3", "-W", "10"]).stdout == \
        b"one\ntwo\nthree\n"


# ---- Paho in detail


def test_wildcards(broker, unique):
    with mqtt(broker) as client, mqtt(broker) as sender:
        client.subscribe(f"{unique}/+/b/#", 0)
        for topic in ("a/b", "a/b/c", "a/b/c/d", "x/b", "a/c", "b"):
            sender.publish(f"{unique}/{topic}", topic.encode(), 1)
        assert client.take(4) == [b"a/b", b"a/b/c", b"a/b/c/d", b"x/b"]
        assert client.nothing(lambda: client.publish(f"{unique}/probe", b"", 1))


def test_retained(broker, unique):
    with mqtt(broker) as client:
        for name in ("a", "b", "c"):
            client.publish(f"{unique}/{name}", name.encode(), 1, retain=True)
        client.publish(f"{unique}/b", b"", 1, retain=True)
        client.publish(f"{unique}/a", b"newer", 1, retain=True)
        client.subscribe(f"{unique}/#", 1)
        got = {client.get().topic: None for _ in range(2)}
        assert set(got) == {f"{unique}/a", f"{unique}/c"}
    with mqtt(broker) as client:
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        client.subscribe(f"{unique}/#", options=options)
        assert client.nothing(lambda: client.publish(f"{unique}-probe", b"", 1))
        client.unsubscribe(f"{unique}/#")
        options = SubscribeOptions(qos=1, retainAsPublished=True, noLocal=True)
        client.subscribe(f"{unique}/a", options=options)
        message = client.get()
        assert message.retain and message.payload == b"newer"
        client.publish(f"{unique}/a", b"mine", 1, retain=True)
        with mqtt(broker) as other:
            other.publish(f"{unique}/a", b"other's", 1, retain=True)
        message = client.get()
        assert message.retain and message.payload == b"other's", "no local, retain as published"


def test_retained_survives_a_restart(own_broker):
    broker = own_broker()
    with mqtt(broker) as client:
        client.publish("a/b", b"kept", 1, retain=True)
    broker.restart()
    with mqtt(broker) as client:
        client.subscribe("a/#")
        assert client.get().payload == b"kept"


@pytest.mark.parametrize("version", [4, 5])
def test_a_session_survives_its_connection_and_a_restart(own_broker, version):
    broker = own_broker()
    options = dict(client_id="keeper", version=version, clean=False)
    if version == 5:
        options["expiry"] = 3600
    with mqtt(broker, **options) as client:
        assert not client.session_present
        client.subscribe("k/#", 2)
    with mqtt(broker) as sender:
        for n in range(30):
            sender.publish("k/x", b"%d" % n, 1 + n % 2)
    broker.restart()
    with mqtt(broker, **options) as client:
        assert client.session_present
        # A QoS 2 message is delivered one round trip later, so order holds within a QoS level.
        got = client.take(30)
        for qos in (1, 2):
            assert [int(body) for body in got if int(body) % 2 == qos - 1] == list(range(qos - 1, 30, 2))
    with mqtt(broker, **options) as client:
        assert client.session_present
        assert client.nothing(lambda: client.publish("probe", b"", 1))
    with mqtt(broker, **{**options, "clean": True}) as client:
        assert not client.session_present


def test_unacknowledged_messages_are_sent_again(broker, unique):
    options = dict(client_id=unique, clean=False, expiry=3600, manual_ack=True)
    client = Mqtt(broker, **options)
    client.subscribe(f"{unique}/#", 1)
    with mqtt(broker) as sender:
        for n in range(3):
            sender.publish(f"{unique}/x", b"%d" % n, 1)
    messages = [client.get() for _ in range(3)]
    client.client.ack(messages[0].mid, 1)
    with mqtt(broker) as probe:
        probe.publish("probe", b"", 1)
    client.drop()
    again = Mqtt(broker, **options)
    got = [again.get() for _ in range(2)]
    assert [m.payload for m in got] == [b"1", b"2"] and all(m.dup for m in got)
    again.close()


def test_session_expiry(own_broker):
    broker = own_broker()
    options = dict(client_id="short", clean=False, expiry=1)
    with mqtt(broker, **options) as client:
        client.subscribe("x")
    with mqtt(broker, **options) as client:
        assert client.session_present
    deadline = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > deadline, 5)
    with mqtt(broker, **options) as client:
        assert not client.session_present


def test_take_over(broker, unique):
    first = Mqtt(broker, client_id=unique)
    with mqtt(broker, client_id=unique):
        reason = first.disconnects.get(timeout=10)
        assert "taken over" in str(reason).lower()
    first.client.loop_stop()


@pytest.mark.parametrize("version", [4, 5])
def test_will(broker, unique, version):
    with mqtt(broker) as watcher:
        watcher.subscribe(f"{unique}/will", 1)
        will = dict(topic=f"{unique}/will", payload=b"gone", qos=1, retain=True)
        Mqtt(broker, version=version, will=will).close()
        assert watcher.nothing(lambda: watcher.publish("probe", b"", 1)), "a DISCONNECT sends no will"
        Mqtt(broker, version=version, will=will).drop()
        assert watcher.get().payload == b"gone"


def test_will_delay(broker, unique):
    with mqtt(broker) as watcher:
        watcher.subscribe(f"{unique}/will", 1)
        properties = Properties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = 1
        will = dict(topic=f"{unique}/will", payload=b"gone", qos=1, properties=properties)
        options = dict(client_id=unique, will=will, expiry=60, clean=False)
        Mqtt(broker, **options).drop()
        back = Mqtt(broker, **options)
        Mqtt(broker, client_id=unique, expiry=60, clean=False).close()
        deadline = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > deadline, 5)
        assert watcher.messages.empty(), "reconnecting within the delay cancels the will"
        back.client.loop_stop()
        Mqtt(broker, **options).drop()
        begun = time.monotonic()
        assert watcher.get().payload == b"gone"
        assert 0.5 < time.monotonic() - begun < 4


def test_shared_subscription(broker, unique):
    with mqtt(broker) as one, mqtt(broker) as two, mqtt(broker) as sender:
        for member in (one, two):
            member.subscribe(f"$share/g/{unique}/#", 1)
        for n in range(100):
            sender.publish(f"{unique}/{n}", b"%d" % n, 1)
        wait_until(lambda: one.messages.qsize() + two.messages.qsize() >= 100, 15)
        got = [one.take(one.messages.qsize()), two.take(two.messages.qsize())]
        assert sorted(got[0] + got[1], key=int) == [b"%d" % n for n in range(100)]
        assert got[0] and got[1]


def test_properties_are_forwarded(broker, unique):
    with mqtt(broker) as client:
        client.subscribe(unique, options=SubscribeOptions(qos=1), properties=_subscription_identifier(7))
        client.publish(unique, "text", 1, properties=publish_properties(
            PayloadFormatIndicator=1, MessageExpiryInterval=100, ContentType="text/plain", ResponseTopic="answers",
            CorrelationData=bytes(range(256)), UserProperty=[("b", "1"), ("a", "2"), ("b", "3")],
        ))
        properties = client.get().properties
        assert properties.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")]
        assert properties.CorrelationData == bytes(range(256))
        assert (properties.ContentType, properties.ResponseTopic) == ("text/plain", "answers")
        assert properties.PayloadFormatIndicator == 1 and properties.MessageExpiryInterval <= 100
        assert properties.SubscriptionIdentifier == [7]


def _subscription_identifier(number):
    properties = Properties(PacketTypes.SUBSCRIBE)
    properties.SubscriptionIdentifier = number
    return properties


def test_expired_messages_are_not_delivered(broker, unique):
    options = dict(client_id=unique, clean=False, expiry=3600)
    with mqtt(broker, **options) as client:
        client.subscribe(f"{unique}/#", 1)
    with mqtt(broker) as sender:
        sender.publish(f"{unique}/x", b"short", 1, properties=publish_properties(MessageExpiryInterval=1))
        sender.publish(f"{unique}/x", b"long", 1, properties=publish_properties(MessageExpiryInterval=1000))
    deadline = time.monotonic() + 2
    wait_until(lambda: time.monotonic() > deadline, 5)
    with mqtt(broker, **options) as client:
        assert client.get().payload == b"long"


def test_receive_maximum_of_a_slow_client(broker, unique):
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 3
    properties.SessionExpiryInterval = 0
    slow = Mqtt(broker, manual_ack=True, properties=properties)
    slow.subscribe(unique, 1)
    with mqtt(broker) as sender:
        for n in range(10):
            sender.publish(unique, b"%d" % n, 1)
    first = [slow.get() for _ in range(3)]
    with mqtt(broker) as probe:
        probe.publish("probe", b"", 1)
    assert slow.messages.empty()
    for n, message in enumerate(first):
        slow.client.ack(message.mid, 1)
    assert slow.get().payload == b"3"
    slow.close()


def test_refusals(broker, unique):
    with mqtt(broker) as client:
        assert not client.subscribe(f"{unique}/#", 2)[0].is_failure
        client.unsubscribe(f"{unique}/#")
    limit = Properties(PacketTypes.CONNECT)
    limit.MaximumPacketSize = 200
    with mqtt(broker, properties=limit) as small, mqtt(broker) as sender:
        small.subscribe(unique, 1)
        sender.publish(unique, b"x" * 1000, 1)
        sender.publish(unique, b"fits", 1)
        assert small.get().payload == b"fits", "messages over the maximum packet size are dropped"


def test_limits_are_configurable(own_broker):
    broker = own_broker(environment={
        "INVER_MQTT_KEEP_ALIVE_S_MAX": "60", "INVER_MQTT_REFUSED_FILTERS": '["secret/#"]', "INVER_MQTT_RECEIVE_MAXIMUM": "7",
        "INVER_MQTT_TOPIC_ALIAS_MAXIMUM": "3", "INVER_MQTT_SESSION_EXPIRY_S_MAX": "5",
    })
    with mqtt(broker, keepalive=120, expiry=100) as client:
        told = client.connack
        assert (told.ServerKeepAlive, told.ReceiveMaximum, told.TopicAliasMaximum, told.SessionExpiryInterval) == (60, 7, 3, 5)
        assert client.subscribe("secret/#")[0].is_failure
        assert not client.subscribe("secret/1")[0].is_failure


def test_sys(broker):
    at = ["-h", "127.0.0.1", "-p", broker.mqtt_port, "-W", "10"]
    version = run(["mosquitto_sub", *at, "-t", "$SYS/broker/version", "-C", "1"]).stdout
    assert version.startswith(b"inver version ")
    connected = run(["mosquitto_sub", *at, "-t", "$SYS/broker/clients/+", "-C", "7", "-F", "%t %p %r"]).stdout.decode()
    values = dict(line.rsplit("/", 1)[1].split(" ", 1) for line in connected.splitlines())
    assert set(values) == {"total", "maximum", "connected", "active", "disconnected", "inactive", "expired"}
    assert all(value.endswith(" 1") for value in values.values())


def test_the_expiry_of_a_will_starts_at_its_publish(broker, unique):
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.MessageExpiryInterval = 100
    properties.WillDelayInterval = 1
    will = {"topic": unique, "payload": b"gone", "qos": 1, "properties": properties}
    with mqtt(broker) as watcher:
        watcher.subscribe(unique)
        mqtt_client = Mqtt(broker, will=will, expiry=10)
        mqtt_client.drop()
        assert watcher.get().properties.MessageExpiryInterval >= 99


def test_qos_0_is_not_queued_for_disconnected_sessions(broker, unique):
    with mqtt(broker, client_id=unique, expiry=100) as client:
        client.subscribe(f"{unique}/#", 2)
    with mqtt(broker) as sender:
        sender.publish(f"{unique}/0", b"lost", 0)
        sender.publish(f"{unique}/1", b"kept", 1)
    with mqtt(broker, client_id=unique, expiry=100, clean=False) as client:
        assert client.session_present
        assert client.take(1) == [b"kept"]


def test_keep_alive(broker):
    import socket
    with socket.create_connection(("127.0.0.1", broker.mqtt_port)) as silent:
        silent.sendall(b"\x10\x0d\0\4MQTT\4\2\0\1\0\1k")
        silent.settimeout(5)
        assert silent.recv(4) == b"\x20\x02\0\0"
        begun = time.monotonic()
        assert silent.recv(1) == b""
        assert 1.0 < time.monotonic() - begun < 4


def test_tls(own_broker, tmp_path):
    certificate(tmp_path)
    from harness import free_port
    ports = {name: free_port() for name in ("mqtt", "kafka", "amqp")}
    environment = {}
    for name, port in ports.items():
        environment[f"INVER_{name.upper()}_TLS_LISTEN"] = f"127.0.0.1:{port}"
        environment[f"INVER_{name.upper()}_TLS_CERT"] = str(tmp_path / "cert.pem")
        environment[f"INVER_{name.upper()}_TLS_KEY"] = str(tmp_path / "key.pem")
    own_broker(environment=environment)
    authority = str(tmp_path / "cert.pem")
    run(["mosquitto_pub", "-h", "localhost", "-p", ports["mqtt"], "--cafile", authority, "-t", "x", "-m", "over TLS",
         "-q", "1", "-r"])
    assert run(["mosquitto_sub", "-h", "localhost", "-p", ports["mqtt"], "--cafile", authority, "-t", "x", "-C", "1",
                "-W", "10"]).stdout == b"over TLS\n"
    import pika
    context = ssl.create_default_context(cafile=authority)
    connection = pika.BlockingConnection(pika.ConnectionParameters(
        "localhost", ports["amqp"], ssl_options=pika.SSLOptions(context, "localhost")))
    channel = connection.channel()
    channel.queue_declare("tls")
    connection.close()
    import confluent_kafka
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": f"localhost:{ports['kafka']}",
                                               "security.protocol": "ssl", "ssl.ca.location": authority, **QUIET})
    assert "mqtt" in admin.list_topics(timeout=15).topics


@pytest.mark.parametrize("version", [4, 5])
def test_websocket_over_tls(own_broker, tmp_path, version):
    certificate(tmp_path)
    from harness import free_port
    port, authority = free_port(), str(tmp_path / "cert.pem")
    broker = own_broker(environment={
        "INVER_MQTT_WEBSOCKET_TLS_LISTEN": f"127.0.0.1:{port}",
        "INVER_MQTT_TLS_LISTEN": "off",
        "INVER_MQTT_TLS_CERT": authority,
        "INVER_MQTT_TLS_KEY": str(tmp_path / "key.pem"),
    })
    over_tls = {"version": version, "transport": "websockets", "port": port, "host": "localhost"}
    large = os.urandom(300_000)
    with mqtt(broker, authority=authority, **over_tls) as secret, mqtt(broker, version=version) as plain:
        secret.subscribe("to/secret")
        plain.subscribe("to/plain")
        secret.publish("to/plain", large)
        plain.publish("to/secret", large)
        for client in secret, plain:
            assert client.messages.get(timeout=15).payload == large
    with pytest.raises(OSError):
        Mqtt(broker, **over_tls)


def certificate(folder):
    """A self-signed certificate for localhost."""
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])


def test_an_inbox_beyond_its_bytes_drops_the_oldest_at_once_and_names_the_client(own_broker, unique):
    broker = own_broker(environment={"INVER_LIMITS_INBOX_BYTES_MAX": "100 KiB"})
    with mqtt(broker, client_id=unique, clean=False, expiry=3600) as away:
        away.subscribe("news/#", 1)
    with mqtt(broker) as publisher:
        for number in range(300):
            publisher.publish("news/x", b"%03d" % number + bytes(1000))

    def dropped():
        found = re.search(r'inver_messages_inbox_dropped_total{[^}]*} (\d+)', broker.get("/metrics")[1])
        return found and int(found[1])

    # A round of housekeeping that looks at all inboxes is half a minute away.
    wait_until(lambda: (dropped() or 0) > 190, seconds=5, what="the oldest are dropped")
    with mqtt(broker, client_id=unique, clean=False, expiry=3600) as back:
        first = int(back.get().payload[:3])
        assert first == dropped() and 190 < first < 220
    lines = [line for line in broker.log().splitlines() if "inbox of a session is full" in line]
    assert len(lines) == 1 and f'client_id="{unique}"' in lines[0]
