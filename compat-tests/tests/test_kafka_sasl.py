"""SASL of Kafka clients: PLAIN and SCRAM, by librdkafka, kafka-python and Kafka's own tools."""

import confluent_kafka
import kafka
import kafka.errors
import pytest
from confluent_kafka.admin import AdminClient

from clients import QUIET, WAIT_SECONDS, java, kafka_tool, wait_until
from harness import binary, run

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.fixture
def keyed_broker(own_broker, tmp_path):
    """A broker with `ann`, who has SCRAM keys, and `bob`, who has none."""
    config = tmp_path / "inver.toml"
    run([binary(), "user", "add", "ann", "--scram", "--config", config], stdin=b"secret, with = and \xc3\xa4\n")
    run([binary(), "user", "add", "bob", "--config", config], stdin=b"secret, with = and \xc3\xa4\n")
    assert "secret" not in config.read_text()
    return own_broker(arguments=["--config", config])


PASSWORD = "secret, with = and ä"
OTHER_PASSWORD = "not the password"
WRONG = (("ann", OTHER_PASSWORD), ("nobody", PASSWORD))


def librdkafka(broker, mechanism, user, password):
    return {
        "bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism,
        "sasl.username": user, "sasl.password": password,
    }


def librdkafka_error(broker, mechanism, user, password):
    """The text of the error with which librdkafka fails to authenticate."""
    said = []
    admin = AdminClient({**librdkafka(broker, mechanism, user, password), "error_cb": said.append})
    def failed():
        admin.poll(0.1)
        return any(error.code() == confluent_kafka.KafkaError._AUTHENTICATION for error in said)
    wait_until(failed, WAIT_SECONDS, "an authentication error")
    return next(error.str() for error in said if error.code() == confluent_kafka.KafkaError._AUTHENTICATION)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_librdkafka(keyed_broker, mechanism):
    broker = keyed_broker
    producer = confluent_kafka.Producer(librdkafka(broker, mechanism, "ann", PASSWORD))
    answers = []
    producer.produce("t", b"value", on_delivery=lambda error, _message: answers.append(error))
    producer.flush(WAIT_SECONDS)
    assert answers == [None]
    for user, password in WRONG:
        text = librdkafka_error(broker, mechanism, user, password)
        kafkas = {"PLAIN": "Invalid username or password"}.get(mechanism, f"SASL mechanism {mechanism}")
        assert "Authentication failed" in text and kafkas in text
    if mechanism != "PLAIN":
        assert "Authentication failed" in librdkafka_error(broker, mechanism, "bob", PASSWORD)
    log = broker.log()
    assert "login refused" in log and PASSWORD not in log and OTHER_PASSWORD not in log


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python(keyed_broker, mechanism):
    options = {
        "bootstrap_servers": keyed_broker.kafka, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism,
    }
    right = {"sasl_plain_username": "ann", "sasl_plain_password": PASSWORD}
    with_user = kafka.KafkaProducer(**options, **right)
    assert with_user.send("t", b"value").get(WAIT_SECONDS).offset == 0
    with_user.close()
    consumer = kafka.KafkaConsumer("t", **options, **right, auto_offset_reset="earliest",
                                   consumer_timeout_ms=WAIT_SECONDS * 1000)
    assert next(consumer).value == b"value"
    consumer.close()
    for user, password in WRONG:
        with pytest.raises(kafka.errors.KafkaError):
            kafka.KafkaAdminClient(**options, sasl_plain_username=user, sasl_plain_password=password,
                                   bootstrap_timeout_ms=2000)


def tool_settings(path, mechanism, user, password):
    module = "plain.Plain" if mechanism == "PLAIN" else "scram.Scram"
    path.write_text(
        f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\n"
        "request.timeout.ms=10000\ndefault.api.timeout.ms=15000\n"
        f"sasl.jaas.config=org.apache.kafka.common.security.{module}LoginModule required "
        f'username="{user}" password="{password}";\n')
    return path


def test_kafka_tools(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    run([binary(), "user", "add", "ann", "--scram", "--config", config], stdin=b"secret\n")
    broker = own_broker(arguments=["--config", config])
    at = ["--bootstrap-server", broker.kafka]
    for mechanism in MECHANISMS:
        topic = f"by-{mechanism}"
        right = tool_settings(tmp_path / f"{mechanism}.properties", mechanism, "ann", "secret")
        kafka_tool("TopicCommand", *at, "--command-config", right, "--create", "--topic", topic)
        assert topic in kafka_tool("TopicCommand", *at, "--command-config", right, "--list").split()
    wrong = tool_settings(tmp_path / "wrong.properties", "SCRAM-SHA-512", "ann", OTHER_PASSWORD)
    said = java("console", "org.apache.kafka.tools.TopicCommand", *at, "--command-config", wrong, "--list", check=False)
    assert "invalid credentials with SASL mechanism SCRAM-SHA-512" in said


def test_without_users_there_is_no_scram(broker):
    said = librdkafka_error(broker, "SCRAM-SHA-256", "guest", "guest")
    assert "PLAIN" in said, said
    admin = AdminClient(librdkafka(broker, "PLAIN", "guest", "guest"))
    assert admin.list_topics(timeout=WAIT_SECONDS).brokers
