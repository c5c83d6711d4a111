use super::*;

const USERS: [&str; 4] = ["root", "mon", "man", "none"];

/// The status for each of [`USERS`]. A refusal has the form of this API.
async fn statuses(server: &Server, method: &str, path: &str, body: Option<&Value>) -> [u16; 4] {
    let mut all = [0; 4];
    for (user, status) in USERS.iter().zip(&mut all) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let headers = format!(
            "{}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            basic(user)
        );
        let answer = server.ask(method, &format!("/api/v5{path}"), &headers).await;
        if answer.status == 403 {
            assert_eq!(answer.json()["code"], json!("UNAUTHORIZED_ROLE"), "{user} {path}: {}", answer.body);
        }
        *status = answer.status;
    }
    all
}

/// Lets a user connect to the namespace, and publish and subscribe there.
async fn allow(server: &Server, user: &str) {
    for rule in [
        json!({"user": user, "kind": "namespace", "operations": ["connect"]}),
        json!({"user": user, "kind": "address", "operations": ["write", "receive", "subscribe"]}),
    ] {
        let body = rule.to_string();
        let headers = format!(
            "{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            basic("root"),
            body.len()
        );
        let added = server.ask("POST", "/api/v1/permissions", &headers).await;
        assert_eq!(added.status, 201, "{}", added.body);
    }
}

#[tokio::test]
async fn what_shows_all_clients_needs_a_tag_that_sees_all() {
    let server = Server::with_users();
    allow(&server, "man").await;
    allow(&server, "none").await;
    for path in ["/clients", "/subscriptions", "/banned"] {
        assert_eq!(statuses(&server, "GET", path, None).await, [200, 200, 403, 403], "{path}");
    }
    for path in ["/clients/c", "/clients/c/subscriptions"] {
        assert_eq!(statuses(&server, "GET", path, None).await, [404, 404, 403, 403], "{path}");
    }
}

#[tokio::test]
async fn bans_are_made_and_removed_by_administrators_alone() {
    let server = Server::with_users();
    for user in USERS {
        allow(&server, user).await;
    }
    let ban = json!({"as": "clientid", "who": "c"});
    assert_eq!(statuses(&server, "POST", "/banned", Some(&ban)).await, [200, 403, 403, 403]);
    assert_eq!(statuses(&server, "DELETE", "/banned/clientid/d", None).await, [404, 403, 403, 403]);
    assert_eq!(server.broker.bans().list(0).len(), 1);
    assert_eq!(statuses(&server, "DELETE", "/banned/clientid/c", None).await, [204, 403, 403, 403]);
    assert_eq!(statuses(&server, "DELETE", "/banned", None).await, [204, 403, 403, 403]);
}

#[tokio::test]
async fn messages_need_permissions_and_a_tag_that_changes() {
    let server = Server::with_users();
    let message = json!({"topic": "a", "payload": "x", "retain": true});
    let publish = async || statuses(&server, "POST", "/publish", Some(&message)).await;
    let retained = async || statuses(&server, "GET", "/mqtt/retainer/message/a", None).await;
    assert_eq!(publish().await, [202, 403, 403, 403], "an administrator needs no permissions");
    for user in USERS {
        allow(&server, user).await;
    }
    assert_eq!(publish().await, [202, 403, 202, 403]);
    assert_eq!(retained().await, [200, 200, 200, 403]);
    assert_eq!(statuses(&server, "GET", "/mqtt/retainer/messages", None).await, [200, 200, 200, 403]);
    assert_eq!(statuses(&server, "DELETE", "/mqtt/retainer/message/a", None).await, [204, 403, 404, 403]);
}
