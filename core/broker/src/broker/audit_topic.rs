//! The audit topic: events of the audit log as records of a log topic, which Kafka clients read.
//!
//! Owns the topic's creation and the task that writes it. Who causes an event never waits for it; what cannot be written
//! is counted.

use std::time::Duration;

use inver_storage::batch::BatchBuilder;
use inver_storage::{Lsn, SubmitError};
use tokio_util::sync::CancellationToken;

use super::Broker;
use crate::audit::{AuditQueue, Queued};
use crate::namespace::Namespace;
use crate::spec::{HUB_SETTING, TopicConfig, TopicError, TopicKind, TopicSpec};
use crate::topic::Topic;

/// Events of one batch.
const BATCH_EVENTS_MAX: usize = 1000;
/// Pause after events were lost, so that a log that rejects writes is not asked without end.
const RETRY: Duration = Duration::from_secs(1);

/// Why a batch of events is lost.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("there is no namespace '{0}' (audit.namespace)")]
    NoNamespace(String),
    #[error("'{0}' (audit.topic) is a queue")]
    IsQueue(String),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
    #[error("log failed: {0}")]
    Failed(String),
}

impl Broker {
    /// Writes events to the audit topic, if there is one, until shutdown is requested and all are written.
    pub async fn write_audit_topic(self, shutdown: CancellationToken) {
        let Some(queue) = self.audit().queue() else { return };
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = queue.added() => {}
                () = shutdown.cancelled() => {}
            }
            loop {
                let events = queue.take(BATCH_EVENTS_MAX);
                if events.is_empty() {
                    break;
                }
                let count = events.len() as u64;
                if let Err(error) = self.write_events(events).await {
                    queue.count_dropped(count);
                    tracing::warn!(%error, events = count, "failed to write to the audit topic");
                    if shutdown.is_cancelled() {
                        return;
                    }
                    self.clock().sleep(RETRY).await;
                }
            }
            warn_of_dropped(queue);
        }
    }

    async fn write_events(&self, events: Vec<Queued>) -> Result<(), Lost> {
        let config = &self.0.parts.config.audit;
        let Some(name) = &config.topic else { return Ok(()) };
        let namespace =
            self.namespace(&config.namespace).ok_or_else(|| Lost::NoNamespace(config.namespace.clone()))?;
        let topic = match namespace.topic(name) {
            Some(topic) => topic,
            None => namespace.create_topic(name, &spec())?.0,
        };
        if topic.kind() == TopicKind::Queue {
            return Err(Lost::IsQueue(name.clone()));
        }
        let lsn = write(&namespace, &topic, &events)?;
        // The next batch waits until this one is committed, so that the queue's bound holds back what the log cannot take.
        self.log().wait_committed(lsn).await.map_err(|error| Lost::Failed(error.to_string()))
    }
}

fn write(namespace: &Namespace, topic: &Topic, events: &[Queued]) -> Result<Lsn, Lost> {
    let mut batch = BatchBuilder::new(events.iter().map(|event| event.json.len() + 32).sum());
    events.iter().for_each(|event| batch.push_with(event.time_ms, None, 0, &[], Some(&event.json)));
    let partition = topic.partition(0).ok_or_else(|| Lost::IsQueue(topic.name().to_owned()))?;
    Ok(namespace.produce(topic, &partition, batch.finish())?.lsn)
}

/// One partition, so that events have one order; never in the hub.
fn spec() -> TopicSpec {
    let config = TopicConfig::from_iter([(HUB_SETTING.to_owned(), "off".to_owned())]);
    TopicSpec { partitions: 1, config }
}

fn warn_of_dropped(queue: &AuditQueue) {
    let events = queue.take_dropped();
    if events > 0 {
        tracing::warn!(events, "events are missing in the audit topic");
    }
}
