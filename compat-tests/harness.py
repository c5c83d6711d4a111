"""Starts the built binary on free ports with a new data folder, and stops it by its process id.

Nothing sleeps for a fixed time: everything waits for a condition with a deadline. Ports come from one counter
under a lock, outside the ephemeral range, so that parallel test processes never use the same port.
"""

import contextlib
import fcntl
import http.client
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLIENTS = pathlib.Path(os.environ.get("INVER_TEST_CLIENTS", ROOT / "target" / "compat"))
PORTS = range(11000, 31000)
READY_SECONDS = 20
END_SECONDS = 20


def binary():
    """The broker binary: INVER_TEST_BINARY, or the newest that cargo built."""
    named = os.environ.get("INVER_TEST_BINARY")
    if named:
        return pathlib.Path(named)
    built = [ROOT / "target" / kind / "inver" for kind in ("release", "debug")]
    built = [path for path in built if path.exists()]
    if not built:
        raise RuntimeError("there is no binary: run `cargo build` first")
    return max(built, key=lambda path: path.stat().st_mtime)


def free_port():
    """A free port that no other test received recently."""
    CLIENTS.mkdir(parents=True, exist_ok=True)
    with open(CLIENTS / "next-port", "a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        at = int(counter.read() or 0)
        for _ in PORTS:
            at = (at + 1) % len(PORTS)
            port = PORTS[at]
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            counter.seek(0)
            counter.truncate()
            counter.write(str(at))
            return port
    raise RuntimeError("no port is free")


def wait_until(condition, seconds=10, what="the condition"):
    """Waits until `condition()` is true and returns its value."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


class Broker:
    """One broker with its own folder and ports; can be killed and started again on both."""

    LISTENERS = {
        "kafka": "INVER_KAFKA_LISTEN",
        "mqtt": "INVER_MQTT_LISTEN",
        "ws": "INVER_MQTT_WEBSOCKET_LISTEN",
        "amqp": "INVER_AMQP_LISTEN",
        "stream": "INVER_STREAM_LISTEN",
        "http": "INVER_HTTP_LISTEN",
    }

    def __init__(self, folder, environment=None, arguments=(), prefix=()):
        self.folder = pathlib.Path(folder)
        self.prefix = list(prefix)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.arguments = list(arguments)
        self.ports = {name: free_port() for name in self.LISTENERS}
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("INVER_")},
            "INVER_DATA_DIR": str(self.data),
            **{variable: f"127.0.0.1:{self.ports[name]}" for name, variable in self.LISTENERS.items()},
            **(environment or {}),
        }
        self.log_path = self.folder / "broker.log"
        self.process = None
        self.checked = 0

    kafka_port = property(lambda self: self.ports["kafka"])
    mqtt_port = property(lambda self: self.ports["mqtt"])
    ws_port = property(lambda self: self.ports["ws"])
    amqp_port = property(lambda self: self.ports["amqp"])
    stream_port = property(lambda self: self.ports["stream"])
    http_port = property(lambda self: self.ports["http"])
    kafka = property(lambda self: f"127.0.0.1:{self.kafka_port}")
    amqp = property(lambda self: f"amqp://guest:guest@127.0.0.1:{self.amqp_port}")

    def spawn(self):
        """Starts the process without waiting for readiness."""
        assert self.process is None
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, binary(), "serve", *self.arguments],
                env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        return self

    def start(self):
        self.spawn()
        wait_until(self.is_ready, READY_SECONDS, "being ready")
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the broker ended with {self.process.returncode}:\n{self.log()[-4000:]}")
        try:
            return self.get("/health/ready")[0] == 200
        except OSError:
            return False

    def get(self, path):
        """Status and body of an HTTP request."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error

    def metric(self, name, label=""):
        """The sum of the samples of a metric, or of those with a label."""
        lines = self.get("/metrics")[1].splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines
                  if line.split("{")[0].split(" ")[0] == name and label in line]
        return sum(values) if values else None

    def kill(self):
        """Sends SIGKILL, like a crash."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(END_SECONDS)
        self.process = None

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None

    def restart(self):
        assert self.stop() == 0, self.log()[-4000:]
        return self.start()

    def log(self):
        """The whole lines so far: a line that is being written may be seen in part."""
        written = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return written[:written.rfind("\n") + 1]

    def rss_bytes(self, kind="VmRSS"):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith(f"{kind}:"))
        return int(line.split()[1]) * 1024

    def check(self):
        """Checks that the process runs and has not panicked since the last check."""
        text = self.log()
        new, self.checked = text[self.checked:], len(text)
        assert "panicked" not in new, new[-4000:]
        if self.process is not None:
            assert self.process.poll() is None, f"the broker ended with {self.process.returncode}:\n{new[-4000:]}"

    def end(self):
        """Stops the process in any state."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def run(arguments, timeout=60, stdin=None, check=True, **options):
    """Runs a client program; a failure shows its output."""
    done = subprocess.run(
        [str(argument) for argument in arguments], input=stdin, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{arguments[0]} ended with {done.returncode}\n"
            f"{done.stdout.decode(errors='replace')[-3000:]}\n{done.stderr.decode(errors='replace')[-3000:]}"
        )
    return done
