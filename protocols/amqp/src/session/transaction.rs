//! `tx`: publishes and acknowledgements that are kept back until the commit, and then are one entry of the log.
//!
//! Deliberately different from RabbitMQ: publishes and acknowledgements of a commit are atomic, across queues. Rejections
//! follow it.

use super::acking::{Settle, by_consumer, unknown_tag};
use super::assembly::Publish;
use super::channel::Channel;
use super::shared::{Shared, log_ended};
use super::unacked::Unacked;
use crate::codec::{Method, write};
use crate::error::Refusal;

/// What a channel's transaction holds.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    publishes: Vec<Held>,
    bytes: usize,
    settled: Vec<(Settle, Unacked)>,
}

#[derive(Debug)]
struct Held {
    exchange: String,
    routing_key: Vec<u8>,
    mandatory: bool,
    properties: Vec<u8>,
    body: Vec<u8>,
}

/// What a held publish takes beside its bytes.
const HELD_BYTES: usize = size_of::<Held>();

impl Transaction {
    /// Keeps a publish for the commit.
    pub(super) fn hold(&mut self, publish: &Publish<'_>, bytes_max: usize) -> Result<(), Refusal> {
        self.bytes += HELD_BYTES
            + publish.exchange.len()
            + publish.routing_key.len()
            + publish.properties.len()
            + publish.body.len();
        if self.bytes > bytes_max {
            return Err(Refusal::precondition_failed(format_args!(
                "transaction holds more than {bytes_max} bytes of messages"
            )));
        }
        self.publishes.push(Held {
            exchange: publish.exchange.to_owned(),
            routing_key: publish.routing_key.to_vec(),
            mandatory: publish.mandatory,
            properties: publish.properties.to_vec(),
            body: publish.body.to_vec(),
        });
        Ok(())
    }
}

fn not_transactional() -> Refusal {
    Refusal::precondition_failed("channel is not transactional")
}

impl Channel {
    /// An acknowledgement within a transaction: out of the ledger, but not settled before the commit.
    pub(super) fn settle_later(
        &mut self,
        tag: u64,
        multiple: bool,
        settle: Settle,
        shared: &Shared,
    ) -> Result<(), Refusal> {
        let taken = self.take_tags(tag, multiple).map_err(|_| unknown_tag(tag))?;
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if transaction.settled.len() + taken.len() > shared.limits.transaction_acks_max {
            return Err(Refusal::precondition_failed(format_args!(
                "transaction holds more than {} acknowledgements",
                shared.limits.transaction_acks_max
            )));
        }
        transaction.settled.extend(taken.into_iter().map(|delivery| (settle, delivery)));
        Ok(())
    }

    /// Everything at once; the answer waits for the log.
    pub(super) fn commit(&mut self, shared: &mut Shared, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let transaction = self.transaction.take().ok_or_else(not_transactional)?;
        self.transaction = Some(Transaction::default());
        for held in &transaction.publishes {
            let publish = Publish {
                exchange: &held.exchange,
                routing_key: &held.routing_key,
                mandatory: held.mandatory,
                properties: &held.properties,
                body: &held.body,
            };
            if let Err(refusal) = self.publish_now(&publish, shared, out) {
                shared.publisher.discard();
                return Err(refusal);
            }
        }
        let of = |wanted: Settle| -> Vec<Unacked> {
            transaction
                .settled
                .iter()
                .filter(|(settle, _)| *settle == wanted)
                .map(|(_, delivery)| *delivery)
                .collect()
        };
        let done = of(Settle::Ack);
        for (slot, ids) in by_consumer(&done) {
            if let Some(entry) = self.entry(slot) {
                shared.publisher.attach_ack(entry.consumer(), &ids);
            }
        }
        let lsn = shared.publisher.flush().map_err(log_ended)?;
        for (slot, ids) in by_consumer(&done) {
            self.released(slot, u32::try_from(ids.len()).unwrap_or(u32::MAX), shared);
        }
        let lsn = lsn.max(self.settle(Settle::Discard, &of(Settle::Discard), shared));
        self.settle(Settle::Requeue, &of(Settle::Requeue), shared);
        shared.last_lsn = lsn.or(shared.last_lsn);
        let number = self.number;
        shared.reply(lsn, out, |out| write::method(out, number, &Method::TxCommitOk {}));
        Ok(())
    }

    /// Nothing of it happened: what was acknowledged is unacknowledged again.
    pub(super) fn rollback(&mut self) -> Result<(), Refusal> {
        let transaction = self.transaction.take().ok_or_else(not_transactional)?;
        self.transaction = Some(Transaction::default());
        self.unacked.put_back(transaction.settled.into_iter().map(|(_, delivery)| delivery));
        Ok(())
    }
}
