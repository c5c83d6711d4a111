//! Quotas of a connection: what it uses is measured by the turn, and it is held back while it has used too much.
//!
//! A client that has sent too much is not read, so that back-pressure reaches it through TCP; one that was sent too much gets
//! no messages, which stay where they are; answers still go out. A connection that no quota concerns has none of this.

use std::sync::Arc;

use inver_broker::{AppliedQuotas, LiveConnection, QuotaKind};
use tokio::time::{Duration, Instant};

use crate::traffic::{Count, CountedThrottled, count, counted_messages};

/// Bytes read for each message that the quota still admits: small messages come many at a time.
const READ_BYTES_OF_MESSAGE: f64 = 16.0;

/// The least that is read at a time.
const READ_BYTES_MIN: usize = 512;

/// How much may be delivered in a turn. A machine delivers while less is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may be written before the next message. One message may exceed it.
    pub bytes: usize,
    /// Messages.
    pub messages: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { bytes: usize::MAX, messages: usize::MAX }
    }
}

impl Room {
    const NONE: Room = Room { bytes: 0, messages: 0 };

    /// Whether no quota limits deliveries.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Room::default()
    }
}

/// A connection that quotas concern.
#[derive(Default)]
pub(crate) struct Throttle {
    quotas: Arc<AppliedQuotas>,
    /// Until when the client is not read.
    in_until: Option<Instant>,
    /// Until when no message is delivered.
    out_until: Option<Instant>,
    throttled: Option<CountedThrottled>,
}

impl Throttle {
    /// What holds at `now`. True if deliveries were held back and are no longer.
    pub(crate) fn follow(place: &LiveConnection, throttle: &mut Option<Box<Throttle>>, now: Instant) -> bool {
        let quotas = place.quotas();
        let served_from = place.served_from().filter(|from| *from > now);
        if quotas.is_none() && served_from.is_none() {
            let Some(before) = throttle.take() else { return false };
            if before.throttled.is_some() {
                place.set_throttled(false);
            }
            return before.out_until.is_some();
        }
        throttle.get_or_insert_default().update(place, quotas.unwrap_or_default(), served_from, now)
    }

    fn update(
        &mut self,
        place: &LiveConnection,
        quotas: Arc<AppliedQuotas>,
        served_from: Option<Instant>,
        now: Instant,
    ) -> bool {
        let until = |delay: Duration| (!delay.is_zero()).then(|| now + delay);
        let in_until = until(quotas.delay_in(now)).max(served_from);
        let out_until = until(quotas.delay_out(now));
        count(Count::ThrottledIn, (in_until.is_some() && self.in_until.is_none()).into());
        count(Count::ThrottledOut, (out_until.is_some() && self.out_until.is_none()).into());
        let goes_on = self.out_until.is_some() && out_until.is_none();
        let is_throttled = in_until.is_some() || out_until.is_some();
        if is_throttled != self.throttled.is_some() {
            place.set_throttled(is_throttled);
            self.throttled = is_throttled.then(CountedThrottled::default);
        }
        (self.quotas, self.in_until, self.out_until) = (quotas, in_until, out_until);
        goes_on
    }

    /// Whether the client is not read.
    pub(crate) fn holds_input(&self) -> bool {
        self.in_until.is_some()
    }

    /// Whether no message is delivered.
    pub(crate) fn holds_deliveries(&self) -> bool {
        self.out_until.is_some()
    }

    /// When something that is held back may go on.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.in_until, self.out_until].into_iter().flatten().min()
    }

    /// Bytes to be read at a time.
    pub(crate) fn read_bytes(&self, max: usize, now: Instant) -> usize {
        let of_messages = self.quotas.portion(QuotaKind::MessagesIn, now);
        let bytes = [
            self.quotas.portion(QuotaKind::BytesIn, now),
            of_messages.map(|messages| messages * READ_BYTES_OF_MESSAGE),
        ];
        bytes
            .into_iter()
            .flatten()
            .fold(max, |bytes, portion| bytes.min(portion as usize))
            .max(READ_BYTES_MIN)
    }

    /// What may be delivered in this turn.
    pub(crate) fn room(&self, now: Instant) -> Room {
        if self.holds_deliveries() {
            return Room::NONE;
        }
        let portion = |kind| self.quotas.portion(kind, now).map(|portion| (portion as usize).max(1));
        let room = Room::default();
        Room {
            bytes: portion(QuotaKind::BytesOut).unwrap_or(room.bytes),
            messages: portion(QuotaKind::MessagesOut).unwrap_or(room.messages),
        }
    }

    /// Takes bytes that were read.
    pub(crate) fn has_read(&self, bytes: usize, now: Instant) {
        self.quotas.take(QuotaKind::BytesIn, bytes as f64, now);
    }

    /// Begins to measure a turn.
    pub(crate) fn measure(&self, pending_bytes: usize) -> Measured {
        let (received, sent) = counted_messages();
        let started = self.quotas.limits(QuotaKind::RequestTime).then(Instant::now);
        Measured { quotas: self.quotas.clone(), pending_bytes, received, sent, started }
    }
}

/// A turn that is measured: what there was before it.
pub(crate) struct Measured {
    quotas: Arc<AppliedQuotas>,
    pending_bytes: usize,
    received: u64,
    sent: u64,
    started: Option<Instant>,
}

impl Measured {
    /// Takes what the turn has used; of messages and bytes, only if the machine does not.
    pub(crate) fn take(self, takes_traffic: bool, pending_bytes: usize, now: Instant) {
        let quotas = &self.quotas;
        if takes_traffic {
            let (received, sent) = counted_messages();
            quotas.take(QuotaKind::MessagesIn, (received - self.received) as f64, now);
            quotas.take(QuotaKind::MessagesOut, (sent - self.sent) as f64, now);
            let written = pending_bytes.saturating_sub(self.pending_bytes);
            quotas.take(QuotaKind::BytesOut, written as f64, now);
        }
        if let Some(started) = self.started {
            quotas.take(QuotaKind::RequestTime, started.elapsed().as_secs_f64(), now);
        }
    }
}
