//! Retained messages for new subscriptions: at QoS 0 straight to the client, else into the session's inbox, where they
//! last until they are acknowledged.

use inver_broker::{Filter, Message, ScanFrom, Target};
use inver_storage::batch::Record;

use super::Session;
use crate::codec::Qos;
use crate::error::Stop;
use crate::map::{InboxFor, Outgoing, inbox_copy};

/// Retained values looked up at a time.
const SCAN_VALUES_MAX: usize = 64;

/// Retained messages that a new subscription is still to get [MQTT-3.3.1-9].
pub(super) struct RetainedScan {
    pub(super) filter: Filter,
    /// It is one of `$SYS` topics.
    pub(super) sys: bool,
    pub(super) from: Option<ScanFrom>,
    pub(super) granted: Qos,
    pub(super) id: Option<u32>,
    /// They follow the SUBACK, which is this turn's answer.
    pub(super) after_turn: u64,
}

impl Session {
    /// Sends the next of them. Whether it can go on at once: what went to the inbox is sent before.
    pub(super) fn scan_retained(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let Some(mut scan) = self.scans.pop_front() else { return Ok(false) };
        if !self.deferred.is_released(scan.after_turn) {
            self.scans.push_front(scan);
            return Ok(false);
        }
        let mut records: Vec<Record> = Vec::new();
        let next = self.core.namespace().retained().scan(
            &scan.filter,
            scan.from.as_ref(),
            SCAN_VALUES_MAX,
            &mut records,
        );
        let mut to_inbox = false;
        for record in &records {
            to_inbox |= self.send_retained(&scan, record, out)?;
        }
        self.flush()?;
        if next.is_some() {
            scan.from = next;
            self.scans.push_front(scan);
        } else if scan.sys {
            self.send_sys_retained(&scan, out);
        }
        Ok(!to_inbox && !self.scans.is_empty())
    }

    /// Whether it went to the inbox.
    fn send_retained(
        &mut self,
        scan: &RetainedScan,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        let Some(outgoing) = Outgoing::read(record, None) else { return Ok(false) };
        if outgoing.qos.min(scan.granted) == Qos::AtMostOnce {
            self.write(Qos::AtMostOnce, true, record, &outgoing, scan.id.as_slice(), out);
            return Ok(false);
        }
        let terms = InboxFor { granted: scan.granted, retain: true, shared: false, subscription_id: scan.id };
        let headers = inbox_copy(&mut self.scratch.get().headers, record, terms);
        let message = Message { headers, ..Message::of_record(record, true) };
        self.publisher.of(&self.core).publish(Target::Session(&self.core), &message)?;
        Ok(true)
    }
}
