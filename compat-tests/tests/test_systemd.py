"""The unit of docs/running.md under systemd: a user instance of its own, in a mount namespace of its own."""

import configparser
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from clients import mqtt
from harness import ROOT, Broker, binary, run, wait_until

MANAGER = pathlib.Path("/usr/lib/systemd/systemd")
# Other containers of the machine are not affected by what is mounted and moved here.
START = """
mkdir -p "$TEST_GROUP" && echo $$ > "$TEST_GROUP/cgroup.procs" || exit 1
exec unshare --cgroup --mount sh -c '
    mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 1
    exec "$0" --user --log-target=console --unit=basic.target' "$TEST_MANAGER"
"""
# What needs the machine's own instance, or the rights of another user.
FOR_SYSTEM = ("User", "StateDirectory", "StateDirectoryMode", "NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp")


def group():
    """The folder of a control group for the manager, beside those of others."""
    lines = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
    own = {controllers: path for _, controllers, path in lines}
    root = pathlib.Path("/sys/fs/cgroup")
    if "name=systemd" in own and (root / "systemd").is_dir():
        return root / "systemd" / own["name=systemd"].lstrip("/") / f"inver-test-{os.getpid()}"
    return root / own.get("", "/").lstrip("/") / f"inver-test-{os.getpid()}"


def unit(broker):
    """The documented unit, with what this broker needs, as text."""
    [_, text] = (ROOT / "docs/running.md").read_text().split("```ini\n[Unit]\n", 1)
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str
    parsed.read_string("[Unit]\n" + text.split("```", 1)[0])
    service = parsed["Service"]
    assert service["Type"] == "notify-reload" and service["Restart"] == "on-failure" and int(service["WatchdogSec"]) == 30
    version = int(run([MANAGER, "--version"]).stdout.split()[1])
    if version < 253:
        # As the page says.
        service["Type"], service["ExecReload"] = "notify", "kill -HUP $MAINPID"
    for key in FOR_SYSTEM:
        service.pop(key, None)
    service["ExecStart"] = f"{binary()} serve --config {broker.folder / 'inver.toml'}"
    service["WatchdogSec"] = "10"
    service["LimitNOFILE"] = "infinity"
    variables = [f'"{name}={value}"' for name, value in broker.environment.items() if name.startswith("INVER_")]
    service["Environment"] = " ".join(variables)
    del parsed["Install"], parsed["Unit"]["After"], parsed["Unit"]["Wants"]
    lines = []
    for section in parsed.sections():
        lines += [f"[{section}]", *(f"{key}={value}" for key, value in parsed[section].items())]
    return "\n".join(lines) + "\n"


class Systemd:
    """A user instance of systemd."""

    def __init__(self, folder):
        self.folder = folder
        self.group = group()
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder),
                            "XDG_CONFIG_HOME": str(folder / "config"), "TEST_GROUP": str(self.group),
                            "TEST_MANAGER": str(MANAGER)}
        (folder / "run/systemd").mkdir(parents=True, mode=0o700)
        (folder / "run").chmod(0o700)
        self.units = folder / "config/systemd/user"
        self.units.mkdir(parents=True)
        self.log = folder / "systemd.log"

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["sh", "-c", START], env=self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        socket = self.folder / "run/systemd/private"
        wait_until(lambda: socket.exists() or self.process.poll() is not None, 30, "the manager")
        return socket.exists()

    def control(self, *arguments, check=True):
        return run(["systemctl", "--user", *arguments], env=self.environment, check=check)

    def shows(self, name):
        return self.control("show", "inver", "-p", name, "--value").stdout.decode().strip()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        for folder, _, _ in os.walk(self.group, topdown=False):
            os.rmdir(folder)


@pytest.fixture
def systemd():
    if os.geteuid() != 0 or not MANAGER.exists() or not shutil.which("unshare"):
        pytest.skip("this needs root, systemd and unshare")
    # Short, for the names of sockets.
    with tempfile.TemporaryDirectory(prefix="inver-sd-") as folder:
        manager = Systemd(pathlib.Path(folder))
        if not manager.start():
            pytest.skip(f"no instance of systemd starts here: {manager.log.read_text()[-500:]}")
        yield manager
        manager.end()


def test_the_documented_unit(systemd, tmp_path):
    broker = Broker(tmp_path / "broker")
    config = broker.folder / "inver.toml"
    config.write_text("")
    (systemd.units / "inver.service").write_text(unit(broker))

    # It counts as started once clients are accepted.
    systemd.control("start", "inver")
    with mqtt(broker, "keeper", clean=False, expiry=3600) as client:
        client.subscribe("a", qos=1)
    assert systemd.shows("ActiveState") == "active"
    first = systemd.shows("MainPID")

    # A reload changes what runs.
    config.write_text('[logging]\nfilter = "warn"\n')
    systemd.control("reload", "inver")
    wait_until(lambda: '"filter":"warn"' in broker.get("/api/v1/log-level")[1].replace(" ", ""), 20, "the reload")
    assert systemd.shows("MainPID") == first and systemd.shows("NRestarts") == "0"

    # It is started again when it dies, and when it hangs.
    with mqtt(broker) as client:
        client.publish("a", b"acknowledged", qos=1)
    os.kill(int(first), signal.SIGKILL)
    wait_until(lambda: systemd.shows("NRestarts") == "1" and systemd.shows("ActiveState") == "active", 60, "the restart")
    with mqtt(broker, "keeper", clean=False, expiry=3600) as client:
        assert client.take(1) == [b"acknowledged"]
    os.kill(int(systemd.shows("MainPID")), signal.SIGSTOP)
    wait_until(lambda: systemd.shows("NRestarts") == "2" and systemd.shows("ActiveState") == "active", 120,
               "the restart by the watchdog")

    # It ends promptly though a client stays connected, and rightly.
    with mqtt(broker, version=4):
        systemd.control("stop", "inver")
    assert systemd.shows("ActiveState") == "inactive"
    assert (systemd.shows("Result"), systemd.shows("ExecMainStatus")) == ("success", "0")
    spent = int(systemd.shows("InactiveEnterTimestampMonotonic")) - int(systemd.shows("ActiveExitTimestampMonotonic"))
    assert spent < 5_000_000, f"{spent} µs"
