//! One publisher with many subscribers: an encoding that sessions share has no effect on what each receives.

use inver_mqtt::codec::*;

use crate::support::*;

const USER: Property<'_> = Property::UserProperty("a", "1");

fn at_most_once() -> SubscribeOptions {
    SubscribeOptions { qos: Qos::AtMostOnce, ..Default::default() }
}

/// Publishes in one write, so that the messages are one batch for all subscribers.
async fn publish_in_one_batch(client: &mut Client, messages: &[Publish<'_>]) {
    let mut wire = Vec::new();
    for message in messages {
        Packet::Publish(*message).encode(client.version, &mut wire).unwrap();
    }
    client.send_bytes(&wire).await;
}

#[tokio::test]
async fn every_subscriber_receives_messages_by_its_own_options() {
    let server = Server::start().await;
    let mut plain = Vec::new();
    for number in 0..4 {
        for version in [Version::V31, Version::V311, Version::V5] {
            let mut client = server.client(version, &format!("plain-{number}-{version:?}")).await;
            client.subscribe(&[("f/#", at_most_once())], &[]).await;
            plain.push(client);
        }
    }
    let mut identified = server.client(Version::V5, "identified").await;
    identified.subscribe(&[("f/#", at_most_once())], &[Property::SubscriptionIdentifier(7)]).await;
    let mut keeping = server.client(Version::V5, "keeping").await;
    let keeps = SubscribeOptions { retain_as_published: true, ..at_most_once() };
    keeping.subscribe(&[("f/#", keeps)], &[]).await;
    let small = ConnectOptions {
        client_id: "small",
        properties: vec![Property::MaximumPacketSize(60)],
        ..ConnectOptions::default()
    };
    let (mut small, _) = server.connect(Version::V5, small).await;
    small.subscribe(&[("f/#", at_most_once())], &[]).await;
    let aliased = ConnectOptions {
        client_id: "aliased",
        properties: vec![Property::TopicAliasMaximum(1)],
        ..ConnectOptions::default()
    };
    let (mut aliased, _) = server.connect(Version::V5, aliased).await;
    aliased.subscribe(&[("f/#", at_most_once())], &[]).await;

    let mut publisher = server.client(Version::V5, "publisher").await;
    let list = properties(&[USER]);
    let large = "l".repeat(100);
    for round in 0..3 {
        let (one, two) = (format!("{round}-one"), format!("{round}-two"));
        publish_in_one_batch(
            &mut publisher,
            &[
                Publish { properties: list, ..message("f/a", &one, Qos::AtMostOnce) },
                Publish { retain: true, ..message("f/b", &two, Qos::AtMostOnce) },
                message("f/a", &large, Qos::AtMostOnce),
            ],
        )
        .await;
        for client in &mut plain {
            let first = client.receive().await;
            assert_eq!((first.topic, first.payload), ("f/a", one.as_bytes()));
            let user = if client.version == Version::V5 { vec![USER] } else { Vec::new() };
            assert_eq!(first.properties.iter().collect::<Vec<_>>(), user);
            let second = client.receive().await;
            assert_eq!((second.topic, second.payload, second.retain), ("f/b", two.as_bytes(), false));
            assert_eq!(client.receive().await.payload.len(), 100);
        }
        for (topic, user) in [("f/a", true), ("f/b", false), ("f/a", false)] {
            let got = identified.receive().await;
            let mut wanted = if user { vec![USER] } else { Vec::new() };
            wanted.push(Property::SubscriptionIdentifier(7));
            assert_eq!((got.topic, got.properties.iter().collect::<Vec<_>>()), (topic, wanted));
        }
        for retain in [false, true, false] {
            assert_eq!(keeping.receive().await.retain, retain);
        }
        assert_eq!(small.receive().await.payload, one.as_bytes());
        assert_eq!(small.receive().await.payload, two.as_bytes());
        let first = aliased.receive().await;
        assert_eq!(first.topic, if round == 0 { "f/a" } else { "" });
        assert_eq!(aliased.receive().await.topic, "f/b");
        assert_eq!(aliased.receive().await.topic, "");
    }
    small.expect_silence().await;
}

#[tokio::test]
async fn the_remaining_expiry_is_sent_to_each_subscriber() {
    let server = Server::with_manual_clock().await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = server.client(Version::V5, &format!("c{number}")).await;
        client.subscribe(&[("e", at_most_once())], &[]).await;
        clients.push(client);
    }
    let mut publisher = server.client(Version::V5, "publisher").await;
    let list = properties(&[Property::MessageExpiryInterval(100)]);
    publisher.publish(Publish { properties: list, ..message("e", "x", Qos::AtMostOnce) }).await;
    for client in &mut clients {
        let got = client.receive().await;
        let left = got.properties.iter().collect::<Vec<_>>();
        assert_eq!(left, [Property::MessageExpiryInterval(100)]);
    }
}

#[tokio::test]
async fn batches_larger_than_the_output_are_delivered_in_order() {
    let config = inver_mqtt::MqttConfig { output_bytes_max: 4096, ..Default::default() };
    let server = Server::with(config).await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = server.client(Version::V311, &format!("c{number}")).await;
        client.subscribe(&[("big", at_most_once())], &[]).await;
        clients.push(client);
    }
    let mut publisher = server.client(Version::V311, "publisher").await;
    let texts: Vec<String> = (0..2000).map(|number| format!("{number:0100}")).collect();
    let messages: Vec<_> = texts.iter().map(|text| message("big", text, Qos::AtMostOnce)).collect();
    publish_in_one_batch(&mut publisher, &messages).await;
    for client in &mut clients {
        for text in &texts {
            assert_eq!(client.receive().await.payload, text.as_bytes());
        }
    }
}
