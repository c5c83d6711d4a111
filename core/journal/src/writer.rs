//! The owner's side: objects under way, and how far they are confirmed.

use std::collections::VecDeque;

use crate::object::{Header, Owner};
use crate::rules::{Rule, holds};

/// The longest time since the register was read, in milliseconds, by a clock that also runs while the machine sleeps. What
/// is below the floor is deleted 90 times as long after the floor moved.
pub const CONFIRM_MS_MAX: u64 = 10_000;

/// The owner of a journal: numbers its objects and knows which groups may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    owner: Owner,
    window: usize,
    /// The lowest number that is not confirmed.
    first: u64,
    /// The objects from there on.
    under_way: VecDeque<UnderWay>,
    /// Everything before this position is confirmed.
    confirmed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct UnderWay {
    /// The position behind its entries.
    end: u64,
    is_stored: bool,
}

/// What was found at a number whose create was refused or had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The object itself: it is stored.
    Stored,
    /// Nothing: it must be sent again.
    SendAgain,
    /// Another one's. This node is no longer the owner, for good.
    NotOwner,
}

/// What the register said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The owner it named.
    pub owner: Owner,
    /// When its reading began.
    pub at_ms: u64,
}

/// What may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// Nothing more than before.
    Same,
    /// Everything before this position.
    To(u64),
    /// The register must be read first.
    AskRegister,
    /// Another node is the owner. This one is not, for good.
    NotOwner,
}

impl Writer {
    /// The owner of a journal whose next object has the number `number` and whose next entry the position `position`. At most
    /// `window` objects are under way; it is the same for all nodes.
    #[must_use]
    pub fn new(owner: Owner, window: usize, number: u64, position: u64) -> Writer {
        Writer { owner, window, first: number, under_way: VecDeque::new(), confirmed: position }
    }

    /// Who appends.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether another object may be sent (R2).
    #[must_use]
    pub fn has_room(&self) -> bool {
        let counted = if holds(Rule::WindowByConfirmation) {
            self.under_way.len()
        } else {
            self.under_way.iter().skip_while(|object| object.is_stored).count()
        };
        counted < self.window
    }

    /// The number of the next object, whose entries end at `end`; none without room.
    pub fn send(&mut self, end: u64) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        let number = self.first + self.under_way.len() as u64;
        self.under_way.push_back(UnderWay { end, is_stored: false });
        Some(number)
    }

    /// Objects that are sent and not confirmed.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The lowest number without an answer, or the next one: what is before it is stored.
    #[must_use]
    pub fn stored_below(&self) -> u64 {
        self.first + self.under_way.iter().take_while(|object| object.is_stored).count() as u64
    }

    /// The store says that it created the object of this number.
    pub fn created(&mut self, number: u64) {
        if let Some(object) = self.object(number) {
            object.is_stored = true;
        }
    }

    /// What is at a number whose create the store refused, left undecided or did not answer (R4).
    pub fn found(&mut self, number: u64, header: Option<&Header>) -> Found {
        match header {
            None => Found::SendAgain,
            Some(header) if header.owner == self.owner && holds(Rule::OwnObject) => {
                self.created(number);
                Found::Stored
            }
            Some(_) => Found::NotOwner,
        }
    }

    /// How far groups may be acknowledged (R1, R5).
    pub fn confirm(&mut self, known: Known, now_ms: u64) -> Confirmed {
        let stored = if holds(Rule::InOrder) {
            self.under_way.iter().take_while(|object| object.is_stored).count()
        } else {
            self.under_way.iter().rposition(|object| object.is_stored).map_or(0, |last| last + 1)
        };
        if stored == 0 {
            return Confirmed::Same;
        }
        if holds(Rule::OwnerOfGroup) {
            if known.owner != self.owner {
                return Confirmed::NotOwner;
            }
            if now_ms.saturating_sub(known.at_ms) > CONFIRM_MS_MAX {
                return Confirmed::AskRegister;
            }
        }
        if let Some(last) = self.under_way.drain(..stored).next_back() {
            self.confirmed = last.end;
        }
        self.first += stored as u64;
        Confirmed::To(self.confirmed)
    }

    fn object(&mut self, number: u64) -> Option<&mut UnderWay> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.under_way.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Owner = Owner { epoch: 2, random: 7 };
    const NOW: Known = Known { owner: ME, at_ms: 0 };

    #[test]
    fn a_group_is_acknowledged_behind_all_before_it() {
        let mut writer = Writer::new(ME, 3, 10, 100);
        assert_eq!([writer.send(110), writer.send(125), writer.send(130)], [Some(10), Some(11), Some(12)]);
        assert_eq!(writer.send(140), None, "the window is full");
        writer.created(11);
        assert_eq!(writer.confirm(NOW, 0), Confirmed::Same);
        writer.created(10);
        assert_eq!(writer.confirm(NOW, 0), Confirmed::To(125));
        assert_eq!(writer.confirm(NOW, 0), Confirmed::Same);
        assert_eq!(writer.send(140), Some(13));
        assert_eq!((writer.under_way(), writer.stored_below()), (2, 12));
    }

    #[test]
    fn an_old_look_at_the_register_does_not_do() {
        let mut writer = Writer::new(ME, 3, 0, 0);
        let number = writer.send(5).unwrap();
        writer.created(number);
        assert_eq!(writer.confirm(NOW, CONFIRM_MS_MAX + 1), Confirmed::AskRegister);
        let other = Known { owner: Owner { epoch: 3, random: 1 }, at_ms: 0 };
        assert_eq!(writer.confirm(other, 1), Confirmed::NotOwner);
        assert_eq!(writer.confirm(NOW, CONFIRM_MS_MAX), Confirmed::To(5));
    }

    #[test]
    fn a_late_answer_for_what_is_confirmed_changes_nothing() {
        let mut writer = Writer::new(ME, 1, 0, 0);
        let number = writer.send(5).unwrap();
        writer.created(number);
        assert_eq!(writer.confirm(NOW, 0), Confirmed::To(5));
        let after = writer.clone();
        writer.created(number);
        writer.created(99);
        assert_eq!(writer, after);
    }
}
