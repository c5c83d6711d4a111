//! Bytes that many hold, counted once.

use std::sync::Arc;

use bytes::Bytes;

use super::{Memory, Share};

/// Bytes, which count for as long as anybody has them.
struct Charged {
    bytes: Bytes,
    memory: Arc<Memory>,
    share: Share,
}

impl Memory {
    /// The same bytes, which count in a share until the last of their clones is dropped. A holder of one of many counts them
    /// no more.
    #[must_use]
    pub fn charge(self: &Arc<Self>, share: Share, bytes: &Bytes) -> Bytes {
        self.draw(share, bytes.len());
        self.take_back();
        Bytes::from_owner(Charged { bytes: bytes.clone(), memory: self.clone(), share })
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.memory.give_back(self.share, self.bytes.len());
    }
}
