//! Encoding of a commit group into pieces for one vectored write.
//!
//! Small batches are copied behind their entry's description; large ones are written from where they are in memory.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::HEADER_BYTES;
use crate::entry::Part;
use crate::format::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader, KIND_APPENDED, seal};
use crate::intake::Pending;

/// Batches up to this size are copied into the gathering buffer.
const COPY_BYTES_MAX: usize = 4096;
/// Size of a gathering buffer; the tail cache keeps it alive while it keeps a batch in it.
const GATHER_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Encoder {
    gather: BytesMut,
    pieces: Vec<Bytes>,
    /// Pieces of this group already written.
    written: usize,
}

/// Place of a batch in the encoded group.
pub(super) struct EncodedBatch {
    /// Position in the segment file.
    pub(super) position: u32,
    /// The piece and the place in it, if the batch was copied.
    copied: Option<(usize, usize)>,
}

impl Encoder {
    /// Starts a new group.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.written = 0;
    }

    /// Encodes an entry of the segment at `base`. Calls `placed` for each batch, in order.
    pub(super) fn encode(
        &mut self,
        pending: &Pending,
        synced: u64,
        base: u64,
        mut placed: impl FnMut(EncodedBatch),
    ) {
        let description_bytes = pending.description_bytes as usize;
        self.reserve(ENTRY_HEADER_BYTES + description_bytes);
        let start = self.gather.len();
        let header = EntryHeader {
            crc: 0,
            length: pending.length,
            description_bytes: pending.description_bytes,
            lsn: pending.start,
            synced,
            part_count: pending.parts.len() as u32,
            kind: KIND_APPENDED,
        };
        header.put(&mut self.gather);
        let mut bases = pending.bases.iter().copied();
        for part in &pending.parts {
            part.describe(&mut self.gather, &mut bases);
        }
        debug_assert_eq!(self.gather.len() - start, ENTRY_HEADER_BYTES + description_bytes);
        let heads = pending.parts.iter().filter_map(|part| match part {
            Part::Batch { batch, .. } => batch.bytes().get(..HEADER_BYTES),
            _ => None,
        });
        seal(&mut self.gather, start, description_bytes, heads);
        let mut position = pending.start - base + (ENTRY_HEADER_BYTES + description_bytes) as u64;
        for part in &pending.parts {
            if let Part::Batch { batch, .. } = part {
                let copied = self.put_batch(batch.bytes());
                placed(EncodedBatch { position: position as u32, copied });
                position += batch.bytes().len() as u64;
            }
        }
        let padding = (position as usize).next_multiple_of(ENTRY_ALIGNMENT) - position as usize;
        self.reserve(padding);
        self.gather.put_bytes(0, padding);
    }

    fn put_batch(&mut self, bytes: &Bytes) -> Option<(usize, usize)> {
        if bytes.len() > COPY_BYTES_MAX {
            self.close_piece();
            self.pieces.push(bytes.clone());
            return None;
        }
        self.reserve(bytes.len());
        let place = (self.pieces.len(), self.gather.len());
        self.gather.put_slice(bytes);
        Some(place)
    }

    /// Makes sure that the next bytes are contiguous in one piece.
    fn reserve(&mut self, bytes: usize) {
        if self.gather.capacity() - self.gather.len() < bytes {
            self.close_piece();
            self.gather = BytesMut::with_capacity(bytes.max(GATHER_BYTES));
        }
    }

    fn close_piece(&mut self) {
        if !self.gather.is_empty() {
            self.pieces.push(self.gather.split().freeze());
        }
    }

    /// The pieces encoded since the last call, to be written now.
    pub(super) fn take_pieces(&mut self) -> &[Bytes] {
        self.close_piece();
        let pieces = self.pieces.get(self.written..).unwrap_or_default();
        self.written = self.pieces.len();
        pieces
    }

    /// The bytes of a batch for the tail cache: its copy in a piece, or the submitted bytes.
    pub(super) fn bytes_of(&self, batch: &EncodedBatch, submitted: &Bytes) -> Bytes {
        let Some((piece, at)) = batch.copied else { return submitted.clone() };
        match self.pieces.get(piece) {
            Some(piece) if at + submitted.len() <= piece.len() => piece.slice(at..at + submitted.len()),
            _ => submitted.clone(),
        }
    }
}
