"""`inver doctor`: what it finds before a start and beside a running broker."""

import os

from clients import mqtt
from harness import binary, free_port, run


def doctor(folder, config="", **environment):
    """Exit code, and severity and text of each finding."""
    path = folder / "inver.toml"
    path.write_text(f'data_dir = "{folder}/data"\n[http]\nlisten = "127.0.0.1:{free_port()}"\n{config}')
    path.chmod(0o600)
    done = run([binary(), "doctor", "--config", path], check=False, env={"PATH": os.environ["PATH"], **environment})
    lines = [line.split(None, 1) for line in done.stdout.decode().splitlines()]
    return done.returncode, [(severity, text) for severity, text in lines if severity in ("ok", "warning", "error")]


def certificate(folder, days):
    cert, key = folder / f"{days}.pem", folder / f"{days}.key"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days,
         "-subj", "/CN=localhost", "-out", cert, "-keyout", key])
    key.chmod(0o600)
    return cert, key


def severity_of(findings, text):
    found = [severity for severity, said in findings if text in said]
    assert len(found) == 1, findings
    return found[0]


def test_a_fresh_installation(tmp_path):
    code, findings = doctor(tmp_path)
    assert code == 0 and all(severity != "error" for severity, _ in findings), findings
    checks = {text.split(":")[0] for _, text in findings}
    assert checks == {"configuration", "data folder", "disk", "open files", "memory", "clock", "permissions", "running broker"}


def test_certificates_and_private_files(tmp_path):
    (valid, key), (soon, soon_key) = certificate(tmp_path, 400), certificate(tmp_path, 5)
    soon_key.chmod(0o644)
    code, findings = doctor(tmp_path, f'''
[mqtt]
tls_cert = "{valid}"
tls_key = "{key}"
[amqp]
tls_cert = "{soon}"
tls_key = "{soon_key}"
[kafka]
tls_cert = "{tmp_path}/missing.pem"
tls_key = "{key}"
''')
    assert code == 1, findings
    assert severity_of(findings, "400.pem is valid for 3") == "ok"
    assert severity_of(findings, "5.pem expires in 4 days") == "warning"
    assert severity_of(findings, "missing.pem") == "error"
    assert severity_of(findings, "5.key can be read by other users") == "warning"


def test_a_wrong_configuration_and_too_little_disk(tmp_path):
    code, findings = doctor(tmp_path, "connections_maximum = 1\n")
    assert code == 1 and severity_of(findings, "unknown key `http.connections_maximum`") == "error"
    code, findings = doctor(tmp_path, f'''
[mqtt]
acl_file = "{tmp_path}/none.acl"
[[jwt]]
jwks_file = "{tmp_path}/none.json"
''')
    assert code == 1 and severity_of(findings, "none.json") == severity_of(findings, "none.acl") == "error"
    free = os.statvfs(tmp_path)
    segment = "2 GiB"
    code, findings = doctor(tmp_path, INVER_LOG_SEGMENT_BYTES_MAX=segment)
    assert severity_of(findings, "are free") == ("error" if free.f_bavail * free.f_frsize < 4 << 30 else
                                                 "warning" if free.f_bavail < free.f_blocks / 10 else "ok")


def test_a_running_broker(own_broker, tmp_path):
    broker = own_broker(environment={"INVER_LIMITS_CONNECTIONS_MAX": "1"})
    def asked():
        done = run([binary(), "doctor"], check=False, env=broker.environment)
        return done.returncode, done.stdout.decode()
    code, text = asked()
    assert code == 0 and "no alarms" in text, text
    with mqtt(broker):
        code, text = asked()
        assert code == 1 and "connections_full" in text, text
