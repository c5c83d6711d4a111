//! What the channels of a connection share: the namespace, the publisher, the mailbox, and notes of what is left to do at
//! the end of a turn.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use inver_broker::{Completion, Delivery, Mailbox, Namespace, OwnerId, Publisher, Queue};
use inver_storage::Lsn;

use super::confirms;
use super::handshake::Capabilities;
use super::limits::Limits;
use crate::error::Refusal;
use crate::map::{Composer, Renderer};

/// A consumer of one of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConsumerRef {
    /// The channel.
    pub(super) channel: u16,
    /// The consumer's place in it.
    pub(super) slot: u32,
}

impl ConsumerRef {
    /// What its subscription posts to the mailbox.
    pub(super) fn token(self) -> u64 {
        u64::from(self.channel) << 32 | u64::from(self.slot)
    }

    /// The consumer that a token is for.
    pub(super) fn of(token: u64) -> ConsumerRef {
        ConsumerRef { channel: (token >> 32) as u16, slot: token as u32 }
    }
}

/// Why no more input is looked at for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// What the client asked for is not in the log yet; then this is sent.
    Reply {
        /// The position.
        lsn: Lsn,
        /// Whole frames.
        frames: Vec<u8>,
    },
    /// What the client asks for needs what it did before to be in the log; then the frame is looked at again.
    Retry(Lsn),
    /// Messages are being read from the disk; then the frame is looked at again.
    ColdRead(u64),
}

/// See the module's text.
pub(super) struct Shared {
    /// The connection's bounds.
    pub(super) limits: Arc<Limits>,
    /// The largest frame to send.
    pub(super) frame_max: u32,
    /// What the client can do.
    pub(super) capabilities: Capabilities,
    /// The user, for the check of `user-id`.
    pub(super) user: Option<String>,
    /// What it sees.
    pub(super) namespace: Namespace,
    /// Whose exclusive queues.
    pub(super) owner: OwnerId,
    /// Names of those.
    pub(super) exclusive: HashSet<String>,
    /// Where its publishes gather.
    pub(super) publisher: Publisher,
    /// Makes records of publishes.
    pub(super) composer: Composer,
    /// Makes deliveries of records.
    pub(super) renderer: Renderer,
    /// Woken when a consumer has something to pull.
    pub(super) mailbox: Arc<Mailbox>,
    /// The time of this turn.
    pub(super) now_ms: i64,
    /// Position of the last burst that went to the log.
    pub(super) last_write: Completion,
    /// Why input waits.
    pub(super) halt: Option<Halt>,
    /// Publishes that wait for the log.
    pub(super) pending_confirms: confirms::PendingConfirms,
    /// How many those are.
    pub(super) unconfirmed: usize,
    /// Something was published at all.
    pub(super) has_published: bool,
    /// The client was told to wait with its publishes.
    pub(super) blocked: bool,
    /// Channels that published in this burst with confirms on.
    pub(super) published: Vec<u16>,
    /// Consumers with acknowledgements of this burst.
    pub(super) acknowledged: Vec<ConsumerRef>,
    /// Consumers that may have something to pull.
    pub(super) ready: VecDeque<ConsumerRef>,
    /// For use within one pull.
    pub(super) deliveries: Vec<Delivery>,
    /// Tells channels of the same number apart.
    pub(super) incarnations: u64,
}

impl Shared {
    /// `/` and the like, for texts.
    pub(super) fn vhost(&self) -> &str {
        self.namespace.name()
    }

    /// A name as error texts show it: `queue 'q' in vhost '/'`.
    pub(super) fn in_vhost(&self, kind: &str, name: &str) -> String {
        format!("{kind} '{name}' in vhost '{}'", self.vhost())
    }

    /// Checks that a queue is not exclusive to another connection.
    pub(super) fn check_owner(&self, queue: &Queue) -> Result<(), Refusal> {
        match queue.spec().owner {
            Some(owner) if owner != self.owner => Err(self.locked(queue.name())),
            _ => Ok(()),
        }
    }

    /// The error for a queue that is exclusive to another connection.
    pub(super) fn locked(&self, name: &str) -> Refusal {
        Refusal::resource_locked(format_args!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration.",
            self.in_vhost("queue", name)
        ))
    }

    /// Sends a reply once `lsn` is in the log; at once if there is nothing to wait for.
    pub(super) fn reply(&mut self, done: Completion, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match done {
            Completion::At(lsn) if lsn > self.namespace.log().committed() => {
                let mut frames = Vec::new();
                write(&mut frames);
                self.halt = Some(Halt::Reply { lsn, frames });
            }
            _ => write(out),
        }
    }

    /// Whether everything that this connection published is visible; if not, input halts until it is.
    pub(super) fn own_writes_are_committed(&mut self) -> bool {
        if let Completion::At(lsn) = self.last_write
            && self.awaits(lsn)
        {
            return false;
        }
        self.last_write = Completion::Now;
        true
    }

    /// Whether everything that anybody gave to the log is visible; if not, input halts until what is there now is.
    pub(super) fn all_writes_are_committed(&mut self) -> bool {
        let submitted = self.namespace.log().submitted();
        !self.awaits(submitted)
    }

    fn awaits(&mut self, lsn: Lsn) -> bool {
        let ahead = lsn > self.namespace.log().committed();
        if ahead {
            self.halt = Some(Halt::Retry(lsn));
        }
        ahead
    }
}
