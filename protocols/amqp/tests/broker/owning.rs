//! Owners of queues: exclusive and auto-delete queues, exclusive consumers, deletion.

use inver_amqp::codec::Method;
use inver_amqp::codec::table::Table;

use crate::client::Client;
use crate::server::Server;
use crate::verbs::{Declare, PLAIN, refused};

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
    let since = tokio::time::Instant::now();
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
        assert!(since.elapsed().as_secs() < 5, "the queue still exists");
        client = server.client();
    }
}

#[test]
fn auto_delete_queues_are_deleted_with_their_last_consumer() {
    let server = Server::start();
    let mut client = server.client();
    let auto_delete = Declare { auto_delete: true, ..PLAIN };
    auto_delete.by(&mut client);
    client.publish(1, "", "q", b"x");
    assert!(client.get("q", false).is_some(), "basic.get is no consumer");
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
fn an_empty_name_is_a_server_named_queue_or_the_last_declared() {
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
fn an_exclusive_consumer_refuses_others() {
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
fn queues_are_purged_and_deleted_conditionally() {
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
