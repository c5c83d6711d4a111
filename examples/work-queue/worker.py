"""A worker of the queue: takes one task at a time; its unacknowledged task is redelivered if it stops."""

import argparse

import pika

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--url", default="amqp://guest:guest@127.0.0.1:5672/")
arguments.add_argument("--queue", default="tasks")
arguments.add_argument("--name", default="worker")
arguments.add_argument("--idle", type=float, default=2, help="seconds without a task after which it ends")
options = arguments.parse_args()

connection = pika.BlockingConnection(pika.URLParameters(options.url))
channel = connection.channel()
channel.queue_declare(options.queue, durable=True)
channel.basic_qos(prefetch_count=1)
for method, _properties, body in channel.consume(options.queue, inactivity_timeout=options.idle):
    if method is None:
        break
    print(f"{options.name}  {body.decode()}", flush=True)
    channel.basic_ack(method.delivery_tag)
channel.cancel()
connection.close()
