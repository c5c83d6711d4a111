"""Listeners: TLS with client certificates, advertised addresses, proxies, WebSocket paths, Unix sockets, anonymous clients."""

import contextlib
import json
import socket
import ssl

import confluent_kafka
import paho.mqtt.client as paho
import pika
import pika.exceptions
import pytest
from confluent_kafka.admin import AdminClient

from clients import WAIT_SECONDS, Mqtt, amqp, amqp_connection, mqtt
from harness import binary, free_port, run, wait_until
from proxies import Authority, haproxy, nginx


@pytest.fixture
def listening(own_broker, tmp_path):
    """Starts a broker with a configuration file, in which `@NAME@` is a free port of that name."""

    def start(text, **options):
        path = tmp_path / "inver.toml"
        path.write_text(text)
        broker = own_broker(start=False, arguments=["--config", path], **options)
        broker.config = path
        return broker.start()

    return start


def produce(options, topic="t", value=b"value"):
    producer = confluent_kafka.Producer({"log_level": 0, "message.timeout.ms": 10000, **options})
    failures = []
    producer.produce(topic, value, on_delivery=lambda error, _message: failures.append(error))
    producer.flush(WAIT_SECONDS)
    assert failures == [None], failures


def brokers(options):
    metadata = AdminClient({"log_level": 0, **options}).list_topics(timeout=WAIT_SECONDS)
    return [(broker.host, broker.port) for broker in metadata.brokers.values()]


def mosquitto_pub(*arguments, check=True):
    return run(["mosquitto_pub", "-t", "a/b", "-m", "x", "-q", "1", *arguments], timeout=20, check=check)


# ---- Kafka: an advertised address for each listener


def test_kafka_clients_are_told_the_address_of_their_listener(listening, tmp_path):
    """As in Docker: clients inside and outside of a network, the latter with TLS, each reach the broker by a name of their own."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost")
    inside, outside, told = free_port(), free_port(), free_port()
    broker = listening(f"""
[[listeners]]
name = "inside"
protocol = "kafka"
address = "127.0.0.1:{inside}"
advertised = "127.0.0.1:{inside}"
[[listeners]]
name = "outside"
protocol = "kafka"
address = "127.0.0.1:{outside}"
tls_cert = "{cert}"
tls_key = "{key}"
advertised = "localhost:{told}"
""")
    tls = {"security.protocol": "ssl", "ssl.ca.location": str(authority.cert)}
    assert brokers({"bootstrap.servers": f"127.0.0.1:{inside}"}) == [("127.0.0.1", inside)]
    assert brokers({"bootstrap.servers": f"localhost:{outside}", **tls}) == [("localhost", told)]
    # The address is another one from outside, as behind a mapped port: the client works only if it goes there.
    with haproxy(tmp_path / "mapped", f"127.0.0.1:{outside}") as mapped:
        broker.config.write_text(broker.config.read_text().replace(str(told), str(mapped)))
        run([binary(), "reload", "--config", broker.config], env=broker.environment)
        produce({"bootstrap.servers": f"localhost:{mapped}", **tls})
        listed = run(["kcat", "-b", f"localhost:{mapped}", "-X", "security.protocol=ssl", "-X",
                      f"ssl.ca.location={authority.cert}", "-L", "-J"]).stdout
        assert [entry["name"] for entry in json.loads(listed)["brokers"]] == [f"localhost:{mapped}"]
    consumed = run(["kcat", "-b", f"127.0.0.1:{inside}", "-C", "-t", "t", "-e", "-q"], timeout=30).stdout
    assert consumed == b"value\n"


def test_short_keys_tell_tls_clients_the_tls_port(own_broker, tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost")
    plain, tls_port = free_port(), free_port()
    own_broker(environment={
        "INVER_KAFKA_LISTEN": f"127.0.0.1:{plain}", "INVER_KAFKA_ADVERTISED": f"localhost:{plain}",
        "INVER_KAFKA_TLS_LISTEN": f"127.0.0.1:{tls_port}", "INVER_KAFKA_TLS_CERT": str(cert), "INVER_KAFKA_TLS_KEY": str(key),
    })
    tls = {"security.protocol": "ssl", "ssl.ca.location": str(authority.cert)}
    assert brokers({"bootstrap.servers": f"localhost:{plain}"}) == [("localhost", plain)]
    assert brokers({"bootstrap.servers": f"localhost:{tls_port}", **tls}) == [("localhost", tls_port)]
    produce({"bootstrap.servers": f"localhost:{tls_port}", **tls})


# ---- TLS with certificates of clients


def test_client_certificates_are_requested_or_required(listening, tmp_path):
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "Other CA")
    cert, key = authority.sign("localhost", file="server")
    device, device_key = authority.sign("device-1")
    other_cert, other_key = other.sign("device-1")
    requested, required = free_port(), free_port()
    entries = [f"""
[[listeners]]
name = "{auth}"
protocol = "mqtt"
address = "127.0.0.1:{port}"
tls_cert = "{cert}"
tls_key = "{key}"
tls_client_ca = "{authority.cert}"
tls_client_auth = "{auth}"
""" for auth, port in (("request", requested), ("require", required))]
    listening("".join(entries))
    ca = ["-h", "localhost", "--cafile", authority.cert]
    for port in (requested, required):
        mosquitto_pub(*ca, "-p", port, "--cert", device, "--key", device_key)
        refused = mosquitto_pub(*ca, "-p", port, "--cert", other_cert, "--key", other_key, check=False)
        assert refused.returncode != 0, "a certificate of an unknown authority"
    mosquitto_pub(*ca, "-p", requested)
    assert mosquitto_pub(*ca, "-p", required, check=False).returncode != 0
    certificate = ["--cert", device, "--key", device_key]
    mosquitto_pub(*ca, "-p", required, *certificate, "-r")
    received = run(["mosquitto_sub", *ca, "-p", required, *certificate, "-t", "a/b", "-C", "1", "-W", "10"])
    assert received.stdout == b"x\n"


def test_an_old_version_of_tls_is_refused(listening, tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost")
    port, newer = free_port(), free_port()
    listening("".join(f"""
[[listeners]]
protocol = "amqp"
address = "127.0.0.1:{each}"
tls_cert = "{cert}"
tls_key = "{key}"
tls_min_version = "{version}"
""" for each, version in ((port, "1.2"), (newer, "1.3"))))
    context = ssl.create_default_context(cafile=authority.cert)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("localhost", port), 5) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        assert tls.version() == "TLSv1.2"
    with socket.create_connection(("localhost", newer), 5) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


# ---- Behind proxies


def connected(broker, address):
    """Whether the log names a client of that address."""
    return any("client connected" in line and f"{address}:" in line for line in broker.log().splitlines())


def mqtt_from(source, port):
    """A Paho client whose connection comes from the address `source`."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port, bind_address=source)
    client.loop_start()
    return client


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
def test_haproxy_names_the_client(listening, tmp_path, header):
    port = free_port()
    broker = listening(f"""
[[listeners]]
protocol = "mqtt"
address = "127.0.0.1:{port}"
proxy_protocol = true
proxy_trusted = ["127.0.0.5/32"]
""")
    with haproxy(tmp_path / "trusted", f"127.0.0.1:{port} {header} source 127.0.0.5") as front:
        client = mqtt_from("127.0.0.77", front)
        wait_until(lambda: connected(broker, "127.0.0.77"), what="the client's own address in the log")
        client.publish("a", b"x", qos=1).wait_for_publish(WAIT_SECONDS)
        client.disconnect()
        client.loop_stop()
    # A proxy that is not trusted, and a client that is no proxy.
    with haproxy(tmp_path / "untrusted", f"127.0.0.1:{port} {header} source 127.0.0.6") as front:
        with socket.create_connection(("127.0.0.1", front), 5) as client:
            client.settimeout(5)
            client.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass
    wait_until(lambda: "127.0.0.6" in broker.log() and "proxy_trusted" in broker.log(), what="the refusal in the log")
    assert broker.metric("inver_connections_refused_total") >= 1


def test_a_trusted_proxy_without_a_header_is_refused(listening):
    port = free_port()
    broker = listening(f"""
[[listeners]]
protocol = "mqtt"
address = "127.0.0.1:{port}"
proxy_protocol = true
proxy_trusted = ["127.0.0.1"]
""")
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(5)
        client.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
    wait_until(lambda: "no valid PROXY protocol header" in broker.log(), what="the reason in the log")


def test_a_certificate_names_the_user(listening, tmp_path):
    """One that the listener verified, and one that HAProxy verified and names in its header."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost", file="server")
    device, device_key = authority.sign("device-1")
    port, behind = free_port(), free_port()
    hash_ = run([binary(), "user", "add", "device-1", "--print"], stdin=b"secret\n").stdout.decode().split("=", 1)[1].strip()
    broker = listening(f"""
[users]
device-1 = {hash_}
[[listeners]]
name = "direct"
protocol = "mqtt"
address = "127.0.0.1:{port}"
tls_cert = "{cert}"
tls_key = "{key}"
tls_client_ca = "{authority.cert}"
tls_client_auth = "require"
certificate_user = "common_name"
[[listeners]]
name = "proxied"
protocol = "mqtt"
address = "127.0.0.1:{behind}"
proxy_protocol = true
proxy_trusted = ["127.0.0.1"]
certificate_user = "common_name"
""")
    certificate = ["--cafile", authority.cert, "--cert", device, "--key", device_key, "-h", "localhost"]
    mosquitto_pub(*certificate, "-p", port, "-i", "direct-client")
    both = tmp_path / "haproxy.pem"
    both.write_text(cert.read_text() + key.read_text())
    bind = f"ssl crt {both} ca-file {authority.cert} verify required"
    with haproxy(tmp_path / "front", f"127.0.0.1:{behind} send-proxy-v2-ssl-cn", bind) as front:
        mosquitto_pub(*certificate, "-p", front, "-i", "proxied-client")

    def logged_in(client):
        return any(f"{client}" in line and "device-1" in line for line in broker.log().splitlines())

    for client in ("direct-client", "proxied-client"):
        wait_until(lambda: logged_in(client), what=f"the user of {client} in the log")


def test_limits_count_the_clients_of_a_proxy(listening, tmp_path):
    port = free_port()
    broker = listening(f"""
[[listeners]]
name = "proxied"
protocol = "mqtt"
address = "127.0.0.1:{port}"
proxy_protocol = true
proxy_trusted = ["127.0.0.1"]
connections_per_address_max = 1
""")
    with haproxy(tmp_path / "front", f"127.0.0.1:{port} send-proxy-v2") as front:
        clients = [mqtt_from(f"127.0.0.{number}", front) for number in (11, 12)]
        for number in (11, 12):
            wait_until(lambda: connected(broker, f"127.0.0.{number}"), what="one connection of each address")
        third = mqtt_from("127.0.0.11", front)
        wait_until(lambda: "connections_per_address_max reached" in broker.log(), what="the refusal in the log")
        for client in [*clients, third]:
            client.disconnect()
            client.loop_stop()


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
def test_rules_for_an_address_hold_behind_a_proxy(listening, tmp_path, header):
    """For clients of every protocol: what counts is the client's own address, not the proxy's."""
    sources = ("127.0.0.77", "127.0.0.78")
    inner = {(protocol, source): free_port() for protocol in ("amqp", "kafka", "mqtt") for source in sources}
    outer = {each: free_port() for each in inner}
    hash_ = run([binary(), "user", "add", "ann", "--print"], stdin=b"secret\n").stdout.decode().split("=", 1)[1].strip()
    listening("".join(f"""
[[listeners]]
name = "{protocol}-{source}"
protocol = "{protocol}"
address = "127.0.0.1:{port}"
proxy_protocol = true
proxy_trusted = ["127.0.0.1"]
{f'advertised = "127.0.0.1:{outer[protocol, source]}"' if protocol == "kafka" else ""}
""" for (protocol, source), port in inner.items()) + f"""
[users.ann]
passwords = [{hash_}]
[[permissions]]
user = "ann"
host = "{sources[0]}"
operations = ["all"]
""")
    login = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "ann", "sasl.password": "secret"}
    with contextlib.ExitStack() as proxies:
        for number, (each, port) in enumerate(inner.items()):
            # The first proxy is the client's machine, the second one the proxy that names it.
            named = proxies.enter_context(haproxy(tmp_path / f"proxy-{number}", f"127.0.0.1:{port} {header}"))
            proxies.enter_context(haproxy(
                tmp_path / f"client-{number}", f"127.0.0.1:{named} source {each[1]}", port=outer[each]))
        right, wrong = sources
        amqp_connection(None, "ann", "secret", port=outer["amqp", right]).close()
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="530"):
            amqp_connection(None, "ann", "secret", port=outer["amqp", wrong])
        produce({"bootstrap.servers": f"127.0.0.1:{outer['kafka', right]}", **login})
        with pytest.raises(AssertionError, match="TOPIC_AUTHORIZATION_FAILED"):
            produce({"bootstrap.servers": f"127.0.0.1:{outer['kafka', wrong]}", **login})
        assert not mqtt_subscribes(outer["mqtt", right]).is_failure
        assert mqtt_subscribes(outer["mqtt", wrong]).is_failure


def mqtt_subscribes(port):
    """What comes of a subscription by `ann`."""
    client = Mqtt(None, port=port, user=("ann", "secret"))
    try:
        return client.subscribe("a/b")[0]
    finally:
        client.close()


def test_paho_through_nginx_to_a_websocket_path(listening, tmp_path):
    port = free_port()
    broker = listening(f"""
[[listeners]]
protocol = "mqtt"
address = "127.0.0.1:{port}"
websocket_path = "/broker/mqtt"
""")
    location = "listen 127.0.0.1:@PORT@; location / { proxy_pass http://127.0.0.1:%d; proxy_http_version 1.1;" \
        " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 60s; }" % port
    with nginx(tmp_path / "nginx", location) as front:
        received = []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, transport="websockets")
        client.ws_set_options(path="/broker/mqtt")
        client.on_message = lambda _client, _data, message: received.append(message.payload)
        client.on_connect = lambda *_: client.subscribe("a/b", 1)
        client.on_subscribe = lambda *_: client.publish("a/b", b"through nginx", 1)
        client.connect("127.0.0.1", front)
        client.loop_start()
        wait_until(lambda: received == [b"through nginx"], what="the message")
        client.disconnect()
        client.loop_stop()
        other = paho.Client(paho.CallbackAPIVersion.VERSION2, transport="websockets")
        other.ws_set_options(path="/mqtt")
        with pytest.raises(paho.WebsocketConnectionError):
            other.connect("127.0.0.1", front)
    assert broker.is_ready()


# ---- Unix sockets


def test_unix_sockets(listening, tmp_path):
    path, http = tmp_path / "mqtt.sock", tmp_path / "http.sock"
    broker = listening(f"""
[[listeners]]
protocol = "mqtt"
address = ["unix:{path}", "127.0.0.1:{free_port()}"]
unix_mode = "0600"
[[listeners]]
protocol = "http"
address = "unix:{http}"
""")
    assert path.stat().st_mode & 0o777 == 0o600 and http.stat().st_mode & 0o777 == 0o660
    with mqtt(broker) as client:
        client.subscribe("a/b")
        mosquitto_pub("--unix", path)
        assert client.get().payload == b"x"
    over_socket = {**broker.environment, "INVER_HTTP_LISTEN": "off"}
    assert run([binary(), "health", "--config", broker.config], env=over_socket).stdout == b"ready\n"
    broker.kill()
    broker.start()
    mosquitto_pub("--unix", path)
    assert broker.stop() == 0
    assert not path.exists() and not http.exists()


# ---- Anonymous clients


def test_the_rule_for_anonymous_clients_is_the_listener_s(listening):
    hash_ = run([binary(), "user", "add", "ann", "--print"], stdin=b"secret\n").stdout.decode().split("=", 1)[1].strip()
    ports = {rule: free_port() for rule in ("never", "loopback", "always")}
    entries = [f"""
[[listeners]]
name = "{rule}"
protocol = "mqtt"
address = "127.0.0.1:{port}"
anonymous = "{rule}"
{"anonymous_any_name = true" if rule == "always" else ""}
""" for rule, port in ports.items()]
    broker = listening("".join(entries) + f"[users]\nann = {hash_}\n")
    assert "every client may connect to always without a password, under any user name" in broker.log()
    assert Mqtt(broker, port=ports["never"]).reason.is_failure
    assert Mqtt(broker).reason.is_failure, "the short key: never once there are users"
    for rule in ("loopback", "always"):
        Mqtt(broker, port=ports[rule]).close()
    # As AWS's SDK does, which sends its metrics as the user name.
    Mqtt(broker, port=ports["always"], user=("?SDK=Python&Version=1.0", None)).close()
    assert Mqtt(broker, port=ports["loopback"], user=("?SDK=Python", None)).reason.is_failure
    for port in ports.values():
        Mqtt(broker, port=port, user=("ann", "secret")).close()
        assert Mqtt(broker, port=port, user=("ann", "wrong")).reason.is_failure


def test_loopback_is_not_trusted_if_told_so(own_broker):
    """A proxy on the same machine makes every client a local one."""
    broker = own_broker(environment={"INVER_LOOPBACK_ANONYMOUS": "false"})
    assert "nobody can connect" in broker.log()
    assert Mqtt(broker).reason.is_failure
    assert Mqtt(broker, user=("guest", "guest")).reason.is_failure
    with pytest.raises(Exception, match="ACCESS_REFUSED|403"):
        with amqp(broker):
            pass
