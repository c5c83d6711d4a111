//! State that the channels of a connection share: namespace, publisher, mailbox, and the work left for the end of a
//! turn.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use inver_broker::{Completion, ConnectionHandle, Delivery, Mailbox, Publisher};
use inver_storage::Lsn;

use super::assembly::Bodies;
use super::confirms;
use super::handshake::Capabilities;
use super::limits::Limits;
use crate::map::{Composer, Renderer, Told};
use crate::topology::Client;

/// The address of a consumer within the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConsumerRef {
    /// The channel number.
    pub(super) channel: u16,
    /// The consumer's slot in the channel.
    pub(super) slot: u32,
}

impl ConsumerRef {
    /// The token that its subscription posts to the mailbox.
    pub(super) fn token(self) -> u64 {
        u64::from(self.channel) << 32 | u64::from(self.slot)
    }

    /// The consumer of a token.
    pub(super) fn of(token: u64) -> ConsumerRef {
        ConsumerRef { channel: (token >> 32) as u16, slot: token as u32 }
    }
}

/// Why input is halted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// A reply waits for the log.
    Reply {
        /// The position that must be committed.
        lsn: Lsn,
        /// The reply: whole frames.
        frames: Vec<u8>,
    },
    /// A frame waits for this position, and is processed again once it is committed.
    Retry(Lsn),
    /// A frame waits for a cold read of the consumer with this token, and is processed again after it.
    ColdRead(u64),
}

/// State that the channels of a connection share.
pub(super) struct Shared {
    /// The limits of the connection.
    pub(super) limits: Arc<Limits>,
    /// The negotiated size of the largest frame.
    pub(super) frame_max: u32,
    /// The client's capabilities.
    pub(super) capabilities: Capabilities,
    /// The client in its virtual host.
    pub(super) client: Client,
    /// The version of permissions by which the consumers were checked.
    pub(super) consumers_checked: u64,
    /// Its place among the live connections, held until it ends.
    pub(super) connection: ConnectionHandle,
    /// The names of its exclusive queues.
    pub(super) exclusive: HashSet<String>,
    /// The publisher with the write batch of this turn.
    pub(super) publisher: Publisher,
    /// Composes records from publishes.
    pub(super) composer: Composer,
    /// Renders deliveries from records.
    pub(super) renderer: Renderer,
    pub(super) told: Told,
    /// Woken when a consumer may pull messages.
    pub(super) mailbox: Arc<Mailbox>,
    /// The time of this turn: milliseconds since 1970.
    pub(super) now_ms: i64,
    /// Whether the virtual host was traced when this turn began.
    pub(super) is_traced: bool,
    /// The completion of the last write batch.
    pub(super) last_write: Completion,
    /// Why input is halted, if it is.
    pub(super) halt: Option<Halt>,
    /// Publishes whose confirms wait for the log.
    pub(super) pending_confirms: confirms::PendingConfirms,
    /// The number of publishes not confirmed yet.
    pub(super) unconfirmed: usize,
    /// Whether the client has published a message.
    pub(super) has_published: bool,
    /// Whether `connection.blocked` was sent.
    pub(super) blocked: bool,
    /// A publish is the next of the input, and the gate is shut.
    pub(super) is_at_gate: bool,
    /// What the channels share to assemble bodies.
    pub(super) bodies: Bodies,
    /// Bytes of the publishes that transactions hold, over all channels.
    pub(super) transaction_bytes: usize,
    /// Channels with publishes to confirm in this write batch.
    pub(super) published: Vec<u16>,
    /// Consumers with acknowledgements in this turn.
    pub(super) acknowledged: Vec<ConsumerRef>,
    /// Consumers that may have messages to pull.
    pub(super) ready: VecDeque<ConsumerRef>,
    /// Messages that may still be delivered in this turn.
    pub(super) deliveries_left: usize,
    /// Bytes of the messages of the next pull.
    pub(super) delivery_bytes: usize,
    /// A buffer for use within one pull.
    pub(super) deliveries: Vec<Delivery>,
    /// The number of channels opened so far.
    pub(super) incarnations: u64,
}

/// Most of what a channel does is done by the client in its virtual host.
impl std::ops::Deref for Shared {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Shared {
    /// Writes a reply, at once or when the operation is complete.
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

    /// Whether all writes of this connection are committed; if not, halts input until they are.
    pub(super) fn own_writes_are_committed(&mut self) -> bool {
        if let Completion::At(lsn) = self.last_write
            && self.awaits(lsn)
        {
            return false;
        }
        self.last_write = Completion::Now;
        true
    }

    /// Whether all writes submitted to the log are committed; if not, halts input until they are.
    pub(super) fn all_writes_are_committed(&mut self) -> bool {
        let submitted = self.namespace.log().submitted();
        !self.awaits(submitted)
    }

    /// Whether a publish that comes next must wait, because the disk or the memory is low.
    pub(super) fn waits_at_gate(&mut self) -> bool {
        self.is_at_gate = self.namespace.log().gate().shortage().is_some();
        self.has_published |= self.is_at_gate;
        self.is_at_gate
    }

    fn awaits(&mut self, lsn: Lsn) -> bool {
        let ahead = lsn > self.namespace.log().committed();
        if ahead {
            self.halt = Some(Halt::Retry(lsn));
        }
        ahead
    }
}
