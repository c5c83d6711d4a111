"""Traces: spans of publish, route, deliver and acknowledge, which a receiver made of OpenTelemetry's own messages takes."""

import contextlib
import http.server
import threading

import pika
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest, ExportTraceServiceResponse,
)

from clients import amqp, amqp_take, kafka_consumer, kafka_create, kafka_producer, kafka_send, kafka_take, mqtt, publish_properties
from harness import free_port, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


class Span:
    def __init__(self, span, resource):
        self.name = span.name
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.kind, self.status = span.kind, span.status
        self.attributes = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
        self.resource = {a.key: a.value.string_value for a in resource.attributes}

    def __repr__(self):
        return f"{self.attributes.get('network.protocol.name')} {self.name} {self.id} below {self.parent}"

    @property
    def operation(self):
        return self.attributes["messaging.operation.name"]

    @property
    def protocol(self):
        return self.attributes.get("network.protocol.name")


class Collector:
    """Takes OTLP over HTTP in the binary form."""

    def __init__(self, port=0):
        self.spans, self.requests, self.answer = [], [], (200, ExportTraceServiceResponse())
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                collector.requests.append((self.path, dict(self.headers)))
                status, answer = collector.answer
                if status == 200:
                    collector.spans += [Span(span, of_resource.resource) for of_resource in request.resource_spans
                                        for of_scope in of_resource.scope_spans for span in of_scope.spans]
                body = answer.SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def find(self, operation, protocol):
        return [span for span in list(self.spans) if (span.operation, span.protocol) == (operation, protocol)]

    def wait(self, *wanted):
        """The first span of each (operation, protocol)."""
        wait_until(lambda: all(self.find(*each) for each in wanted), 15, f"spans {wanted}")
        return [self.find(*each)[0] for each in wanted]

    def end(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.end()


def dropped(broker, reason):
    line = f'inver_trace_spans_dropped_total{{reason="{reason}"}} '
    values = [text[len(line):] for text in broker.get("/metrics")[1].splitlines() if text.startswith(line)]
    return sum(map(float, values))


def settings(url, **more):
    return {"INVER_TRACING_OTLP_ENDPOINT": url, "INVER_TRACING_BATCH_INTERVAL_MS": "50",
            "INVER_TRACING_SAMPLE_RATIO": "0", **more}


@contextlib.contextmanager
def readers(broker):
    """An MQTT subscriber and a Kafka consumer of what is published at `a/b`, and an AMQP queue `q` of it."""
    with mqtt(broker) as subscriber, amqp(broker) as channel, \
            kafka_consumer(broker, "mqtt", group="g", **{"client.id": "reader"}) as consumer:
        subscriber.subscribe("a/b")
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "amq.topic", "a.b")
        yield subscriber, channel, consumer


def test_one_trace_from_amqp_to_mqtt_and_kafka(own_broker, collector):
    capture = '[{ filter = "#", topic = "mqtt" }]'
    broker = own_broker(environment=settings(collector.url, INVER_CAPTURE_RULES=capture))
    with readers(broker) as (subscriber, channel, consumer):
        channel.basic_publish("amq.topic", "a.b", b"body", pika.BasicProperties(headers=dict(SAMPLED), delivery_mode=2))
        assert subscriber.get().payload == b"body"
        assert kafka_take(consumer, 1)[0].value() == b"body"
        consumer.commit(asynchronous=False)
        amqp_take(channel, "q", 1)
        publish, route, *deliveries = collector.wait(
            ("publish", "amqp"), ("route", "amqp"), ("deliver", "mqtt"), ("deliver", "kafka"), ("deliver", "amqp"))
        settlements = collector.wait(("ack", "mqtt"), ("commit", "kafka"), ("ack", "amqp"))
        assert {span.trace for span in collector.spans} == {TRACE}
        assert publish.parent == PARENT and route.parent == publish.id
        assert [span.parent for span in deliveries] == [PARENT] * 3
        assert [span.parent for span in settlements] == [span.id for span in deliveries]
        assert len({span.id for span in collector.spans}) == len(collector.spans) == 8
        assert all(0 < span.start <= span.end for span in collector.spans)
        assert publish.name == "publish amq.topic"
        assert publish.attributes.items() >= {
            "messaging.system": "inver", "messaging.operation.type": "send", "messaging.destination.name": "amq.topic",
            "messaging.rabbitmq.destination.routing_key": "a.b", "messaging.message.body.size": 4,
        }.items()
        assert route.attributes["inver.route.receivers"] == 2
        assert deliveries[1].attributes.items() >= {
            "messaging.operation.type": "receive", "messaging.destination.name": "mqtt", "messaging.client.id": "reader",
            "messaging.kafka.offset": 0,
        }.items()
        assert publish.resource["service.name"] == "inver" and publish.resource["service.version"]
        assert {path for path, _ in collector.requests} == {"/v1/traces"}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_one_trace_from_kafka_to_mqtt_and_amqp(own_broker, collector, compression):
    broker = own_broker(environment=settings(collector.url))
    kafka_create(broker, "t", 1)
    with mqtt(broker) as subscriber, amqp(broker) as channel:
        subscriber.subscribe("t")
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "amq.topic", "t")
        producer = kafka_producer(broker, **{"compression.type": compression})
        kafka_send(broker, "t", b"body" * 100, headers=list(SAMPLED.items()), producer=producer)
        subscriber.get()
        amqp_take(channel, "q", 1)
        publish, *others = collector.wait(
            ("publish", "kafka"), ("deliver", "mqtt"), ("ack", "mqtt"), ("deliver", "amqp"), ("ack", "amqp"))
        assert publish.parent == PARENT
        assert {span.trace for span in [publish, *others]} == {TRACE}
        assert publish.attributes["messaging.destination.partition.id"] == "0"


def test_the_broker_starts_traces_by_ratio_and_the_parent_decides(own_broker, collector):
    broker = own_broker(environment=settings(collector.url, INVER_TRACING_SAMPLE_RATIO="1"))
    with readers(broker) as (subscriber, channel, consumer):
        properties = publish_properties(UserProperty=list(NOT_SAMPLED.items()))
        subscriber.publish("a/b", b"not sampled", properties=properties)
        assert subscriber.get().properties.UserProperty == list(NOT_SAMPLED.items())
        subscriber.publish("a/b", b"sampled")
        [(name, traceparent)] = subscriber.get().properties.UserProperty
        records = kafka_take(consumer, 2)
        assert records[1].headers()[-1] == (name, traceparent.encode())
        publish, deliver, ack = collector.wait(("publish", "mqtt"), ("deliver", "mqtt"), ("ack", "mqtt"))
        assert (name, traceparent) == ("traceparent", f"00-{publish.trace}-{publish.id}-01")
        assert publish.parent == "" and (deliver.trace, deliver.parent) == (publish.trace, publish.id)
        assert ack.parent == deliver.id
        assert TRACE not in {span.trace for span in collector.spans}
        collector.wait(("deliver", "kafka"))
        assert len(collector.find("publish", "mqtt")) == 1


def test_dead_letters_and_rejections(own_broker, collector):
    broker = own_broker(environment=settings(collector.url))
    with amqp(broker) as channel:
        channel.queue_declare("dead", durable=True)
        channel.queue_declare("q", durable=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        channel.basic_publish("", "q", b"body", pika.BasicProperties(headers=dict(SAMPLED)))
        [(method, _, _)] = amqp_take(channel, "q", 1, ack=False)
        channel.basic_nack(method.delivery_tag, requeue=False)
        amqp_take(channel, "dead", 1)
        reject, again = collector.wait(("reject", "amqp"), ("publish", None))
        assert reject.attributes["messaging.operation.type"] == "settle"
        assert again.attributes["messaging.destination.name"] == "dead"
        assert {span.trace for span in collector.spans} == {TRACE}


def test_a_collector_that_is_down_or_refuses_delays_nobody(own_broker):
    port = free_port()
    broker = own_broker(environment=settings(f"http://127.0.0.1:{port}", INVER_TRACING_SAMPLE_RATIO="1",
                                 INVER_TRACING_QUEUE_SPANS_MAX="64", INVER_TRACING_BATCH_SPANS_MAX="32"))
    with mqtt(broker) as client:
        for number in range(300):
            client.publish("a", b"%d" % number)
        wait_until(lambda: dropped(broker, "queue_full") > 0, 10, "dropped spans")
        assert "failed to export traces" in broker.log()
        collector = Collector(port)
        try:
            # What waited is sent, and new spans too.
            wait_until(lambda: broker.metric("inver_trace_spans_exported_total") > 0, 15, "exported spans")
            partial = ExportTraceServiceResponse()
            partial.partial_success.rejected_spans = 1
            collector.answer = (200, partial)
            client.publish("a", b"more")
            wait_until(lambda: dropped(broker, "refused") >= 1, 10, "refused spans")
            collector.answer = (400, ExportTraceServiceResponse())
            before = dropped(broker, "refused")
            client.publish("a", b"more")
            wait_until(lambda: dropped(broker, "refused") >= before + 2, 10, "refused spans")
        finally:
            collector.end()


def test_spans_are_exported_before_the_end(own_broker, collector):
    broker = own_broker(environment=settings(collector.url, INVER_TRACING_BATCH_INTERVAL_MS="60000",
                                 INVER_TRACING_OTLP_HEADERS="authorization=Bearer secret,x-scope=a"))
    with amqp(broker) as channel:
        channel.queue_declare("q")
        channel.basic_publish("", "q", b"body", pika.BasicProperties(headers=dict(SAMPLED)))
    assert collector.spans == []
    assert broker.stop() == 0
    [publish] = collector.find("publish", "amqp")
    assert publish.name == "publish q"
    [(_, headers)] = collector.requests
    assert headers["authorization"] == "Bearer secret" and headers["x-scope"] == "a"
