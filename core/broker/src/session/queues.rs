//! The two in-memory receivers of a session that a connection holds: created when the first subscription needs them,
//! ended with the connection.

use inver_storage::SubmitError;
use inver_storage::batch::Record;

use super::core::SessionCore;
use super::group::Group;
use super::{Session, ids};
use crate::address::Filter;
use crate::completion::Completion;
use crate::retained::ScanFrom;
use crate::spec::{Delivery, DeliveryId, InboxBounds, Mode};
use crate::subscription::{Consumer, ConsumerSpec, LiveBatch, MemoryBounds, Pull, Subscription, WhenFull};

/// Memory of a non-durable session's inbox, whatever the configured bound.
const INBOX_MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl SessionCore {
    /// Acknowledges messages that the client may not receive. Those that a crash makes wait again are decided again.
    fn skip(&self, consumer: &Consumer, ids: &[DeliveryId]) {
        if !ids.is_empty()
            && let Err(error) = consumer.ack(ids)
        {
            self.log_rejected(&error);
        }
    }

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
        let inbox = match core.inbox_of_stream() {
            Some(inbox) => inbox,
            None => {
                let InboxBounds { messages_max, bytes_max, .. } =
                    core.registry().map(|registry| registry.inbox).unwrap_or_default();
                let bounds = MemoryBounds {
                    messages_max,
                    bytes_max: bytes_max.min(INBOX_MEMORY_BYTES_MAX),
                    when_full: WhenFull::DropNewest,
                };
                Subscription::in_memory(context, name, mode, bounds)
            }
        };
        let spec = ConsumerSpec::new(mailbox, terms.inbox_token);
        self.inbox = Some(Box::new(inbox.attach_held(spec)));
        core.queues.lock().inbox = Some(inbox);
    }

    /// Pulls best-effort messages that the client may receive, whole batches: the bytes are shared with other sessions.
    pub fn pull_live(&mut self, bytes_max: usize, into: &mut Vec<LiveBatch>) -> Pull {
        let Some(live) = &mut self.live else { return Pull::default() };
        let before = into.len();
        let pull = live.pull_batches(bytes_max, into);
        let (core, gate) = (&self.core, &mut self.gate);
        if !gate.is_open()
            && (live.subscription().has_other_addresses()
                || !gate.covers_filters(|filters_max, holds| core.all_filters(filters_max, holds)))
        {
            self.gate.keep_batches(self.core.namespace(), into, before);
            if pull.more && into.len() == before {
                live.wake();
            }
        }
        pull
    }

    /// Pulls guaranteed messages that the client may receive; the others are acknowledged. Their offsets ascend for the
    /// session's life; unacknowledged ones are delivered again from the first when the session is opened again.
    pub fn pull_inbox(&mut self, messages_max: usize, bytes_max: usize, into: &mut Vec<Delivery>) -> Pull {
        let Some(inbox) = &mut self.inbox else { return Pull::default() };
        let before = into.len();
        let pull = inbox.pull(messages_max, bytes_max, into);
        if !self.gate.is_open() {
            let denied = self.gate.keep_deliveries(self.core.namespace(), into, before);
            self.core.skip(inbox, &denied);
            if pull.more && into.len() == before {
                inbox.wake();
            }
        }
        pull
    }

    /// Pulls messages of a shared subscription, named by its whole text, that the client may receive. None while it may
    /// not receive what the filter matches: then the other members get them. A message of one address that it may not
    /// receive is acknowledged.
    pub fn pull_shared(
        &mut self,
        text: &[u8],
        consumer: &mut Consumer,
        messages_max: usize,
        bytes_max: usize,
        into: &mut Vec<Delivery>,
    ) -> Pull {
        if self.gate.is_open() {
            return consumer.pull(messages_max, bytes_max, into);
        }
        let group = self.core.group_of(text);
        if !group.as_ref().is_some_and(|group| group.may_receive(self.gate.permissions())) {
            let pull = consumer.pull(0, 0, into);
            return Pull { more: false, ..pull };
        }
        let before = into.len();
        let pull = consumer.pull(messages_max, bytes_max, into);
        if matches!(group, Some(Group::Hub { .. })) {
            let denied = self.gate.keep_deliveries(self.core.namespace(), into, before);
            self.core.skip(consumer, &denied);
            if pull.more && into.len() == before {
                consumer.wake();
            }
        }
        pull
    }

    /// Retained values that the client may receive; see [`Retained::scan`](crate::Retained::scan).
    pub fn scan_retained(
        &mut self,
        filter: &Filter,
        from: Option<&ScanFrom>,
        max: usize,
        into: &mut Vec<Record>,
    ) -> Option<ScanFrom> {
        let namespace = self.core.namespace();
        let before = into.len();
        let next = namespace.retained().scan(filter, from, max, into);
        if !self.gate.is_open() {
            let mut at = 0;
            into.retain(|record| {
                at += 1;
                at <= before || self.gate.allows(namespace, record, None)
            });
        }
        next
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
