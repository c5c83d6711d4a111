//! Subscriptions: chunks delivered by credit.

use std::ops::Bound;

use inver_access::{Operation, ResourceKind};
use inver_broker::message::filter_value;
use inver_broker::{OffsetSpec, StreamFilter};
use inver_driver::{Count, CountedConsumer, Output, count};
use inver_storage::ReadError;

use super::reading::{Step, StreamReader};
use super::{Ended, Session};
use crate::codec::chunk::{Chunk, ENTRIES_MAX};
use crate::codec::frame::{self, Code, key};
use crate::codec::wire::{Reader, put_string};
use crate::map::put_message;
use crate::watch::Watch;

/// Messages that a filter leaves out before other subscriptions get their turn.
const SCANNED_MAX: usize = 4096;

/// A subscription.
pub(super) struct Subscription {
    name: String,
    reader: StreamReader,
    credit: u32,
    filter: Option<StreamFilter>,
    /// There may be something to deliver.
    is_ready: bool,
    may_read: (u64, bool),
    _watch: Watch,
    _counted: CountedConsumer,
}

/// What a subscription has to deliver.
enum Filled {
    /// Nothing, or what is in the chunk.
    Done,
    /// The same, and there is more to look at.
    More,
    Failed(ReadError),
}

impl Subscription {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn token(&self) -> u64 {
        self.reader.token()
    }

    pub(super) fn wake(&mut self) {
        self.is_ready = true;
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.reader.stream().is_deleted()
    }

    /// Fills a chunk with the next messages. With a filter it begins and ends with one that matches: offsets within a chunk
    /// are consecutive, so that clients filter again.
    fn fill(&mut self, chunk: &mut Chunk, bytes_max: usize, messages_max: usize) -> Filled {
        chunk.clear();
        let mut matched = chunk.mark();
        let mut scanned = 0;
        let filled = loop {
            let (offset, record) = match self.reader.next() {
                Step::Message(offset, record) => (offset, record),
                Step::Nothing => break Filled::Done,
                Step::Failed(error) => break Filled::Failed(error),
            };
            let is_wanted = self.filter.as_ref().is_none_or(|filter| filter.matches(filter_value(&record)));
            scanned += 1;
            if scanned > SCANNED_MAX && self.filter.is_some() {
                self.reader.put_back(offset, record);
                break Filled::More;
            }
            if !is_wanted && chunk.is_empty() {
                continue;
            }
            let bytes = record.value.as_ref().map_or(0, bytes::Bytes::len) + record.headers.len();
            let is_full = chunk.len() >= messages_max.min(ENTRIES_MAX)
                || (!chunk.is_empty() && chunk.bytes() + bytes > bytes_max);
            if is_full || !chunk.takes(offset) {
                self.reader.put_back(offset, record);
                break Filled::More;
            }
            chunk.push(offset, record.timestamp_ms, |out| put_message(out, &record));
            if is_wanted {
                matched = chunk.mark();
            }
        };
        chunk.cut(matched);
        filled
    }
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        id: u8,
        name: &str,
        from: OffsetSpec,
        credit: u16,
        properties: &[(&str, &str)],
    ) -> Code {
        if self.subscriptions.contains_key(&id) {
            return Code::SubscriptionIdAlreadyExists;
        }
        let token = self.number();
        let Some(opened) = &self.opened else { return Code::InternalError };
        let Some(stream) = opened.stream(name) else { return Code::StreamDoesNotExist };
        if !opened.may(ResourceKind::Topic, name, Operation::Read) {
            return Code::AccessRefused;
        }
        let is = |wanted: &str| properties.iter().any(|(name, value)| *name == wanted && *value == "true");
        if is("single-active-consumer") {
            self.client.request_refused("Subscribe", &"single active consumers are not supported");
            return Code::PreconditionFailed;
        }
        let values = properties.iter().filter(|(name, _)| name.starts_with("filter."));
        let values: Vec<String> = values.map(|(_, value)| (*value).to_owned()).collect();
        let filter =
            (!values.is_empty()).then(|| StreamFilter { values, unfiltered: is("match-unfiltered") });
        let stream = stream.partition.stream();
        let reader = match StreamReader::new(stream, from, &self.mailbox, token) {
            Ok(reader) => reader,
            Err(error) => {
                self.client.request_refused("Subscribe", &error);
                return Code::StreamNotAvailable;
            }
        };
        let subscription = Subscription {
            name: name.to_owned(),
            reader,
            credit: credit.into(),
            filter,
            is_ready: true,
            may_read: (opened.permissions.version(), true),
            _watch: self.watchers.watch(stream.id(), &self.mailbox),
            _counted: CountedConsumer::default(),
        };
        self.subscriptions.insert(id, subscription);
        Code::Ok
    }

    /// Takes a `Credit`: so many more chunks may be delivered.
    pub(super) fn credit(&mut self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Ended> {
        let (id, credit) = (reader.u8()?, reader.u16()?);
        match self.subscriptions.get_mut(&id) {
            Some(subscription) => subscription.credit = subscription.credit.saturating_add(credit.into()),
            None => frame::put(out, key::RESPONSE | key::CREDIT, 1, |out| {
                out.extend_from_slice(&(Code::SubscriptionIdDoesNotExist as u16).to_be_bytes());
                out.push(id);
            }),
        }
        Ok(())
    }

    /// Delivers chunks until the output is full. True if there may be more.
    pub(super) fn deliver(&mut self, out: &mut Output) -> Result<bool, Ended> {
        let Some(opened) = &self.opened else { return Ok(false) };
        let room = out.room();
        let (started_at, mut messages) = (out.pending_bytes(), 0);
        let mut ended = Vec::new();
        let mut has_more = false;
        let version = opened.permissions.version();
        // Each turn begins behind the one that filled the last turn's output.
        let first = self.first_subscription;
        let ranges = [(Bound::Included(first), Bound::Unbounded), (Bound::Unbounded, Bound::Excluded(first))];
        'turn: for range in ranges {
            for (id, subscription) in self.subscriptions.range_mut(range) {
                if subscription.may_read.0 != version {
                    let may = opened.may(ResourceKind::Topic, &subscription.name, Operation::Read);
                    subscription.may_read = (version, may);
                }
                if !subscription.may_read.1 {
                    ended.push(*id);
                    continue;
                }
                while subscription.is_ready && subscription.credit > 0 {
                    let pending = out.pending_bytes();
                    if pending >= self.config.output_bytes_high {
                        has_more = true;
                        break 'turn;
                    }
                    if messages >= room.messages || pending - started_at >= room.bytes {
                        // The driver has another turn once the quota allows more.
                        has_more = !room.is_unlimited() && room.messages > 0;
                        break 'turn;
                    }
                    let bytes_max = self.config.chunk_bytes_max.min(self.frame_max / 2);
                    let filled = subscription.fill(&mut self.chunk, bytes_max, room.messages - messages);
                    if !self.chunk.is_empty() {
                        self.first_subscription = id.wrapping_add(1);
                        messages += self.chunk.len();
                        subscription.credit -= 1;
                        count(Count::SentAuto, self.chunk.len() as u64);
                        frame::put(out.flat(), key::DELIVER, self.deliver_version, |out| {
                            out.push(*id);
                            if self.deliver_version >= 2 {
                                let committed =
                                    subscription.reader.stream().high_watermark().0.saturating_sub(1);
                                out.extend_from_slice(&committed.to_be_bytes());
                            }
                            self.chunk.write(out);
                        });
                    }
                    match filled {
                        Filled::Done => subscription.is_ready = false,
                        Filled::More if self.chunk.is_empty() => {
                            // What a filter leaves out costs time too.
                            has_more = true;
                            break;
                        }
                        Filled::More => {}
                        Filled::Failed(error) => {
                            let name = subscription.name();
                            if !subscription.is_deleted() {
                                tracing::warn!(stream = name, %error, "subscription ended: stream cannot be read");
                            }
                            ended.push(*id);
                            break;
                        }
                    }
                }
            }
        }
        for id in ended {
            let Some(subscription) = self.subscriptions.remove(&id) else { continue };
            frame::put(out.flat(), key::METADATA_UPDATE, 1, |out| {
                out.extend_from_slice(&(Code::StreamNotAvailable as u16).to_be_bytes());
                put_string(out, subscription.name());
            });
        }
        Ok(has_more)
    }
}
