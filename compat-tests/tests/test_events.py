"""The exchange `amq.rabbitmq.event`: names of events and of their headers as RabbitMQ 4.0.5 with its plugin has them."""

import pytest
import pika
from pika.exceptions import AMQPError

from clients import amqp, amqp_connection, mqtt
from harness import wait_until
from test_rabbitmq_api import CONFIG, Management

EXCHANGE = "amq.rabbitmq.event"
# The headers of RabbitMQ 4.0.5, without those that name its processes, its TLS state or its Erlang terms.
HEADERS = {
    "user.authentication.success": {"name", "protocol", "peer_host", "peer_port"},
    "user.authentication.failure": {"name", "protocol", "peer_host", "peer_port", "error"},
    "queue.created": {"name", "type", "durable", "auto_delete", "exclusive", "arguments", "vhost"},
    "queue.deleted": {"name", "type", "vhost"},
    "exchange.created": {"name", "type", "durable", "auto_delete", "internal", "arguments", "vhost"},
    "exchange.deleted": {"name", "vhost"},
    "binding.created": {"source_name", "source_kind", "destination_name", "destination_kind", "routing_key",
                        "arguments", "vhost"},
    "binding.deleted": {"source_name", "source_kind", "destination_name", "destination_kind", "routing_key",
                        "arguments", "vhost"},
    "connection.created": {"name", "user_provided_name", "pid", "protocol", "user", "vhost", "peer_host", "peer_port",
                           "host", "port", "ssl", "connected_at"},
    "connection.closed": {"name", "user_provided_name", "pid"},
    "channel.created": {"pid", "name", "connection", "number", "user", "vhost"},
    "channel.closed": {"pid", "consumer_count"},
    "consumer.created": {"consumer_tag", "exclusive", "ack_required", "channel", "queue", "prefetch_count", "arguments",
                         "vhost"},
    "consumer.deleted": {"consumer_tag", "channel", "queue", "vhost"},
    "user.created": {"name"},
    "user.password.changed": {"name"},
    "user.tags.set": {"name", "tags"},
    "user.deleted": {"name"},
    "vhost.created": {"name", "description", "tags", "default_queue_type"},
    "vhost.updated": {"name", "description", "tags", "default_queue_type"},
    "vhost.deleted": {"name"},
    "permission.created": {"user", "vhost", "configure", "write", "read"},
    "permission.deleted": {"user", "vhost"},
    "topic.permission.created": {"user", "vhost", "exchange", "write", "read"},
    "topic.permission.deleted": {"user", "vhost"},
    "policy.set": {"name", "pattern", "apply-to", "priority", "definition", "vhost"},
    "policy.cleared": {"name", "vhost"},
    "operator.policy.cleared": {"name", "vhost"},
}


class Listener:
    """The events that match a key, as they come."""

    def __init__(self, channel, key="#", queue="", **options):
        self.channel = channel
        self.queue = channel.queue_declare(queue, **options or {"exclusive": True}).method.queue
        channel.queue_bind(self.queue, EXCHANGE, key)
        self.told = []

    def drain(self):
        while (got := self.channel.basic_get(self.queue, auto_ack=True))[0]:
            method, properties, body = got
            assert method.exchange == EXCHANGE and body == b""
            self.told.append((method.routing_key, properties))
        return self.told

    def event(self, key, /, **facts):
        """The headers of the next event of this name with these facts; those before it stay."""

        def find():
            for at, (told, properties) in enumerate(self.drain()):
                if told == key and all(properties.headers.get(fact) == value for fact, value in facts.items()):
                    return self.told.pop(at)[1]
            return None

        properties = wait_until(find, what=f"{key} {facts}")
        headers = properties.headers
        assert HEADERS[key] | {"timestamp_in_ms"} <= set(headers), (key, headers)
        assert key.startswith("user.authentication.") != ("user_who_performed_action" in headers)
        assert properties.delivery_mode == 2 and properties.timestamp == headers["timestamp_in_ms"] // 1000
        return headers


def test_what_clients_do_is_told(broker, unique):
    q, x = f"{unique}-q", f"{unique}-x"
    with amqp(broker) as listening:
        listener = Listener(listening)
        with amqp(broker, name=f"{unique}-worker") as channel:
            connected = listener.event("connection.created", user_provided_name=f"{unique}-worker")
            assert connected["vhost"] == "/" and connected["peer_host"] == "127.0.0.1" and connected["ssl"] is False
            opened = listener.event("channel.created", connection=connected["pid"])
            assert (opened["number"], opened["name"]) == (1, connected["name"] + " (1)")
            channel.exchange_declare(x, "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
            made = listener.event("exchange.created", name=x)
            assert (made["type"], made["durable"], made["internal"]) == ("topic", True, False)
            assert made["arguments"] == {"alternate-exchange": "amq.fanout"}
            channel.queue_declare(q, durable=True, arguments={"x-max-length": 5})
            made = listener.event("queue.created", name=q)
            assert (made["type"], made["durable"], made["exclusive"]) == ("rabbit_classic_queue", True, False)
            assert made["arguments"]["x-max-length"] == 5
            channel.queue_bind(q, x, "a.#", arguments={"n": 1})
            bound = listener.event("binding.created", source_name=x)
            assert (bound["destination_name"], bound["destination_kind"]) == (q, "queue")
            assert (bound["routing_key"], bound["arguments"], bound["source_kind"]) == ("a.#", {"n": 1}, "exchange")
            channel.exchange_bind("amq.fanout", x, "k")
            assert listener.event("binding.created", source_name=x)["destination_kind"] == "exchange"
            channel.basic_qos(prefetch_count=7)
            channel.basic_consume(q, lambda *_: None, consumer_tag="t1", arguments={"x-priority": 3})
            consumer = listener.event("consumer.created", queue=q)
            assert (consumer["consumer_tag"], consumer["prefetch_count"], consumer["channel"]) == ("t1", 7, opened["pid"])
            assert consumer["ack_required"] is True and consumer["arguments"] == {"x-priority": 3}
            channel.basic_cancel("t1")
            assert listener.event("consumer.deleted", queue=q)["consumer_tag"] == "t1"
            channel.queue_unbind(q, x, "a.#", arguments={"n": 1})
            assert listener.event("binding.deleted", source_name=x, destination_name=q)["routing_key"] == "a.#"
            channel.queue_bind(q, x, "b")
            channel.queue_delete(q)
            assert listener.event("binding.deleted", destination_name=q)["routing_key"] == "b"
            assert listener.event("queue.deleted", name=q)["type"] == "rabbit_classic_queue"
            channel.exchange_delete(x)
            listener.event("exchange.deleted", name=x)
            listener.event("binding.deleted", source_name=x, destination_name="amq.fanout")
            own = channel.queue_declare("", exclusive=True).method.queue
            channel.basic_consume(own, lambda *_: None, consumer_tag="t2")
            assert listener.event("queue.created", name=own)["exclusive"] is True
        listener.event("consumer.deleted", consumer_tag="t2")
        listener.event("channel.closed", pid=opened["pid"])
        listener.event("queue.deleted", name=own)
        listener.event("connection.closed", pid=connected["pid"])


def test_clients_of_every_protocol_and_failed_logins_are_told(own_broker, tmp_path, unique):
    config = tmp_path / "inver.toml"
    config.write_text(CONFIG)
    broker = own_broker(arguments=["--config", str(config)])
    with amqp(broker, password="test12") as channel:
        listener = Listener(channel)
        with mqtt(broker, unique, user=("guest", "test12")):
            connected = listener.event("connection.created", user_provided_name=unique)
            assert (connected["protocol"], connected["user"]) == ("mqtt", "guest")
            listener.event("user.authentication.success", protocol="mqtt")
        listener.event("connection.closed", pid=connected["pid"])
        with pytest.raises(AMQPError):
            amqp_connection(broker, password="wrong")
        failed = listener.event("user.authentication.failure", name="guest")
        assert "user_who_performed_action" not in failed and failed["error"]


def test_what_operators_do_is_told(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    config.write_text(CONFIG)
    broker = own_broker(arguments=["--config", str(config)])
    api = Management(broker)
    with amqp(broker, password="test12") as channel:
        listener = Listener(channel)

        def put(path, body):
            assert api.status("PUT", path, body) in (200, 201, 204)

        def delete(path):
            assert api.status("DELETE", path) == 204

        put("/users/ann", {"password": "secret1", "tags": "management"})
        assert listener.event("user.created", name="ann")["user_who_performed_action"] == "guest"
        assert listener.event("user.tags.set", name="ann")["tags"] == ["management"]
        put("/users/ann", {"password": "secret2", "tags": "monitoring"})
        listener.event("user.password.changed", name="ann")
        put("/vhosts/vv", {"description": "d", "tags": "a,b"})
        made = listener.event("vhost.created", name="vv")
        assert (made["description"], made["tags"], made["default_queue_type"]) == ("d", ["a", "b"], "classic")
        put("/permissions/vv/ann", {"configure": "a.*", "write": "b", "read": "c"})
        given = listener.event("permission.created", user="ann", vhost="vv")
        assert (given["configure"], given["write"], given["read"]) == ("a.*", "b", "c")
        put("/topic-permissions/vv/ann", {"exchange": "amq.topic", "write": "b", "read": "c"})
        assert listener.event("topic.permission.created", user="ann")["exchange"] == "amq.topic"
        delete("/topic-permissions/vv/ann")
        listener.event("topic.permission.deleted", user="ann", vhost="vv")
        delete("/permissions/vv/ann")
        listener.event("permission.deleted", user="ann", vhost="vv")
        put("/policies/vv/p1", {"pattern": "^x", "definition": {"max-length": 3}, "apply-to": "queues", "priority": 2})
        policy = listener.event("policy.set", name="p1", vhost="vv")
        assert (policy["pattern"], policy["apply-to"], policy["priority"]) == ("^x", "queues", 2)
        assert policy["definition"] == {"max-length": 3}
        delete("/policies/vv/p1")
        listener.event("policy.cleared", name="p1", vhost="vv")
        put("/operator-policies/vv/p2", {"pattern": "^x", "definition": {"max-length": 3}, "apply-to": "queues"})
        listener.event("policy.set", name="p2")
        delete("/operator-policies/vv/p2")
        listener.event("operator.policy.cleared", name="p2")
        put("/queues/vv/inv", {"durable": True})
        assert listener.event("queue.created", name="inv")["vhost"] == "vv", "of every virtual host"
        delete("/vhosts/vv")
        listener.event("vhost.deleted", name="vv")
        delete("/users/ann")
        listener.event("user.deleted", name="ann")


def test_the_exchange_takes_no_publishes_and_durable_listeners_hear_after_a_restart(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_publish(EXCHANGE, "queue.created", b"forged")
            channel.queue_declare("after")
        assert refused.value.reply_code == 403
    with amqp(broker) as channel:
        Listener(channel, "queue.*", queue="kept", durable=True)
    broker.restart()
    with amqp(broker) as channel:
        channel.queue_declare("later", durable=True)
        listener = Listener(channel, "queue.*", queue="kept", durable=True)
        listener.event("queue.created", name="later")
        channel.queue_unbind("kept", EXCHANGE, "queue.*")
        channel.queue_declare("unheard", durable=True)
        channel.queue_bind("kept", EXCHANGE, "queue.#")
        channel.queue_declare("heard", durable=True)
        listener.event("queue.created", name="heard")
        assert not [key for key, properties in listener.told if properties.headers.get("name") == "unheard"]


TRACE = "amq.rabbitmq.trace"
PROPERTIES = {
    "content_type": "text/plain", "headers": {"h": 1, "s": "x"}, "delivery_mode": 2, "correlation_id": "c", "priority": 3,
    "expiration": "60000", "message_id": "m", "timestamp": 5, "type": "t", "user_id": "guest", "app_id": "a",
    "reply_to": "r",
}
TRACED = {"exchange_name", "routing_keys", "properties", "node", "vhost", "connection", "channel", "user"}


def test_the_firehose_copies_what_clients_publish_and_get(own_broker, tmp_path):
    """Transcribed from RabbitMQ 4.0.5."""
    config = tmp_path / "inver.toml"
    config.write_text(CONFIG)
    broker = own_broker(arguments=["--config", str(config)])
    api = Management(broker)
    with amqp(broker, password="test12") as channel, amqp(broker, password="test12") as listening:
        listener = listening.queue_declare("", exclusive=True).method.queue
        listening.queue_bind(listener, TRACE, "#")
        channel.exchange_declare("tx", "topic", durable=True)
        for queue in "q1", "q2":
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "tx", "a.#")

        def traces(count):
            got = []

            def all_there():
                method, properties, body = listening.basic_get(listener, auto_ack=True)
                if method:
                    assert TRACED <= set(properties.headers) and properties.headers["vhost"] == "/"
                    got.append((method.routing_key, properties.headers, body))
                return len(got) >= count

            wait_until(all_there, what=f"{count} traces")
            assert listening.basic_get(listener, auto_ack=True)[0] is None
            return got

        channel.basic_publish("tx", "a.b", b"before")
        channel.queue_declare("q1", passive=True)  # What was sent before it was handled.
        assert api.get("/vhosts/%2F")["tracing"] is False
        assert api.status("PUT", "/vhosts/%2F", {"tracing": True}) == 204
        assert api.get("/vhosts/%2F")["tracing"] is True
        for queue in "q1", "q2":
            channel.queue_purge(queue)
        channel.basic_publish("tx", "a.b", b"one", pika.BasicProperties(**PROPERTIES))
        [(key, headers, body)] = traces(1)
        assert (key, body, headers["exchange_name"], headers["routing_keys"]) == ("publish.tx", b"one", "tx", ["a.b"])
        assert headers["properties"] == PROPERTIES and sorted(headers["routed_queues"]) == ["q1", "q2"]
        assert (headers["user"], headers["channel"]) == ("guest", 1) and " -> 127.0.0.1:" in headers["connection"]
        channel.basic_publish("tx", "a.b", b"cc", pika.BasicProperties(headers={"CC": ["a.z"]}))
        [(_, headers, _)] = traces(1)
        assert (headers["routing_keys"], headers["properties"]) == (["a.b", "a.z"], {"headers": {"CC": ["a.z"]}})
        channel.basic_publish("tx", "zzz", b"lost")
        channel.basic_publish("", "q1", b"default")
        [(_, lost, _), (key, headers, _)] = traces(2)
        assert lost["routed_queues"] == []
        assert (key, headers["exchange_name"], headers["routed_queues"]) == ("publish.", "", ["q1"])
        # Delivered by basic.get, again, and by a consumer.
        channel.basic_nack(channel.basic_get("q1")[0].delivery_tag, requeue=True)
        assert channel.basic_get("q1", auto_ack=True)[2] == b"one"
        first, second = traces(2)
        for (key, headers, body), redelivered in (first, 0), (second, 1):
            assert (key, body, headers["redelivered"]) == ("deliver.q1", b"one", redelivered)
            assert headers["properties"] == PROPERTIES and headers["routing_keys"] == ["a.b"]
        channel.basic_consume("q2", lambda *_: None, consumer_tag="t")
        channel.connection.process_data_events(1)
        assert [(key, body) for key, _, body in traces(2)] == [("deliver.q2", b"one"), ("deliver.q2", b"cc")]
        channel.basic_cancel("t")
        message = {"properties": {}, "routing_key": "a.h", "payload": "http", "payload_encoding": "string"}
        assert api.get("/vhosts/%2F")["tracing"] and api.status("POST", "/exchanges/%2F/tx/publish", message) == 200
        [(key, _, body)] = traces(1)
        assert (key, body) == ("publish.tx", b"http")
        assert api.status("PUT", "/vhosts/%2F", {"tracing": False}) == 204
        channel.basic_publish("tx", "a.b", b"after")
        assert channel.basic_get("q1", auto_ack=True)[0]
        assert listening.basic_get(listener, auto_ack=True)[0] is None, "it is off"
