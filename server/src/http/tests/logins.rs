use super::*;

#[tokio::test]
async fn tags_decide_what_a_user_may_do() {
    let server = Server::with_users();
    let get = async |user: &str, path: &str| server.ask("GET", path, &basic(user)).await.status;
    assert_eq!(get("root", "/api/v1/queues").await, 200);
    assert_eq!(get("mon", "/api/v1/queues").await, 200);
    assert_eq!(get("man", "/api/v1/queues").await, 403, "no permission to connect");
    assert_eq!(get("none", "/api/v1/overview").await, 403);
    assert_eq!(get("man", "/api/v1/overview").await, 200);
    let purge = async |user: &str| {
        server.ask("POST", "/api/v1/queues/q/purge", &format!("{}{EMPTY}", basic(user))).await.status
    };
    assert_eq!((purge("root").await, purge("mon").await, purge("man").await), (404, 403, 403));
}

#[tokio::test]
async fn a_page_logs_in_with_a_cookie_that_forged_requests_cannot_use() {
    let server = Server::with_users();
    let wrong = json!({"user": "root", "password": "wp"});
    assert_eq!(server.send("POST", "/api/v1/login", &wrong).await.problem().0, 401);
    let login = server.send("POST", "/api/v1/login", &json!({"user": "root", "password": "pw"})).await;
    assert_eq!(login.json(), json!({"user": "root", "tags": ["administrator"]}));
    let set = login.head_as_sent.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict") && !set.contains("Secure"), "{set}");
    let cookie = format!("Cookie: other=1; {}\r\n", set.split(';').next().unwrap());
    assert_eq!(server.ask("GET", "/api/v1/whoami", &cookie).await.json()["user"], json!("root"));
    let purge = async |more: &str| {
        server.ask("POST", "/api/v1/queues/q/purge", &format!("{cookie}{EMPTY}{more}")).await.status
    };
    assert_eq!(purge("").await, 403);
    assert_eq!(purge("X-Inver-Request: 1\r\n").await, 404);
    assert_eq!(purge("X-Inver-Request: 1\r\nOrigin: http://evil\r\n").await, 403);
    let _ = server.broker.access().update_user("root", |user| user.disabled = true).unwrap();
    assert_eq!(server.ask("GET", "/api/v1/whoami", &cookie).await.status, 401);
    let _ = server.broker.access().update_user("root", |user| user.disabled = false).unwrap();
    assert_eq!(server.ask("POST", "/api/v1/logout", &format!("{cookie}{EMPTY}")).await.status, 204);
    assert_eq!(server.ask("GET", "/api/v1/whoami", &cookie).await.status, 401);
}

#[tokio::test]
async fn tokens_stand_for_their_user_until_they_end() {
    let server = Server::with_users();
    let body = json!({"name": "ci"}).to_string();
    let headers = format!(
        "{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        basic("man"),
        body.len()
    );
    let made = server.ask("POST", "/api/v1/tokens", &headers).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(server.ask("POST", "/api/v1/tokens", &headers).await.problem().0, 409);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let whoami = server.ask("GET", "/api/v1/whoami", &bearer(&token)).await.json();
    assert_eq!(whoami, json!({"user": "man", "tags": ["management"]}));
    for wrong in [format!("{token}x"), token.replace('.', ""), "x".into()] {
        assert_eq!(server.ask("GET", "/api/v1/whoami", &bearer(&wrong)).await.problem().0, 401);
    }
    let listed = async |user: &str| server.ask("GET", "/api/v1/tokens", &basic(user)).await.json();
    assert_eq!(listed("root").await["total"], json!(1));
    assert_eq!(listed("mon").await["total"], json!(0), "only its own");
    assert!(!listed("root").await.to_string().contains(token.split('.').next_back().unwrap()));
    assert_eq!(server.ask("DELETE", "/api/v1/tokens/ci", &basic("root")).await.status, 204);
    assert_eq!(server.ask("GET", "/api/v1/whoami", &bearer(&token)).await.status, 401);
}

#[tokio::test]
async fn without_users_another_site_changes_nothing() {
    let server = Server::new();
    let purge = async |headers: &str| {
        server.ask("POST", "/api/v1/queues/q/purge", &format!("{EMPTY}{headers}")).await.status
    };
    assert_eq!(purge("").await, 404);
    assert_eq!(purge("Sec-Fetch-Site: cross-site\r\n").await, 403);
    assert_eq!(purge("Origin: http://evil.example\r\n").await, 403);
}
