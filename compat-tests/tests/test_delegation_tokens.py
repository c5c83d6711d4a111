"""Delegation tokens (KIP-48), by Kafka's own tools. librdkafka and kafka-python cannot log in by them."""

import re

from confluent_kafka.admin import (AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType,
                                   ResourceType, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion)
import pytest

from clients import QUIET, WAIT_SECONDS, java
from harness import binary, run

MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"


@pytest.fixture
def users(own_broker):
    """A broker with the administrator `root`, and `ann` and `bob`, who may create topics."""
    broker = own_broker()
    at = {"bootstrap.servers": broker.kafka, **QUIET}
    as_root = {**at, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512",
               "sasl.username": "root", "sasl.password": "root-secret"}
    for name in ("root", "ann", "bob"):
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(name, info, f"{name}-secret".encode())
        admin = AdminClient(at if name == "root" else as_root)
        admin.alter_user_scram_credentials([change])[name].result(WAIT_SECONDS)
    for name in ("ann", "bob"):
        acl = AclBinding(ResourceType.TOPIC, f"{name}-", ResourcePatternType.PREFIXED, f"User:{name}", "*",
                         AclOperation.ALL, AclPermissionType.ALLOW)
        for future in admin.create_acls([acl]).values():
            future.result(WAIT_SECONDS)
    return broker


def properties(path, user, password, mechanism="SCRAM-SHA-512", is_token=False):
    path.write_text(
        f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\n"
        "request.timeout.ms=10000\ndefault.api.timeout.ms=15000\n"
        f'sasl.jaas.config={MODULE} required username="{user}" password="{password}"'
        f'{" tokenauth=true" if is_token else ""};\n')
    return path


def test_tokens_by_kafkas_tools(users, tmp_path):
    at = ["--bootstrap-server", users.kafka]
    root, ann, bob = (properties(tmp_path / name, name, f"{name}-secret") for name in ("root", "ann", "bob"))

    def tokens(by, *arguments, check=True):
        return java("console", "org.apache.kafka.tools.DelegationTokenCommand", *at, "--command-config", by,
                    *arguments, check=check)

    def topics(by, *arguments, check=True):
        return java("console", "org.apache.kafka.tools.TopicCommand", *at, "--command-config", by, *arguments,
                    check=check)

    def made(said):
        """Token id and HMAC of the only row in the tool's output."""
        rows = [line.split() for line in said.splitlines() if "== User:" in line]
        assert len(rows) == 1, said
        return rows[0][0], rows[0][1]

    said = tokens(ann, "--create", "--max-life-time-period", "-1", "--renewer-principal", "User:bob")
    token, hmac = made(said)
    assert len(re.findall("User:ann", said)) == 2 and "User:bob" in said, said
    of_ann = ["--describe", "--owner-principal", "User:ann"]
    assert made(tokens(bob, *of_ann)) == (token, hmac), "a renewer sees it"
    assert "expiry date" in tokens(bob, "--renew", "--renew-time-period", "3600000", "--hmac", hmac)
    assert made(tokens(root, *of_ann)) == (token, hmac)

    by_token = [properties(tmp_path / f"token-{mechanism}", token, hmac, mechanism, True)
                for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
    topics(by_token[0], "--create", "--topic", "ann-1")
    assert topics(by_token[1], "--list").split() == ["ann-1"], "what its owner may see"
    assert "Authorization failed" in topics(by_token[0], "--create", "--topic", "bob-1", check=False)
    for wrong in (properties(tmp_path / "user", "ann", hmac, "SCRAM-SHA-512", True),
                  properties(tmp_path / "plain", token, hmac, "SCRAM-SHA-512", False)):
        assert "invalid credentials" in topics(wrong, "--list", check=False), wrong
    refused = tokens(by_token[0], "--create", "--max-life-time-period", "-1", check=False)
    assert "TOKENID" not in refused, "a token makes no tokens"

    users.kill()
    assert (users.data / "delegation-tokens.key").stat().st_mode & 0o777 == 0o600
    dump = run([binary(), "log", "dump", users.data]).stdout.decode()
    assert hmac not in dump
    users.start()
    assert topics(by_token[1], "--list").split() == ["ann-1"]
    tokens(ann, "--expire", "--expiry-time-period", "-1", "--hmac", hmac)
    assert "invalid credentials" in topics(by_token[1], "--list", check=False)
    assert "== User:" not in tokens(ann, *of_ann)
    assert hmac not in users.log()
    for operation in ("create", "alter", "delete"):
        assert re.search(f'operation="{operation}" resource="delegation-token"', users.log()), operation
