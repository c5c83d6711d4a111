//! What an outside authority grants a client: tags and rules of its own, which hold beside those of the broker and for that
//! client only.

use crate::pattern::Pattern;
use crate::rule::{Rule, RuleId};
use crate::user::Tags;

/// Ids of granted rules begin here: they are positions in a grant, not stored ids.
const GRANTED_RULES: u64 = 1 << 62;

/// Tags and rules that an authority vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The client's tags.
    pub tags: Tags,
    /// Rules that apply to the client, whatever their principal says.
    pub rules: Vec<GrantedRule>,
}

/// A rule of a [`Grant`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedRule {
    /// The namespaces in which it applies; the rule's own is ignored.
    pub namespaces: Pattern,
    /// The rule.
    pub rule: Rule,
}

impl Grant {
    /// The id of the rule at a position.
    #[must_use]
    pub fn rule_id(position: usize) -> RuleId {
        RuleId(GRANTED_RULES + position as u64)
    }

    /// A grant of tags.
    #[must_use]
    pub fn of_tags(tags: Tags) -> Grant {
        Grant { tags, rules: Vec::new() }
    }
}
