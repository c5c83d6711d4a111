//! What a subscription that belongs to a queue asks of the layers above: limits, a sink for dropped messages, and
//! checks of the queue.

use std::sync::{Arc, Weak};

use inver_storage::SubmitError;

use super::Subscription;
use super::drops::Dropped;
use super::live_limits::LiveLimits;
use crate::completion::Completion;
use crate::message::Message;

/// Dead-letters the messages that queues drop.
pub(crate) trait DropSink: Send + Sync {
    /// Publishes dropped messages to the dead-letter exchange, if the queue has one, and acknowledges them in the
    /// queue, in one entry. Complete once they are in their new queues.
    fn dropped(&self, from: &Arc<Subscription>, dropped: &[Dropped]) -> Result<Completion, SubmitError>;

    /// Publishes a message that a full queue refused to the dead-letter exchange, if the queue has one. If a receiver has
    /// it then: complete once it is in its new queues. A full queue may refuse it too, and so on: `left` is how many more are published.
    fn refused(&self, by: &Subscription, message: &Message<'_>, left: &mut u8) -> Option<Completion>;
}

/// Schedules checks of a queue's limits. Called from any thread, the log's included: it takes no lock but the timers'.
pub(crate) trait Recheck: Send + Sync {
    /// Schedules a check at once, if messages can expire or exceed their delivery limit.
    fn recheck_if_expiring(self: Arc<Self>);

    /// Schedules a check at once.
    fn recheck(self: Arc<Self>);
}

/// The queue that a subscription belongs to.
pub(super) struct Owner {
    pub(super) limits: LiveLimits,
    pub(super) sink: Arc<dyn DropSink>,
    pub(super) queue: Weak<dyn Recheck>,
}
