"""RabbitMQ's management API at /api: fields, status codes and errors as RabbitMQ 4 answers them."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

import pytest

from clients import amqp, amqp_get, mqtt
from harness import wait_until

ADMIN = ("guest", "test12")
# The hash of `test12` as RabbitMQ's definitions have it.
HASH = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
CONFIG = f"""
[users.guest]
passwords = ["rabbit_password_hashing_sha256:{HASH}"]
tags = ["administrator"]
"""


class Management:
    def __init__(self, broker):
        self.base = f"http://127.0.0.1:{broker.http_port}/api"

    def ask(self, method, path, body=None, login=ADMIN, headers=None):
        """Status, JSON (or the text) and headers of a request."""
        headers = dict(headers or {})
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, method=method, headers=headers, data=data)
        try:
            answer = urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else None, answer.headers

    def get(self, path, **options):
        status, body, _ = self.ask("GET", path, **options)
        assert status == 200, (path, status, body)
        return body

    def status(self, method, path, body=None, **options):
        return self.ask(method, path, body, **options)[0]

    def fault(self, method, path, body=None, **options):
        """Status and reason of a request that is refused."""
        status, body, _ = self.ask(method, path, body, **options)
        assert set(body) == {"error", "reason"}, body
        return status, body["error"], body["reason"]


@pytest.fixture
def secured(own_broker, tmp_path):
    config = tmp_path / "inver.toml"
    config.write_text(CONFIG)
    return own_broker(arguments=["--config", str(config)])


@pytest.fixture
def api(secured):
    return Management(secured)


def test_overview_nodes_and_checks(secured, api):
    overview = api.get("/overview")
    assert overview["rabbitmq_version"] == "4.0.5" and overview["product_name"] == "Inver"
    strict = {"cluster_name", "node", "erlang_version", "erlang_full_version", "product_version",
              "statistics_db_event_queue", "churn_rates", "queue_totals", "object_totals", "message_stats",
              "listeners", "exchange_types"}
    assert strict <= set(overview)
    assert {"connections", "channels", "queues", "exchanges", "consumers"} == set(overview["object_totals"])
    assert {"port": secured.amqp_port, "protocol": "amqp"}.items() <= next(
        it for it in overview["listeners"] if it["protocol"] == "amqp").items()
    node, = api.get("/nodes")
    assert node["running"] and node["being_drained"] is False and node["mem_used"] > 0
    assert {"disk_free", "disk_free_alarm", "mem_alarm", "fd_used", "fd_total", "uptime"} <= set(node)
    assert api.get("/nodes/" + node["name"])["name"] == node["name"]
    assert api.get("/whoami") == {"name": "guest", "tags": ["administrator"], "is_internal_user": True}
    assert api.get("/version") == "4.0.5"
    assert api.get("/cluster-name") == {"name": node["name"]}
    for check in ("alarms", "local-alarms", "virtual-hosts", "node-is-quorum-critical", "ready-to-serve-clients",
                  f"port-listener/{secured.amqp_port}", "protocol-listener/amqp", "protocol-listener/mqtt"):
        assert api.get(f"/health/checks/{check}")["status"] == "ok", check
    for check in ("port-listener/1", "protocol-listener/stomp"):
        status, body, _ = api.ask("GET", f"/health/checks/{check}")
        assert (status, body["status"], body["reason"]) == (503, "failed", "No active listener")
    assert api.get("/aliveness-test/%2F") == {"status": "ok"}
    assert api.fault("GET", "/aliveness-test/none")[0] == 404
    for empty in ("policies", "operator-policies/%2F", "parameters", "global-parameters", "feature-flags",
                  "extensions"):
        assert api.get(f"/{empty}") == []


def test_errors_are_rabbitmqs(api):
    assert api.fault("GET", "/nope") == (404, "Object Not Found", "Not Found")
    assert api.fault("GET", "/queues/%2F/none") == (404, "Object Not Found", "Not Found")
    assert api.fault("GET", "/whoami", login=("guest", "wrong")) == (401, "not_authorized", "Not_Authorized")
    status, body, headers = api.ask("GET", "/whoami", login=None)
    assert (status, body) == (401, None) and headers["WWW-Authenticate"] == 'Basic realm="RabbitMQ Management"'
    status, _, headers = api.ask("POST", "/overview", {})
    assert status == 405 and "GET" in headers["Allow"]
    assert api.fault("PUT", "/queues/%2F/q", b"{") == (400, "bad_request", "not_json")
    assert api.fault("PUT", "/policies/%2F/p", {})[1] == "bad_request"


def test_tags_decide_what_a_user_may(api):
    for name, tags in (("plain", ""), ("manager", "management"), ("watcher", ["monitoring"])):
        assert api.status("PUT", f"/users/{name}", {"password": "pw", "tags": tags}) == 201
    login = ("plain", "pw")
    assert api.fault("GET", "/whoami", login=login) == (401, "not_authorised", "Not management user")
    login = ("manager", "pw")
    assert api.get("/queues", login=login) == []
    assert api.fault("GET", "/nodes", login=login)[2] == "Not monitor user"
    assert api.fault("GET", "/users", login=login)[2] == "Not administrator user"
    refused = (401, "not_authorised", "User not authorised to access virtual host")
    assert api.fault("GET", "/queues/%2F", login=login) == refused
    assert api.status("PUT", "/permissions/%2F/manager", {"configure": "^m", "write": "", "read": ""}) == 201
    assert api.status("PUT", "/queues/%2F/mine", {}, login=login) == 201
    assert api.fault("PUT", "/queues/%2F/other", {}, login=login) == (401, "not_authorised", "Access refused.")
    assert len(api.get("/nodes", login=("watcher", "pw"))) == 1


def test_virtual_hosts_users_permissions_and_limits(api):
    body = {"description": "d", "tags": "a,b", "default_queue_type": "quorum"}
    assert api.status("PUT", "/vhosts/v1", body) == 201
    assert api.status("PUT", "/vhosts/v1", {"description": "e"}) == 204
    shown = api.get("/vhosts/v1")
    assert (shown["description"], shown["tags"], shown["default_queue_type"]) == ("e", ["a", "b"], "quorum")
    assert {it["name"] for it in api.get("/vhosts")} == {"/", "v1"}

    user = {"password_hash": HASH, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "management"}
    assert [api.status("PUT", "/users/u1", user) for _ in range(2)] == [201, 204]
    shown = api.get("/users/u1")
    assert (shown["password_hash"], shown["tags"], shown["limits"]) == (HASH, ["management"], {})
    assert api.get("/whoami", login=("u1", "test12"))["name"] == "u1"
    assert api.fault("PUT", "/users/u2", {"password": "x"}) == (400, "bad_request", "tags_not_present")
    assert api.fault("PUT", "/users/u2", {"password_hash": "!!", "tags": ""})[0] == 400
    assert [it["name"] for it in api.get("/users/without-permissions")] == ["guest", "u1"]

    wanted = {"configure": "", "write": "^a", "read": ".*"}
    assert [api.status("PUT", "/permissions/v1/u1", wanted) for _ in range(2)] == [201, 204]
    assert api.get("/permissions/v1/u1") == {"user": "u1", "vhost": "v1", **wanted}
    assert api.get("/users/u1/permissions") == api.get("/vhosts/v1/permissions") == [api.get("/permissions/v1/u1")]
    missing = api.fault("PUT", "/permissions/v1/u1", {"configure": ""})
    assert missing == (400, "bad_request", "[{key_missing,write},{key_missing,read}]")
    assert api.fault("PUT", "/permissions/v1/none", wanted)[2] == "vhost_or_user_not_found"
    topic = {"exchange": "amq.topic", "write": "^a", "read": ".*"}
    assert api.status("PUT", "/topic-permissions/v1/u1", topic) == 201
    assert api.get("/topic-permissions/v1/u1") == [{"user": "u1", "vhost": "v1", **topic}]

    assert api.status("PUT", "/vhost-limits/v1/max-queues", {"value": 1}) == 204
    assert api.get("/vhost-limits/v1") == [{"vhost": "v1", "value": {"max-queues": 1}}]
    assert api.status("PUT", "/queues/v1/one", {"durable": True}) == 201
    assert "queue limit in vhost 'v1' (1) is reached" in api.fault("PUT", "/queues/v1/two", {"durable": True})[2]
    assert api.status("DELETE", "/vhost-limits/v1/max-queues") == 204
    assert api.status("PUT", "/user-limits/u1/max-connections", {"value": 3}) == 204
    assert api.get("/user-limits") == [{"user": "u1", "value": {"max-connections": 3}}]
    assert api.fault("PUT", "/user-limits/u1/none", {"value": 3})[0] == 400

    for path in ("/topic-permissions/v1/u1", "/permissions/v1/u1", "/users/u1", "/vhosts/v1"):
        assert [api.status("DELETE", path) for _ in range(2)] == [204, 404], path


def test_exchanges_queues_and_bindings(api):
    exchange = {"type": "topic", "durable": True}
    assert [api.status("PUT", "/exchanges/%2F/x1", exchange) for _ in range(2)] == [201, 204]
    assert api.fault("PUT", "/exchanges/%2F/x1", {"type": "direct", "durable": True}) == (
        400, "bad_request",
        "inequivalent arg 'type' for exchange 'x1' in vhost '/': received 'direct' but current is 'topic'")
    assert api.fault("PUT", "/exchanges/%2F/x2", {"type": "nope"})[2] == "unknown exchange type 'nope'"
    assert api.fault("PUT", "/exchanges/%2F/amq.x", {})[:2] == (401, "not_authorised")
    assert api.status("PUT", "/exchanges/%2F/x4", {"type": "fanout"}) == 201
    shown = api.get("/exchanges/%2F/x1")
    assert {"name": "x1", "vhost": "/", "type": "topic", "durable": True, "auto_delete": False,
            "internal": False, "arguments": {}}.items() <= shown.items()
    assert "" in [it["name"] for it in api.get("/exchanges/%2F")]

    queue = {"durable": True, "arguments": {"x-queue-type": "classic", "x-message-ttl": 100000}}
    assert [api.status("PUT", "/queues/%2F/q1", queue) for _ in range(2)] == [201, 204]
    assert api.fault("PUT", "/queues/%2F/q1", {"durable": True, "arguments": {"x-message-ttl": 5}})[2] == (
        "inequivalent arg 'x-message-ttl' for queue 'q1' in vhost '/': received '5' but current is '100000'")
    assert "value_negative" in api.fault("PUT", "/queues/%2F/q3", {"arguments": {"x-message-ttl": -1}})[2]
    assert api.status("PUT", "/queues/%2F/q2", {"auto_delete": "true"}) == 201
    shown = api.get("/queues/%2F/q1")
    assert {"name": "q1", "vhost": "/", "type": "classic", "durable": True, "auto_delete": False, "exclusive": False,
            "arguments": queue["arguments"], "messages": 0, "consumers": 0, "state": "running"}.items() <= shown.items()
    page = api.get("/queues?page=1&page_size=1&columns=name&name=%5Eq&use_regex=true")
    assert page == {"filtered_count": 2, "item_count": 1, "items": [{"name": "q1"}], "page": 1, "page_count": 2,
                    "page_size": 1, "total_count": 2}
    assert api.fault("GET", "/queues?page=9&page_size=2")[1] == "page_out_of_range"
    listed = api.get("/queues?columns=name,arguments.x-message-ttl&sort=name&sort_reverse=true")
    assert listed == [{"name": "q2"}, {"name": "q1", "arguments": {"x-message-ttl": 100000}}]
    assert api.status("PUT", "/queues/%2F/qq", {"durable": True, "arguments": {"x-queue-type": "quorum"}}) == 201
    assert api.get("/queues/%2F/qq")["delivery_limit"] == 20

    bind = "/bindings/%2F/e/x1/q/q1"
    status, _, headers = api.ask("POST", bind, {"routing_key": "k k/%"})
    assert (status, headers["location"]) == (201, "q1/k%2Bk%252F%2525")
    assert api.ask("POST", bind)[2]["location"] == "q1/~"
    _, _, headers = api.ask("POST", bind, {"routing_key": "a.b", "arguments": {"k": 1}})
    key = headers["location"].split("/", 1)[1]
    assert api.status("POST", "/bindings/%2F/e/x1/e/x4", {"routing_key": "z"}) == 201
    assert api.fault("POST", "/bindings/%2F/e/x1/q/none", {}) == (
        404, "not_found", "no queue 'none' in vhost '/'")
    between = api.get(bind)
    assert [(it["routing_key"], it["arguments"]) for it in between] == [("", {}), ("a.b", {"k": 1}), ("k k/%", {})]
    assert {"source": "x1", "vhost": "/", "destination": "q1", "destination_type": "queue",
            "properties_key": "k+k%2F%25"}.items() <= between[2].items()
    assert [it["source"] for it in api.get("/queues/%2F/q1/bindings")] == ["", "x1", "x1", "x1"]
    assert len(api.get("/exchanges/%2F/x1/bindings/source")) == 4
    assert len(api.get("/exchanges/%2F/x4/bindings/destination")) == 1
    assert api.get(f"{bind}/{key}")["arguments"] == {"k": 1}
    assert [api.status("DELETE", f"{bind}/{key}") for _ in range(2)] == [204, 404]
    assert api.status("DELETE", f"{bind}/~") == 204
    assert api.status("DELETE", f"{bind}/" + urllib.parse.quote("k+k%2F%25", safe="")) == 204
    assert api.get(bind) == []

    assert api.fault("DELETE", "/exchanges/%2F/x1?if-unused=true")[2] == "exchange 'x1' in vhost '/' in use"
    assert [api.status("DELETE", "/exchanges/%2F/x1") for _ in range(2)] == [204, 404]
    assert api.fault("DELETE", "/exchanges/%2F/amq.topic")[0] == 401
    assert [api.status("DELETE", "/queues/%2F/q1?if-empty=true") for _ in range(2)] == [204, 404]


def test_publish_get_and_purge(secured, api):
    properties = {"content_type": "t", "delivery_mode": 2, "priority": 3, "timestamp": 1700000000,
                  "expiration": "60000", "headers": {"h": 1, "t": {"a": [1, "x"]}}}
    message = {"properties": properties, "routing_key": "m", "payload": "hello", "payload_encoding": "string"}
    publish = "/exchanges/%2F/amq.default/publish"
    assert api.get("/queues/%2F") == []
    assert api.status("PUT", "/queues/%2F/m", {"durable": True}) == 201
    assert api.ask("POST", publish, message)[:2] == (200, {"routed": True})
    assert api.ask("POST", publish, {**message, "routing_key": "none"})[:2] == (200, {"routed": False})
    binary = {**message, "properties": {}, "payload": "/w==", "payload_encoding": "base64"}
    assert api.ask("POST", publish, binary)[:2] == (200, {"routed": True})
    assert "key_missing,payload" in api.fault("POST", publish, {"properties": {}, "routing_key": ""})[2]
    assert "user_id property set to 'other'" in api.fault(
        "POST", publish, {**message, "properties": {"user_id": "other"}})[2]

    def take(**more):
        wanted = {"count": 5, "ackmode": "ack_requeue_true", "encoding": "auto", **more}
        status, body, _ = api.ask("POST", "/queues/%2F/m/get", wanted)
        assert status == 200, body
        return body
    stats = api.get("/queues/%2F/m")["message_stats"]
    assert (stats["publish"], stats["deliver_get"], stats["publish_details"]) == (2, 0, {"rate": 0.0})
    first, second = take()
    assert first == {"payload_bytes": 5, "redelivered": False, "exchange": "", "routing_key": "m",
                     "message_count": 1, "properties": properties, "payload": "hello", "payload_encoding": "string"}
    assert (second["properties"], second["payload"], second["payload_encoding"]) == ([], "/w==", "base64")
    again, = take(count=1, ackmode="reject_requeue_true", truncate=2, encoding="base64")
    assert (again["redelivered"], again["payload"]) == (True, base64.b64encode(b"he").decode())
    assert len(take(count=1, ackmode="ack_requeue_false")) == 1
    assert len(take()) == 1
    with amqp(secured, user=ADMIN[0], password=ADMIN[1]) as channel:
        assert amqp_get(channel, "m")[-1] == b"\xff"
    assert api.ask("POST", publish, message)[1] == {"routed": True}
    assert api.status("DELETE", "/queues/%2F/m/contents") == 204
    assert take() == []
    absent = api.fault("POST", "/queues/%2F/none/get", {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"})
    assert absent == (404, "not_found", "queue_not_found")
    assert api.fault("POST", "/exchanges/%2F/none/publish", message)[2] == "exchange_not_found"


def test_connections_channels_and_consumers(secured, api):
    with amqp(secured, user=ADMIN[0], password=ADMIN[1], name="worker") as channel, \
            mqtt(secured, client_id="device", user=ADMIN):
        channel.queue_declare("c", durable=True)
        channel.queue_declare("own", exclusive=True)
        channel.basic_consume("c", lambda *_: None)
        wait_until(lambda: api.get("/queues/%2F/c")["consumers"] == 1)
        listed = {it["user_provided_name"]: it for it in api.get("/connections")}
        assert {it["protocol"] for it in listed.values()} == {"AMQP 0-9-1", "MQTT"}
        worker = listed["worker"]
        assert {"vhost": "/", "user": "guest", "state": "running", "ssl": False,
                "port": secured.amqp_port}.items() <= worker.items()
        path = "/connections/" + urllib.parse.quote(worker["name"], safe="")
        assert api.get(path)["name"] == worker["name"]
        assert len(api.get("/connections/username/guest")) == 2
        shown, = api.get(f"{path}/channels")
        assert {"number": 1, "vhost": "/", "consumer_count": 1, "messages_unacknowledged": 0,
                "connection_details": shown["connection_details"]}.items() <= shown.items()
        assert shown["connection_details"]["name"] == worker["name"]
        consumer, = api.get("/consumers/%2F")
        assert consumer["queue"] == {"name": "c", "vhost": "/"} and consumer["ack_required"] and consumer["active"]
        assert api.get("/queues/%2F/c")["consumer_details"] == [consumer]
        assert "cannot obtain exclusive access" in api.fault("DELETE", "/queues/%2F/own")[2]
        assert api.fault("DELETE", "/queues/%2F/c?if-unused=true")[2] == "queue 'c' in vhost '/' in use"
        assert api.status("DELETE", path, headers={"X-Reason": "go"}) == 204

        def closed():
            try:
                channel.connection.process_data_events(time_limit=0.05)
            except Exception as error:
                return "go" in str(error)
        wait_until(closed)
        assert api.status("DELETE", "/connections/none") == 404


def test_definitions_are_exported_and_imported(own_broker, api):
    assert api.status("PUT", "/vhosts/v1", {"description": "d"}) == 201
    assert api.status("PUT", "/vhost-limits/v1/max-queues", {"value": 7}) == 204
    assert api.status("PUT", "/users/u1", {"password_hash": HASH, "tags": "management"}) == 201
    assert api.status("PUT", "/permissions/v1/u1", {"configure": ".*", "write": ".*", "read": ".*"}) == 201
    assert api.status("PUT", "/exchanges/v1/x", {"type": "topic", "durable": True}) == 201
    assert api.status("PUT", "/queues/v1/q", {"durable": True, "arguments": {"x-queue-type": "quorum"}}) == 201
    assert api.status("POST", "/bindings/v1/e/x/q/q", {"routing_key": "k", "arguments": {"a": 1}}) == 201
    exported = api.get("/definitions")
    assert {it["name"] for it in exported["vhosts"]} == {"/", "v1"}
    assert exported["queues"] == [{"name": "q", "vhost": "v1", "type": "quorum", "durable": True,
                                   "auto_delete": False, "arguments": {"x-queue-type": "quorum"}}]
    assert exported["bindings"] == [{"source": "x", "vhost": "v1", "destination": "q", "destination_type": "queue",
                                     "routing_key": "k", "arguments": {"a": 1}}]

    # Into a broker without users: also what an older version and its command line export.
    other = Management(own_broker())
    anyone = ("guest", "guest")
    policy = {"vhost": "v1", "pattern": "^q", "apply-to": "queues", "priority": 0}
    exported["policies"] = [{**policy, "name": "p", "definition": {"max-length": 5}},
                            {**policy, "name": "old", "definition": {"ha-mode": "all"}}]
    exported["global_parameters"] = [{"name": "cluster_name", "value": "c"}]
    exported["queues"].append({"name": "s", "vhost": "v1", "durable": True, "auto_delete": False,
                               "arguments": {"x-queue-type": "stream"}})
    exported["users"].append({"name": "old", "password_hash": HASH, "tags": "monitoring,x",
                              "hashing_algorithm": "rabbit_password_hashing_sha256", "limits": {"max-channels": 5}})
    status, body, _ = other.ask("POST", "/definitions", exported, login=anyone)
    assert status == 200 and body["not_imported_count"] == 1, body
    assert any(line.startswith("policies: old: ") for line in body["not_imported"])
    again = other.get("/definitions")
    for section in ("exchanges", "bindings", "permissions", "parameters"):
        assert again[section] == exported[section], section
    assert again["policies"] == exported["policies"][:1]
    assert [(it["name"], it["type"]) for it in again["queues"]] == [("q", "quorum"), ("s", "stream")]
    assert other.get("/users/old")["tags"] == ["monitoring", "x"]
    assert other.get("/whoami", login=("u1", "test12"))["name"] == "u1"
    assert other.fault("GET", "/whoami", login=anyone)[0] == 401

    # One virtual host, twice.
    part = api.get("/definitions/v1")
    assert api.status("PUT", "/vhosts/v2") == 201
    assert [api.status("POST", "/definitions/v2", part) for _ in range(2)] == [204, 204]
    assert api.get("/definitions/v2")["bindings"] == part["bindings"]
    assert api.fault("POST", "/definitions", b"{")[0] == 400


def policed(api, queue):
    shown = api.get(f"/queues/%2F/{queue}")
    return shown["policy"], shown["operator_policy"], shown["effective_policy_definition"]


def test_policies_and_operator_policies(secured, api):
    for name, arguments in (("pa1", {"x-max-length": 5}), ("pa2", {}), ("pa3", {"x-queue-type": "quorum"})):
        assert api.status("PUT", f"/queues/%2F/{name}", {"durable": True, "arguments": arguments}) == 201
    low = {"pattern": "^pa", "definition": {"max-length": 10, "message-ttl": 50000, "max-age": "1D"},
           "priority": 1, "apply-to": "queues"}
    high = {"pattern": "^pa[23]", "definition": {"max-length": 7, "delivery-limit": 30}, "priority": 9,
            "apply-to": "queues"}
    assert [api.status("PUT", "/policies/%2F/low", low) for _ in range(2)] == [201, 204]
    assert api.status("PUT", "/policies/%2F/high", high) == 201
    operator = {"pattern": "^pa", "definition": {"max-length": 8, "expires": 1000000}, "apply-to": "queues"}
    assert api.status("PUT", "/operator-policies/%2F/op", operator) == 201
    assert api.get("/policies/%2F/high") == {"vhost": "/", "name": "high", **high}
    assert [it["name"] for it in api.get("/policies")] == ["high", "low"]
    assert api.get("/operator-policies/%2F") == [{"vhost": "/", "name": "op", "priority": 0, **operator}]
    merged = {"max-length": 8, "message-ttl": 50000, "max-age": "1D", "expires": 1000000}
    assert policed(api, "pa1") == ("low", "op", merged)
    assert policed(api, "pa2") == ("high", "op", {"max-length": 7, "delivery-limit": 30, "expires": 1000000})
    assert api.get("/queues/%2F/pa3")["delivery_limit"] == 30
    exported = api.get("/definitions")
    assert exported["policies"] == [{"vhost": "/", "name": "high", **high}, {"vhost": "/", "name": "low", **low}]
    assert exported["parameters"] == [{"vhost": "/", "component": "operator_policy", "name": "op",
                                       "value": {**operator, "priority": 0}}]
    for queue, left in (("pa1", 5), ("pa2", 7)):
        with amqp(secured, user=ADMIN[0], password=ADMIN[1]) as channel:
            for n in range(12):
                channel.basic_publish("", queue, str(n).encode())
            assert channel.queue_declare(queue, passive=True).method.message_count == left
    # Live, and across a crash.
    lower = {**high, "definition": {"max-length": 2}}
    assert api.status("PUT", "/policies/%2F/high", lower) == 204
    wait_until(lambda: api.get("/queues/%2F/pa2")["messages_ready"] == 2)
    secured.kill()
    secured.start()
    assert policed(api, "pa2") == ("high", "op", {"max-length": 2, "expires": 1000000})
    assert api.get("/queues/%2F/pa2")["messages_ready"] == 2
    assert [api.status("DELETE", "/operator-policies/%2F/op") for _ in range(2)] == [204, 404]
    assert [api.status("DELETE", "/policies/%2F/high") for _ in range(2)] == [204, 404]
    assert policed(api, "pa2")[:2] == ("low", None)

    exchange = {"pattern": "^px", "definition": {"alternate-exchange": "amq.fanout"}, "apply-to": "exchanges"}
    assert api.status("PUT", "/exchanges/%2F/px", {"type": "direct"}) == 201
    assert api.status("PUT", "/policies/%2F/ae", exchange) == 201
    assert api.get("/exchanges/%2F/px")["policy"] == "ae"
    assert api.status("POST", "/bindings/%2F/e/amq.fanout/q/pa2", {}) == 201
    message = {"properties": {}, "routing_key": "none", "payload": "x", "payload_encoding": "string"}
    assert api.ask("POST", "/exchanges/%2F/px/publish", message)[1] == {"routed": True}


@pytest.mark.parametrize("definition,reason", [
    ({}, "no policy provided"),
    ({"nope": 1, "nada": "x"}, '[{<<"nada">>,<<"x">>},{<<"nope">>,1}] are not recognised policy settings'),
    ({"ha-mode": "all"}, '[{<<"ha-mode">>,<<"all">>}] are not recognised policy settings'),
    ({"max-length": -1}, "-1 is not a valid maximum length"),
    ({"message-ttl": "x"}, '<<"x">> is not a valid message TTL'),
    ({"expires": 0, "max-length": -1}, "0 is not a valid queue expiry"),
    ({"overflow": "drop"}, '<<"drop">> is not a valid overflow value'),
    ({"dead-letter-routing-key": 5}, "5 is not a valid dead letter routing key"),
    ({"max-age": "1"}, '<<"1">> is not a valid max age'),
    ({"stream-filter-size-bytes": 1}, "1 is not a valid filter size. Valid range is 16-255"),
    ({"queue-leader-locator": "zz"}, '<<"zz">> is not a valid queue leader locator value'),
])
def test_wrong_policies_are_refused_in_rabbitmqs_words(api, definition, reason):
    body = {"pattern": "^q", "definition": definition}
    assert api.fault("PUT", "/policies/%2F/p", body) == (400, "bad_request", f"Validation failed\n\n{reason}\n")


def test_who_may_set_policies(api):
    body = {"pattern": "^q", "definition": {"max-length": 1}}
    for key in body:
        partial = {other: value for other, value in body.items() if other != key}
        assert api.fault("PUT", "/policies/%2F/p", partial)[2] == f"[{{key_missing,{key}}}]"
    assert "apply-to 'foo' unrecognised" in api.fault("PUT", "/policies/%2F/p", {**body, "apply-to": "foo"})[2]
    assert "priority should be a number" in api.fault("PUT", "/policies/%2F/p", {**body, "priority": "5"})[2]
    assert "pattern should be regular expression" in api.fault("PUT", "/policies/%2F/p", {**body, "pattern": "("})[2]
    of_operator = {"pattern": "^q", "definition": {"dead-letter-exchange": "x"}}
    assert "not recognised" in api.fault("PUT", "/operator-policies/%2F/p", of_operator)[2]
    for tag in ("management", "policymaker"):
        assert api.status("PUT", f"/users/{tag}", {"password": "pw", "tags": tag}) == 201
        assert api.status("PUT", f"/permissions/%2F/{tag}", {"configure": ".*", "write": ".*", "read": ".*"}) == 201
    assert api.fault("PUT", "/policies/%2F/p", body, login=("management", "pw"))[0] == 401
    assert api.status("PUT", "/policies/%2F/p", body, login=("policymaker", "pw")) == 201
    assert api.fault("PUT", "/operator-policies/%2F/p", body, login=("policymaker", "pw"))[0] == 401


def test_definitions_are_loaded_at_start(own_broker, tmp_path):
    document = {
        "rabbit_version": "3.8.2",
        "users": [{"name": "guest", "password_hash": HASH, "tags": "administrator",
                   "hashing_algorithm": "rabbit_password_hashing_sha256"}],
        "vhosts": [{"name": "/"}, {"name": "v1"}],
        "permissions": [{"user": "guest", "vhost": "v1", "configure": ".*", "write": ".*", "read": ".*"}],
        "queues": [{"name": "q", "vhost": "v1", "durable": True, "auto_delete": False, "arguments": {}}],
        "exchanges": [{"name": "x", "vhost": "v1", "type": "topic", "durable": True, "auto_delete": False,
                       "internal": False, "arguments": {}},
                      {"name": "odd", "vhost": "v1", "type": "x-odd", "durable": True, "auto_delete": False,
                       "internal": False, "arguments": {}}],
        "bindings": [{"source": "x", "vhost": "v1", "destination": "q", "destination_type": "queue",
                      "routing_key": "a.*", "arguments": {}}],
        "policies": [{"vhost": "v1", "name": "p", "pattern": "^q", "apply-to": "queues", "priority": 0,
                      "definition": {"max-length": 3}}],
    }
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(document))
    (folder / "notes.txt").write_text("not imported")
    config = tmp_path / "inver.toml"
    config.write_text(f'load_definitions = "{folder}"\n')
    broker = own_broker(arguments=["--config", str(config)])
    api = Management(broker)
    for _ in range(2):
        assert [it["name"] for it in api.get("/bindings/v1/e/x/q/q") and api.get("/queues/v1")] == ["q"]
        assert api.get("/queues/v1/q")["policy"] == "p"
        assert api.fault("GET", "/exchanges/v1/odd")[0] == 404
        assert api.fault("GET", "/whoami", login=("guest", "guest"))[0] == 401
        broker.stop()
        # Again at each start: what is there stays.
        broker.start()
