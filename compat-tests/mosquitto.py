"""Mosquitto as a process of its own, and its passwords."""

import base64
import contextlib
import hashlib
import os
import shutil
import subprocess

from clients import mqtt
from harness import END_SECONDS, free_port, wait_until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


def hashed(password):
    """As mosquitto_passwd -H sha512 writes it: Mosquitto takes a salt of 12 bytes only."""
    salt = b"salt twelve."
    digest = hashlib.sha512(password.encode() + salt).digest()
    return f"$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


class Mosquitto:
    """A broker with a data folder of its own, and further lines in its configuration."""

    def __init__(self, folder, more=""):
        self.mqtt_port, self.folder, self.process = free_port(), folder, None
        folder.mkdir()
        self.config = folder / "mosquitto.conf"
        lines = f"""
            user root
            per_listener_settings true
            listener {self.mqtt_port} 127.0.0.1
            allow_anonymous true
            persistence true
            persistence_location {folder}/
            autosave_interval 1
            autosave_on_changes true
            max_queued_messages 0
            log_dest file {folder}/log
        """ + more
        self.config.write_text("\n".join(line.strip() for line in lines.splitlines()))

    def start(self):
        with open(self.folder / "out", "ab") as out:
            self.process = subprocess.Popen([MOSQUITTO, "-c", self.config], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        wait_until(self.is_listening, 20, "Mosquitto's listener")
        return self

    def is_listening(self):
        assert self.process.poll() is None, (self.folder / "out").read_text()
        with contextlib.suppress(OSError), mqtt(self):
            return True
        return False

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(END_SECONDS)
            self.process = None
