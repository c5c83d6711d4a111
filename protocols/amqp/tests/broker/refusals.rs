//! Error replies: codes and texts.

use inver_amqp::codec::Method;
use inver_amqp::codec::table::Table;

use crate::client::Client;
use crate::server::Server;
use crate::verbs::{Declare, PLAIN, declare_durable_exchange, declare_exchange, refused};

#[test]
fn unknown_queues_and_exchanges_are_refused() {
    let server = Server::start();
    let no_queue = "404, reply_text: \"NOT_FOUND - no queue 'x' in vhost '/'\"";
    let no_exchange = "404, reply_text: \"NOT_FOUND - no exchange 'x' in vhost '/'\"";
    refused(&server, |c| Declare { queue: "x", passive: true, ..PLAIN }.by(c), no_queue);
    let say = |method: Method<'static>| move |c: &mut Client| c.call(&method);
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
    let no_reply_queue = "404, reply_text: \"NOT_FOUND - no queue 'amq.rabbitmq.reply-to' in vhost '/'\"";
    refused(&server, say(bind("amq.rabbitmq.reply-to", "amq.direct")), no_reply_queue);
    // Deleting what does not exist is not an error.
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
fn reserved_names_are_refused() {
    let server = Server::start();
    refused(
        &server,
        |c| Declare { queue: "amq.mine", ..PLAIN }.by(c),
        "403, reply_text: \"ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
    );
    refused(
        &server,
        |c| c.call(&declare_exchange("amq.mine", "direct", Table::default())),
        "403, reply_text: \"ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
    );
    refused(
        &server,
        |c| c.call(&declare_exchange("", "direct", Table::default())),
        "403, reply_text: \"ACCESS_REFUSED - operation not permitted on the default exchange",
    );
    refused(
        &server,
        |c| {
            c.call(&Method::ExchangeDelete {
                ticket: 0,
                exchange: "amq.topic",
                if_unused: false,
                nowait: false,
            })
        },
        "403, reply_text: \"ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed",
    );
    // They exist, though.
    let mut client = server.client();
    for (name, kind) in
        [("amq.topic", "topic"), ("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.match", "headers")]
    {
        client.send(1, &declare_durable_exchange(name, kind));
        client.expect("ExchangeDeclareOk");
    }
}

#[test]
fn unknown_and_unimplemented_methods_are_refused() {
    let server = Server::start();
    let say = |method: Method<'static>| move |c: &mut Client| c.call(&method);
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

#[test]
fn the_pseudo_queue_of_direct_reply_to_can_be_declared() {
    let server = Server::start();
    let mut client = server.client();
    for passive in [true, false] {
        let declared = Declare { queue: "amq.rabbitmq.reply-to", passive, ..PLAIN }.by(&mut client);
        assert!(declared.contains("message_count: 0, consumer_count: 1"), "{declared}");
    }
    refused(
        &server,
        |c| Declare { queue: "amq.rabbitmq.reply-to.x", passive: true, ..PLAIN }.by(c),
        "404, reply_text: \"NOT_FOUND - no queue 'amq.rabbitmq.reply-to.x' in vhost '/'\"",
    );
}
