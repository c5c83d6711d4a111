"""The commands that administer a running broker over its API, beside clients of the protocols; and what the node shows."""

import json
import os
import ssl
import urllib.error
import urllib.request

import pytest
from confluent_kafka import Consumer, TopicPartition

from clients import amqp, kafka_create, kafka_send
from harness import binary, free_port, run, wait_until
from proxies import Authority


def inver(broker, *arguments, check=True):
    """A command's output as text."""
    environment = {"PATH": os.environ["PATH"], "INVER_URL": f"http://127.0.0.1:{broker.http_port}"}
    done = run([binary(), *arguments], env=environment, check=check)
    return done.stdout.decode() if check else (done.returncode, done.stderr.decode())


def as_json(broker, *arguments):
    return json.loads(inver(broker, *arguments, "--output", "json"))


def test_queues_are_created_published_to_read_purged_and_deleted(broker, unique):
    assert as_json(broker, "create", "queue", unique)["durable"] is True
    assert as_json(broker, "publish", "--queue", unique, "hello")["destinations"] == 1
    with amqp(broker) as channel:
        channel.basic_publish("", unique, b"from AMQP")
        exported = [json.loads(line)["value"]["text"] for line in inver(broker, "export", "queue", unique).splitlines()]
        assert exported == ["hello", "from AMQP"]
        assert channel.basic_get(unique, auto_ack=True)[2] == b"hello"
    table = inver(broker, "list", "queues", f"--filter={unique}").splitlines()
    assert table[0].split() == ["NAME", "DURABLE", "READY", "UNACKED", "CONSUMERS"]
    assert table[1].split() == [unique, "true", "1", "0", "0"]
    assert as_json(broker, "route", "--queue", unique)["queues"] == [unique]
    assert "from AMQP" in inver(broker, "peek", "queue", unique)
    assert as_json(broker, "purge", unique) == {"messages": 1}
    inver(broker, "delete", "queue", unique)
    code, error = inver(broker, "describe", "queue", unique, check=False)
    assert code == 1 and unique in error


def test_users_and_permissions_are_listed_like_the_rest(broker):
    assert inver(broker, "list", "users").split() == ["NAME", "TAGS", "NAMESPACE", "DISABLED", "SOURCE"]
    assert as_json(broker, "list", "users") == as_json(broker, "list", "permissions") == []
    code, error = inver(broker, "describe", "user", "nobody", check=False)
    assert code == 1 and "nobody" in error
    code, error = inver(broker, "delete", "user", "nobody", check=False)
    assert code == 1 and "nobody" in error


def test_records_of_kafka_are_read_and_exported(broker, unique):
    kafka_create(broker, unique)
    for number in range(3):
        kafka_send(broker, unique, b"%d" % number)
    values = [item["value"]["text"] for item in as_json(broker, "peek", "topic", unique, "--offset", "1")]
    assert values == ["1", "2"]
    lines = inver(broker, "export", "topic", unique).splitlines()
    assert [json.loads(line)["offset"] for line in lines] == [0, 1, 2]


def test_a_connection_is_closed_by_its_number(broker, unique):
    with amqp(broker, name=unique) as channel:
        connection, = as_json(broker, "list", "connections", f"--filter={unique}")
        inver(broker, "close", str(connection["id"]), "--reason", "maintenance")
        try:
            channel.connection.process_data_events(time_limit=15)
            raise AssertionError("the connection is open")
        except Exception as error:
            assert "maintenance" in repr(error)


def test_the_log_level_changes_until_the_next_reload(own_broker):
    broker = own_broker()
    before = as_json(broker, "log-level")["filter"]
    assert as_json(broker, "log-level", "inver_mqtt=debug,warn")["filter"] == "inver_mqtt=debug,warn"
    code, error = inver(broker, "log-level", "a=b=c", check=False)
    assert code == 1 and "filter" in error
    broker.process.send_signal(1)
    wait_until(lambda: as_json(broker, "log-level")["filter"] == before)


def test_the_node_shows_its_configuration_with_sources(own_broker):
    broker = own_broker()
    node = as_json(broker, "describe", "node")
    assert node["process_id"] == broker.process.pid and node["disk"]["total_bytes"] > node["disk"]["free_bytes"] > 0
    assert as_json(broker, "describe", "alarms") == {"alarms": []}
    keys = {key["name"]: key for key in as_json(broker, "list", "config")}
    assert keys["http.listen"]["value"] == f"127.0.0.1:{broker.http_port}"
    assert keys["http.listen"]["source"] != "default" and keys["http.login_s"]["source"] == "default"


def test_figures_are_sent_every_second(broker):
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}/api/v1/events", timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        lines = [answer.readline().decode().strip() for _ in range(6)]
    assert lines[0] == lines[3] == "event: figures"
    first, second = (json.loads(lines[at].removeprefix("data: ")) for at in (1, 4))
    assert second["time_ms"] > first["time_ms"] and first["overview"]["version"]


def test_event_streams_are_limited(own_broker):
    broker = own_broker(environment={"INVER_HTTP_EVENT_STREAMS_MAX": "2"})
    url = f"http://127.0.0.1:{broker.http_port}/api/v1/events"
    streams = [urllib.request.urlopen(url, timeout=20) for _ in range(2)]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=20)
    assert refused.value.code == 429 and b"http.event_streams_max" in refused.value.read()
    streams.pop().close()

    def opens():
        try:
            streams.append(urllib.request.urlopen(url, timeout=20))
            return True
        except urllib.error.HTTPError:
            return False

    wait_until(opens, what="a place for a stream is free again")
    for stream in streams:
        stream.close()


def committed(broker, group, topic):
    """The committed offset of a group, as a Kafka client sees it."""
    client = Consumer({"bootstrap.servers": broker.kafka, "group.id": group, "enable.auto.commit": False})
    offset = client.committed([TopicPartition(topic, 0)], timeout=20)[0].offset
    client.close()
    return offset


def test_a_group_is_moved_while_it_has_no_members(broker, unique):
    kafka_create(broker, unique)
    for number in range(5):
        kafka_send(broker, unique, b"%d" % number)
    client = Consumer({"bootstrap.servers": broker.kafka, "group.id": unique, "enable.auto.commit": False,
                       "auto.offset.reset": "earliest"})
    client.subscribe([unique])
    while client.poll(20).offset() < 3:
        pass
    client.commit(asynchronous=False)
    code, error = inver(broker, "reset", unique, "--to", "earliest", check=False)
    assert code == 1 and "member" in error
    client.close()
    assert committed(broker, unique, unique) == 4
    moved = {"topic": unique, "partition": 0, "from": 4, "to": 1}
    assert as_json(broker, "reset", unique, "--to", "offset:1", "--dry-run") == [moved]
    assert committed(broker, unique, unique) == 4, "nothing changed"
    assert as_json(broker, "reset", unique, "--to", "offset:1") == [moved]
    assert committed(broker, unique, unique) == 1
    code, error = inver(broker, "reset", unique, "--to", "yesterday", check=False)
    assert code == 1 and "--to is" in error


def test_a_named_subscription_is_moved(broker, unique):
    kafka_create(broker, unique)
    for number in range(3):
        kafka_send(broker, unique, b"%d" % number)
    arguments = {"x-subscription": "workers", "x-subscription-start": "earliest"}

    def take(count):
        with amqp(broker) as channel:
            channel.basic_qos(prefetch_count=10)
            taken = []
            for method, _, body in channel.consume(unique, arguments=arguments, inactivity_timeout=20):
                assert method, "a message was expected"
                channel.basic_ack(method.delivery_tag)
                taken.append(body)
                if len(taken) == count:
                    break
            channel.cancel()
            return taken

    assert take(3) == [b"0", b"1", b"2"]
    name = f"{unique}/workers"
    wait_until(lambda: as_json(broker, "describe", "named", name)["lag"] == 0)
    assert as_json(broker, "reset", name, "--named", "--to", "offset:1")[0]["to"] == 1
    assert take(2) == [b"1", b"2"]


@pytest.fixture
def secured(own_broker, tmp_path):
    """A broker whose HTTP is reached with TLS only, and whose users must log in: `root` is an administrator."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("broker")
    environment = {
        "INVER_HTTP_TLS_LISTEN": f"127.0.0.1:{free_port()}", "INVER_HTTP_TLS_CERT": str(cert),
        "INVER_HTTP_TLS_KEY": str(key),
    }
    broker = own_broker(environment=environment)
    broker.authority, broker.tls_port = authority, int(environment["INVER_HTTP_TLS_LISTEN"].split(":")[1])
    run([binary(), "user", "add", "root", "--tags", "administrator"], env=broker.environment, stdin=b"secret\n")
    return broker


def test_commands_use_tls_passwords_and_tokens(secured, unique, tmp_path):
    """`inver --url https://…` with the authority's certificate; the password or a token in a variable or a file."""

    def ask(*arguments, ca=secured.authority.cert, host="localhost", check=True, **variables):
        environment = {"PATH": os.environ["PATH"], "INVER_URL": f"https://{host}:{secured.tls_port}", **variables}
        if ca:
            environment["INVER_CA"] = str(ca)
        done = run([binary(), *arguments], env=environment, check=check)
        return done.stdout.decode() if check else done.stderr.decode()

    root = {"INVER_USER": "root", "INVER_PASSWORD": "secret"}
    ask("create", "queue", unique, **root)
    assert unique in ask("list", "queues", **root)
    assert unique in ask("list", "queues", host="127.0.0.1", **root), "the certificate is for the address too"
    assert "root" in ask("user", "list", **root) and "/" in ask("namespace", "list", **root)
    assert "--login" in ask("list", "queues", check=False)
    assert "certificate" in ask("list", "queues", ca=None, check=False, **root), "the system knows no such authority"
    other = Authority(tmp_path / "other")
    assert "certificate" in ask("list", "queues", ca=other.cert, check=False, **root)
    wrong = ask("list", "queues", check=False, INVER_USER="root", INVER_PASSWORD="wrong")
    assert wrong.strip() and unique not in wrong
    made = urllib.request.Request(f"https://localhost:{secured.tls_port}/api/v1/tokens", method="POST",
                                  data=json.dumps({"name": unique}).encode(),
                                  headers={"Content-Type": "application/json", "Authorization": "Basic cm9vdDpzZWNyZXQ="})
    context = ssl.create_default_context(cafile=secured.authority.cert)
    with urllib.request.urlopen(made, timeout=20, context=context) as answer:
        token = json.load(answer)["token"]
    assert unique in ask("list", "queues", INVER_TOKEN=token)
    file = tmp_path / "token"
    file.write_text(token + "\n")
    assert unique in ask("describe", "queue", unique, "--password-file", str(file))
    ask("delete", "token", unique, **root)
    assert ask("list", "queues", check=False, INVER_TOKEN=token).strip()


def test_commands_find_a_broker_with_tls_alone_by_its_configuration(own_broker, tmp_path):
    """The certificate of the configuration is believed whatever its names are, and no other."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.sign("broker", names="DNS:broker.example")
    files = {"INVER_HTTP_TLS_CERT": str(cert), "INVER_HTTP_TLS_KEY": str(key)}
    broker = own_broker(environment={**files, "INVER_HTTP_TLS_LISTEN": f"127.0.0.1:{free_port()}"})
    alone = {**broker.environment, "INVER_HTTP_LISTEN": "off"}
    assert run([binary(), "health"], env=alone).stdout == b"ready\n"
    assert b"reloaded" in run([binary(), "reload"], env=alone).stdout
    assert json.loads(run([binary(), "list", "queues", "--output", "json"], env=alone).stdout) == []
    other, _ = authority.sign("other", names="DNS:broker.example")
    refused = run([binary(), "health"], env={**alone, "INVER_HTTP_TLS_CERT": str(other)}, check=False)
    assert refused.returncode == 1 and b"certificate" in refused.stderr


def test_completions_and_man_pages_are_made(broker, tmp_path):
    assert "log-level" in inver(broker, "make", "completions", "bash")
    inver(broker, "make", "man", str(tmp_path))
    assert (tmp_path / "inver-list.1").exists()
