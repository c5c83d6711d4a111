"""One named subscription of one topic, consumed at once by AMQP consumers (`x-subscription`) and MQTT `$share` members.

Each mode with members of both protocols: who gets what, who takes over, who is refused and how.
"""

import contextlib
import socket
import threading

import pika
import pika.exceptions
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from clients import WAIT_SECONDS, Mqtt, amqp, amqp_connection, amqp_take, kafka_create, kafka_producer, kafka_read, mqtt
from harness import wait_until

TOPIC_FILTER_INVALID = 0x8F
IMPLEMENTATION_SPECIFIC = 0x83


def share(unique, group="g"):
    return f"$share/{group}/{unique}"


def asking(mode):
    """The user property of SUBSCRIBE that requests a mode, like `x-subscription-type` over AMQP."""
    properties = Properties(PacketTypes.SUBSCRIBE)
    properties.UserProperty = ("x-subscription-type", mode)
    return {"properties": properties}


class AmqpMember:
    """An AMQP consumer on its own thread; acknowledges its messages unless told to keep them unacked."""

    def __init__(self, broker, topic, mode=None, group="g", hold=False, prefetch=5):
        self.got, self.held, self.ended = [], hold, threading.Event()
        self.connection = amqp_connection(broker)
        self.channel = self.connection.channel()
        self.channel.basic_qos(prefetch_count=prefetch)
        arguments = {"x-subscription": group, **({"x-subscription-type": mode} if mode else {})}
        self.channel.basic_consume(topic, self.take, arguments=arguments)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def take(self, channel, method, _properties, body):
        self.got.append((method.redelivered, body))
        if not self.held:
            channel.basic_ack(method.delivery_tag)

    def run(self):
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            while not self.ended.is_set():
                self.connection.process_data_events(0.02)

    def bodies(self):
        return [body for _, body in list(self.got)]

    def die(self):
        """Closes the TCP connection without a protocol close."""
        # Shut down below the library, whose thread sees a lost peer.
        self.connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(WAIT_SECONDS)
        assert not self.connection.is_open

    def close(self):
        self.ended.set()
        self.thread.join(WAIT_SECONDS)
        if self.connection.is_open:
            self.connection.close()


class MqttMember:
    """An MQTT client in the group; acknowledges its messages unless told to keep them unacked."""

    def __init__(self, broker, topic, mode=None, group="g", hold=False, version=5, qos=1):
        self.client = Mqtt(broker, version=version, manual_ack=hold)
        self.taken = []
        options = asking(mode) if mode else {}
        self.reasons = self.client.subscribe(share(topic, group), qos, **options)

    def bodies(self):
        while not self.client.messages.empty():
            self.taken.append(self.client.messages.get().payload)
        return list(self.taken)

    def die(self):
        self.client.drop()

    def close(self):
        self.client.close()


MEMBERS = {"amqp": AmqpMember, "mqtt": MqttMember}


@contextlib.contextmanager
def members(*made):
    with contextlib.ExitStack() as stack:
        for member in made:
            stack.callback(member.close)
        yield made


def produce(broker, topic, bodies, key=lambda n: None):
    producer = kafka_producer(broker)
    for n, body in enumerate(bodies):
        producer.produce(topic, body, key=key(n))
    assert producer.flush(WAIT_SECONDS) == 0


def jobs(count, name="job"):
    return [f"{name} {n}".encode() for n in range(count)]


def all_of(*some):
    return sorted(body for member in some for body in member.bodies())


def wait_for(wanted, *some):
    def came():
        return len(all_of(*some)) >= len(wanted)
    wait_until(came, WAIT_SECONDS, f"{len(wanted)} messages")
    assert all_of(*some) == sorted(wanted)


def test_shared_splits_among_both_protocols(broker, unique):
    kafka_create(broker, unique, partitions=3)
    with members(AmqpMember(broker, unique), AmqpMember(broker, unique, "shared"), MqttMember(broker, unique),
                 MqttMember(broker, unique, "shared", version=5), MqttMember(broker, unique, version=4)) as all_five:
        wanted = jobs(600)
        for at in range(0, 600, 100):
            produce(broker, unique, wanted[at:at + 100])
        wait_for(wanted, *all_five)
        counts = [len(member.bodies()) for member in all_five]
        assert all(counts), f"every consumer received messages: {counts}"
    # The subscription is independent: other consumers of the topic receive everything.
    assert sorted(record.value() for record in kafka_read(broker, unique, 600)) == sorted(wanted)


@pytest.mark.parametrize("dies,lives", [("amqp", "mqtt"), ("mqtt", "amqp")])
def test_unacked_messages_of_a_lost_member_go_to_the_other_protocol(broker, unique, dies, lives):
    kafka_create(broker, unique)
    with members(MEMBERS[dies](broker, unique, hold=True)) as (dying,):
        wanted = jobs(4)
        produce(broker, unique, wanted)
        wait_for(wanted, dying)
        with members(MEMBERS[lives](broker, unique)) as (living,):
            dying.die()
            wait_for(wanted, living)


@pytest.mark.parametrize("first,second", [("amqp", "mqtt"), ("mqtt", "amqp"), ("amqp", "amqp"), ("mqtt", "mqtt")])
def test_failover_when_the_active_consumer_is_lost(broker, unique, first, second):
    kafka_create(broker, unique, partitions=2)
    with members(MEMBERS[first](broker, unique, "failover")) as (active,):
        with members(MEMBERS[second](broker, unique, "failover")) as (standby,):
            early = jobs(50, "early")
            produce(broker, unique, early)
            wait_for(early, active)
            assert standby.bodies() == [], "one is active at a time"
            active.die()
            late = jobs(50, "late")
            produce(broker, unique, late)
            # Messages that the lost consumer had not acknowledged may be redelivered; none is lost.
            wait_until(lambda: set(standby.bodies()) >= set(late), WAIT_SECONDS, "the standby taking over")
            assert set(standby.bodies()) <= set(late) | set(early)


def test_failover_when_the_active_consumer_leaves(broker, unique):
    kafka_create(broker, unique)
    with members(AmqpMember(broker, unique, "failover")) as (standby,):
        pass
    with members(MqttMember(broker, unique, "failover"), AmqpMember(broker, unique, "failover")) as (active, standby):
        active.client.unsubscribe(share(unique))
        wanted = jobs(10)
        produce(broker, unique, wanted)
        wait_for(wanted, standby)
        assert active.bodies() == []


def test_exclusive_refuses_the_second(broker, unique):
    kafka_create(broker, unique)
    with members(AmqpMember(broker, unique, "exclusive")) as (first,):
        # In AMQP: 403 on the channel.
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_consume(unique, lambda *_: None, arguments={"x-subscription": "g",
                                                                      "x-subscription-type": "exclusive"})
        assert refused.value.reply_code == 403 and "exclusive" in refused.value.reply_text
        # In MQTT: the filter is refused in SUBACK.
        with mqtt(broker) as second:
            assert second.subscribe(share(unique), **asking("exclusive"))[0].value == TOPIC_FILTER_INVALID
            assert second.client.is_connected()
        wanted = jobs(10)
        produce(broker, unique, wanted)
        wait_for(wanted, first)


def test_exclusive_held_by_mqtt_and_free_after_it(broker, unique):
    kafka_create(broker, unique)
    with members(MqttMember(broker, unique, "exclusive")) as (first,):
        assert not first.reasons[0].is_failure
        # Subscribing again changes nothing.
        assert not first.client.subscribe(share(unique), 1, **asking("exclusive"))[0].is_failure
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_consume(unique, lambda *_: None, arguments={"x-subscription": "g",
                                                                      "x-subscription-type": "exclusive"})
        assert refused.value.reply_code == 403
    wanted = jobs(5)
    produce(broker, unique, wanted)
    with members(AmqpMember(broker, unique, "exclusive")) as (second,):
        wait_for(wanted, second)


def test_key_shared_keeps_each_key_on_one_consumer(broker, unique):
    kafka_create(broker, unique, partitions=3)
    with members(AmqpMember(broker, unique, "key_shared"), MqttMember(broker, unique, "key_shared"),
                 AmqpMember(broker, unique, "key_shared"), MqttMember(broker, unique, "key_shared")) as all_four:
        bodies = [f"key{n % 40}:{n:04}".encode() for n in range(800)]
        for at in range(0, 800, 200):
            produce(broker, unique, bodies[at:at + 200], key=lambda n, at=at: f"key{(at + n) % 40}".encode())
        wait_for(bodies, *all_four)
        of_keys = [{body.split(b":")[0] for body in member.bodies()} for member in all_four]
        assert sum(map(len, of_keys)) == 40, "no key has two consumers"
        assert sum(1 for keys in of_keys if keys) >= 2, "keys are spread"
        for member in all_four:
            for key in {body.split(b":")[0] for body in member.bodies()}:
                mine = [body for body in member.bodies() if body.split(b":")[0] == key]
                assert mine == sorted(mine), "a key's order is kept"


MODES = ("exclusive", "shared", "failover", "key_shared")


@pytest.mark.parametrize("present,wanted", [(a, b) for a in MODES for b in MODES if a != b])
def test_a_mode_clash_is_refused_in_each_protocol_s_way(broker, unique, present, wanted):
    kafka_create(broker, unique)
    with members(AmqpMember(broker, unique, present)):
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_consume(unique, lambda *_: None, arguments={"x-subscription": "g",
                                                                      "x-subscription-type": wanted})
        assert refused.value.reply_code == 406
        assert f"'{present}'" in refused.value.reply_text and f"'{wanted}'" in refused.value.reply_text
        with mqtt(broker) as client:
            reason = client.subscribe(share(unique), **asking(wanted))[0]
            assert reason.value == TOPIC_FILTER_INVALID
            # The client stays connected, and its other subscriptions work.
            assert not client.subscribe(unique)[0].is_failure
        if wanted == "shared":
            # MQTT 3.1.1 has one refusal code and always requests the shared mode.
            with mqtt(broker, version=4) as client:
                assert client.subscribe(share(unique))[0].value == 0x80


def test_a_mode_clash_with_mqtt_members_is_refused_over_amqp(broker, unique):
    kafka_create(broker, unique)
    with members(MqttMember(broker, unique)):
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_consume(unique, lambda *_: None, arguments={"x-subscription": "g",
                                                                      "x-subscription-type": "failover"})
        assert refused.value.reply_code == 406 and "'shared'" in refused.value.reply_text
    # The mode is that of the attached members: without members another mode is accepted.
    with members(AmqpMember(broker, unique, "failover")) as (now,):
        produce(broker, unique, jobs(3))
        wait_for(jobs(3), now)


def test_a_mode_that_does_not_exist_is_refused(broker, unique):
    kafka_create(broker, unique)
    with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.basic_consume(unique, lambda *_: None, arguments={"x-subscription": "g",
                                                                  "x-subscription-type": "mine"})
    assert refused.value.reply_code == 406 and "key_shared" in refused.value.reply_text
    with mqtt(broker) as client:
        assert client.subscribe(share(unique), **asking("mine"))[0].value == IMPLEMENTATION_SPECIFIC
        # The property does not apply to a filter that is not shared.
        assert not client.subscribe(unique, **asking("mine"))[0].is_failure


def test_a_mode_clash_has_a_reason_string(broker, unique):
    kafka_create(broker, unique)
    with members(AmqpMember(broker, unique, "failover")), mqtt(broker) as client:
        told = []
        client.client.on_subscribe = lambda _c, _d, mid, reasons, properties: (
            told.append(properties), client._subscribed(_c, _d, mid, reasons, properties))
        client.subscribe(share(unique))
        assert "failover" in told[0].ReasonString


def test_the_mode_of_a_session_is_kept(own_broker, unique):
    """A member that reconnects after a restart keeps its mode."""
    broker = own_broker()
    kafka_create(broker, unique)
    with mqtt(broker, client_id="kept", clean=False, expiry=600) as client:
        assert not client.subscribe(share(unique), 1, **asking("failover"))[0].is_failure
    broker.restart()
    with mqtt(broker, client_id="kept", clean=False, expiry=600) as client:
        assert client.session_present
        with amqp(broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.basic_consume(unique, lambda *_: None, arguments={"x-subscription": "g"})
        assert refused.value.reply_code == 406 and "'failover'" in refused.value.reply_text
        with members(AmqpMember(broker, unique, "failover")) as (standby,):
            produce(broker, unique, jobs(3))
            assert client.take(3) == jobs(3) and standby.bodies() == []


def test_acknowledgements_of_both_protocols_survive_a_restart(own_broker, unique):
    broker = own_broker()
    kafka_create(broker, unique)
    with members(AmqpMember(broker, unique), MqttMember(broker, unique)) as both:
        wanted = jobs(100)
        produce(broker, unique, wanted)
        wait_for(wanted, *both)
    broker.restart()
    produce(broker, unique, [b"after"])
    with members(MqttMember(broker, unique), AmqpMember(broker, unique)) as both:
        wait_for([b"after"], *both)


def test_a_durable_subscription_collects_without_members(broker, unique):
    kafka_create(broker, unique)
    with members(MqttMember(broker, unique)) as (member,):
        produce(broker, unique, [b"one"])
        wait_for([b"one"], member)
    produce(broker, unique, [b"two"])
    with members(AmqpMember(broker, unique)) as (other,):
        wait_for([b"two"], other)


def test_a_queue_is_joined_only_by_its_own_share(broker, unique):
    """`$share/q/q` competes for the messages of queue `q`; any other subscriber receives copies of publishes to the address."""
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        with mqtt(broker) as copies, members(MqttMember(broker, unique, group="others")) as (others,):
            copies.subscribe(unique)
            with members(MqttMember(broker, unique, group=unique), AmqpQueue(broker, unique)) as both:
                wanted = jobs(60)
                for body in wanted:
                    channel.basic_publish("", unique, body)
                wait_for(wanted, *both)
                assert all(member.bodies() for member in both), "both received messages"
                assert others.bodies() == [] and copies.messages.empty()
        assert channel.queue_declare(unique, passive=True).method.message_count == 0


def test_a_single_active_consumer_queue_is_joined_as_failover(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True, arguments={"x-single-active-consumer": True})
        with mqtt(broker) as client:
            assert client.subscribe(share(unique, unique))[0].value == TOPIC_FILTER_INVALID
            assert not client.subscribe(share(unique, unique), 1, **asking("failover"))[0].is_failure
            with members(AmqpQueue(broker, unique)) as (standby,):
                channel.basic_publish("", unique, b"job")
                assert client.take(1) == [b"job"] and standby.bodies() == []


class AmqpQueue(AmqpMember):
    """A plain consumer of a queue."""

    def __init__(self, broker, queue, prefetch=5):
        super().__init__(broker, queue, group=queue, prefetch=prefetch)


def test_a_share_group_without_a_topic_has_modes(broker, unique):
    with members(MqttMember(broker, f"{unique}/+", "failover"), MqttMember(broker, f"{unique}/+", "failover")) as both:
        with mqtt(broker) as client:
            assert client.subscribe(share(f"{unique}/+"))[0].value == TOPIC_FILTER_INVALID
            for body in jobs(20):
                client.publish(f"{unique}/x", body)
        wait_for(jobs(20), both[0])
        assert both[1].bodies() == []


def test_a_share_group_stays_whole_when_its_topic_is_created(broker, unique):
    with members(MqttMember(broker, unique)) as (early,):
        kafka_create(broker, unique)
        with members(MqttMember(broker, unique)) as (late,):
            produce(broker, unique, jobs(40))
            wait_for(jobs(40), early, late)
