//! Retained messages for a new subscription: at QoS 0 straight to the client, at QoS 1 and 2 through the session's
//! inbox, where they are kept until they are acknowledged.

use inver_broker::Message;
use inver_storage::batch::Record;

use super::Session;
use super::source::RetainedScan;
use crate::codec::Qos;
use crate::error::Stop;
use crate::map::{InboxFor, Outgoing, inbox_copy};

/// Retained values read in one step of a scan.
const SCAN_VALUES_MAX: usize = 64;

impl Session {
    /// Runs one step of the oldest scan. True if the next step can follow at once; a step that filled the inbox waits
    /// until its messages are sent.
    pub(super) fn scan_retained(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let Some(mut scan) = self.scans.pop_front() else { return Ok(false) };
        if !self.deferred.is_released(scan.after_turn) {
            self.scans.push_front(scan);
            return Ok(false);
        }
        let mut records: Vec<Record> = Vec::new();
        let next = self.core.scan_retained(&scan.filter, scan.from.as_ref(), SCAN_VALUES_MAX, &mut records);
        let mut filled_inbox = false;
        for record in &records {
            filled_inbox |= self.send_retained(&scan, record, out)?;
        }
        self.flush()?;
        if next.is_some() {
            scan.from = next;
            self.scans.push_front(scan);
        } else if scan.is_sys {
            self.send_sys_retained(&scan, out)?;
        }
        if self.scans.is_empty() {
            // Most devices subscribe once and then only listen.
            self.deferred.shrink();
        }
        Ok(!filled_inbox && !self.scans.is_empty())
    }

    /// Sends one retained message; true if through the inbox.
    fn send_retained(
        &mut self,
        scan: &RetainedScan,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        let Some(outgoing) = Outgoing::read(record, None, self.server.config.amqp_names) else {
            return Ok(false);
        };
        if self.qos_of(&outgoing, scan.granted) == Qos::AtMostOnce {
            self.write_qos_0(true, record, &outgoing, scan.subscription_id.as_slice(), out);
            return Ok(false);
        }
        let inbox_for = InboxFor {
            granted: scan.granted,
            retain: true,
            shared: false,
            subscription_id: scan.subscription_id,
        };
        let headers = inbox_copy(&mut self.scratch.get().headers, record, &outgoing.topic, inbox_for);
        let message = Message { headers, ..Message::of_record(record, true) };
        self.publisher.of(&self.core).publish(self.core.target(), &message)?;
        Ok(true)
    }
}
