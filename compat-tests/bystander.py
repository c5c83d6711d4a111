"""What an ordinary client waits for, while others work: `python bystander.py AMQP_PORT MQTT_PORT KAFKA_PORT`.

One thread each: an AMQP publish with confirm and a get, an MQTT publish at QoS 1, a Kafka produce, every 10 ms; and a new MQTT
connection every 200 ms. Writes a line for each: its kind, when it began (monotonic clock, seconds), and for how long it took.
One that is due while another of its kind is not answered began when it was due: a stall counts for all that it holds up.
"""

import sys
import threading
import time

from wire import CONFIRM_SELECT, Amqp, Kafka, Mqtt, basic_get, basic_publish, batch, create_topics, mqtt_publish
from wire import queue_declare, record

EVERY = {"amqp": 0.01, "mqtt": 0.01, "kafka": 0.01, "connect": 0.2}


def by_amqp(port):
    client = Amqp(port)
    client.call(CONFIRM_SELECT, 85, 11)
    client.call(queue_declare("bystander"), 50, 11)

    def act():
        client.send(basic_publish("", "bystander", bytes(100)))
        client.expect(60, 80)
        client.call(basic_get("bystander"), 60, 71)

    return act


def by_mqtt(port):
    client = Mqtt(port, "bystander")

    def act():
        client.send(mqtt_publish("bystander/m", bytes(100), 1))
        client.expect(4)

    return act


def by_kafka(port):
    client = Kafka(port)
    client.call(create_topics(["bystander-k"], 1))

    def act():
        assert client.produced("bystander-k", batch(record(0, bytes(100)), 1)) == [0]

    return act


def by_connecting(port):
    return lambda: Mqtt(port, "bystander-c").close()


def loop(kind, make, port, write):
    act, due = make(port), time.monotonic()
    while True:
        began = time.monotonic()
        # What came late because this process was late is not the broker's.
        since = began
        act()
        ended = time.monotonic()
        while True:
            write(f"{kind} {since:.6f} {ended - since:.6f}\n")
            due += EVERY[kind]
            if due > ended:
                break
            since = max(since, due)
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - EVERY[kind])


def main(amqp, mqtt, kafka):
    lock = threading.Lock()

    def write(line):
        with lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    work = [("amqp", by_amqp, amqp), ("mqtt", by_mqtt, mqtt), ("kafka", by_kafka, kafka), ("connect", by_connecting, mqtt)]
    for kind, make, port in work:
        threading.Thread(target=loop, args=(kind, make, port, write), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
