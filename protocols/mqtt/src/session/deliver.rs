//! Messages to the client: from the live queue, the inbox, shared subscriptions and retained values, as much as the
//! window and the output take.
//!
//! Nothing is pulled that cannot be sent: what waits, waits in the broker's bounded queues or in the log. How a message
//! is written is in `send`, those of the live queue are in `live`, retained ones in `retained`.

use inver_broker::{Delivery, Pull};

use super::Session;
use crate::buffers;
use crate::codec::Reason;
use crate::error::Stop;

/// Messages pulled at a time.
const PULL_MESSAGES_MAX: usize = 1024;

/// Bytes asked for at a time at least, so that a nearly full output still moves.
const PULL_BYTES_MIN: usize = 4 * 1024;

/// Where a guaranteed message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Inbox,
    Member(u64),
}

impl From {
    pub(super) fn is_member(self, number: u64) -> bool {
        self == From::Member(number)
    }
}

impl Session {
    /// The mailbox had this token.
    pub(crate) fn wake(&mut self, token: u64) -> Result<(), Stop> {
        match token {
            super::token::LIVE => self.live_ready = true,
            super::token::INBOX => self.inbox_ready = true,
            super::token::TAKEN_OVER => {
                // [MQTT-3.1.4-3]
                let why = "another connection took the session over";
                return Err(Stop::Tell(Reason::SessionTakenOver, why.into()));
            }
            super::token::GOING_DOWN => {
                return Err(Stop::Tell(Reason::ServerShuttingDown, "the server is going down".into()));
            }
            super::token::SYS => self.sys_due = true,
            number => {
                if let Some(member) = self.members.get_mut(number) {
                    member.ready = true;
                }
            }
        }
        Ok(())
    }

    /// Writes messages to `out` until it is full or nothing more can be sent now. Whether there is more to write once
    /// there is room again.
    pub(crate) fn deliver(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let more = self.deliver_some(out);
        self.scratch.give_back();
        let (received, sent) = (std::mem::take(&mut self.received), std::mem::take(&mut self.sent));
        self.config.sys.count(u64::from(received), u64::from(sent));
        more
    }

    fn deliver_some(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let full = self.config.output_bytes_max;
        loop {
            let before = out.len();
            self.deliver_held(out)?;
            if out.len() < full {
                self.deliver_live(out);
            }
            if self.inbox_ready && out.len() < full {
                self.pull_inbox(out)?;
            }
            for at in 0..self.members.len() {
                if out.len() < full {
                    self.pull_member(at, out)?;
                }
            }
            let scan_on = out.len() < full && self.scan_retained(out)?;
            if self.sys_due && out.len() < full {
                self.sys_due = false;
                self.send_sys(out);
            }
            self.flush()?;
            if out.len() >= full {
                return Ok(true);
            }
            if out.len() == before {
                return Ok(scan_on);
            }
        }
    }

    pub(super) fn bytes_wanted(&self, out: &[u8]) -> usize {
        self.config.output_bytes_max.saturating_sub(out.len()).max(PULL_BYTES_MIN)
    }

    fn pull_inbox(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let room = self.room();
        if room == 0 {
            return Ok(());
        }
        let mut pulled = buffers::take_deliveries();
        let pull = self.core.pull_inbox(room, self.bytes_wanted(out), &mut pulled);
        self.inbox_ready = pull.more;
        let drained = !pull.more && !pull.pending;
        self.send_all(From::Inbox, pulled, out)?;
        if drained && self.sent_before.is_none() {
            self.sent_before = Some(self.inbox_next);
        }
        Ok(())
    }

    fn pull_member(&mut self, at: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        // What was moved to the inbox takes its place in the window soon; the rest is for other members.
        let (room, bytes) = (self.room().saturating_sub(self.moved as usize), self.bytes_wanted(out));
        let Some(member) = self.members.at(at) else { return Ok(()) };
        if !member.ready {
            return Ok(());
        }
        if room == 0 {
            // What it was woken for goes to another; it asks again when there is room.
            let _none = member.consumer.pull(0, 0, &mut Vec::new());
            return Ok(());
        }
        let number = member.number;
        let mut pulled = buffers::take_deliveries();
        let Pull { more, cancelled, .. } = member.consumer.pull(room, bytes, &mut pulled);
        member.ready = more && !cancelled;
        self.send_all(From::Member(number), pulled, out)
    }

    /// How many messages at QoS 1 and 2 may be pulled now: none while one waits for its identifier.
    fn room(&self) -> usize {
        if self.held.is_empty() { self.outbound.room().min(PULL_MESSAGES_MAX) } else { 0 }
    }

    fn send_all(&mut self, from: From, mut pulled: Vec<Delivery>, out: &mut Vec<u8>) -> Result<(), Stop> {
        for delivery in pulled.drain(..) {
            // Behind one that waits for its identifier, all wait: they keep their order [MQTT-4.6.0-6].
            if !self.held.is_empty() || !self.send(from, &delivery, out)? {
                self.held.push_back((from, delivery));
            }
        }
        buffers::give_deliveries(pulled);
        Ok(())
    }

    fn deliver_held(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        while let Some((from, delivery)) = self.held.pop_front() {
            if !self.send(from, &delivery, out)? {
                self.held.push_front((from, delivery));
                break;
            }
        }
        Ok(())
    }
}
