//! What happened since the start, as `$SYS` counts it.
//!
//! A turn of a connection counts in cells of its thread, and adds them to the totals once, at its end.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Count {
    /// Packets of any type.
    PacketsReceived,
    PacketsSent,
    BytesReceived,
    BytesSent,
    PublishesReceived,
    PublishesSent,
    /// Messages dropped: QoS 0 for slow clients, or refused.
    PublishesDropped,
    /// Bytes of payloads.
    PublishBytesReceived,
    PublishBytesSent,
    /// Connections opened.
    Sockets,
    /// CONNECT packets.
    Connects,
}

/// Number of kinds of [`Count`].
pub(super) const COUNTS: usize = Count::Connects as usize + 1;

thread_local! {
    static TURN: [Cell<u64>; COUNTS] = const { [const { Cell::new(0) }; COUNTS] };
}

/// Counts in the turn of a connection.
#[inline]
pub(crate) fn count(what: Count, number: u64) {
    TURN.with(|turn| {
        if let Some(cell) = turn.get(what as usize) {
            cell.set(cell.get() + number);
        }
    });
}

/// The totals of all connections.
#[derive(Default)]
pub(super) struct Totals([AtomicU64; COUNTS]);

impl Totals {
    /// Adds what the turns of this thread counted.
    pub(super) fn end_turn(&self) {
        TURN.with(|turn| {
            for (cell, total) in turn.iter().zip(&self.0) {
                let number = cell.replace(0);
                if number > 0 {
                    total.fetch_add(number, Ordering::Relaxed);
                }
            }
        });
    }

    pub(super) fn get(&self, what: Count) -> u64 {
        self.0.get(what as usize).map_or(0, |total| total.load(Ordering::Relaxed))
    }
}
