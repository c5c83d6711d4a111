//! Exchanges, queues and bindings: what they do, and what is refused in which words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod support;

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};
use support::{Client, Server, table};

#[derive(Clone, Copy)]
struct Declare<'a> {
    queue: &'a str,
    passive: bool,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Table<'a>,
}

const PLAIN: Declare<'static> = Declare {
    queue: "q",
    passive: false,
    durable: false,
    exclusive: false,
    auto_delete: false,
    arguments: Table::EMPTY,
};

impl Declare<'_> {
    fn by(&self, client: &mut Client) -> String {
        client.send(
            1,
            &Method::QueueDeclare {
                ticket: 0,
                queue: self.queue,
                passive: self.passive,
                durable: self.durable,
                exclusive: self.exclusive,
                auto_delete: self.auto_delete,
                nowait: false,
                arguments: self.arguments,
            },
        );
        client.method()
    }
}

fn exchange<'a>(exchange: &'a str, kind: &'a str, arguments: Table<'a>) -> Method<'a> {
    Method::ExchangeDeclare {
        ticket: 0,
        exchange,
        kind,
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments,
    }
}

fn refused(server: &Server, act: impl FnOnce(&mut Client) -> String, text: &str) {
    let mut client = server.client();
    let method = act(&mut client);
    assert!(method.contains(text), "«{text}» is not in {method}");
}

#[test]
fn the_four_kinds_of_exchange() {
    let server = Server::start();
    let mut client = server.client();
    for queue in ["a", "b", "c"] {
        client.declare(queue);
    }
    for kind in ["direct", "fanout", "topic", "headers"] {
        client.declare_exchange(&format!("my-{kind}"), kind);
    }
    client.bind("a", "my-direct", "k", Table::default());
    client.bind("b", "my-direct", "k", Table::default());
    client.bind("c", "my-direct", "other", Table::default());
    client.bind("a", "my-fanout", "", Table::default());
    client.bind("c", "my-fanout", "whatever", Table::default());
    client.bind("a", "my-topic", "*.b.#", Table::default());
    client.bind("b", "my-topic", "#", Table::default());
    client.bind("b", "my-topic", "a.*", Table::default());
    let all = table(&[("x-match", Value::Text(b"all")), ("n", Value::I32(1)), ("s", Value::Text(b"t"))]);
    let any = table(&[("x-match", Value::Text(b"any")), ("n", Value::I32(1)), ("there", Value::Void)]);
    client.bind("a", "my-headers", "", Table::of(&all));
    client.bind("b", "my-headers", "", Table::of(&any));
    let reached = |client: &mut Client, exchange: &str, key: &str, headers: &[u8]| {
        let properties = Properties { headers: Some(Table::of(headers)), ..Properties::default() };
        client.publish_with(1, exchange, key, false, &properties, b"x");
        let mut by = String::new();
        for queue in ["a", "b", "c"] {
            if client.get(queue, true).is_some() {
                by.push_str(queue);
                assert!(client.get(queue, true).is_none(), "{queue} got it twice");
            }
        }
        by
    };
    assert_eq!(reached(&mut client, "my-direct", "k", b""), "ab");
    assert_eq!(reached(&mut client, "my-fanout", "k", b""), "ac");
    assert_eq!(reached(&mut client, "my-topic", "x.b", b""), "ab");
    assert_eq!(reached(&mut client, "my-topic", "a.c", b""), "b");
    let both = table(&[("n", Value::I64(1)), ("s", Value::Text(b"t"))]);
    assert_eq!(reached(&mut client, "my-headers", "", &both), "ab");
    let text = table(&[("n", Value::Text(b"1")), ("there", Value::Bool(true))]);
    assert_eq!(reached(&mut client, "my-headers", "", &text), "b");
    assert_eq!(reached(&mut client, "my-headers", "", b""), "");
    client.send(
        1,
        &Method::QueueUnbind {
            ticket: 0,
            queue: "a",
            exchange: "my-direct",
            routing_key: "k",
            arguments: Table::default(),
        },
    );
    client.expect("QueueUnbindOk");
    assert_eq!(reached(&mut client, "my-direct", "k", b""), "b");
}

#[test]
fn exchanges_lead_to_exchanges_and_alternates() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    client.declare("lost");
    client.declare_exchange("to", "fanout");
    client.bind("q", "to", "", Table::default());
    client.declare_exchange("elsewhere", "fanout");
    client.bind("lost", "elsewhere", "", Table::default());
    let arguments = table(&[("alternate-exchange", Value::Text(b"elsewhere"))]);
    client.send(1, &exchange("from", "topic", Table::of(&arguments)));
    client.expect("ExchangeDeclareOk");
    client.send(
        1,
        &Method::ExchangeBind {
            ticket: 0,
            destination: "to",
            source: "from",
            routing_key: "a.#",
            nowait: false,
            arguments: Table::default(),
        },
    );
    client.expect("ExchangeBindOk");
    client.publish(1, "from", "a.b", b"found");
    client.publish(1, "from", "b", b"lost");
    assert_eq!(client.get("q", true).unwrap().text(), "found");
    let lost = client.get("lost", true).unwrap();
    assert_eq!((lost.text(), lost.exchange, lost.routing_key), ("lost".into(), "from".into(), "b".into()));
    client.send(
        1,
        &Method::ExchangeUnbind {
            ticket: 0,
            destination: "to",
            source: "from",
            routing_key: "a.#",
            nowait: false,
            arguments: Table::default(),
        },
    );
    client.expect("ExchangeUnbindOk");
    client.publish(1, "from", "a.b", b"now lost");
    assert_eq!(client.get("lost", true).unwrap().text(), "now lost");
}

#[test]
fn a_declaration_again_must_mean_the_same() {
    let server = Server::start();
    let mut client = server.client();
    let ttl = table(&[("x-message-ttl", Value::I32(60_000))]);
    let with_ttl = Declare { arguments: Table::of(&ttl), ..PLAIN };
    assert!(
        with_ttl
            .by(&mut client)
            .starts_with("QueueDeclareOk { queue: \"q\", message_count: 0, consumer_count: 0")
    );
    assert!(with_ttl.by(&mut client).starts_with("QueueDeclareOk"));
    let wider = table(&[("x-message-ttl", Value::I64(60_000))]);
    assert!(Declare { arguments: Table::of(&wider), ..PLAIN }.by(&mut client).starts_with("QueueDeclareOk"));
    let inequivalent = "406, reply_text: \"PRECONDITION_FAILED - inequivalent arg";
    refused(
        &server,
        |c| PLAIN.by(c),
        &format!(
            "{inequivalent} 'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '60000' of \
             type 'signedint'\", class_id: 50, method_id: 10"
        ),
    );
    let other = table(&[("x-message-ttl", Value::I32(1000))]);
    refused(
        &server,
        |c| Declare { arguments: Table::of(&other), ..PLAIN }.by(c),
        &format!(
            "{inequivalent} 'x-message-ttl' for queue 'q' in vhost '/': received '1000' but current is '60000'"
        ),
    );
    refused(
        &server,
        |c| Declare { durable: true, arguments: Table::of(&ttl), ..PLAIN }.by(c),
        &format!(
            "{inequivalent} 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"
        ),
    );
    refused(
        &server,
        |c| Declare { auto_delete: true, arguments: Table::of(&ttl), ..PLAIN }.by(c),
        &format!(
            "{inequivalent} 'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'"
        ),
    );
    client.declare_exchange("e", "direct");
    client.declare_exchange("e", "direct");
    refused(
        &server,
        |c| {
            c.send(1, &exchange("e", "fanout", Table::default()));
            c.method()
        },
        &format!(
            "{inequivalent} 'type' for exchange 'e' in vhost '/': received 'fanout' but current is 'direct'\", class_id: 40, method_id: 10"
        ),
    );
    refused(
        &server,
        |c| {
            c.send(1, &exchange("e", "no-such-kind", Table::default()));
            c.method()
        },
        "406, reply_text: \"PRECONDITION_FAILED - unknown exchange type 'no-such-kind'",
    );
}

#[test]
fn bad_arguments_are_refused() {
    let server = Server::start();
    for (name, value, why) in [
        ("x-message-ttl", Value::I32(-1), "{value_negative,-1}"),
        ("x-message-ttl", Value::Text(b"1"), "{unacceptable_type,longstr}"),
        ("x-expires", Value::I32(0), "{value_zero,0}"),
        ("x-max-length", Value::I32(-5), "{value_negative,-5}"),
        ("x-overflow", Value::Text(b"explode"), "invalid_overflow"),
        ("x-single-active-consumer", Value::I32(1), "{unacceptable_type,signedint}"),
        ("x-dead-letter-routing-key", Value::Text(b"k"), "routing_key_but_no_dlx_defined"),
        ("x-max-priority", Value::I32(256), "{max_value_exceeded,256}"),
    ] {
        let arguments = table(&[(name, value)]);
        refused(
            &server,
            |c| Declare { arguments: Table::of(&arguments), ..PLAIN }.by(c),
            &format!(
                "406, reply_text: \"PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/': {why}"
            ),
        );
    }
    let arguments = table(&[("x-dead-letter-exchange", Value::I32(1))]);
    refused(
        &server,
        |c| Declare { arguments: Table::of(&arguments), ..PLAIN }.by(c),
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'",
    );
}

#[test]
fn a_quorum_queue_is_a_durable_queue_with_a_bound_of_deliveries() {
    let server = Server::start();
    let quorum = table(&[("x-queue-type", Value::Text(b"quorum"))]);
    let quorum = Declare { durable: true, arguments: Table::of(&quorum), ..PLAIN };
    for (declare, property) in [
        (Declare { durable: false, ..quorum }, "non-durable"),
        (Declare { auto_delete: true, ..quorum }, "auto-delete"),
        (Declare { exclusive: true, ..quorum }, "exclusive-owner"),
    ] {
        let text =
            format!("406, reply_text: \"PRECONDITION_FAILED - invalid property '{property}' for queue 'q'");
        refused(&server, |c| declare.by(c), &text);
    }
    let stream = table(&[("x-queue-type", Value::Text(b"stream"))]);
    refused(
        &server,
        |c| Declare { durable: true, arguments: Table::of(&stream), ..PLAIN }.by(c),
        "invalid arg 'x-queue-type' for queue 'q' in vhost '/': stream queues are not supported",
    );
    let mut client = server.client();
    assert!(quorum.by(&mut client).starts_with("QueueDeclareOk"));
    client.publish(1, "", "q", b"comes back too often");
    // RabbitMQ's default is 20 returns; then it is gone.
    for returns in 0..=20 {
        let got = client.get("q", false).expect("it is still there");
        assert_eq!(got.redelivered, returns > 0);
        client.send(1, &Method::BasicNack { delivery_tag: got.tag, multiple: false, requeue: true });
    }
    assert!(client.get("q", false).is_none());
}

#[test]
fn what_is_not_there() {
    let server = Server::start();
    let no_queue = "404, reply_text: \"NOT_FOUND - no queue 'x' in vhost '/'\"";
    let no_exchange = "404, reply_text: \"NOT_FOUND - no exchange 'x' in vhost '/'\"";
    refused(&server, |c| Declare { queue: "x", passive: true, ..PLAIN }.by(c), no_queue);
    let say = |method: Method<'static>| {
        move |c: &mut Client| {
            c.send(1, &method);
            c.method()
        }
    };
    refused(&server, say(Method::BasicGet { ticket: 0, queue: "x", no_ack: true }), no_queue);
    refused(&server, say(Method::QueuePurge { ticket: 0, queue: "x", nowait: false }), no_queue);
    refused(
        &server,
        |c| {
            c.consume_with("x", "", false, false, Table::default());
            c.method()
        },
        no_queue,
    );
    refused(
        &server,
        |c| {
            c.publish(1, "x", "k", b"lost");
            c.method()
        },
        &format!("{no_exchange}, class_id: 60, method_id: 40"),
    );
    let bind = |queue, exchange| Method::QueueBind {
        ticket: 0,
        queue,
        exchange,
        routing_key: "",
        nowait: false,
        arguments: Table::EMPTY,
    };
    refused(&server, say(bind("x", "amq.direct")), no_queue);
    server.client().declare("q");
    refused(&server, say(bind("q", "x")), no_exchange);
    refused(
        &server,
        say(Method::BasicGet { ticket: 0, queue: "", no_ack: true }),
        "NOT_FOUND - no previously declared queue",
    );
    // Deleting what is not there is no error.
    let mut client = server.client();
    client.send(
        1,
        &Method::QueueDelete { ticket: 0, queue: "x", if_unused: false, if_empty: false, nowait: false },
    );
    client.expect("QueueDeleteOk { message_count: 0 }");
    client.send(1, &Method::ExchangeDelete { ticket: 0, exchange: "x", if_unused: false, nowait: false });
    client.expect("ExchangeDeleteOk");
}

#[test]
fn names_that_are_not_for_clients() {
    let server = Server::start();
    refused(
        &server,
        |c| Declare { queue: "amq.mine", ..PLAIN }.by(c),
        "403, reply_text: \"ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
    );
    refused(
        &server,
        |c| {
            c.send(1, &exchange("amq.mine", "direct", Table::default()));
            c.method()
        },
        "403, reply_text: \"ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
    );
    refused(
        &server,
        |c| {
            c.send(1, &exchange("", "direct", Table::default()));
            c.method()
        },
        "403, reply_text: \"ACCESS_REFUSED - operation not permitted on the default exchange",
    );
    refused(
        &server,
        |c| {
            c.send(
                1,
                &Method::ExchangeDelete { ticket: 0, exchange: "amq.topic", if_unused: false, nowait: false },
            );
            c.method()
        },
        "403, reply_text: \"ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed",
    );
    // They are there, though.
    let mut client = server.client();
    for (name, kind) in
        [("amq.topic", "topic"), ("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.match", "headers")]
    {
        client.send(
            1,
            &Method::ExchangeDeclare {
                ticket: 0,
                exchange: name,
                kind,
                passive: false,
                durable: true,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: Table::default(),
            },
        );
        client.expect("ExchangeDeclareOk");
    }
}

#[test]
fn exclusive_queues_belong_to_their_connection() {
    let server = Server::start();
    let mut owner = server.client();
    let exclusive = Declare { exclusive: true, ..PLAIN };
    assert!(exclusive.by(&mut owner).starts_with("QueueDeclareOk"));
    assert!(exclusive.by(&mut owner).starts_with("QueueDeclareOk"));
    let locked = "405, reply_text: \"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'";
    refused(&server, |c| exclusive.by(c), locked);
    refused(&server, |c| PLAIN.by(c), locked);
    refused(&server, |c| Declare { passive: true, ..PLAIN }.by(c), locked);
    refused(
        &server,
        |c| {
            c.consume_with("q", "", false, false, Table::default());
            c.method()
        },
        locked,
    );
    server.client().publish(1, "", "q", b"anybody may publish to it");
    owner.await_depth("q", 1, 0);
    drop(owner);
    let mut client = server.client();
    let since = std::time::Instant::now();
    loop {
        client.send(
            1,
            &Method::QueueDeclare {
                ticket: 0,
                queue: "q",
                passive: true,
                durable: false,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments: Table::default(),
            },
        );
        if client.expect("ChannelClose").contains("404") {
            break;
        }
        assert!(since.elapsed().as_secs() < 5, "it is still there");
        client = server.client();
    }
}

#[test]
fn auto_delete_queues_go_with_their_last_consumer() {
    let server = Server::start();
    let mut client = server.client();
    let auto_delete = Declare { auto_delete: true, ..PLAIN };
    auto_delete.by(&mut client);
    client.publish(1, "", "q", b"x");
    assert!(client.get("q", false).is_some(), "a get is no consumer");
    client.consume("q", "one", true);
    client.consume("q", "two", true);
    for tag in ["one", "two"] {
        assert_eq!(client.inspect("q").1, if tag == "one" { 2 } else { 1 });
        client.send(1, &Method::BasicCancel { consumer_tag: tag, nowait: false });
        client.expect("BasicCancelOk");
    }
    let method = Declare { passive: true, ..PLAIN }.by(&mut client);
    assert!(method.contains("404"), "{method}");
}

#[test]
fn server_named_queues_and_the_last_declared() {
    let server = Server::start();
    let mut client = server.client();
    let declared = Declare { queue: "", ..PLAIN }.by(&mut client);
    let name = declared.split('"').nth(1).unwrap().to_owned();
    assert!(name.starts_with("amq.gen-") && name.len() == 30, "{name}");
    client.bind("", "amq.direct", "", Table::default());
    client.publish(1, "amq.direct", &name, b"by its name");
    assert_eq!(client.get("", true).unwrap().text(), "by its name");
}

#[test]
fn exclusive_consumers_are_alone() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    client.consume_with("q", "only", true, true, Table::default());
    client.expect("BasicConsumeOk");
    let in_use = "403, reply_text: \"ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    let consume = |exclusive| {
        move |c: &mut Client| {
            c.consume_with("q", "", true, exclusive, Table::default());
            c.method()
        }
    };
    refused(&server, consume(false), in_use);
    refused(&server, consume(true), in_use);
    client.consume_with("q", "only", true, false, Table::default());
    client.expect_close(
        "ConnectionClose",
        "530, reply_text: \"NOT_ALLOWED - attempt to reuse consumer tag 'only'",
    );
}

#[test]
fn purge_and_conditional_deletes() {
    let server = Server::start();
    for durable in [false, true] {
        let mut client = server.client();
        client.declare_with("p", durable, Table::default());
        for _ in 0..5 {
            client.publish(1, "", "p", b"x");
        }
        client.send(1, &Method::QueuePurge { ticket: 0, queue: "p", nowait: false });
        client.expect("QueuePurgeOk { message_count: 5 }");
        client.publish(1, "", "p", b"y");
        assert_eq!(client.inspect("p"), (1, 0));
        let delete = |if_empty| Method::QueueDelete {
            ticket: 0,
            queue: "p",
            if_unused: false,
            if_empty,
            nowait: false,
        };
        let mut other = server.client();
        other.send(1, &delete(true));
        other.expect_close("ChannelClose", "PRECONDITION_FAILED - queue 'p' in vhost '/' not empty");
        client.send(1, &delete(false));
        client.expect("QueueDeleteOk { message_count: 1 }");
    }
    let mut client = server.client();
    client.declare("q");
    client.declare_exchange("e", "fanout");
    client.bind("q", "e", "", Table::default());
    client.send(1, &Method::ExchangeDelete { ticket: 0, exchange: "e", if_unused: true, nowait: false });
    client.expect_close("ChannelClose", "PRECONDITION_FAILED - exchange 'e' in vhost '/' in use");
}

#[test]
fn methods_that_are_not_for_clients_or_not_built() {
    let server = Server::start();
    let say = |method: Method<'static>| {
        move |c: &mut Client| {
            c.send(1, &method);
            c.method()
        }
    };
    refused(
        &server,
        say(Method::QueueDeclareOk { queue: "q", message_count: 0, consumer_count: 0 }),
        "503, reply_text: \"COMMAND_INVALID - unimplemented method",
    );
    refused(
        &server,
        say(Method::ChannelOpen { out_of_band: "" }),
        "504, reply_text: \"CHANNEL_ERROR - second 'channel.open' seen",
    );
    refused(
        &server,
        say(Method::ChannelFlow { active: false }),
        "540, reply_text: \"NOT_IMPLEMENTED - active=false",
    );
    refused(
        &server,
        say(Method::BasicRecover { requeue: false }),
        "540, reply_text: \"NOT_IMPLEMENTED - requeue=false",
    );
    refused(
        &server,
        say(Method::BasicQos { prefetch_size: 1, prefetch_count: 0, global: false }),
        "540, reply_text: \"NOT_IMPLEMENTED - prefetch_size!=0 (1)",
    );
    refused(
        &server,
        say(Method::BasicPublish {
            ticket: 0,
            exchange: "",
            routing_key: "",
            mandatory: false,
            immediate: true,
        }),
        "540, reply_text: \"NOT_IMPLEMENTED - immediate=true\", class_id: 60, method_id: 40",
    );
    refused(
        &server,
        |c| {
            c.bytes(&[1, 0, 1, 0, 0, 0, 4, 0, 99, 0, 1, 0xCE]);
            c.method()
        },
        "540, reply_text: \"NOT_IMPLEMENTED - no method 1 of class 99\", class_id: 99, method_id: 1",
    );
    refused(
        &server,
        |c| {
            c.bytes(&[1, 0, 1, 0, 0, 0, 5, 0, 50, 0, 10, 7, 0xCE]);
            c.method()
        },
        "501, reply_text: \"FRAME_ERROR - cannot decode: truncated\", class_id: 50, method_id: 10",
    );
    refused(
        &server,
        |c| {
            c.send(9, &Method::TxSelect {});
            c.method()
        },
        "504, reply_text: \"CHANNEL_ERROR - expected 'channel.open'",
    );
    let mut client = server.client();
    client.send(1, &Method::ChannelFlow { active: true });
    client.expect("ChannelFlowOk { active: true }");
    client.send(
        1,
        &Method::AccessRequest {
            realm: "/data",
            exclusive: false,
            passive: true,
            active: true,
            write: true,
            read: true,
        },
    );
    client.expect("AccessRequestOk { ticket: 1 }");
}
