//! Reusable memory for file reads.
//!
//! A buffer returns to the pool when the last slice of its content is dropped. Reading a large stream would otherwise make
//! the system clear fresh pages for every byte read. The pool holds a bounded number of idle buffers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of a pooled buffer. Small enough that its content is still in the processor's cache when it is checked and sent.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
/// Reads shorter than this allocate exactly their size: a slice may be held for long, and keeps its whole buffer alive.
const POOLED_BYTES_MIN: usize = BUFFER_BYTES / 2;

/// The idle buffers of a log.
pub(crate) struct ReadBuffers(Arc<Idle>);

struct Idle {
    buffers_max: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// A buffer in use.
pub(crate) struct ReadBuffer {
    memory: Vec<u8>,
    length: usize,
    idle: Option<Arc<Idle>>,
}

impl ReadBuffers {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Idle { buffers_max: bytes_max / BUFFER_BYTES, buffers: Mutex::default() }))
    }

    /// Bytes of the buffers that nobody uses.
    pub(crate) fn idle_bytes(&self) -> u64 {
        (self.0.buffers.lock().len() * BUFFER_BYTES) as u64
    }

    /// A buffer of that length, with undefined content.
    pub(crate) fn take(&self, length: usize) -> ReadBuffer {
        if !(POOLED_BYTES_MIN..=BUFFER_BYTES).contains(&length) {
            return ReadBuffer { memory: vec![0; length], length, idle: None };
        }
        let pooled = self.0.buffers.lock().pop();
        let memory = pooled.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        ReadBuffer { memory, length, idle: Some(self.0.clone()) }
    }
}

impl ReadBuffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.length).unwrap_or_default()
    }

    /// The first `length` bytes, shared.
    pub(crate) fn freeze(mut self, length: usize) -> Bytes {
        self.length = self.length.min(length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        let Some(idle) = self.idle.take() else { return };
        let mut buffers = idle.buffers.lock();
        // Last in, first out: the most recent buffer may still be in the processor's cache.
        if buffers.len() < idle.buffers_max {
            buffers.push(std::mem::take(&mut self.memory));
        }
    }
}

impl fmt::Debug for ReadBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadBuffers({} of {} idle)", self.0.buffers.lock().len(), self.0.buffers_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(buffers: &ReadBuffers) -> usize {
        buffers.0.buffers.lock().len()
    }

    #[test]
    fn a_buffer_returns_to_the_pool_when_its_last_slice_is_dropped() {
        let buffers = ReadBuffers::new(2 * BUFFER_BYTES);
        let mut buffer = buffers.take(200_000);
        assert_eq!(buffer.as_mut().len(), 200_000);
        buffer.as_mut().fill(7);
        let read = buffer.freeze(150_000);
        assert_eq!(read.len(), 150_000);
        let slice = read.slice(10..20);
        drop(read);
        assert_eq!(idle(&buffers), 0);
        assert_eq!(slice, [7; 10].as_slice());
        drop(slice);
        assert_eq!(idle(&buffers), 1);
        let again = buffers.take(BUFFER_BYTES);
        assert_eq!((idle(&buffers), again.as_ref().len()), (0, BUFFER_BYTES));
    }

    #[test]
    fn idle_buffers_stay_within_the_limit() {
        let buffers = ReadBuffers::new(2 * BUFFER_BYTES);
        drop([(); 5].map(|()| buffers.take(BUFFER_BYTES)));
        assert_eq!(idle(&buffers), 2);
        let none = ReadBuffers::new(BUFFER_BYTES - 1);
        drop(none.take(BUFFER_BYTES));
        assert_eq!(idle(&none), 0);
    }

    #[test]
    fn much_smaller_and_larger_reads_allocate_their_own_memory() {
        let buffers = ReadBuffers::new(4 * BUFFER_BYTES);
        for length in [0, 1, POOLED_BYTES_MIN - 1, BUFFER_BYTES + 1] {
            let mut buffer = buffers.take(length);
            assert_eq!((buffer.as_mut().len(), buffer.memory.len()), (length, length));
            drop(buffer.freeze(length));
            assert_eq!(idle(&buffers), 0);
        }
    }
}
