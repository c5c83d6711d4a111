"""A Docker daemon for a test: a running one, or one started for the test and stopped after it."""

import os
import pathlib
import shutil
import subprocess
import time


class Unavailable(Exception):
    """The reason why no daemon is available."""


class Daemon:
    """Keeps all of its state in a folder of the test and restores the machine's packet rules at the end."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.process = None
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        if not shutil.which("docker"):
            raise Unavailable("there is no docker command")
        if self.answers():
            return
        if os.geteuid() != 0:
            raise Unavailable("no Docker daemon runs, and only root can start one")
        if not shutil.which("dockerd") or not shutil.which("iptables-save"):
            raise Unavailable("no Docker daemon runs, and there is no dockerd to start")
        self.start()

    def start(self):
        self.rules = subprocess.run(["iptables-save"], capture_output=True, check=False).stdout
        self.forward = pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text()
        address = f"unix://{self.folder}/docker.sock"
        self.environment["DOCKER_HOST"] = address
        with open(self.folder / "dockerd.log", "wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "--pidfile",
                 self.folder / "dockerd.pid", "-H", address], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "dockerd.log").read_text(errors="replace")[-800:]
                self.close()
                raise Unavailable(f"a Docker daemon cannot be started here: {said}")
            time.sleep(0.1)

    def answers(self):
        return subprocess.run(["docker", "version"], env=self.environment, capture_output=True,
                              check=False).returncode == 0

    def run(self, *arguments, check=True):
        done = subprocess.run(["docker", *map(str, arguments)], env=self.environment, capture_output=True, check=False,
                              timeout=300)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def close(self):
        if self.process is None:
            return
        containers = self.run("ps", "-aq", check=False).split()
        if containers:
            self.run("rm", "-f", *containers, check=False)
        pid_file = self.folder / "exec" / "containerd" / "containerd.pid"
        containerd = int(pid_file.read_text()) if pid_file.exists() else None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if containerd and pathlib.Path(f"/proc/{containerd}").exists():
            os.kill(containerd, 15)
        for mounted in (self.folder / "exec" / "netns").glob("*"):
            subprocess.run(["umount", mounted], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", "docker0"], capture_output=True, check=False)
        subprocess.run(["iptables-restore"], input=self.rules or b"*filter\n:FORWARD ACCEPT\nCOMMIT\n*nat\nCOMMIT\n",
                       capture_output=True, check=False)
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text(self.forward)
