//! Declarations of queues and exchanges: arguments, and equivalence with what exists.

use inver_amqp::codec::Method;
use inver_amqp::codec::table::{Table, Value};

use crate::client::table;
use crate::server::Server;
use crate::verbs::{Declare, PLAIN, declare_exchange, refused};

#[test]
fn a_second_declaration_must_be_equivalent() {
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
        |c| c.call(&declare_exchange("e", "fanout", Table::default())),
        &format!(
            "{inequivalent} 'type' for exchange 'e' in vhost '/': received 'fanout' but current is 'direct'\", class_id: 40, method_id: 10"
        ),
    );
    refused(
        &server,
        |c| c.call(&declare_exchange("e", "no-such-kind", Table::default())),
        "406, reply_text: \"PRECONDITION_FAILED - unknown exchange type 'no-such-kind'",
    );
}

#[test]
fn invalid_arguments_are_refused() {
    let server = Server::start();
    for (name, value, why) in [
        ("x-message-ttl", Value::I32(-1), "{value_negative,-1}"),
        ("x-message-ttl", Value::Text(b"1"), r#"\"expected integer, got longstr\""#),
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
fn a_quorum_queue_is_a_durable_queue_with_a_delivery_limit() {
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
    let other = table(&[("x-queue-type", Value::Text(b"mine"))]);
    refused(
        &server,
        |c| Declare { durable: true, arguments: Table::of(&other), ..PLAIN }.by(c),
        "invalid arg 'x-queue-type' for queue 'q' in vhost '/': \\\"unsupported queue type 'mine'\\\"",
    );
    let mut client = server.client();
    assert!(quorum.by(&mut client).starts_with("QueueDeclareOk"));
    client.publish(1, "", "q", b"comes back too often");
    // RabbitMQ's default delivery limit is 20.
    for returns in 0..=20 {
        let got = client.get("q", false).expect("it is still there");
        assert_eq!(got.redelivered, returns > 0);
        client.send(1, &Method::BasicNack { delivery_tag: got.tag, multiple: false, requeue: true });
    }
    assert!(client.get("q", false).is_none());
}
