//! Mailbox: wakes a connection's task with tokens posted from any thread.
//!
//! Posts coalesce into one wake-up, and duplicate tokens are removed, so that the mailbox is bounded by the number of
//! distinct tokens of its connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use inver_storage::{Holder, Listener};

use crate::closing::CloseReason;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::sync::{AtomicU64, Mutex};

/// The mailbox of a connection.
#[derive(Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    /// The id of the connection in the registry; 0: it is not registered.
    connection: AtomicU64,
    /// The user or the network whose memory it holds; 0: nobody's yet.
    party: AtomicU64,
}

#[derive(Default)]
struct Inner {
    tokens: Vec<u64>,
    /// Number of tokens at which duplicates are removed next.
    dedup_at: usize,
    waker: Option<Waker>,
    /// Why the connection is to end; boxed, because few ever have one.
    closing: Option<Box<CloseReason>>,
}

/// The token of [`Mailbox::close`]. Protocols must not use it for anything else.
pub const CLOSE: u64 = u64::MAX - 1;

/// The token that tells a connection to end because it holds too much memory. Protocols must not use it either.
pub const EVICT: u64 = u64::MAX - 3;

/// Tokens posted before duplicates are removed.
const DEDUP_TOKENS_MIN: usize = 64;

impl Mailbox {
    /// An empty mailbox.
    #[must_use]
    pub fn new() -> Arc<Mailbox> {
        Arc::new(Mailbox::default())
    }

    /// Sets the id of its connection in the registry, and the party that its memory is held for from now on.
    pub(crate) fn set_connection(&self, id: u64, party: u64) {
        self.party.store(party, Ordering::Relaxed);
        self.connection.store(id, Ordering::Relaxed);
    }

    /// The id of its connection in the registry; none while it is not registered.
    #[must_use]
    pub fn connection(&self) -> Option<u64> {
        Some(self.connection.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    /// Adds a token and wakes the connection if it waits. Never blocks.
    pub fn post(&self, token: u64) {
        let waker = {
            let mut inner = self.inner.lock();
            if inner.tokens.last() == Some(&token) || is_seeded(Bug::LoseToken) && !inner.tokens.is_empty() {
                return;
            }
            inner.tokens.push(token);
            if inner.tokens.len() >= inner.dedup_at.max(DEDUP_TOKENS_MIN) {
                inner.tokens.sort_unstable();
                inner.tokens.dedup();
                inner.dedup_at = inner.tokens.len() * 2;
            }
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks the connection to end, and wakes it with the token [`CLOSE`]. The first reason holds.
    pub fn close(&self, reason: CloseReason) {
        self.inner.lock().closing.get_or_insert_with(|| Box::new(reason));
        self.post(CLOSE);
    }

    /// Why the connection was told to end.
    #[must_use]
    pub fn closing(&self) -> Option<CloseReason> {
        self.inner.lock().closing.as_deref().cloned()
    }

    /// Waits until there is a token. Cancel-safe; for one task at a time.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Ready when there is a token; otherwise the next one wakes the task.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if !inner.tokens.is_empty() {
            return Poll::Ready(());
        }
        match &mut inner.waker {
            Some(w) if w.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes all tokens, sorted, each once. `into` is cleared first.
    pub fn drain(&self, into: &mut Vec<u64>) {
        into.clear();
        std::mem::swap(&mut self.inner.lock().tokens, into);
        into.sort_unstable();
        into.dedup();
    }
}

impl Listener for Mailbox {
    fn advanced(&self, token: u64) {
        self.post(token);
    }
}

impl Holder for Mailbox {
    fn party(&self) -> u64 {
        self.party.load(Ordering::Relaxed)
    }

    fn evict(&self) {
        self.post(EVICT);
    }
}
