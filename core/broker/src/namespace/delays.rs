//! Delayed messages of a namespace: the hidden queues that hold them, their number, a list of them, and withdrawing one.
//!
//! A message is in one of several queues, by its delay: what waits for a year does not keep the log from reclaiming what
//! waited for a minute. A queue is made for its first message. Clients cannot reach these queues by their names.

use std::sync::Arc;

use inver_storage::batch::Record;
use inver_storage::{ReadError, SubmitError};

use super::{Namespace, QueueError};
use crate::completion::Completion;
use crate::message::{DelayedTarget, DelayedTo, HeaderView, expires_ms};
use crate::peek;
use crate::queue::Queue;
use crate::spec::{DeadLetter, HOLDS_DELAYED, QueueLimits, QueueSpec};
use crate::subscription::Withdrawn;
use crate::value::Value;

/// The name of each queue, and the longest delay in it, milliseconds.
const CLASSES: [(&str, i64); 4] = [
    ("amq.delayed/minute", 60_000),
    ("amq.delayed/hour", 3_600_000),
    ("amq.delayed/day", 86_400_000),
    ("amq.delayed/longer", i64::MAX),
];

/// Identity of a delayed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedId {
    class: usize,
    offset: u64,
}

impl std::fmt::Display for DelayedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.class, self.offset)
    }
}

impl std::str::FromStr for DelayedId {
    type Err = ();

    fn from_str(text: &str) -> Result<DelayedId, ()> {
        let (class, offset) = text.split_once('-').ok_or(())?;
        let (class, offset) = (class.parse().map_err(drop)?, offset.parse().map_err(drop)?);
        if class < CLASSES.len() { Ok(DelayedId { class, offset }) } else { Err(()) }
    }
}

/// A message that waits until it is due.
#[derive(Clone, Debug)]
pub struct DelayedMessage {
    /// Its identity.
    pub id: DelayedId,
    /// When it is published, milliseconds since 1970.
    pub due_ms: i64,
    /// The exchange that it goes to; none for the hub by an address.
    pub exchange: Option<String>,
    /// The routing key, or the address in its slashed form.
    pub key: Vec<u8>,
    /// Further routing keys.
    pub more_keys: Vec<Vec<u8>>,
    /// The message as it is stored.
    pub record: Record,
}

/// Why a delayed message cannot be withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    /// There is none of that identity: it was published, or withdrawn before.
    #[error("there is no such delayed message")]
    Unknown,
    /// The delayed messages are being read from the disk.
    #[error("delayed messages are being read; try again")]
    Busy,
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// Whether a name is that of a queue for delayed messages.
pub(super) fn is_reserved(name: &str) -> bool {
    CLASSES.iter().any(|(reserved, _)| *reserved == name)
}

impl Namespace {
    /// The queue that holds messages of this delay.
    pub(crate) fn delayed_queue(&self, delay_ms: i64) -> Result<Arc<Queue>, QueueError> {
        let class = CLASSES.iter().position(|(_, max)| delay_ms <= *max).unwrap_or(CLASSES.len() - 1);
        if let Some(present) = self.queue_of_delayed(class) {
            return Ok(present);
        }
        let _topology = self.topology();
        if let Some(present) = self.queue_of_delayed(class) {
            return Ok(present);
        }
        let limits = QueueLimits {
            // What is due is taken out as what is dead-lettered is.
            dead_letter: Some(DeadLetter { exchange: String::new(), routing_key: None }),
            ..QueueLimits::default()
        };
        let arguments = [(HOLDS_DELAYED.to_owned(), Value::Bool(true))].into();
        let spec = QueueSpec { durable: true, hidden: true, limits, arguments, ..QueueSpec::default() };
        let (queue, _) = self.make_durable(CLASSES[class].0, spec)?;
        self.enter_queue(&queue);
        Ok(queue)
    }

    fn queue_of_delayed(&self, class: usize) -> Option<Arc<Queue>> {
        let queue = self.0.queues.get(CLASSES.get(class)?.0)?;
        queue.spec().holds_delayed().then(|| queue.clone())
    }

    /// How many queues hold delayed messages.
    pub(super) fn queues_of_delayed(&self) -> usize {
        (0..CLASSES.len()).filter(|class| self.queue_of_delayed(*class).is_some()).count()
    }

    /// Messages that wait until they are due.
    #[must_use]
    pub fn delayed_count(&self) -> u64 {
        let queues = (0..CLASSES.len()).filter_map(|class| self.queue_of_delayed(class));
        queues.map(|queue| queue.counts().ready).sum()
    }

    /// Whether there are as many delayed messages as there may be.
    pub(crate) fn has_all_delayed(&self) -> bool {
        self.delayed_count() >= self.limits().delayed_messages_max as u64
    }

    /// Delayed messages, by the class of their delay and in the order in which they were published, from behind `after`. The
    /// second result is where to go on, if there may be more. Can read from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn delayed(
        &self,
        after: Option<DelayedId>,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(Vec<DelayedMessage>, Option<DelayedId>), ReadError> {
        let from = after.map_or((0, 0), |id| (id.class, id.offset.saturating_add(1)));
        let mut found: Vec<DelayedMessage> = Vec::new();
        let mut bytes = 0;
        for class in from.0..CLASSES.len() {
            let Some(queue) = self.queue_of_delayed(class) else { continue };
            if found.len() >= messages_max || bytes >= bytes_max {
                let next = found.last().map(|message| message.id);
                return Ok((found, next));
            }
            let offset = if class == from.0 { from.1 } else { 0 };
            let peeked = queue.subscription().peek(
                offset,
                messages_max - found.len(),
                bytes_max.saturating_sub(bytes),
            )?;
            bytes += peeked.messages.iter().map(|message| peek::size(&message.record)).sum::<usize>();
            found.extend(peeked.messages.into_iter().filter_map(|message| {
                DelayedMessage::of(DelayedId { class, offset: message.offset }, message.record)
            }));
            if let Some(next) = peeked.next {
                // What follows is behind an id.
                return Ok((found, Some(DelayedId { class, offset: next.saturating_sub(1) })));
            }
        }
        Ok((found, None))
    }

    /// A delayed message. Can read from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn delayed_message(&self, id: DelayedId) -> Result<Option<DelayedMessage>, ReadError> {
        let Some(queue) = self.queue_of_delayed(id.class) else { return Ok(None) };
        let peeked = queue.subscription().peek(id.offset, 1, usize::MAX)?;
        let message = peeked.messages.into_iter().find(|message| message.offset == id.offset);
        Ok(message.and_then(|message| DelayedMessage::of(id, message.record)))
    }

    /// Withdraws a delayed message: it is never published.
    ///
    /// # Errors
    /// See [`WithdrawError`].
    pub fn withdraw_delayed(&self, message: &DelayedMessage) -> Result<Completion, WithdrawError> {
        let DelayedMessage { id, due_ms, .. } = message;
        let queue = self.queue_of_delayed(id.class).ok_or(WithdrawError::Unknown)?;
        match queue.subscription().withdraw(*due_ms, id.offset)? {
            Withdrawn::Yes(completion) => Ok(completion),
            Withdrawn::No => Err(WithdrawError::Unknown),
            Withdrawn::Busy => Err(WithdrawError::Busy),
        }
    }
}

impl DelayedMessage {
    fn of(id: DelayedId, record: Record) -> Option<DelayedMessage> {
        let due_ms = expires_ms(&record)?;
        let view = HeaderView::of(&record);
        let (exchange, key, more_keys) = match DelayedTo::of(&view)?.target {
            DelayedTarget::Exchange { name, routing_key, more_keys } => {
                let more_keys = more_keys.into_iter().map(<[u8]>::to_vec).collect();
                (Some(name.to_owned()), routing_key.to_vec(), more_keys)
            }
            DelayedTarget::Hub { address, .. } => (None, address.to_vec(), Vec::new()),
        };
        Some(DelayedMessage { id, due_ms, exchange, key, more_keys, record })
    }
}
