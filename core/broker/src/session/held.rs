//! What a connection holds of a session: its two receivers, and their consumers until the connection takes them.

use std::sync::Arc;

use crate::subscription::{Consumer, ConsumerSpec, Subscription};

/// The receivers of a session that a connection holds.
#[derive(Default)]
pub(super) struct Queues {
    /// Boxed: most sessions have none.
    pub(super) made: Option<Box<Made>>,
    /// A connection holds the session: receivers may be made.
    pub(super) is_open: bool,
    /// A route was found with the present receivers; caches of it are stale once these change.
    pub(super) is_routed: bool,
}

#[derive(Default)]
pub(super) struct Made {
    /// Reads the stream of a durable session, else in memory.
    pub(super) inbox: Option<Queue>,
    pub(super) live: Option<Queue>,
}

pub(super) struct Queue {
    pub(super) subscription: Arc<Subscription>,
    /// Until the connection takes it.
    pub(super) consumer: Option<Box<Consumer>>,
}

impl Queue {
    /// A receiver whose messages wait for the connection from now on. It is told of them by the consumer's token.
    pub(super) fn new(subscription: Arc<Subscription>, consumer: ConsumerSpec) -> Queue {
        let consumer = Some(Box::new(subscription.attach_held(consumer)));
        Queue { subscription, consumer }
    }
}

impl Queues {
    pub(super) fn queue(&self, guaranteed: bool) -> Option<&Queue> {
        let made = self.made.as_deref()?;
        if guaranteed { made.inbox.as_ref() } else { made.live.as_ref() }
    }

    pub(super) fn inbox(&self) -> Option<&Arc<Subscription>> {
        self.queue(true).map(|inbox| &inbox.subscription)
    }

    pub(super) fn live(&self) -> Option<&Arc<Subscription>> {
        self.queue(false).map(|live| &live.subscription)
    }

    pub(super) fn take_consumer(&mut self, guaranteed: bool) -> Option<Box<Consumer>> {
        let made = self.made.as_deref_mut()?;
        let queue = if guaranteed { &mut made.inbox } else { &mut made.live };
        queue.as_mut()?.consumer.take()
    }
}
