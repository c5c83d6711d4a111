//! A channel: its state, and the dispatch of its methods.

use std::collections::{HashMap, VecDeque};

use inver_broker::{Unsettled, UserChannel};
use inver_driver::CountedPublisher;
use slab::Slab;

use super::assembly::Assembly;
use super::confirms::ChannelConfirms;
use super::consumer::ChannelConsumer;
use super::shared::Shared;
use super::transaction::Transaction;
use super::unacked::UnackedDeliveries;
use crate::codec::{Method, write};
use crate::error::Refusal;

/// The classes that are dispatched as a whole.
const EXCHANGE: u16 = 40;
const QUEUE: u16 = 50;

/// The outcome of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was processed; its reply may wait for the log.
    Done,
    /// It must wait, or is not done: process the same frame again, after the halt or in the next turn.
    Retry,
    /// The channel was closed and must be removed.
    Closed,
}

/// A channel.
pub(super) struct Channel {
    /// The channel number.
    pub(super) number: u16,
    /// Distinguishes channels that had the same number.
    pub(super) incarnation: u64,
    /// `channel.close` was sent, and `channel.close-ok` not yet received.
    pub(super) closing: bool,
    pub(super) assembly: Assembly,
    pub(super) confirms: ChannelConfirms,
    pub(super) transaction: Option<Transaction>,
    /// The queue declared last, which an empty queue name denotes.
    pub(super) last_queue: String,
    pub(super) next_tag: u64,
    pub(super) unacked: UnackedDeliveries,
    /// The tag up to which a method settles deliveries in several turns.
    pub(super) settling: Option<u64>,
    /// Sampled deliveries that are not settled, by delivery tag.
    pub(super) traced: Unsettled,
    /// Consumers and getters by slot. A slot is freed when no unacked delivery refers to it.
    pub(super) consumers: Slab<ChannelConsumer>,
    /// Slots of consumers by consumer tag.
    pub(super) tags: HashMap<String, u32>,
    /// Slots of getters, which serve `basic.get`, by queue.
    pub(super) getters: HashMap<String, u32>,
    /// Prefetch count of consumers started from now on; 0 for no limit.
    pub(super) prefetch: u32,
    /// Prefetch count shared by the channel's consumers; 0 for no limit.
    pub(super) prefetch_shared: u32,
    /// Unacked deliveries that count against the shared prefetch.
    pub(super) unacked_shared: u32,
    /// Consumers that are paused by the shared prefetch or the unacked limit, in order.
    pub(super) paused: VecDeque<u32>,
    /// Consumers whose next messages cannot be read: they are told once the channel holds no delivery, which its closing would
    /// requeue.
    pub(super) unreadable: Vec<u32>,
    /// A `basic.get` found the queue empty and waits for pending writes; if it is empty again, the reply is
    /// `get-empty`.
    pub(super) get_was_empty: bool,
    /// The queue behind `amq.rabbitmq.reply-to`, if the channel consumes from it.
    pub(super) reply_queue: Option<String>,
    /// Its place among the channels of the user; taken when it closes.
    counted: Option<UserChannel>,
    /// Its end was told.
    is_released: bool,
    /// There once the channel has published.
    pub(super) publisher: Option<CountedPublisher>,
}

impl Channel {
    /// A channel that was just opened.
    pub(super) fn new(number: u16, incarnation: u64, counted: Option<UserChannel>) -> Channel {
        Channel {
            number,
            incarnation,
            closing: false,
            assembly: Assembly::default(),
            confirms: ChannelConfirms::default(),
            transaction: None,
            last_queue: String::new(),
            next_tag: 1,
            unacked: UnackedDeliveries::default(),
            settling: None,
            traced: Unsettled::default(),
            consumers: Slab::new(),
            tags: HashMap::new(),
            getters: HashMap::new(),
            prefetch: 0,
            prefetch_shared: 0,
            unacked_shared: 0,
            paused: VecDeque::new(),
            unreadable: Vec::new(),
            get_was_empty: false,
            reply_queue: None,
            counted,
            is_released: false,
            publisher: None,
        }
    }

    /// Processes a method without content.
    pub(super) fn method(
        &mut self,
        method: &Method<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let number = self.number;
        match method.id() {
            (EXCHANGE, _) => return self.exchange_method(method, shared, out),
            (QUEUE, _) => return self.queue_method(method, shared, out),
            _ => {}
        }
        match *method {
            Method::ChannelOpen { .. } => return Err(Refusal::channel_error("second 'channel.open' seen")),
            Method::ChannelClose { .. } => {
                self.release(shared);
                write::method(out, number, &Method::ChannelCloseOk {});
                return Ok(Outcome::Closed);
            }
            Method::ChannelFlow { active: true } => {
                write::method(out, number, &Method::ChannelFlowOk { active: true });
            }
            Method::ChannelFlow { active: false } => return Err(Refusal::not_implemented("active=false")),
            Method::AccessRequest { .. } => {
                write::method(out, number, &Method::AccessRequestOk { ticket: 1 });
            }

            Method::BasicAck { delivery_tag, multiple } => {
                return self.ack(delivery_tag, multiple, shared);
            }
            Method::BasicNack { delivery_tag, multiple, requeue } => {
                return self.nack(delivery_tag, multiple, requeue, shared);
            }
            Method::BasicReject { delivery_tag, requeue } => {
                return self.nack(delivery_tag, false, requeue, shared);
            }
            Method::BasicRecoverAsync { requeue } => return self.recover(requeue, shared),
            Method::BasicRecover { requeue } => {
                let outcome = self.recover(requeue, shared)?;
                if outcome == Outcome::Done {
                    write::method(out, number, &Method::BasicRecoverOk {});
                }
                return Ok(outcome);
            }
            Method::BasicQos { prefetch_size, prefetch_count, global } => {
                self.qos(prefetch_size, prefetch_count, global, shared)?;
                write::method(out, number, &Method::BasicQosOk {});
            }
            Method::BasicConsume { .. } => return self.consume(method, shared, out),
            Method::BasicCancel { consumer_tag, nowait } => {
                self.cancel(consumer_tag, shared);
                if !nowait {
                    write::method(out, number, &Method::BasicCancelOk { consumer_tag });
                }
            }
            // The client's answer to a `basic.cancel` from the broker.
            Method::BasicCancelOk { .. } => {}
            Method::BasicGet { queue, no_ack, .. } => return self.get(queue, no_ack, shared, out),

            Method::ConfirmSelect { nowait } => {
                if self.transaction.is_some() {
                    return Err(Refusal::precondition_failed("cannot switch from tx to confirm mode"));
                }
                self.confirms.enabled = true;
                if !nowait {
                    write::method(out, number, &Method::ConfirmSelectOk {});
                }
            }
            Method::TxSelect {} => {
                if self.confirms.enabled {
                    return Err(Refusal::precondition_failed("cannot switch from confirm to tx mode"));
                }
                self.transaction.get_or_insert_default();
                write::method(out, number, &Method::TxSelectOk {});
            }
            Method::TxCommit {} => self.commit(shared, out)?,
            Method::TxRollback {} => {
                self.rollback(shared)?;
                write::method(out, number, &Method::TxRollbackOk {});
            }
            _ => return Err(Refusal::command_invalid("unimplemented method")),
        }
        Ok(Outcome::Done)
    }

    /// The queue name that a method denotes: an empty one is the queue declared last.
    pub(super) fn queue_name(&self, given: &str) -> Result<String, Refusal> {
        match (given, self.last_queue.as_str()) {
            ("", "") => Err(Refusal::not_found("no previously declared queue")),
            ("", last) => Ok(last.to_owned()),
            (given, _) => Ok(given.to_owned()),
        }
    }

    /// Ends all consumers: acknowledgements take effect, unacked messages are requeued.
    pub(super) fn release(&mut self, shared: &mut Shared) {
        for (_, consumer) in &mut self.consumers {
            consumer.send_last_acks();
        }
        if !std::mem::replace(&mut self.is_released, true) {
            self.tell_closed(shared);
        }
        shared.acknowledged.retain(|at| at.channel != self.number);
        self.consumers.clear();
        self.tags.clear();
        self.getters.clear();
        self.paused.clear();
        self.unreadable.clear();
        self.unacked = UnackedDeliveries::default();
        self.settling = None;
        self.traced = Unsettled::default();
        self.unacked_shared = 0;
        if let Some(transaction) = self.transaction.take() {
            transaction.forget(&mut shared.transaction_bytes);
        }
        self.assembly.clear(&mut shared.bodies);
        self.reply_queue = None;
        self.counted = None;
        self.publisher = None;
    }
}
