"""Python clients of the three protocols: the calls that several tests use."""

import base64
import contextlib
import json
import queue
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import confluent_kafka
import paho.mqtt.client as paho
import pika
import pika.exceptions
from confluent_kafka.admin import AdminClient, NewTopic
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from harness import CLIENTS, ROOT, run, wait_until

WAIT_SECONDS = 15


# ---- the HTTP API


def http_api(broker, method, path, body=None, login=None, headers=None):
    """Status and JSON of a request to the broker's API; `login` is a user and a password."""
    headers = dict(headers or {})
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(
        f"http://127.0.0.1:{broker.http_port}/api/v1{path}", method=method, headers=headers,
        data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as answer:
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.code, json.loads(answer.read())


# ---- MQTT by Eclipse Paho


class Mqtt:
    """A connected Paho client that puts received messages into a queue."""

    def __init__(self, broker, client_id=None, version=5, clean=True, expiry=None, will=None, manual_ack=False,
                 user=None, transport="tcp", port=None, host="127.0.0.1", keepalive=60, properties=None, authority=None):
        self.version = version
        self.messages = queue.Queue()
        self.acked = set()
        self.disconnects = queue.Queue()
        protocol = {3: paho.MQTTv31, 4: paho.MQTTv311, 5: paho.MQTTv5}[version]
        extra = {} if version == 5 else {"clean_session": clean}
        self.client_id = client_id or f"c-{uuid.uuid4().hex[:12]}"
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=protocol,
                                  transport=transport, manual_ack=manual_ack, reconnect_on_failure=False, **extra)
        if user:
            self.client.username_pw_set(*user)
        if authority:
            self.client.tls_set(ca_certs=authority)
        if will:
            self.client.will_set(**will)
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        self.client.on_connect = self._connected
        self.client.on_disconnect = lambda _c, _d, _flags, reason, _p: self.disconnects.put(reason)
        self.client.on_subscribe = self._subscribed
        self.client.on_unsubscribe = lambda _c, _d, mid, *_: self._answers.put((mid, None))
        self._answers = queue.Queue()
        self._connack = queue.Queue()
        port = port or (broker.ws_port if transport == "websockets" else broker.mqtt_port)
        start = {}
        if version == 5:
            start["clean_start"] = clean
            properties = properties or Properties(PacketTypes.CONNECT)
            if expiry is not None:
                properties.SessionExpiryInterval = expiry
            start["properties"] = properties
        self.client.connect(host, port, keepalive=keepalive, **start)
        self.client.loop_start()
        flags, self.reason, self.connack = self._connack.get(timeout=WAIT_SECONDS)
        self.session_present = flags.session_present
        if self.reason.is_failure:
            self.client.loop_stop()

    def _connected(self, _client, _data, flags, reason, properties):
        self._connack.put((flags, reason, properties))

    def _subscribed(self, _client, _data, mid, reasons, properties):
        self._answers.put((mid, reasons))

    def subscribe(self, topic, qos=1, **options):
        """Subscribes and returns the reason codes of the SUBACK."""
        if "options" not in options:
            options["qos"] = qos
        result, mid = self.client.subscribe(topic, **options)
        assert result == paho.MQTT_ERR_SUCCESS
        return self._answer(mid)

    def unsubscribe(self, topic):
        _, mid = self.client.unsubscribe(topic)
        return self._answer(mid)

    def _answer(self, mid):
        answered, reasons = self._answers.get(timeout=WAIT_SECONDS)
        assert answered == mid
        return reasons

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        """Publishes and waits for the acknowledgement."""
        info = self.client.publish(topic, payload, qos, retain, properties)
        info.wait_for_publish(WAIT_SECONDS)
        assert info.is_published(), f"no answer to a publish of QoS {qos}"
        return info

    def get(self, seconds=WAIT_SECONDS):
        return self.messages.get(timeout=seconds)

    def take(self, count, seconds=WAIT_SECONDS):
        """The next `count` messages' payloads, in order."""
        deadline = time.monotonic() + seconds
        return [self.get(max(0.01, deadline - time.monotonic())).payload for _ in range(count)]

    def nothing(self, probe):
        """True if no message arrived during a round trip made by `probe()`."""
        probe()
        return self.messages.empty()

    def drop(self):
        """Closes the TCP connection without a DISCONNECT."""
        self.client.loop_stop()
        sock = self.client.socket()
        if sock:
            sock.close()

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def mqtt(broker, *arguments, **options):
    client = Mqtt(broker, *arguments, **options)
    try:
        yield client
    finally:
        client.close()


def publish_properties(**values):
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


class MqttUser:
    """A Paho client that keeps the codes of its acknowledgements."""

    def __init__(self, broker, who, version, client_id, **options):
        self.version, self.codes, self.messages, self.answered = version, {}, [], threading.Condition()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version,
                                  reconnect_on_failure=False, **options)
        self.client.username_pw_set(who, who)
        self.client.on_connect = lambda _c, _u, _f, code, _p: self.note("connect", code.value)
        self.client.on_subscribe = lambda _c, _u, mid, codes, _p: self.note(mid, codes[0].value)
        self.client.on_unsubscribe = lambda _c, _u, mid, _codes, _p: self.note(mid, 0)
        self.client.on_publish = lambda _c, _u, mid, code, _p: self.note(mid, code.value)
        self.client.on_message = lambda _c, _u, message: self.messages.append((message.topic, message.payload, message.retain))
        self.address = ("127.0.0.1", broker.mqtt_port)

    def connect(self, **more):
        self.client.connect(*self.address, **more)
        self.client.loop_start()
        return self.code("connect")

    def note(self, what, code):
        with self.answered:
            self.codes[what] = code
            self.answered.notify_all()

    def code(self, what):
        with self.answered:
            assert self.answered.wait_for(lambda: what in self.codes, WAIT_SECONDS), f"no answer to {what}"
            return self.codes.pop(what)

    def subscribe(self, topic):
        return self.code(self.client.subscribe(topic, qos=1)[1])

    def unsubscribe(self, topic):
        return self.code(self.client.unsubscribe(topic)[1])

    def publish(self, topic, payload, qos=1, retain=False):
        return self.code(self.client.publish(topic, payload, qos, retain).mid)

    def drop(self):
        """Without a DISCONNECT."""
        self.client.socket().shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


# ---- AMQP by pika


@contextlib.contextmanager
def amqp(broker, confirm=True, user="guest", password="guest", name=None):
    """A channel of a fresh connection."""
    options = {"client_properties": {"connection_name": name}} if name else {}
    connection = amqp_connection(broker, user, password, **options)
    try:
        channel = connection.channel()
        if confirm:
            channel.confirm_delivery()
        yield channel
    finally:
        if connection.is_open:
            connection.close()


def amqp_connection(broker, user="guest", password="guest", port=None, **options):
    parameters = pika.ConnectionParameters(
        "127.0.0.1", port or broker.amqp_port, credentials=pika.PlainCredentials(user, password),
        heartbeat=options.pop("heartbeat", 0),
        blocked_connection_timeout=options.pop("blocked_connection_timeout", WAIT_SECONDS),
        connection_attempts=1, socket_timeout=WAIT_SECONDS, **options,
    )
    return pika.BlockingConnection(parameters)


def amqp_take(channel, queue_name, count, seconds=WAIT_SECONDS, ack=True, arguments=None):
    """The next `count` messages of a queue as (method, properties, body)."""
    taken = []
    for method, properties, body in channel.consume(queue_name, inactivity_timeout=seconds, arguments=arguments):
        assert method is not None, f"{len(taken)} of {count} messages arrived from {queue_name}"
        taken.append((method, properties, body))
        if ack:
            channel.basic_ack(method.delivery_tag)
        if len(taken) == count:
            break
    channel.cancel()
    return taken


def amqp_get(channel, queue_name, seconds=WAIT_SECONDS):
    """Waits for one message with basic.get."""
    def got():
        method, properties, body = channel.basic_get(queue_name, auto_ack=True)
        return (method, properties, body) if method else None
    return wait_until(got, seconds, f"a message in {queue_name}")


def amqp_refusal(connection, act):
    """What closes the channel of an operation, if anything."""
    channel = connection.channel()
    try:
        act(channel)
        channel.close()
    except pika.exceptions.UnroutableError:
        channel.close()
    except pika.exceptions.ChannelClosedByBroker as closed:
        return closed.reply_code, closed.reply_text
    return None


# ---- Kafka by librdkafka


# The library logs broken connections to standard error; tests rely on the results of their calls.
QUIET = {"log_level": 0, "error_cb": lambda _error: None}


def kafka_login(broker, user, password, mechanism="PLAIN", **config):
    """Settings of a librdkafka client that logs in."""
    return {"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password, **config}


def kafka_admin(broker):
    return AdminClient({"bootstrap.servers": broker.kafka, **QUIET})


def kafka_create(broker, topic, partitions=1, **config):
    # Kept in a variable: a collected client cancels its calls.
    admin = kafka_admin(broker)
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(WAIT_SECONDS)


def kafka_producer(broker, **config):
    return confluent_kafka.Producer({
        "bootstrap.servers": broker.kafka, **QUIET, "acks": "all", "linger.ms": 0,
        "message.timeout.ms": WAIT_SECONDS * 1000, **{k.replace("_", "."): v for k, v in config.items()},
    })


def kafka_send(broker, topic, value, key=None, headers=None, producer=None, **options):
    """Produces one record and returns (partition, offset) once it is acknowledged."""
    answers = []
    producer = producer or kafka_producer(broker)
    producer.produce(topic, value=value, key=key, headers=headers, on_delivery=lambda e, m: answers.append((e, m)),
                     **options)
    producer.flush(WAIT_SECONDS)
    assert answers, f"no answer to a record for {topic}"
    error, message = answers[0]
    assert error is None, error
    return message.partition(), message.offset()


@contextlib.contextmanager
def kafka_consumer(broker, *topics, group=None, **config):
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": broker.kafka, **QUIET, "group.id": group or f"g-{uuid.uuid4().hex[:8]}",
        "auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 100,
        "topic.metadata.refresh.interval.ms": 500, "session.timeout.ms": 6000,
        **{k.replace("_", "."): v for k, v in config.items()},
    })
    if topics:
        consumer.subscribe(list(topics))
    try:
        yield consumer
    finally:
        consumer.close()


def kafka_take(consumer, count, seconds=WAIT_SECONDS):
    """The next `count` records of a consumer."""
    taken = []
    deadline = time.monotonic() + seconds
    while len(taken) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(taken)} of {count} records arrived"
        for message in consumer.consume(count - len(taken), timeout=min(left, 1.0)):
            if message.error() is None:
                taken.append(message)
            elif message.error().code() not in (
                    confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART, confluent_kafka.KafkaError._PARTITION_EOF):
                raise AssertionError(message.error())
    return taken


def kafka_read(broker, topic, count, seconds=WAIT_SECONDS):
    """The first `count` records of a topic, read by a new group."""
    with kafka_consumer(broker, topic) as consumer:
        return kafka_take(consumer, count, seconds)


def kafka_read_all(broker, topic):
    """Every record currently in a topic, by partition and offset."""
    with kafka_consumer(broker, enable_partition_eof=True) as consumer:
        partitions = consumer.list_topics(topic, WAIT_SECONDS).topics[topic].partitions
        wanted = {}
        for partition in partitions:
            at = confluent_kafka.TopicPartition(topic, partition)
            low, high = consumer.get_watermark_offsets(at, WAIT_SECONDS)
            if high > low:
                wanted[partition] = (low, high)
        consumer.assign([confluent_kafka.TopicPartition(topic, p, low) for p, (low, _) in wanted.items()])
        taken = []
        deadline = time.monotonic() + 60
        while wanted:
            assert time.monotonic() < deadline, f"partitions {wanted} of {topic} were not read to their end"
            for message in consumer.consume(1000, timeout=1.0):
                if message.error() is None:
                    taken.append(message)
                    if message.offset() + 1 >= wanted.get(message.partition(), (0, 0))[1]:
                        wanted.pop(message.partition(), None)
                elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    wanted.pop(message.partition(), None)
                else:
                    raise AssertionError(message.error())
        return taken


# ---- programs in other languages


def node(script, *arguments, timeout=60):
    """Runs one of the JavaScript clients and returns its standard output."""
    environment = {"NODE_PATH": str(CLIENTS / "node" / "node_modules"), "PATH": "/usr/bin:/usr/local/bin:/bin",
                   "KAFKAJS_NO_PARTITIONER_WARNING": "1"}
    path = ROOT / "compat-tests" / "clients" / "node" / script
    return run(["node", path, *arguments], timeout=timeout, env=environment).stdout.decode()


def java(classpath, main, *arguments, timeout=90, stdin=None, heap="128m", check=True):
    """Runs a Java class with the jars of one folder and returns its standard output."""
    jars = CLIENTS / "java"
    paths = f"{jars}/classes:{jars}/{classpath}/*"
    done = run(["java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", paths, main, *arguments],
               timeout=timeout, stdin=stdin, check=check)
    return done.stdout.decode()


def kafka_tool(name, *arguments, timeout=90, stdin=None):
    """Runs one of Kafka's command line tools."""
    return java("console", f"org.apache.kafka.tools.{name}", *arguments, timeout=timeout, stdin=stdin)


def background(arguments, **options):
    """Starts a client program beside the test; the caller stops it."""
    return subprocess.Popen([str(argument) for argument in arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)
