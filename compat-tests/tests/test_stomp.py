"""The example STOMP server (examples/stomp) with a STOMP client that others wrote."""

import queue
import signal
import subprocess

import pytest
import stomp

from harness import ROOT, free_port, wait_until


@pytest.fixture(scope="module")
def binary():
    """The example's binary, built if it is not."""
    subprocess.run(["cargo", "build", "-q", "-p", "inver-stomp-example"], cwd=ROOT, check=True)
    return ROOT / "target" / "debug" / "inver-stomp-example"


@pytest.fixture
def server(binary, tmp_path):
    """Starts the server on one folder and port; returns a function that kills it and starts it again."""
    port, started = free_port(), []

    def start():
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
        started[:] = [subprocess.Popen([binary, f"127.0.0.1:{port}", str(tmp_path / "data")])]
        return port

    yield start
    for process in started:
        process.kill()
        process.wait()


class Inbox(stomp.ConnectionListener):
    """What a client receives."""

    def __init__(self):
        self.messages, self.receipts, self.errors = queue.Queue(), queue.Queue(), queue.Queue()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.errors.put(frame.headers["message"])


def connect(port, **options):
    """A connected client and its inbox."""
    inbox = Inbox()

    def connected():
        connection = stomp.Connection12([("127.0.0.1", port)], reconnect_attempts_max=1)
        connection.set_listener("", inbox)
        try:
            connection.connect("guest", "guest", wait=True, **options)
        except stomp.exception.ConnectFailedException:
            return None
        return connection

    return wait_until(connected, what="a connection"), inbox


def test_messages_survive_a_kill_once_their_receipt_came(server):
    client, inbox = connect(server())
    for number in range(20):
        client.send("/queue/orders", f"order {number}", content_type="text/plain",
                    headers={"colour": "a:b\\c", "receipt": str(number)})
    assert [inbox.receipts.get(timeout=10) for _ in range(20)] == [str(number) for number in range(20)]
    client, inbox = connect(server())
    client.subscribe("/queue/orders", id="s", ack="client-individual")
    frames = [inbox.messages.get(timeout=10) for _ in range(20)]
    assert [frame.body for frame in frames] == [f"order {number}" for number in range(20)]
    assert {frame.headers["colour"] for frame in frames} == {"a:b\\c"}
    assert {frame.headers["content-type"] for frame in frames} == {"text/plain"}
    client.disconnect()


def test_acknowledged_messages_are_not_delivered_again(server):
    port = server()
    client, inbox = connect(port)
    for number in range(10):
        client.send("work", str(number))
    client.subscribe("work", id="s", ack="client-individual")
    for frame in [inbox.messages.get(timeout=10) for _ in range(10)]:
        if int(frame.body) % 2 == 0:
            client.ack(frame.headers["ack"], receipt=frame.body)
            assert inbox.receipts.get(timeout=10) == frame.body
    client.disconnect()
    client, inbox = connect(port)
    client.subscribe("work", id="s", ack="auto")
    assert sorted(inbox.messages.get(timeout=10).body for _ in range(5)) == ["1", "3", "5", "7", "9"]
    client.disconnect()


def test_a_client_is_told_what_it_did_wrong(server):
    client, inbox = connect(server())
    client.begin()
    assert inbox.errors.get(timeout=10) == "unknown command, or not allowed here"
