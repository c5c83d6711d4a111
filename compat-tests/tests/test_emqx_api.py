"""EMQX's REST API at /api/v5, with real MQTT clients: clients, subscriptions, publish, retained messages, bans."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

from clients import Mqtt, mqtt
from harness import wait_until


def api(broker, method, path, body=None):
    """Status and JSON of a request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{broker.http_port}/api/v5{path}", method=method,
        headers={"Content-Type": "application/json"}, data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as answer:
        return answer.code, json.loads(answer.read())


def quoted(name):
    return urllib.parse.quote(name, safe="")


def test_clients_are_listed_found_and_kicked(broker, unique):
    with mqtt(broker, f"{unique}-a", expiry=3600) as one, mqtt(broker, f"{unique}-b"):
        status, listed = api(broker, "GET", f"/clients?like_clientid={unique}&limit=1")
        assert status == 200 and listed["meta"] == {"page": 1, "limit": 1, "count": 2, "hasnext": True}
        assert [client["clientid"] for client in listed["data"]] == [f"{unique}-a"]
        status, client = api(broker, "GET", f"/clients/{unique}-a")
        assert status == 200 and client["connected"] and client["expiry_interval"] == 3600, client
        assert client["ip_address"] == "127.0.0.1" and client["connected_at"].startswith("20")
        assert api(broker, "DELETE", f"/clients/{unique}-a")[0] == 204
        one.disconnects.get(timeout=20)
    away = lambda: api(broker, "GET", f"/clients?clientid={unique}-a&conn_state=disconnected")[1]["meta"]["count"] == 1
    wait_until(away, 20, "that the client is away")
    # The session of a client that is away ends.
    assert api(broker, "DELETE", f"/clients/{unique}-a")[0] == 204
    status, problem = api(broker, "GET", f"/clients/{unique}-a")
    assert (status, problem) == (404, {"code": "CLIENTID_NOT_FOUND", "message": "Client ID not found"})
    assert api(broker, "GET", "/clients?limit=0")[1]["code"] == "BAD_REQUEST"


def test_subscriptions_are_listed_by_client_and_by_topic(broker, unique):
    with mqtt(broker, unique) as client:
        client.subscribe(f"{unique}/+/x", 1)
        client.subscribe(f"$share/g/{unique}/#", 0)
        status, own = api(broker, "GET", f"/clients/{unique}/subscriptions")
        assert status == 200
        assert sorted((one["topic"], one["qos"]) for one in own) == [(f"$share/g/{unique}/#", 0), (f"{unique}/+/x", 1)]
        listed = lambda query: [one["topic"] for one in
                                api(broker, "GET", f"/subscriptions?clientid={unique}&{query}")[1]["data"]]
        assert listed(f"match_topic={unique}/%23") == [f"$share/g/{unique}/#", f"{unique}/+/x"]
        assert listed(f"match_topic={unique}/%2B/x") == [f"{unique}/+/x"]
        assert listed(f"topic={unique}/%23&share_group=g") == [f"$share/g/{unique}/#"]
        assert api(broker, "GET", "/subscriptions?match_topic=$share/g/a")[0] == 400
        assert api(broker, "GET", "/subscriptions?clientidd=x")[0] == 400
        assert api(broker, "GET", f"/subscriptions?share_group=g&clientid={unique}")[1]["meta"]["count"] == 1
        assert api(broker, "GET", "/clients/nobody/subscriptions")[0] == 404


def test_messages_are_published_and_retained(broker, unique):
    topic = f"{unique}/a b"
    with mqtt(broker) as client:
        client.subscribe(topic)
        status, answer = api(broker, "POST", "/publish", {
            "topic": topic, "payload": base64.b64encode(b"\x00\xff").decode(), "payload_encoding": "base64", "qos": 1,
            "properties": {"content_type": "x/y", "user_properties": {"k": "v"}, "message_expiry_interval": 60}})
        assert status == 200 and answer["id"]
        message = client.get()
        assert (message.payload, message.properties.ContentType) == (b"\x00\xff", "x/y")
        assert ("k", "v") in message.properties.UserProperty
        bulk = [{"topic": topic, "payload": str(number), "qos": 1} for number in range(3)]
        status, answers = api(broker, "POST", "/publish/bulk", bulk)
        assert status == 200 and len(answers) == 3
        assert client.take(3) == [b"0", b"1", b"2"]
        bulk[2]["qos"] = 3
        assert api(broker, "POST", "/publish/bulk", bulk)[0] == 400
        bulk[2] = {"topic": "a/#", "payload": ""}
        status, answers = api(broker, "POST", "/publish/bulk", bulk)
        assert status == 400 and [one.get("reason_code") for one in answers] == [None, None, 0x80]
        assert client.take(2) == [b"0", b"1"]
    topic = f"{unique}/kept"
    status, answer = api(broker, "POST", "/publish", {"topic": topic, "payload": "kept", "retain": True, "qos": 1})
    assert (status, answer["reason_code"]) == (202, 16)
    status, listed = api(broker, "GET", f"/mqtt/retainer/messages?topic={unique}/%23")
    assert status == 200 and [one["topic"] for one in listed["data"]] == [topic]
    status, message = api(broker, "GET", f"/mqtt/retainer/message/{quoted(topic)}")
    assert status == 200 and base64.b64decode(message["payload"]) == b"kept"
    assert api(broker, "DELETE", f"/mqtt/retainer/message/{quoted(topic)}")[0] == 204
    assert api(broker, "GET", f"/mqtt/retainer/message/{quoted(topic)}")[1]["code"] == "NOT_FOUND"
    for bad in ({"topic": "a/#", "payload": ""}, {"payload": "x"}, {"topic": "a", "qos": 3}):
        assert api(broker, "POST", "/publish", bad)[0] == 400


def test_clients_are_banned(broker, unique):
    with mqtt(broker, unique) as client:
        status, ban = api(broker, "POST", "/banned", {
            "as": "clientid", "who": unique, "by": "ann", "reason": "floods", "until": "2100-01-01T00:00:00+00:00"})
        assert status == 200 and ban["until"] == "2100-01-01T00:00:00.000+00:00"
        client.disconnects.get(timeout=20)
    assert Mqtt(broker, unique).reason.is_failure
    mine = [one for one in api(broker, "GET", "/banned?limit=1000")[1]["data"] if one["who"] == unique]
    assert [(one["as"], one["by"], one["reason"]) for one in mine] == [("clientid", "ann", "floods")]
    assert api(broker, "DELETE", f"/banned/clientid/{unique}")[0] == 204
    assert api(broker, "DELETE", f"/banned/clientid/{unique}")[0] == 404
    with mqtt(broker, unique) as client:
        assert not client.reason.is_failure
    assert api(broker, "POST", "/banned", {"as": "clientid_re", "who": "x"})[0] == 400
    for wrong in ({"until": "soon"}, {"until": 1}, {"by": "x" * 70_000}, {"until": "2100-01-01T-1:00:00Z"}):
        assert api(broker, "POST", "/banned", {"as": "clientid", "who": "x", **wrong})[0] == 400, wrong
