"""Guesses of passwords by real clients: SCRAM over Kafka and MQTT 5, driven to the limit, and what still gets in."""

import re

import confluent_kafka
import pytest

from clients import QUIET, WAIT_SECONDS, Mqtt, amqp_connection, java, wait_until
from harness import binary, run
from test_mqtt_authentication import BAD_PASSWORD, BUSY, client  # noqa: F401

FAILURES_MAX = 30


@pytest.fixture
def keyed(own_broker, tmp_path):
    """A broker with `ann` and `bob`, who have SCRAM keys."""
    config = tmp_path / "inver.toml"
    for name in ("ann", "bob"):
        run([binary(), "user", "add", name, "--scram", "--config", config], stdin=f"{name}-secret\n".encode())
    return own_broker(arguments=["--config", config])


def refusals(broker):
    """Refused logins by protocol and reason."""
    found = re.findall(r'^inver_logins_total\{([^}]*)\} (\d+)', broker.get("/metrics")[1], re.MULTILINE)
    named = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), int(count)) for labels, count in found]
    return {(each["protocol"], each["reason"]): count for each, count in named if each["result"] == "refused"}


def scram(broker, user, password, mechanism="SCRAM-SHA-256", **more):
    return {"bootstrap.servers": broker.kafka, **QUIET, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism,
            "sasl.username": user, "sasl.password": password, **more}


def produces(broker, user, password, mechanism="SCRAM-SHA-256"):
    producer = confluent_kafka.Producer(scram(broker, user, password, mechanism, **{"message.timeout.ms": 3000}))
    errors = []
    producer.produce("t", b"x", on_delivery=lambda error, _message: errors.append(error))
    producer.flush(WAIT_SECONDS)
    return errors == [None]


def guess(broker, mechanism="SCRAM-SHA-256", password="guess"):
    """The error that a new client of librdkafka tells its application."""
    said = []
    producer = confluent_kafka.Producer({**scram(broker, "ann", password, mechanism), "error_cb": said.append})

    def failed():
        producer.poll(0.02)
        return [error.str() for error in said if error.code() == confluent_kafka.KafkaError._AUTHENTICATION]

    return wait_until(failed, WAIT_SECONDS, "an authentication error")[0]


def use_up(broker, mechanism="SCRAM-SHA-256"):
    for number in range(FAILURES_MAX):
        assert f"invalid credentials with SASL mechanism {mechanism}" in guess(broker, mechanism), number


@pytest.mark.parametrize("mechanism", ("SCRAM-SHA-256", "SCRAM-SHA-512"))
def test_librdkafka_guesses_until_it_is_refused_unseen(keyed, mechanism):
    broker = keyed
    use_up(broker, mechanism)
    for password in ("guess", "ann-secret"):
        said = guess(broker, mechanism, password)
        assert "Authentication failed: too many failed logins of this user from this address, try again later" in said
    counted = refusals(broker)
    assert counted["kafka", "credentials"] == FAILURES_MAX and counted["kafka", "too_many_failures"] >= 2
    # What is counted is the user at the address, whatever the protocol and the mechanism; other users are not affected.
    assert "try again later" in guess(broker, "PLAIN", "ann-secret")
    assert Mqtt(broker, user=("ann", "ann-secret")).reason.value == BUSY
    assert produces(broker, "bob", "bob-secret", mechanism)
    assert Mqtt(broker, user=("bob", "bob-secret")).reason.value == 0


def test_a_password_that_was_right_before_still_is(keyed):
    broker = keyed
    amqp_connection(broker, "ann", "ann-secret").close()
    use_up(broker)
    assert "try again later" in guess(broker)
    amqp_connection(broker, "ann", "ann-secret").close()
    assert produces(broker, "ann", "ann-secret", "PLAIN")
    assert Mqtt(broker, user=("ann", "ann-secret")).reason.value == 0


def test_kafkas_java_client_is_told_why(keyed, tmp_path):
    broker, settings = keyed, tmp_path / "ann.properties"
    settings.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nrequest.timeout.ms=10000\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="ann" password="guess";\n')
    use_up(broker, "SCRAM-SHA-512")
    said = java("console", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.kafka, "--command-config", settings,
                "--list", check=False)
    assert "Authentication failed: too many failed logins of this user from this address, try again later" in said, said


@pytest.mark.parametrize("method", ("SCRAM-SHA-256", "SCRAM-SHA-512"))
def test_mqtt_js_guesses_until_the_server_is_busy(keyed, client, method):  # noqa: F811
    broker = keyed
    guesser = client("mqtt.js", broker, method, "ann", "guess")
    for number in range(FAILURES_MAX):
        assert guesser("connect") == f"refused {BAD_PASSWORD}", number
    assert guesser("connect") == f"refused {BUSY}"
    guesser("secret ann-secret")
    assert guesser("connect") == f"refused {BUSY}", "the right password is not verified"
    assert client("mqtt.js", broker, method, "bob", "bob-secret", "c2")("connect") == "connected"
    counted = refusals(broker)
    assert (counted["mqtt", "credentials"], counted["mqtt", "too_many_failures"]) == (FAILURES_MAX, 2)


def test_guesses_while_connected_count_too(keyed, client):  # noqa: F811
    """AUTH of a client that is connected is a guess as any other."""
    broker = keyed
    for number in range(FAILURES_MAX):
        ann = client("mqtt.js", broker, "SCRAM-SHA-256", "ann", "ann-secret", f"c{number}") if number % 10 == 0 else ann
        ann("secret ann-secret")
        assert ann("connect") == "connected", number
        ann("secret guess")
        assert ann("reauth") == "disconnected 135"
    assert ann("connect") == f"refused {BUSY}"
