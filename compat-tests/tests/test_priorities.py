"""Queues with priorities and dead letters that stay, as their clients see them: pika and Celery."""

import subprocess
import sys
import textwrap
import uuid

import pika
import pytest
from confluent_kafka import Consumer

from clients import amqp, amqp_get
from harness import wait_until

WAIT_SECONDS = 60


def name(start):
    return f"{start}-{uuid.uuid4().hex[:8]}"


def publish(channel, queue, *priorities):
    for number, priority in enumerate(priorities):
        properties = pika.BasicProperties(priority=priority, delivery_mode=2)
        channel.basic_publish("", queue, b"%d" % number, properties)


def bodies(channel, queue, count):
    return [int(amqp_get(channel, queue)[2]) for _ in range(count)]


@pytest.mark.parametrize("durable", [True, False])
def test_messages_come_by_priority_and_a_returned_one_keeps_its_place(broker, durable):
    with amqp(broker) as channel:
        queue = name("priorities")
        channel.queue_declare(queue, durable=durable, exclusive=not durable, arguments={"x-max-priority": 5})
        # One above the maximum has the maximum, one without a priority has 0.
        publish(channel, queue, 1, None, 9, 5, 0, 3)
        method, _, body = channel.basic_get(queue)
        assert body == b"2"
        channel.basic_nack(method.delivery_tag, requeue=True)
        assert bodies(channel, queue, 6) == [2, 3, 5, 0, 1, 4]


@pytest.mark.parametrize("durable", [True, False])
def test_a_full_queue_drops_its_highest_priority_first(broker, durable):
    with amqp(broker) as channel:
        queue = name("priorities")
        arguments = {"x-max-priority": 5, "x-max-length": 2}
        channel.queue_declare(queue, durable=durable, exclusive=not durable, arguments=arguments)
        publish(channel, queue, 5, 1, 0, 4)
        wait_until(lambda: channel.queue_declare(queue, passive=True).method.message_count == 2)
        assert bodies(channel, queue, 2) == [1, 2]


def test_priorities_survive_a_kill_and_the_log_keeps_the_order_of_arrival(own_broker):
    private_broker = own_broker()
    queue = name("priorities")
    with amqp(private_broker) as channel:
        channel.queue_declare(queue, durable=True, arguments={"x-max-priority": 3})
        publish(channel, queue, *(number % 4 for number in range(400)))
    private_broker.kill()
    private_broker.start()
    with amqp(private_broker) as channel:
        assert bodies(channel, queue, 400) == sorted(range(400), key=lambda n: (-(n % 4), n))
        for number, priority in enumerate((0, 3, 1)):
            channel.basic_publish("", queue, b"new-%d" % number, pika.BasicProperties(priority=priority, delivery_mode=2))
        kafka = Consumer({"bootstrap.servers": private_broker.kafka, "group.id": name("g"),
                          "auto.offset.reset": "earliest"})
        kafka.subscribe([queue])
        seen = []
        arrived = lambda: [body for body in seen if body.startswith(b"new")]
        wait_until(lambda: (message := kafka.poll(0.5)) and seen.append(message.value()) or len(arrived()) == 3, WAIT_SECONDS)
        kafka.close()
        assert arrived() == [b"new-0", b"new-1", b"new-2"]


TASKS = """
    import pathlib
    from celery import Celery
    from kombu import Queue

    app = Celery("tasks", broker="{url}")
    app.conf.task_queues = [Queue("{queue}", queue_arguments={{"x-max-priority": 10}})]
    app.conf.task_default_queue = "{queue}"
    app.conf.worker_prefetch_multiplier = 1
    app.conf.task_acks_late = True
    app.conf.broker_connection_retry_on_startup = True

    @app.task
    def note(priority):
        with pathlib.Path("{path}").open("a") as file:
            file.write(f"{{priority}}\\n")

    if __name__ == "__main__":
        for priority in range(10):
            note.apply_async((priority,), priority=priority)
"""


def test_celery_runs_tasks_by_priority(broker, tmp_path):
    queue, path = name("celery"), tmp_path / "ran"
    (tmp_path / "tasks.py").write_text(textwrap.dedent(TASKS).format(url=broker.amqp, queue=queue, path=path))
    subprocess.run([sys.executable, "tasks.py"], cwd=tmp_path, check=True, timeout=WAIT_SECONDS)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "solo", "-l", "warning", "--without-gossip"]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until(lambda: path.exists() and len(path.read_text().split()) == 10, WAIT_SECONDS, "ten tasks")
    finally:
        worker.terminate()
        worker.wait(WAIT_SECONDS)
    assert path.read_text().split() == [str(priority) for priority in range(9, -1, -1)]


# ---- dead letters that stay


def test_a_dead_letter_stays_in_its_quorum_queue_until_it_has_a_receiver(broker):
    with amqp(broker) as channel:
        exchange, queue, dead = name("dlx"), name("quorum"), name("dead")
        channel.queue_declare(queue, durable=True, arguments={
            "x-queue-type": "quorum", "x-dead-letter-exchange": exchange, "x-overflow": "reject-publish",
            "x-dead-letter-strategy": "at-least-once"})
        channel.basic_publish("", queue, b"letter")
        method = wait_until(lambda: channel.basic_get(queue)[0])
        channel.basic_reject(method.delivery_tag, requeue=False)
        assert channel.basic_get(queue)[0] is None
        channel.exchange_declare(exchange, "fanout")
        channel.queue_declare(dead, durable=True)
        channel.queue_bind(dead, exchange)
        method, properties, body = wait_until(lambda: (got := channel.basic_get(dead))[0] and got, WAIT_SECONDS)
        assert body == b"letter" and properties.headers["x-first-death-reason"] == "rejected"
        channel.basic_ack(method.delivery_tag)
