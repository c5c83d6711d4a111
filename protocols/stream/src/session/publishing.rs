//! Publishers: messages gathered during a turn, appended at its end, and confirmed once the log has committed them.

use inver_access::{Operation, ResourceKind};
use inver_broker::{Completion, OpenSequence, ProduceError};
use inver_driver::{Count, CountedPublisher, count, count_received};
use inver_storage::{BatchBuilder, SubmitError};

use super::{Answer, Ended, OpenStream, Opened, Reply, Session};
use crate::codec::entry::{Entry, unpack};
use crate::codec::frame::{self, Code, key};
use crate::codec::wire::{Reader, put_string};
use crate::map::Composer;
use crate::watch::Watch;

/// The longest name of a publisher.
const REFERENCE_BYTES_MAX: usize = 255;
/// A batch is appended at this size; one message may be larger.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// What a message of a batch costs beside its bytes: it is stored with headers.
const MESSAGE_COST_BYTES: usize = 64;

/// A publisher of a connection.
pub(super) struct Publisher {
    /// How many the connection declared before it.
    pub(super) made: u64,
    reference: String,
    stream: OpenStream,
    /// What it has stored, if it has a name.
    sequence: Option<OpenSequence>,
    /// The greatest id that it has sent, if it has a name.
    last: Option<u64>,
    batch: BatchBuilder,
    /// The ids of the records in the batch.
    numbers: Vec<u64>,
    /// Ids to confirm with the batch, those of messages that were sent again included.
    ids: Vec<u64>,
    may_write: (u64, bool),
    _watch: Watch,
    _counted: CountedPublisher,
}

impl Opened {
    /// Answers how far a publisher came in a stream.
    pub(super) fn sequence(&self, reference: &str, stream: &str) -> Reply {
        // Clients read the id whatever the code.
        let refused = |code: Code| Reply { content: vec![0; 8], ..code.into() };
        let Some(found) = self.stream(stream) else { return refused(Code::StreamDoesNotExist) };
        if !self.may(ResourceKind::Topic, stream, Operation::Write) {
            return refused(Code::AccessRefused);
        }
        let sequences = self.namespace.publisher_sequences();
        let sequence = sequences.get(found.partition.stream().id(), reference);
        let (last, done) = sequence.map(|sequence| sequence.last()).unwrap_or_default();
        Reply { done, ..Reply::of(last.unwrap_or(0).to_be_bytes().to_vec()) }
    }

    /// Whether the client may do this; a refusal is noted.
    pub(super) fn may(&self, kind: ResourceKind, name: &str, operation: Operation) -> bool {
        let may = self.permissions.may(kind, name, operation);
        if !may {
            self.permissions.denied(kind, name, operation);
        }
        may
    }
}

impl Session {
    pub(super) fn declare_publisher(&mut self, id: u8, reference: &str, name: &str) -> Code {
        let Some(opened) = &self.opened else { return Code::InternalError };
        let Some(stream) = opened.stream(name) else { return Code::StreamDoesNotExist };
        if !opened.may(ResourceKind::Topic, name, Operation::Write) {
            return Code::AccessRefused;
        }
        let id_of_stream = stream.partition.stream().id();
        let is_taken = |publisher: &Publisher| {
            !reference.is_empty()
                && publisher.reference == reference
                && publisher.stream.partition.stream().id() == id_of_stream
        };
        let is_unusable = reference.len() > REFERENCE_BYTES_MAX
            || self.publishers.contains_key(&id)
            || self.publishers.values().any(is_taken);
        if is_unusable {
            return Code::PreconditionFailed;
        }
        let sequence = match reference {
            "" => None,
            reference => match opened.namespace.publisher_sequences().open(id_of_stream, reference) {
                Ok(sequence) => Some(sequence),
                Err(error) => {
                    self.client.request_refused("DeclarePublisher", &error);
                    return Code::PreconditionFailed;
                }
            },
        };
        let publisher = Publisher {
            made: self.publishers_made,
            reference: reference.to_owned(),
            last: sequence.as_ref().and_then(|sequence| sequence.last().0),
            sequence,
            batch: BatchBuilder::new(4096),
            numbers: Vec::new(),
            ids: Vec::new(),
            may_write: (opened.permissions.version(), true),
            _watch: self.watchers.watch(id_of_stream, &self.mailbox),
            _counted: CountedPublisher::default(),
            stream,
        };
        self.publishers.insert(id, publisher);
        self.publishers_made += 1;
        Code::Ok
    }

    pub(super) fn delete_publisher(&mut self, id: u8, out: &mut Vec<u8>) -> Code {
        self.flush_publisher(id, out);
        match self.publishers.remove(&id) {
            Some(_) => Code::Ok,
            None => Code::PublisherDoesNotExist,
        }
    }

    /// Takes a `Publish`: of version 2, each message has a filter value.
    pub(super) fn publish(
        &mut self,
        version: u16,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        let id = reader.u8()?;
        let messages = reader.count(12)?;
        let refusal = self.refusal(id);
        let mut refused = Vec::new();
        // Of all batches of the frame together: a small frame may decompress to very much.
        let mut left = self.config.decompressed_bytes_max;
        for _ in 0..messages {
            let number = reader.u64()?;
            let filter = if version >= 2 { reader.string()? } else { None };
            let entry = Entry::take(reader)?;
            let code = match refusal {
                Some(code) => Some(code),
                None => self.add(id, number, &entry, filter, &mut left),
            };
            if let Some(code) = code {
                refused.push((number, code));
            }
            if self.publishers.get(&id).is_some_and(|publisher| publisher.batch.bytes() >= BATCH_BYTES_MAX) {
                self.flush_publisher(id, out);
            }
        }
        put_errors(out, id, &refused);
        Ok(())
    }

    /// Why nothing of a publisher is accepted.
    fn refusal(&mut self, id: u8) -> Option<Code> {
        let (Some(opened), Some(publisher)) = (&self.opened, self.publishers.get_mut(&id)) else {
            return Some(Code::PublisherDoesNotExist);
        };
        let version = opened.permissions.version();
        if publisher.may_write.0 != version {
            let name = publisher.stream.topic.name();
            publisher.may_write = (version, opened.may(ResourceKind::Topic, name, Operation::Write));
        }
        if !publisher.may_write.1 {
            return Some(Code::AccessRefused);
        }
        if publisher.stream.partition.stream().is_deleted() {
            return Some(Code::StreamNotAvailable);
        }
        if let Err(error) = opened.namespace.check_room() {
            self.client.request_refused("Publish", &error);
            return Some(Code::PreconditionFailed);
        }
        None
    }

    /// Adds an entry to the batch of its publisher, unless it was sent before. Why not, if it is not accepted.
    /// At most `left` bytes are decompressed, and what was is subtracted.
    fn add(
        &mut self,
        id: u8,
        number: u64,
        entry: &Entry<'_>,
        filter: Option<&str>,
        left: &mut usize,
    ) -> Option<Code> {
        let Some(publisher) = self.publishers.get_mut(&id) else {
            return Some(Code::PublisherDoesNotExist);
        };
        if matches!(entry, Entry::Message(message) if message.len() > self.config.message_bytes_max) {
            return Some(Code::PreconditionFailed);
        }
        let is_known = publisher.sequence.is_some() && publisher.last.is_some_and(|last| number <= last);
        if !is_known {
            let now_ms = self.broker.clock().steady_ms();
            let mut push = |composer: &mut Composer, message: &[u8]| {
                let composed = composer.compose(message, filter);
                let (headers, value) = (composed.headers, Some(composed.value));
                publisher.batch.push_with(now_ms, composed.key, headers.count as usize, headers.bytes, value);
                publisher.numbers.push(number);
                count(Count::Received, 1);
                count(Count::Routed, 1);
                count(Count::ToConfirm, 1);
                count_received(message.len());
            };
            match entry {
                Entry::Message(message) => push(&mut self.composer, message),
                Entry::Batch { compression, count, plain_bytes, data } => {
                    let cost = usize::from(*count) * MESSAGE_COST_BYTES;
                    let bytes_max = left.saturating_sub(cost);
                    if *plain_bytes as usize > bytes_max {
                        return Some(Code::PreconditionFailed);
                    }
                    let Ok(messages) = unpack(*compression, *count, data, bytes_max) else {
                        return Some(Code::PreconditionFailed);
                    };
                    *left = bytes_max.saturating_sub(messages.iter().map(|message| message.len()).sum());
                    if messages.iter().any(|message| message.len() > self.config.message_bytes_max) {
                        return Some(Code::PreconditionFailed);
                    }
                    messages.iter().for_each(|message| push(&mut self.composer, message));
                }
            }
            if publisher.sequence.is_some() {
                publisher.last = Some(number);
            }
        }
        publisher.ids.push(number);
        self.unconfirmed += 1;
        None
    }

    /// Appends what all publishers have gathered.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        let ids: Vec<u8> = self.publishers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.flush_publisher(id, out));
    }

    fn flush_publisher(&mut self, id: u8, out: &mut Vec<u8>) {
        let (Some(opened), Some(publisher)) = (&self.opened, self.publishers.get_mut(&id)) else { return };
        if publisher.ids.is_empty() {
            return;
        }
        let ids = std::mem::take(&mut publisher.ids);
        match publisher.append(opened) {
            Ok(done) => {
                self.answers.push(done, Answer::Confirms { publisher: id, made: publisher.made, ids });
            }
            Err(error) => {
                self.unconfirmed -= ids.len();
                self.client.request_refused("Publish", &error);
                // What was refused may be sent again, before what follows it.
                publisher.last = publisher.sequence.as_ref().and_then(|sequence| sequence.last().0);
                let code = match error {
                    _ if publisher.stream.partition.stream().is_deleted() => Code::StreamNotAvailable,
                    ProduceError::Address { .. } | ProduceError::Log(SubmitError::TooLarge { .. }) => {
                        Code::PreconditionFailed
                    }
                    _ => Code::InternalError,
                };
                let refused: Vec<(u64, Code)> = ids.into_iter().map(|id| (id, code)).collect();
                put_errors(out, id, &refused);
            }
        }
    }

    /// Tells the client of streams that were deleted, and ends what it has on them.
    pub(super) fn tell_of_deleted(&mut self, out: &mut Vec<u8>) {
        let mut names = Vec::new();
        self.publishers.retain(|_, publisher| {
            let is_deleted = publisher.stream.partition.stream().is_deleted();
            if is_deleted {
                self.unconfirmed -= publisher.ids.len();
                names.push(publisher.stream.topic.name().to_owned());
            }
            !is_deleted
        });
        self.subscriptions.retain(|_, subscription| {
            let is_deleted = subscription.is_deleted();
            if is_deleted {
                names.push(subscription.name().to_owned());
            }
            !is_deleted
        });
        names.sort_unstable();
        names.dedup();
        for name in names {
            frame::put(out, key::METADATA_UPDATE, 1, |out| {
                out.extend_from_slice(&(Code::StreamNotAvailable as u16).to_be_bytes());
                put_string(out, &name);
            });
        }
    }
}

impl Publisher {
    /// Appends the batch.
    fn append(&mut self, opened: &Opened) -> Result<Completion, ProduceError> {
        let numbers = std::mem::take(&mut self.numbers);
        let OpenStream { topic, partition } = &self.stream;
        let client = Some(&*opened.permissions);
        match &self.sequence {
            Some(sequence) if numbers.is_empty() => Ok(sequence.last().1),
            Some(sequence) => {
                let batch = (&numbers[..], self.batch.finish());
                opened.namespace.produce_numbered(client, topic, partition, sequence, batch)
            }
            None if numbers.is_empty() => Ok(Completion::Now),
            None => {
                let batch = self.batch.finish();
                Ok(opened.namespace.produce_as(client, topic, partition, batch)?.lsn.into())
            }
        }
    }
}

/// Appends a `PublishError`, if there are any.
fn put_errors(out: &mut Vec<u8>, publisher: u8, refused: &[(u64, Code)]) {
    if refused.is_empty() {
        return;
    }
    frame::put(out, key::PUBLISH_ERROR, 1, |out| {
        out.push(publisher);
        out.extend_from_slice(&(refused.len() as u32).to_be_bytes());
        for (id, code) in refused {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&(*code as u16).to_be_bytes());
        }
    });
}
