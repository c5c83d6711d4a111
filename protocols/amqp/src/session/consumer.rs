//! One consumer of a channel, and how much it may be sent.

use inver_broker::{Completion, Consumer, Delivery, DeliveryId, Pull};

/// Whether an consumer still takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It does.
    Active,
    /// It does not; it is here for what it still holds.
    Cancelled,
}

/// See the module's text.
pub(super) struct ChannelConsumer {
    /// The client's name for it; empty for a getter.
    pub(super) tag: String,
    /// The topic or queue, as an address for records that name none.
    pub(super) source: String,
    /// Deliveries need no acknowledgement.
    pub(super) no_ack: bool,
    /// It serves `basic.get`, not a consumer.
    pub(super) is_getter: bool,
    /// Messages it may hold; 0 is no bound.
    pub(super) prefetch: u32,
    /// Messages it holds.
    pub(super) unacked: u32,
    /// It stands in the line of those who are asked for messages.
    pub(super) queued: bool,
    /// Whether it takes messages.
    pub(super) state: State,
    consumer: Consumer,
    /// Acknowledged in this burst.
    acks: Vec<DeliveryId>,
}

impl ChannelConsumer {
    /// An consumer with nothing in hand.
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
            prefetch,
            unacked: 0,
            queued: false,
            state: State::Active,
            consumer,
            acks: Vec::new(),
        }
    }

    /// How many more messages it may be sent by its own prefetch.
    pub(super) fn room(&self) -> usize {
        match (self.state, self.no_ack || self.prefetch == 0) {
            (State::Cancelled, _) => 0,
            (State::Active, true) => usize::MAX,
            (State::Active, false) => self.prefetch.saturating_sub(self.unacked) as usize,
        }
    }

    /// Takes messages from the subscription.
    pub(super) fn pull(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.consumer.pull(messages_max, bytes_max, into)
    }

    /// Notes an acknowledgement; true if it is the first of the burst.
    pub(super) fn ack(&mut self, id: DeliveryId) -> bool {
        self.acks.push(id);
        self.acks.len() == 1
    }

    /// Hands the burst's acknowledgements on.
    pub(super) fn send_acks(&mut self) {
        if !self.acks.is_empty() {
            // Nobody is told: what was acknowledged and is not in the log by a crash comes again.
            _ = self.consumer.ack(&self.acks);
            self.acks.clear();
        }
    }

    /// Gives messages back.
    pub(super) fn requeue(&self, ids: &[DeliveryId]) {
        self.consumer.requeue(ids);
    }

    /// Lets messages go that were wanted without acknowledgement.
    pub(super) fn auto_ack(&self, ids: &[DeliveryId]) {
        _ = self.consumer.ack(ids);
    }

    /// Lets messages die that the client rejected. The position to wait for, for those who answer.
    pub(super) fn reject(&self, ids: &[DeliveryId]) -> Completion {
        self.consumer.reject(ids).into()
    }

    /// Ends it; what it holds stays acknowledgeable.
    pub(super) fn stop(&mut self) {
        self.send_acks();
        self.consumer.stop();
        self.state = State::Cancelled;
    }

    /// The core's side, for acknowledgements within an consumer.
    pub(super) fn core(&self) -> &Consumer {
        &self.consumer
    }
}
