//! Repeated reads of a stream: requeued and rejected messages by offset, sequentially where offsets are adjacent.

use std::collections::VecDeque;
use std::sync::Arc;

use inver_storage::{ColdRead, Offset, Read, ReadError, StoredBatch, Stream, StreamId};

use super::{Open, Opened, Taken, span};

/// The batches around the offset that was read last.
#[derive(Default)]
pub(super) struct Again {
    open: Option<Open>,
    batches: VecDeque<StoredBatch>,
    pub(super) loading: bool,
    /// The offset for which the last load was started; none once it was answered.
    asked: Option<u64>,
}

/// The result of a repeated read.
pub(super) enum Found {
    Taken(Taken),
    Load(ColdRead),
    Later,
    Gone,
}

impl Again {
    pub(super) fn take(
        &mut self,
        stream: &Stream,
        offset: u64,
        read_bytes: usize,
        topic_of: impl Fn(StreamId) -> Option<Arc<str>>,
    ) -> Found {
        loop {
            if let Some(open) = self.open.as_mut().filter(|o| (o.floor..o.end).contains(&offset)) {
                while let Some(taken) = open.next() {
                    if taken.offset >= offset {
                        return if taken.offset == offset { Found::Taken(taken) } else { Found::Gone };
                    }
                }
                return Found::Gone;
            }
            self.open = None;
            if self.loading {
                return Found::Later;
            }
            let covers = |b: &StoredBatch| {
                (b.base_offset.0..b.base_offset.0 + span(&b.bytes).max(1)).contains(&offset)
            };
            if let Some(at) = self.batches.iter().position(covers) {
                // Only the batches of a load that does not reach the offset tell that it no longer exists.
                self.asked = None;
                self.batches.drain(..at);
                let Some(batch) = self.batches.pop_front() else { return Found::Gone };
                match Opened::new(batch.base_offset.0, &batch.bytes, topic_of(batch.origin)) {
                    Opened::Open(open) => self.open = Some(open),
                    Opened::Nothing => return Found::Gone,
                    Opened::Long => {
                        self.batches.clear();
                        self.loading = true;
                        self.asked = Some(offset);
                        return Found::Load(stream.read_later(Offset(offset), read_bytes));
                    }
                }
                continue;
            }
            let answered = self.asked.take() == Some(offset) && !self.batches.is_empty();
            self.batches.clear();
            if answered {
                return Found::Gone;
            }
            match stream.read(Offset(offset), read_bytes) {
                Ok(Read::Ready(batches)) if batches.first().is_some_and(covers) => {
                    self.batches.extend(batches);
                }
                // It was compacted away, or trimmed, after its delivery.
                Ok(Read::Ready(_)) | Err(ReadError::OutOfRange { .. } | ReadError::Deleted) => {
                    return Found::Gone;
                }
                Ok(Read::Empty) => return Found::Later,
                Ok(Read::Cold(cold)) => {
                    self.loading = true;
                    self.asked = Some(offset);
                    return Found::Load(cold);
                }
                Err(error) => {
                    tracing::error!(stream = %stream.id(), offset, %error, "failed to read a message again");
                    return Found::Later;
                }
            }
        }
    }

    /// Takes the result of a load. Whether a retry is useful: a failed read is not retried at once.
    pub(super) fn loaded(&mut self, batches: Vec<StoredBatch>, start: Offset) -> bool {
        self.loading = false;
        self.batches = batches.into();
        !self.batches.is_empty() || self.asked.is_some_and(|asked| start.0 > asked)
    }
}
