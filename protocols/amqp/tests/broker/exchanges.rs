//! Routing by exchanges.

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};

use crate::client::{Client, table};
use crate::server::Server;
use crate::verbs::declare_exchange;

#[test]
fn exchanges_of_each_type_route_messages() {
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
fn exchanges_route_to_exchanges_and_alternate_exchanges() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    client.declare("lost");
    client.declare_exchange("to", "fanout");
    client.bind("q", "to", "", Table::default());
    client.declare_exchange("elsewhere", "fanout");
    client.bind("lost", "elsewhere", "", Table::default());
    let arguments = table(&[("alternate-exchange", Value::Text(b"elsewhere"))]);
    client.send(1, &declare_exchange("from", "topic", Table::of(&arguments)));
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
