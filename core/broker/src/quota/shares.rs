//! The buckets of all who share a limit.
//!
//! A bucket stays while a connection has it and until it is full again, so that a client does not get rid of a debt by
//! connecting again. Bound: the shares of live connections and of those that ended in the last seconds; what is left is
//! removed whenever the number has doubled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use inver_access::{QuotaKind, QuotaShare};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::{BURST, Bucket};

/// How much of a quota of mutations may be saved up, as in Kafka (`controller.quota.window.num` seconds).
const MUTATIONS_BURST: Duration = Duration::from_secs(11);

/// Number of buckets below which none is looked for to be removed.
const SWEEP_MIN: usize = 1024;

/// The buckets of all shares.
#[derive(Default)]
pub(super) struct Shares(Mutex<Buckets>);

#[derive(Default)]
struct Buckets {
    by_share: HashMap<(QuotaKind, QuotaShare), Arc<Bucket>>,
    sweep_at: usize,
}

impl Shares {
    /// The bucket of a share, with this rate from now on.
    pub(super) fn bucket(&self, kind: QuotaKind, share: QuotaShare, rate: f64, now: Instant) -> Arc<Bucket> {
        let mut buckets = self.0.lock();
        let key = (kind, share);
        if let Some(bucket) = buckets.by_share.get(&key) {
            bucket.set_rate(rate, now);
            return bucket.clone();
        }
        if buckets.by_share.len() >= buckets.sweep_at.max(SWEEP_MIN) {
            buckets.by_share.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
            buckets.sweep_at = buckets.by_share.len() * 2;
        }
        let burst = if kind == QuotaKind::Mutations { MUTATIONS_BURST } else { BURST };
        let bucket = Arc::new(Bucket::new(rate, burst, now));
        buckets.by_share.insert(key, bucket.clone());
        bucket
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().by_share.len()
    }
}
