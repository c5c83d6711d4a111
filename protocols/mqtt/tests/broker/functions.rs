//! Topics by which other servers offer functions: `$queue`, `$exclusive`, and those that are refused.

use inver_mqtt::codec::*;

use crate::support::*;

fn at(qos: Qos) -> SubscribeOptions {
    SubscribeOptions { qos, ..Default::default() }
}

async fn subscribe(client: &mut Client, filter: &str) -> Reason {
    client.subscribe(&[(filter, at(Qos::AtLeastOnce))], &[]).await.reasons[0]
}

#[tokio::test]
async fn a_queue_subscription_is_shared_by_all_that_have_it() {
    let server = Server::start().await;
    let (mut a, mut b) = (server.client(Version::V5, "a").await, server.client(Version::V311, "b").await);
    a.subscribe_at("$queue/jobs/#", Qos::AtLeastOnce).await;
    b.subscribe_at("$queue/jobs/#", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    for number in 0..10 {
        publisher.publish_text("jobs/x", &number.to_string(), Qos::AtLeastOnce).await;
    }
    let mut got = Vec::new();
    while got.len() < 10 {
        let publish = tokio::select! {
            publish = a.receive_unacked() => publish,
            publish = b.receive_unacked() => publish,
        };
        got.push(summary(&publish).1);
    }
    got.sort_unstable();
    assert_eq!(got, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(a.unsubscribe("$queue/jobs/#").await, [Reason::Success]);
    assert_eq!(a.unsubscribe("$queue/jobs/#").await, [Reason::NoSubscriptionExisted]);
    let quiet = SubscribeOptions { no_local: true, ..at(Qos::AtLeastOnce) };
    assert_eq!(a.subscribe(&[("$queue/x", quiet)], &[]).await.reasons, [Reason::TopicFilterInvalid]);
}

#[tokio::test]
async fn an_exclusive_subscription_is_one_clients_until_it_leaves() {
    let server = Server::start().await;
    let keep = |client_id| ConnectOptions {
        client_id,
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..Default::default()
    };
    let (mut first, _) = server.connect(Version::V5, keep("first")).await;
    let mut second = server.client(Version::V5, "second").await;
    let mut third = server.client(Version::V311, "third").await;
    assert_eq!(subscribe(&mut first, "$exclusive/t/+").await, Reason::GrantedQos1);
    assert_eq!(subscribe(&mut first, "$exclusive/t/+").await, Reason::GrantedQos1);
    assert_eq!(subscribe(&mut second, "$exclusive/t/+").await, Reason::QuotaExceeded);
    assert_eq!(subscribe(&mut third, "$exclusive/t/+").await, Reason::Unspecified);
    assert_eq!(subscribe(&mut second, "t/+").await, Reason::GrantedQos1, "others may subscribe to it");
    third.publish_text("t/1", "x", Qos::AtLeastOnce).await;
    assert_eq!((first.receive().await.payload, second.receive().await.payload), (&b"x"[..], &b"x"[..]));
    // It is the session's, connected or not, and after a restart.
    first.drop_connection().await;
    drop((second, third));
    let server = server.restart().await;
    let mut second = server.client(Version::V5, "second").await;
    assert_eq!(subscribe(&mut second, "$exclusive/t/+").await, Reason::QuotaExceeded);
    let (mut first, connack) = server.connect(Version::V5, keep("first")).await;
    assert!(connack.session_present);
    second.publish_text("t/1", "y", Qos::AtLeastOnce).await;
    assert_eq!(first.receive().await.payload, b"y");
    assert_eq!(first.unsubscribe("$exclusive/t/+").await, [Reason::Success]);
    assert_eq!(subscribe(&mut second, "$exclusive/t/+").await, Reason::GrantedQos1);
    // An ordinary subscription in its place gives it up; so does the session's end.
    assert_eq!(subscribe(&mut second, "t/+").await, Reason::GrantedQos1);
    assert_eq!(subscribe(&mut first, "$exclusive/t/+").await, Reason::GrantedQos1);
    drop(first);
    let (first, _) =
        server.connect(Version::V5, ConnectOptions { client_id: "first", ..Default::default() }).await;
    assert_eq!(subscribe(&mut second, "$exclusive/t/+").await, Reason::GrantedQos1);
    drop(first);
}

#[tokio::test]
async fn functions_of_other_servers_are_refused() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    for filter in ["$delayed/5/a", "$events/client_connected", "$CONTROL/#", "$SYS/nothing/+", "$exclusive/"]
    {
        let suback = client.subscribe(&[(filter, at(Qos::AtLeastOnce))], &[]).await;
        assert_eq!(suback.reasons, [Reason::TopicFilterInvalid], "{filter}");
        assert!(suback.properties.iter().any(|property| matches!(property, Property::ReasonString(_))));
    }
    assert_eq!(subscribe(&mut client, "$mine/a").await, Reason::GrantedQos1, "an ordinary topic");
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        assert_eq!(client.publish_text("$delayed/x/a", "x", qos).await, Reason::TopicNameInvalid);
    }
    client.publish_text("$file/a", "x", Qos::AtMostOnce).await;
    client.expect_close(Reason::TopicNameInvalid).await;
    let mut old = server.client(Version::V311, "old").await;
    assert_eq!(subscribe(&mut old, "$events/x").await, Reason::Unspecified);
    old.send(Packet::Publish(Publish { packet_id: 9, ..message("$delayed/5/", "x", Qos::AtLeastOnce) }))
        .await;
    old.expect_close(Reason::TopicNameInvalid).await;
}

#[tokio::test]
async fn a_client_whose_will_cannot_be_kept_connects_and_is_told() {
    let server = Server::start().await;
    let levels = "a/".repeat(200);
    for topic in ["$SYS/broker/uptime", "$delayed/5/a", &*levels] {
        let will =
            Will { qos: Qos::AtLeastOnce, retain: true, topic, payload: b"x", properties: Properties::EMPTY };
        for version in [Version::V311, Version::V5] {
            let options = ConnectOptions { will: Some(will.clone()), ..Default::default() };
            let (client, connack) = server.connect(version, options).await;
            let told = connack.properties.iter().any(|property| {
                matches!(property, Property::ReasonString(text) if text.starts_with("the will is not kept"))
            });
            assert_eq!(told, version == Version::V5, "{topic}");
            client.drop_connection().await;
        }
    }
    let mut late = server.client(Version::V5, "late").await;
    late.subscribe_at("#", Qos::AtLeastOnce).await;
    late.expect_silence().await;
    assert_eq!(server.broker.default_namespace().retained().len(), 0);
}
