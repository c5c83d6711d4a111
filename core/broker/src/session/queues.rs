//! The two in-memory receivers of a session that a connection holds: created when the first subscription needs them,
//! ended with the connection.

use inver_storage::SubmitError;

use super::core::SessionCore;
use super::{Session, ids};
use crate::completion::Completion;
use crate::spec::{Delivery, Mode};
use crate::subscription::{ConsumerSpec, LiveBatch, MemoryBounds, Pull, Subscription, Trim, WhenFull};

/// The bounds of a non-durable session's inbox.
const INBOX_MEMORY: MemoryBounds =
    MemoryBounds { messages_max: 1_000_000, bytes_max: 64 * 1024 * 1024, when_full: WhenFull::DropNewest };

impl SessionCore {
    /// Ends both receivers.
    pub(super) fn end_queues(&self) {
        let (inbox, live) = {
            let mut queues = self.queues.lock();
            (queues.inbox.take(), queues.live.take())
        };
        if let Some(inbox) = &inbox {
            self.namespace().context().reclaim.remove(inbox.id());
        }
        inbox.into_iter().chain(live).for_each(|queue| queue.close());
    }
}

impl Session {
    /// Creates the live queue if it does not exist.
    pub(super) fn make_live(&mut self) {
        if self.live.is_some() {
            return;
        }
        let core = &self.core;
        let Some((mailbox, terms)) = core.held() else { return };
        let bounds = MemoryBounds {
            messages_max: terms.live_messages_max,
            bytes_max: terms.live_bytes_max,
            when_full: WhenFull::DropNewest,
        };
        let context = core.namespace().context();
        let live = Subscription::in_memory(context, core.client_id(), Mode::Exclusive, bounds);
        let mut spec = ConsumerSpec::new(mailbox, terms.live_token);
        spec.auto_ack = true;
        self.live = Some(Box::new(live.attach_held(spec)));
        core.queues.lock().live = Some(live);
    }

    /// Creates the inbox if it does not exist.
    pub(super) fn make_inbox(&mut self) {
        if self.inbox.is_some() {
            return;
        }
        let core = &self.core;
        let Some((mailbox, terms)) = core.held() else { return };
        let (context, name, mode) = (core.namespace().context(), core.client_id(), Mode::Exclusive);
        let inbox = match core.stream() {
            Some((stream, cursor)) => {
                let source = (stream.clone(), Some(cursor.clone()), cursor.position());
                Subscription::over_streams(context, name, mode, vec![source], Trim::Acknowledged)
            }
            None => Subscription::in_memory(context, name, mode, INBOX_MEMORY),
        };
        let spec = ConsumerSpec::new(mailbox, terms.inbox_token);
        self.inbox = Some(Box::new(inbox.attach_held(spec)));
        core.queues.lock().inbox = Some(inbox);
    }

    /// Pulls best-effort messages, whole batches: the bytes are shared with other sessions.
    pub fn pull_live(&mut self, bytes_max: usize, into: &mut Vec<LiveBatch>) -> Pull {
        self.live.as_mut().map_or_else(Pull::default, |live| live.pull_batches(bytes_max, into))
    }

    /// Pulls guaranteed messages. Their offsets are dense for the session's life; unacknowledged ones are delivered
    /// again from the first when the session is opened again.
    pub fn pull_inbox(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.inbox.as_mut().map_or_else(Pull::default, |inbox| inbox.pull(messages_max, bytes_max, into))
    }

    /// Acknowledges messages of the inbox.
    pub fn ack(&self, offsets: &[u64]) -> Result<Completion, SubmitError> {
        match &self.inbox {
            Some(inbox) => inbox.ack(&ids(offsets)),
            None => Ok(Completion::Now),
        }
    }

    /// Best-effort messages dropped because the client was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.core.queues.lock().live.as_ref().map_or(0, |live| live.dropped())
    }
}
