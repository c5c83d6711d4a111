"""One publish, received by all three: an MQTT subscriber, a RabbitMQ queue and a Kafka topic.

The MQTT topic `alerts/door1` is the routing key `alerts.door1` of the exchange `amq.topic` and the Kafka topic
`alerts.door1`. Each of the three publishes once, and each of the three receives every message.
"""

import argparse
import queue
import time
import uuid

import paho.mqtt.client as mqtt
import pika
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--host", default="127.0.0.1")
arguments.add_argument("--mqtt", type=int, default=1883)
arguments.add_argument("--amqp", type=int, default=5672)
arguments.add_argument("--kafka", type=int, default=9092)
arguments.add_argument("--seconds", type=float, default=30)
options = arguments.parse_args()
door = f"door-{uuid.uuid4().hex[:6]}"
slashed, dotted = f"alerts/{door}", f"alerts.{door}"
bootstrap = {"bootstrap.servers": f"{options.host}:{options.kafka}"}

# The Kafka topic, created before the first publish so that it receives everything.
admin = AdminClient(bootstrap)
admin.create_topics([NewTopic(dotted, 1, 1)])[dotted].result(10)
consumer = Consumer({**bootstrap, "group.id": door, "auto.offset.reset": "earliest"})
consumer.subscribe([dotted])

# The MQTT subscriber.
received = queue.Queue()
subscribed = queue.Queue()
device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
device.on_message = lambda _client, _data, message: received.put(message.payload.decode())
device.on_subscribe = lambda *_: subscribed.put(True)
device.connect(options.host, options.mqtt)
device.loop_start()
device.subscribe(slashed, qos=1)
subscribed.get(timeout=10)

# The RabbitMQ queue, bound to the exchange where the protocols meet.
connection = pika.BlockingConnection(pika.ConnectionParameters(options.host, options.amqp))
channel = connection.channel()
channel.confirm_delivery()
own = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(own, "amq.topic", dotted)

# Each publishes once.
device.publish(slashed, "by MQTT", qos=1).wait_for_publish(10)
channel.basic_publish("amq.topic", dotted, "by RabbitMQ")
producer = Producer({**bootstrap, "acks": "all"})
producer.produce(dotted, "by Kafka")
producer.flush(10)

# Each receives all three.
wanted = {"by MQTT", "by RabbitMQ", "by Kafka"}
deadline = time.monotonic() + options.seconds
by_mqtt = {received.get(timeout=options.seconds) for _ in wanted}
by_amqp, by_kafka = set(), set()
while (by_amqp < wanted or by_kafka < wanted) and time.monotonic() < deadline:
    method, _properties, body = channel.basic_get(own, auto_ack=True)
    if method:
        by_amqp.add(body.decode())
    record = consumer.poll(0.1)
    if record is not None and not record.error():
        by_kafka.add(record.value().decode())
for name, got in (("MQTT", by_mqtt), ("RabbitMQ", by_amqp), ("Kafka", by_kafka)):
    print(f"received by {name:9} {sorted(got)}", flush=True)
assert by_mqtt == by_amqp == by_kafka == wanted
consumer.close()
connection.close()
device.disconnect()
device.loop_stop()
