//! The end of a namespace: everything in it is removed, from memory and from the log.

use std::sync::atomic::Ordering;

use inver_storage::{StreamId, SubmitError};

use super::Namespace;
use crate::removal::Removal;
use crate::rows;

/// Rows that are deleted at once, on the caller's thread.
const ROWS_AT_ONCE_MAX: usize = 256;

impl Namespace {
    /// From now on nothing is created in it.
    pub(crate) fn set_deleted(&self) {
        self.0.is_deleted.store(true, Ordering::SeqCst);
    }

    /// Removes everything in it but its sessions. It was [deleted](Self::set_deleted) before.
    pub(crate) fn remove_all(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        self.remove_offsets_and_retained(removal)?;
        self.remove_policies(removal)?;
        self.remove_all_exchanges(removal)?;
        self.remove_all_queues(removal)?;
        self.remove_all_topics(removal)?;
        self.changed();
        Ok(())
    }

    /// Forgets the publisher sequences of a stream that was deleted. There may be very many: their rows go in entries of
    /// their own, and what is not removed by the end of the process goes at the next start.
    pub(super) fn forget_sequences(&self, stream: StreamId) {
        let keys = self.0.publisher_sequences.forget_stream(stream);
        let log = self.log().clone();
        self.context().blocking.spawn_if_many(keys.len(), ROWS_AT_ONCE_MAX, move || {
            let mut removal = Removal::new(&log);
            let removed = keys.into_iter().try_for_each(|key| {
                removal.row(rows::PUBLISHER_SEQUENCES, key);
                removal.end_of_object()
            });
            if let Err(error) = removed.and_then(|()| removal.finish()) {
                tracing::debug!(%error, "failed to delete publisher sequences");
            }
        });
    }

    fn remove_offsets_and_retained(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        for (table, key) in self.0.transactions.take_keys() {
            removal.row(table, key);
            removal.end_of_object()?;
        }
        for key in self.0.committed_offsets.take_keys() {
            removal.row(rows::COMMITTED_OFFSETS, key);
            removal.end_of_object()?;
        }
        for key in self.0.publisher_sequences.take_keys() {
            removal.row(rows::PUBLISHER_SEQUENCES, key);
            removal.end_of_object()?;
        }
        for key in self.0.retained.take_keys() {
            removal.row(rows::RETAINED, key);
            removal.end_of_object()?;
        }
        Ok(())
    }

    fn remove_all_exchanges(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        let exchanges = {
            let _topology = self.topology();
            std::mem::take(&mut *self.0.exchanges.write())
        };
        for exchange in exchanges.values() {
            if exchange.spec().durable {
                removal.row(rows::EXCHANGES, rows::key(self.0.id, &[exchange.name().as_bytes()]));
            }
            // Exchanges that are bound to each other would keep each other alive.
            for row in exchange.clear() {
                removal.row(rows::BINDINGS, rows::key(self.0.id, &[&row.to_be_bytes()]));
                removal.end_of_object()?;
            }
        }
        self.0.origins.clear();
        removal.end_of_object()
    }

    fn remove_all_queues(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        let queues = {
            let _topology = self.topology();
            let queues: Vec<_> = self.0.queues.iter().map(|queue| queue.clone()).collect();
            self.0.queues.clear();
            self.0.queues_by_name.clear();
            queues
        };
        for queue in queues {
            if let (Some(stream), Some(cursor)) = (queue.stream(), queue.subscription().first_cursor()) {
                let delivered = queue.subscription().delivered_rows();
                delivered.into_iter().for_each(|key| removal.row(rows::DELIVERED, key));
                removal.cursor(cursor.0);
                removal.stream(stream.id().0);
                removal.row(rows::TOPICS, rows::key(self.0.id, &[queue.name().as_bytes()]));
                if let (false, Some(topic)) = (queue.spec().hidden, queue.topic()) {
                    self.remove_topic(topic);
                }
            }
            self.0.context.reclaim.remove(queue.subscription().id());
            queue.subscription().close();
            removal.end_of_object()?;
        }
        Ok(())
    }

    fn remove_all_topics(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        let (topics, subscriptions) = {
            let _topology = self.topology();
            let all = self.0.subscriptions.iter();
            let subscriptions: Vec<_> = all.map(|s| (s.key().clone(), s.value().clone())).collect();
            self.0.subscriptions.clear();
            (self.topics(), subscriptions)
        };
        for ((topic, name), subscription) in subscriptions {
            let delivered = subscription.delivered_rows();
            delivered.into_iter().for_each(|key| removal.row(rows::DELIVERED, key));
            subscription.cursors().into_iter().for_each(|cursor| removal.cursor(cursor.0));
            if subscription.is_durable() {
                let id = topic.0.to_be_bytes();
                removal.row(rows::SUBSCRIPTIONS, rows::key(self.0.id, &[&id, name.as_bytes()]));
            }
            subscription.close();
            removal.end_of_object()?;
        }
        for topic in topics {
            topic.partitions().iter().for_each(|partition| removal.stream(partition.stream().id().0));
            removal.row(rows::TOPICS, rows::key(self.0.id, &[topic.name().as_bytes()]));
            self.remove_topic(&topic);
            removal.end_of_object()?;
        }
        Ok(())
    }
}
