"""Topic permissions cell by cell, with the answers that RabbitMQ 4.0.5 gives to the same calls over AMQP and MQTT.

A cell is a user (an ordinary one, an administrator), what its topic permissions say, and an operation. Both users have
all of RabbitMQ's other permissions. In RabbitMQ an administrator needs them; here it does not.

Measured on RabbitMQ by the same calls: administrators are narrowed as everybody, on `amq.topic` over MQTT too; consuming
needs no topic permission. One answer differs: that to binding another exchange to `amq.topic`.
"""

import re
import urllib.parse

import paho.mqtt.client as paho
import pika
import pytest

from clients import MqttUser, amqp_refusal, http_api
from harness import Broker
from permission_table import user

HUB, OWN = "amq.topic", "own.topic"
USERS = {"plain": [], "chief": ["administrator"]}
KEY = "ok.a"
# The topic permissions of a user: the exchange, what may be written, what may be read.
PERMISSIONS = {
    "none": lambda exchange: [],
    "matching": lambda exchange: [(exchange, r"^ok\.", r"^ok\.")],
    "not matching": lambda exchange: [(exchange, r"^no\.", r"^no\.")],
    "empty": lambda exchange: [(exchange, "", "")],
    "write only": lambda exchange: [(exchange, r"^ok\.", r"^no\.")],
    "read only": lambda exchange: [(exchange, r"^no\.", r"^ok\.")],
    "of the user": lambda exchange: [(exchange, r"^{username}\.", r"^{username}\.")],
    "of another exchange": lambda exchange: [({HUB: OWN, OWN: HUB}[exchange], r"^no\.", r"^no\.")],
    "unanchored": lambda exchange: [(exchange, r"k\.a", r"k\.a")],
}
EXCHANGES = [HUB, OWN]


def amqp_cells(port, who):
    """What is refused to the user: each AMQP operation on KEY of each topic exchange."""
    login = pika.PlainCredentials(who, who)
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=login, heartbeat=0)) as connection:

        def does(act):
            return amqp_refusal(connection, act)

        def publish(channel, exchange, key, **properties):
            channel.confirm_delivery()
            channel.basic_publish(exchange, key, b"", pika.BasicProperties(**properties))

        def consume(channel):
            channel.basic_get("own.q", auto_ack=True)
            channel.basic_cancel(channel.basic_consume("own.q", lambda *_: None))

        answers = {"consume": does(consume)}
        for exchange in EXCHANGES:
            answers |= {
                ("publish", exchange): does(lambda ch: publish(ch, exchange, KEY)),
                ("publish CC", exchange): does(lambda ch: publish(ch, exchange, KEY, headers={"CC": ["no.b"]})),
                ("publish own", exchange): does(lambda ch: publish(ch, exchange, f"{who}.a")),
                ("bind", exchange): does(lambda ch: ch.queue_bind("own.q", exchange, KEY)),
                ("bind ok.#", exchange): does(lambda ch: ch.queue_bind("own.q", exchange, "ok.#")),
                ("bind #", exchange): does(lambda ch: ch.queue_bind("own.q", exchange, "#")),
                ("unbind", exchange): does(lambda ch: ch.queue_unbind("own.q", exchange, KEY)),
                ("bind exchange", exchange): does(lambda ch: ch.exchange_bind("own.fanout", exchange, KEY)),
                ("bind fanout", exchange): does(lambda ch: ch.exchange_bind(exchange, "own.fanout", KEY)),
            }
        return answers


def mqtt_cells(broker, who):
    """Whether the user may publish and subscribe, by MQTT 5."""
    codes = {}
    for name, act in [
        ("publish", lambda client: client.publish("ok/a", b"x")),
        ("publish no", lambda client: client.publish("no/a", b"x")),
        ("subscribe", lambda client: client.subscribe("ok/a")),
        ("subscribe ok/#", lambda client: client.subscribe("ok/#")),
        ("subscribe #", lambda client: client.subscribe("#")),
        ("unsubscribe", lambda client: client.unsubscribe("ok/a")),
    ]:
        client = MqttUser(broker, who, paho.MQTTv5, f"cells-{who}")
        assert client.connect() == 0
        codes[name] = act(client)
        client.close()
    return {name: code < 0x80 for name, code in codes.items()}


def allowed(permissions, who, exchange, right, key):
    """Whether the topic permissions of a user let it write to, or read, a key of an exchange."""
    of_exchange = [{"write": write, "read": read}[right] for of, write, read in permissions if of == exchange]
    expressions = [text.replace("{username}", who) for text in of_exchange]
    return all(text and re.search(text, key) for text in expressions)


def expected(permissions, who):
    """The cells in which RabbitMQ refuses, with the right and the key that are lacking; `None` where it does not."""
    cells = {"consume": []}
    for exchange in EXCHANGES:
        cells |= {
            ("publish", exchange): [("write", KEY)],
            ("publish CC", exchange): [("write", KEY), ("write", "no.b")],
            ("publish own", exchange): [("write", f"{who}.a")],
            ("bind", exchange): [("read", KEY)],
            ("bind ok.#", exchange): [("read", "ok.#")],
            ("bind #", exchange): [("read", "#")],
            ("unbind", exchange): [("read", KEY)],
            ("bind exchange", exchange): [("read", KEY)],
            # RabbitMQ lets an exchange be bound to one whose keys the user may not all write. Here not to the hub: what
            # is published there through the other exchange would pass by the permission.
            ("bind fanout", exchange): [("write", "#")] if exchange == HUB else [],
        }

    def text(exchange, right, key):
        return 403, (f"ACCESS_REFUSED - {right} access to topic '{key}' in exchange '{exchange}' in vhost '/' refused "
                     f"for user '{who}'")

    def answer(cell, needs):
        lacking = (need for need in needs if not allowed(permissions, who, cell[1], *need))
        return next((text(cell[1], *need) for need in lacking), None)

    return {cell: answer(cell, needs) for cell, needs in cells.items()}


def expected_by_mqtt(permissions, who):
    return {name: allowed(permissions, who, HUB, right, key) for name, right, key in [
        ("publish", "write", KEY), ("publish no", "write", "no.a"), ("subscribe", "read", KEY),
        ("subscribe ok/#", "read", "ok.#"), ("subscribe #", "read", "#"),
    ]} | {"unsubscribe": True}


def declare(port, login):
    login = pika.PlainCredentials(*login)
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=login, heartbeat=0)) as connection:
        channel = connection.channel()
        channel.exchange_declare(OWN, "topic")
        channel.exchange_declare("own.fanout", "fanout")
        channel.queue_declare("own.q")


def configuration():
    rest = [user("root", ["administrator"]), *(user(who, tags) for who, tags in USERS.items())]
    return "\n".join(rest)


ROOT = ("root", "root")


def set_topic_permissions(broker, who, permissions):
    """Replaces the user's topic permissions."""
    base = {"user": who, "namespace": "/"}
    query = urllib.parse.urlencode(base)
    assert http_api(broker, "DELETE", f"/permissions/topic-expressions?{query}", login=ROOT)[0] in (200, 204, 404)
    for exchange, write, read in permissions:
        query = urllib.parse.urlencode(base | {"exchange": exchange})
        code, answer = http_api(broker, "PUT", f"/permissions/topic-expressions?{query}", {"write": write, "read": read}, ROOT)
        assert code in (200, 201, 204), answer


def prepare(broker):
    for who in USERS:
        query = urllib.parse.urlencode({"user": who, "namespace": "/"})
        every = {"configure": ".*", "write": ".*", "read": ".*"}
        code, answer = http_api(broker, "PUT", f"/permissions/expressions?{query}", every, ROOT)
        assert code in (200, 201, 204), answer
    declare(broker.amqp_port, ROOT)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("topic-permissions")
    path = folder / "inver.toml"
    path.write_text(configuration())
    broker = Broker(folder, arguments=["--config", path]).start()
    prepare(broker)
    yield broker
    try:
        broker.check()
    finally:
        broker.end()


@pytest.mark.parametrize("name", PERMISSIONS)
@pytest.mark.parametrize("who", USERS)
def test_topic_permissions_narrow_as_those_of_rabbitmq(guarded, who, name):
    for exchange in EXCHANGES:
        permissions = PERMISSIONS[name](exchange)
        set_topic_permissions(guarded, who, permissions)
        assert amqp_cells(guarded.amqp_port, who) == expected(permissions, who), exchange
        assert mqtt_cells(guarded, who) == expected_by_mqtt(permissions, who), exchange
    set_topic_permissions(guarded, who, [])
