//! Policies: settings of queues and exchanges that are chosen by their names, and change while they exist.
//!
//! Owns which policy applies to an object, and what becomes of the settings that it was declared with. The namespace owns
//! the rows, and applies them to what exists.
//!
//! Of each kind, at most one policy applies to an object: of those that match the one with the highest priority, and of these
//! the first by name. Numbers are bounds: the smallest of argument, policy and operator policy holds. Of other settings the
//! argument holds, then the operator policy, then the policy.

mod keys;

use std::cmp::Reverse;
use std::sync::Arc;

use inver_access::dialect::{Expression, ExpressionError};
use inver_storage::SubmitError;

use crate::limits::LimitReached;
use crate::spec::{AppliesTo, DeadLetter, PolicyKind, PolicySpec, QueueLimits, QueueSpec, stream_age_ms};
use crate::value::{Arguments, Value};

use keys::Merge;

/// Bytes of a policy's name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a text in a policy's definition.
const TEXT_BYTES_MAX: usize = 4096;

/// Why a policy cannot be set or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is none of this name.
    #[error("there is no {noun} `{name}`", noun = kind.noun())]
    Unknown {
        /// Its kind.
        kind: PolicyKind,
        /// The name.
        name: String,
    },
    /// Its name, its pattern or a setting is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The client may not have messages published to this exchange.
    #[error("no permission to write to exchange '{0}' with every routing key")]
    NotAllowed(String),
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// A policy.
#[derive(Debug)]
pub struct Policy {
    name: Box<str>,
    spec: PolicySpec,
    pattern: Expression,
}

impl Policy {
    /// A policy, if it is valid for its kind.
    pub(crate) fn new(kind: PolicyKind, name: &str, spec: PolicySpec) -> Result<Policy, PolicyError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let text = format!("a policy's name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
            return Err(PolicyError::Invalid(text));
        }
        keys::check(kind, &spec.definition).map_err(PolicyError::Invalid)?;
        Policy::recover(name, spec)
    }

    /// A policy that was valid when it was stored.
    pub(crate) fn recover(name: &str, spec: PolicySpec) -> Result<Policy, PolicyError> {
        let pattern = Expression::new(&spec.pattern).map_err(|error: ExpressionError| {
            PolicyError::Invalid(format!("pattern should be regular expression but is invalid: {error}"))
        })?;
        Ok(Policy { name: name.into(), spec, pattern })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was set as.
    #[must_use]
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// The settings that are accepted and change nothing.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&str> {
        let names = self.spec.definition.keys().map(String::as_str);
        names.filter(|name| !keys::has_effect(name)).collect()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.spec.definition.get(key)?.as_str()
    }

    /// The exchange that messages without a binding go to.
    pub(crate) fn alternate_exchange(&self) -> Option<&str> {
        self.text(keys::ALTERNATE_EXCHANGE)
    }

    /// The exchange that dropped messages go to, with the routing key.
    pub(crate) fn dead_letter(&self) -> Option<DeadLetter> {
        let exchange = self.text(keys::DEAD_LETTER_EXCHANGE)?.to_owned();
        let routing_key = self.text(keys::DEAD_LETTER_ROUTING_KEY).map(|key| key.as_bytes().to_vec());
        Some(DeadLetter { exchange, routing_key })
    }

    fn applies_to_queue(&self, name: &str, spec: &QueueSpec) -> bool {
        let fits = match self.spec.applies_to {
            AppliesTo::All | AppliesTo::Queues => true,
            AppliesTo::ClassicQueues => !spec.is_quorum() && !spec.is_stream(),
            AppliesTo::QuorumQueues => spec.is_quorum(),
            AppliesTo::Streams => spec.is_stream(),
            AppliesTo::Exchanges => false,
        };
        fits && self.pattern.matches(name)
    }

    fn applies_to_exchange(&self, name: &str) -> bool {
        matches!(self.spec.applies_to, AppliesTo::All | AppliesTo::Exchanges) && self.pattern.matches(name)
    }
}

/// The policies of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// In the order in which they are tried.
    ordinary: Vec<Arc<Policy>>,
    operator: Vec<Arc<Policy>>,
}

impl Policies {
    /// Those of a kind, in the order in which they are tried.
    pub(crate) fn of(&self, kind: PolicyKind) -> &[Arc<Policy>] {
        match kind {
            PolicyKind::Ordinary => &self.ordinary,
            PolicyKind::Operator => &self.operator,
        }
    }

    fn of_mut(&mut self, kind: PolicyKind) -> &mut Vec<Arc<Policy>> {
        match kind {
            PolicyKind::Ordinary => &mut self.ordinary,
            PolicyKind::Operator => &mut self.operator,
        }
    }

    /// Adds a policy, or replaces the one of its name.
    pub(crate) fn insert(&mut self, kind: PolicyKind, policy: Arc<Policy>) {
        let all = self.of_mut(kind);
        all.retain(|present| present.name != policy.name);
        let place = |policy: &Policy| (Reverse(policy.spec.priority), policy.name.clone());
        let own = place(&policy);
        all.insert(all.partition_point(|present| place(present) < own), policy);
    }

    /// Removes the policy of a name.
    pub(crate) fn remove(&mut self, kind: PolicyKind, name: &str) {
        self.of_mut(kind).retain(|policy| *policy.name != *name);
    }

    /// Removes all, and returns them.
    pub(crate) fn take(&mut self, kind: PolicyKind) -> Vec<Arc<Policy>> {
        std::mem::take(self.of_mut(kind))
    }

    /// Those that apply to a queue.
    pub(crate) fn of_queue(&self, name: &str, spec: &QueueSpec) -> Applied {
        self.applied(|policy| policy.applies_to_queue(name, spec))
    }

    /// Those that apply to an exchange.
    pub(crate) fn of_exchange(&self, name: &str) -> Applied {
        self.applied(|policy| policy.applies_to_exchange(name))
    }

    fn applied(&self, applies: impl Fn(&Policy) -> bool) -> Applied {
        let first = |all: &[Arc<Policy>]| all.iter().find(|policy| applies(policy)).cloned();
        Applied { policy: first(&self.ordinary), operator: first(&self.operator) }
    }
}

/// The policies that apply to an object.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The policy.
    pub policy: Option<Arc<Policy>>,
    /// The operator policy.
    pub operator: Option<Arc<Policy>>,
}

impl Applied {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policy.is_none() && self.operator.is_none()
    }

    /// Whether these are the same policies as others, unchanged.
    pub(crate) fn is(&self, other: &Applied) -> bool {
        let same = |a: &Option<Arc<Policy>>, b: &Option<Arc<Policy>>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same(&self.policy, &other.policy) && same(&self.operator, &other.operator)
    }

    /// The settings of both together.
    #[must_use]
    pub fn definition(&self) -> Arguments {
        let of = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|it| it.spec.definition.clone());
        let mut merged = of(&self.policy).unwrap_or_default();
        for (name, bound) in of(&self.operator).unwrap_or_default() {
            let value = match merged.remove(&name) {
                Some(present) => keys::merge(&name, &present, bound),
                None => bound,
            };
            merged.insert(name, value);
        }
        merged
    }

    /// The limits of a queue that was declared so.
    pub(crate) fn limits(&self, declared: &QueueSpec) -> QueueLimits {
        let mut limits = declared.limits.clone();
        if declared.is_stream() {
            return limits;
        }
        let set = self.definition();
        let number = |key: &str| set.get(key).and_then(Value::as_int);
        let smaller = |declared: Option<u64>, key: &str| {
            let set = number(key).map(|set| u64::try_from(set).unwrap_or(u64::MAX));
            declared.into_iter().chain(set).min()
        };
        limits.message_ttl_ms = smaller(limits.message_ttl_ms, keys::MESSAGE_TTL);
        limits.expires_after_ms = smaller(limits.expires_after_ms, keys::EXPIRES);
        limits.messages_max = smaller(limits.messages_max, keys::MAX_LENGTH);
        limits.bytes_max = smaller(limits.bytes_max, keys::MAX_LENGTH_BYTES);
        let text = |key: &str| set.get(key).and_then(Value::as_str);
        if !declared.arguments.contains_key("x-overflow")
            && let Some(overflow) = text(keys::OVERFLOW).and_then(|text| text.parse().ok())
        {
            limits.overflow = overflow;
        }
        if let (true, Some(set)) = (declared.is_quorum(), number(keys::DELIVERY_LIMIT)) {
            let argument = declared.arguments.get("x-delivery-limit").and_then(Value::as_int);
            let limit = argument.map_or(set, |argument| Merge::SmallestOrNone.of(argument, set));
            limits.deliveries_max = (limit >= 0).then(|| u32::try_from(limit).unwrap_or(u32::MAX));
        }
        let policy = self.policy.as_ref();
        match &mut limits.dead_letter {
            None => limits.dead_letter = policy.and_then(|policy| policy.dead_letter()),
            Some(to) if to.routing_key.is_none() => {
                let key = policy.and_then(|policy| policy.text(keys::DEAD_LETTER_ROUTING_KEY));
                to.routing_key = key.map(|key| key.as_bytes().to_vec());
            }
            Some(_) => {}
        }
        limits
    }

    /// What bounds a stream beside its arguments: the age of its messages in milliseconds, and their bytes.
    pub(crate) fn retention(&self) -> (Option<u64>, Option<u64>) {
        if self.is_empty() {
            return (None, None);
        }
        let set = self.definition();
        let age_ms = set.get(keys::MAX_AGE).and_then(Value::as_str).and_then(stream_age_ms);
        let bytes = set.get(keys::MAX_LENGTH_BYTES).and_then(Value::as_int);
        // As for the arguments, 0 is no bound.
        (age_ms, bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0))
    }

    /// The alternate exchange of an exchange that was declared with these arguments.
    pub(crate) fn alternate_exchange(&self, declared: &Arguments) -> Option<String> {
        let own = declared.get("alternate-exchange").and_then(Value::as_str);
        let set = || self.policy.as_ref().and_then(|policy| policy.alternate_exchange());
        own.or_else(set).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests;
