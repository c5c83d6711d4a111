use super::*;

#[tokio::test]
async fn users_and_permissions_are_managed_and_explained() {
    let server = Server::new();
    let put =
        async |name: &str, body: Value| server.send("PUT", &format!("/api/v1/users/{name}"), &body).await;
    let first = put("ann", json!({"password": "pw"})).await.problem();
    assert_eq!(first.0, 409, "nobody could administer the broker: {}", first.1);
    let made = put("root", json!({"password": "pw", "tags": ["administrator"]})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    // The authenticator of this server lets this machine in, but such a client has no tag any more.
    assert_eq!(server.get("/api/v1/users").await.status, 403);

    let server = Server::with_user("root", &crate::passwords::hash(b"pw").unwrap());
    let login = format!("Authorization: Basic {}\r\n", data_encoding::BASE64.encode(b"root:pw"));
    let get = async |path: &str| server.ask("GET", &format!("/api/v1{path}"), &login).await;
    let send = async |method: &str, path: &str, body: &Value| {
        let body = body.to_string();
        let length = body.len();
        let headers =
            format!("{login}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        server.ask(method, &format!("/api/v1{path}"), &headers).await
    };
    let bob = json!({"password": "secret", "namespace": "n", "connections_max": 5});
    let made = send("PUT", "/users/bob", &bob).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(!made.body.contains("secret") && !made.body.contains('$'), "no secret is shown: {}", made.body);
    let changed =
        send("PUT", "/users/bob", &json!({"tags": ["monitoring"], "connections_max": 0})).await.json();
    assert_eq!((&changed["namespace"], &changed["connections_max"]), (&json!("n"), &Value::Null));
    assert_eq!(changed["credentials"].as_array().unwrap().len(), 3, "what is left out stays: {changed}");
    for wrong in [json!({"password": ""}), json!({"password_hashes": ["x"]}), json!({"tag": "x"})] {
        assert_eq!(send("PUT", "/users/bob", &wrong).await.problem().0, 400, "{wrong}");
    }

    let allow = json!({"user": "bob", "kind": "topic", "prefix": "a.", "operations": ["read"]});
    let added = send("POST", "/permissions", &allow).await.json();
    assert_eq!(added["ids"].as_array().unwrap().len(), 1);
    assert_eq!(send("POST", "/permissions", &allow).await.json(), added, "it exists already");
    let wrong = json!({"user": "bob", "operations": ["fly"]});
    assert!(send("POST", "/permissions", &wrong).await.problem().1.contains("unknown operation `fly`"));
    let check = async |name: &str, operation: &str| {
        let question = format!("?user=bob&kind=topic&name={name}&operation={operation}");
        get(&format!("/permissions/check{question}")).await.json()
    };
    let answer = check("a.b", "read").await;
    assert_eq!((&answer["allowed"], &answer["rule"]["id"]), (&json!(true), &added["ids"][0]));
    assert_eq!(check("b", "read").await["reason"], json!("no rule allows it"));
    assert_eq!(check("a.b", "write").await["allowed"], json!(false));
    assert_eq!(get("/permissions/check?kind=x&operation=read").await.problem().0, 400);
    assert_eq!(get("/permissions?user=bob").await.json()["total"], json!(1));

    let id = added["ids"][0].as_str().unwrap();
    let path = format!("/api/v1/permissions/{id}");
    assert_eq!(server.ask("DELETE", &path, &login).await.status, 204);
    assert_eq!(server.ask("DELETE", &path, &login).await.problem().0, 404);
    assert_eq!(server.ask("DELETE", "/api/v1/users/root", &login).await.problem().0, 409);
    assert_eq!(server.ask("DELETE", "/api/v1/users/bob", &login).await.status, 204);
    assert_eq!(get("/users").await.json()["total"], json!(1));
}

#[tokio::test]
async fn namespaces_are_created_changed_and_deleted() {
    let server = Server::new();
    let put = async |body: Value| server.send("PUT", "/api/v1/namespaces/n", &body).await;
    let made = put(json!({"description": "for tests", "queues_max": 1, "protected": true})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(server.ask("DELETE", "/api/v1/namespaces/n", "").await.problem().0, 409, "it is protected");
    let changed = put(json!({"protected": false})).await;
    assert_eq!((changed.status, &changed.json()["queues_max"]), (200, &json!(1)), "{}", changed.body);
    assert_eq!(server.send("PUT", "/api/v1/queues/q?namespace=n", &json!({})).await.status, 201);
    assert_eq!(server.send("PUT", "/api/v1/queues/r?namespace=n", &json!({})).await.problem().0, 409);
    assert_eq!(server.get("/api/v1/queues?namespace=n").await.json()["total"], json!(1));
    assert_eq!(server.get("/api/v1/queues").await.json()["total"], json!(0));
    assert_eq!(names(&server.get("/api/v1/namespaces").await.json()), ["/", "n"]);
    assert_eq!(server.ask("DELETE", "/api/v1/namespaces/n", "").await.status, 204);
    assert_eq!(server.get("/api/v1/namespaces/n").await.problem().0, 404);
    assert_eq!(server.ask("DELETE", "/api/v1/namespaces/%2F", "").await.problem().0, 409);
    assert_eq!(server.send("PUT", "/api/v1/namespaces/m", &json!({"tag": "x"})).await.problem().0, 400);
}
