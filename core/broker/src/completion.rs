//! The outcome of an accepted operation: when it may be acknowledged.

use inver_storage::Lsn;

/// When the effects of an accepted operation are durable. A rejected operation is an error, never a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// Complete already: nothing of it is durable, or all of it was committed before.
    #[default]
    Now,
    /// Complete once the log has committed this position.
    At(Lsn),
}

impl Completion {
    /// The position to wait for, if any.
    #[must_use]
    pub fn lsn(self) -> Option<Lsn> {
        match self {
            Completion::Now => None,
            Completion::At(lsn) => Some(lsn),
        }
    }

    /// Complete when both are.
    #[must_use]
    pub fn and(self, other: Completion) -> Completion {
        self.lsn().max(other.lsn()).into()
    }
}

impl From<Lsn> for Completion {
    fn from(lsn: Lsn) -> Completion {
        Completion::At(lsn)
    }
}

impl From<Option<Lsn>> for Completion {
    fn from(lsn: Option<Lsn>) -> Completion {
        lsn.map_or(Completion::Now, Completion::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_completions_complete_at_the_later_position() {
        assert_eq!(Completion::Now.and(Completion::Now), Completion::Now);
        assert_eq!(Completion::Now.and(Completion::At(Lsn(3))), Completion::At(Lsn(3)));
        assert_eq!(Completion::At(Lsn(5)).and(Completion::At(Lsn(3))), Completion::At(Lsn(5)));
    }
}
