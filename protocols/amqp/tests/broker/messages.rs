//! Messages: publish, get, consume, acknowledge, recover, prefetch, direct reply-to.

use inver_amqp::codec::Method;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};

use crate::client::{Client, table};
use crate::server::Server;

fn persistent() -> Properties<'static> {
    Properties { delivery_mode: Some(2), ..Properties::default() }
}

#[test]
fn a_message_is_delivered_byte_for_byte() {
    let server = Server::start();
    let mut client = server.client();
    let headers = table(&[
        ("n", Value::I32(-5)),
        ("s", Value::Text(b"text")),
        ("n", Value::Void),
        ("d", Value::Decimal { scale: 2, value: 314 }),
    ]);
    for durable in [false, true] {
        let queue = if durable { "durable" } else { "transient" };
        client.declare_with(queue, durable, Table::default());
        let properties = Properties {
            content_type: Some(b"text/plain"),
            headers: Some(Table::of(&headers)),
            delivery_mode: Some(2),
            correlation_id: Some(&[0xFF, 0]),
            expiration: Some(b"60000"),
            timestamp: Some(1_700_000_000),
            cluster_id: Some(b"c"),
            ..Properties::default()
        };
        let mut raw = Vec::new();
        properties.encode(&mut raw);
        let large = vec![b'x'; 300_000];
        for body in [&b""[..], b"short", &large] {
            client.publish_with(1, "", queue, false, &properties, body);
            let got = client.get(queue, true).expect("it is visible to its publisher");
            assert_eq!((got.exchange.as_str(), got.routing_key.as_str()), ("", queue));
            assert_eq!(got.properties, raw);
            assert!(got.body == body, "body differs");
        }
        assert!(client.get(queue, true).is_none());
    }
}

#[test]
fn messages_are_delivered_in_order_and_acknowledged() {
    let server = Server::start();
    let mut client = server.client();
    client.declare_with("q", true, Table::default());
    for n in 0..100 {
        client.publish_with(1, "", "q", false, &persistent(), format!("{n}").as_bytes());
    }
    client.qos(10, false);
    client.consume("q", "me", false);
    for n in 0..100u64 {
        let got = client.message();
        assert_eq!(
            (got.text(), got.tag, got.redelivered, got.consumer.as_str()),
            (n.to_string(), n + 1, false, "me")
        );
        client.ack(got.tag, n % 3 == 0);
    }
    client.await_depth("q", 0, 1);
}

#[test]
fn prefetch_bounds_unacked_messages() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    for n in 0..10 {
        client.publish(1, "", "q", format!("{n}").as_bytes());
    }
    client.qos(3, false);
    client.consume("q", "me", false);
    let tags: Vec<u64> = (0..3).map(|_| client.message().tag).collect();
    client.expect_silence();
    client.ack(tags[1], false);
    assert_eq!(client.message().text(), "3");
    client.expect_silence();
    client.ack(0, true);
    assert_eq!([client.message().text(), client.message().text(), client.message().text()], ["4", "5", "6"]);
    client.expect_silence();
    // The shared prefetch of a channel with two consumers.
    let mut client = server.client();
    client.declare("r");
    client.qos(4, true);
    client.consume("r", "a", false);
    client.consume("r", "b", false);
    for n in 0..10 {
        client.publish(1, "", "r", format!("{n}").as_bytes());
    }
    let tags: Vec<u64> = (0..4).map(|_| client.message().tag).collect();
    client.expect_silence();
    client.ack(tags[3], true);
    (0..4).for_each(|_| _ = client.message());
    client.expect_silence();
}

#[test]
fn unacked_messages_are_redelivered() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    for n in 0..4 {
        client.publish(1, "", "q", format!("{n}").as_bytes());
    }
    client.consume("q", "me", false);
    let tags: Vec<u64> = (0..4).map(|_| client.message().tag).collect();
    client.nack(tags[1], false, true);
    let again = client.message();
    assert_eq!((again.text(), again.redelivered), ("1".into(), true));
    client.send(1, &Method::BasicReject { delivery_tag: tags[0], requeue: false });
    client.send(1, &Method::BasicRecover { requeue: true });
    // `recover-ok` may arrive before, between or after the deliveries.
    let (mut texts, mut answered) = (Vec::new(), false);
    while texts.len() < 3 || !answered {
        let got = client.next().unwrap();
        let method = Method::decode(&got.payload).unwrap();
        if matches!(method, Method::BasicRecoverOk {}) {
            answered = true;
        } else {
            assert!(matches!(method, Method::BasicDeliver { redelivered: true, .. }), "{method:?}");
            client.next();
            texts.push(String::from_utf8(client.next().unwrap().payload).unwrap());
        }
    }
    assert_eq!(texts, ["1", "2", "3"]);
    drop(client);
    let mut other = server.client();
    other.await_depth("q", 3, 0);
    let got = other.get("q", false).unwrap();
    assert!(got.redelivered && got.text() == "1");
    assert_eq!(
        got.method,
        "BasicGetOk { delivery_tag: 1, redelivered: true, exchange: \"\", routing_key: \"q\", message_count: 2 }"
    );
}

#[test]
fn unknown_delivery_tags_close_the_channel() {
    let server = Server::start();
    for multiple in [false, true] {
        let mut client = server.client();
        client.ack(5, multiple);
        client.expect_close(
            "ChannelClose",
            "406, reply_text: \"PRECONDITION_FAILED - unknown delivery tag 5\", class_id: 60, method_id: 80",
        );
        client.send(1, &Method::ChannelCloseOk {});
        client.open_channel(1);
        client.ack(0, true);
        client.declare("still here");
    }
}

#[test]
fn a_cancelled_consumer_may_still_acknowledge() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    client.publish(1, "", "q", b"1");
    client.publish(1, "", "q", b"2");
    client.consume("q", "me", false);
    let (one, two) = (client.message(), client.message());
    client.send(1, &Method::BasicCancel { consumer_tag: "me", nowait: false });
    client.expect("BasicCancelOk { consumer_tag: \"me\" }");
    client.publish(1, "", "q", b"3");
    assert_eq!(client.inspect("q"), (1, 0));
    client.ack(one.tag, false);
    client.nack(two.tag, false, true);
    assert_eq!(client.inspect("q"), (2, 0));
    client.send(1, &Method::BasicCancel { consumer_tag: "me", nowait: false });
    client.expect("BasicCancelOk");
    client.consume("q", "me", true);
    assert_eq!([client.message().text(), client.message().text()], ["2", "3"]);
}

#[test]
fn consumers_share_a_queue_and_requeue_when_they_leave() {
    let server = Server::start();
    let (mut one, mut two) = (server.client(), server.client());
    one.declare("q");
    one.qos(1, false);
    two.qos(1, false);
    one.consume("q", "one", false);
    two.consume("q", "two", false);
    for n in 0..3 {
        one.publish(1, "", "q", format!("{n}").as_bytes());
    }
    let (a, b) = (one.message(), two.message());
    let mut texts = [a.text(), b.text()];
    texts.sort();
    assert_eq!(texts, ["0", "1"]);
    drop(one);
    server.client().await_depth("q", 2, 1);
    two.ack(b.tag, false);
    let again = two.message();
    assert_eq!((again.text(), again.redelivered), (a.text(), true));
    two.ack(again.tag, false);
    assert_eq!(two.message().text(), "2");
}

#[test]
fn consumers_of_a_deleted_queue_are_cancelled() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    client.consume("q", "me", false);
    let mut other = server.client();
    other.send(
        1,
        &Method::QueueDelete { ticket: 0, queue: "q", if_unused: true, if_empty: false, nowait: false },
    );
    other.expect_close("ChannelClose", "PRECONDITION_FAILED - queue 'q' in vhost '/' in use");
    let mut other = server.client();
    other.send(
        1,
        &Method::QueueDelete { ticket: 0, queue: "q", if_unused: false, if_empty: false, nowait: false },
    );
    other.expect("QueueDeleteOk { message_count: 0 }");
    client.expect("BasicCancel { consumer_tag: \"me\", nowait: true }");
    client.declare("q");
    client.consume("q", "me", false);
}

#[test]
fn direct_reply_to_delivers_replies() {
    let server = Server::start();
    let (mut client, mut service) = (server.client(), server.client());
    service.declare("rpc");
    service.consume("rpc", "service", true);
    client.consume("amq.rabbitmq.reply-to", "replies", true);
    let properties = Properties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..Properties::default() };
    client.publish_with(1, "", "rpc", false, &properties, b"question");
    let question = service.message();
    let to = Properties::parse(&question.properties).unwrap().reply_to.unwrap().to_vec();
    let to = String::from_utf8(to).unwrap();
    assert!(to.starts_with("amq.rabbitmq.reply-to.") && to.len() > 30, "{to}");
    assert_eq!(service.inspect(&to), (0, 1));
    service.publish(1, "", &to, b"answer");
    assert_eq!(client.message().text(), "answer");
    service.publish_with(1, "", "rpc", false, &properties, b"who answers?");
    service.expect_close("ChannelClose", "PRECONDITION_FAILED - fast reply consumer does not exist");
    client.consume_with("amq.rabbitmq.reply-to", "second", true, false, Table::default());
    client.expect_close("ChannelClose", "PRECONDITION_FAILED - reply consumer already set");
}

#[test]
fn a_slow_consumer_neither_grows_memory_nor_loses_messages() {
    let server = Server::start();
    let mut reader = server.client();
    reader.declare("q");
    reader.consume("q", "me", true);
    let mut publisher = server.client();
    let body = vec![7; 100_000];
    for _ in 0..200 {
        publisher.publish(1, "", "q", &body);
    }
    assert_eq!(publisher.inspect("q").1, 1);
    assert!(publisher.inspect("q").0 > 50, "most of 20 MB waits in the queue, not in the connection");
    for _ in 0..200 {
        assert!(reader.message().body == body);
    }
}

#[test]
fn channels_do_not_disturb_each_other() {
    let server = Server::start();
    let mut client = Client::open(server.address);
    for channel in 1..=20 {
        client.open_channel(channel);
    }
    client.declare("q");
    // The contents of two channels, interleaved frame by frame.
    let mut frames: Vec<Vec<u8>> = vec![Vec::new(), Vec::new()];
    for (i, out) in frames.iter_mut().enumerate() {
        let channel = i as u16 + 2;
        let publish = Method::BasicPublish {
            ticket: 0,
            exchange: "",
            routing_key: "q",
            mandatory: false,
            immediate: false,
        };
        inver_amqp::codec::write::method(out, channel, &publish);
        inver_amqp::codec::write::content(
            out,
            channel,
            4096,
            |out| out.extend_from_slice(&[0, 0]),
            &[i as u8; 10_000],
        );
    }
    let mut ends = [0, 0];
    while ends[0] < frames[0].len() || ends[1] < frames[1].len() {
        for i in 0..2 {
            if let Ok(inver_amqp::codec::Next::Frame(_, used)) =
                inver_amqp::codec::frame::next(&frames[i][ends[i]..], 8192)
            {
                let (from, to) = (ends[i], ends[i] + used);
                client.bytes(&frames[i][from..to]);
                ends[i] = to;
            }
        }
    }
    client.send(5, &Method::BasicAck { delivery_tag: 9, multiple: false });
    client.expect_close("ChannelClose", "unknown delivery tag 9");
    let (one, two) = (client.get("q", true).unwrap(), client.get("q", true).unwrap());
    assert_eq!((one.body, two.body), (vec![0; 10_000], vec![1; 10_000]));
}

#[test]
fn delete_ok_is_sent_before_basic_cancel() {
    let server = Server::start();
    for durable in [false, true] {
        let mut client = server.client();
        client.declare_with("q", durable, Table::default());
        client.consume("q", "me", false);
        client.send(
            1,
            &Method::QueueDelete { ticket: 0, queue: "q", if_unused: false, if_empty: false, nowait: false },
        );
        client.expect("QueueDeleteOk");
        client.expect("BasicCancel { consumer_tag: \"me\", nowait: true }");
    }
}

/// More than a method settles in one turn.
const MANY: usize = 10_000;

#[test]
fn a_method_that_settles_very_many_deliveries_goes_on_in_the_next_turns() {
    let server = Server::start();
    let mut client = server.client();
    client.declare("q");
    for _ in 0..MANY {
        client.publish(1, "", "q", b"m");
    }
    let numbered = |client: &mut Client, redelivered: bool| {
        let got: Vec<_> = (0..MANY).map(|_| client.message()).collect();
        assert!(got.iter().all(|message| message.redelivered == redelivered));
        assert!(got.windows(2).all(|two| two[0].tag + 1 == two[1].tag));
        got[MANY - 1].tag
    };
    client.consume("q", "me", false);
    let last = numbered(&mut client, false);
    // What follows it sees its whole effect; what it requeues is not settled by it.
    client.nack(last, true, true);
    let last = numbered(&mut client, true);
    client.expect_silence();
    client.ack(last, true);
    client.await_depth("q", 0, 1);
    client.ack(0, true);
    client.await_depth("q", 0, 1);
    client.ack(last, true);
    client.expect_close("ChannelClose", "unknown delivery tag");
}

/// More than one pull reads has to be put in order before the first message is known.
#[test]
fn a_get_finds_the_first_message_of_a_long_queue_with_priorities() {
    let server = Server::start();
    let mut client = server.client();
    let arguments = table(&[("x-max-priority", Value::I32(5))]);
    client.declare_with("q", true, Table::of(&arguments));
    for n in 0..10_000 {
        let properties = Properties { priority: Some((n % 5) as u8), ..Properties::default() };
        client.publish_with(1, "", "q", false, &properties, b"later");
    }
    let properties = Properties { priority: Some(5), ..Properties::default() };
    client.publish_with(1, "", "q", false, &properties, b"first");
    assert_eq!(client.get("q", true).expect("it is not empty").body, b"first");
}
