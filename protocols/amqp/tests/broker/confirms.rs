//! Promises to publishers: confirms, transactions, and what survives a restart.

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::Table;

use crate::server::Server;
use crate::verbs::declare_durable_exchange;

fn persistent() -> Properties<'static> {
    Properties { delivery_mode: Some(2), ..Properties::default() }
}

#[test]
fn confirms_are_sent_in_order_and_after_returns() {
    let server = Server::start();
    let mut client = server.client();
    client.declare_with("q", true, Table::default());
    client.confirm_select();
    for _ in 0..50 {
        client.publish_with(1, "", "q", false, &persistent(), b"x");
    }
    let mut confirmed = 0;
    while confirmed < 50 {
        let got = client.next().unwrap();
        let Method::BasicAck { delivery_tag, multiple } = Method::decode(&got.payload).unwrap() else {
            panic!()
        };
        assert!(delivery_tag > confirmed && (multiple || delivery_tag == confirmed + 1));
        confirmed = delivery_tag;
    }
    client.publish_with(1, "", "nowhere", true, &persistent(), b"back");
    let returned = client.message();
    assert_eq!(
        returned.method,
        "BasicReturn { reply_code: 312, reply_text: \"NO_ROUTE\", exchange: \"\", routing_key: \"nowhere\" }"
    );
    assert_eq!(returned.text(), "back");
    client.expect("BasicAck { delivery_tag: 51, multiple: false }");
    client.publish(1, "", "nowhere", b"dropped");
    client.expect("BasicAck { delivery_tag: 52, multiple: false }");
}

#[test]
fn confirmed_messages_and_declarations_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let server = Server::on(dir.path(), Default::default());
        let mut client = server.client();
        client.declare_with("q", true, Table::default());
        client.send(1, &declare_durable_exchange("ex", "direct"));
        client.expect("ExchangeDeclareOk");
        client.bind("q", "ex", "key", Table::default());
        client.confirm_select();
        for n in 0..3 {
            client.publish_with(1, "ex", "key", true, &persistent(), format!("{n}").as_bytes());
        }
        while !client.expect("BasicAck").contains("delivery_tag: 3") {}
        let first = client.get("q", false).unwrap();
        client.ack(first.tag, false);
        assert_eq!(client.inspect("q"), (2, 0));
    }
    let server = Server::on(dir.path(), Default::default());
    let mut client = server.client();
    assert_eq!(client.inspect("q"), (2, 0));
    client.publish(1, "ex", "key", b"3");
    client.consume("q", "me", true);
    assert_eq!([client.message().text(), client.message().text(), client.message().text()], ["1", "2", "3"]);
}

#[test]
fn transactions_take_effect_at_their_commit_as_a_whole() {
    let server = Server::start();
    let mut client = server.client();
    client.declare_with("q", true, Table::default());
    client.publish_with(1, "", "q", false, &persistent(), b"0");
    client.send(1, &Method::TxSelect {});
    client.expect("TxSelectOk");
    let zero = client.get("q", false).unwrap();
    client.ack(zero.tag, false);
    client.publish_with(1, "", "q", false, &persistent(), b"never");
    assert_eq!(client.inspect("q").0, 0);
    client.send(1, &Method::TxRollback {});
    client.expect("TxRollbackOk");
    client.publish_with(1, "", "q", false, &persistent(), b"1");
    client.publish_with(1, "", "nowhere", true, &persistent(), b"back");
    client.ack(zero.tag, false);
    client.send(1, &Method::TxCommit {});
    assert_eq!(client.message().text(), "back");
    client.expect("TxCommitOk");
    assert_eq!(client.get("q", true).unwrap().text(), "1");
    assert!(client.get("q", true).is_none());
    client.send(1, &Method::ConfirmSelect { nowait: false });
    client.expect_close("ChannelClose", "PRECONDITION_FAILED - cannot switch from tx to confirm mode");
    let mut client = server.client();
    client.send(1, &Method::TxCommit {});
    client.expect_close("ChannelClose", "PRECONDITION_FAILED - channel is not transactional");
    let mut client = server.client();
    client.confirm_select();
    client.send(1, &Method::TxSelect {});
    client.expect_close("ChannelClose", "PRECONDITION_FAILED - cannot switch from confirm to tx mode");
}
