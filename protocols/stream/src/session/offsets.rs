//! Offsets that consumers store by name: committed offsets of the group of that name, so that Kafka's tools see them.
//!
//! A stream client stores the offset of the last message that it has processed; a committed offset is the one after it.

use inver_access::{Operation, ResourceKind};
use inver_broker::CommittedOffset;

use super::{Ended, Opened, Reply, Session};
use crate::codec::frame::Code;
use crate::codec::wire::Reader;

/// The longest name that an offset is stored under.
const REFERENCE_BYTES_MAX: usize = 255;

impl Opened {
    fn may_store(&self, reference: &str, stream: &str) -> bool {
        self.may(ResourceKind::Topic, stream, Operation::Read)
            && self.may(ResourceKind::Group, reference, Operation::Read)
    }

    /// Answers the offset that is stored under a name.
    pub(super) fn query_offset(&self, reference: &str, stream: &str) -> Reply {
        if self.stream(stream).is_none() {
            return reply(Code::StreamDoesNotExist, 0);
        }
        if !self.may_store(reference, stream) {
            return reply(Code::AccessRefused, 0);
        }
        match self.namespace.committed_offsets().get(reference, stream, 0) {
            Some(committed) if committed.offset > 0 => reply(Code::Ok, committed.offset.unsigned_abs() - 1),
            _ => reply(Code::NoOffset, 0),
        }
    }
}

fn reply(code: Code, offset: u64) -> Reply {
    Reply { content: offset.to_be_bytes().to_vec(), ..code.into() }
}

impl Session {
    /// Takes a `StoreOffset`, which has no answer.
    pub(super) fn store_offset(&mut self, reader: &mut Reader<'_>) -> Result<(), Ended> {
        let (reference, stream, offset) = (reader.text()?, reader.text()?, reader.u64()?);
        let Some(opened) = &self.opened else { return Ok(()) };
        let is_known = opened.stream(stream).is_some() && !reference.is_empty();
        if !is_known || reference.len() > REFERENCE_BYTES_MAX || !opened.may_store(reference, stream) {
            self.client.request_refused("StoreOffset", &"no such stream, a bad name, or no permission");
            return Ok(());
        }
        let next = i64::try_from(offset).unwrap_or(i64::MAX).saturating_add(1);
        let committed = CommittedOffset {
            offset: next,
            leader_epoch: -1,
            metadata: None,
            committed_ms: self.broker.clock().now_ms(),
        };
        let offsets = opened.namespace.committed_offsets();
        let all = [(stream, 0, committed)];
        if let Err(error) = offsets.room_for(reference, &all) {
            self.client.request_refused("StoreOffset", &error);
            return Ok(());
        }
        if let Err(error) = offsets.commit(self.broker.log(), reference, &all) {
            self.client.request_refused("StoreOffset", &error);
        }
        Ok(())
    }
}
