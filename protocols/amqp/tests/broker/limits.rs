//! The limits of a connection, each at its bound.

use inver_amqp::Limits;
use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};

use crate::client::{Client, table};
use crate::server::Server;

#[test]
fn the_number_of_channels_is_bounded() {
    let server = Server::with(Limits { channels_max: 3, ..Limits::default() });
    let mut client = Client::open_tuned(server.address, 131_072, 0, 3);
    for number in [1, 2, 60_000] {
        client.open_channel(number);
    }
    client.send(4, &Method::ChannelOpen { out_of_band: "" });
    client.expect_close(
        "ConnectionClose",
        "530, reply_text: \"NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)",
    );
}

#[test]
fn the_number_of_consumers_is_bounded() {
    let server = Server::with(Limits { consumers_max: 2, ..Limits::default() });
    let mut client = server.client();
    client.declare("q");
    client.consume("q", "one", true);
    client.consume("q", "two", true);
    client.consume_with("q", "three", true, false, Table::default());
    client.expect_close("ConnectionClose", "NOT_ALLOWED - reached maximum (2) of consumers per channel");
}

#[test]
fn the_number_of_exclusive_queues_is_bounded() {
    let server = Server::with(Limits { exclusive_queues_max: 1, ..Limits::default() });
    let mut client = server.client();
    let declare = |queue| Method::QueueDeclare {
        ticket: 0,
        queue,
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: false,
        nowait: false,
        arguments: Table::EMPTY,
    };
    client.send(1, &declare("one"));
    client.expect("QueueDeclareOk");
    client.send(1, &declare("two"));
    client.expect_close(
        "ChannelClose",
        "PRECONDITION_FAILED - limit reached: at most 1 exclusive queues per connection",
    );
}

#[test]
fn the_number_of_unacked_messages_is_bounded() {
    let server = Server::with(Limits { unacked_max: 3, ..Limits::default() });
    let mut client = server.client();
    client.declare("q");
    (0..10).for_each(|n| client.publish(1, "", "q", n.to_string().as_bytes()));
    client.consume("q", "", false);
    let tags: Vec<u64> = (0..3).map(|_| client.message().tag).collect();
    client.expect_silence();
    client.ack(tags[1], true);
    assert_eq!([client.message().text(), client.message().text()], ["3", "4"]);
    client.expect_silence();
}

#[test]
fn the_size_of_a_message_is_bounded() {
    let server = Server::with(Limits { message_bytes_max: 1000, ..Limits::default() });
    let mut client = server.client();
    client.declare("q");
    client.publish(1, "", "q", &[0; 1000]);
    assert_eq!(client.get("q", true).unwrap().body.len(), 1000);
    client.publish(1, "", "q", &[0; 1001]);
    client.expect_close(
        "ChannelClose",
        "406, reply_text: \"PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000\", class_id: 60",
    );
}

#[test]
fn the_size_of_a_frame_is_bounded() {
    let server = Server::start();
    let mut client = Client::open_with(server.address, 8192, 0);
    client.open_channel(1);
    client.declare("q");
    // It bounds frames in both directions.
    client.publish(1, "", "q", &[0; 20_000]);
    assert_eq!(client.get("q", true).unwrap().body.len(), 20_000);
    // As in RabbitMQ, a frame may exceed it by a few bytes.
    client.frame_max = 8192 + 9;
    client.publish(1, "", "q", &[0; 20_000]);
    client.expect_close("ConnectionClose", "501, reply_text: \"FRAME_ERROR - type 3");
}

#[test]
fn the_contents_of_a_transaction_are_bounded() {
    let limits = Limits { transaction_bytes_max: 10_000, transaction_acks_max: 2, ..Limits::default() };
    let server = Server::with(limits);
    let mut client = server.client();
    client.declare("q");
    (0..3).for_each(|_| client.publish(1, "", "q", b"m"));
    let tags: Vec<u64> = (0..3).map(|_| client.get("q", false).unwrap().tag).collect();
    client.send(1, &Method::TxSelect {});
    client.expect("TxSelectOk");
    tags.iter().for_each(|tag| client.ack(*tag, false));
    client.expect_close("ChannelClose", "limit reached: at most 2 acknowledgements per transaction");
    let mut client = server.client();
    client.send(1, &Method::TxSelect {});
    client.expect("TxSelectOk");
    (0..3).for_each(|_| client.publish(1, "", "q", &[0; 5000]));
    client.expect_close("ChannelClose", "limit reached: at most 10000 bytes of messages per transaction");
}

#[test]
fn the_nesting_of_tables_is_bounded() {
    let server = Server::start();
    let mut nested = table(&[("x", Value::I32(1))]);
    for _ in 0..500 {
        nested = table(&[("t", Value::Table(Table::of(&nested)))]);
    }
    let mut client = server.client();
    client.declare("q");
    let properties = Properties { headers: Some(Table::of(&nested)), ..Properties::default() };
    client.publish_with(1, "", "q", false, &properties, b"deep");
    client.expect("ConnectionClose");
    assert!(server.client().get("q", true).is_none());
}
