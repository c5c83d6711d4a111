//! The account of the memory that clients make grow, and the gate that it shuts.
//!
//! A layer that keeps bytes for a client draws them from here, in steps: less than a step is free, and what changes within one
//! touches no shared counter. There are two kinds of holders:
//!
//! - An [`Account`] is a connection's. What waits for its client alone can be taken back: at the limit of such a share, or
//!   when all memory is nearly used up, the accounts that hold most for longest are ended.
//! - A [`Held`] is a part of the broker's state, such as a queue. At the limit of its share it is refused more if it has its
//!   part, which one of them always has.
//!
//! What many holders share is counted once, by [`Memory::charge`].
//!
//! Above [`SHUT_PERCENT`] of the limit publishers wait at the gate, so that what they hold goes away; above [`FULL_PERCENT`]
//! no client is to be admitted.

mod account;
mod charged;
mod claims;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use self::account::ENDED_FOR;
pub use self::account::{Account, Holder};
use self::claims::Claims;
use crate::gate::{Gate, Shortage};

/// Part of the limit above which memory is taken back from accounts, and how much may stay.
const TAKE_BACK_PERCENT: usize = 75;
const TAKEN_BACK_PERCENT: usize = 65;
/// Part of the limit in sum up to which holders that come late have their part of a share that is used up. It leaves room
/// for accounts before memory is taken back.
const LATE_PERCENT: usize = 50;
/// Part of the limit that accounts may always have together, whatever others hold.
const KEPT_PERCENT: usize = 10;
/// As for all memory, of the limit of a share.
const SHARE_TAKEN_BACK_PERCENT: usize = 85;
/// Part of the limit above which publishers are held back.
const SHUT_PERCENT: usize = 80;
/// Part of the limit below which they go on.
const OPEN_PERCENT: usize = 70;
/// Part of the limit above which no client is admitted.
const FULL_PERCENT: usize = 90;
/// What a holder draws and gives back at a time; up to one step is free. This part of the limit, so that many thousand
/// holders of a little less fit into a small one.
const STEP_PART: usize = 65_536;
const STEP_BYTES: (usize, usize) = (4 << 10, 64 << 10);
/// Shortest time between two log lines about accounts that were ended.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Beginnings of messages and requests whose rest has not come.
    Input,
    /// Messages of transactions that are not committed.
    Transactions,
    /// Bytes that clients do not take from their sockets.
    Output,
    /// Messages of queues in memory, those of sessions included.
    Queues,
    /// Members of consumer groups.
    Groups,
    /// Texts with committed offsets.
    Offsets,
}

impl Share {
    /// All of them.
    pub const ALL: [Share; 6] =
        [Self::Input, Self::Transactions, Self::Output, Self::Queues, Self::Groups, Self::Offsets];

    /// The most of the limit that one share takes, in percent: none takes what others need.
    const fn percent(self) -> usize {
        match self {
            Self::Input => 50,
            Self::Transactions | Self::Output | Self::Queues => 25,
            Self::Groups | Self::Offsets => 10,
        }
    }

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Transactions => "transactions",
            Self::Output => "output",
            Self::Queues => "queues",
            Self::Groups => "groups",
            Self::Offsets => "offsets",
        }
    }
}

/// There is no more memory for this holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory is used up (memory.limit)")]
pub struct NoMemory;

/// Time since a fixed instant, which never goes back.
type Time = Box<dyn Fn() -> Duration + Send + Sync>;

/// The account.
pub struct Memory {
    limit: usize,
    used: [AtomicUsize; Share::ALL.len()],
    total: AtomicUsize,
    /// Holders that hold anything, what others count included, by share.
    holders: [AtomicUsize; Share::ALL.len()],
    claims: Claims,
    /// Accounts that have their part are not to grow.
    is_tight: AtomicBool,
    step: usize,
    time: Time,
    ended: AtomicUsize,
    /// When a log line said so, in milliseconds of [`Memory::now_ms`], and how many accounts had been ended then.
    logged_ms: AtomicU64,
    logged: AtomicUsize,
    gate: Arc<Gate>,
}

impl Memory {
    /// An empty account of so many bytes. `time` is that since a fixed instant, which never goes back.
    #[must_use]
    pub fn new(
        limit: usize,
        gate: Arc<Gate>,
        time: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Arc<Memory> {
        Arc::new(Memory {
            limit,
            used: Default::default(),
            total: AtomicUsize::new(0),
            holders: Default::default(),
            claims: Claims::default(),
            is_tight: AtomicBool::new(false),
            step: (limit / STEP_PART).clamp(STEP_BYTES.0, STEP_BYTES.1),
            time: Box::new(time),
            ended: AtomicUsize::new(0),
            logged_ms: AtomicU64::new(0),
            logged: AtomicUsize::new(0),
            gate,
        })
    }

    /// Bytes that are held for this.
    #[must_use]
    pub fn used(&self, share: Share) -> usize {
        self.of(&self.used, share).load(Ordering::Relaxed)
    }

    /// Bytes that may be held for this.
    #[must_use]
    pub fn limit(&self, share: Share) -> usize {
        self.limit / 100 * share.percent()
    }

    /// Bytes that are held in all, and that may be.
    #[must_use]
    pub fn total(&self) -> (usize, usize) {
        (self.total.load(Ordering::Relaxed), self.limit)
    }

    /// Whether more than its limit is held for this.
    #[must_use]
    pub fn is_over(&self, share: Share) -> bool {
        self.used(share) > self.limit(share)
    }

    /// A holder that has drawn nothing.
    #[must_use]
    pub fn holder(self: &Arc<Self>, share: Share) -> Held {
        Held { memory: self.clone(), share, drawn: 0, is_counted: false }
    }

    /// An account that has drawn nothing.
    #[must_use]
    pub fn account(self: &Arc<Self>, holder: Arc<dyn Holder>) -> Account {
        Account::new(self.clone(), holder)
    }

    /// Bytes up to which a holder is not counted.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.step
    }

    /// Whether so much is held that input is to be kept in small pieces only.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Relaxed)
    }

    /// Whether so much is held that no client is to be admitted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (total, limit) = self.total();
        total > limit / 100 * FULL_PERCENT
    }

    /// Accounts that were ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    fn of<'a, T>(&self, all: &'a [T; Share::ALL.len()], share: Share) -> &'a T {
        // The array has a place for each.
        &all[share as usize]
    }

    /// What is drawn for so many bytes.
    fn steps(&self, bytes: usize) -> usize {
        if bytes <= self.step { 0 } else { bytes.next_multiple_of(self.step) }
    }

    /// Milliseconds since a fixed time.
    fn now_ms(&self) -> u64 {
        u64::try_from((self.time)().as_millis()).unwrap_or(u64::MAX)
    }

    fn draw(&self, share: Share, bytes: usize) {
        self.of(&self.used, share).fetch_add(bytes, Ordering::SeqCst);
        self.total.fetch_add(bytes, Ordering::SeqCst);
        self.settle();
    }

    fn give_back(&self, share: Share, bytes: usize) {
        self.of(&self.used, share).fetch_sub(bytes, Ordering::SeqCst);
        self.total.fetch_sub(bytes, Ordering::SeqCst);
        self.settle();
    }

    /// Has what follows from the counters follow them.
    ///
    /// A thread that changes something looks at the counters once more: otherwise one that read them before others gave back
    /// could say that memory is low after they have found that it is not, and it would stay so.
    fn settle(&self) {
        loop {
            let is_tight = self.total.load(Ordering::SeqCst) > self.limit / 100 * TAKE_BACK_PERCENT
                || ENDED_FOR
                    .iter()
                    .any(|share| self.of(&self.used, *share).load(Ordering::SeqCst) > self.limit(*share));
            if self.is_tight.load(Ordering::SeqCst) == is_tight
                || self.is_tight.swap(is_tight, Ordering::SeqCst) == is_tight
            {
                break;
            }
        }
        loop {
            let total = self.total.load(Ordering::SeqCst);
            let (is_low, is_free) =
                (total > self.limit / 100 * SHUT_PERCENT, total < self.limit / 100 * OPEN_PERCENT);
            if !(is_low || is_free) || !self.gate.set(Shortage::Memory, is_low) {
                break;
            }
            if is_low {
                tracing::warn!(total, limit = self.limit, "memory is low: publishers are held back");
            } else {
                tracing::info!(total, limit = self.limit, "memory is free again: publishers go on");
            }
        }
    }

    /// What must be taken back: of a share, or of all.
    fn to_take_back(&self) -> Option<(Option<Share>, usize)> {
        let staying =
            |share: Option<Share>, bytes: usize| bytes.saturating_sub(self.claims.leaving_bytes(share));
        if self.claims.counted() > 1 {
            for share in ENDED_FOR {
                let (used, limit) = (staying(Some(share), self.used(share)), self.limit(share));
                if used > limit {
                    return Some((Some(share), used - limit / 100 * SHARE_TAKEN_BACK_PERCENT));
                }
            }
        }
        let of_accounts = staying(None, ENDED_FOR.iter().map(|share| self.used(*share)).sum());
        let (total, part) = (staying(None, self.total().0), self.limit / 100);
        let more = total.saturating_sub(part * TAKEN_BACK_PERCENT);
        let bytes = more.min(of_accounts.saturating_sub(part * KEPT_PERCENT));
        (total > part * TAKE_BACK_PERCENT && bytes > 0).then_some((None, bytes))
    }

    /// Ends accounts if more is held than may be.
    fn take_back(&self) {
        if !self.is_tight() || self.to_take_back().is_none() {
            return;
        }
        let Some(all) = self.claims.try_lock() else { return };
        let mut evicted = Vec::new();
        while let Some((share, bytes)) = self.to_take_back() {
            let more = self.claims.evict(&all, share, bytes, self.now_ms());
            if more.is_empty() {
                break;
            }
            evicted.extend(more);
        }
        drop(all);
        // Without the lock: those that are told may run at once.
        evicted.iter().for_each(|claim| claim.holder.evict());
        let ended = self.ended.fetch_add(evicted.len(), Ordering::Relaxed) + evicted.len();
        self.log_ended(ended);
    }

    fn log_ended(&self, ended: usize) {
        let (now_ms, before_ms) = (self.now_ms(), self.logged_ms.load(Ordering::Relaxed));
        let is_first = before_ms == 0;
        if !is_first && now_ms.saturating_sub(before_ms) < LOG_PAUSE.as_millis() as u64 {
            return;
        }
        self.logged_ms.store(now_ms.max(1), Ordering::Relaxed);
        let connections = ended.saturating_sub(self.logged.swap(ended, Ordering::Relaxed));
        if connections > 0 {
            let (total, limit) = self.total();
            tracing::warn!(
                connections,
                total,
                limit,
                "memory is low: closed the connections that held most for longest"
            );
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.total()).finish()
    }
}

/// Memory that somebody holds. Gives back what it has drawn when it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<Memory>,
    share: Share,
    drawn: usize,
    /// It is one of the holders of the share.
    is_counted: bool,
}

impl Held {
    /// Holds so many bytes from now on. Fails if that is more than before, the share is used up, and this holder has its
    /// part of it or memory is low; then it holds what it held.
    pub fn set(&mut self, bytes: usize) -> Result<(), NoMemory> {
        if !self.has_room(bytes, bytes) {
            return Err(NoMemory);
        }
        self.force(bytes);
        Ok(())
    }

    /// Whether [`set`](Self::set) may be called for so many bytes by a holder of `in_all`, those included that others count.
    #[must_use]
    pub fn has_room(&self, bytes: usize, in_all: usize) -> bool {
        let (wanted, part) = (self.memory.steps(bytes), self.memory.steps(in_all));
        if part <= self.drawn {
            return true;
        }
        let more = wanted.saturating_sub(self.drawn);
        let (used, limit) = (self.memory.used(self.share) + more, self.memory.limit(self.share));
        let has_its_part = part >= limit / self.holders().max(1);
        let (total, most) = self.memory.total();
        let is_low = total + more > most / 100 * LATE_PERCENT;
        used <= limit || !(has_its_part || is_low)
    }

    /// Holds so many bytes from now on, whatever the limit.
    pub fn force(&mut self, bytes: usize) {
        self.force_of(bytes, bytes);
    }

    /// Holds so many bytes of `in_all` from now on, whatever the limit. Others count the rest.
    pub fn force_of(&mut self, bytes: usize, in_all: usize) {
        let is_counted = self.memory.steps(in_all) > 0;
        if is_counted != self.is_counted {
            self.is_counted = is_counted;
            let holders = self.memory.of(&self.memory.holders, self.share);
            match is_counted {
                true => holders.fetch_add(1, Ordering::Relaxed),
                false => holders.fetch_sub(1, Ordering::Relaxed),
            };
        }
        let wanted = self.memory.steps(bytes);
        if wanted > self.drawn {
            self.memory.draw(self.share, wanted - self.drawn);
            self.memory.take_back();
        } else if wanted < self.drawn {
            self.memory.give_back(self.share, self.drawn - wanted);
        }
        self.drawn = wanted;
    }

    /// Whether more than its limit is held for the share.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.memory.is_over(self.share)
    }

    fn holders(&self) -> usize {
        self.memory.of(&self.memory.holders, self.share).load(Ordering::Relaxed)
            + usize::from(!self.is_counted)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.force(0);
    }
}

#[cfg(test)]
mod tests;
