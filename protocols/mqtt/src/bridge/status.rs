//! What a bridge does, for administration.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tracing::warn;

use super::side::Side;
use crate::codec::Reason;

/// The state of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BridgeState {
    /// It connects.
    #[default]
    Connecting,
    /// Messages are passed on.
    Connected,
    /// It waits until it connects again.
    Waiting,
    /// It was told to stop.
    Stopped,
}

impl BridgeState {
    /// Its name, as it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BridgeState::Connecting => "connecting",
            BridgeState::Connected => "connected",
            BridgeState::Waiting => "waiting",
            BridgeState::Stopped => "stopped",
        }
    }
}

/// Messages of one way since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BridgeCounts {
    /// Passed on.
    pub passed: u64,
    /// Not passed on: no entry has their topic, they are too long, or there was no room at QoS 0.
    pub dropped: u64,
    /// Refused by the server that they were passed on to.
    pub refused: u64,
}

/// What is shown of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeStatus {
    /// Its state.
    pub state: BridgeState,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// The address that it is connected to, or was last.
    pub connected_to: String,
    /// Why the last connection ended or was not made.
    pub last_error: Option<String>,
    /// Subscriptions that a server refused.
    pub refused_subscriptions: Option<String>,
    /// To the other server.
    pub out: BridgeCounts,
    /// From the other server.
    pub incoming: BridgeCounts,
}

/// One of the counts.
#[derive(Clone, Copy)]
pub(super) enum Tally {
    Passed,
    Dropped,
    Refused,
}

/// The status as it changes.
#[derive(Debug, Default)]
pub(super) struct Status {
    shown: Mutex<BridgeStatus>,
    /// By way and by tally.
    counts: [[AtomicU64; 3]; 2],
}

impl Status {
    /// A copy of it.
    pub(super) fn shown(&self) -> BridgeStatus {
        let mut shown = self.shown.lock().clone();
        (shown.out, shown.incoming) = (self.of(Side::Local), self.of(Side::Remote));
        shown
    }

    fn of(&self, from: Side) -> BridgeCounts {
        let [passed, dropped, refused] = [Tally::Passed, Tally::Dropped, Tally::Refused]
            .map(|tally| self.counts[from as usize][tally as usize].load(Ordering::Relaxed));
        BridgeCounts { passed, dropped, refused }
    }

    /// Changes the state.
    pub(super) fn set(&self, state: BridgeState, now_ms: i64, change: impl FnOnce(&mut BridgeStatus)) {
        let mut shown = self.shown.lock();
        if shown.state != state || shown.since_ms == 0 {
            (shown.state, shown.since_ms) = (state, now_ms);
        }
        change(&mut shown);
    }

    /// Counts a message that came from a side.
    pub(super) fn count(&self, from: Side, tally: Tally) {
        self.counts[from as usize][tally as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that a side refused, if that is what the reason says. The first one of a connection is logged and
    /// shown.
    pub(super) fn refused(&self, bridge: &str, by: Side, reason: Reason, is_logged: &mut bool) {
        if !reason.is_error() {
            return;
        }
        let from = match by {
            Side::Local => Side::Remote,
            Side::Remote => Side::Local,
        };
        self.count(from, Tally::Refused);
        if !std::mem::replace(is_logged, true) {
            warn!(bridge, ?by, ?reason, "a message of a bridge was refused; further ones are counted");
            self.shown.lock().last_error = Some(format!("a message was refused: {reason:?}"));
        }
    }

    /// Notes that a side refused subscriptions.
    pub(super) fn subscriptions_refused(&self, by: Side, count: usize, reason: Reason) {
        self.shown.lock().refused_subscriptions = Some(format!("{count} by {by}: {reason:?}"));
    }
}
