//! Positions that nobody needs any more.
//!
//! They go some time (`GroupLimits::offsets_retention`) after the last member of their group left, or after they were
//! committed, whichever is later; those of a group that never had members go by their commit alone. A group with
//! members keeps all of its positions, those of topics that it no longer subscribes to included.

use std::time::{Duration, Instant};

use super::{Coordinator, TABLE};
use crate::codec::text::Str;
use crate::session::group::State;

/// The longest time between two looks at all positions, as in Kafka.
const SWEEP_EVERY_MAX: Duration = Duration::from_secs(600);

/// Groups looked at before others on the thread have their turn.
const GROUPS_AT_ONCE: usize = 100;

impl Coordinator {
    /// When to look for what has expired; `None` if nothing ever does.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        let retention = self.limits.offsets_retention;
        let every = (retention / 4).clamp(Duration::from_millis(10), SWEEP_EVERY_MAX);
        (!retention.is_zero()).then(|| Instant::now() + every)
    }

    /// Forgets what has expired.
    pub(super) async fn expire_positions(&self, now_ms: i64) {
        let retention_ms = i64::try_from(self.limits.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let before_ms = now_ms.saturating_sub(retention_ms);
        for (place, group) in self.namespace.positions().groups().into_iter().enumerate() {
            if place % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            self.expire_positions_of(&Str::from(group), before_ms);
        }
    }

    fn expire_positions_of(&self, group: &Str, before_ms: i64) {
        let expire = || match self.namespace.positions().expire(self.broker.log(), group, before_ms) {
            Ok(Some(_)) => tracing::info!(%group, "positions of a group without members have expired"),
            Ok(None) => {}
            Err(error) => tracing::error!(%group, %error, "positions that have expired were not forgotten"),
        };
        let Some(handle) = self.find(group) else { return expire() };
        {
            // Held meanwhile, so that no member comes in between.
            let cell = handle.lock();
            let needed = cell.group.emptied_ms().is_some_and(|emptied_ms| emptied_ms >= before_ms);
            if cell.group.state() != State::Empty || needed {
                return;
            }
            expire();
            if self.has_positions(group) || !cell.group.is_vacant() {
                return;
            }
            if let Err(error) = self.broker.delete_state(TABLE, group.as_bytes()) {
                tracing::error!(%group, %error, "a group that has expired was not forgotten");
            }
        }
        self.forget_if_idle(&handle);
    }
}
