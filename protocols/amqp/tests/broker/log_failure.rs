//! After the log has failed: no method whose effect must be durable is answered, and no publish is confirmed.

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};
use inver_broker::TopicSpec;

use crate::client::{Client, table};
use crate::server::Server;
use crate::verbs::{Declare, PLAIN, declare_durable_exchange};

/// A server with the durable queue `q` that holds a message, bound to the durable exchange `ex`, and the log topic `t`.
fn server() -> Server {
    let server = Server::start();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    server.broker.default_namespace().create_topic("t", &spec).unwrap();
    let mut client = server.client();
    client.call(&declare_durable_exchange("ex", "direct"));
    client.declare_with("q", true, Table::EMPTY);
    client.bind("q", "ex", "k", Table::EMPTY);
    client.confirm_select();
    persistent(&mut client);
    client.expect("BasicAck");
    server
}

fn persistent(client: &mut Client) {
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
    client.publish_with(1, "", "q", false, &properties, b"x");
}

/// Prepares with the first function, fails the log, and expects that the second is answered with `connection.close` only.
fn is_not_answered(prepare: impl FnOnce(&mut Client), act: impl FnOnce(&mut Client)) {
    let server = server();
    let mut client = server.client();
    prepare(&mut client);
    server.broker.log().shutdown().unwrap();
    act(&mut client);
    client.expect_close("ConnectionClose", "541, reply_text: \"INTERNAL_ERROR");
}

#[test]
fn declarations_are_not_answered() {
    let arguments = Table::EMPTY;
    let (nowait, ticket) = (false, 0);
    let methods = [
        Declare { queue: "new", durable: true, ..PLAIN }.method(),
        declare_durable_exchange("new", "direct"),
        Method::QueueBind { ticket, queue: "q", exchange: "ex", routing_key: "new", nowait, arguments },
        Method::QueueUnbind { ticket, queue: "q", exchange: "ex", routing_key: "k", arguments },
        Method::QueuePurge { ticket, queue: "q", nowait },
        Method::QueueDelete { ticket, queue: "q", if_unused: false, if_empty: false, nowait },
        Method::ExchangeDelete { ticket, exchange: "ex", if_unused: false, nowait },
    ];
    for method in methods {
        is_not_answered(|_| (), |client| client.send(1, &method));
    }
}

#[test]
fn a_named_subscription_is_not_answered() {
    let arguments = table(&[("x-subscription", Value::Text(b"s"))]);
    is_not_answered(|_| (), |client| client.consume_with("t", "", false, false, Table::of(&arguments)));
}

#[test]
fn publishes_are_not_confirmed() {
    is_not_answered(Client::confirm_select, persistent);
}

#[test]
fn commits_are_not_answered() {
    let select = |client: &mut Client| _ = client.call(&Method::TxSelect {});
    is_not_answered(select, |client| {
        persistent(client);
        client.send(1, &Method::TxCommit {});
    });
    for reject in [false, true] {
        let get = |client: &mut Client| {
            select(client);
            let got = client.get("q", false).unwrap();
            if reject {
                client.nack(got.tag, false, false);
            } else {
                client.ack(got.tag, false);
            }
            client.qos(1, false);
        };
        is_not_answered(get, |client| client.send(1, &Method::TxCommit {}));
    }
}

/// No reply exists that could say so.
#[test]
fn acknowledgements_close_the_connection() {
    let acts: [fn(&mut Client, u64); 2] =
        [|client, tag| client.ack(tag, false), |client, tag| client.nack(tag, false, false)];
    for act in acts {
        let server = server();
        let mut client = server.client();
        let got = client.get("q", false).unwrap();
        server.broker.log().shutdown().unwrap();
        act(&mut client, got.tag);
        client.expect_close("ConnectionClose", "541, reply_text: \"INTERNAL_ERROR");
    }
}
