//! Reading a stream message by message, from memory or, on another thread, from disk.

use std::collections::VecDeque;
use std::sync::Arc;

use inver_broker::{Mailbox, OffsetSpec, is_visible};
use inver_storage::batch::{Record, Records, records};
use inver_storage::{
    BatchHeader, ColdRead, Listening, Offset, Read, ReadError, StoredBatch, Stream, TimeLookup,
};
use parking_lot::Mutex;

/// Bytes of one read, unless a single batch is larger.
const READ_BYTES: usize = 256 * 1024;

/// A place in a stream that moves on.
pub(super) struct StreamReader {
    stream: Stream,
    /// The offset of the next message.
    next: u64,
    found: VecDeque<StoredBatch>,
    /// With its first offset, and the one behind it: a compacted batch may end in a gap.
    current: Option<(u64, u64, Records)>,
    /// A message that was taken and did not fit.
    put_back: Option<(u64, Record)>,
    mailbox: Arc<Mailbox>,
    token: u64,
    _listening: Listening,
    /// What another thread reads.
    cold: Option<Arc<Mutex<Option<Cold>>>>,
}

/// What was read on another thread.
enum Cold {
    Batches(Result<Vec<StoredBatch>, ReadError>),
    Start(Result<Option<(Offset, i64)>, ReadError>),
}

/// What comes next in a stream.
pub(super) enum Step {
    /// The message of this offset.
    Message(u64, Record),
    /// Nothing until the mailbox gets the token.
    Nothing,
    /// The stream cannot be read.
    Failed(ReadError),
}

impl StreamReader {
    /// A reader that starts there. Its mailbox gets the token when there may be something to read.
    pub(super) fn new(
        stream: &Stream,
        from: OffsetSpec,
        mailbox: &Arc<Mailbox>,
        token: u64,
    ) -> Result<StreamReader, ReadError> {
        let mut reader = StreamReader {
            _listening: stream.listen(mailbox.clone(), token),
            stream: stream.clone(),
            next: 0,
            found: VecDeque::new(),
            current: None,
            put_back: None,
            mailbox: mailbox.clone(),
            token,
            cold: None,
        };
        match (from, from.start(Some(stream))) {
            (OffsetSpec::Time(ms), _) => match stream.offset_for_time(ms)? {
                TimeLookup::Ready(found) => reader.start_at(found),
                TimeLookup::Cold(lookup) => reader.run(move || Cold::Start(lookup.run())),
            },
            (_, start) => reader.next = start.map_or(0, |start| start.offset(stream).0),
        }
        // An offset that is not there yet is the next one, as in RabbitMQ.
        reader.next = reader.next.min(stream.high_watermark().0);
        Ok(reader)
    }

    fn start_at(&mut self, found: Option<(Offset, i64)>) {
        self.next = found.map_or(self.stream.high_watermark(), |(offset, _)| offset).0;
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// The message that was taken last is the next one again.
    pub(super) fn put_back(&mut self, offset: u64, record: Record) {
        self.put_back = Some((offset, record));
    }

    /// Takes the next message.
    pub(super) fn next(&mut self) -> Step {
        if let Some((offset, record)) = self.put_back.take() {
            return Step::Message(offset, record);
        }
        loop {
            if let Some((base, end, records)) = &mut self.current {
                match records.next() {
                    Some(Ok(record)) => {
                        let offset = *base + u64::from(record.offset_delta);
                        if offset >= self.next {
                            self.next = offset + 1;
                            return Step::Message(offset, record);
                        }
                    }
                    // A batch that cannot be decoded is passed over.
                    Some(Err(_)) | None => {
                        self.next = self.next.max(*end);
                        self.current = None;
                    }
                }
                continue;
            }
            match self.next_batch() {
                Ok(true) => {}
                Ok(false) => return Step::Nothing,
                Err(error) => return Step::Failed(error),
            }
        }
    }

    /// Goes on to the next batch, if there is one.
    fn next_batch(&mut self) -> Result<bool, ReadError> {
        if let Some(batch) = self.found.front() {
            if batch.base_offset.0.max(self.next) >= self.stream.stable_offset().0 {
                return Ok(false);
            }
            let Some(batch) = self.found.pop_front() else { return Ok(false) };
            self.begin(&batch);
            return Ok(true);
        }
        if let Some(cold) = &self.cold {
            let Some(done) = cold.lock().take() else { return Ok(false) };
            self.cold = None;
            match done {
                Cold::Batches(Err(ReadError::OutOfRange { start, .. })) => self.next = start.0.max(self.next),
                Cold::Batches(batches) => {
                    let batches = batches?;
                    if batches.is_empty() {
                        return Ok(false);
                    }
                    self.found.extend(batches);
                }
                Cold::Start(found) => self.start_at(found?),
            }
            return Ok(true);
        }
        self.next = self.next.max(self.stream.start().0);
        match self.stream.read(Offset(self.next), READ_BYTES) {
            Ok(Read::Ready(batches)) => self.found.extend(batches),
            Ok(Read::Empty) => return Ok(false),
            Ok(Read::Cold(cold)) => self.read_cold(cold),
            // Trimmed meanwhile.
            Err(ReadError::OutOfRange { start, .. }) if start.0 > self.next => self.next = start.0,
            Err(ReadError::OutOfRange { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Begins a batch, unless it is one that readers of messages do not see.
    fn begin(&mut self, batch: &StoredBatch) {
        let base = batch.base_offset.0;
        let end = base + BatchHeader::parse(&batch.bytes).map_or(1, |header| header.offset_span());
        if !is_visible(&self.stream, batch) {
            self.next = self.next.max(end);
            return;
        }
        match records(&batch.bytes) {
            Ok(records) => self.current = Some((base, end, records)),
            Err(error) => {
                tracing::warn!(offset = base, %error, "batch skipped: it cannot be decompressed");
                self.next = self.next.max(end);
            }
        }
    }

    fn read_cold(&mut self, cold: ColdRead) {
        self.run(move || Cold::Batches(cold.run()));
    }

    /// Reads on another thread, which posts the token when it is done.
    fn run(&mut self, read: impl FnOnce() -> Cold + Send + 'static) {
        let place = Arc::new(Mutex::new(None));
        self.cold = Some(place.clone());
        let (mailbox, token) = (self.mailbox.clone(), self.token);
        tokio::task::spawn_blocking(move || {
            let done = read();
            *place.lock() = Some(done);
            mailbox.post(token);
        });
    }
}
