//! The two receivers of a session that a connection holds: each is made for the first message of its kind, but for an
//! inbox over a stream, which is made for the first guaranteed subscription; both end with the connection.
//!
//! The publisher that finds a route to the session makes them, so that no message is missed, and tells the connection, which takes
//! the consumers when it pulls.

use std::sync::Arc;

use inver_storage::SubmitError;
use inver_storage::batch::Record;

use super::core::SessionCore;
use super::group::Group;
use super::held::{Made, Queue, Queues};
use super::terms::SessionTerms;
use super::{Session, ids};
use crate::address::Filter;
use crate::completion::Completion;
use crate::mailbox::Mailbox;
use crate::retained::ScanFrom;
use crate::spec::{Delivery, DeliveryId, InboxBounds, Mode};
use crate::subscription::{Consumer, ConsumerSpec, LiveBatch, MemoryBounds, Pull, Subscription, WhenFull};

/// Memory of a non-durable session's inbox, whatever the configured bound.
const INBOX_MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl SessionCore {
    /// A connection holds the session from now on.
    pub(super) fn open_queues(&self) {
        self.queues.lock().is_open = true;
    }

    /// The receiver of guaranteed or best-effort messages, which is made if there is none; none while no connection holds
    /// the session.
    pub(super) fn receiver<'a>(
        &self,
        queues: &'a mut Queues,
        guaranteed: bool,
    ) -> Option<&'a Arc<Subscription>> {
        if queues.is_open && queues.queue(guaranteed).is_none() {
            let (mailbox, terms) = self.held()?;
            let made = queues.made.get_or_insert_default();
            match guaranteed {
                true => made.inbox = Some(self.new_inbox(&mailbox, &terms)),
                false => made.live = Some(self.new_live(&mailbox, &terms)),
            }
            // It is woken after an empty pull only.
            mailbox.post(if guaranteed { terms.inbox_token } else { terms.live_token });
        }
        queues.queue(guaranteed).map(|queue| &queue.subscription)
    }

    fn new_live(&self, mailbox: &Arc<Mailbox>, terms: &SessionTerms) -> Queue {
        let bounds = MemoryBounds {
            messages_max: terms.live_messages_max,
            bytes_max: terms.live_bytes_max,
            when_full: WhenFull::DropNewest,
        };
        let context = self.namespace().context();
        let live = Subscription::in_memory(context, self.client_id(), Mode::Exclusive, bounds);
        let mut consumer = ConsumerSpec::new(mailbox.clone(), terms.live_token);
        consumer.auto_ack = true;
        Queue::new(live, consumer)
    }

    fn new_inbox(&self, mailbox: &Arc<Mailbox>, terms: &SessionTerms) -> Queue {
        let inbox = self.inbox_of_stream().unwrap_or_else(|| {
            let InboxBounds { messages_max, bytes_max, .. } =
                self.registry().map(|registry| registry.inbox).unwrap_or_default();
            let bounds = MemoryBounds {
                messages_max,
                bytes_max: bytes_max.min(INBOX_MEMORY_BYTES_MAX),
                when_full: WhenFull::DropNewest,
            };
            Subscription::in_memory(self.namespace().context(), self.client_id(), Mode::Exclusive, bounds)
        });
        Queue::new(inbox, ConsumerSpec::new(mailbox.clone(), terms.inbox_token))
    }

    /// Acknowledges messages that the client may not receive. Those that a crash makes wait again are decided again.
    fn skip(&self, consumer: &Consumer, ids: &[DeliveryId]) {
        if !ids.is_empty()
            && let Err(error) = consumer.ack(ids)
        {
            self.log_rejected(&error);
        }
    }

    /// Ends both receivers; none is made from now on.
    pub(super) fn end_queues(&self) {
        let made = {
            let mut queues = self.queues.lock();
            queues.is_open = false;
            queues.made.take()
        };
        let Some(Made { inbox, live }) = made.map(|made| *made) else { return };
        if let Some(inbox) = &inbox {
            self.namespace().context().reclaim.remove(inbox.subscription.id());
        }
        inbox.into_iter().chain(live).for_each(|Queue { subscription, consumer }| {
            drop(consumer);
            subscription.close();
        });
    }
}

impl Session {
    /// Makes the inbox over the session's stream, from which messages are to be read from now on. One in memory is made
    /// by the first message.
    pub(super) fn open_inbox(&self) {
        if self.core.is_durable() {
            let mut queues = self.core.queues.lock();
            let _made = self.core.receiver(&mut queues, true);
        }
    }

    fn take_consumer(&self, guaranteed: bool) -> Option<Box<Consumer>> {
        self.core.queues.lock().take_consumer(guaranteed)
    }

    /// Pulls best-effort messages that the client may receive, whole batches: the bytes are shared with other sessions.
    pub fn pull_live(&mut self, bytes_max: usize, into: &mut Vec<LiveBatch>) -> Pull {
        if self.live.is_none() {
            self.live = self.take_consumer(false);
        }
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
        if self.inbox.is_none() {
            self.inbox = self.take_consumer(true);
        }
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
        self.core.queues.lock().live().map_or(0, |live| live.dropped())
    }
}

#[cfg(test)]
mod tests {
    use super::super::core::{Holder, Presence};
    use super::super::open::next_id;
    use super::super::registry::Sessions;
    use super::*;
    use crate::access::AccessControl;
    use crate::connections::ConnectionRegistry;
    use crate::exchange::Inbox;
    use crate::receivers::ReceiverSet;
    use crate::spec::{BrokerConfig, Expiry};
    use crate::testing;

    const INBOX: u64 = 1;
    const LIVE: u64 = 2;

    fn held() -> (Sessions, Arc<SessionCore>, Arc<Mailbox>) {
        let ns = testing::namespace(BrokerConfig::default());
        let (registry, audit) = (ConnectionRegistry::default(), testing::audit(ns.clock()));
        let (limits, delegation) = (Default::default(), Default::default());
        let access = AccessControl::open(ns.log().clone(), limits, delegation, registry, audit).unwrap();
        let sessions = Sessions::new(ns, access, InboxBounds::default());
        let core = SessionCore::new(next_id(), "c".into(), &sessions.0, None, Expiry::AtDetach);
        let mailbox = Mailbox::new();
        let terms = SessionTerms {
            inbox_token: INBOX,
            live_token: LIVE,
            taken_over_token: 3,
            live_messages_max: 10,
            live_bytes_max: 1000,
        };
        let holder = Holder { mailbox: mailbox.clone(), terms: Arc::new(terms), released: None };
        core.state.lock().presence = Presence::Held(holder);
        core.open_queues();
        (sessions, core, mailbox)
    }

    fn receivers(core: &SessionCore, guaranteed: bool) -> usize {
        let mut set = ReceiverSet::default();
        core.receive(guaranteed, &mut set);
        set.live.len()
    }

    fn tokens(mailbox: &Mailbox) -> Vec<u64> {
        let mut tokens = Vec::new();
        mailbox.drain(&mut tokens);
        tokens
    }

    #[test]
    fn each_receiver_is_made_for_the_first_message_of_its_kind() {
        let (_sessions, core, mailbox) = held();
        assert!(core.queues.lock().made.is_none(), "none before a message");
        for (guaranteed, token) in [(false, LIVE), (true, INBOX)] {
            assert!(core.queues.lock().queue(guaranteed).is_none());
            assert_eq!((receivers(&core, guaranteed), tokens(&mailbox)), (1, vec![token]));
            assert_eq!((receivers(&core, guaranteed), tokens(&mailbox)), (1, vec![]), "once");
            assert!(core.queues.lock().take_consumer(guaranteed).is_some());
            assert!(core.queues.lock().take_consumer(guaranteed).is_none(), "the connection has it");
        }
    }

    #[test]
    fn none_is_made_once_the_connection_ends() {
        let (_sessions, core, mailbox) = held();
        assert_eq!(receivers(&core, false), 1);
        core.end_queues();
        assert_eq!((receivers(&core, false), receivers(&core, true)), (0, 0));
        assert_eq!(tokens(&mailbox), [LIVE]);
        assert!(core.queues.lock().is_routed, "what was found leads to a queue that is gone");
    }
}
