//! Subscriptions: options, identifiers, retained messages, shared ones.

use inver_mqtt::MqttConfig;
use inver_mqtt::codec::*;

use crate::support::*;

fn at(qos: Qos) -> SubscribeOptions {
    SubscribeOptions { qos, ..Default::default() }
}

fn ids(publish: &Publish<'static>) -> Vec<u32> {
    let id = |property| match property {
        Property::SubscriptionIdentifier(id) => Some(id),
        _ => None,
    };
    publish.properties.iter().filter_map(id).collect()
}

#[tokio::test]
async fn overlapping_filters_get_one_message_with_all_identifiers() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.subscribe(&[("a/b", at(Qos::AtMostOnce))], &[Property::SubscriptionIdentifier(2)]).await;
    client.subscribe(&[("a/#", at(Qos::ExactlyOnce))], &[Property::SubscriptionIdentifier(456_789)]).await;
    client.subscribe(&[("+/b", at(Qos::AtLeastOnce))], &[]).await;
    server.client(Version::V5, "p").await.say("a/b", "x", Qos::ExactlyOnce).await;
    let publish = client.take().await;
    assert_eq!((publish.qos, ids(&publish)), (Qos::ExactlyOnce, vec![2, 456_789]));
    client.nothing().await;
}

#[tokio::test]
async fn a_new_subscription_replaces_the_old() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.subscribe(&[("a", at(Qos::ExactlyOnce))], &[Property::SubscriptionIdentifier(1)]).await;
    client.subscribe(&[("a", at(Qos::AtMostOnce))], &[]).await;
    server.client(Version::V5, "p").await.say("a", "x", Qos::AtLeastOnce).await;
    let publish = client.take().await;
    assert_eq!((publish.qos, ids(&publish)), (Qos::AtMostOnce, vec![]));
    client.nothing().await;
}

#[tokio::test]
async fn unsubscribing() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.sub("a", Qos::AtLeastOnce).await;
    assert_eq!(client.unsubscribe("a").await, [Reason::Success]);
    assert_eq!(client.unsubscribe("a").await, [Reason::NoSubscriptionExisted]);
    client.say("a", "x", Qos::AtLeastOnce).await;
    client.nothing().await;
}

#[tokio::test]
async fn no_local_and_retain_as_published() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    let mut other = server.client(Version::V5, "o").await;
    let quiet = SubscribeOptions { no_local: true, ..at(Qos::AtLeastOnce) };
    client.subscribe(&[("a", quiet)], &[]).await;
    client.say("a", "own", Qos::AtLeastOnce).await;
    other.say("a", "other's", Qos::AtLeastOnce).await;
    assert_eq!(client.take().await.payload, b"other's");
    let exact = SubscribeOptions { retain_as_published: true, ..at(Qos::AtLeastOnce) };
    client.subscribe(&[("b", exact), ("c", at(Qos::AtLeastOnce))], &[]).await;
    for topic in ["b", "c"] {
        other.retain(topic, "x", Qos::AtLeastOnce).await;
        other.say(topic, "y", Qos::AtLeastOnce).await;
        let (first, second) = (client.take().await, client.take().await);
        assert_eq!((first.retain, second.retain), (topic == "b", false));
    }
}

#[tokio::test]
async fn retained_messages_are_sent_as_their_handling_says() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V5, "p").await;
    for (topic, qos) in [("r/0", 0), ("r/1", 1), ("r/2", 2)] {
        publisher.retain(topic, topic, Qos::from_bits(qos).unwrap()).await;
    }
    publisher.nothing().await;
    let mut client = server.client(Version::V5, "c").await;
    let with = |retain_handling| SubscribeOptions { retain_handling, ..at(Qos::ExactlyOnce) };
    for (handling, count) in [
        (RetainHandling::DoNotSend, 0),
        (RetainHandling::SendIfNew, 0),
        (RetainHandling::Send, 3),
        (RetainHandling::Send, 3),
    ] {
        client.subscribe(&[("r/+", with(handling))], &[Property::SubscriptionIdentifier(5)]).await;
        let mut all = Vec::new();
        for _ in 0..count {
            let publish = client.take().await;
            assert!(publish.retain);
            assert_eq!(ids(&publish), [5]);
            all.push(seen(&publish));
        }
        all.sort_unstable();
        let wanted = [("r/0", "r/0", 0), ("r/1", "r/1", 1), ("r/2", "r/2", 2)];
        assert_eq!(all, wanted[..count]);
        client.nothing().await;
    }
    client.unsubscribe("r/+").await;
    client.subscribe(&[("r/+", with(RetainHandling::SendIfNew))], &[]).await;
    for _ in 0..3 {
        client.take().await;
    }
    // An empty one clears.
    publisher.retain("r/1", "", Qos::AtLeastOnce).await;
    assert_eq!(seen(&client.take().await), ("r/1", "", 1));
    let mut fresh = server.client(Version::V311, "f").await;
    fresh.sub("r/1", Qos::AtLeastOnce).await;
    fresh.nothing().await;
}

#[tokio::test]
async fn filters_without_retained_messages_hold_up_no_others() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.retain("has", "1", Qos::AtMostOnce).await;
    client.retain("has/too", "2", Qos::AtLeastOnce).await;
    let options = SubscribeOptions::default();
    let filters =
        [("none/1", options), ("none/2", options), ("has", options), ("none/+", options), ("has/+", options)];
    client.subscribe(&filters, &[]).await;
    assert_eq!(seen(&client.message().await), ("has", "1", 0));
    assert_eq!(seen(&client.message().await), ("has/too", "2", 0));
}

#[tokio::test]
async fn retained_messages_survive() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V311, "p").await;
    publisher.retain("r/a", "kept", Qos::AtMostOnce).await;
    publisher.retain("r/b", "kept too", Qos::AtLeastOnce).await;
    publisher.leave().await;
    let server = server.restart().await;
    let mut client = server.client(Version::V311, "c").await;
    client.sub("r/#", Qos::AtLeastOnce).await;
    let mut all = [seen(&client.take().await), seen(&client.take().await)];
    all.sort_unstable();
    assert_eq!(all, [("r/a", "kept", 0), ("r/b", "kept too", 1)]);
}

#[tokio::test]
async fn many_retained_messages_come_within_a_small_window() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V311, "p").await;
    for number in 0u16..1000 {
        publisher.retain(&format!("r/{number}"), "x", Qos::from_bits((number % 2) as u8).unwrap()).await;
    }
    let opening =
        Opening { client_id: "c", properties: vec![Property::ReceiveMaximum(3)], ..Default::default() };
    let (mut client, _) = server.open(Version::V5, opening).await;
    client.sub("#", Qos::AtLeastOnce).await;
    let mut topics = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        topics.insert(client.take().await.topic);
    }
    assert_eq!(topics.len(), 1000);
    client.nothing().await;
}

#[tokio::test]
async fn a_refused_filter_gets_its_own_reason() {
    let server =
        Server::with(MqttConfig { refused_filters: vec!["test/nosubscribe".into()], ..Default::default() })
            .await;
    let deep = "a/".repeat(200);
    let filters = [
        ("ok", at(Qos::AtLeastOnce)),
        ("test/nosubscribe", at(Qos::ExactlyOnce)),
        (&deep, at(Qos::AtMostOnce)),
    ];
    let mut client = server.client(Version::V5, "c").await;
    let suback = client.subscribe(&filters, &[]).await;
    assert_eq!(suback.reasons, [Reason::GrantedQos1, Reason::Unspecified, Reason::TopicFilterInvalid]);
    assert!(matches!(suback.properties.iter().next(), Some(Property::ReasonString(_))));
    let mut client = server.client(Version::V311, "d").await;
    let suback = client.subscribe(&filters, &[]).await;
    assert_eq!(suback.reasons, [Reason::GrantedQos1, Reason::Unspecified, Reason::Unspecified]);
}

#[tokio::test]
async fn shared_subscriptions_split() {
    let server = Server::start().await;
    for version in [Version::V311, Version::V5] {
        let mut one = server.client(version, "one").await;
        let mut two = server.client(version, "two").await;
        let mut alone = server.client(version, "alone").await;
        one.sub("$share/g/s/+", Qos::AtLeastOnce).await;
        two.sub("$share/g/s/+", Qos::AtLeastOnce).await;
        alone.sub("$share/h/s/#", Qos::AtLeastOnce).await;
        let mut publisher = server.client(version, "p").await;
        let mut counts = [0, 0];
        for number in 0..20 {
            publisher.say("s/x", &number.to_string(), Qos::from_bits(number % 2).unwrap()).await;
            assert_eq!(alone.take().await.payload, number.to_string().as_bytes());
            let publish = tokio::select! {
                publish = one.message() => { counts[0] += 1; if publish.qos != Qos::AtMostOnce { one.send(Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))).await }; publish }
                publish = two.message() => { counts[1] += 1; if publish.qos != Qos::AtMostOnce { two.send(Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))).await }; publish }
            };
            assert_eq!((publish.topic, publish.qos as u8), ("s/x", number % 2));
        }
        assert_eq!(counts[0] + counts[1], 20);
        assert!(counts[0] >= 5 && counts[1] >= 5, "{counts:?}");
        one.nothing().await;
        two.nothing().await;
        for client in [one, two, alone] {
            client.leave().await;
        }
    }
}

#[tokio::test]
async fn what_a_member_leaves_unacknowledged_goes_to_another() {
    let server = Server::start().await;
    let mut one = server.client(Version::V5, "one").await;
    one.sub("$share/g/t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.say("t", "x", Qos::AtLeastOnce).await;
    assert_eq!(one.message().await.payload, b"x");
    let mut two = server.client(Version::V5, "two").await;
    two.sub("$share/g/t", Qos::AtLeastOnce).await;
    two.nothing().await;
    one.breaks().await;
    assert_eq!(two.take().await.payload, b"x");
    two.nothing().await;
}

#[tokio::test]
async fn a_share_is_left_by_unsubscribing() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.sub("$share/g/t", Qos::AtLeastOnce).await;
    assert_eq!(client.unsubscribe("$share/g/t").await, [Reason::Success]);
    assert_eq!(client.say("t", "x", Qos::AtLeastOnce).await, Reason::NoMatchingSubscribers);
    client.nothing().await;
}

#[tokio::test]
async fn dollar_topics_are_spared_by_wildcards() {
    let server = Server::start().await;
    let mut client = server.client(Version::V311, "c").await;
    client.sub("#", Qos::AtLeastOnce).await;
    client.sub("+/x", Qos::AtLeastOnce).await;
    client.say("$other/x", "x", Qos::AtLeastOnce).await;
    client.nothing().await;
    client.sub("$other/#", Qos::AtLeastOnce).await;
    server.client(Version::V311, "p").await.say("$other/x", "y", Qos::AtLeastOnce).await;
    assert_eq!(seen(&client.take().await), ("$other/x", "y", 1));
}

#[tokio::test]
async fn a_shared_message_at_qos_2_stays_with_the_client_that_got_it() {
    let server = Server::start().await;
    let kept = Opening {
        client_id: "one",
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..Default::default()
    };
    let (mut one, _) = server.open(Version::V5, kept.clone()).await;
    one.subscribe(&[("$share/g/t", at(Qos::ExactlyOnce))], &[Property::SubscriptionIdentifier(7)]).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.say("t", "1", Qos::ExactlyOnce).await;
    let first = one.message().await;
    assert_eq!((seen(&first), ids(&first)), (("t", "1", 2), vec![7]));
    let mut two = server.client(Version::V5, "two").await;
    two.sub("$share/g/t", Qos::ExactlyOnce).await;
    one.breaks().await;
    two.nothing().await;
    // The same message with the same identifier, and the subscription is there again.
    let (mut one, _) = server.open(Version::V5, kept).await;
    let again = one.take().await;
    assert_eq!((again.packet_id, again.payload, again.dup), (first.packet_id, first.payload, true));
    two.nothing().await;
    two.leave().await;
    for payload in ["2", "3", "4"] {
        publisher.say("t", payload, Qos::ExactlyOnce).await;
        assert_eq!(one.take().await.payload, payload.as_bytes());
    }
    one.nothing().await;
}

#[tokio::test]
async fn a_shared_message_at_qos_2_ends_with_its_session() {
    let server = Server::start().await;
    let mut one = server.client(Version::V5, "one").await;
    one.sub("$share/g/t", Qos::ExactlyOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.say("t", "1", Qos::ExactlyOnce).await;
    one.message().await;
    let mut two = server.client(Version::V5, "two").await;
    two.sub("$share/g/t", Qos::ExactlyOnce).await;
    one.breaks().await;
    two.nothing().await;
    publisher.say("t", "2", Qos::ExactlyOnce).await;
    assert_eq!(two.take().await.payload, b"2");
}

#[tokio::test]
async fn what_was_sent_is_completed_after_unsubscribing() {
    let server = Server::start().await;
    for filter in ["$share/g/t", "t"] {
        let mut client = server.client(Version::V5, "c").await;
        client.sub(filter, Qos::ExactlyOnce).await;
        let mut publisher = server.client(Version::V5, "p").await;
        publisher.say("t", "1", Qos::ExactlyOnce).await;
        publisher.say("t", "2", Qos::AtLeastOnce).await;
        let (first, second) = (client.message().await, client.message().await);
        assert_eq!(client.unsubscribe(filter).await, [Reason::Success]);
        client.send(Packet::PubRec(Ack::new(first.packet_id, Reason::Success))).await;
        assert_eq!(client.expect().await, Packet::PubRel(Ack::new(first.packet_id, Reason::Success)));
        client.send(Packet::PubComp(Ack::new(first.packet_id, Reason::Success))).await;
        client.send(Packet::PubAck(Ack::new(second.packet_id, Reason::Success))).await;
        client.nothing().await;
        client.leave().await;
    }
}

#[tokio::test]
async fn members_share_evenly_at_qos_2_with_durable_sessions() {
    let server = Server::start().await;
    let kept = |client_id| Opening {
        client_id,
        properties: vec![Property::SessionExpiryInterval(100), Property::ReceiveMaximum(4)],
        ..Default::default()
    };
    let (mut one, _) = server.open(Version::V5, kept("one")).await;
    let (mut two, _) = server.open(Version::V5, kept("two")).await;
    for client in [&mut one, &mut two] {
        client.sub("$share/g/t", Qos::ExactlyOnce).await;
    }
    let mut publisher = server.client(Version::V5, "p").await;
    for number in 0..40 {
        publisher.say("t", &number.to_string(), Qos::ExactlyOnce).await;
    }
    // One takes all that it gets; two takes nothing, and so holds no more than its window.
    let mut taken = 0;
    while let Ok(packet) = tokio::time::timeout(std::time::Duration::from_millis(500), one.expect()).await {
        match packet {
            Packet::Publish(publish) => {
                taken += 1;
                one.send(Packet::PubRec(Ack::new(publish.packet_id, Reason::Success))).await;
            }
            Packet::PubRel(ack) => one.send(Packet::PubComp(Ack::new(ack.packet_id, Reason::Success))).await,
            other => panic!("{other:?}"),
        }
    }
    assert!((32..40).contains(&taken), "{taken}");
}
