"""A damaged checkpoint is found, and the broker mends it: no crash loop, no panic, nothing lost."""

import random
import shutil

from clients import amqp, amqp_get, kafka_read, kafka_send, mqtt
from harness import binary, run

TRIALS = 12
DAMAGE_BYTES = 512


def damage(path, generator):
    content = bytearray(path.read_bytes())
    at = generator.randrange(len(content) - DAMAGE_BYTES)
    content[at:at + DAMAGE_BYTES] = generator.randbytes(DAMAGE_BYTES)
    path.write_bytes(content)


def verify(data):
    done = run([binary(), "log", "verify", data], check=False)
    assert b"panicked" not in done.stderr, done.stderr
    return done.returncode, done.stdout.decode()


def filled(broker):
    with amqp(broker) as channel:
        channel.confirm_delivery()
        for i in range(50):
            channel.queue_declare(f"queue-{i}", durable=True)
            channel.basic_publish("", f"queue-{i}", b"%d" % i)
    kafka_send(broker, "topic", b"record")
    with mqtt(broker) as client:
        client.publish("retained", b"kept", qos=1, retain=True)


def has_everything(broker, taken):
    with amqp(broker) as channel:
        assert amqp_get(channel, f"queue-{taken}")[2] == b"%d" % taken
    assert kafka_read(broker, "topic", 1)[0].value() == b"record"
    broker.check()


def test_the_broker_mends_a_damaged_checkpoint(own_broker):
    broker = own_broker()
    filled(broker)
    assert broker.stop() == 0
    assert verify(broker.data)[0] == 0
    generator = random.Random(7)
    found = 0
    for trial in range(TRIALS):
        name = ["checkpoint.redb", "checkpoint-copy.redb"][trial % 2]
        damage(broker.data / name, generator)
        code, text = verify(broker.data)
        if code != 0:
            found += 1
            assert f"{name} at byte 0" in text and "is sound: the next start uses it" in text, text
        broker.start()
        has_everything(broker, trial)
        assert broker.stop() == 0, broker.log()[-3000:]
        assert verify(broker.data)[0] == 0
    assert found > 0


def test_a_checkpoint_that_is_lost_is_rebuilt_from_the_log(own_broker):
    broker = own_broker()
    filled(broker)
    assert broker.stop() == 0
    for name in ("checkpoint.redb", "checkpoint-copy.redb"):
        (broker.data / name).write_bytes(b"\7" * 20_000)
    code, text = verify(broker.data)
    assert code != 0 and "rebuilds it from the log" in text, text
    broker.start()
    assert "rebuilding it from the log" in broker.log()
    has_everything(broker, 0)
    broker.restart()
    has_everything(broker, 1)


def test_a_checkpoint_that_only_a_backup_replaces(own_broker):
    broker = own_broker()
    filled(broker)
    assert broker.stop() == 0
    for name in ("checkpoint.redb", "checkpoint-copy.redb"):
        (broker.data / name).write_bytes(b"\7" * 20_000)
    (broker.data / "0000000000000000.seg").rename(broker.data / "0000000000000400.seg")
    shutil.copytree(broker.data, broker.folder / "before")
    for _ in range(2):
        broker.spawn()
        assert broker.process.wait(20) == 1
        broker.process = None
        assert "restore the folder from a backup (`inver restore`)" in broker.log()
    # Segment files that were made ahead and space that is kept hold nothing, and are removed.
    kept = (path for path in (broker.folder / "before").iterdir() if path.suffix != ".tmp")
    for path in kept:
        assert (broker.data / path.name).read_bytes() == path.read_bytes(), path.name
