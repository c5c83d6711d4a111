use super::*;

#[tokio::test]
async fn topics_are_created_changed_and_deleted() {
    let server = Server::new();
    let new = json!({"name": "t", "partitions": 2, "settings": {"retention.ms": "1000"}});
    let created = server.send("POST", "/api/v1/topics", &new).await;
    assert_eq!((created.status, &created.json()["partitions"]), (201, &json!(2)));
    assert_eq!(server.send("POST", "/api/v1/topics", &new).await.problem().0, 409);
    let change = json!({"partitions": 3, "settings": {"retention.ms": null, "cleanup.policy": "compact"}});
    let changed = server.send("PATCH", "/api/v1/topics/t", &change).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let shown = server.get("/api/v1/topics/t").await.json();
    assert_eq!(
        (&shown["partitions"], &shown["settings"]),
        (&json!(3), &json!({"cleanup.policy": "compact"}))
    );
    for wrong in [json!({"name": ""}), json!({"name": "u", "partitions": 0}), json!({"nam": "u"}), json!([])]
    {
        assert_eq!(server.send("POST", "/api/v1/topics", &wrong).await.problem().0, 400, "{wrong}");
    }
    assert_eq!(server.ask("POST", "/api/v1/topics", "Content-Length: 0\r\n").await.problem().0, 415);
    assert_eq!(server.ask("DELETE", "/api/v1/topics/t", "").await.status, 204);
    assert_eq!(server.ask("DELETE", "/api/v1/topics/t", "").await.problem().0, 404);
}

#[tokio::test]
async fn queues_are_declared_bound_filled_peeked_purged_and_deleted() {
    let server = Server::new();
    let new = json!({"messages_max": 10, "overflow": "reject_publish"});
    assert_eq!(server.send("PUT", "/api/v1/queues/q", &new).await.status, 201);
    assert_eq!(server.send("PUT", "/api/v1/queues/q", &new).await.status, 200);
    assert_eq!(server.send("PUT", "/api/v1/queues/q", &json!({})).await.problem().0, 409);
    assert_eq!(server.send("PUT", "/api/v1/queues/amq.q", &json!({})).await.problem().0, 400);
    assert_eq!(server.send("PUT", "/api/v1/exchanges/x", &json!({"kind": "direct"})).await.status, 201);
    let binding = json!({"source": "x", "destination": "q", "key": "k"});
    assert_eq!(server.send("POST", "/api/v1/bindings", &binding).await.status, 201);
    let bindings = server.get("/api/v1/bindings?source=x").await.json();
    assert_eq!((&bindings["total"], &bindings["items"][0]["destination"]), (&json!(1), &json!("q")));

    let message = json!({
        "to": {"exchange": {"name": "x", "routing_key": "k"}}, "value": {"text": "hello"},
        "headers": {"h": "1"}, "properties": {"content_type": "text/plain"},
    });
    let test = server.send("POST", "/api/v1/routes/test", &json!({"to": message["to"]})).await.json();
    assert_eq!(test["queues"], json!(["q"]));
    let published = server.send("POST", "/api/v1/publish", &message).await;
    assert_eq!((published.status, &published.json()["destinations"]), (200, &json!(1)), "{}", published.body);
    for _ in 0..2 {
        let peeked = server.get("/api/v1/messages?source=queue&name=q").await.json();
        let first = &peeked["messages"][0];
        assert_eq!(first["value"], json!({"text": "hello"}));
        assert_eq!(first["headers"], json!([{"name": "h", "value": {"text": "1"}}]));
        assert_eq!(
            (&first["properties"]["content-type"], &first["unacked"]),
            (&json!("text/plain"), &json!(false))
        );
        assert_eq!(peeked["messages"].as_array().unwrap().len(), 1);
    }
    let queue = server.get("/api/v1/queues/q").await.json();
    assert_eq!((&queue["ready"], &queue["unacked"], &queue["consumers"]), (&json!(1), &json!(0), &json!(0)));
    let purged = server.ask("POST", "/api/v1/queues/q/purge", "Content-Length: 0\r\n").await;
    assert_eq!(purged.json(), json!({"messages": 1}));
    assert_eq!(server.ask("DELETE", "/api/v1/bindings?source=x&destination=q&key=k", "").await.status, 204);
    assert_eq!(server.get("/api/v1/bindings").await.json()["total"], json!(0));
    assert_eq!(server.ask("DELETE", "/api/v1/queues/q", "").await.json(), json!({"messages": 0}));
    assert_eq!(server.ask("DELETE", "/api/v1/exchanges/x", "").await.status, 204);
    assert_eq!(server.ask("DELETE", "/api/v1/exchanges/amq.topic", "").await.problem().0, 409);
}

#[tokio::test]
async fn a_topic_is_read_from_any_offset_and_time() {
    let server = Server::new();
    server.send("POST", "/api/v1/topics", &json!({"name": "t"})).await;
    for text in ["a", "b", "c"] {
        let message =
            json!({"to": {"topic": {"name": "t"}}, "value": {"text": text}, "key": {"base64": "/w=="}});
        let published = server.send("POST", "/api/v1/publish", &message).await;
        assert_eq!(published.status, 200, "{}", published.body);
    }
    let values = |answer: &Value| -> Vec<String> {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages.map(|message| message["value"]["text"].as_str().unwrap().to_owned()).collect()
    };
    let read =
        async |more: &str| server.get(&format!("/api/v1/messages?source=topic&name=t{more}")).await.json();
    let all = read("").await;
    assert_eq!((values(&all), &all["next"]), (vec!["a".into(), "b".into(), "c".into()], &Value::Null));
    assert_eq!(all["messages"][0]["key"], json!({"base64": "/w=="}));
    assert_eq!(values(&read("&offset=1").await), ["b", "c"]);
    assert_eq!(values(&read("&last=1").await), ["c"]);
    let two = read("&count=2").await;
    assert_eq!((values(&two), &two["next"]), (vec!["a".into(), "b".into()], &json!(2)));
    assert_eq!(values(&read("&time_ms=99999999999999").await).len(), 0);
    let cut = read("&value_bytes=0").await;
    assert_eq!(
        (&cut["messages"][0]["truncated"], &cut["messages"][0]["value_size"]),
        (&json!(true), &json!(1))
    );
    for wrong in ["&offset=1&last=1", "&count=0", "&count=501", "&offset=-1"] {
        let answer = server.get(&format!("/api/v1/messages?source=topic&name=t{wrong}")).await;
        assert_eq!(answer.problem().0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn retained_messages_are_listed_and_cleared() {
    let server = Server::new();
    for address in ["a/1", "a/2", "b/1"] {
        let to = json!({"to": {"address": address}, "value": {"text": address}, "retain": true});
        assert_eq!(server.send("POST", "/api/v1/publish", &to).await.status, 200);
    }
    let listed = server.get("/api/v1/retained?filter=a/%2B&count=1").await.json();
    assert_eq!((&listed["items"][0]["address"], &listed["next"]), (&json!("a/1"), &json!("a/1")));
    let more = server.get("/api/v1/retained?filter=a/%2B&after=a/1").await.json();
    assert_eq!((&more["items"][0]["address"], &more["next"]), (&json!("a/2"), &Value::Null));
    assert_eq!(server.get("/api/v1/retained/a%2F1").await.json()["value"], json!({"text": "a/1"}));
    assert_eq!(server.ask("DELETE", "/api/v1/retained/a%2F1", "").await.status, 204);
    assert_eq!(server.get("/api/v1/retained/a%2F1").await.problem().0, 404);
    assert_eq!(server.get("/api/v1/retained").await.json()["total"], json!(2));
}

#[tokio::test]
async fn named_subscriptions_are_listed_and_set_back() {
    use inver_broker::{Mode, Start};
    let server = Server::new();
    server.send("POST", "/api/v1/topics", &json!({"name": "t"})).await;
    let namespace = server.broker.default_namespace();
    let topic = namespace.topic("t").unwrap();
    namespace.subscribe(&topic, "s", Mode::Shared, true, Start::Latest).unwrap();
    for _ in 0..3 {
        let message = json!({"to": {"topic": {"name": "t"}}, "value": {"text": "x"}});
        server.send("POST", "/api/v1/publish", &message).await;
    }
    let listed = server.get("/api/v1/subscriptions").await.json();
    let first = &listed["items"][0];
    assert_eq!((&first["name"], &first["kind"], &first["lag"]), (&json!("t/s"), &json!("named"), &json!(3)));
    let reset =
        async |body: Value| server.send("POST", "/api/v1/subscriptions/named/t%2Fs/reset", &body).await;
    let dry = reset(json!({"to": "latest", "dry_run": true})).await.json();
    assert_eq!(dry, json!([{"topic": "t", "partition": 0, "from": 0, "to": 3}]));
    let lag = async || server.get("/api/v1/subscriptions/named/t%2Fs").await.json()["lag"].clone();
    assert_eq!(lag().await, json!(3));
    reset(json!({"to": "latest"})).await;
    assert_eq!(lag().await, json!(0));
    reset(json!({"to": {"offset": 1}})).await;
    assert_eq!(lag().await, json!(2));
    assert_eq!(reset(json!({"to": "elsewhere"})).await.problem().0, 400);
    assert_eq!(server.ask("DELETE", "/api/v1/subscriptions/named/t%2Fs", "").await.status, 204);
    assert_eq!(server.get("/api/v1/subscriptions").await.json()["total"], json!(0));
}

#[tokio::test]
async fn the_document_describes_every_route_and_its_problems() {
    let server = Server::new();
    let document = server.get("/api/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    for path in
        ["/topics/{name}", "/queues/{name}/purge", "/subscriptions", "/messages", "/publish", "/login"]
    {
        assert!(paths.contains_key(path), "{path}");
    }
    for (path, operations) in paths {
        for operation in operations.as_object().unwrap().values().filter(|o| o.get("responses").is_some()) {
            assert!(operation["responses"].get("default").is_some(), "{path}");
            assert!(operation.get("summary").is_some(), "{path} has no summary");
        }
    }
}
