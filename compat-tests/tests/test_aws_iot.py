"""AWS's IoT device SDKs for Python with their defaults: certificates, and metrics in the user name."""

import queue
import warnings

import pytest
from awscrt import mqtt, mqtt5
from awsiot import mqtt5_client_builder, mqtt_connection_builder

from clients import WAIT_SECONDS
from harness import Broker, free_port, wait_until
from proxies import Authority

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTClient


class Server:
    """A broker with a listener that takes everybody, and one whose certificates name users."""

    def __init__(self, folder):
        self.authority = Authority(folder / "ca")
        self.authority.sign("localhost", file="server")
        self.authority.sign("thing-1")
        self.authority.sign("nobody")
        self.anonymous, self.named = free_port(), free_port()
        tls = "".join(f'{key} = "{self.authority.folder / file}"\n' for key, file in (
            ("tls_cert", "server.pem"), ("tls_key", "server.key"), ("tls_client_ca", "ca.pem")))
        config = folder / "inver.toml"
        config.write_text(f"""
[users.thing-1]
[[permissions]]
user = "thing-1"
kind = "address"
filter = "things/{{username}}/#"
operations = ["all"]
[[permissions]]
anonymous = true
kind = "address"
operations = ["all"]
[[listeners]]
protocol = "mqtt"
address = "127.0.0.1:{self.anonymous}"
{tls}tls_client_auth = "request"
anonymous = "always"
anonymous_any_name = true
[[listeners]]
protocol = "mqtt"
address = "127.0.0.1:{self.named}"
{tls}tls_client_auth = "require"
certificate_user = "common_name"
""")
        self.broker = Broker(folder, arguments=["--config", config])

    def files(self, name):
        return {"cert_filepath": str(self.authority.folder / f"{name}.pem"),
                "pri_key_filepath": str(self.authority.folder / f"{name}.key"), "ca_filepath": str(self.authority.cert)}

    def user_of(self, client_id):
        """The user with whom a client is in the log."""
        lines = [line for line in self.broker.log().splitlines() if "client connected" in line and f'client_id="{client_id}"' in line]
        return "thing-1" if "user=" in lines[-1] else None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("aws"))
    server.broker.start()
    yield server
    try:
        server.broker.check()
    finally:
        server.broker.end()


def both(server):
    return (("anonymous", server.anonymous, None), ("named", server.named, "thing-1"))


def test_version_2_with_mqtt_3(server):
    for name, port, user in both(server):
        connection = mqtt_connection_builder.mtls_from_path(
            endpoint="localhost", port=port, client_id=f"v2-{name}", **server.files("thing-1"))
        assert connection.connect().result(WAIT_SECONDS) == {"session_present": False}
        got, topic = queue.Queue(), "things/thing-1/a"
        granted, _ = connection.subscribe(topic, mqtt.QoS.AT_LEAST_ONCE, lambda topic, payload, **_: got.put((topic, payload)))
        assert granted.result(WAIT_SECONDS)["qos"] == mqtt.QoS.AT_LEAST_ONCE
        connection.publish(topic, b"hello", mqtt.QoS.AT_LEAST_ONCE)[0].result(WAIT_SECONDS)
        assert got.get(timeout=WAIT_SECONDS) == (topic, b"hello")
        connection.disconnect().result(WAIT_SECONDS)
        assert server.user_of(f"v2-{name}") == user


def test_version_2_with_mqtt_5(server):
    for name, port, user in both(server):
        states, got, topic = queue.Queue(), queue.Queue(), "things/thing-1/a"
        client = mqtt5_client_builder.mtls_from_path(
            endpoint="localhost", port=port, client_options=mqtt5.ClientOptions(
                host_name="localhost", port=port, connect_options=mqtt5.ConnectPacket(client_id=f"v5-{name}")),
            on_lifecycle_connection_success=lambda data: states.put(data.connack_packet.reason_code),
            on_lifecycle_connection_failure=lambda data: states.put(data.exception),
            on_publish_received=lambda data: got.put((data.publish_packet.topic, data.publish_packet.payload)),
            **server.files("thing-1"))
        client.start()
        assert states.get(timeout=WAIT_SECONDS) == mqtt5.ConnectReasonCode.SUCCESS
        subscriptions = [mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE)]
        suback = client.subscribe(mqtt5.SubscribePacket(subscriptions)).result(WAIT_SECONDS)
        assert suback.reason_codes == [mqtt5.SubackReasonCode.GRANTED_QOS_1]
        sent = client.publish(mqtt5.PublishPacket(topic=topic, qos=mqtt5.QoS.AT_LEAST_ONCE, payload=b"hello")).result(WAIT_SECONDS)
        assert sent.puback.reason_code == mqtt5.PubackReasonCode.SUCCESS
        assert got.get(timeout=WAIT_SECONDS) == (topic, b"hello")
        denied = client.publish(mqtt5.PublishPacket(topic="elsewhere", qos=mqtt5.QoS.AT_LEAST_ONCE, payload=b"")).result(WAIT_SECONDS)
        assert (denied.puback.reason_code == mqtt5.PubackReasonCode.NOT_AUTHORIZED) == (user is not None)
        client.stop()
        assert server.user_of(f"v5-{name}") == user


def test_version_2_of_a_user_who_is_not_known(server):
    states = queue.Queue()
    client = mqtt5_client_builder.mtls_from_path(
        endpoint="localhost", port=server.named, client_options=mqtt5.ClientOptions(
            host_name="localhost", port=server.named, connect_options=mqtt5.ConnectPacket(client_id="unknown")),
        on_lifecycle_connection_failure=lambda data: states.put(data.connack_packet and data.connack_packet.reason_code),
        **server.files("nobody"))
    client.start()
    assert states.get(timeout=WAIT_SECONDS) == mqtt5.ConnectReasonCode.NOT_AUTHORIZED
    client.stop()


def test_version_1(server):
    for name, port, user in both(server):
        client = AWSIoTMQTTClient(f"v1-{name}")
        client.configureEndpoint("localhost", port)
        files = server.files("thing-1")
        client.configureCredentials(files["ca_filepath"], files["pri_key_filepath"], files["cert_filepath"])
        assert client.connect()
        got = queue.Queue()
        assert client.subscribe("things/thing-1/a", 1, lambda _client, _data, message: got.put((message.topic, message.payload)))
        assert client.publish("things/thing-1/a", "hello", 1)
        assert got.get(timeout=WAIT_SECONDS) == ("things/thing-1/a", b"hello")
        assert client.disconnect()
        wait_until(lambda: server.user_of(f"v1-{name}") == user, what="the login in the log")
