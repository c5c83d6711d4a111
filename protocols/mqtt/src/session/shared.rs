//! Shared subscriptions that the session is a member of (section 4.8.2).

use std::sync::Arc;

use inver_broker::address::{Form, rewrite};
use inver_broker::{Consumer, DeliveryId};

use super::terms::Terms;
use crate::codec::{Shared, split_shared};
use crate::token;

/// A shared subscription of this session.
pub(super) struct SharedSubscription {
    /// Mailbox token of its consumer; also names it in [`AckTarget`](super::inflight::AckTarget).
    pub(super) number: u64,
    /// `$share/{group}/{filter}`.
    pub(super) text: Box<str>,
    pub(super) terms: Terms,
    /// Address (dotted) of messages that carry none: those of the log topic that the filter names exactly.
    pub(super) address: Arc<[u8]>,
    pub(super) consumer: Consumer,
    /// It may have messages.
    pub(super) ready: bool,
    /// Acknowledgements gathered in this turn.
    pub(super) acked: Vec<DeliveryId>,
}

impl SharedSubscription {
    fn new(number: u64, text: &str, terms: Terms, consumer: Consumer) -> SharedSubscription {
        let filter = match split_shared(text) {
            Shared::Yes { filter, .. } => filter,
            Shared::No | Shared::Invalid => text,
        };
        let address = rewrite(Form::Slashed, Form::Dotted, filter.as_bytes()).into_owned().into();
        let (ready, acked) = (true, Vec::new());
        SharedSubscription { number, text: text.into(), terms, address, consumer, ready, acked }
    }
}

/// The session's shared subscriptions; one pointer while it has none.
#[derive(Default)]
pub(super) struct SharedSubscriptions(Option<Box<Joined>>);

#[derive(Default)]
struct Joined {
    list: Vec<SharedSubscription>,
    /// Subscriptions joined so far. Numbers are not reused.
    joined: u64,
}

impl SharedSubscriptions {
    /// The number of the next subscription, which its consumer's mailbox token must be.
    pub(super) fn next_number(&self) -> u64 {
        token::SHARED + self.0.as_ref().map_or(0, |joined| joined.joined)
    }

    /// Adds a subscription under [`next_number`](Self::next_number).
    pub(super) fn push(&mut self, text: &str, terms: Terms, consumer: Consumer) {
        let subscription = SharedSubscription::new(self.next_number(), text, terms, consumer);
        let joined = self.0.get_or_insert_default();
        joined.joined += 1;
        joined.list.push(subscription);
    }

    /// Removes the subscription of this filter.
    pub(super) fn remove(&mut self, text: &str) -> Option<SharedSubscription> {
        let list = &mut self.0.as_mut()?.list;
        let index = list.iter().position(|subscription| *subscription.text == *text)?;
        Some(list.swap_remove(index))
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.list.len())
    }

    /// The subscription at this index.
    pub(super) fn at(&mut self, index: usize) -> Option<&mut SharedSubscription> {
        self.0.as_mut()?.list.get_mut(index)
    }

    /// The subscription of this number.
    pub(super) fn get(&self, number: u64) -> Option<&SharedSubscription> {
        self.0.as_ref()?.list.iter().find(|subscription| subscription.number == number)
    }

    /// The subscription of this number.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut SharedSubscription> {
        self.iter_mut().find(|subscription| subscription.number == number)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SharedSubscription> {
        self.0.iter_mut().flat_map(|joined| &mut joined.list)
    }
}
