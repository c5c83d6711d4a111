//! Admission and permissions. The texts are RabbitMQ's.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use inver_access::dialect::rabbitmq::{self, Permission, TopicPermission};
use inver_access::{Tag, User, UserLimits};
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};
use inver_amqp::codec::{Method, PROTOCOL_HEADER};
use inver_broker::{
    AccessControl, Anonymous, AuthError, Authenticator, Broker, ClientCertificate, Credentials, Identity,
    ListenerInfo, NamespaceLimits, NamespaceSpec,
};

use crate::client::{Client, table};
use crate::server::Server;
use crate::verbs::{Declare, PLAIN, declare_exchange};

/// Lets everybody in as the user that they say they are.
struct Trusting;

#[async_trait]
impl Authenticator for Trusting {
    async fn authenticate(
        &self,
        _access: &AccessControl,
        _peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        Ok(match credentials {
            Credentials::Anonymous => Identity::anonymous(),
            Credentials::Password { user, .. }
            | Credentials::Certificate { user }
            | Credentials::Token(user) => Identity::user(user),
        })
    }
}

fn set(broker: &Broker, [configure, write, read]: [&str; 3], topics: &[(&str, &str, &str)]) {
    let permission = Permission {
        user: "guest".into(),
        vhost: "/".into(),
        configure: configure.into(),
        write: write.into(),
        read: read.into(),
    };
    let topics: Vec<TopicPermission> = topics
        .iter()
        .map(|(exchange, write, read)| TopicPermission {
            user: "guest".into(),
            vhost: "/".into(),
            exchange: (*exchange).into(),
            write: (*write).into(),
            read: (*read).into(),
        })
        .collect();
    let rules = rabbitmq::rules("guest", "/", Some(&permission), &topics).unwrap();
    let _ = broker.access().replace_rules(|rule| rabbitmq::is_of(rule, "guest", "/"), rules).unwrap();
}

/// A server whose user `guest` has these permissions.
fn server(permission: [&str; 3]) -> Server {
    let server = Server::start();
    server.broker.access().put_user(User::new("guest")).unwrap();
    set(&server.broker, permission, &[]);
    server
}

fn started(server: &Server) -> (Client, String) {
    let mut client = Client::raw(server.address);
    client.bytes(&PROTOCOL_HEADER);
    let start = client.expect("ConnectionStart ");
    (client, start)
}

/// The answer to `connection.open` of a user.
fn opened(server: &Server, mechanism: &str, response: &[u8], vhost: &str) -> String {
    let (mut client, _) = started(server);
    client.start_ok(mechanism, response);
    client.expect("ConnectionTune ");
    client.send(0, &Method::ConnectionTuneOk { channel_max: 10, frame_max: 8192, heartbeat: 0 });
    client.open_vhost(vhost);
    client.method()
}

fn says(answer: &str, text: &str) {
    assert!(answer.contains(text), "«{text}» is not in {answer}");
}

#[test]
fn a_vhost_must_exist_and_the_user_must_have_permissions_in_it() {
    let server = server(["", "", ""]);
    let open = |vhost| opened(&server, "PLAIN", b"\0guest\0guest", vhost);
    says(&open("/"), "ConnectionOpenOk");
    says(&open("nowhere"), "530, reply_text: \"NOT_ALLOWED - vhost nowhere not found\"");
    says(&open(""), "530, reply_text: \"NOT_ALLOWED - vhost  not found\"");
    let _ = server.broker.access().delete_rules(|_| true).unwrap();
    says(&open("/"), "530, reply_text: \"NOT_ALLOWED - access to vhost '/' refused for user 'guest'\"");
}

#[test]
fn a_vhost_has_queues_of_its_own_with_its_limits_and_its_end_closes_connections() {
    let server = Server::start();
    let limits =
        NamespaceLimits { queues_max: Some(1), connections_max: Some(1), ..NamespaceLimits::default() };
    let spec =
        NamespaceSpec { limits, default_queue_type: Some("quorum".into()), ..NamespaceSpec::default() };
    server.broker.create_namespace("v", spec).unwrap();
    let (mut client, _) = started(&server);
    client.start_ok("PLAIN", b"\0guest\0guest");
    client.expect("ConnectionTune ");
    client.send(0, &Method::ConnectionTuneOk { channel_max: 10, frame_max: 8192, heartbeat: 0 });
    client.open_vhost("v");
    client.expect("ConnectionOpenOk");
    says(
        &opened(&server, "PLAIN", b"\0guest\0guest", "v"),
        "530, reply_text: \"NOT_ALLOWED - access to vhost 'v' refused for user 'guest': connection limit (1) is reached\"",
    );
    client.open_channel(1);
    says(&Declare { durable: true, ..PLAIN }.by(&mut client), "QueueDeclareOk");
    let quorum = table(&[("x-queue-type", Value::Text(b"quorum"))]);
    says(
        &Declare { durable: true, arguments: Table::of(&quorum), ..PLAIN }.by(&mut client),
        "QueueDeclareOk",
    );
    assert!(server.broker.default_namespace().queue("q").is_none());
    says(
        &Declare { queue: "b", ..PLAIN }.by(&mut client),
        "406, reply_text: \"PRECONDITION_FAILED - cannot declare queue 'b': queue limit in vhost 'v' (1) is reached\"",
    );
    let deleting = server.broker.clone();
    let deletion = std::thread::spawn({
        let handle = server.handle();
        move || handle.block_on(deleting.delete_namespace("v")).unwrap()
    });
    client.send(1, &Method::ChannelCloseOk {});
    client.expect_close("ConnectionClose", "320, reply_text: \"CONNECTION_FORCED - vhost 'v' is down\"");
    client.send(0, &Method::ConnectionCloseOk {});
    client.expect_end();
    let _deleted = deletion.join().unwrap();
    says(&opened(&server, "PLAIN", b"\0guest\0guest", "v"), "vhost v not found");
}

#[test]
fn a_deleted_user_is_disconnected() {
    let server = server(["", "", ""]);
    let mut client = server.client();
    let _ = server.broker.access().delete_user("guest").unwrap();
    client
        .expect_close("ConnectionClose", "320, reply_text: \"CONNECTION_FORCED - user 'guest' is deleted\"");
}

#[test]
fn the_listener_decides_about_mechanisms_and_its_namespace() {
    let listener = |connection: inver_broker::Connection| inver_broker::Connection {
        listener: Arc::new(ListenerInfo {
            namespace: Some("other".into()),
            anonymous: Anonymous::Never,
            ..ListenerInfo::default()
        }),
        certificate: Some(Arc::new(ClientCertificate {
            user: Some("ann".into()),
            ..ClientCertificate::default()
        })),
        ..connection
    };
    let server = Server::listening(Arc::new(Trusting), listener);
    let (_, start) = started(&server);
    says(&start, &format!("mechanisms: {:?}", b"PLAIN AMQPLAIN EXTERNAL"));
    says(&opened(&server, "EXTERNAL", b"", "/"), "NOT_ALLOWED - access to vhost '/' refused for user 'ann'");
    let (mut client, _) = started(&server);
    client.start_ok("ANONYMOUS", b"");
    client.expect_close(
        "ConnectionClose",
        "503, reply_text: \"COMMAND_INVALID - invalid authentication mechanism",
    );

    let listener = |connection: inver_broker::Connection| inver_broker::Connection {
        listener: Arc::new(ListenerInfo { anonymous: Anonymous::Always, ..ListenerInfo::default() }),
        ..connection
    };
    let server = Server::listening(Arc::new(Trusting), listener);
    server.broker.access().put_user(User::new("ann")).unwrap();
    let (_, start) = started(&server);
    says(&start, &format!("mechanisms: {:?}", b"PLAIN AMQPLAIN ANONYMOUS"));
    says(
        &opened(&server, "ANONYMOUS", b"", "/"),
        "NOT_ALLOWED - access to vhost '/' refused for user 'none'",
    );
}

#[test]
fn without_users_nothing_is_restricted() {
    let server = Server::start();
    let (_, start) = started(&server);
    says(&start, &format!("mechanisms: {:?}", b"PLAIN AMQPLAIN ANONYMOUS"));
    says(&opened(&server, "ANONYMOUS", b"", "/"), "ConnectionOpenOk");
}

#[test]
fn limits_of_a_user_hold() {
    let server = server([".*", "", ""]);
    let limits = UserLimits { connections_max: Some(1), channels_max: Some(2) };
    server.broker.access().update_user("guest", |user| user.limits = limits).unwrap();
    let mut client = Client::open(server.address);
    says(
        &opened(&server, "PLAIN", b"\0guest\0guest", "/"),
        "530, reply_text: \"NOT_ALLOWED - connection refused for user 'guest': user connection limit (1) is reached\"",
    );
    client.open_channel(1);
    client.open_channel(2);
    client.send(1, &Method::ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 });
    client.expect("ChannelCloseOk");
    client.open_channel(3);
    client.send(4, &Method::ChannelOpen { out_of_band: "" });
    client.expect_close(
        "ConnectionClose",
        "530, reply_text: \"NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user \
         limit of (2)\"",
    );
    client.send(0, &Method::ConnectionCloseOk {});
    client.expect_end();
    Client::open(server.address).open_channel(1);
}

/// Publishes with confirms, and returns the answer.
fn publish(client: &mut Client, exchange: &str, key: &str, properties: &Properties<'_>) -> String {
    client.send(1, &Method::ConfirmSelect { nowait: true });
    client.publish_with(1, exchange, key, false, properties, b"x");
    client.method()
}

fn bind(queue: &'static str, exchange: &'static str, routing_key: &'static str) -> Method<'static> {
    Method::QueueBind { ticket: 0, queue, exchange, routing_key, nowait: false, arguments: Table::EMPTY }
}

#[test]
fn dead_letter_and_alternate_exchanges_need_read_and_write() {
    let dead = table(&[("x-dead-letter-exchange", Value::Text(b""))]);
    let alternate = table(&[("alternate-exchange", Value::Text(b"amq.fanout"))]);
    for (write, read, queue, exchange) in [
        (".*", ".*", "QueueDeclareOk", "ExchangeDeclareOk"),
        (".*", "", "read access to queue 'q' in vhost '/'", "read access to exchange 'x' in vhost '/'"),
        ("", ".*", "write access to exchange 'amq.default'", "write access to exchange 'amq.fanout'"),
    ] {
        let server = server([".*", write, read]);
        says(&Declare { arguments: Table::of(&dead), ..PLAIN }.by(&mut server.client()), queue);
        says(&server.client().call(&declare_exchange("x", "direct", Table::of(&alternate))), exchange);
    }
}

#[test]
fn topic_permissions_hold_for_every_key_of_topic_exchanges() {
    let server = server([".*", ".*", ".*"]);
    let topic = ("amq.topic", "^{username}\\.", "^{vhost}|^r");
    set(&server.broker, [".*", ".*", ".*"], &[topic]);
    server.client().declare("q");
    let none = Properties::default();
    says(&publish(&mut server.client(), "amq.topic", "guest.a", &none), "BasicAck");
    says(&publish(&mut server.client(), "amq.fanout", "a", &none), "BasicAck");
    let refused = "403, reply_text: \"ACCESS_REFUSED - write access to topic 'a' in exchange 'amq.topic' in vhost '/' refused for user 'guest'\"";
    says(&publish(&mut server.client(), "amq.topic", "a", &none), refused);
    // The header CC: a list with the text `a`.
    let keys = b"\x02CCA\0\0\0\x06S\0\0\0\x01a";
    let copied = Properties { headers: Some(Table::of(keys)), ..Properties::default() };
    says(&publish(&mut server.client(), "amq.topic", "guest.a", &copied), refused);
    says(&server.client().call(&bind("q", "amq.topic", "r.#")), "QueueBindOk");
    says(
        &server.client().call(&bind("q", "amq.topic", "a.#")),
        "403, reply_text: \"ACCESS_REFUSED - read access to topic 'a.#' in exchange 'amq.topic' in vhost '/' refused for user 'guest'\"",
    );
}

#[test]
fn a_user_id_is_the_users_own_unless_it_is_an_impersonator() {
    let server = server(["", "^amq\\.fanout$", ""]);
    let other = Properties { user_id: Some(b"other"), ..Properties::default() };
    let mut client = server.client();
    says(
        &publish(&mut client, "amq.fanout", "", &other),
        "406, reply_text: \"PRECONDITION_FAILED - user_id property set to 'other' but authenticated user was 'guest'\"",
    );
    says(&publish(&mut server.client(), "amq.direct", "", &other), "write access to exchange 'amq.direct'");
    let tags = || [Tag::Impersonator].into_iter().collect();
    server.broker.access().update_user("guest", |user| user.tags = tags()).unwrap();
    says(&publish(&mut server.client(), "amq.fanout", "", &other), "BasicAck");
}

#[test]
fn a_revoked_permission_refuses_the_next_operation_and_ends_consumers() {
    let server = server([".*", ".*", ".*"]);
    let mut client = server.client();
    client.declare("q");
    client.consume("q", "c", true);
    says(&publish(&mut client, "", "q", &Properties::default()), "BasicAck");
    assert_eq!(client.message().text(), "x");
    let mut publisher = server.client();
    says(&publish(&mut publisher, "", "q", &Properties::default()), "BasicAck");
    assert_eq!(client.message().text(), "x");
    set(&server.broker, [".*", "^amq\\.", ""], &[]);
    client.send(1, &Method::BasicQos { prefetch_size: 0, prefetch_count: 1, global: false });
    client.expect("BasicQosOk");
    client.expect("BasicCancel { consumer_tag: \"c\"");
    says(&publish(&mut publisher, "", "q", &Properties::default()), "BasicAck");
    client.expect_silence();
    set(&server.broker, [".*", "", ""], &[]);
    says(
        &publish(&mut publisher, "", "q", &Properties::default()),
        "403, reply_text: \"ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'guest'\"",
    );
    says(&client.call(&Method::BasicGet { ticket: 0, queue: "q", no_ack: true }), "read access to queue 'q'");
}

#[test]
fn a_transaction_is_refused_at_its_publish() {
    let server = server(["", "^amq\\.fanout$", ""]);
    let mut client = server.client();
    client.send(1, &Method::TxSelect {});
    client.expect("TxSelectOk");
    client.publish(1, "amq.fanout", "", b"x");
    client.publish(1, "amq.direct", "", b"x");
    client.expect_close("ChannelClose", "write access to exchange 'amq.direct'");
}

#[test]
fn the_pseudo_queue_of_replies_needs_nothing() {
    let server = server(["", "", ""]);
    let mut client = server.client();
    client.consume("amq.rabbitmq.reply-to", "r", true);
    says(&Declare { queue: "amq.rabbitmq.reply-to", ..PLAIN }.by(&mut client), "QueueDeclareOk");
}
