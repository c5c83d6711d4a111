"""A damaged batch in the log: consumers of every protocol go on behind it, and an operator is told."""

import pika

from clients import Mqtt, amqp, amqp_get, amqp_take
from harness import wait_until

MESSAGES = 1500
FOR_EVER = 0xFFFFFFFF


def body(kind, n):
    return f"{kind}{n:05}".encode().ljust(700, b"x")


def flip(folder, wanted):
    """Damages the stored message; its segment is sealed."""
    for segment in sorted(folder.glob("*.seg")):
        data = segment.read_bytes()
        at = data.find(wanted)
        if at >= 0:
            with open(segment, "r+b") as file:
                file.seek(at + 20)
                file.write(b"\1")
            return
    raise AssertionError(f"{wanted[:8]} is not in the log")


def test_consumers_step_over_a_damaged_batch_and_are_told(own_broker):
    broker = own_broker(environment={"INVER_LOG_SEGMENT_BYTES_MAX": "1 MiB", "INVER_LOG_CHECKPOINT_INTERVAL_MS": "500"})
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    session.subscribe("s/#", 1)
    session.close()
    with amqp(broker) as channel:
        channel.queue_declare("dead", durable=True)
        channel.queue_declare("q", durable=True, arguments={"x-dead-letter-exchange": "",
                                                            "x-dead-letter-routing-key": "dead"})
        for n in range(MESSAGES):
            channel.basic_publish("", "q", body("Q", n), pika.BasicProperties(delivery_mode=2))
            channel.basic_publish("amq.topic", "s.x", body("S", n), pika.BasicProperties(delivery_mode=2))
    broker.kill()
    flip(broker.data, body("Q", 200)[:40])
    flip(broker.data, body("S", 300)[:40])
    broker.start()
    assert broker.metric("inver_messages_damaged_total") in (None, 0)
    with amqp(broker) as channel:
        got = [message for _, _, message in amqp_take(channel, "q", MESSAGES - 1, seconds=30)]
        assert got == [body("Q", n) for n in range(MESSAGES) if n != 200]
        _, properties, letter = amqp_get(channel, "dead")
        assert (properties.headers["x-first-death-reason"], letter) == ("damaged", b"")
        # It goes on as if nothing had been.
        channel.basic_publish("", "q", b"new")
        assert amqp_get(channel, "q")[2] == b"new"
    session = Mqtt(broker, client_id="keeper", clean=False, expiry=FOR_EVER)
    assert session.take(MESSAGES - 1, 30) == [body("S", n) for n in range(MESSAGES) if n != 300]
    session.close()
    assert broker.metric("inver_messages_damaged_total") == 2
    wait_until(lambda: "stepped over messages" in broker.log(), what="a line in the log")
    status, alarms = broker.get("/health/alarms")
    assert status == 503 and "messages_damaged: 2 messages" in alarms
