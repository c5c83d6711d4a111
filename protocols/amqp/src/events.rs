//! The broker's events as messages of the exchange `amq.rabbitmq.event`: their names are the routing keys, their facts the
//! headers, named as RabbitMQ's plugin names them.

use inver_broker::{
    Broker, Completion, Event, Facts, Message, Namespace, PublishError, Publisher, PublisherId, Target, Value,
};

use crate::error::Refusal;
use crate::map::{Composer, DIRECT_REPLY_TO, ORIGIN, Publish, connection_pid};
use crate::operator::MessageProperties;

/// The exchange. It is in the namespace `/`, whatever namespace an event is of.
const EXCHANGE: &str = "amq.rabbitmq.event";
/// Events of one entry of the log.
const BATCH_EVENTS_MAX: usize = 100;
/// The delivery mode of persistent messages.
const PERSISTENT: u8 = 2;
/// Who does what no client did.
const BROKER: &str = "rmq-internal";

/// Why an event is not published.
#[derive(Debug, thiserror::Error)]
enum Unpublished {
    #[error("{}", .0.text)]
    Message(Refusal),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Publishes the broker's events for as long as it runs. The next ones are taken when the last ones are committed, so that
/// their bound holds back what the log cannot take.
pub async fn publish_events(broker: Broker) {
    let namespace = broker.default_namespace();
    let mut events = EventPublisher::new(&namespace);
    loop {
        let (told, dropped) = broker.events().take(BATCH_EVENTS_MAX).await;
        if dropped > 0 {
            tracing::warn!(dropped, exchange = EXCHANGE, "events were not published: too many waited");
        }
        for event in told.iter().filter(|event| is_published(event)) {
            if let Err(error) = events.add(event) {
                broker.events().count_dropped(1);
                tracing::warn!(%error, event = event.name, exchange = EXCHANGE, "failed to publish an event");
            }
        }
        match events.publisher.flush() {
            Ok(Completion::At(lsn)) if broker.log().wait_committed(lsn).await.is_err() => return,
            Ok(_) => {}
            Err(error) => {
                events.publisher.discard();
                broker.events().count_dropped(told.len() as u64);
                tracing::warn!(%error, exchange = EXCHANGE, "failed to publish events");
            }
        }
    }
}

/// Whether programs are told: not of what RabbitMQ has no queue for.
fn is_published(event: &Event) -> bool {
    let name = event.facts.more.get("name").and_then(Value::as_str);
    !(event.name.starts_with("queue.") && name.is_some_and(|name| name.starts_with(DIRECT_REPLY_TO)))
}

struct EventPublisher {
    namespace: Namespace,
    publisher: Publisher,
    composer: Composer,
}

impl EventPublisher {
    fn new(namespace: &Namespace) -> EventPublisher {
        let id = PublisherId { origin: ORIGIN, session: None };
        let publisher = Publisher::of_server(namespace.clone(), id);
        EventPublisher { namespace: namespace.clone(), publisher, composer: Composer::default() }
    }

    fn add(&mut self, event: &Event) -> Result<(), Unpublished> {
        match self.publish(event, &properties(event)) {
            // Arguments may be what no message can have, such as too deep a table.
            Err(Unpublished::Message(_)) => {
                let mut properties = properties(event);
                if let Some(facts) = &mut properties.headers {
                    facts.retain(|name, _| !matches!(name.as_str(), "arguments" | "definition"));
                }
                self.publish(event, &properties)
            }
            done => done,
        }
    }

    fn publish(&mut self, event: &Event, properties: &MessageProperties) -> Result<(), Unpublished> {
        let properties = properties.encode().map_err(Unpublished::Message)?;
        let routing_key = event.name.as_bytes();
        let publish =
            Publish { exchange: EXCHANGE, routing_key, mandatory: false, properties: &properties, body: b"" };
        let now_ms = self.namespace.clock().steady_ms();
        let composed = self.composer.compose(&publish, now_ms).map_err(Unpublished::Message)?;
        let message = Message {
            timestamp_ms: now_ms,
            key: composed.key,
            value: composed.value,
            headers: composed.headers,
            guaranteed: composed.persistent,
            lookup: Some(&composed.table),
        };
        let target = Target::Exchange { name: EXCHANGE, routing_key, more_keys: &[] };
        // One that a full queue refuses is lost there.
        self.publisher.publish(target, &message)?;
        Ok(())
    }
}

fn properties(event: &Event) -> MessageProperties {
    let Facts { namespace, by, mut more } = event.facts.clone();
    if event.name.starts_with("connection.")
        && let Some(id) = more.remove("id").and_then(|id| u64::try_from(id.as_int()?).ok())
    {
        more.insert("pid".to_owned(), connection_pid(id).into());
    }
    if event.name.starts_with("queue.")
        && let Some(Value::Text(kind)) = more.get("type")
    {
        let kind = format!("rabbit_{}_queue", String::from_utf8_lossy(kind));
        more.insert("type".to_owned(), kind.into());
    }
    if let Some(namespace) = namespace {
        more.insert("vhost".to_owned(), (&*namespace).into());
    }
    if !event.name.starts_with("user.authentication.") {
        let by = by.unwrap_or_else(|| BROKER.to_owned());
        more.insert("user_who_performed_action".to_owned(), by.into());
    }
    more.insert("timestamp_in_ms".to_owned(), event.time_ms.into());
    MessageProperties {
        headers: Some(more),
        delivery_mode: Some(PERSISTENT),
        timestamp: u64::try_from(event.time_ms / 1000).ok(),
        ..MessageProperties::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_have_the_names_of_rabbitmq() {
        let facts = Facts::new([("name", "q".into()), ("type", "quorum".into())]);
        let event = Event { name: "queue.created", time_ms: 5_250, facts: facts.within(&"v".into()) };
        let MessageProperties { headers, timestamp, delivery_mode, .. } = properties(&event);
        let headers = headers.unwrap();
        let text = |name: &str| headers.get(name).and_then(Value::as_str).map(str::to_owned);
        assert_eq!(text("type").as_deref(), Some("rabbit_quorum_queue"));
        assert_eq!((text("vhost").as_deref(), text("name").as_deref()), (Some("v"), Some("q")));
        assert_eq!(text("user_who_performed_action").as_deref(), Some("rmq-internal"));
        assert_eq!((timestamp, delivery_mode), (Some(5), Some(2)));
        let facts = Facts::new([("id", 3.into())]).by(Some("ann"));
        let event = Event { name: "connection.closed", time_ms: 0, facts };
        let headers = properties(&event).headers.unwrap();
        assert_eq!(headers.get("pid"), Some(&"<inver.3.0.0>".into()));
        assert_eq!(headers.get("user_who_performed_action"), Some(&"ann".into()));
    }
}
