//! Who uses a stream: the connections that are told when it is deleted.

use std::collections::HashMap;
use std::sync::Arc;

use inver_broker::Mailbox;
use inver_storage::StreamId;
use parking_lot::Mutex;

/// The uses of all streams.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_stream: HashMap<u64, Vec<(u64, Arc<Mailbox>)>>,
    next: u64,
}

/// A use of a stream, until it is dropped.
pub(crate) struct Watch {
    watchers: Arc<Watchers>,
    stream: StreamId,
    number: u64,
}

/// The token of a mailbox that tells of the deletion of a stream.
pub(crate) const DELETED: u64 = 1 << 62;

impl Watchers {
    /// Has this mailbox get [`DELETED`] when the stream is deleted.
    pub(crate) fn watch(self: &Arc<Self>, stream: StreamId, mailbox: &Arc<Mailbox>) -> Watch {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.by_stream.entry(stream.0).or_default().push((number, mailbox.clone()));
        Watch { watchers: self.clone(), stream, number }
    }

    /// Tells of the deletion of a stream.
    pub(crate) fn deleted(&self, stream: StreamId) {
        let watching = self.0.lock().by_stream.get(&stream.0).cloned();
        for (_, mailbox) in watching.into_iter().flatten() {
            mailbox.post(DELETED);
        }
    }
}

impl std::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchers").finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.watchers.0.lock();
        if let Some(watching) = table.by_stream.get_mut(&self.stream.0) {
            watching.retain(|(number, _)| *number != self.number);
            if watching.is_empty() {
                table.by_stream.remove(&self.stream.0);
            }
        }
    }
}
