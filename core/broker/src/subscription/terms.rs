//! How a consumer attaches, and what its pulls return.

use std::sync::Arc;

use crate::mailbox::Mailbox;

/// How a consumer attaches.
#[derive(Clone)]
pub struct ConsumerSpec {
    /// Woken when there may be something to pull.
    pub mailbox: Arc<Mailbox>,
    /// Posted to the mailbox to wake it.
    pub token: u64,
    /// No other consumer may be attached.
    pub exclusive: bool,
    /// Higher ones are served first.
    pub priority: i32,
    /// Messages are acknowledged as they are pulled.
    pub auto_ack: bool,
    /// It does not count as a consumer: it yields to all others, and is woken only at the end of a load or commit that
    /// its pull reported as pending.
    pub passive: bool,
}

impl ConsumerSpec {
    /// A consumer that acknowledges explicitly, of priority 0.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox>, token: u64) -> ConsumerSpec {
        ConsumerSpec { mailbox, token, exclusive: false, priority: 0, auto_ack: false, passive: false }
    }
}

/// Why a consumer cannot attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// It asked for exclusive use, or the subscription is exclusive, and another consumer is attached.
    #[error("another consumer is attached")]
    InUse,
    /// Another consumer has exclusive use.
    #[error("another consumer holds it exclusively")]
    HeldExclusively,
    /// The subscription was deleted.
    #[error("the subscription was deleted")]
    Closed,
}

/// The outcome of a pull, beside its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// More messages may be available: pull again when there is room. Otherwise a wake-up follows.
    pub more: bool,
    /// Messages are being loaded from the disk, or committed; the token is posted afterwards.
    pub pending: bool,
    /// The subscription was deleted.
    pub cancelled: bool,
    /// A [pull within rooms](super::Consumer::pull_within) left messages for which it had none: no wake-up follows.
    pub left: bool,
    /// Its next messages cannot be read: this consumer gets none any more. One that attaches later tries again.
    pub unreadable: bool,
}
