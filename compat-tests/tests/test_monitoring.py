"""The dashboards and alert rules of docs/monitoring, with a real Prometheus that scrapes a broker under traffic."""

import contextlib
import json
import math
import subprocess
import threading
import urllib.parse
import urllib.request

import pytest

from clients import Mqtt, amqp, kafka_consumer, kafka_create, kafka_producer, kafka_send, kafka_take, mqtt
from harness import ROOT, Broker, free_port, run, wait_until
from test_metrics import OVERVIEW_SERIES

MONITORING = ROOT / "docs" / "monitoring"
BOARDS = sorted(MONITORING.glob("inver-*.json"))
SCRAPES = 12
WAIT_SECONDS = 60
# Grafana's variables.
VARIABLES = {"$job": ".*", "$instance": ".*", "$__rate_interval": "15s"}


def test_promtool_accepts_rules_and_configuration():
    run(["promtool", "check", "rules", "alerts.yaml"], cwd=MONITORING)
    run(["promtool", "test", "rules", "alerts.test.yaml"], cwd=MONITORING)
    run(["promtool", "check", "config", "prometheus.yaml"], cwd=MONITORING)


class Prometheus:
    """A Prometheus that scrapes a broker each second."""

    def __init__(self, folder, broker):
        self.port = free_port()
        folder.mkdir()
        rules = folder / "alerts.yaml"
        rules.write_text((MONITORING / "alerts.yaml").read_text())
        target = f"127.0.0.1:{broker.http_port}"
        jobs = [("inver", "/metrics"), ("inver-objects", "/metrics/detailed"), ("rabbitmq", "/metrics/rabbitmq")]
        (folder / "prometheus.yaml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{
                "job_name": job, "metrics_path": path, "static_configs": [{"targets": [target]}],
                **({"params": {"family": ["queues,partitions,groups,ages"]}} if job == "inver-objects" else {}),
            } for job, path in jobs],
        }))
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
            stdout=self.log, stderr=self.log, cwd=folder)

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """The values of an expression, without those that are not numbers."""
        values = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in values if not math.isnan(value)]

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@contextlib.contextmanager
def traffic(broker):
    """Clients of the three protocols that publish and consume until the end."""
    over = threading.Event()
    failures = []

    def work():
        try:
            with mqtt(broker) as subscriber, mqtt(broker) as publisher, amqp(broker) as channel, \
                    kafka_consumer(broker, "topic", group="group") as consumer:
                subscriber.subscribe("a/#", qos=1)
                channel.queue_declare("queue", durable=True)
                producer = kafka_producer(broker)
                while not over.is_set():
                    publisher.publish("a/b", b"over MQTT", qos=1)
                    subscriber.get()
                    channel.basic_publish("", "queue", b"over AMQP")
                    channel.basic_publish("", "nowhere", b"without a receiver")
                    method, _, _ = channel.basic_get("queue")
                    if method:
                        channel.basic_nack(method.delivery_tag, requeue=method.delivery_tag % 2 == 0)
                    kafka_send(broker, "topic", b"over Kafka", producer=producer)
                    kafka_take(consumer, 1)
                    consumer.commit(asynchronous=False)
                    over.wait(0.05)
        except Exception as error:  # pylint: disable=broad-except
            failures.append(error)

    kafka_create(broker, "topic", 1)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(WAIT_SECONDS)
    assert failures == []


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A Prometheus with some scrapes of a broker under traffic."""
    folder = tmp_path_factory.mktemp("prometheus")
    broker = Broker(folder / "broker").start()
    prometheus = Prometheus(folder / "prometheus", broker)
    try:
        with traffic(broker):
            assert Mqtt(broker, client_id="c", user=("nobody", "x")).reason.is_failure
            def scraped():
                with contextlib.suppress(OSError):
                    counts = prometheus.query('min(count_over_time(up[5m]))')
                    return counts and counts[0] >= SCRAPES
                assert prometheus.process.poll() is None
            wait_until(scraped, WAIT_SECONDS, "some scrapes")
            assert prometheus.query("min(up)") == [1], prometheus.get("targets")
            yield prometheus
    finally:
        prometheus.end()
        broker.end()


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_every_query_of_the_boards_has_data(prometheus, board):
    empty = []
    for panel in json.loads(board.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, text in VARIABLES.items():
                expression = expression.replace(variable, text)
            if not prometheus.query(expression):
                empty.append((panel["title"], expression))
    assert empty == []


def test_rabbitmqs_overview_joins_its_series(prometheus):
    """The form of its queries: a sum of a metric, joined with the node's identity."""
    identity = ('* on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) '
                'rabbitmq_identity_info{rabbitmq_cluster=~"inver@.+", namespace="", rabbitmq_endpoint="aggregated"}')
    for name in OVERVIEW_SERIES:
        expression = f"rate({name}[15s])" if name.endswith(("_total", "_bucket", "_sum", "_count")) else name
        assert prometheus.query(f"sum({expression} {identity}) by (rabbitmq_node)"), name
    received = prometheus.query('sum(increase(rabbitmq_global_messages_received_total[5m])) by (protocol)')
    # Nothing comes by the stream protocol.
    assert len(received) == 4 and sum(value > 0 for value in received) == 3
    sizes = f'sum(increase(rabbitmq_message_size_bytes_bucket{{le="%s"}}[5m]) {identity})'
    small, every = prometheus.query(sizes % "100.0"), prometheus.query(sizes % "+Inf")
    assert small[0] > 0 and small == pytest.approx(every, rel=0.1)
    assert all(prometheus.query(sizes % bound) for bound in ("1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "5e+07", "1e+08"))


def test_no_alert_is_raised_by_ordinary_traffic(prometheus):
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 15 and all(rule["health"] == "ok" for rule in rules), rules
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
