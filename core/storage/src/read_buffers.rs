//! Memory that files are read into. It comes back when the last slice of what was read is let go, and the next read
//! takes it: who goes through a large stream would else have the system clear fresh pages for every byte read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of a buffer that is kept. Small enough that what was read is still close when it is checked and sent.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
/// Shorter reads get memory of just their size: a slice of one may be held for long, and holds all of it.
const KEPT_BYTES_MIN: usize = BUFFER_BYTES / 2;

/// The buffers of a log that nobody uses now.
pub(crate) struct ReadBuffers(Arc<Idle>);

struct Idle {
    buffers_max: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// One that is in use.
pub(crate) struct ReadBuffer {
    memory: Vec<u8>,
    length: usize,
    idle: Option<Arc<Idle>>,
}

impl ReadBuffers {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Idle { buffers_max: bytes_max / BUFFER_BYTES, buffers: Mutex::default() }))
    }

    /// A buffer of that length. What it holds is anything.
    pub(crate) fn take(&self, length: usize) -> ReadBuffer {
        if !(KEPT_BYTES_MIN..=BUFFER_BYTES).contains(&length) {
            return ReadBuffer { memory: vec![0; length], length, idle: None };
        }
        let kept = self.0.buffers.lock().pop();
        let memory = kept.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        ReadBuffer { memory, length, idle: Some(self.0.clone()) }
    }
}

impl ReadBuffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.length).unwrap_or_default()
    }

    /// What was read, of which `length` bytes count.
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
        // The last one used is the next to be used: it may be in the processor's cache still.
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
    fn a_buffer_comes_back_when_the_last_slice_is_let_go() {
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
    fn no_more_is_kept_than_may_be() {
        let buffers = ReadBuffers::new(2 * BUFFER_BYTES);
        drop([(); 5].map(|()| buffers.take(BUFFER_BYTES)));
        assert_eq!(idle(&buffers), 2);
        let none = ReadBuffers::new(BUFFER_BYTES - 1);
        drop(none.take(BUFFER_BYTES));
        assert_eq!(idle(&none), 0);
    }

    #[test]
    fn what_is_much_smaller_or_larger_has_memory_of_its_own() {
        let buffers = ReadBuffers::new(4 * BUFFER_BYTES);
        for length in [0, 1, KEPT_BYTES_MIN - 1, BUFFER_BYTES + 1] {
            let mut buffer = buffers.take(length);
            assert_eq!((buffer.as_mut().len(), buffer.memory.len()), (length, length));
            drop(buffer.freeze(length));
            assert_eq!(idle(&buffers), 0);
        }
    }
}
