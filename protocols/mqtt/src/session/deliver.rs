//! Messages to the client: from the QoS 0 queue, the inbox, shared subscriptions and retained values, as far as the
//! inflight window and the output have room.
//!
//! A message that cannot be sent is not pulled: it stays in the broker's bounded queues or in the log. `send` writes a
//! message, `live` the QoS 0 queue, `retained` the retained values.

use inver_broker::{Delivery, Pull};
use inver_driver::Room;

use super::Session;
use super::source::DeliverySource;
use crate::buffers;
use crate::error::Stop;
use crate::sys;

/// Messages in one pull.
const PULL_MESSAGES_MAX: usize = 1024;

/// Bytes asked for in one pull at least, so that a nearly full output still makes progress.
const PULL_BYTES_MIN: usize = 4 * 1024;

impl Session {
    /// Writes messages to `out` until it is full or nothing more can be sent now. True: there is more to write once
    /// the output has room, or a quota allows more.
    pub(crate) fn deliver(&mut self, room: Room, out: &mut Vec<u8>) -> Result<bool, Stop> {
        self.sent_max = u32::try_from(room.messages).unwrap_or(u32::MAX);
        let full = self.server.config.output_bytes_max.min(out.len().saturating_add(room.bytes));
        let more = self.deliver_rounds(full, out);
        self.count_presence();
        self.scratch.give_back();
        let (received, sent) = (std::mem::take(&mut self.received), std::mem::take(&mut self.sent));
        sys::count(sys::Count::PublishesReceived, received.into());
        sys::count(sys::Count::PublishesSent, sent.into());
        sys::count(sys::Count::PacketsSent, sent.into());
        more
    }

    /// Counts the client as publisher and consumer once it is one.
    fn count_presence(&mut self) {
        if self.received > 0 {
            self.counted.publisher.get_or_insert_default();
        }
        if self.subscriptions.is_empty() && self.shared.len() == 0 {
            self.counted.consumer = None;
        } else {
            self.counted.consumer.get_or_insert_default();
        }
    }

    /// Whether another message may be written.
    pub(super) fn may_send(&self, full: usize, out: &[u8]) -> bool {
        out.len() < full && self.sent < self.sent_max
    }

    fn deliver_rounds(&mut self, full: usize, out: &mut Vec<u8>) -> Result<bool, Stop> {
        loop {
            let before = out.len();
            if self.may_send(full, out) {
                self.deliver_blocked(out)?;
            }
            if self.may_send(full, out) {
                self.deliver_live(full, out);
            }
            if self.inbox_ready && self.may_send(full, out) {
                self.pull_inbox(full, out)?;
            }
            for index in 0..self.shared.len() {
                if self.may_send(full, out) {
                    self.pull_shared(index, full, out)?;
                }
            }
            let scan_continues = self.may_send(full, out) && self.scan_retained(out)?;
            if self.sys_due && self.may_send(full, out) {
                self.sys_due = false;
                self.send_sys(out)?;
            }
            self.flush_in_slices()?;
            if !self.may_send(full, out) {
                return Ok(true);
            }
            if out.len() == before {
                return Ok(scan_continues);
            }
        }
    }

    /// Bytes to ask for in a pull.
    pub(super) fn bytes_wanted(full: usize, out: &[u8]) -> usize {
        full.saturating_sub(out.len()).max(PULL_BYTES_MIN)
    }

    fn pull_inbox(&mut self, full: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        let room = self.room();
        if room == 0 {
            return Ok(());
        }
        let mut pulled = buffers::take_deliveries();
        let pull = self.core.pull_inbox(room, Session::bytes_wanted(full, out), &mut pulled);
        self.inbox_ready = pull.more;
        let is_empty = !pull.more && !pull.pending;
        self.send_all(DeliverySource::Inbox, pulled, out)?;
        if pull.unreadable {
            return Err(Stop::Unreadable);
        }
        if is_empty && self.sent_before == u64::MAX {
            self.sent_before = self.inbox_next;
        }
        Ok(())
    }

    fn pull_shared(&mut self, index: usize, full: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        // Messages moved to the inbox need room in the window soon; leave that many to other members of the group.
        let (room, bytes) =
            (self.room().saturating_sub(self.moved as usize), Session::bytes_wanted(full, out));
        let Some(shared) = self.shared.at(index) else { return Ok(()) };
        if !shared.ready {
            return Ok(());
        }
        if room == 0 {
            // An empty pull passes the wake-up to another member. This one pulls again when it has room.
            let _none = shared.consumer.pull(0, 0, &mut Vec::new());
            return Ok(());
        }
        let number = shared.number;
        let mut pulled = buffers::take_deliveries();
        let (text, consumer) = (shared.text.as_bytes(), &mut shared.consumer);
        let Pull { more, cancelled, unreadable, .. } =
            self.core.pull_shared(text, consumer, room, bytes, &mut pulled);
        shared.ready = more && !cancelled;
        self.send_all(DeliverySource::Shared(number), pulled, out)?;
        if unreadable { Err(Stop::Unreadable) } else { Ok(()) }
    }

    /// Messages at QoS 1 and 2 that may be pulled now; none while one waits for its packet identifier.
    fn room(&self) -> usize {
        if !self.blocked.is_empty() {
            return 0;
        }
        let left = self.sent_max.saturating_sub(self.sent) as usize;
        self.inflight.room().min(PULL_MESSAGES_MAX).min(left)
    }

    fn send_all(
        &mut self,
        source: DeliverySource,
        mut pulled: Vec<Delivery>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        for delivery in pulled.drain(..) {
            // Messages behind one that waits for its packet identifier wait too: order is kept [MQTT-4.6.0-6].
            if !self.blocked.is_empty() || !self.send(source, &delivery, out)? {
                self.blocked.push_back((source, delivery));
            }
        }
        buffers::give_deliveries(pulled);
        Ok(())
    }

    fn deliver_blocked(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        while let Some((source, delivery)) = self.blocked.pop_front() {
            if !self.send(source, &delivery, out)? {
                self.blocked.push_front((source, delivery));
                break;
            }
        }
        Ok(())
    }
}
