//! Topics that are rewritten, and subscriptions that every client gets.

use inver_mqtt::codec::*;
use inver_mqtt::{AutoSubscription, AutoSubscriptions, MqttConfig, RewriteAction, RewriteRule, RewriteRules};

use crate::support::*;

fn rule(action: RewriteAction, source: &str, destination: &str) -> RewriteRule {
    RewriteRule { action, source: source.into(), destination: destination.into() }
}

#[tokio::test]
async fn topics_of_publishes_subscriptions_and_wills_are_rewritten() {
    let rewrite = RewriteRules(vec![
        rule(RewriteAction::Publish, "in/+/#", "out/{1}/{client_id}/{2}"),
        rule(RewriteAction::Subscribe, "mine", "of/{client_id}"),
        rule(RewriteAction::All, "old/+", "new/{1}"),
    ]);
    let server = Server::with(MqttConfig { rewrite, ..MqttConfig::default() }).await;
    let mut watcher = server.client(Version::V5, "watcher").await;
    watcher.subscribe_at("out/#", Qos::AtLeastOnce).await;
    watcher.subscribe_at("old/a", Qos::AtLeastOnce).await;
    watcher.subscribe_at("$share/g/old/b", Qos::AtLeastOnce).await;
    watcher.subscribe_at("mine", Qos::AtLeastOnce).await;
    let will = Will {
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "old/a",
        payload: b"gone",
        properties: Properties::EMPTY,
    };
    let options = ConnectOptions { client_id: "p", will: Some(will), ..Default::default() };
    let (mut publisher, _) = server.connect(Version::V311, options).await;
    for (published, received) in
        [("in/1/x/y", "out/1/p/x/y"), ("old/a", "new/a"), ("old/b", "new/b"), ("of/watcher", "of/watcher")]
    {
        publisher.publish_text(published, "x", Qos::AtLeastOnce).await;
        assert_eq!(watcher.receive().await.topic, received);
    }
    publisher.drop_connection().await;
    assert_eq!(summary(&watcher.receive().await), ("new/a", "gone", 1));
    assert_eq!(watcher.unsubscribe("old/a").await, [Reason::Success]);
    assert_eq!(watcher.unsubscribe("mine").await, [Reason::Success]);
}

#[tokio::test]
async fn every_client_gets_the_subscriptions_of_the_configuration() {
    let one = |filter: &str| AutoSubscription {
        filter: filter.into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let auto_subscribe = AutoSubscriptions(vec![one("to/{client_id}"), one("all"), one("$queue/jobs")]);
    let server = Server::with(MqttConfig { auto_subscribe, ..MqttConfig::default() }).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_retained("to/d", "kept", Qos::AtLeastOnce).await;
    let mut device = server.client(Version::V311, "d").await;
    let kept = device.receive().await;
    assert!(kept.retain && summary(&kept) == ("to/d", "kept", 1));
    assert_eq!(publisher.publish_text("to/d", "x", Qos::AtLeastOnce).await, Reason::Success);
    assert_eq!(summary(&device.receive().await), ("to/d", "x", 1));
    assert_eq!(device.unsubscribe("all").await.len(), 0, "as any subscription");
    // Of this client the filter would have a wildcard.
    let mut odd = server.client(Version::V5, "#").await;
    publisher.publish_text("to/other", "x", Qos::AtLeastOnce).await;
    odd.publish_text("all", "for all", Qos::AtMostOnce).await;
    assert_eq!(odd.receive().await.payload, b"for all");
}
