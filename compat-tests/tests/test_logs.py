"""The log: its two forms, its lines about clients, and the limit of their number."""

import json
import socket
import time

import confluent_kafka
import pika.exceptions
import pytest

from clients import Mqtt, amqp, kafka_send, mqtt
from harness import binary, run, wait_until

PROTOCOLS = ["amqp", "kafka", "mqtt"]
WAIT_SECONDS = 15


def hash_of(name, password):
    line = run([binary(), "user", "add", name, "--print"], stdin=password.encode() + b"\n").stdout.decode()
    return line.split("=", 1)[1].strip().strip('"')


def lines(broker, message):
    """The JSON lines with this message."""
    found = [json.loads(line) for line in broker.log().splitlines()]
    return [line for line in found if line["message"] == message]


def kafka_client(broker, user=None, password=None):
    options = {"bootstrap.servers": broker.kafka, "client.id": "kafka-client", "log_level": 0}
    if user:
        options |= {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
                    "sasl.username": user, "sasl.password": password}
    return confluent_kafka.Producer(options)


def send(producer):
    producer.produce("t", b"value")
    assert producer.flush(WAIT_SECONDS) == 0


def test_lines_about_clients_have_one_form(own_broker):
    users = f'{{ ann = "{hash_of("ann", "secret")}" }}'
    broker = own_broker(environment={"INVER_LOGGING_FORMAT": "json", "INVER_USERS": users})
    with mqtt(broker, client_id="mqtt-client", user=("ann", "secret")):
        pass
    with amqp(broker, user="ann", password="secret", name="amqp-client") as channel:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker):
            channel.queue_declare("missing", passive=True)
    producer = kafka_client(broker, "ann", "secret")
    send(producer)
    del producer

    wait_until(lambda: {line["protocol"] for line in lines(broker, "client disconnected")} == set(PROTOCOLS))
    for protocol in PROTOCOLS:
        for message in ("client connected", "client disconnected"):
            line = next(line for line in lines(broker, message) if line["protocol"] == protocol)
            assert (line["level"], line["client_id"], line["user"]) == ("INFO", f"{protocol}-client", "ann"), line
            assert line["address"].startswith("127.0.0.1:")
        assert line["reason"] and line["seconds"] >= 0
    refused, = lines(broker, "request refused")
    assert refused["request"] == "channel 1" and "NOT_FOUND" in refused["reason"], refused

    assert Mqtt(broker, client_id="mqtt-client", user=("ann", "wrong")).reason.is_failure
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        with amqp(broker, user="ann", password="wrong", name="amqp-client"):
            pass
    producer = kafka_client(broker, "ann", "wrong")
    producer.poll(0.1)
    wait_until(lambda: {line["protocol"] for line in lines(broker, "login refused")} == set(PROTOCOLS))
    for line in lines(broker, "login refused"):
        assert line["user"] == "ann" and line["reason"] == "user name or password is wrong", line
        assert line["address"].startswith("127.0.0.1:")
    page = broker.get("/metrics")[1]
    for protocol in PROTOCOLS:
        assert f'inver_logins_total{{protocol="{protocol}",result="accepted",reason=""}}' in page
        assert f'inver_logins_total{{protocol="{protocol}",result="refused",reason="credentials"}}' in page
    assert "secret" not in broker.log() and "wrong\"" not in broker.log().replace("password is wrong", "")


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_start_line_says_what_runs(own_broker, tmp_path, form):
    config = tmp_path / "inver.toml"
    config.write_text("")
    broker = own_broker(environment={"INVER_LOGGING_FORMAT": form}, arguments=["--config", config])
    start = next(line for line in broker.log().splitlines() if "starting" in line)
    for part in (str(config), str(broker.data), "always", f"mqtt=127.0.0.1:{broker.mqtt_port}", "version"):
        assert part in start, start
    assert "loopback only" in next(line for line in broker.log().splitlines() if "milliseconds" in line)
    if form == "json":
        assert json.loads(start)["commit"] == "always"


def test_a_client_in_a_loop_does_not_fill_the_log(own_broker):
    """Thousands of refused connections: the lines are limited, and what was suppressed is counted."""
    broker = own_broker(environment={
        "INVER_LOGGING_FORMAT": "json", "INVER_LOGGING_ADDRESS_LINES_PER_MINUTE_MAX": "60",
    })
    count = 2000
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", broker.mqtt_port), 5) as loop:
            loop.sendall(b"not a CONNECT")
            loop.settimeout(5)
            while loop.recv(64):
                pass
    wait_until(lambda: broker.metric("inver_logins_total") >= count)
    written = len(lines(broker, "login refused"))
    assert 60 <= written <= 120, written
    assert len(broker.log()) < 60_000
    assert broker.metric("inver_log_lines_suppressed_total") >= count - written
    # The next line that may be written tells the number.
    def told():
        with mqtt(broker, client_id="later"):
            pass
        return any(line.get("suppressed", 0) > 0 for line in lines(broker, "client connected"))
    wait_until(told, WAIT_SECONDS)


def test_refused_requests_of_one_connection_are_limited(own_broker):
    broker = own_broker(environment={
        "INVER_LOGGING_FORMAT": "json", "INVER_LOGGING_CONNECTION_LINES_PER_MINUTE_MAX": "10",
    })
    with amqp(broker) as channel:
        connection = channel.connection
        begun = time.monotonic()
        for _ in range(200):
            with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                connection.channel().queue_declare("missing", passive=True)
        seconds = time.monotonic() - begun
    written = len(lines(broker, "request refused"))
    assert 10 <= written <= 11 + seconds / 6, written
    kafka_send(broker, "other", b"works")
