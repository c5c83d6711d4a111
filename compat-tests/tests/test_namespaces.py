"""Namespaces of the configuration, as clients and the operating system see them."""

import pathlib
import threading
import time
import urllib.parse

import pika
import pika.exceptions
import pytest

from clients import amqp_connection, amqp_get, http_api
from harness import wait_until

IDLE_NAMESPACES = 200
IDLE_BYTES_MAX = 20_000_000


def start(own_broker, tmp_path, text):
    tmp_path.mkdir(exist_ok=True)
    config = tmp_path / "inver.toml"
    config.write_text(text)
    return own_broker(arguments=["--config", str(config)])


def connect(broker, namespace):
    return amqp_connection(broker, virtual_host=namespace)


def resident_bytes(broker):
    status = pathlib.Path(f"/proc/{broker.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def test_the_same_names_in_two_namespaces_are_different_things(own_broker, tmp_path):
    broker = start(own_broker, tmp_path, '[[namespaces]]\nname = "one"\n[[namespaces]]\nname = "two"\n')
    channels = {}
    for namespace in ("one", "two"):
        channel = channels[namespace] = connect(broker, namespace).channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "amq.topic", "a.*")
    channels["one"].basic_publish("amq.topic", "a.b", b"of one", mandatory=True)
    assert amqp_get(channels["one"], "q")[2] == b"of one"
    assert channels["two"].queue_declare("q", passive=True).method.message_count == 0
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost three not found"):
        connect(broker, "three")
    for channel in channels.values():
        channel.connection.close()


def test_a_namespace_and_what_is_in_it_survive_a_restart_without_the_configuration(own_broker, tmp_path):
    broker = start(own_broker, tmp_path, '[[namespaces]]\nname = "plant"\nqueues_max = 1\n')
    channel = connect(broker, "plant").channel()
    channel.confirm_delivery()
    channel.queue_declare("q", durable=True)
    channel.basic_publish("", "q", b"kept", pika.BasicProperties(delivery_mode=2), mandatory=True)
    channel.connection.close()
    broker.stop()
    (tmp_path / "inver.toml").write_text("")
    broker.start()
    channel = connect(broker, "plant").channel()
    assert amqp_get(channel, "q")[2] == b"kept"
    # So do its limits.
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="queue limit in vhost 'plant'"):
        channel.queue_declare("another")
    channel.connection.close()


def test_a_full_namespace_refuses_messages_until_there_is_room(own_broker, tmp_path):
    broker = start(own_broker, tmp_path, '[[namespaces]]\nname = "small"\nbytes_max = 100000\n')
    channel = connect(broker, "small").channel()
    channel.confirm_delivery()
    channel.queue_declare("q", durable=True)

    def is_refused():
        try:
            channel.basic_publish("", "q", bytes(20000), mandatory=True)
        except pika.exceptions.NackError:
            return True
        return False

    wait_until(is_refused, what="a refusal")
    channel.queue_purge("q")
    wait_until(lambda: not is_refused(), what="room again")
    channel.connection.close()


def test_idle_namespaces_are_small(own_broker, tmp_path):
    without = start(own_broker, tmp_path / "none", "")
    named = "".join(f'[[namespaces]]\nname = "tenant-{number}"\n' for number in range(IDLE_NAMESPACES))
    many = start(own_broker, tmp_path / "many", named)
    more = resident_bytes(many) - resident_bytes(without)
    assert more < IDLE_BYTES_MAX, f"{more} bytes"


def test_deleting_a_namespace_closes_its_amqp_connections_and_leaves_nothing(broker, unique):
    namespace = f"{unique}/deleted"
    path = urllib.parse.quote(namespace, safe="")
    assert api(broker, "PUT", path, {"description": "for a while"}) in (200, 201, 204)
    inside, outside = connect(broker, namespace), connect(broker, "/")
    channel = inside.channel()
    channel.confirm_delivery()
    channel.queue_declare("q", durable=True)
    channel.basic_publish("", "q", b"gone", pika.BasicProperties(delivery_mode=2), mandatory=True)
    deleting = threading.Thread(target=api, args=(broker, "DELETE", path))
    deleting.start()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        while True:
            inside.process_data_events(time_limit=1)
    assert closed.value.reply_code == 320
    assert closed.value.reply_text == f"CONNECTION_FORCED - vhost '{namespace}' is down"
    deleting.join()
    assert api(broker, "GET", path) == 404
    assert outside.is_open and outside.channel().is_open
    outside.close()
    # The name is free, and what has it now is empty.
    assert api(broker, "PUT", path, {}) in (200, 201, 204)
    again = connect(broker, namespace)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        again.channel().queue_declare("q", passive=True)
    again.close()
    assert api(broker, "DELETE", path) == 204


def api(broker, method, path, body=None):
    """Status of a request about a namespace."""
    return http_api(broker, method, f"/namespaces/{path}", body)[0]


def test_a_namespace_is_deleted_at_once_whatever_its_clients_do(broker, unique):
    """A client that does not answer `connection.close` held the deletion up for ten seconds."""
    namespace = f"{unique}-silent"
    assert api(broker, "PUT", namespace, {}) in (200, 201, 204)
    # It reads nothing more from its socket.
    silent = connect(broker, namespace)
    silent.channel().queue_declare("q", durable=True)
    begun = time.monotonic()
    assert api(broker, "DELETE", namespace) == 204
    assert time.monotonic() - begun < 5
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="not found"):
        connect(broker, namespace)
    # The client is told why all the same.
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match=f"vhost '{namespace}' is down"):
        silent.process_data_events(5)
