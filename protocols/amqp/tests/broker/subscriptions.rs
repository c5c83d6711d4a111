//! Consumers of a log topic: named subscriptions (`x-subscription`, `x-subscription-type`) and subscriptions of their
//! own.

use std::collections::HashMap;

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};
use inver_broker::{Namespace, TopicConfig, TopicSpec};

use crate::client::{Client, table};
use crate::server::Server;

const TOPIC: &str = "plant.line";

/// A server with a log topic.
fn server(partitions: u32) -> (Server, Namespace) {
    let server = Server::start();
    let namespace = server.broker.default_namespace();
    let spec = TopicSpec { partitions, config: TopicConfig::default() };
    namespace.create_topic(TOPIC, &spec).unwrap();
    (server, namespace)
}

/// Publishes to the topic's address, with a key.
fn produce(client: &mut Client, key: &str, body: &str) {
    let headers = table(&[("inver-key", Value::Text(key.as_bytes()))]);
    let properties =
        Properties { headers: Some(Table::of(&headers)), delivery_mode: Some(2), ..Properties::default() };
    client.publish_with(1, "amq.topic", TOPIC, false, &properties, body.as_bytes());
}

fn subscribe(client: &mut Client, name: &str, kind: Option<&str>) -> String {
    let mut fields = vec![("x-subscription", Value::Text(name.as_bytes()))];
    fields.extend(kind.map(|kind| ("x-subscription-type", Value::Text(kind.as_bytes()))));
    let arguments = table(&fields);
    client.consume_with(TOPIC, "", false, false, Table::of(&arguments));
    client.method()
}

fn member(server: &Server, kind: &str, prefetch: u16) -> Client {
    let mut client = server.client();
    client.qos(prefetch, false);
    let answer = subscribe(&mut client, "s", Some(kind));
    assert!(answer.starts_with("BasicConsumeOk"), "{answer}");
    client
}

fn next(client: &mut Client) -> String {
    let message = client.message();
    client.ack(message.tag, false);
    message.text()
}

#[test]
fn a_shared_subscription_is_split_and_resumes() {
    let (server, _) = server(1);
    let mut publisher = server.client();
    (0..4).for_each(|n| produce(&mut publisher, "", &n.to_string()));
    // With a prefetch of two, each leaves two to the other.
    let (mut one, mut two) = (member(&server, "shared", 2), member(&server, "shared", 2));
    let mut got = Vec::new();
    for client in [&mut one, &mut two] {
        got.extend([client.message().text(), client.message().text()]);
    }
    one.ack(0, true);
    two.ack(0, true);
    got.sort();
    assert_eq!(got, ["0", "1", "2", "3"]);
    one.expect_silence();
    drop((one, two));
    produce(&mut publisher, "", "4");
    // Without consumers, the next one sets the mode.
    let since = tokio::time::Instant::now();
    let mut later = loop {
        let mut client = server.client();
        if subscribe(&mut client, "s", Some("exclusive")).starts_with("BasicConsumeOk") {
            break client;
        }
        assert!(since.elapsed().as_secs() < 10, "it still has consumers");
    };
    assert_eq!(next(&mut later), "4");
}

#[test]
fn failover_delivers_to_one_consumer_and_moves_to_the_next() {
    let (server, _) = server(1);
    let mut publisher = server.client();
    let (mut active, mut standby) = (member(&server, "failover", 10), member(&server, "failover", 10));
    produce(&mut publisher, "", "first");
    produce(&mut publisher, "", "second");
    assert_eq!(next(&mut active), "first");
    assert_eq!(active.message().text(), "second");
    standby.expect_silence();
    drop(active);
    let again = standby.message();
    assert_eq!((again.text(), again.redelivered), ("second".into(), true));
}

#[test]
fn an_exclusive_subscription_refuses_a_second_consumer() {
    let (server, _) = server(1);
    let _first = member(&server, "exclusive", 1);
    let mut second = server.client();
    let refused = subscribe(&mut second, "s", Some("exclusive"));
    assert!(refused.contains("403, reply_text: \"ACCESS_REFUSED - "), "{refused}");
    assert!(refused.contains("in exclusive use"), "{refused}");
}

#[test]
fn key_shared_keeps_a_key_on_one_consumer() {
    let (server, _) = server(1);
    let mut publisher = server.client();
    let mut members = [member(&server, "key_shared", 100), member(&server, "key_shared", 100)];
    let keys: Vec<String> = (0..16).map(|n| format!("key-{n}")).collect();
    for round in 0..5 {
        keys.iter().for_each(|key| produce(&mut publisher, key, &format!("{key} {round}")));
    }
    let mut owners: HashMap<String, Vec<(usize, String)>> = HashMap::new();
    for (at, member) in members.iter_mut().enumerate() {
        let mut count = 0;
        member.socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        while member.has_more() {
            let (key, round) =
                next(member).split_once(' ').map(|(k, r)| (k.to_owned(), r.to_owned())).unwrap();
            owners.entry(key).or_default().push((at, round));
            count += 1;
        }
        assert!(count > 0, "both receive messages");
    }
    for (key, seen) in owners {
        let rounds: Vec<&str> = seen.iter().map(|(_, round)| round.as_str()).collect();
        assert_eq!(rounds, ["0", "1", "2", "3", "4"], "{key} in order");
        assert!(seen.iter().all(|(at, _)| *at == seen[0].0), "{key} stays with one consumer");
    }
}

#[test]
fn a_different_subscription_type_is_refused() {
    let (server, _) = server(1);
    let _first = member(&server, "shared", 1);
    for (asked, received) in [(Some("failover"), "failover"), (Some("key_shared"), "key_shared")] {
        let refused = subscribe(&mut server.client(), "s", asked);
        let text = format!(
            "406, reply_text: \"PRECONDITION_FAILED - inequivalent arg 'x-subscription-type' for subscription 's' of \
             topic 'plant.line' in vhost '/': received '{received}' but current is 'shared'"
        );
        assert!(refused.contains(&text), "{refused}");
    }
    let refused = subscribe(&mut server.client(), "s", Some("several"));
    assert!(refused.contains("expected exclusive, shared, failover or key_shared"), "{refused}");
    let mut client = server.client();
    client.declare("q");
    let arguments = table(&[("x-subscription", Value::Text(b"s"))]);
    client.consume_with("q", "", false, false, Table::of(&arguments));
    client.expect_close("ChannelClose", "a queue has one subscription, of its own name");
}

#[test]
fn consumers_of_a_deleted_topic_are_cancelled() {
    let (server, namespace) = server(3);
    let mut named = member(&server, "shared", 1);
    let mut own = server.client();
    own.consume(TOPIC, "own", true);
    namespace.delete_topic(TOPIC).unwrap();
    named.expect("BasicCancel { consumer_tag: \"amq.ctag-");
    own.expect("BasicCancel { consumer_tag: \"own\", nowait: true }");
    own.consume_with(TOPIC, "", true, false, Table::default());
    own.expect_close("ChannelClose", "404, reply_text: \"NOT_FOUND - no queue 'plant.line' in vhost '/'");
}

#[test]
fn a_subscription_of_its_own_starts_at_x_stream_offset() {
    let (server, _) = server(1);
    let mut publisher = server.client();
    publisher.confirm_select();
    for n in 0..3 {
        produce(&mut publisher, "", &n.to_string());
        publisher.expect("BasicAck");
    }
    for (start, first) in [(Value::Text(b"first"), "0"), (Value::I64(2), "2")] {
        let arguments = table(&[("x-stream-offset", start)]);
        let mut reader = server.client();
        reader.consume_with(TOPIC, "", false, false, Table::of(&arguments));
        reader.expect("BasicConsumeOk");
        assert_eq!(reader.message().text(), first);
    }
    let mut live = server.client();
    live.consume(TOPIC, "", true);
    produce(&mut publisher, "", "new");
    assert_eq!(live.message().text(), "new");
    let wrong = table(&[("x-stream-offset", Value::Text(b"yesterday"))]);
    let mut client = server.client();
    client.consume_with(TOPIC, "", false, false, Table::of(&wrong));
    client.expect_close("ChannelClose", "invalid arg 'x-stream-offset'");
    // A log topic cannot be declared as a queue, but inspected.
    assert!(server.client().inspect(TOPIC).0 >= 4);
    let mut client = server.client();
    client.send(
        1,
        &Method::QueueDeclare {
            ticket: 0,
            queue: TOPIC,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: Table::default(),
        },
    );
    client.expect_close("ChannelClose", "but current is a log topic");
}
