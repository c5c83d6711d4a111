//! Messages to the client: from the live queue, the inbox, shared subscriptions and retained values, as much as the
//! window and the output take.
//!
//! Nothing is pulled that cannot be sent: what waits, waits in the broker's bounded queues or in the log.

use inver_broker::{Delivery, Filter, Message, Pull, ScanFrom, Target};
use inver_storage::batch::Record;
use smallvec::SmallVec;

use super::outbound::Source;
use super::subscriptions::Subscriptions;
use super::{Member, Session};
use crate::buffers;
use crate::codec::{Property, Publish, Qos, Version};
use crate::error::Stop;
use crate::map::{InboxFor, Outgoing, inbox_copy};

/// Messages pulled at a time.
const PULL_MESSAGES_MAX: usize = 1024;

/// Bytes asked for at a time at least, so that a nearly full output still moves.
const PULL_BYTES_MIN: usize = 4 * 1024;

/// Retained values looked up at a time.
const SCAN_VALUES_MAX: usize = 64;

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Live,
    Inbox,
    Member(u64),
}

impl From {
    pub(super) fn is_member(self, number: u64) -> bool {
        self == From::Member(number)
    }
}

/// Retained messages that a new subscription is still to get [MQTT-3.3.1-9].
pub(super) struct RetainedScan {
    pub(super) filter: Filter,
    pub(super) from: Option<ScanFrom>,
    pub(super) granted: Qos,
    pub(super) id: Option<u32>,
    /// They follow the SUBACK, which is this turn's answer.
    pub(super) after_turn: u64,
}

impl Session {
    /// The mailbox had this token. False if another connection takes the session over.
    pub(crate) fn wake(&mut self, token: u64) -> bool {
        match token {
            super::token::LIVE => self.live_ready = true,
            super::token::INBOX => self.inbox_ready = true,
            super::token::TAKEN_OVER => return false,
            number => {
                if let Some(member) = self.members.iter_mut().find(|member| member.number == number) {
                    member.ready = true;
                }
            }
        }
        true
    }

    /// Writes messages to `out` until it is full or nothing more can be sent now. Whether there is more to write once
    /// there is room again.
    pub(crate) fn deliver(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let full = self.config.output_bytes_max;
        loop {
            let before = out.len();
            self.deliver_held(out)?;
            if self.live_ready && out.len() < full {
                self.pull_live(out)?;
            }
            if self.inbox_ready && out.len() < full {
                self.pull_inbox(out)?;
            }
            for at in 0..self.members.len() {
                if out.len() < full {
                    self.pull_member(at, out)?;
                }
            }
            if out.len() < full {
                self.scan_retained(out)?;
            }
            self.flush()?;
            if out.len() >= full {
                return Ok(true);
            }
            if out.len() == before {
                return Ok(false);
            }
        }
    }

    fn bytes_wanted(&self, out: &[u8]) -> usize {
        self.config.output_bytes_max.saturating_sub(out.len()).max(PULL_BYTES_MIN)
    }

    fn pull_live(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let mut pulled = buffers::take_deliveries();
        let pull = self.core.pull_live(PULL_MESSAGES_MAX, self.bytes_wanted(out), &mut pulled);
        self.live_ready = pull.more;
        self.send_all(From::Live, pulled, out)
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
        let (room, bytes) = (self.room().saturating_sub(self.moved), self.bytes_wanted(out));
        let Some(member) = self.members.get_mut(at) else { return Ok(()) };
        if room == 0 || !member.ready {
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
            let behind = from != From::Live && !self.held.is_empty();
            if behind || !self.send(from, &delivery, out)? {
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

    /// Writes a message as a PUBLISH, or sees that it is not to be sent. False: its packet identifier is in use.
    fn send(&mut self, from: From, delivery: &Delivery, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let source = match from {
            From::Live => None,
            From::Inbox => Some(Source::Inbox { offset: delivery.id.offset }),
            From::Member(member) => Some(Source::Shared { member, id: delivery.id }),
        };
        let own_address = match from {
            From::Member(number) => {
                self.members.iter().find(|member| member.number == number).map(|m| m.address.clone())
            }
            From::Live | From::Inbox => None,
        };
        let address = delivery.topic.as_deref().map(str::as_bytes).or(own_address.as_deref());
        let Some(outgoing) = Outgoing::read(&delivery.record, address) else {
            tracing::debug!(client_id = self.core.client_id(), "a message without an address is passed over");
            self.done(source);
            return Ok(true);
        };
        if outgoing.is_expired(self.now_ms) {
            // [MQTT-3.3.2-5]
            self.done(source);
            return Ok(true);
        }
        let mut dup = false;
        let (mut qos, retain, ids) =
            terms_of(&mut self.subscriptions, &self.members, self.core.client_id(), from, &outgoing);
        if source.is_none() {
            // Best-effort messages have no identifier that lasts.
            qos = Qos::AtMostOnce;
        }
        if let From::Member(number) = from
            && qos == Qos::ExactlyOnce
            && self.core.is_durable()
        {
            let terms =
                InboxFor { granted: qos, retain, shared: true, subscription_id: ids.first().copied() };
            self.move_to_inbox(number, delivery, terms)?;
            return Ok(true);
        }
        let mut packet_id = 0;
        if qos == Qos::AtMostOnce {
            self.done(source);
        } else if let Some(source) = source {
            let sent = match source {
                Source::Inbox { offset } => {
                    dup = self.sent_before.is_none_or(|before| offset < before);
                    self.outbound.send_inbox(offset, qos)
                }
                Source::Shared { .. } | Source::Settled => self.outbound.send_other(source, qos),
            };
            let Some(id) = sent else { return Ok(false) };
            packet_id = id;
        }
        if let Some(Source::Inbox { offset }) = source {
            self.inbox_next = self.inbox_next.max(offset + 1);
            if outgoing.inbox_for.is_some_and(|terms| terms.shared) {
                self.moved = self.moved.saturating_sub(1);
            }
        }
        let publish = Publish {
            dup,
            qos,
            retain,
            topic: &outgoing.topic,
            packet_id,
            properties: crate::codec::Properties::EMPTY,
            payload: delivery.record.value.as_deref().unwrap_or_default(),
        };
        if !self.write(publish, &outgoing, &ids, out) && qos != Qos::AtMostOnce {
            // Too large for this client: as if it had been sent and acknowledged [MQTT-3.1.2-25].
            let source = self.outbound.withdraw(packet_id);
            self.done(source);
        }
        Ok(true)
    }

    /// A message at QoS 2 of a shared subscription is this session's from here on: it is completed with this client or
    /// not at all [MQTT-4.8.2-4], [MQTT-4.8.2-5]. So it changes from the group to the inbox, in one entry.
    fn move_to_inbox(&mut self, number: u64, delivery: &Delivery, terms: InboxFor) -> Result<(), Stop> {
        let headers = inbox_copy(&mut self.headers, &delivery.record, terms);
        let message = Message { headers, ..Message::of_record(&delivery.record, true) };
        self.publisher.publish(Target::Session(&self.core), &message)?;
        if let Some(member) = self.members.iter().find(|member| member.number == number) {
            self.publisher.attach_ack(&member.consumer, &[delivery.id]);
        }
        self.moved += 1;
        Ok(())
    }

    /// Writes a PUBLISH with its properties and perhaps an alias. False, and nothing written, if the client takes no
    /// packet of its size [MQTT-3.1.2-24].
    fn write(
        &mut self,
        publish: Publish<'_>,
        outgoing: &Outgoing<'_>,
        ids: &[u32],
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let mut set_alias = false;
        let mut topic = publish.topic;
        self.properties.clear();
        if self.version == Version::V5 {
            outgoing.put_properties(self.now_ms, &mut self.properties);
            for &id in ids {
                let _always_fits = self.properties.push(Property::SubscriptionIdentifier(id));
            }
            if let Some((alias, known)) = self.aliases_out.of(topic) {
                let _always_fits = self.properties.push(Property::TopicAlias(alias));
                set_alias = !known;
                if known {
                    topic = "";
                }
            }
        }
        let publish = Publish { topic, properties: self.properties.as_ref(), ..publish };
        let written = publish.encode(self.version, out).is_ok();
        if written && out.len() - start <= self.client_packet_bytes_max {
            return true;
        }
        out.truncate(start);
        if set_alias {
            self.aliases_out.unset(&outgoing.topic);
        }
        tracing::debug!(
            client_id = self.core.client_id(),
            topic = &*outgoing.topic,
            "too large for this client"
        );
        false
    }

    fn done(&mut self, source: Option<Source>) {
        if let Some(source) = source {
            self.acknowledged(source);
        }
    }

    /// Retained messages for new subscriptions: at QoS 0 straight to the client, else into the session's inbox, where
    /// they last until they are acknowledged.
    fn scan_retained(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        let Some(mut scan) = self.scans.pop_front() else { return Ok(()) };
        if !self.deferred.is_released(scan.after_turn) {
            self.scans.push_front(scan);
            return Ok(());
        }
        let mut records: Vec<Record> = Vec::new();
        let next =
            self.namespace.retained().scan(&scan.filter, scan.from.as_ref(), SCAN_VALUES_MAX, &mut records);
        for record in &records {
            self.send_retained(&scan, record, out)?;
        }
        self.flush()?;
        if next.is_some() {
            scan.from = next;
            self.scans.push_front(scan);
        }
        Ok(())
    }

    fn send_retained(&mut self, scan: &RetainedScan, record: &Record, out: &mut Vec<u8>) -> Result<(), Stop> {
        let Some(outgoing) = Outgoing::read(record, None) else { return Ok(()) };
        let qos = outgoing.qos.min(scan.granted);
        if qos == Qos::AtMostOnce {
            let publish = Publish {
                dup: false,
                qos,
                retain: true,
                topic: &outgoing.topic,
                packet_id: 0,
                properties: crate::codec::Properties::EMPTY,
                payload: record.value.as_deref().unwrap_or_default(),
            };
            self.write(publish, &outgoing, scan.id.as_slice(), out);
            return Ok(());
        }
        let terms = InboxFor { granted: scan.granted, retain: true, shared: false, subscription_id: scan.id };
        let headers = inbox_copy(&mut self.headers, record, terms);
        let message = Message { headers, ..Message::of_record(record, true) };
        self.publisher.publish(Target::Session(&self.core), &message)?;
        Ok(())
    }
}

/// QoS, RETAIN flag and subscription identifiers of a message.
fn terms_of(
    subscriptions: &mut Subscriptions,
    members: &[Member],
    client_id: &str,
    from: From,
    outgoing: &Outgoing<'_>,
) -> (Qos, bool, SmallVec<[u32; 4]>) {
    if let Some(terms) = outgoing.inbox_for {
        let ids = terms.subscription_id.into_iter().collect();
        return (outgoing.qos.min(terms.granted), terms.retain, ids);
    }
    if let From::Member(number) = from {
        let terms = members.iter().find(|member| member.number == number).map(|member| member.terms);
        let terms = terms.unwrap_or_default();
        let retain = terms.options.retain_as_published && outgoing.retain;
        return (outgoing.qos.min(terms.options.qos), retain, terms.id.into_iter().collect());
    }
    let own = subscriptions.any_no_local() && outgoing.client_id.is_some_and(|id| id == client_id.as_bytes());
    let matched = subscriptions.matched(&outgoing.topic, own);
    // Where the subscription is gone since, what was under way for it is still delivered (section 3.10.4).
    let qos = matched.qos.map_or(outgoing.qos, |granted| granted.min(outgoing.qos));
    (qos, matched.retain_as_published && outgoing.retain, matched.ids.clone())
}
