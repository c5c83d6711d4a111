//! The quotas of one connection: what it has used, and for how long it must wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inver_access::QuotaKind;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::{QuotaScope, Quotas};

/// The least time for which a client that uses up its quota gets a portion of it: a shorter one would wake it more often.
const QUANTUM: Duration = Duration::from_millis(20);

/// The quotas that concern a connection at present.
#[derive(Debug, Default)]
pub struct AppliedQuotas {
    /// By kind, in the order of [`QuotaKind::OF_CONNECTIONS`]: the client's and the namespace's.
    buckets: [[Option<Arc<Bucket>>; 2]; QuotaKind::OF_CONNECTIONS.len()],
}

impl AppliedQuotas {
    pub(super) fn new(buckets: [[Option<Arc<Bucket>>; 2]; QuotaKind::OF_CONNECTIONS.len()]) -> AppliedQuotas {
        AppliedQuotas { buckets }
    }

    fn of(&self, kind: QuotaKind) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets.get(kind as usize).into_iter().flatten().flatten()
    }

    /// Whether there is a limit of this kind.
    #[must_use]
    pub fn limits(&self, kind: QuotaKind) -> bool {
        self.of(kind).next().is_some()
    }

    /// Takes what was used.
    pub fn take(&self, kind: QuotaKind, units: f64, now: Instant) {
        if units > 0.0 {
            self.of(kind).for_each(|bucket| bucket.take(units, now));
        }
    }

    /// For how long nothing is to be taken from the client.
    #[must_use]
    pub fn delay_in(&self, now: Instant) -> Duration {
        self.delay(&[QuotaKind::BytesIn, QuotaKind::MessagesIn, QuotaKind::RequestTime], now)
    }

    /// For how long no message is to be sent to the client.
    #[must_use]
    pub fn delay_out(&self, now: Instant) -> Duration {
        self.delay(&[QuotaKind::BytesOut, QuotaKind::MessagesOut, QuotaKind::RequestTime], now)
    }

    fn delay(&self, kinds: &[QuotaKind], now: Instant) -> Duration {
        let delays = kinds.iter().flat_map(|kind| self.of(*kind)).map(|bucket| bucket.delay_after(0.0, now));
        delays.max().unwrap_or_default()
    }

    /// What may be used at once: what is there, but no less than what flows in in [`QUANTUM`]. None: there is no limit.
    #[must_use]
    pub fn portion(&self, kind: QuotaKind, now: Instant) -> Option<f64> {
        self.of(kind).map(|bucket| bucket.available(now).max(bucket.flow(QUANTUM))).reduce(f64::min)
    }

    /// What flows in in a second; none: there is no limit.
    #[must_use]
    pub fn per_second(&self, kind: QuotaKind) -> Option<f64> {
        self.of(kind).map(|bucket| bucket.flow(Duration::from_secs(1))).reduce(f64::min)
    }

    /// For how long the client would be held back if it used so much.
    #[must_use]
    pub fn delay_after(&self, kind: QuotaKind, units: f64, now: Instant) -> Duration {
        self.of(kind).map(|bucket| bucket.delay_after(units, now)).max().unwrap_or_default()
    }
}

/// The quotas of a connection, looked up again when any quota has changed.
pub(crate) struct ConnectionQuotas {
    quotas: Quotas,
    /// The version of quotas at which none concerns the connection; 0: none.
    free_at: AtomicU64,
    current: Mutex<Option<Box<Current>>>,
}

struct Current {
    version: u64,
    applied: Arc<AppliedQuotas>,
}

impl ConnectionQuotas {
    pub(crate) fn new(quotas: Quotas) -> ConnectionQuotas {
        ConnectionQuotas { quotas, free_at: AtomicU64::new(0), current: Mutex::new(None) }
    }

    /// The quotas that concern a connection of this scope; none: it is free.
    pub(crate) fn applied<'a>(&self, scope: impl FnOnce() -> QuotaScope<'a>) -> Option<Arc<AppliedQuotas>> {
        let version = self.quotas.version();
        if self.free_at.load(Ordering::Acquire) == version {
            return None;
        }
        let mut current = self.current.lock();
        if let Some(current) = current.as_ref().filter(|current| current.version == version) {
            return Some(current.applied.clone());
        }
        match self.quotas.resolve(&scope()) {
            Some(applied) => {
                let applied = Arc::new(applied);
                *current = Some(Box::new(Current { version, applied: applied.clone() }));
                Some(applied)
            }
            None => {
                *current = None;
                self.free_at.store(version, Ordering::Release);
                None
            }
        }
    }

    /// Has them looked up again: the connection's scope has changed.
    pub(crate) fn forget(&self) {
        self.free_at.store(0, Ordering::Release);
        *self.current.lock() = None;
    }
}
