"""Operation of the server: startup, refusals, shutdown, health, metrics, users."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pika.exceptions
import pytest

from clients import Mqtt, amqp, amqp_connection, amqp_get, kafka_read, kafka_send, mqtt
from harness import ROOT, Broker, binary, free_port, run, wait_until

# What only this process has, and all that is mapped: mostly pages of the program's file.
IDLE_OWN_BYTES_MAX = 4 << 20
IDLE_RSS_BYTES_MAX = 22 << 20
READY_SECONDS_MAX = 0.1


def other_address():
    """A non-loopback address of this machine, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # No packet is sent: connecting a datagram socket only selects a route. 192.0.2.1 is reserved for documentation.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def refused(folder, environment=None, arguments=("serve",), config=None):
    """Starts a broker that must refuse to start and returns its message."""
    arguments = list(arguments)
    if config is not None:
        (folder / "inver.toml").write_text(config)
        arguments += ["--config", folder / "inver.toml"]
    environment = {"PATH": os.environ["PATH"], "INVER_DATA_DIR": str(folder / "data"), **(environment or {})}
    done = run([binary(), *arguments], timeout=20, check=False, env=environment)
    assert done.returncode == 1, f"exit code {done.returncode}: {done.stderr}"
    return done.stderr.decode()


def test_health_and_metrics(broker):
    assert broker.get("/health/live") == (200, "live\n")
    assert broker.get("/health/ready") == (200, "ready\n")
    assert broker.get("/nothing")[0] == 404
    with mqtt(broker):
        assert broker.metric("inver_connections_accepted_total") >= 1
        assert broker.metric("process_resident_memory_bytes") > 0
    status, page = broker.get("/metrics")
    assert status == 200 and "# TYPE inver_connections gauge" in page
    for name in ["commit_seconds", "sync_seconds", "group_entries", "group_bytes", "queue_entries"]:
        assert f"# TYPE inver_log_{name} histogram" in page
        assert f"# HELP inver_log_{name} " in page


def test_the_api_lists_what_clients_created(broker, unique):
    with amqp(broker) as channel:
        channel.queue_declare(unique, durable=True)
        channel.basic_publish("", unique, b"ready")
        kafka_send(broker, f"{unique}-log", b"record")
        wait_until(lambda: json.loads(broker.get(f"/api/v1/queues/{unique}")[1])["ready"] == 1)
        topics = json.loads(broker.get(f"/api/v1/topics?filter={unique}")[1])
        assert [(item["name"], item["kind"], item["records"]) for item in topics["items"]] == [
            (unique, "queue", 1), (f"{unique}-log", "log", 1)]
        channel.queue_delete(unique)
    status, problem = broker.get(f"/api/v1/queues/{unique}")
    assert status == 404 and json.loads(problem)["title"] == "Not Found"
    assert json.loads(broker.get("/api/v1/overview")[1])["namespaces"][0]["topics"] >= 1


def test_startup_time_and_idle_memory(own_broker, tmp_path, monkeypatch):
    """Ready in 100 ms on an empty folder, at most 22 MiB when idle. The best of five: the machine is shared."""
    is_release = "release" in str(binary()) or "INVER_TEST_BINARY" in os.environ
    # As the image has it: without what debuggers read, of which the kernel maps megabytes beside the code.
    subprocess.run(["strip", "-o", tmp_path / "inver", binary()], check=True)
    monkeypatch.setenv("INVER_TEST_BINARY", str(tmp_path / "inver"))
    best = 9.0
    for _ in range(5):
        broker = own_broker(start=False)
        begun = time.monotonic()
        broker.spawn()
        while True:
            with socket.socket() as probe:
                try:
                    probe.connect(("127.0.0.1", broker.kafka_port))
                    break
                except OSError:
                    assert time.monotonic() < begun + 20
                    time.sleep(0.001)
        best = min(best, time.monotonic() - begun)
        wait_until(broker.is_ready)
        # What the start needed is given back a moment later.
        wait_until(lambda: broker.rss_bytes("RssAnon") <= IDLE_OWN_BYTES_MAX, what="at most 4 MiB of its own when idle")
        assert broker.rss_bytes() <= IDLE_RSS_BYTES_MAX
        broker.end()
    if is_release:
        assert best <= READY_SECONDS_MAX, f"ready after {best * 1000:.0f} ms"


def test_an_unknown_key_names_the_nearest(tmp_path):
    said = refused(tmp_path, config='[kafka]\nlissten = "off"\n')
    assert "inver.toml:2" in said and "`kafka.lissten`" in said and "`kafka.listen`" in said


def test_all_problems_of_a_configuration_are_reported(tmp_path):
    said = refused(tmp_path, {"INVER_HTTP_LISTEN": "nowhere"}, config='[log]\ncommit = "maybe"\n')
    assert "INVER_HTTP_LISTEN" in said and "`always`, `interval`, `os`" in said


def test_config_check(tmp_path):
    path = tmp_path / "inver.toml"
    path.write_text('data_dir = "x"\n[mqtt]\nlisten = "127.0.0.1:1884"\n')
    assert b"valid" in run([binary(), "config", "check", "--config", path]).stdout
    path.write_text('datadir = "x"\n')
    done = run([binary(), "config", "check", "--config", path], check=False)
    assert done.returncode == 1 and b"`data_dir`" in done.stderr


def test_config_keys_lists_every_key():
    page = run([binary(), "config", "keys"]).stdout.decode()
    for key in ("INVER_DATA_DIR", "INVER_LOG_COMMIT", "INVER_KAFKA_LISTEN", "INVER_MQTT_LISTEN",
                "INVER_MQTT_WEBSOCKET_LISTEN", "INVER_AMQP_LISTEN", "INVER_HTTP_LISTEN", "INVER_KAFKA_ADVERTISED"):
        assert key in page


def test_every_listed_key_has_a_description():
    """Before each key: its meaning, as sentences, then its bounds and environment variable."""
    page, section, keys = run([binary(), "config", "keys"]).stdout.decode().splitlines(), "", 0
    for meaning, bounds, line in zip(page, page[1:], page[2:]):
        if line.startswith("["):
            section = line.strip("[]") + "."
        found = re.fullmatch(r"# ([a-z_]+) = .+", line)
        if not found:
            continue
        keys += 1
        variable = "INVER_" + (section + found[1]).upper().replace(".", "_")
        assert bounds.startswith("## ") and bounds.endswith(f" ({variable})"), f"{section}{found[1]}: {bounds}"
        text = meaning.removeprefix("## ")
        assert len(text) > 15 and text[-1] in ".`" and text[0] in "`" + text[0].upper(), f"{section}{found[1]}: {text}"
    assert keys > 90


def test_a_port_in_use_names_the_key_to_change(own_broker, tmp_path):
    broker = own_broker()
    environment = {name: "off" for name in Broker.LISTENERS.values()}
    environment["INVER_AMQP_LISTEN"] = f"127.0.0.1:{broker.amqp_port}"
    said = refused(tmp_path, environment)
    assert f"port {broker.amqp_port}" in said and "`amqp.listen`" in said and "INVER_AMQP_LISTEN" in said


def test_a_second_start_on_the_folder_is_refused(own_broker, tmp_path):
    broker = own_broker()
    environment = {name: f"127.0.0.1:{free_port()}" for name in Broker.LISTENERS.values()}
    environment["INVER_DATA_DIR"] = str(broker.data)
    said = refused(tmp_path, environment)
    assert str(broker.data) in said and "another" in said, said
    kafka_send(broker, "still", b"here")


def test_a_listener_can_be_off(own_broker):
    broker = own_broker(environment={"INVER_AMQP_LISTEN": "off"})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.amqp_port), 2)
    with mqtt(broker) as client:
        client.publish("x", b"y")


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_shuts_down_in_order(own_broker, signal_):
    broker = own_broker()
    client, connection = Mqtt(broker), amqp_connection(broker)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True)
    channel.basic_publish("", "kept", b"before")
    kafka_send(broker, "kept-too", b"before")
    process, broker.process = broker.process, None
    begun = time.monotonic()
    process.send_signal(signal_)
    assert process.wait(20) == 0, broker.log()
    assert time.monotonic() - begun < 4, "a client that does not read delays shutdown by seconds at most"
    assert "shutting down" in str(client.disconnects.get(timeout=5)).lower(), "MQTT 5 clients get a reason"
    client.client.loop_stop()
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="320"):
        connection.process_data_events(5)
    broker.start()
    with amqp(broker) as channel:
        assert amqp_get(channel, "kept")[2] == b"before"
    assert kafka_read(broker, "kept-too", 1)[0].value() == b"before"


def mqtt_311(broker):
    """A socket after a CONNECT of MQTT 3.1.1, which the client then leaves alone."""
    client = socket.create_connection(("127.0.0.1", broker.mqtt_port), 5)
    client.sendall(bytes.fromhex("101000044d5154540402000000046964") + os.urandom(1).hex()[:2].encode())
    assert client.recv(4) == bytes.fromhex("20020000")
    return client


def test_a_stop_does_not_wait_for_clients_that_keep_their_sockets_open(own_broker):
    broker = own_broker()
    idle = [mqtt_311(broker) for _ in range(3)]
    idle.append(socket.create_connection(("127.0.0.1", broker.kafka_port), 5))
    # An AMQP client whose thread is busy does not answer connection.close.
    amqp_connection(broker)
    process, broker.process = broker.process, None
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    for client in idle:
        client.settimeout(1)
        assert client.recv(10) == b"", "closed at once"
    assert time.monotonic() - begun < 0.5
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 2.5


def notifications(folder):
    """A socket like that of a service manager."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(folder / "notify"))
    receiver.settimeout(10)
    return receiver


def test_a_service_manager_learns_of_start_reload_and_stop(own_broker, tmp_path):
    with notifications(tmp_path) as receiver:
        # Certificates are checked more often than the watchdog is answered.
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000",
                       "INVER_TLS_POLL_INTERVAL_MS": "50"}
        broker = own_broker(environment=environment)

        def told(wanted):
            while True:
                lines = receiver.recv(4096).decode().splitlines()
                if wanted in lines:
                    return lines

        told("READY=1")
        for _ in range(3):
            told("WATCHDOG=1")
        broker.process.send_signal(signal.SIGHUP)
        assert any(line.startswith("MONOTONIC_USEC=") for line in told("RELOADING=1"))
        told("READY=1")
        broker.process.send_signal(signal.SIGTERM)
        told("STOPPING=1")
        assert broker.process.wait(10) == 0
        broker.process = None


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_accepts_the_unit_of_the_documentation(tmp_path):
    text = (ROOT / "docs" / "running.md").read_text()
    [unit] = re.findall(r"```ini\n(\[Unit\].*?)```", text, re.S)
    version = int(re.search(r"\d+", run(["systemd-analyze", "--version"]).stdout.decode())[0])
    if version < 253:
        assert "`Type=notify-reload` needs systemd 253" in text
        unit = unit.replace("Type=notify-reload", "Type=notify\nExecReload=kill -HUP $MAINPID")
    path = tmp_path / "inver.service"
    path.write_text(unit.replace("/usr/local/bin/inver", str(binary())))
    done = run(["systemd-analyze", "verify", "--man=no", str(path)])
    # It names each line that it does not understand.
    assert "inver.service" not in done.stderr.decode(), done.stderr


@pytest.mark.parametrize("commit", ["always", "interval", "os"])
def test_commit_policies(own_broker, commit):
    broker = own_broker(environment={"INVER_LOG_COMMIT": commit})
    kafka_send(broker, "t", b"one")
    broker.restart()
    kafka_send(broker, "t", b"two")
    assert sorted(record.value() for record in kafka_read(broker, "t", 2)) == [b"one", b"two"]


@pytest.mark.parametrize("kind", ["per-core", "multi-thread"])
def test_runtimes(own_broker, kind):
    broker = own_broker(environment={"INVER_RUNTIME_KIND": kind, "INVER_RUNTIME_THREADS": "3"})
    with mqtt(broker) as client:
        client.subscribe("a/b")
        client.publish("a/b", b"x")
        assert client.get().payload == b"x"


def test_without_users_only_loopback_is_accepted(own_broker):
    address = other_address()
    if address is None:
        pytest.skip("this machine has no address besides loopback")
    broker = own_broker(start=False)
    for name, variable in Broker.LISTENERS.items():
        broker.environment[variable] = f"0.0.0.0:{broker.ports[name]}"
    broker.start()
    for name in Broker.LISTENERS:
        with socket.create_connection((address, broker.ports[name]), 5) as outside:
            outside.settimeout(5)
            try:
                assert outside.recv(1) == b""
            except ConnectionResetError:
                pass
    wait_until(lambda: "inver user add" in broker.log(), what="the log says how to open it")
    with mqtt(broker) as client:
        client.publish("x", b"y")


def user_hash(name, password):
    line = run([binary(), "user", "add", name, "--print"], stdin=password.encode() + b"\n").stdout.decode()
    return line.split("=", 1)[1].strip().strip('"')


def test_users(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    config.write_text("# kept\n")
    run([binary(), "user", "add", "ann", "--config", config], stdin=b"secret\n")
    assert config.read_text().startswith("# kept") and "secret" not in config.read_text()
    broker = own_broker(arguments=["--config", config])
    with mqtt(broker, user=("ann", "secret")) as client:
        client.publish("x", b"y")
    for wrong in (("ann", "wrong"), ("guest", "guest"), None):
        assert Mqtt(broker, user=wrong).reason.is_failure
    with amqp(broker, user="ann", password="secret") as channel:
        channel.queue_declare("q")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        with amqp(broker):
            pass
    address = other_address()
    if address:
        broker.end()
        broker.environment["INVER_MQTT_LISTEN"] = f"0.0.0.0:{broker.mqtt_port}"
        broker.start()
        with mqtt(broker, user=("ann", "secret"), host=address) as client:
            client.publish("x", b"y")


def test_health_command(own_broker):
    broker = own_broker()
    environment = dict(broker.environment)
    assert run([binary(), "health"], env=environment).stdout == b"ready\n"
    broker.stop()
    assert run([binary(), "health"], env=environment, check=False).returncode == 1


def test_connections_are_limited(own_broker):
    broker = own_broker(environment={"INVER_LIMITS_CONNECTIONS_MAX": "20"})
    held = [socket.create_connection(("127.0.0.1", broker.mqtt_port)) for _ in range(40)]
    for each in held:
        each.settimeout(0.5)
    def closed(each):
        try:
            return each.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
    # Beyond the limit connections are closed at once; the others stay until their protocol's login timeout.
    late = [closed(each) for each in held[21:]]
    assert all(late)
    # HTTP has its own limit, so that a full broker is not taken for a dead one.
    assert broker.get("/health/live") == (200, "live\n") and broker.get("/health/ready") == (200, "ready\n")
    assert broker.metric("inver_connections_refused_total") >= 19
    for each in held:
        each.close()
    wait_until(broker.is_ready)
    with mqtt(broker) as client:
        client.publish("x", b"y")


def test_log_verify_and_dump(own_broker):
    broker = own_broker()
    kafka_send(broker, "t", b"a value to find", key=b"k")
    for _ in range(3):
        kafka_send(broker, "t", b"what follows: damage at the very end could be an unfinished write")
    assert broker.stop() == 0
    assert run([binary(), "log", "verify", broker.data]).returncode == 0
    dump = run([binary(), "log", "dump", broker.data]).stdout
    assert len(dump.splitlines()) >= 1
    segments = sorted(path for path in broker.data.rglob("*") if path.is_file() and b"a value to find" in path.read_bytes())
    assert segments, "the record is in the data folder as it was sent"
    data = bytearray(segments[0].read_bytes())
    at = data.index(b"a value to find")
    data[at] ^= 1
    segments[0].write_bytes(data)
    done = run([binary(), "log", "verify", broker.data], check=False)
    assert done.returncode == 1 and segments[0].name.encode() in done.stdout + done.stderr
    # Damaged entries are discarded only with --give-up; the rest stays readable.
    done = run([binary(), "log", "salvage", broker.data], check=False)
    assert done.returncode == 1 and segments[0].name.encode() in done.stdout
    assert segments[0].read_bytes() == data
    assert run([binary(), "log", "salvage", "--give-up", broker.data]).returncode == 0
    assert run([binary(), "log", "verify", broker.data]).returncode == 0
    broker.start()
    assert all(b"what follows" in record.value() for record in kafka_read(broker, "t", 3))
