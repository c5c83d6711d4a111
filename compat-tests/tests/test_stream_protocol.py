"""RabbitMQ's stream protocol with clients that others wrote, and streams shared with the other protocols."""

import asyncio
import socket
import struct
import time

import pika
import pytest
import rstream
from rstream import AMQPMessage, CompressionType, ConsumerOffsetSpecification, FilterConfiguration, OffsetType
from rstream.exceptions import OffsetNotFound, PreconditionFailed, ServerError, StreamAlreadyExists, StreamDoesNotExist
from rstream.utils import RawMessage

from clients import amqp, amqp_take, http_api, kafka_read, kafka_send
from harness import wait_until

WAIT_SECONDS = 60
LOGIN = {"username": "guest", "password": "guest"}


def producer(broker, **options):
    return rstream.Producer("127.0.0.1", broker.stream_port, default_batch_publishing_delay=0.02, **LOGIN, **options)


def consumer(broker, **options):
    return rstream.Consumer("127.0.0.1", broker.stream_port, **LOGIN, **options)


async def read(broker, stream, count, offset=(OffsetType.FIRST, None), decoder=None, seconds=WAIT_SECONDS, **options):
    """The first messages that a consumer gets, each with its offset."""
    got, done = [], asyncio.Event()

    def take(message, context):
        got.append((message, context.offset))
        if len(got) >= count:
            done.set()

    async with consumer(broker) as client:
        await client.subscribe(stream, take, decoder=decoder, initial_credit=3,
                               offset_specification=ConsumerOffsetSpecification(*offset), **options)
        await asyncio.wait_for(done.wait(), seconds)
    return got[:count]


def bodies(got):
    return [(bytes(message), offset) for message, offset in got]


async def fill(broker, stream, messages, **options):
    async with producer(broker) as client:
        await client.create_stream(stream, exists_ok=True)
        for message in messages:
            await client.send_wait(stream, message, timeout=WAIT_SECONDS, **options)


def numbered(first, end):
    return [(b"%d" % number, number) for number in range(first, end)]


def test_what_is_published_is_delivered_from_each_place(broker, unique):
    async def act():
        async with producer(broker) as client:
            await client.create_stream(unique)
            ids = await client.send_batch(unique, [b"%d" % number for number in range(100)])
            assert len(ids) == 100
            await client.send_wait(unique, b"100", timeout=WAIT_SECONDS)
        assert bodies(await read(broker, unique, 101)) == numbered(0, 101)
        assert bodies(await read(broker, unique, 1, (OffsetType.LAST, None))) == numbered(100, 101)
        assert bodies(await read(broker, unique, 31, (OffsetType.OFFSET, 70))) == numbered(70, 101)
        an_hour_ago = int((time.time() - 3600) * 1000)
        assert bodies(await read(broker, unique, 101, (OffsetType.TIMESTAMP, an_hour_ago))) == numbered(0, 101)
        reading = asyncio.create_task(read(broker, unique, 1, (OffsetType.NEXT, None)))
        # It may have subscribed after this message: then it gets the next one.
        number = 101
        while not reading.done():
            await fill(broker, unique, [b"%d" % number])
            await asyncio.wait([reading], timeout=0.2)
            number += 1
        (body, offset), = bodies(await reading)
        assert body == b"%d" % offset and offset >= 101
    asyncio.run(act())


def test_messages_of_amqp_1_0_come_back_byte_for_byte(broker, unique):
    message = AMQPMessage(body=b"body", application_properties={"colour": "red", "level": 5})
    encoded = bytes(message)

    async def act():
        await fill(broker, unique, [message])
        (same, offset), = await read(broker, unique, 1, decoder=lambda data: data)
        assert (bytes(same), offset) == (encoded, 0)
    asyncio.run(act())
    record, = kafka_read(broker, unique, 1)
    assert record.value() == b"body"
    headers = dict(record.headers())
    assert (headers["colour"], headers["level"]) == (b"red", b"5")
    with amqp(broker) as channel:
        channel.basic_qos(prefetch_count=10)
        (_, properties, body), = amqp_take(channel, unique, 1, arguments={"x-stream-offset": "first"})
        assert body == b"body"
        assert properties.headers["colour"] == "red" and properties.headers["x-stream-offset"] == 0


def test_what_other_protocols_wrote_is_read_as_amqp_1_0(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True, arguments={"x-queue-type": "stream"})
        properties = pika.BasicProperties(message_id="m1", headers={"colour": "red"}, content_type="text/plain")
        channel.basic_publish("", unique, b"by amqp", properties)
    kafka_send(broker, unique, b"by kafka", key=b"k", headers=[("size", b"big")])

    async def act():
        (first, _), (second, offset) = await read(broker, unique, 2, decoder=rstream.amqp_decoder)
        assert first.body == b"by amqp" and second.body == b"by kafka" and offset == 1
        assert first.application_properties == {b"colour": b"red"}
        assert first.properties.message_id == b"m1"
        assert first.properties.content_type == b"text/plain"
        assert second.application_properties == {b"size": b"big", b"inver-key": b"k"}
    asyncio.run(act())


def test_batches_of_entries_are_unpacked(broker, unique):
    async def act():
        confirmed = []
        async with producer(broker) as client:
            await client.create_stream(unique)
            for compression in (CompressionType.No, CompressionType.Gzip):
                messages = [AMQPMessage(body=f"{compression.name}-{number}".encode()) for number in range(50)]
                await client.send_sub_entry(unique, messages, compression_type=compression,
                                            on_publish_confirm=lambda status: confirmed.append(status.is_confirmed))
            await asyncio.to_thread(wait_until, lambda: len(confirmed) == 2, WAIT_SECONDS, "the confirms")
        assert confirmed == [True, True]
        got = await read(broker, unique, 100, decoder=rstream.amqp_decoder)
        assert [offset for _, offset in got] == list(range(100))
    asyncio.run(act())
    values = [record.value() for record in kafka_read(broker, unique, 100)]
    assert values == [b"%s-%d" % (kind, number) for kind in (b"No", b"Gzip") for number in range(50)]


def test_offsets_are_stored_by_name(broker, unique):
    async def act():
        await fill(broker, unique, [b"%d" % number for number in range(5)])
        async with consumer(broker) as client:
            await client.start()
            with pytest.raises(OffsetNotFound):
                await client.query_offset(unique, "reader")
            await client.store_offset(unique, "reader", 3)
            assert await client.query_offset(unique, "reader") == 3
    asyncio.run(act())


def test_refusals_have_the_protocols_codes(broker, unique):
    async def act():
        async with producer(broker) as client:
            await client.create_stream(unique, arguments={"max-age": "1h", "max-length-bytes": "1000000000"})
            with pytest.raises(StreamAlreadyExists):
                await client.create_stream(unique, arguments={"max-age": "1h", "max-length-bytes": "1000000000"})
            with pytest.raises(PreconditionFailed):
                await client.create_stream(unique, arguments={"max-age": "2h"})
            with pytest.raises(PreconditionFailed):
                await client.create_stream(unique + "-other", arguments={"max-age": "soon"})
            await client.delete_stream(unique)
            with pytest.raises(StreamDoesNotExist):
                await client.delete_stream(unique)
            assert not await client.stream_exists(unique)
    asyncio.run(act())
    with pytest.raises(ServerError):
        asyncio.run(fill_with_login(broker, "nobody", "wrong", unique))


async def fill_with_login(broker, user, password, stream):
    async with rstream.Producer("127.0.0.1", broker.stream_port, username=user, password=password,
                                max_retries=1) as client:
        await client.create_stream(stream)


def test_filters_select_by_value(broker, unique):
    async def region(message):
        return message.application_properties["region"]

    async def act():
        async with producer(broker, filter_value_extractor=region) as client:
            await client.create_stream(unique)
            for number in range(30):
                message = AMQPMessage(body=b"%d" % number, application_properties={"region": ("eu", "us", "as")[number % 3]})
                await client.send_wait(unique, message, timeout=WAIT_SECONDS)
        wanted = FilterConfiguration(
            values_to_filter=["us"], predicate=lambda message: message.application_properties[b"region"] == b"us",
            match_unfiltered=False)
        got = await read(broker, unique, 10, decoder=rstream.amqp_decoder, filter_input=wanted)
        assert [offset for _, offset in got] == list(range(1, 30, 3))
    asyncio.run(act())
    with amqp(broker) as channel:
        channel.basic_qos(prefetch_count=10)
        arguments = {"x-stream-offset": "first", "x-stream-filter": "as"}
        taken = amqp_take(channel, unique, 10, arguments=arguments)
        assert [body for _, _, body in taken] == [b"%d" % number for number in range(2, 30, 3)]


def test_a_named_publisher_stores_each_id_once_across_kills(own_broker, unique):
    broker = own_broker()

    async def send(first, end):
        async with producer(broker) as client:
            await client.create_stream(unique, exists_ok=True)
            for number in range(first, end):
                message = RawMessage(b"%d" % number, publishing_id=number)
                await client.send_wait(unique, message, publisher_name="p", timeout=WAIT_SECONDS)

    asyncio.run(send(1, 30))
    for first in (10, 25):
        broker.kill()
        broker.start()
        # What was confirmed is there, and what is sent again is confirmed and not stored again.
        asyncio.run(send(first, first + 25))
    got = bodies(asyncio.run(read(broker, unique, 49)))
    assert got == [(b"%d" % number, number - 1) for number in range(1, 50)]
    assert [record.value() for record in kafka_read(broker, unique, 49)] == [b"%d" % number for number in range(1, 50)]


def test_connections_are_listed_and_counted(broker, unique):
    async def act():
        async with producer(broker, connection_name=unique) as client:
            await client.create_stream(unique)
            await client.send_wait(unique, b"one", timeout=WAIT_SECONDS)
            return http_api(broker, "GET", "/connections")
    status, page = asyncio.run(act())
    assert status == 200 and ("stream", unique) in [(it["protocol"], it["name"]) for it in page["items"]], page
    assert broker.metric("inver_protocol_messages_received_total", 'protocol="stream"') >= 1


def frame(key, *parts):
    content = struct.pack(">HH", key, 1) + b"".join(parts)
    return struct.pack(">I", len(content)) + content


def test_a_frame_that_is_too_large_or_unknown_ends_the_connection(broker):
    for sent, code in ((struct.pack(">I", 1 << 30), 14), (frame(0x77, struct.pack(">I", 1)), 13),
                       (frame(13, struct.pack(">I", 1), b"\0\1s", b"\0\0\0\0"), 13)):
        with socket.create_connection(("127.0.0.1", broker.stream_port), WAIT_SECONDS) as client:
            client.settimeout(WAIT_SECONDS)
            client.sendall(sent)
            answer = b""
            while piece := client.recv(4096):
                answer += piece
            _, key, _, _, answered = struct.unpack(">IHHIH", answer[:14])
            assert (key, answered) == (22, code)
