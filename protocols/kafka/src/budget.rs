//! Memory budgets shared by all connections: memory is taken from a budget before it is filled, and returned on drop.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in one unit of a budget.
const UNIT_BYTES: usize = 1024;

/// A limited number of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// Bytes taken from a budget. Dropping it returns them.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<OwnedSemaphorePermit>);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Budget {
        let units_max = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Budget {
            units: Arc::new(Semaphore::new((units_max as usize).min(Semaphore::MAX_PERMITS))),
            units_max,
        }
    }

    fn units(&self, bytes: usize) -> u32 {
        // A request larger than the whole budget takes all of it.
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units_max)
    }

    /// Bytes that are taken.
    pub(crate) fn used_bytes(&self) -> u64 {
        let free = self.units.available_permits();
        ((self.units_max as usize).saturating_sub(free) * UNIT_BYTES) as u64
    }

    /// Takes bytes if they are available.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Share> {
        let permit = self.units.clone().try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Share(Arc::new(permit)))
    }

    /// Takes bytes as soon as they are available. Waiters are served in order.
    pub(crate) fn take(&self, bytes: usize) -> impl Future<Output = Option<Share>> + Send + 'static {
        let acquire = self.units.clone().acquire_many_owned(self.units(bytes));
        async move { acquire.await.ok().map(|permit| Share(Arc::new(permit))) }
    }
}

impl Share {
    /// Keeps the units needed for `bytes` and returns the rest.
    pub(crate) fn shrunk(self, bytes: usize) -> Share {
        match Arc::try_unwrap(self.0) {
            Ok(mut permit) => {
                let units = bytes.div_ceil(UNIT_BYTES).min(permit.num_permits());
                Share(permit.split(units).map(Arc::new).unwrap_or_else(|| Arc::new(permit)))
            }
            // Shared shares are not split.
            Err(shared) => Share(shared),
        }
    }
}

/// Bytes that hold a share until they are dropped.
pub(crate) fn charged(bytes: Bytes, share: &Share) -> Bytes {
    struct Charged {
        bytes: Bytes,
        _share: Share,
    }
    impl AsRef<[u8]> for Charged {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Charged { bytes, _share: share.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_shares_can_be_taken_again() {
        let budget = Budget::new(10_000);
        let share = budget.try_take(9000).unwrap().shrunk(6000);
        assert!(budget.try_take(3000).is_some());
        assert!(budget.try_take(6000).is_none());
        let bytes = charged(Bytes::from_static(b"abc"), &share);
        drop(share);
        assert!(budget.try_take(6000).is_none());
        let slice = bytes.slice(1..);
        drop(bytes);
        assert_eq!(slice, "bc");
        assert!(budget.try_take(6000).is_none());
        drop(slice);
        assert!(budget.try_take(1 << 40).is_some());
    }
}
