//! Retained values that records of a producer set or clear: those that name their address and have the header for it, in a
//! topic with the setting.

use bytes::Bytes;
use inver_storage::batch::{BatchBuilder, Record};
use inver_storage::{Entry, SubmitError, Submitted};

use crate::address::{Address, Form};
use crate::message::{HeaderWriter, Message, RawHeaders, name};
use crate::namespace::Namespace;

/// Bytes of an entry around an address and its value, and more.
const ROW_BYTES: usize = 16;

/// The retained values that one finished batch changes.
#[derive(Default)]
pub(crate) struct RetainedChanges {
    changes: Vec<(Vec<u8>, Option<Bytes>)>,
    bytes: usize,
}

impl RetainedChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes that they take in an entry.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, address: Vec<u8>, value: Option<Bytes>) {
        self.bytes += ROW_BYTES + address.len() + value.as_ref().map_or(0, Bytes::len);
        self.changes.push((address, value));
    }

    /// Notes what a record changes, if its header says so. A value for which there is no room is left out.
    pub(crate) fn add(&mut self, namespace: &Namespace, address: &Address, record: &Record) {
        let header = RawHeaders::of(record).find(|(header, _)| *header == name::RETAIN);
        if !matches!(header, Some((_, Some(b"1" | b"true")))) {
            return;
        }
        let slashed = address.write(Form::Slashed);
        if record.value.as_ref().is_none_or(|value| value.is_empty()) {
            self.push(slashed, None);
            return;
        }
        let mut headers = HeaderWriter::default();
        let mut message = Message::of_record(record, true);
        if record.is_marked {
            headers.copy(record);
            message.headers = headers.headers();
        }
        let mut batch = BatchBuilder::new(0);
        let Message { timestamp_ms, key, headers, value, .. } = message;
        batch.push_with(timestamp_ms, key, headers.count as usize, headers.bytes, value);
        let batch = batch.finish().bytes().clone();
        let room = namespace
            .check_room()
            .and_then(|()| namespace.retained().room_for(&slashed, batch.len(), &namespace.limits()));
        match room {
            Ok(()) => self.push(slashed, Some(batch)),
            Err(error) => {
                let address = String::from_utf8_lossy(&slashed);
                tracing::debug!(%address, %error, "failed to retain a producer's record");
            }
        }
    }

    /// Submits an entry with the changes, in the order of retained values.
    pub(crate) fn submit(self, namespace: &Namespace, mut entry: Entry) -> Result<Submitted, SubmitError> {
        if self.is_empty() {
            return namespace.log().submit(entry);
        }
        let retained = namespace.retained();
        retained.put_in(&self.changes, &mut entry);
        let submitted = namespace.log().submit(entry)?;
        retained.apply(self.changes);
        Ok(submitted)
    }
}
