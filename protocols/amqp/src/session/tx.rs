//! The `tx` class: commit and rollback of a channel's transaction.

use inver_broker::Completion;

use super::channel::{Channel, Outcome};
use super::shared::Shared;
use super::transaction::Transaction;
use super::unacked::{Disposition, UnackedDelivery, by_consumer, unknown_tag};
use crate::codec::{Method, write};
use crate::error::Refusal;
use crate::map::Publish;

fn not_transactional() -> Refusal {
    Refusal::precondition_failed("channel is not transactional")
}

impl Channel {
    /// Holds acknowledgements for the commit. The deliveries are no longer unacked, and a rollback restores them.
    pub(super) fn hold_acks(
        &mut self,
        tag: u64,
        multiple: bool,
        disposition: Disposition,
        shared: &Shared,
    ) -> Result<Outcome, Refusal> {
        let taken = self.take_tags(tag, multiple).map_err(|_| unknown_tag(tag))?;
        let Some(transaction) = &mut self.transaction else { return Ok(Outcome::Done) };
        if transaction.dispositions.len() + taken.len() > shared.limits.transaction_acks_max {
            return Err(Refusal::precondition_failed(format_args!(
                "limit reached: at most {} acknowledgements per transaction",
                shared.limits.transaction_acks_max
            )));
        }
        transaction.dispositions.extend(taken.into_iter().map(|delivery| (disposition, delivery)));
        Ok(Outcome::Done)
    }

    /// Commits the transaction as one entry. The reply waits for the log.
    pub(super) fn commit(&mut self, shared: &mut Shared, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let transaction = self.take_transaction(shared)?;
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
        let of = |wanted: Disposition| -> Vec<UnackedDelivery> {
            transaction
                .dispositions
                .iter()
                .filter(|(disposition, _)| *disposition == wanted)
                .map(|(_, delivery)| *delivery)
                .collect()
        };
        let acked = of(Disposition::Ack);
        for (slot, ids) in by_consumer(&acked) {
            if let Some(consumer) = self.consumer(slot) {
                shared.publisher.attach_ack(consumer.core(), &ids);
            }
        }
        let written = shared.publisher.flush().map_err(Refusal::internal)?;
        for (slot, ids) in by_consumer(&acked) {
            self.release_prefetch(slot, u32::try_from(ids.len()).unwrap_or(u32::MAX), shared);
        }
        let rejected = self.dispose(Disposition::Reject, &of(Disposition::Reject), shared)?;
        let requeued = self.dispose(Disposition::Requeue, &of(Disposition::Requeue), shared)?;
        let done = written.and(rejected).and(requeued);
        if done != Completion::Now {
            shared.last_write = done;
        }
        let number = self.number;
        shared.reply(done, out, |out| write::method(out, number, &Method::TxCommitOk {}));
        Ok(())
    }

    /// Takes what the transaction holds; the next one begins.
    fn take_transaction(&mut self, shared: &mut Shared) -> Result<Transaction, Refusal> {
        let transaction = std::mem::take(self.transaction.as_mut().ok_or_else(not_transactional)?);
        transaction.forget(&mut shared.transaction_bytes);
        Ok(transaction)
    }

    /// Whether its transaction holds publishes.
    pub(super) fn holds_publishes(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| !transaction.publishes.is_empty())
    }

    /// Rolls the transaction back: publishes are discarded, deliveries are unacked again.
    pub(super) fn rollback(&mut self, shared: &mut Shared) -> Result<(), Refusal> {
        let transaction = self.take_transaction(shared)?;
        self.unacked.put_back(transaction.dispositions.into_iter().map(|(_, delivery)| delivery));
        Ok(())
    }
}
