"""An S3 service for tests: SeaweedFS, from PyPI."""

import contextlib
import json
import socket
import subprocess
import sys
import pathlib
import urllib.request

from harness import free_port, wait_until

BUCKET, KEY_ID, SECRET = "bucket", "test", "testtest"
# Its programs are beside the interpreter that runs the tests.
WEED = pathlib.Path(sys.executable).parent / "weed"
READY_SECONDS = 120


def _accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def seaweedfs(folder):
    """A master, a volume server, a filer and an S3 gateway in one process, with the bucket BUCKET. Yields the gateway's URL."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"name": "t", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    # Else the ports of gRPC are 10,000 above, where the system takes ports from.
    named = [f"-{name}.port={port}" for name, port in ports.items()]
    named += [f"-{name}.port.grpc={free_port()}" for name in ports]
    with open(folder / "weed.log", "ab") as log:
        process = subprocess.Popen(
            [WEED, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-filer", "-s3",
             "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder}/s3.json", "-master.volumeSizeLimitMB=64",
             "-volume.max=8", *named],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        def has_bucket():
            assert process.poll() is None, (folder / "weed.log").read_text()[-4000:]
            if not all(_accepts(port) for port in ports.values()):
                return False
            # A bucket is a folder of the filer; a folder is made by a name with a slash at its end.
            request = urllib.request.Request(f"http://127.0.0.1:{ports['filer']}/buckets/{BUCKET}/", method="POST")
            try:
                return urllib.request.urlopen(request, timeout=5).status < 300
            except OSError:
                return False

        wait_until(has_bucket, READY_SECONDS, "the bucket")
        yield f"http://127.0.0.1:{ports['s3']}"
    finally:
        process.kill()
        process.wait(30)
