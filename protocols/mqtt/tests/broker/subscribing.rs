//! Subscriptions: options, subscription identifiers, retained messages, shared subscriptions.

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
async fn overlapping_filters_deliver_one_message_with_all_identifiers() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.subscribe(&[("a/b", at(Qos::AtMostOnce))], &[Property::SubscriptionIdentifier(2)]).await;
    client.subscribe(&[("a/#", at(Qos::ExactlyOnce))], &[Property::SubscriptionIdentifier(456_789)]).await;
    client.subscribe(&[("+/b", at(Qos::AtLeastOnce))], &[]).await;
    server.client(Version::V5, "p").await.publish_text("a/b", "x", Qos::ExactlyOnce).await;
    let publish = client.receive().await;
    assert_eq!((publish.qos, ids(&publish)), (Qos::ExactlyOnce, vec![2, 456_789]));
    client.expect_silence().await;
}

#[tokio::test]
async fn a_subscription_to_the_same_filter_replaces_the_first() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.subscribe(&[("a", at(Qos::ExactlyOnce))], &[Property::SubscriptionIdentifier(1)]).await;
    client.subscribe(&[("a", at(Qos::AtMostOnce))], &[]).await;
    server.client(Version::V5, "p").await.publish_text("a", "x", Qos::AtLeastOnce).await;
    let publish = client.receive().await;
    assert_eq!((publish.qos, ids(&publish)), (Qos::AtMostOnce, vec![]));
    client.expect_silence().await;
}

#[tokio::test]
async fn unsubscribing_ends_a_subscription() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.subscribe_at("a", Qos::AtLeastOnce).await;
    assert_eq!(client.unsubscribe("a").await, [Reason::Success]);
    assert_eq!(client.unsubscribe("a").await, [Reason::NoSubscriptionExisted]);
    client.publish_text("a", "x", Qos::AtLeastOnce).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn no_local_and_retain_as_published_are_applied() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    let mut other = server.client(Version::V5, "o").await;
    let quiet = SubscribeOptions { no_local: true, ..at(Qos::AtLeastOnce) };
    client.subscribe(&[("a", quiet)], &[]).await;
    client.publish_text("a", "own", Qos::AtLeastOnce).await;
    other.publish_text("a", "other's", Qos::AtLeastOnce).await;
    assert_eq!(client.receive().await.payload, b"other's");
    let exact = SubscribeOptions { retain_as_published: true, ..at(Qos::AtLeastOnce) };
    client.subscribe(&[("b", exact), ("c", at(Qos::AtLeastOnce))], &[]).await;
    for topic in ["b", "c"] {
        other.publish_retained(topic, "x", Qos::AtLeastOnce).await;
        other.publish_text(topic, "y", Qos::AtLeastOnce).await;
        let (first, second) = (client.receive().await, client.receive().await);
        assert_eq!((first.retain, second.retain), (topic == "b", false));
    }
}

#[tokio::test]
async fn retained_messages_are_sent_by_retain_handling() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V5, "p").await;
    for (topic, qos) in [("r/0", 0), ("r/1", 1), ("r/2", 2)] {
        publisher.publish_retained(topic, topic, Qos::from_bits(qos).unwrap()).await;
    }
    publisher.expect_silence().await;
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
            let publish = client.receive().await;
            assert!(publish.retain);
            assert_eq!(ids(&publish), [5]);
            all.push(summary(&publish));
        }
        all.sort_unstable();
        let wanted = [("r/0", "r/0", 0), ("r/1", "r/1", 1), ("r/2", "r/2", 2)];
        assert_eq!(all, wanted[..count]);
        client.expect_silence().await;
    }
    client.unsubscribe("r/+").await;
    client.subscribe(&[("r/+", with(RetainHandling::SendIfNew))], &[]).await;
    for _ in 0..3 {
        client.receive().await;
    }
    // An empty payload clears the retained message.
    publisher.publish_retained("r/1", "", Qos::AtLeastOnce).await;
    assert_eq!(summary(&client.receive().await), ("r/1", "", 1));
    let mut fresh = server.client(Version::V311, "f").await;
    fresh.subscribe_at("r/1", Qos::AtLeastOnce).await;
    fresh.expect_silence().await;
}

#[tokio::test]
async fn filters_without_retained_messages_do_not_block_others() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.publish_retained("has", "1", Qos::AtMostOnce).await;
    client.publish_retained("has/too", "2", Qos::AtLeastOnce).await;
    let options = SubscribeOptions::default();
    let filters =
        [("none/1", options), ("none/2", options), ("has", options), ("none/+", options), ("has/+", options)];
    client.subscribe(&filters, &[]).await;
    assert_eq!(summary(&client.receive_unacked().await), ("has", "1", 0));
    assert_eq!(summary(&client.receive_unacked().await), ("has/too", "2", 0));
}

#[tokio::test]
async fn retained_messages_survive_a_restart() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V311, "p").await;
    publisher.publish_retained("r/a", "kept", Qos::AtMostOnce).await;
    publisher.publish_retained("r/b", "kept too", Qos::AtLeastOnce).await;
    publisher.disconnect().await;
    let server = server.restart().await;
    let mut client = server.client(Version::V311, "c").await;
    client.subscribe_at("r/#", Qos::AtLeastOnce).await;
    let mut all = [summary(&client.receive().await), summary(&client.receive().await)];
    all.sort_unstable();
    assert_eq!(all, [("r/a", "kept", 0), ("r/b", "kept too", 1)]);
}

#[tokio::test]
async fn many_retained_messages_are_sent_through_a_small_window() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V311, "p").await;
    for number in 0u16..1000 {
        publisher
            .publish_retained(&format!("r/{number}"), "x", Qos::from_bits((number % 2) as u8).unwrap())
            .await;
    }
    let options = ConnectOptions {
        client_id: "c",
        properties: vec![Property::ReceiveMaximum(3)],
        ..Default::default()
    };
    let (mut client, _) = server.connect(Version::V5, options).await;
    client.subscribe_at("#", Qos::AtLeastOnce).await;
    let mut topics = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        topics.insert(client.receive().await.topic);
    }
    assert_eq!(topics.len(), 1000);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_refused_filter_has_its_own_reason_code() {
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
async fn shared_subscriptions_distribute_messages() {
    let server = Server::start().await;
    for version in [Version::V311, Version::V5] {
        let mut one = server.client(version, "one").await;
        let mut two = server.client(version, "two").await;
        let mut alone = server.client(version, "alone").await;
        one.subscribe_at("$share/g/s/+", Qos::AtLeastOnce).await;
        two.subscribe_at("$share/g/s/+", Qos::AtLeastOnce).await;
        alone.subscribe_at("$share/h/s/#", Qos::AtLeastOnce).await;
        let mut publisher = server.client(version, "p").await;
        let mut counts = [0, 0];
        for number in 0..20 {
            publisher.publish_text("s/x", &number.to_string(), Qos::from_bits(number % 2).unwrap()).await;
            assert_eq!(alone.receive().await.payload, number.to_string().as_bytes());
            let publish = tokio::select! {
                publish = one.receive_unacked() => { counts[0] += 1; if publish.qos != Qos::AtMostOnce { one.send(Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))).await }; publish }
                publish = two.receive_unacked() => { counts[1] += 1; if publish.qos != Qos::AtMostOnce { two.send(Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))).await }; publish }
            };
            assert_eq!((publish.topic, publish.qos as u8), ("s/x", number % 2));
        }
        assert_eq!(counts[0] + counts[1], 20);
        assert!(counts[0] >= 5 && counts[1] >= 5, "{counts:?}");
        one.expect_silence().await;
        two.expect_silence().await;
        for client in [one, two, alone] {
            client.disconnect().await;
        }
    }
}

#[tokio::test]
async fn unacknowledged_messages_of_a_shared_subscription_move_to_another_member() {
    let server = Server::start().await;
    let mut one = server.client(Version::V5, "one").await;
    one.subscribe_at("$share/g/t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_text("t", "x", Qos::AtLeastOnce).await;
    assert_eq!(one.receive_unacked().await.payload, b"x");
    let mut two = server.client(Version::V5, "two").await;
    two.subscribe_at("$share/g/t", Qos::AtLeastOnce).await;
    two.expect_silence().await;
    one.drop_connection().await;
    assert_eq!(two.receive().await.payload, b"x");
    two.expect_silence().await;
}

#[tokio::test]
async fn unsubscribing_leaves_a_shared_subscription() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    client.subscribe_at("$share/g/t", Qos::AtLeastOnce).await;
    assert_eq!(client.unsubscribe("$share/g/t").await, [Reason::Success]);
    assert_eq!(client.publish_text("t", "x", Qos::AtLeastOnce).await, Reason::NoMatchingSubscribers);
    client.expect_silence().await;
}

#[tokio::test]
async fn wildcards_at_the_first_level_do_not_match_dollar_topics() {
    let server = Server::start().await;
    let mut client = server.client(Version::V311, "c").await;
    client.subscribe_at("#", Qos::AtLeastOnce).await;
    client.subscribe_at("+/x", Qos::AtLeastOnce).await;
    client.publish_text("$other/x", "x", Qos::AtLeastOnce).await;
    client.expect_silence().await;
    client.subscribe_at("$other/#", Qos::AtLeastOnce).await;
    server.client(Version::V311, "p").await.publish_text("$other/x", "y", Qos::AtLeastOnce).await;
    assert_eq!(summary(&client.receive().await), ("$other/x", "y", 1));
}

#[tokio::test]
async fn a_shared_qos_2_message_stays_with_the_session_that_received_it() {
    let server = Server::start().await;
    let durable = ConnectOptions {
        client_id: "one",
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..Default::default()
    };
    let (mut one, _) = server.connect(Version::V5, durable.clone()).await;
    one.subscribe(&[("$share/g/t", at(Qos::ExactlyOnce))], &[Property::SubscriptionIdentifier(7)]).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_text("t", "1", Qos::ExactlyOnce).await;
    let first = one.receive_unacked().await;
    assert_eq!((summary(&first), ids(&first)), (("t", "1", 2), vec![7]));
    let mut two = server.client(Version::V5, "two").await;
    two.subscribe_at("$share/g/t", Qos::ExactlyOnce).await;
    one.drop_connection().await;
    two.expect_silence().await;
    // The message keeps its packet identifier, and the subscription is restored.
    let (mut one, _) = server.connect(Version::V5, durable).await;
    let again = one.receive().await;
    assert_eq!((again.packet_id, again.payload, again.dup), (first.packet_id, first.payload, true));
    two.expect_silence().await;
    two.disconnect().await;
    for payload in ["2", "3", "4"] {
        publisher.publish_text("t", payload, Qos::ExactlyOnce).await;
        assert_eq!(one.receive().await.payload, payload.as_bytes());
    }
    one.expect_silence().await;
}

#[tokio::test]
async fn a_shared_qos_2_message_ends_with_its_session() {
    let server = Server::start().await;
    let mut one = server.client(Version::V5, "one").await;
    one.subscribe_at("$share/g/t", Qos::ExactlyOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_text("t", "1", Qos::ExactlyOnce).await;
    one.receive_unacked().await;
    let mut two = server.client(Version::V5, "two").await;
    two.subscribe_at("$share/g/t", Qos::ExactlyOnce).await;
    one.drop_connection().await;
    two.expect_silence().await;
    publisher.publish_text("t", "2", Qos::ExactlyOnce).await;
    assert_eq!(two.receive().await.payload, b"2");
}

#[tokio::test]
async fn messages_in_flight_are_completed_after_unsubscribing() {
    let server = Server::start().await;
    for filter in ["$share/g/t", "t"] {
        let mut client = server.client(Version::V5, "c").await;
        client.subscribe_at(filter, Qos::ExactlyOnce).await;
        let mut publisher = server.client(Version::V5, "p").await;
        publisher.publish_text("t", "1", Qos::ExactlyOnce).await;
        publisher.publish_text("t", "2", Qos::AtLeastOnce).await;
        let (first, second) = (client.receive_unacked().await, client.receive_unacked().await);
        assert_eq!(client.unsubscribe(filter).await, [Reason::Success]);
        client.send(Packet::PubRec(Ack::new(first.packet_id, Reason::Success))).await;
        assert_eq!(client.expect().await, Packet::PubRel(Ack::new(first.packet_id, Reason::Success)));
        client.send(Packet::PubComp(Ack::new(first.packet_id, Reason::Success))).await;
        client.send(Packet::PubAck(Ack::new(second.packet_id, Reason::Success))).await;
        client.expect_silence().await;
        client.disconnect().await;
    }
}

#[tokio::test]
async fn a_durable_member_holds_at_most_its_window_of_shared_qos_2_messages() {
    let server = Server::start().await;
    let durable = |client_id| ConnectOptions {
        client_id,
        properties: vec![Property::SessionExpiryInterval(100), Property::ReceiveMaximum(4)],
        ..Default::default()
    };
    let (mut one, _) = server.connect(Version::V5, durable("one")).await;
    let (mut two, _) = server.connect(Version::V5, durable("two")).await;
    for client in [&mut one, &mut two] {
        client.subscribe_at("$share/g/t", Qos::ExactlyOnce).await;
    }
    let mut publisher = server.client(Version::V5, "p").await;
    for number in 0..40 {
        publisher.publish_text("t", &number.to_string(), Qos::ExactlyOnce).await;
    }
    // The first member acknowledges all that it receives, the second nothing.
    let (mut by_one, mut by_two) = (0, 0);
    while by_one + by_two < 40 {
        tokio::select! {
            packet = one.expect() => match packet {
                Packet::Publish(publish) => {
                    by_one += 1;
                    one.send(Packet::PubRec(Ack::new(publish.packet_id, Reason::Success))).await;
                }
                Packet::PubRel(ack) => one.send(Packet::PubComp(Ack::new(ack.packet_id, Reason::Success))).await,
                other => panic!("{other:?}"),
            },
            publish = two.receive_unacked() => {
                assert_eq!(publish.qos, Qos::ExactlyOnce);
                by_two += 1;
            }
        }
    }
    assert!((1..=4).contains(&by_two), "{by_two}");
}

#[tokio::test]
async fn a_packet_of_many_filters_is_carried_out_in_turns_and_before_the_next_packet() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    let filters: Vec<String> = (0..1000).map(|number| format!("f/{number}")).collect();
    let subscribe: Vec<_> = filters.iter().map(|filter| (filter.as_str(), at(Qos::AtLeastOnce))).collect();
    let packet_id = client.id();
    let packet = Subscribe { packet_id, properties: Properties::EMPTY, filters: subscribe };
    client.send(Packet::Subscribe(packet)).await;
    // Sees the effect of what came before it.
    assert_eq!(
        client
            .unsubscribe_after("f/999", |packet| match packet {
                Packet::SubAck(suback) => {
                    assert_eq!(
                        (suback.packet_id, suback.reasons),
                        (packet_id, vec![Reason::GrantedQos1; 1000])
                    );
                }
                other => panic!("{other:?}"),
            })
            .await,
        [Reason::Success]
    );
    let packet_id = client.id();
    let names = filters.iter().map(String::as_str).chain(["none"]).collect();
    let packet = Unsubscribe { packet_id, properties: Properties::EMPTY, filters: names };
    client.send(Packet::Unsubscribe(packet)).await;
    assert_eq!(
        client
            .unsubscribe_after("f/998", |packet| match packet {
                Packet::UnsubAck(unsuback) => {
                    assert_eq!(unsuback.reasons[..999], vec![Reason::Success; 999]);
                    assert_eq!(unsuback.reasons[999..], [Reason::NoSubscriptionExisted; 2]);
                }
                other => panic!("{other:?}"),
            })
            .await,
        [Reason::NoSubscriptionExisted]
    );
}
