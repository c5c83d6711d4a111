"""Rust clients: lapin, and rumqttc over MQTT 3.1.1 and 5. `compat-tests/setup` builds them."""

import pytest

from harness import CLIENTS, run

BUILT = CLIENTS / "rust" / "debug"


def test_lapin(broker, unique):
    assert b"everything as it should be" in run([BUILT / "amqp", broker.amqp + "/%2f", unique]).stdout


@pytest.mark.parametrize("version", [4, 5])
def test_rumqttc(broker, unique, version):
    assert b"everything as it should be" in run([BUILT / "mqtt", broker.mqtt_port, unique, version]).stdout
