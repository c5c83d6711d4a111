"""Puts tasks into a durable RabbitMQ work queue, with publisher confirms."""

import argparse

import pika

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--url", default="amqp://guest:guest@127.0.0.1:5672/")
arguments.add_argument("--queue", default="tasks")
arguments.add_argument("--count", type=int, default=10)
options = arguments.parse_args()

connection = pika.BlockingConnection(pika.URLParameters(options.url))
channel = connection.channel()
channel.queue_declare(options.queue, durable=True)
# A publish returns when the broker has the task on its disk.
channel.confirm_delivery()
for number in range(options.count):
    task = f"task {number}"
    channel.basic_publish("", options.queue, task, pika.BasicProperties(delivery_mode=2), mandatory=True)
    print(f"sent     {task}", flush=True)
connection.close()
