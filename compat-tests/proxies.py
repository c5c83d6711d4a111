"""Certificates, and proxies in front of a broker: HAProxy and nginx, as Debian installs them."""

import contextlib
import os
import shutil
import socket
import subprocess

from harness import free_port, run, wait_until


class Authority:
    """A certificate authority in a folder, which signs certificates for servers and clients."""

    def __init__(self, folder, name="Test CA"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.cert, self.key = folder / "ca.pem", folder / "ca.key"
        run(["openssl", "req", "-x509", *self._key(self.key), "-days", "30", "-subj", f"/CN={name}", "-out", self.cert])

    @staticmethod
    def _key(path):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]

    def sign(self, name, names="DNS:localhost,IP:127.0.0.1", file=None, subject=None):
        """The files of a certificate and its key: `name` is its common name, unless a whole `subject` is given."""
        stem = self.folder / (file or name)
        cert, key, request = stem.with_suffix(".pem"), stem.with_suffix(".key"), stem.with_suffix(".csr")
        extension = stem.with_suffix(".ext")
        extension.write_text(f"subjectAltName={names}\n")
        run(["openssl", "req", "-new", *self._key(key), "-subj", subject or f"/CN={name}", "-out", request])
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial",
             "-days", "30", "-extfile", extension, "-out", cert])
        return cert, key

    def key_store(self, name):
        """The certificate and key of `name` as PKCS #12, for Java; its password is `secret`."""
        cert, key, store = (self.folder / f"{name}{end}" for end in (".pem", ".key", ".p12"))
        run(["openssl", "pkcs12", "-export", "-in", cert, "-inkey", key, "-out", store, "-passout", "pass:secret"])
        return store


def program(name):
    """A system program; those of daemons are not in every user's path."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    assert path, f"{name} is not installed: ./test --install"
    return path


@contextlib.contextmanager
def _running(arguments, port, folder):
    log = open(folder / "proxy.log", "ab")
    process = subprocess.Popen([str(argument) for argument in arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def accepts():
        assert process.poll() is None, (folder / "proxy.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(accepts, what="the proxy")
        yield port
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@contextlib.contextmanager
def haproxy(folder, server, bind="", port=None):
    """HAProxy in TCP mode; `server` is the rest of its line `server`, `bind` options of its line `bind`. Yields its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = folder / "haproxy.cfg"
    config.write_text(f"""
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen broker
  bind 127.0.0.1:{port} {bind}
  server broker {server}
""")
    with _running([program("haproxy"), "-db", "-f", config], port, folder):
        yield port


@contextlib.contextmanager
def nginx(folder, server):
    """nginx with one `server` block, in which `@PORT@` is its port. Yields the port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "nginx.conf"
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config.write_text(f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  {temporary}
  server {{ {server.replace("@PORT@", str(port))} }}
}}
""")
    with _running([program("nginx"), "-c", config, "-p", folder, "-e", "stderr"], port, folder):
        yield port
