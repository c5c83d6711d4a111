"""What changes while the broker runs: configuration, certificates; permissions of its files; `inver config check`."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import urllib.request

import pytest

from clients import WAIT_SECONDS, Mqtt, amqp, kafka_read, mqtt
from harness import binary, free_port, run, wait_until
from proxies import Authority


@pytest.fixture
def configured(own_broker, tmp_path):
    """Starts a broker with a configuration file that tests rewrite."""

    def start(text="", **options):
        path = tmp_path / "inver.toml"
        path.write_text(text)
        broker = own_broker(start=False, arguments=["--config", path], **options)
        broker.config = path
        return broker.start()

    return start


def hangup(broker, says):
    """Sends SIGHUP and waits for a line of the log that was not there before."""
    before = len(broker.log())
    broker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: says in broker.log()[before:], what=f"`{says}` in the log")
    return broker.log()[before:]


def reload(broker, *arguments, check=True, stdin=None):
    return run([binary(), "reload", "--config", broker.config, *arguments], env=broker.environment, check=check, stdin=stdin)


def add_user(config, name, password):
    run([binary(), "user", "add", name, "--config", config], stdin=password.encode() + b"\n")


def test_users_of_the_file_change_and_connections_stay(configured):
    line = run([binary(), "user", "add", "bob", "--print"], stdin=b"secret\n").stdout.decode()
    broker = configured(f"[users]\n{line}")
    with mqtt(broker, user=("bob", "secret")) as client:
        client.subscribe("a")
        add_user(broker.config, "ann", "secret")
        new = hangup(broker, "configuration reloaded")
        assert "new: ann" in new and "argon2id" not in new
        with mqtt(broker, user=("ann", "secret")) as ann:
            ann.publish("a", b"x")
        assert client.get().payload == b"x", "a connection from before stays"
        assert Mqtt(broker).reason.is_failure
        # Over HTTP it takes an administrator now.
        denied = reload(broker, check=False)
        assert denied.returncode == 1
        text = broker.config.read_text()
        broker.config.write_text("")
        hangup(broker, "gone: ann")
        broker.config.write_text(text)
    reload(broker)
    assert Mqtt(broker).reason.is_failure


def test_a_reload_over_http_needs_an_administrator(configured):
    config = ""
    for name, tags in (("root", '["administrator"]'), ("eve", '["management"]')):
        line = run([binary(), "user", "add", name, "--print"], stdin=b"secret\n").stdout.decode().split("=", 1)[1].strip()
        config += f"[users.{name}]\npassword = {line}\ntags = {tags}\n"
    broker = configured(config)
    assert reload(broker, "--login", "root", stdin=b"secret\n").stdout == b"reloaded\n"
    for name, password, status in (("eve", b"secret\n", b"administrator"), ("root", b"wrong\n", b"wrong")):
        refused = reload(broker, "--login", name, stdin=password, check=False)
        assert refused.returncode == 1 and status in refused.stderr, refused.stderr
    assert reload(broker, check=False).returncode == 1
    assert broker.get("/api/v1/reload")[0] in (401, 405)


def test_a_bad_configuration_changes_nothing_and_says_why(configured, tmp_path):
    broker = configured('[logging]\nfilter = "info"\n')
    for text, says in (
        ("nonsense = 1\n", "unknown key `nonsense`"),
        ('[[listeners]]\nprotocol = "mqtt"\naddress = "127.0.0.1:1"\ntls_cert = "/none"\ntls_key = "/none"\n', "/none"),
        (f'[[listeners]]\nprotocol = "mqtt"\naddress = "127.0.0.1:{broker.kafka_port}"\n', "is taken by kafka.listen"),
        ("[users]\nann = \"plain\"\n", "inver user add ann"),
    ):
        broker.config.write_text('[logging]\nfilter = "error"\n' + text if not text.startswith("nonsense") else text)
        assert says in hangup(broker, "reload refused, nothing was changed")
        refused = reload(broker, check=False)
        assert refused.returncode == 1 and says.encode() in refused.stderr
        with mqtt(broker) as client:
            client.publish("x", b"y")
    # An address that another program has: found only when it is bound.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port, free = taken.getsockname()[1], free_port()
        broker.config.write_text("".join(
            f'[[listeners]]\nprotocol = "mqtt"\naddress = "127.0.0.1:{each}"\n' for each in (free, port)))
        assert f"port {port}" in hangup(broker, "reload refused, nothing was changed")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free), 2)


def test_a_reload_reports_what_changed_and_what_needs_a_restart(configured):
    broker = configured()
    broker.config.write_text("""
[limits]
queues_max = 12
connections_max = 77
[log]
commit_interval_ms = 77
[logging]
filter = "debug"
[[capture.rules]]
filter = "sensors/#"
topic = "sensors"
""")
    said = reload(broker).stdout.decode().splitlines()
    changed = {line.split(": ")[1] for line in said if line.startswith("changed: ")}
    assert changed == {"limits.queues_max", "limits.connections_max", "logging.filter", "capture.rules"}
    assert [line.split(": ")[1] for line in said if line.startswith("needs a restart: ")] == ["log.commit_interval_ms"]
    assert "setting needs a restart" in broker.log()
    with mqtt(broker) as client:
        client.publish("sensors/1", b"captured")
        client.publish("other", b"not captured")
    assert [record.value() for record in kafka_read(broker, "sensors", 1)] == [b"captured"]
    assert "DEBUG" in broker.log()
    with amqp(broker) as channel, pytest.raises(Exception, match="queues"):
        for number in range(13):
            channel.queue_declare(f"q{number}")
    # Once more: only what still needs a restart.
    said = reload(broker).stdout.decode()
    assert "changed" not in said and "log.commit_interval_ms" in said


def test_listeners_come_and_go_and_connections_stay(configured):
    first, second = free_port(), free_port()
    entry = '[[listeners]]\nname = "{}"\nprotocol = "mqtt"\naddress = "127.0.0.1:{}"\n'
    broker = configured(entry.format("first", first))
    with mqtt(broker, port=first) as client:
        client.subscribe("a")
        broker.config.write_text(entry.format("second", second) + 'anonymous = "never"\n')
        hangup(broker, "configuration reloaded")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first), 2)
        assert Mqtt(broker, port=second).reason.is_failure
        broker.config.write_text(entry.format("second", second))
        hangup(broker, "configuration reloaded")
        with mqtt(broker, port=second) as other:
            other.publish("a", b"x")
        assert client.get().payload == b"x"


def test_hangup_never_ends_the_process(own_broker):
    broker = own_broker(start=False)
    broker.spawn()
    wait_until(lambda: "starting" in broker.log(), what="the first line")
    # The log opens after the signals are taken.
    wait_until(lambda: broker.data.exists() and any(broker.data.iterdir()), what="the data folder")
    for _ in range(20):
        broker.process.send_signal(signal.SIGHUP)
    wait_until(broker.is_ready)
    wait_until(lambda: "configuration reloaded" in broker.log(), what="a reload")
    assert broker.stop() == 0


# ---- Certificates


def presented(port, authority):
    """The certificate that a server presents."""
    context = ssl.create_default_context(cafile=authority.cert)
    with socket.create_connection(("localhost", port), 5) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            return tls.getpeercert(binary_form=True)


def der(cert):
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


@pytest.mark.parametrize("how", ["hangup", "by itself"])
def test_a_replaced_certificate_is_used_for_new_connections(configured, tmp_path, how):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost")
    port, interval = free_port(), 0 if how == "hangup" else 20
    broker = configured(f"""
[tls]
poll_interval_ms = {interval}
[mqtt]
tls_listen = "127.0.0.1:{port}"
tls_cert = "{cert}"
tls_key = "{key}"
""")
    with mqtt(broker, port=port, host="localhost", authority=authority.cert) as client:
        client.subscribe("a")
        assert presented(port, authority) == der(cert)
        new_cert, new_key = authority.sign("localhost", file="new")
        if how == "by itself":
            # A certificate without its key: the former one stays in use.
            old = der(cert)
            os.replace(new_cert, cert)
            wait_until(lambda: "the former ones stay" in broker.log(), what="the mismatch in the log")
            assert presented(port, authority) == old
            os.replace(new_key, key)
            wait_until(lambda: "loaded changed certificate files" in broker.log(), what="the new certificate")
        else:
            os.replace(new_cert, cert)
            os.replace(new_key, key)
            hangup(broker, "configuration reloaded")
        assert presented(port, authority) == der(cert)
        client.publish("a", b"x")
        assert client.get().payload == b"x", "a connection from before stays"


def test_a_key_that_others_may_read_is_warned_of(configured, tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost")
    key.chmod(0o644)
    broker = configured(f'[amqp]\ntls_listen = "127.0.0.1:{free_port()}"\ntls_cert = "{cert}"\ntls_key = "{key}"\n')
    assert f"the private key {key} is open to every user of this machine (mode 0644)" in broker.log()


# ---- Files


def test_the_data_folder_is_private(own_broker):
    broker = own_broker()
    with mqtt(broker) as client:
        client.publish("x", b"y")
    def open_to_others():
        return [path for path in [broker.data, *broker.data.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert open_to_others() == []
    assert broker.stop() == 0
    broker.data.chmod(0o755)
    broker.start()
    assert open_to_others() == [] and "its mode is now 0700" in broker.log()


def test_users_added_at_once_are_all_kept(tmp_path):
    config = tmp_path / "inver.toml"
    config.write_text("# kept\n")
    names = [f"u{number}" for number in range(5)]
    adding = [subprocess.Popen([binary(), "user", "add", name, "--config", config], stdin=subprocess.PIPE,
                               stderr=subprocess.DEVNULL) for name in names]
    for process in adding:
        process.stdin.write(b"secret\n")
        process.stdin.close()
    assert [process.wait(60) for process in adding] == [0] * len(names)
    text = config.read_text()
    assert text.startswith("# kept") and all(f"{name} = " in text for name in names), text
    assert [path.name for path in tmp_path.iterdir()] == ["inver.toml"]


def test_users_from_a_file(own_broker, tmp_path):
    secret = tmp_path / "users"
    add_user(tmp_path / "inver.toml", "ann", "secret")
    secret.write_text((tmp_path / "inver.toml").read_text().replace("[users]", ""))
    broker = own_broker(environment={"INVER_USERS_FILE": str(secret)})
    assert "unknown variable" not in broker.log()
    with mqtt(broker, user=("ann", "secret")) as client:
        client.publish("x", b"y")
    assert Mqtt(broker).reason.is_failure
    broker.environment["INVER_USERS_FILE"] = str(tmp_path / "none")
    done = run([binary(), "config", "check"], env=broker.environment, check=False)
    assert done.returncode == 1 and b"INVER_USERS_FILE" in done.stderr and b"none" in done.stderr


# ---- config check


def test_config_check_opens_files_and_compares_listeners(tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("localhost")
    path = tmp_path / "inver.toml"

    def check(text):
        path.write_text(text)
        done = run([binary(), "config", "check", "--config", path], check=False, env={"PATH": os.environ["PATH"]})
        return done.returncode, done.stderr.decode()

    listener = f'[[listeners]]\nprotocol = "mqtt"\naddress = "0.0.0.0:1883"\ntls_cert = "{cert}"\ntls_key = "{key}"\n'
    assert check(listener) == (0, "")
    for text, says in (
        (listener.replace(str(key), "/none"), "private key /none"),
        (listener.replace(str(key), str(cert)), "private key"),
        (listener.replace(str(cert), "/none"), "certificate chain /none"),
        (listener + 'tls_min_version = "1.1"\n', "`1.2` or `1.3`"),
        (listener + '[mqtt]\nlisten = "127.0.0.1:1883"\n', "127.0.0.1:1883"),
        ('[kafka]\ntls_listen = "127.0.0.1:1"\n', "kafka.tls_cert"),
        ('[mqtt]\nacl_file = "/none"\n', "mqtt.acl_file: /none"),
        ('[logging]\nfilter = "warning"\n', "`warning` is no level"),
        ('[logging]\nfilter = "off"\n', "silences"),
        ('[logging]\nfilter = "hyper=debug"\n', "silences"),
        ('[capture]\nrules = [{filter = "a/#/b", topic = "x"}]\n', "a/#/b"),
        ('[capture]\nrules = [{filter = "a/+", topic = "bad topic!"}]\n', "bad topic!"),
        ('[capture]\nrules = [{filter = "a/+", topic = "x", key = "{3}"}]\n', "{3}"),
        ("".join(f'[{name}]\nlisten = "off"\n' for name in ("amqp", "kafka", "stream", "http"))
         + '[mqtt]\nlisten = "off"\nwebsocket_listen = "off"\n', "every listener is `off`"),
        ('[users]\nann = "$2b$31$abcdefghijklmnopqrstuuKQ6fYvZ7lW0vSYnqWZ6YQ6Kq1kq1kqy"\n', "bcrypt cost of 31"),
        ('[users]\nann = "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo"\n', "ann"),
    ):
        code, said = check(text)
        assert code == 1 and says in said, said
        lines = said.strip().splitlines()
        assert len(lines) == (1 if "acl_file" in text else 2), f"one problem, said once: {said}"
        refused = run([binary(), "serve", "--config", path], check=False, cwd=tmp_path,
                      env={"PATH": os.environ["PATH"], "INVER_DATA_DIR": str(tmp_path / "data")})
        assert refused.returncode == 1 and lines[-1] in refused.stderr.decode(), "`serve` says the same"


def test_config_show_prints_values_sources_and_no_secrets(tmp_path):
    line = run([binary(), "user", "add", "ann", "--print"], stdin=b"secret\n").stdout.decode()
    path, secret = tmp_path / "inver.toml", tmp_path / "commit"
    path.write_text(f'[mqtt]\nlisten = "127.0.0.1:1"\n[users]\n{line}')
    secret.write_text("os\n")
    environment = {"PATH": os.environ["PATH"], "INVER_LOG_COMMIT_FILE": str(secret), "INVER_HTTP_LISTEN": "127.0.0.1:2"}

    def show(*arguments):
        return run([binary(), "config", "show", "--config", path, *arguments], env=environment).stdout.decode()

    text = show()
    assert f"mqtt.listen = 127.0.0.1:1  # {path}:2\n" in text and "http.listen = 127.0.0.1:2  # INVER_HTTP_LISTEN\n" in text
    assert "log.commit = os  # INVER_LOG_COMMIT_FILE\n" in text and "kafka.listen = 127.0.0.1:9092  # default\n" in text
    assert f"users = ***  # {path}:3\n" in text and "argon2" not in text
    listed = {key["name"]: key for key in json.loads(show("--set", "--format", "json"))}
    assert sorted(listed) == ["http.listen", "log.commit", "mqtt.listen", "users"]
    assert listed["mqtt.listen"] == {
        "name": "mqtt.listen", "value": "127.0.0.1:1", "default": "127.0.0.1:1883", "source": f"{path}:2"}
    assert listed["users"]["value"] == "***"


def test_an_error_of_the_start_is_said_once(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    file.chmod(0o640)
    done = run([binary(), "serve"], check=False, cwd=tmp_path,
               env={"PATH": os.environ["PATH"], "INVER_DATA_DIR": str(file)})
    assert done.returncode == 1 and done.stderr.count(b"os error") == 1, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o640 and b"mode is now" not in done.stderr
