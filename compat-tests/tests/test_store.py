"""`inver store check` with a real S3 service, a folder, and services that cannot be used."""

import http.server
import os
import re
import threading
import urllib.parse

import pytest

from harness import binary, free_port, run
from object_stores import BUCKET, KEY_ID, SECRET, seaweedfs
from proxies import Authority, haproxy

CHECKS = ["put and get", "ranged get", "get of nothing", "create if absent", "16 racing creates, one winner", "list after put",
          "delete"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as url:
        yield url


def inver(folder, *arguments, **environment):
    environment = {"PATH": os.environ["PATH"], **environment}
    return run([binary(), *arguments], check=False, env=environment, cwd=folder, timeout=120)


def check(folder, **environment):
    """Exit code, the names of the checks that passed, those that failed with why and what to do, and the last word."""
    done = inver(folder, "store", "check", **environment)
    lines = done.stdout.decode().splitlines()
    passed = [line.split(None, 1)[1] for line in lines if line.startswith("ok ")]
    failed = {}
    for line, after in zip(lines, lines[1:]):
        if line.startswith("failed "):
            name, why = line.split(None, 1)[1].split(": ", 1)
            failed[name] = f"{why} / {after.strip()}"
    return done.returncode, passed, failed, done.stderr.decode()


def bucket(url, secret=SECRET, **more):
    return {"INVER_STORE_BUCKET": BUCKET, "INVER_STORE_ENDPOINT": url, "INVER_STORE_ACCESS_KEY_ID": KEY_ID,
            "INVER_STORE_SECRET_ACCESS_KEY": secret, **more}


def test_a_bucket_can_be_used(service, tmp_path):
    for prefix in ("", "some/prefix"):
        code, passed, failed, error = check(tmp_path, **bucket(service, INVER_STORE_PREFIX=prefix))
        assert (code, passed, failed) == (0, CHECKS, {}), (error, failed)


def test_credentials_come_from_a_file_or_the_environment(service, tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    settings = bucket(service)
    secret = settings.pop("INVER_STORE_SECRET_ACCESS_KEY")
    assert check(tmp_path, **settings, INVER_STORE_SECRET_ACCESS_KEY_FILE=str(tmp_path / "secret"))[0] == 0
    del settings["INVER_STORE_ACCESS_KEY_ID"]
    assert check(tmp_path, **settings, AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=secret)[0] == 0
    code, passed, failed, error = check(tmp_path, **settings)
    assert code == 1 and not passed and not failed
    assert "store.access_key_id" in error and "AWS_ACCESS_KEY_ID" in error


def test_a_bucket_behind_tls(service, tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("server")
    (tmp_path / "both.pem").write_text(cert.read_text() + key.read_text())
    address = service.removeprefix("http://")
    with haproxy(tmp_path / "proxy", address, bind=f"ssl crt {tmp_path}/both.pem") as port:
        settings = bucket(f"https://127.0.0.1:{port}")
        code, passed, failed, error = check(tmp_path, **settings, INVER_STORE_CA=str(authority.cert))
        assert (code, passed) == (0, CHECKS), (error, failed)
        other = Authority(tmp_path / "other", "Other CA")
        code, passed, failed, _ = check(tmp_path, **settings, INVER_STORE_CA=str(other.cert))
        assert code == 1 and not passed
        assert "certificate" in failed["put and get"], failed


def test_a_wrong_secret(service, tmp_path):
    code, passed, failed, error = check(tmp_path, **bucket(service, secret="wrong"))
    assert code == 1 and not passed
    assert "403" in failed["put and get"] and "`store.access_key_id`" in failed["put and get"], failed
    assert "cannot be used" in error and "wrong" not in error


def test_nothing_answers(tmp_path):
    code, passed, failed, _ = check(tmp_path, **bucket(f"http://127.0.0.1:{free_port()}"))
    assert code == 1 and not passed
    assert "refused" in failed["put and get"] and "`store.endpoint`" in failed["put and get"], failed


def test_a_folder_can_be_used(tmp_path):
    code, passed, failed, error = check(tmp_path, INVER_STORE_FOLDER=str(tmp_path / "objects"))
    assert (code, passed, failed) == (0, CHECKS, {}), error
    left = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert not left, "a check leaves nothing"


def test_no_store_and_two(tmp_path):
    code, _, _, error = check(tmp_path)
    assert code == 1 and "`store.bucket` or `store.folder`" in error
    both = bucket("http://127.0.0.1:1", INVER_STORE_FOLDER=str(tmp_path / "objects"))
    code, _, _, error = check(tmp_path, **both)
    assert code == 1 and "both set" in error
    done = inver(tmp_path, "config", "check", **both)
    assert done.returncode == 1 and b"both set" in done.stderr


def test_secrets_are_not_shown(tmp_path):
    shown = inver(tmp_path, "config", "show", "--set", **bucket("http://127.0.0.1:1", secret="hidden"),
                  INVER_STORE_SESSION_TOKEN="hidden")
    assert b"hidden" not in shown.stdout and shown.stdout.count(b"***") == 2, shown.stdout


class IgnoresConditions(http.server.BaseHTTPRequestHandler):
    """An S3 service that takes the header of a create-if-absent and ignores it."""

    protocol_version = "HTTP/1.1"
    objects = {}

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        named = {"ETag": '"e"', "Last-Modified": "Mon, 12 Oct 2009 17:50:00 GMT", "Content-Length": str(len(body)), **headers}
        for name, text in named.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_DELETE(self):
        self.objects.pop(self.path, None)
        self.answer(204)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.query:
            return self.list(urllib.parse.parse_qs(url.query))
        body = self.objects.get(self.path)
        if body is None:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        ranged = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not ranged:
            return self.answer(200, body)
        start, end = int(ranged[1]), min(int(ranged[2]), len(body) - 1)
        return self.answer(206, body[start:end + 1], Content_Range=f"bytes {start}-{end}/{len(body)}")

    def list(self, query):
        prefix, after = query["prefix"][0], query.get("start-after", [""])[0]
        limit = int(query["max-keys"][0])
        keys = sorted(path.removeprefix(f"/{BUCKET}/") for path in list(self.objects))
        keys = [key for key in keys if key.startswith(prefix) and key > after]
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" if len(keys) > limit else ""
        contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2009-10-12T17:50:00.000Z</LastModified></Contents>"
                           for key in keys[:limit])
        self.answer(200, f"<ListBucketResult>{more}{contents}</ListBucketResult>".encode())


class Server(http.server.ThreadingHTTPServer):
    # All racing creates connect at a time.
    request_queue_size = 64


def test_a_service_that_ignores_conditions_is_refused(tmp_path):
    server = Server(("127.0.0.1", 0), IgnoresConditions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        code, passed, failed, error = check(tmp_path, **bucket(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
    assert code == 1 and "2 of 7 checks failed" in error, error
    assert sorted(failed) == ["16 racing creates, one winner", "create if absent"], failed
    assert "16 of 16 creates of one name succeeded" in failed["16 racing creates, one winner"]
    assert "If-None-Match" in failed["create if absent"]
    assert passed == [name for name in CHECKS if name not in failed]
    assert not IgnoresConditions.objects, "a check leaves nothing"
