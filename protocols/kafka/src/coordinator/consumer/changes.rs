//! What comes of an act: the answer, and what is to be stored.

use std::borrow::Cow;

use super::partitions::Partitions;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) member_id: Str,
    pub(crate) epoch: i32,
    /// What the member has from now on; none if it knows.
    pub(crate) assigned: Option<Partitions>,
}

/// A heartbeat that is refused: the error, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) text: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, text: text.into() }
    }
}

/// The rows that are to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The group's own.
    pub(crate) group: bool,
    /// Of members that have changed.
    pub(crate) members: Vec<Str>,
    /// Of members that are gone.
    pub(crate) removed: Vec<Str>,
}

impl Changes {
    pub(super) fn member(&mut self, id: &Str) {
        if !self.members.contains(id) {
            self.members.push(id.clone());
        }
    }
}
