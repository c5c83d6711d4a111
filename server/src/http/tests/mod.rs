mod access;
mod changes;
mod emqx;
mod logins;

use std::net::SocketAddr;
use std::sync::Arc;

use inver_access::{Credential, Tag, Tags, User};
use inver_broker::{Authenticator, BrokerConfig, Clock, LoopbackOnly, QueueSpec, TopicConfig, TopicSpec};
use inver_storage::{CommitPolicy, Log, LogOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::RuntimeKind;
use crate::jwt::{TokenLimits, Tokens};
use crate::logins::{LoginSettings, Logins};
use crate::runtime::Runtimes;

struct Server {
    http: Arc<Http>,
    broker: Broker,
    ready: Arc<AtomicBool>,
    shutdown: CancellationToken,
    _folder: TempDir,
}

struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    head_as_sent: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The status of a problem and its detail.
    fn problem(&self) -> (u16, String) {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let body = self.json();
        assert_eq!(body["status"], json!(self.status));
        assert_eq!(body["type"], json!("about:blank"));
        (self.status, body["detail"].as_str().unwrap().to_string())
    }
}

impl Server {
    fn new() -> Server {
        Server::with(Arc::new(LoopbackOnly))
    }

    /// One that checks passwords as the broker does; there are no users yet.
    fn with_logins() -> Server {
        let clock = Clock::system();
        let tokens = Tokens::new(TokenLimits::default(), clock.clone());
        Server::with(Arc::new(Logins::new(LoginSettings::default(), clock, tokens).unwrap()))
    }

    fn with_user(name: &str, hash: &str) -> Server {
        let server = Server::with_logins();
        let user = User {
            tags: [Tag::Administrator].into_iter().collect(),
            credentials: vec![crate::passwords::parse(hash).unwrap()],
            ..User::new(name)
        };
        server.broker.access().put_user(user).unwrap();
        server
    }

    /// One with an administrator, a user who monitors, one who manages, and one without tags.
    fn with_users() -> Server {
        let server = Server::with_logins();
        for (name, tags) in [
            ("root", vec![Tag::Administrator]),
            ("mon", vec![Tag::Monitoring]),
            ("man", vec![Tag::Management]),
            ("none", vec![]),
        ] {
            let mut user = User::new(name);
            user.tags = Tags::from_iter(tags);
            user.credentials = vec![Credential::argon2id(b"pw").unwrap()];
            let _ = server.broker.access().put_user(user).unwrap();
        }
        server
    }

    fn with(authenticator: Arc<dyn Authenticator>) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let options =
            LogOptions { commit: CommitPolicy::Os, segment_bytes_max: 1 << 20, ..LogOptions::default() };
        let log = Log::open(folder.path(), options).unwrap();
        let broker = Broker::open(log, BrokerConfig { authenticator, ..BrokerConfig::default() }).unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let http = Http::new(Node {
            metrics: Metrics::unregistered(),
            ready: ready.clone(),
            workers: workers(),
            reload: crate::reload::requests().0,
            started: broker.clock().now(),
            monitored: Monitored { series_max: 100, ..Monitored::default() },
            settings: Settings::of(&mut Config::default(), &BTreeMap::new()),
            log_filter: LogFilter::unused(),
        });
        let shutdown = CancellationToken::new();
        Server { http: Arc::new(http), broker, ready, shutdown, _folder: folder }
    }

    /// A request with a JSON body.
    async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.ask(method, path, &format!("{headers}\r\n{body}")).await
    }

    /// One request on a connection of its own; a body follows its headers after an empty line.
    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        self.ask_from("127.0.0.1:1", method, path, headers).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    async fn ask_from(&self, peer: &str, method: &str, path: &str, headers: &str) -> Answer {
        let (mut client, server) = duplex(1 << 20);
        let peer: SocketAddr = peer.parse().unwrap();
        let shutdown = self.shutdown.clone();
        let connection = Connection::plain(server, peer, peer, shutdown);
        let (http, broker) = (self.http.clone(), self.broker.clone());
        let serving = tokio::spawn(async move { http.serve(connection, broker).await });
        let end = if headers.contains("\r\n\r\n") { "" } else { "\r\n" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{end}");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        serving.await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), head_as_sent: head.to_string(), body: body.to_string() }
    }
}

/// The login of a user of [`Server::with_users`].
fn basic(user: &str) -> String {
    let encoded = data_encoding::BASE64.encode(format!("{user}:pw").as_bytes());
    format!("Authorization: Basic {encoded}\r\n")
}

const EMPTY: &str = "Content-Length: 0\r\n";

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.broker.log().shutdown();
    }
}

/// Workers without connections. A runtime cannot be dropped within another, so a thread owns it.
fn workers() -> Workers {
    std::thread::spawn(|| {
        let runtimes = Runtimes::start(RuntimeKind::PerCore, 1).unwrap();
        let workers = runtimes.workers();
        runtimes.run(async {});
        workers
    })
    .join()
    .unwrap()
}

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn health_and_metrics_need_no_login() {
    let hash = crate::passwords::hash(b"pw").unwrap();
    let server = Server::with_user("ann", &hash);
    let live = server.get("/health/live").await;
    assert_eq!((live.status, live.body.as_str()), (200, "live\n"));
    assert_eq!(server.get("/health/ready").await.status, 200);
    server.ready.store(false, Ordering::Release);
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "not ready\n"));
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert_eq!(server.ask("HEAD", "/health/live", "").await.body, "");
}

#[tokio::test]
async fn errors_are_problems() {
    let server = Server::new();
    assert_eq!(server.get("/nothing").await.problem().0, 404);
    assert_eq!(server.get("/api/v1/nothing").await.problem().0, 404);
    let unknown = server.get("/api/v1/topics/none").await.problem();
    assert_eq!(unknown, (404, "there is no topic `none`".into()));
    for method in ["POST", "DELETE", "PUT"] {
        let refused = server.ask(method, "/api/v1/overview", "Content-Length: 0\r\n").await;
        assert_eq!(refused.problem().0, 405);
        assert!(refused.head.contains("allow: get,head"), "{}", refused.head);
        assert_eq!(server.ask(method, "/health/live", "Content-Length: 0\r\n").await.problem().0, 405);
    }
    for (query, part) in [
        ("page=0", "counted from 1"),
        ("size=0", "1 to 500"),
        ("size=501", "1 to 500"),
        ("size=many", "invalid digit"),
        ("sort=age", "is none of name, partitions, records, bytes"),
        ("pge=1", "unknown field"),
        ("page=1&page=2", "given twice"),
        ("kind=other", "unknown variant"),
        ("namespace=none", "no namespace"),
    ] {
        let (status, detail) = server.get(&format!("/api/v1/topics?{query}")).await.problem();
        assert_eq!(status, if query == "namespace=none" { 404 } else { 400 }, "{query}");
        assert!(detail.contains(part), "{query}: {detail}");
    }
}

#[tokio::test]
async fn lists_are_answered_in_pages() {
    let server = Server::new();
    let namespace = server.broker.default_namespace();
    for number in 0..25 {
        namespace
            .create_topic(&format!("t{number:02}"), &TopicSpec { partitions: 1, config: TopicConfig::new() })
            .unwrap();
    }
    let all = server.get("/api/v1/topics").await.json();
    assert_eq!((&all["total"], &all["page"], &all["size"]), (&json!(25), &json!(1), &json!(100)));
    assert_eq!(names(&all).len(), 25);
    let third = server.get("/api/v1/topics?page=3&size=10").await.json();
    assert_eq!(names(&third), ["t20", "t21", "t22", "t23", "t24"]);
    let last = server.get("/api/v1/topics?size=2&sort=-name").await.json();
    assert_eq!(names(&last), ["t24", "t23"]);
    let filtered = server.get("/api/v1/topics?filter=t1&size=3").await.json();
    assert_eq!((names(&filtered), &filtered["total"]), (vec!["t10", "t11", "t12"], &json!(10)));
    let beyond = server.get("/api/v1/topics?page=18446744073709551615&size=500").await.json();
    assert_eq!((names(&beyond).len(), &beyond["total"]), (0, &json!(25)));
    let one = server.get("/api/v1/topics/t07").await.json();
    assert_eq!((&one["kind"], &one["offsets"][0]["high_watermark"]), (&json!("log"), &json!(0)));
}

#[tokio::test]
async fn queues_and_overview_show_the_broker() {
    let server = Server::new();
    let namespace = server.broker.default_namespace();
    let spec = QueueSpec { durable: true, ..QueueSpec::default() };
    namespace.declare_queue("orders/new", spec).unwrap();
    let queues = server.get("/api/v1/queues").await.json();
    let expected = json!({
        "name": "orders/new", "durable": true, "auto_delete": false, "exclusive": false,
        "ready": 0, "unacked": 0, "consumers": 0,
    });
    assert_eq!(queues["items"], json!([expected]));
    let detail = server.get("/api/v1/queues/orders%2Fnew").await.json();
    assert_eq!((&detail["name"], &detail["members"]), (&json!("orders/new"), &json!([])));
    let overview = server.get("/api/v1/overview").await.json();
    assert_eq!(overview["version"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!(
        (&overview["namespaces"][0]["name"], &overview["namespaces"][0]["queues"]),
        (&json!("/"), &json!(1))
    );
    assert!(overview["log"]["disk_bytes"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn the_api_needs_a_login_where_there_are_users() {
    let hash = crate::passwords::hash(b"pw").unwrap();
    let server = Server::with_user("ann", &hash);
    let basic =
        |text: &str| format!("Authorization: Basic {}\r\n", data_encoding::BASE64.encode(text.as_bytes()));
    for headers in [String::new(), basic("ann:wrong"), basic("bob:pw"), "Authorization: Bearer x\r\n".into()]
    {
        let refused = server.ask("GET", "/api/v1/overview", &headers).await;
        assert_eq!(refused.problem().0, 401, "{headers}");
        assert!(refused.head.contains("www-authenticate: basic realm=\"inver\""), "{}", refused.head);
    }
    // A path that does not exist reveals nothing before the login.
    assert_eq!(server.get("/api/v1/nothing").await.status, 401);
    assert_eq!(server.ask("GET", "/api/v1/overview", &basic("ann:pw")).await.status, 200);
}

#[tokio::test]
async fn without_users_the_api_is_for_loopback_only() {
    let server = Server::new();
    assert_eq!(server.ask_from("127.0.0.1:9", "GET", "/api/v1/overview", "").await.status, 200);
    assert_eq!(server.ask_from("192.0.2.1:9", "GET", "/api/v1/overview", "").await.problem().0, 401);
}

#[tokio::test]
async fn shutdown_ends_an_idle_connection() {
    let server = Server::new();
    let (client, io) = duplex(1024);
    let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let shutdown = server.shutdown.clone();
    let connection = Connection::plain(io, peer, peer, shutdown);
    let (http, broker) = (server.http.clone(), server.broker.clone());
    let serving = tokio::spawn(async move { http.serve(connection, broker).await });
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), serving).await.unwrap().unwrap();
    drop(client);
}
