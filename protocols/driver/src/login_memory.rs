//! Memory that clients hold before they have logged in, over all connections of all protocols of the process: the beginnings
//! of their messages, and what waits for the check of their credentials.
//!
//! Counted in whole pages, so that a login of ordinary size is not counted at all: it is let in however many others hold
//! memory. A connection that would hold more than is left is closed.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is counted as one.
const PAGE_BYTES: usize = 4096;
/// The limit where none was set.
const DEFAULT_BYTES_MAX: usize = 128 << 20;

static OF_PROCESS: LoginMemory = LoginMemory::new(DEFAULT_BYTES_MAX);

/// Sets how much memory clients of this process may hold together before they have logged in.
pub fn limit_login_memory(bytes_max: usize) {
    OF_PROCESS.pages_max.store(bytes_max / PAGE_BYTES, Ordering::Relaxed);
}

/// Changes what a connection holds from `before` pages to so many bytes; returns its pages.
///
/// # Errors
/// There is no such memory left. The connection keeps what it had.
pub(crate) fn hold(before: u16, bytes: usize) -> io::Result<u16> {
    OF_PROCESS.hold(before, bytes)
}

/// A connection holds nothing any more.
pub(crate) fn release(pages: u16) {
    OF_PROCESS.pages.fetch_sub(usize::from(pages), Ordering::Relaxed);
}

struct LoginMemory {
    pages: AtomicUsize,
    pages_max: AtomicUsize,
}

impl LoginMemory {
    const fn new(bytes_max: usize) -> LoginMemory {
        LoginMemory { pages: AtomicUsize::new(0), pages_max: AtomicUsize::new(bytes_max / PAGE_BYTES) }
    }

    fn hold(&self, before: u16, bytes: usize) -> io::Result<u16> {
        let wanted = u16::try_from(bytes / PAGE_BYTES).unwrap_or(u16::MAX);
        if wanted <= before {
            self.pages.fetch_sub(usize::from(before - wanted), Ordering::Relaxed);
            return Ok(wanted);
        }
        let more = usize::from(wanted - before);
        let max = self.pages_max.load(Ordering::Relaxed);
        let fits = |held: usize| Some(held + more).filter(|all| *all <= max);
        match self.pages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(wanted),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "clients that have not logged in hold too much memory (limits.unauthenticated_bytes_max)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_hold_is_bounded_and_small_logins_do_not_count() {
        let memory = LoginMemory::new(10 * PAGE_BYTES);
        let held = || memory.pages.load(Ordering::Relaxed);
        assert_eq!(memory.hold(0, PAGE_BYTES - 1).unwrap(), 0);
        let one = memory.hold(0, 7 * PAGE_BYTES).unwrap();
        assert_eq!((one, held()), (7, 7));
        assert!(memory.hold(0, 4 * PAGE_BYTES).is_err());
        assert_eq!(memory.hold(one, 3 * PAGE_BYTES + 1).unwrap(), 3);
        assert_eq!(memory.hold(0, 7 * PAGE_BYTES).unwrap(), 7);
        assert!(memory.hold(3, 4 * PAGE_BYTES).is_err());
        assert_eq!(held(), 10);
    }
}
