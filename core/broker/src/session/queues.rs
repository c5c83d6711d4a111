//! The two queues of a session that a connection holds: made when the first subscription needs them, gone with the
//! connection.

use std::sync::Arc;

use inver_storage::Lsn;

use super::{Session, SessionCore, ids};
use crate::router::{ReceiverSet, Route};
use crate::spec::{Delivery, Mode};
use crate::subscription::{ConsumerSpec, LiveBatch, MemoryBounds, Pull, Subscription, Trim, WhenFull};

/// A non-durable session's inbox.
const INBOX_MEMORY: MemoryBounds =
    MemoryBounds { messages_max: 1_000_000, bytes_max: 64 * 1024 * 1024, when_full: WhenFull::DropNewest };

/// There while a connection holds the session.
#[derive(Default)]
pub(super) struct Queues {
    /// Of a durable session what reads its stream, else in memory, from the first guaranteed subscription on.
    pub(super) inbox: Option<Arc<Subscription>>,
    /// From the first subscription on.
    pub(super) live: Option<Arc<Subscription>>,
    /// A route went by what was here, and whoever keeps it does not know better.
    pub(super) is_routed: bool,
}

impl SessionCore {
    /// Where a message for it goes.
    pub(crate) fn receive(&self, guaranteed: bool, set: &mut ReceiverSet) {
        if let (Some((stream, _)), true) = (&self.stream, guaranteed) {
            set.add_stream(stream);
            return;
        }
        let mut queues = self.queues.lock();
        queues.is_routed = true;
        let queue = if guaranteed { &queues.inbox } else { &queues.live };
        if let Some(queue) = queue {
            set.add_live(queue);
        }
    }

    /// Nobody pulls from them any more.
    pub(super) fn end_queues(&self) {
        let (inbox, live) = {
            let mut queues = self.queues.lock();
            (queues.inbox.take(), queues.live.take())
        };
        if let Some(inbox) = &inbox {
            self.namespace.context().reclaim.remove(inbox.id());
        }
        inbox.into_iter().chain(live).for_each(|queue| queue.close());
    }
}

impl Session {
    /// Makes the live queue, if it is not there.
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
        let live =
            Subscription::in_memory(core.namespace.context(), &core.client_id, Mode::Exclusive, bounds);
        let mut spec = ConsumerSpec::new(mailbox, terms.live_token);
        spec.auto_ack = true;
        self.live = Some(Box::new(live.attach_held(spec)));
        core.queues.lock().live = Some(live);
    }

    /// Makes the inbox, if it is not there.
    pub(super) fn make_inbox(&mut self) {
        if self.inbox.is_some() {
            return;
        }
        let core = &self.core;
        let Some((mailbox, terms)) = core.held() else { return };
        let (context, name, mode) = (core.namespace.context(), &core.client_id, Mode::Exclusive);
        let inbox = match &core.stream {
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

    /// Best-effort messages, by the batch: those of other sessions are the same bytes.
    pub fn pull_live(&mut self, bytes_max: usize, into: &mut Vec<LiveBatch>) -> Pull {
        self.live.as_mut().map_or_else(Pull::default, |live| live.pull_batches(bytes_max, into))
    }

    /// Guaranteed messages; their offsets are dense for the session's life, and unacknowledged ones come again
    /// from the first when the session is opened again.
    pub fn pull_inbox(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        self.inbox.as_mut().map_or_else(Pull::default, |inbox| inbox.pull(messages_max, bytes_max, into))
    }

    /// Acknowledges messages of the inbox.
    pub fn ack(&self, offsets: &[u64]) -> Option<Lsn> {
        self.inbox.as_ref()?.ack(&ids(offsets))
    }

    /// Best-effort messages dropped because the client was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.core.queues.lock().live.as_ref().map_or(0, |live| live.dropped())
    }

    pub(crate) fn route(&self, guaranteed: bool) -> Route {
        let mut set = ReceiverSet::default();
        self.core.receive(guaranteed, &mut set);
        Route { set: Arc::new(set), formatted: Default::default(), key: None, receivers: 1 }
    }
}
