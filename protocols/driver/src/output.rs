//! Bytes that wait to be written to a socket: what a protocol encoded, with shared bytes between that are not copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use crate::quota::Room;

/// Output of one connection.
///
/// A protocol appends to [`flat`](Output::flat), or has bytes that exist elsewhere written without a copy by
/// [`push_shared`](Output::push_shared). Nothing here is bounded: the machine stops to take input and to produce output at
/// its own bound of [`pending_bytes`](Output::pending_bytes).
#[derive(Debug, Default)]
pub struct Output {
    flat: Vec<u8>,
    /// Bytes of `flat` that were written.
    written: usize,
    shared: VecDeque<SharedSlice>,
    shared_bytes: usize,
    /// Since when the socket has taken nothing.
    pub(crate) stalled_since: Option<Instant>,
    /// How much may be delivered in this turn.
    pub(crate) room: Room,
}

/// Bytes to be written before a place in the flat ones.
#[derive(Debug)]
struct SharedSlice {
    before: usize,
    bytes: Bytes,
}

impl Output {
    /// The buffer to append to. It holds the flat bytes that wait to be written, which must stay.
    pub fn flat(&mut self) -> &mut Vec<u8> {
        if self.written > 0 {
            // The socket took a part only: the client is slower than the broker.
            self.flat.drain(..self.written);
            self.shared.iter_mut().for_each(|slice| slice.before -= self.written);
            self.written = 0;
        }
        &mut self.flat
    }

    /// How much may be delivered in this turn.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Appends bytes without copying them.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.shared_bytes += bytes.len();
            self.shared.push_back(SharedSlice { before: self.flat.len(), bytes });
        }
    }

    /// Bytes that wait to be written.
    pub fn pending_bytes(&self) -> usize {
        self.flat.len() - self.written + self.shared_bytes
    }

    /// Of these, bytes that nobody shares.
    pub(crate) fn own_pending_bytes(&self) -> usize {
        self.flat.len() - self.written
    }

    /// The next bytes to be written, as far as there are slices for them; returns how many slices were set.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.written;
        let mut count = 0;
        let mut put = |bytes: &'a [u8]| match slices.get_mut(count) {
            Some(slice) if !bytes.is_empty() => {
                *slice = IoSlice::new(bytes);
                count += 1;
                true
            }
            Some(_) => true,
            None => false,
        };
        for SharedSlice { before, bytes } in &self.shared {
            let flat = self.flat.get(at..*before).unwrap_or_default();
            at = *before;
            if !put(flat) || !put(bytes) {
                return count;
            }
        }
        put(self.flat.get(at..).unwrap_or_default());
        count
    }

    /// The next bytes to be written if no shared ones are among them.
    pub(crate) fn only_flat(&self) -> Option<&[u8]> {
        if self.shared.is_empty() { self.flat.get(self.written..) } else { None }
    }

    /// Removes bytes that were written.
    pub fn advance(&mut self, mut count: usize) {
        while count > 0 {
            match self.shared.front_mut() {
                Some(slice) if slice.before == self.written => {
                    let taken = count.min(slice.bytes.len());
                    slice.bytes.advance(taken);
                    self.shared_bytes -= taken;
                    count -= taken;
                    if slice.bytes.is_empty() {
                        self.shared.pop_front();
                    }
                }
                front => {
                    let end = front.map_or(self.flat.len(), |slice| slice.before);
                    let taken = count.min(end - self.written);
                    if taken == 0 {
                        break;
                    }
                    self.written += taken;
                    count -= taken;
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.flat.clear();
        self.written = 0;
        self.shared.clear();
        self.shared_bytes = 0;
        self.stalled_since = None;
        self.room = Room::default();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.flat.capacity() + self.shared.capacity() * size_of::<SharedSlice>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes at most `step` bytes at a time through at most `slices_max` slices.
    fn drain(output: &mut Output, step: usize, slices_max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while output.pending_bytes() > 0 {
            let mut slices = vec![IoSlice::new(&[]); slices_max];
            let count = output.slices(&mut slices);
            assert!(count > 0);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
            output.advance(bytes.len());
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn shared_bytes_are_written_where_they_were_pushed_whatever_the_steps() {
        for step in 1..12 {
            for slices_max in 1..6 {
                let mut output = Output::default();
                output.push_shared(Bytes::from_static(b"12"));
                output.flat().extend_from_slice(b"abc");
                output.push_shared(Bytes::from_static(b"345"));
                output.push_shared(Bytes::from_static(b"6"));
                output.push_shared(Bytes::new());
                output.flat().extend_from_slice(b"de");
                assert_eq!(output.pending_bytes(), 11);
                assert_eq!(drain(&mut output, step, slices_max), b"12abc3456de");
            }
        }
    }

    #[test]
    fn a_buffer_that_is_never_empty_does_not_grow() {
        let mut output = Output::default();
        let mut expected = 0u8;
        for number in 0..2000u32 {
            output.flat().extend_from_slice(&[number as u8; 512]);
            output.push_shared(Bytes::copy_from_slice(&[number as u8; 512]));
            if number >= 10 {
                let mut slices = [IoSlice::new(&[]); 2];
                let count = output.slices(&mut slices);
                assert!(slices[..count].iter().flat_map(|slice| slice.iter()).all(|byte| *byte == expected));
                output.advance(1024);
                expected = expected.wrapping_add(1);
            }
        }
        assert_eq!(output.pending_bytes(), 10 * 1024);
        assert!(output.flat.capacity() <= 16 * 1024, "{}", output.flat.capacity());
    }
}
