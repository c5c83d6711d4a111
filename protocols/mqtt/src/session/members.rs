//! The shared subscriptions that a session is a member of.

use std::sync::Arc;

use inver_broker::address::{Form, rewrite};
use inver_broker::{Consumer, DeliveryId};

use super::subscriptions::Terms;
use super::token;
use crate::codec::{Shared, split_shared};

/// A shared subscription of this session.
pub(super) struct Member {
    /// Its token, and its number in packet identifiers' sources.
    pub(super) number: u64,
    pub(super) text: Box<str>,
    pub(super) terms: Terms,
    /// The address (dotted) of messages that do not name one: of the log topic whose very name the filter is.
    pub(super) address: Arc<[u8]>,
    pub(super) consumer: Consumer,
    /// It may have messages.
    pub(super) ready: bool,
    pub(super) acked: Vec<DeliveryId>,
}

impl Member {
    fn new(number: u64, text: &str, terms: Terms, consumer: Consumer) -> Member {
        let filter = match split_shared(text) {
            Shared::Yes { filter, .. } => filter,
            Shared::No | Shared::Invalid => text,
        };
        let address = rewrite(Form::Slashed, Form::Dotted, filter.as_bytes()).into_owned().into();
        Member { number, text: text.into(), terms, address, consumer, ready: true, acked: Vec::new() }
    }
}

/// See the module's text. In a box, from the first one on: most sessions have none.
#[derive(Default)]
pub(super) struct Members(Option<Box<Joined>>);

#[derive(Default)]
struct Joined {
    members: Vec<Member>,
    /// So many were ever joined: a number is never another one's.
    numbers: u64,
}

impl Members {
    /// The number of the next one: its token, which the mailbox must say for it.
    pub(super) fn next_number(&self) -> u64 {
        token::SHARED + self.0.as_ref().map_or(0, |joined| joined.numbers)
    }

    /// Adds one, under [`next_number`](Self::next_number).
    pub(super) fn push(&mut self, text: &str, terms: Terms, consumer: Consumer) {
        let member = Member::new(self.next_number(), text, terms, consumer);
        let joined = self.0.get_or_insert_default();
        joined.numbers += 1;
        joined.members.push(member);
    }

    /// Takes out the one of this text.
    pub(super) fn remove(&mut self, text: &str) -> Option<Member> {
        let members = &mut self.0.as_mut()?.members;
        let at = members.iter().position(|member| *member.text == *text)?;
        Some(members.swap_remove(at))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.members.len())
    }

    /// The one at this place.
    pub(super) fn at(&mut self, at: usize) -> Option<&mut Member> {
        self.0.as_mut()?.members.get_mut(at)
    }

    /// The one of this number.
    pub(super) fn get(&self, number: u64) -> Option<&Member> {
        self.0.as_ref()?.members.iter().find(|member| member.number == number)
    }

    /// The one of this number.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Member> {
        self.iter_mut().find(|member| member.number == number)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut().flat_map(|joined| &mut joined.members)
    }
}
