//! A consumer of a channel, and how much it may be sent.

use inver_broker::{Completion, Consumer, Delivery, DeliveryId, Pull};
use inver_driver::CountedConsumer;
use inver_storage::SubmitError;

use super::streams::StreamReader;
use crate::map::Tells;

/// The state of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It receives messages.
    Active,
    /// It receives none; it remains for its unacked deliveries.
    Cancelled,
}

/// A consumer of a channel, or the attachment of a `basic.get`.
pub(super) struct ChannelConsumer {
    /// The consumer tag; empty for a getter.
    pub(super) tag: String,
    /// The topic or queue: the routing key of records without one.
    pub(super) source: String,
    /// Whether deliveries need no acknowledgement.
    pub(super) no_ack: bool,
    /// Whether it serves `basic.get`.
    pub(super) is_getter: bool,
    /// What deliveries tell beside the message.
    pub(super) tells: Tells,
    /// Of a stream: what it gets of it.
    pub(super) reader: Option<Box<StreamReader>>,
    /// The prefetch count; 0 for no limit.
    pub(super) prefetch: u32,
    /// The number of its unacked deliveries.
    pub(super) unacked: u32,
    /// Whether it is in the queue of consumers that may have messages, or of those paused.
    pub(super) queued: bool,
    /// Whether it receives messages.
    pub(super) state: State,
    consumer: Consumer,
    /// There while it receives messages, and not of a getter.
    pub(super) counted: Option<CountedConsumer>,
    /// Acknowledgements of this turn.
    acks: Vec<DeliveryId>,
}

impl ChannelConsumer {
    /// A consumer without deliveries.
    pub(super) fn new(
        tag: &str,
        source: &str,
        consumer: Consumer,
        no_ack: bool,
        prefetch: u32,
    ) -> ChannelConsumer {
        ChannelConsumer {
            tag: tag.to_owned(),
            source: source.to_owned(),
            no_ack,
            is_getter: false,
            tells: Tells::Nothing,
            reader: None,
            prefetch,
            unacked: 0,
            queued: false,
            state: State::Active,
            consumer,
            counted: None,
            acks: Vec::new(),
        }
    }

    /// The number of messages that its own prefetch allows.
    pub(super) fn prefetch_left(&self) -> usize {
        match (self.state, self.no_ack || self.prefetch == 0) {
            (State::Cancelled, _) => 0,
            (State::Active, true) => usize::MAX,
            (State::Active, false) => self.prefetch.saturating_sub(self.unacked) as usize,
        }
    }

    /// Pulls messages from the subscription.
    pub(super) fn pull(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.consumer.pull(messages_max, bytes_max, into)
    }

    /// Adds an acknowledgement; true if it is the first of the turn.
    pub(super) fn ack(&mut self, id: DeliveryId) -> bool {
        self.acks.push(id);
        self.acks.len() == 1
    }

    /// Passes the turn's acknowledgements to the subscription.
    pub(super) fn send_acks(&mut self) -> Result<(), SubmitError> {
        if !self.acks.is_empty() {
            // AMQP has no reply to an acknowledgement: one that a crash loses leads to a redelivery.
            _ = self.consumer.ack(&self.acks)?;
            self.acks.clear();
        }
        Ok(())
    }

    /// Requeues deliveries. Those of a stream are not delivered again, as in RabbitMQ.
    pub(super) fn requeue(&self, ids: &[DeliveryId]) -> Result<Completion, SubmitError> {
        match self.tells {
            Tells::Offset => self.consumer.ack(ids),
            _ => self.consumer.requeue(ids),
        }
    }

    /// Acknowledges deliveries that the client does not acknowledge itself.
    pub(super) fn auto_ack(&self, ids: &[DeliveryId]) -> Result<(), SubmitError> {
        self.consumer.ack(ids).map(drop)
    }

    /// Rejects deliveries, which dead-letters or drops them.
    pub(super) fn reject(&self, ids: &[DeliveryId]) -> Result<Completion, SubmitError> {
        self.consumer.reject(ids)
    }

    /// Passes the last acknowledgements on, where no method can report a failure.
    pub(super) fn send_last_acks(&mut self) {
        if let Err(error) = self.send_acks() {
            tracing::warn!(%error, "failed to write acknowledgements");
        }
    }

    /// Stops delivery. Unacked deliveries can still be acknowledged.
    pub(super) fn stop(&mut self) {
        self.send_last_acks();
        self.consumer.stop();
        self.counted = None;
        self.state = State::Cancelled;
    }

    /// The core's consumer.
    pub(super) fn core(&self) -> &Consumer {
        &self.consumer
    }
}
