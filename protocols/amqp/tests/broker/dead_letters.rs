//! Dead letters: by TTL, delivery limit and length limit.

use std::time::Duration;

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};
use inver_broker::Clock;

use crate::client::{Client, table};
use crate::server::Server;

/// Declares the queue `q` with these limits, which dead-letters to the queue `dead`; consumes from `dead`.
pub(crate) fn declare_dead_lettering(client: &mut Client, durable: bool, limits: &[(&str, Value<'_>)]) {
    client.declare("dead");
    client.consume("dead", "dead", true);
    let mut fields = limits.to_vec();
    fields.push(("x-dead-letter-exchange", Value::Text(b"")));
    fields.push(("x-dead-letter-routing-key", Value::Text(b"dead")));
    let arguments = table(&fields);
    client.declare_with("q", durable, Table::of(&arguments));
}

/// The name contains what an escaped line feed would look like.
#[test]
fn a_message_that_a_queue_dead_letters_to_itself_is_dropped() {
    const NAME: &str = r"loop\new";
    let server = Server::start();
    for durable in [false, true] {
        let mut client = server.client();
        client.declare_exchange("dlx", "fanout");
        client.declare("copies");
        let arguments =
            table(&[("x-message-ttl", Value::I32(1)), ("x-dead-letter-exchange", Value::Text(b"dlx"))]);
        client.declare_with(NAME, durable, Table::of(&arguments));
        for queue in [NAME, "copies"] {
            client.bind(queue, "dlx", "", Table::EMPTY);
        }
        client.consume("copies", "copies", true);
        client.publish(1, "", NAME, b"1");
        let dead_letter = client.message();
        let properties = Properties::parse(&dead_letter.properties).unwrap();
        let headers = properties.headers.unwrap();
        assert_eq!(headers.get("x-last-death-queue"), Some(Value::Text(NAME.as_bytes())));
        client.expect_silence();
        assert_eq!(client.inspect(NAME), (0, 0));
        client.call(&Method::BasicCancel { consumer_tag: "copies", nowait: false });
        client.call(&Method::QueueDelete {
            ticket: 0,
            queue: NAME,
            if_unused: false,
            if_empty: false,
            nowait: false,
        });
    }
}

#[test]
fn a_requeued_message_expires_at_its_original_time() {
    const TTL: Duration = Duration::from_millis(800);
    let clock = Clock::manual(1_700_000_000_000);
    let server = Server::with_clock(&clock);
    let (mut client, mut dead_letters) = (server.client(), server.client());
    declare_dead_lettering(&mut dead_letters, false, &[("x-message-ttl", Value::I32(800))]);
    client.publish(1, "", "q", b"1");
    assert_eq!(client.get("q", true).unwrap().text(), "1");
    clock.advance(TTL / 2);
    client.publish(1, "", "q", b"2");
    let second = client.get("q", false).unwrap();
    clock.advance(TTL / 4);
    client.publish(1, "", "q", b"3");
    assert_eq!(client.inspect("q"), (1, 0));
    clock.advance(TTL / 2);
    client.nack(second.tag, false, true);
    assert_eq!(client.inspect("q"), (2, 0), "neither has expired");
    clock.advance(TTL / 4);
    assert_eq!(dead_letters.message().text(), "2");
    assert_eq!(client.inspect("q"), (1, 0));
    clock.advance(TTL / 4);
    assert_eq!(dead_letters.message().text(), "3");
}

#[test]
fn a_message_beyond_its_delivery_limit_is_dead_lettered() {
    let server = Server::start();
    for durable in [false, true] {
        let (mut client, mut dead_letters) = (server.client(), server.client());
        declare_dead_lettering(&mut dead_letters, durable, &[("x-delivery-limit", Value::I32(1))]);
        client.publish(1, "", "q", b"poison");
        for _ in 0..2 {
            let got = client.get("q", false).unwrap();
            client.nack(got.tag, false, true);
        }
        assert_eq!(dead_letters.message().text(), "poison");
        dead_letters.send(1, &Method::BasicCancel { consumer_tag: "dead", nowait: false });
        dead_letters.expect("BasicCancelOk");
        dead_letters.send(
            1,
            &Method::QueueDelete { ticket: 0, queue: "q", if_unused: false, if_empty: true, nowait: false },
        );
        dead_letters.expect("QueueDeleteOk");
    }
}

#[test]
fn a_message_beyond_the_length_limit_is_dead_lettered_at_once() {
    let server = Server::start();
    let (mut client, mut dead_letters) = (server.client(), server.client());
    declare_dead_lettering(&mut dead_letters, true, &[("x-max-length", Value::I32(2))]);
    (1..=3).for_each(|n| client.publish(1, "", "q", n.to_string().as_bytes()));
    assert_eq!(dead_letters.message().text(), "1");
    dead_letters.expect_silence();
    assert_eq!(client.inspect("q"), (2, 0));
}
