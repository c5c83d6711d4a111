//! Positions that nobody needs any more, and the groups that are left without any.
//!
//! They go some time (`GroupLimits::offsets_retention`) after the last member of their group left, or after they were
//! committed, whichever is later; those of a group that never had members go by their commit alone. A group with
//! members keeps all of its positions, those of topics that it no longer subscribes to included.

use std::time::{Duration, Instant};

use inver_broker::Completion;

use super::{Coordinator, Handle, TABLE};
use crate::codec::text::Str;
use crate::session::group::State;

/// The longest time between two looks at all positions, as in Kafka.
const SWEEP_EVERY_MAX: Duration = Duration::from_secs(600);

/// Groups looked at before others on the thread have their turn.
const GROUPS_AT_ONCE: usize = 100;

impl Coordinator {
    /// When to look for what has expired.
    pub(super) fn next_sweep(&self) -> Instant {
        let retention = self.limits.offsets_retention;
        let every = match retention.is_zero() {
            true => SWEEP_EVERY_MAX,
            false => (retention / 4).clamp(Duration::from_millis(10), SWEEP_EVERY_MAX),
        };
        Instant::now() + every
    }

    /// Forgets the positions that have expired, and the groups that have neither members nor positions: these may
    /// have gone with their topics.
    pub(super) async fn sweep(&self, now_ms: i64) {
        let retention_ms = i64::try_from(self.limits.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        if retention_ms > 0 {
            let before_ms = now_ms.saturating_sub(retention_ms);
            for (place, group) in self.namespace.committed_offsets().groups().into_iter().enumerate() {
                breathe(place).await;
                self.expire_positions_of(&group, before_ms);
            }
        }
        let handles: Vec<Handle> = self.groups.read().values().cloned().collect();
        for (place, handle) in handles.iter().enumerate() {
            breathe(place).await;
            self.forget_if_bare(handle);
        }
    }

    fn expire_positions_of(&self, group: &str, before_ms: i64) {
        let expire = || match self.namespace.committed_offsets().expire(self.broker.log(), group, before_ms) {
            Ok(Completion::At(_)) => {
                tracing::info!(%group, "expired committed offsets of a group without members");
            }
            Ok(Completion::Now) => {}
            Err(error) => tracing::error!(%group, %error, "failed to expire committed offsets"),
        };
        let Some(handle) = self.find(&Str::from(group)) else { return expire() };
        // Held meanwhile, so that no member comes in between.
        let cell = handle.lock();
        let needed = cell.group.emptied_ms().is_some_and(|emptied_ms| emptied_ms >= before_ms);
        if cell.group.state() == State::Empty && !needed {
            expire();
        }
    }

    /// Forgets a group that had members once, and has neither members nor positions now.
    fn forget_if_bare(&self, handle: &Handle) {
        {
            let cell = handle.lock();
            let group = &cell.group;
            if group.emptied_ms().is_none() || !group.is_vacant() || self.has_positions(group.id()) {
                return;
            }
            if let Err(error) = self.broker.delete_state(TABLE, group.id().as_bytes()) {
                tracing::error!(group = %group.id(), %error, "a group that nobody needs was not forgotten");
            }
        }
        self.forget_if_idle(handle);
    }
}

/// Lets others on the thread have their turn now and then.
async fn breathe(place: usize) {
    if place % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1 {
        tokio::task::yield_now().await;
    }
}
