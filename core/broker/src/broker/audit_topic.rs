//! The audit topic: events of the audit log as records of a log topic, which Kafka clients read.
//!
//! Owns the topic's creation and the task that writes it. Who causes an event never waits for it. Events that cannot be written
//! wait in a bounded queue; what finds no place there, or cannot be written at a stop, is counted.

use std::time::Duration;

use inver_storage::Lsn;
use inver_storage::batch::BatchBuilder;
use tokio_util::sync::CancellationToken;

use super::Broker;
use crate::audit::{AuditQueue, Queued};
use crate::namespace::Namespace;
use crate::spec::{HUB_SETTING, TopicConfig, TopicError, TopicKind, TopicSpec};
use crate::topic::Topic;

/// Events of one batch.
const BATCH_EVENTS_MAX: usize = 1000;
/// Pause after a write that failed; it doubles up to [`PAUSE_MAX`] while writes fail.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why events cannot be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("there is no namespace '{0}' (audit.namespace)")]
    NoNamespace(String),
    #[error("'{0}' (audit.topic) is a queue")]
    IsQueue(String),
    #[error("'{0}' (audit.topic) has no partition")]
    NoPartition(String),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("log failed: {0}")]
    Failed(String),
}

impl Broker {
    /// Writes events to the audit topic, if there is one, until shutdown is requested and all are written. While they cannot
    /// be written they wait, and the queue fills.
    pub async fn write_audit_topic(self, shutdown: CancellationToken) {
        let Some(queue) = self.audit().queue() else { return };
        let (mut events, mut pause) = (Vec::new(), PAUSE);
        loop {
            if events.is_empty() {
                events = queue.take(BATCH_EVENTS_MAX);
            }
            if events.is_empty() {
                warn_of_dropped(queue);
                if shutdown.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = queue.added() => {}
                    () = shutdown.cancelled() => {}
                }
                continue;
            }
            match self.write_events(&events).await {
                Ok(()) => (events, pause) = (Vec::new(), PAUSE),
                Err(error) if shutdown.is_cancelled() => {
                    events.extend(queue.take(usize::MAX));
                    tracing::warn!(%error, "failed to write to the audit topic");
                    queue.count_dropped(events.len() as u64);
                    warn_of_dropped(queue);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to write to the audit topic, trying again");
                    warn_of_dropped(queue);
                    tokio::select! {
                        () = self.clock().sleep(pause) => {}
                        () = shutdown.cancelled() => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn write_events(&self, events: &[Queued]) -> Result<(), WriteError> {
        let config = &self.0.parts.config.audit;
        let Some(name) = &config.topic else { return Ok(()) };
        let namespace = self
            .namespace(&config.namespace)
            .ok_or_else(|| WriteError::NoNamespace(config.namespace.clone()))?;
        let topic = match namespace.topic(name) {
            Some(topic) => topic,
            None => namespace.create_topic(name, &spec())?.0,
        };
        if topic.kind() == TopicKind::Queue {
            return Err(WriteError::IsQueue(name.clone()));
        }
        let lsn = write(&namespace, &topic, events)?;
        // The next batch waits until this one is committed, so that the queue's bound holds back what the log cannot take.
        self.log().wait_committed(lsn).await.map_err(|error| WriteError::Failed(error.to_string()))
    }
}

fn write(namespace: &Namespace, topic: &Topic, events: &[Queued]) -> Result<Lsn, WriteError> {
    let mut batch = BatchBuilder::new(events.iter().map(|event| event.json.len() + 32).sum());
    events.iter().for_each(|event| batch.push_with(event.time_ms, None, 0, &[], Some(&event.json)));
    let partition = topic.partition(0).ok_or_else(|| WriteError::NoPartition(topic.name().to_owned()))?;
    let produced = namespace.produce(topic, &partition, batch.finish());
    produced.map(|submitted| submitted.lsn).map_err(|error| WriteError::Failed(error.to_string()))
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

#[cfg(test)]
mod tests {
    use inver_storage::{CommitPolicy, Log, LogOptions};

    use super::*;
    use crate::audit::{AuditConfig, AuditEvent, AuditKind, AuditResult, Who};
    use crate::clock::Clock;
    use crate::spec::{BrokerConfig, NamespaceSpec};

    /// A broker whose audit topic is in a namespace that is not there, and the task that writes the topic.
    fn broker(
        folder: &tempfile::TempDir,
        shutdown: &CancellationToken,
    ) -> (Broker, tokio::task::JoinHandle<()>) {
        let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
        let log = Log::open(folder.path(), options).unwrap();
        let audit = AuditConfig {
            topic: Some("events".into()),
            namespace: "later".into(),
            queue_events_max: 3,
            ..AuditConfig::default()
        };
        let config = BrokerConfig { audit, clock: Clock::manual(1_000), ..BrokerConfig::default() };
        let broker = Broker::open(log, config).unwrap();
        let writing = tokio::spawn(broker.clone().write_audit_topic(shutdown.clone()));
        (broker, writing)
    }

    fn record(broker: &Broker, name: &str) {
        broker.audit().record(&AuditEvent {
            kind: AuditKind::Access,
            result: AuditResult::Accepted,
            who: Who::default(),
            operation: "create",
            resource: "user",
            name,
            namespace: None,
            rule: None,
            reason: None,
        });
    }

    /// Records an event and waits until the task has taken it, which it then cannot write.
    async fn record_first(broker: &Broker) {
        record(broker, "first");
        while broker.audit().queue().is_some_and(|queue| queue.len() > 0) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn events_that_cannot_be_written_wait_until_they_can() {
        let (folder, shutdown) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let (broker, writing) = broker(&folder, &shutdown);
        record_first(&broker).await;
        record(&broker, "second");
        let (namespace, _) = broker.create_namespace("later", NamespaceSpec::default()).unwrap();
        let written = || {
            namespace
                .topic("events")
                .map_or(0, |topic| topic.partition(0).unwrap().stream().high_watermark().0)
        };
        let all_written = async {
            while written() < 2 {
                broker.clock().advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_written).await.expect("both are written");
        shutdown.cancel();
        writing.await.unwrap();
        assert_eq!(broker.audit().queue().unwrap().take_dropped(), 0);
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_events_that_cannot_be_written() {
        let (folder, shutdown) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let (broker, writing) = broker(&folder, &shutdown);
        record_first(&broker).await;
        (0..5).for_each(|number| record(&broker, &number.to_string()));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(60), writing).await.expect("it ends").unwrap();
        assert_eq!(broker.audit().queue().unwrap().len(), 0, "all are counted as dropped");
    }
}
