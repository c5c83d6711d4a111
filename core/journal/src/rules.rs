//! The rules by name, so that a test can leave one out and see that it is needed.
//!
//! Without the feature `testing`, [`holds`] is constant and what it guards is always compiled in.

#![cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "public with the feature `testing` only")
)]

#[cfg(feature = "testing")]
use std::cell::Cell;

/// A rule, or the part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R1: nothing is confirmed before what comes before it.
    InOrder,
    /// R2: the window counts from the lowest number that is not confirmed, and not from the lowest without an answer.
    WindowByConfirmation,
    /// R3: a new owner creates a fence.
    Fence,
    /// R3: behind a fence, reading goes on beyond the old owner's window.
    Jump,
    /// R4: an object that exists may be one's own.
    OwnObject,
    /// R5: the register is read before acknowledging.
    OwnerOfGroup,
    /// R5: the register is read after fencing.
    OwnerOfFence,
    /// R6: only the owner moves the floor.
    OwnerOfFloor,
    /// A version of the register that was created may still be one whose number was used and deleted.
    NewestVersion,
    /// A version of the register that exists may be one's own.
    OwnVersion,
}

#[cfg(feature = "testing")]
thread_local! {
    static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// Leaves a rule out in this thread, or none.
#[cfg(feature = "testing")]
pub fn leave_out(rule: Option<Rule>) {
    LEFT_OUT.with(|left_out| left_out.set(rule));
}

/// Whether the rule holds.
#[cfg(feature = "testing")]
#[must_use]
pub fn holds(rule: Rule) -> bool {
    LEFT_OUT.with(|left_out| left_out.get() != Some(rule))
}

/// Whether the rule holds: it does.
#[cfg(not(feature = "testing"))]
#[must_use]
pub const fn holds(_rule: Rule) -> bool {
    true
}
