"""Metrics: what clients do is counted, by the broker's names and by RabbitMQ's; metrics of single objects are bounded."""

import re
import urllib.request

import pika
import pytest

from clients import amqp, kafka_consumer, kafka_create, kafka_send, kafka_take, mqtt
from harness import free_port, run, wait_until

# What RabbitMQ's dashboard `RabbitMQ-Overview` asks for, of rabbitmq_prometheus 4: names, and labels that it joins by.
OVERVIEW_SERIES = """
rabbitmq_build_info rabbitmq_channels rabbitmq_channels_closed_total rabbitmq_channels_opened_total rabbitmq_connections
rabbitmq_connections_closed_total rabbitmq_connections_opened_total rabbitmq_disk_space_available_bytes
rabbitmq_disk_space_available_limit_bytes rabbitmq_erlang_uptime_seconds rabbitmq_global_consumers
rabbitmq_global_messages_acknowledged_total rabbitmq_global_messages_confirmed_total
rabbitmq_global_messages_delivered_consume_auto_ack_total rabbitmq_global_messages_delivered_consume_manual_ack_total
rabbitmq_global_messages_delivered_get_auto_ack_total rabbitmq_global_messages_delivered_get_manual_ack_total
rabbitmq_global_messages_delivered_total rabbitmq_global_messages_get_empty_total
rabbitmq_global_messages_received_confirm_total rabbitmq_global_messages_received_total
rabbitmq_global_messages_redelivered_total rabbitmq_global_messages_routed_total
rabbitmq_global_messages_unroutable_dropped_total rabbitmq_global_messages_unroutable_returned_total
rabbitmq_global_publishers rabbitmq_identity_info rabbitmq_message_size_bytes_bucket rabbitmq_message_size_bytes_count
rabbitmq_message_size_bytes_sum rabbitmq_process_max_fds rabbitmq_process_open_fds rabbitmq_process_resident_memory_bytes
rabbitmq_queue_messages_ready rabbitmq_queue_messages_unacked rabbitmq_queues rabbitmq_queues_created_total
rabbitmq_queues_declared_total rabbitmq_queues_deleted_total rabbitmq_resident_memory_limit_bytes
""".split()
OVERVIEW_LABELS = ["rabbitmq_cluster", "rabbitmq_node", "rabbitmq_endpoint", "rabbitmq_version", "erlang_version"]


def samples(text):
    """Values by series, as they are written."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}


def page(broker, path):
    status, text = broker.get(path)
    assert status == 200, (status, text)
    return text


def rabbitmq(broker):
    return samples(page(broker, "/metrics/rabbitmq"))


def counted(broker, name, protocol="amqp091"):
    return rabbitmq(broker)[f'rabbitmq_global_messages_{name}_total{{protocol="{protocol}"}}']


def test_the_time_of_confirms_is_measured(own_broker, unique):
    broker = own_broker()
    with mqtt(broker) as client, amqp(broker) as channel:
        client.publish(unique, b"x")
        channel.queue_declare(unique, durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", unique, b"x", pika.BasicProperties(delivery_mode=2))
    text = broker.get("/metrics")[1]
    for protocol in ("amqp", "mqtt"):
        count = re.search(r'inver_protocol_confirm_seconds_count{protocol="%s"} (\d+)' % protocol, text)
        assert count and int(count[1]) >= 1, protocol
        total = float(re.search(r'inver_protocol_confirm_seconds_sum{protocol="%s"} (\S+)' % protocol, text)[1])
        assert 0 < total < 60


def test_requests_and_settlements_are_measured(own_broker):
    broker = own_broker()
    # Kafka's shares are there once a client of it was.
    kafka_send(broker, "topic", b"x")
    with amqp(broker) as channel, mqtt(broker) as client:
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"x" * 1000, pika.BasicProperties(delivery_mode=2))
        method, _, _ = channel.basic_get("q")
        channel.basic_ack(method.delivery_tag)
        # The messages of a durable queue are read again; those of one in memory are kept.
        channel.queue_declare("in-memory")
        channel.basic_publish("", "in-memory", b"x" * 1000)
        channel.basic_publish("", "in-memory", b"x" * 2000)
        channel.basic_get("in-memory")
        of_share = 'inver_memory_used_bytes{share="%s"}'
        now = samples(page(broker, "/metrics"))
        assert now[of_share % "in_flight"] >= 1000 and now[of_share % "queues"] >= 2000
        client.subscribe("a")
        client.unsubscribe("a")
        client.publish("a", b"kept" * 100, retain=True)
        assert samples(page(broker, "/metrics"))[of_share % "retained"] >= 400
        settled = 'inver_messages_settle_seconds_count{namespace="/"}'
        wait_until(lambda: samples(page(broker, "/metrics"))[settled] >= 1, 10, "a settlement")
    now = samples(page(broker, "/metrics"))
    for protocol, request in [("amqp", "queue.declare"), ("amqp", "basic.get"), ("mqtt", "subscribe"),
                              ("mqtt", "unsubscribe")]:
        labels = f'{{protocol="{protocol}",request="{request}"}}'
        assert now["inver_protocol_request_seconds_count" + labels] >= 1, request
        assert 0 < now["inver_protocol_request_seconds_sum" + labels] < 10, request
    # A queue is declared once that is committed.
    assert now['inver_protocol_request_seconds_sum{protocol="amqp",request="queue.declare"}'] > 0.0001
    shares = {series for series in now if series.startswith("inver_memory_used_bytes{")}
    assert len(shares) == 14 and of_share % "tail_cache" in shares and of_share % "kafka_fetches" in shares
    limits = {series for series in now if series.startswith("inver_memory_limit_bytes{")}
    named = ("process", "clients", "input", "transactions", "output", "queues", "groups", "offsets")
    assert limits == {f'inver_memory_limit_bytes{{share="{share}"}}' for share in named}
    assert not [series for series in now if series.startswith("inver_memory_held")]


def test_every_family_has_help_and_follows_the_conventions(broker, unique):
    with mqtt(broker) as client, amqp(broker) as channel:
        client.publish(unique, b"x")
        channel.queue_declare(unique)
        kafka_send(broker, unique, b"x")
        for path in ("/metrics", "/metrics/rabbitmq", "/metrics/rabbitmq/per-object",
                     "/metrics/detailed?family=queues,partitions,groups,ages"):
            text = page(broker, path)
            done = run(["promtool", "check", "metrics"], stdin=text.encode(), check=False)
            assert done.returncode == 0, (path, done.stdout + done.stderr)
            families = re.findall(r"^# TYPE (\S+)", text, re.M)
            assert len(families) == len(set(families)) > 0
            assert all(re.search(rf"^# HELP {family} \S", text, re.M) for family in families), path


def test_rabbitmqs_overview_finds_all_its_series(broker):
    text = page(broker, "/metrics/rabbitmq")
    names = {series.split("{")[0] for series in samples(text)}
    assert [name for name in OVERVIEW_SERIES if name not in names] == []
    assert all(f'{label}="' in text for label in OVERVIEW_LABELS)
    assert len(OVERVIEW_SERIES) + len(OVERVIEW_LABELS) == 45


def test_what_amqp_clients_do_is_counted_by_rabbitmqs_names(own_broker):
    broker = own_broker()
    with amqp(broker) as channel:
        channel.queue_declare("q", durable=True)
        channel.queue_declare("q", durable=True)
        channel.queue_declare("gone")
        channel.queue_delete("gone")
        for number in range(5):
            channel.basic_publish("", "q", b"x" * 10 ** number)
        channel.basic_publish("", "nowhere", b"dropped")
        with pytest.raises(pika.exceptions.UnroutableError):
            channel.basic_publish("", "nowhere", b"returned", mandatory=True)
        method, _, body = channel.basic_get("q")
        assert body == b"x"
        channel.basic_ack(method.delivery_tag)
        assert channel.basic_get("q", auto_ack=True)[2] == b"x" * 10
        channel.queue_declare("empty")
        assert channel.basic_get("empty")[0] is None
        channel.basic_qos(prefetch_count=1)
        consumer = channel.consume("q")
        method, _, body = next(consumer)
        assert body == b"x" * 100
        channel.basic_nack(method.delivery_tag, requeue=True)
        method, _, body = next(consumer)
        assert body == b"x" * 100 and method.redelivered
        def now(name):
            return counted(broker, name)
        wait_until(lambda: now("redelivered") == 1)
        assert rabbitmq(broker)['rabbitmq_global_publishers{protocol="amqp091"}'] == 1
        assert rabbitmq(broker)['rabbitmq_global_consumers{protocol="amqp091"}'] == 1
        channel.basic_ack(method.delivery_tag)
        next(consumer)
        wait_until(lambda: now("acknowledged") == 2)
        assert (now("received"), now("received_confirm"), now("confirmed")) == (7, 7, 7)
        assert (now("routed"), now("unroutable_dropped"), now("unroutable_returned")) == (5, 1, 1)
        assert (now("delivered_get_manual_ack"), now("delivered_get_auto_ack"), now("get_empty")) == (1, 1, 1)
        assert (now("delivered_consume_manual_ack"), now("delivered_consume_auto_ack"), now("delivered")) == (3, 0, 5)
        values = rabbitmq(broker)
        assert values["rabbitmq_queues"] == 2
        assert (values["rabbitmq_queues_declared_total"], values["rabbitmq_queues_created_total"],
                values["rabbitmq_queues_deleted_total"]) == (4, 3, 1)
        assert (values["rabbitmq_channels"], values["rabbitmq_connections"]) == (1, 1)
        size = 'rabbitmq_message_size_bytes_bucket{protocol="amqp091",le="%s"}'
        assert [values[size % bound] for bound in ("100.0", "1000.0", "10000.0", "+Inf")] == [5, 6, 7, 7]
        assert values['rabbitmq_message_size_bytes_sum{protocol="amqp091"}'] == 11111 + len(b"droppedreturned")
        def depth():
            values = rabbitmq(broker)
            return values["rabbitmq_queue_messages_ready"], values["rabbitmq_queue_messages_unacked"]
        wait_until(lambda: depth() == (1, 1))
        objects = samples(page(broker, "/metrics/rabbitmq/per-object"))
        assert objects['rabbitmq_queue_messages_ready{vhost="/",queue="q"}'] == 1
        detailed = samples(page(broker, "/metrics/rabbitmq/detailed?family=queue_coarse_metrics&vhost=/"))
        assert detailed['rabbitmq_detailed_queue_messages_unacked{vhost="/",queue="q"}'] == 1
    wait_until(lambda: rabbitmq(broker)["rabbitmq_channels"] == 0)
    values = rabbitmq(broker)
    assert values['rabbitmq_global_publishers{protocol="amqp091"}'] == values['rabbitmq_global_consumers{protocol="amqp091"}'] == 0


def test_what_mqtt_and_kafka_clients_do_is_counted(own_broker):
    broker = own_broker()
    with mqtt(broker) as subscriber, mqtt(broker) as publisher:
        subscriber.subscribe("a/#", qos=1)
        for qos in (0, 1, 2):
            publisher.publish("a/b", b"12345", qos=qos)
        publisher.publish("b", b"nobody")
        subscriber.take(3)
        own = lambda name, **labels: sum(
            value for series, value in samples(page(broker, "/metrics")).items()
            if series.split("{")[0] == f"inver_protocol_{name}" and all(f'{key}="{text}"' in series for key, text in labels.items()))
        of_mqtt = lambda name, **labels: own(name, protocol="mqtt", **labels)
        wait_until(lambda: of_mqtt("messages_acknowledged_total") == 2)
        assert of_mqtt("messages_received_total") == 4 and of_mqtt("messages_to_confirm_total") == 3
        assert of_mqtt("messages_confirmed_total") == 3 and of_mqtt("messages_routed_total") == 3
        assert of_mqtt("messages_unroutable_total", action="dropped") == 1
        assert of_mqtt("messages_sent_total", ack="auto") == 1 and of_mqtt("messages_sent_total", ack="manual") == 2
        assert (of_mqtt("publishers"), of_mqtt("consumers")) == (1, 1)
        assert of_mqtt("received_bytes_total") > 40 and of_mqtt("sent_bytes_total") > 40
    wait_until(lambda: (of_mqtt("publishers"), of_mqtt("consumers")) == (0, 0))

    kafka_create(broker, "t", 1)
    for number in range(3):
        kafka_send(broker, "t", b"%d" % number)
    with kafka_consumer(broker, "t", group="g") as consumer:
        kafka_take(consumer, 3)
        consumer.commit(asynchronous=False)
        kafka_send(broker, "t", b"behind")
        wait_until(lambda: own("messages_sent_total", protocol="kafka") >= 3)
        assert own("messages_received_total", protocol="kafka") == 4
        seconds = samples(page(broker, "/metrics"))
        assert seconds['inver_kafka_request_seconds_count{api="Produce"}'] >= 4
        assert 0 < seconds['inver_kafka_request_seconds_sum{api="Produce"}'] < 60
        detailed = samples(page(broker, "/metrics/detailed?family=groups,partitions,ages&name=*"))
        labels = 'namespace="/",group="g",topic="t",partition="0"'
        assert detailed[f"inver_detailed_group_committed_offset{{{labels}}}"] == 3
        assert detailed[f"inver_detailed_group_lag{{{labels}}}"] == 1
        assert detailed['inver_detailed_partition_end_offset_total{namespace="/",topic="t",partition="0"}'] == 4


def test_metrics_of_objects_are_chosen_and_bounded(own_broker):
    broker = own_broker(environment={"INVER_HTTP_DETAILED_SERIES_MAX": "30"})
    with amqp(broker) as channel:
        for number in range(40):
            channel.queue_declare(f"q{number:02}")
        all_of_them = samples(page(broker, "/metrics/detailed?family=queues"))
        assert len(all_of_them) == 31 and all_of_them["inver_detailed_omitted"] == 30
        one = samples(page(broker, "/metrics/detailed?family=queues&name=q17&namespace=/"))
        assert len(one) == 4 and one["inver_detailed_omitted"] == 0
        few = samples(page(broker, "/metrics/detailed?family=queues&name=q3*"))
        assert few["inver_detailed_omitted"] == 0 and sum("ready{" in series for series in few) == 10
        assert samples(page(broker, "/metrics/detailed?family=queues&namespace=other")) == {"inver_detailed_omitted": 0}
    for query in ("family=nothing", "families=queues"):
        assert broker.get(f"/metrics/detailed?{query}")[0] == 400


def test_rabbitmqs_port(own_broker):
    port = free_port()
    broker = own_broker(environment={"INVER_HTTP_PROMETHEUS_LISTEN": f"127.0.0.1:{port}"})
    for path, wanted in (("/metrics", "rabbitmq_global_messages_received_total"), ("/metrics/per-object", "rabbitmq_queues"),
                         ("/metrics/detailed?family=queue_coarse_metrics", 'rabbitmq_endpoint="detailed"')):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            assert wanted in answer.read().decode()


def test_alarms(own_broker):
    broker = own_broker(environment={"INVER_LIMITS_CONNECTIONS_MAX": "1"})
    assert broker.get("/health/alarms") == (200, "no alarms\n")
    with mqtt(broker):
        status, text = broker.get("/health/alarms")
        assert status == 503 and text.startswith("connections_full: "), text
        assert 'inver_alarm{alarm="connections_full"} 1' in page(broker, "/metrics")
    wait_until(lambda: broker.get("/health/alarms")[0] == 200)


def test_a_disk_that_is_nearly_full_is_an_alarm(own_broker):
    broker = own_broker(environment={"INVER_LOG_FREE_BYTES_MIN": "1000 TiB"})
    status, text = broker.get("/health/alarms")
    assert (status, "disk_low" in text) == (503, True), text
    values = samples(page(broker, "/metrics"))
    assert values["inver_disk_free_min_bytes"] == 1000 << 40 > values["inver_disk_free_bytes"]
