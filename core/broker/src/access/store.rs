//! Users, rules and delegation tokens in memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use inver_access::{Principal, Rule, RuleId, Rules, User};
use smallvec::SmallVec;

use super::AccessError;
use super::delegation::Tokens;
use crate::limits::{self, AccessLimits};
use crate::source::Source;

/// Bytes of a user's name.
const NAME_BYTES_MAX: usize = 255;

/// Users and delegation tokens, and rules with an index over all of them.
#[derive(Default)]
pub(super) struct State {
    stored_users: BTreeMap<String, Arc<User>>,
    configured_users: BTreeMap<String, Arc<User>>,
    stored_rules: BTreeMap<RuleId, Arc<Rule>>,
    /// Ids of stored rules by a hash of what they are but for their id.
    known: HashMap<u64, SmallVec<[RuleId; 1]>>,
    hasher: RandomState,
    configured_rules: Vec<Arc<Rule>>,
    index: Rules,
    next_rule: u64,
    has_external_authority: bool,
    pub(super) tokens: Tokens,
}

/// Users in the order that both iterators have. One of the configuration hides a stored one of the same name.
fn merged<'a>(
    configured: impl Iterator<Item = &'a Arc<User>>,
    stored: impl Iterator<Item = &'a Arc<User>>,
    order: fn(&String, &String) -> Ordering,
) -> impl Iterator<Item = (&'a Arc<User>, Source)> {
    let (mut configured, mut stored) = (configured.peekable(), stored.peekable());
    std::iter::from_fn(move || {
        let first = match (configured.peek(), stored.peek()) {
            (Some(one), Some(other)) => order(&one.name, &other.name),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        if first == Ordering::Greater {
            return stored.next().map(|user| (user, Source::Stored));
        }
        if first == Ordering::Equal {
            stored.next();
        }
        configured.next().map(|user| (user, Source::Configuration))
    })
}

fn shared<T>((object, source): (&Arc<T>, Source)) -> (Arc<T>, Source) {
    (object.clone(), source)
}

/// A change of rules that was checked.
pub(super) struct RuleChange {
    pub(super) deleted: Vec<Arc<Rule>>,
    pub(super) added: Vec<Arc<Rule>>,
    /// Ids of the wanted rules, those that existed included, in their order.
    pub(super) ids: Vec<RuleId>,
}

impl State {
    pub(super) fn has_users(&self) -> bool {
        self.has_external_authority || !self.stored_users.is_empty() || !self.configured_users.is_empty()
    }

    /// Whether that is a change.
    pub(super) fn set_external_authority(&mut self, is_believed: bool) -> bool {
        std::mem::replace(&mut self.has_external_authority, is_believed) != is_believed
    }

    pub(super) fn has_rules(&self) -> bool {
        !self.stored_rules.is_empty() || !self.configured_rules.is_empty()
    }

    pub(super) fn index(&self) -> &Rules {
        &self.index
    }

    pub(super) fn users(&self) -> impl Iterator<Item = (Arc<User>, Source)> {
        merged(self.configured_users.values(), self.stored_users.values(), Ord::cmp).map(shared)
    }

    pub(super) fn users_following(
        &self,
        after: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<User>, Source)> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let configured = self.configured_users.range::<str, _>(range).map(|(_, user)| user);
        let stored = self.stored_users.range::<str, _>(range).map(|(_, user)| user);
        merged(configured, stored, Ord::cmp).skip(skip).take(max).map(shared).collect()
    }

    pub(super) fn users_preceding(
        &self,
        before: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<User>, Source)> {
        let range = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        let configured = self.configured_users.range::<str, _>(range).rev().map(|(_, user)| user);
        let stored = self.stored_users.range::<str, _>(range).rev().map(|(_, user)| user);
        merged(configured, stored, |a, b| b.cmp(a)).skip(skip).take(max).map(shared).collect()
    }

    pub(super) fn user_count(&self) -> usize {
        let (configured, stored) = (&self.configured_users, &self.stored_users);
        let (few, many) =
            if stored.len() < configured.len() { (stored, configured) } else { (configured, stored) };
        let hidden = few.keys().filter(|name| many.contains_key(*name));
        configured.len() + stored.len() - hidden.count()
    }

    pub(super) fn user(&self, name: &str) -> Option<(Arc<User>, Source)> {
        if let Some(user) = self.configured_users.get(name) {
            return Some((user.clone(), Source::Configuration));
        }
        self.stored_users.get(name).map(|user| (user.clone(), Source::Stored))
    }

    pub(super) fn stored_user(&self, name: &str) -> Result<&Arc<User>, AccessError> {
        if self.configured_users.contains_key(name) {
            return Err(AccessError::ReadOnly(format!("user `{name}`")));
        }
        self.stored_users.get(name).ok_or_else(|| AccessError::NoSuchUser(name.to_owned()))
    }

    /// Whether a user of this name may be stored.
    pub(super) fn check_user(&self, name: &str, limits: &AccessLimits) -> Result<(), AccessError> {
        if self.configured_users.contains_key(name) {
            return Err(AccessError::ReadOnly(format!("user `{name}`")));
        }
        if !self.stored_users.contains_key(name) {
            limits::check("users", self.stored_users.len(), limits.users_max)?;
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (Arc<Rule>, Source)> {
        let stored = self.stored_rules.values().map(|rule| (rule.clone(), Source::Stored));
        stored.chain(self.configured_rules.iter().map(|rule| (rule.clone(), Source::Configuration)))
    }

    /// Those of the configuration have the greater ids.
    fn rules_in(
        &self,
        range: (Bound<RuleId>, Bound<RuleId>),
    ) -> impl DoubleEndedIterator<Item = (&Arc<Rule>, Source)> {
        let stored = self.stored_rules.range(range).map(|(_, rule)| (rule, Source::Stored));
        let configured = self.configured_rules.iter().filter(move |rule| range.contains(&rule.id));
        stored.chain(configured.map(|rule| (rule, Source::Configuration)))
    }

    pub(super) fn rules_following(
        &self,
        after: Option<RuleId>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<Rule>, Source)> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.rules_in(range).skip(skip).take(max).map(shared).collect()
    }

    pub(super) fn rules_preceding(
        &self,
        before: Option<RuleId>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<Rule>, Source)> {
        let range = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        self.rules_in(range).rev().skip(skip).take(max).map(shared).collect()
    }

    pub(super) fn rule_count(&self) -> usize {
        self.stored_rules.len() + self.configured_rules.len()
    }

    pub(super) fn stored_rules_of_user(&self, name: &str) -> impl Iterator<Item = &Arc<Rule>> {
        self.stored_rules
            .values()
            .filter(move |rule| matches!(&rule.principal, Principal::User(of) if of == name))
    }

    /// Checks a change of rules: those that `select` selects are deleted, then `wanted` are added.
    pub(super) fn plan(
        &self,
        select: impl Fn(&Rule) -> bool,
        wanted: Vec<Rule>,
        limits: &AccessLimits,
    ) -> Result<RuleChange, AccessError> {
        let mut deleted: Vec<Arc<Rule>> =
            self.stored_rules.values().filter(|rule| select(rule)).cloned().collect();
        let mut added: Vec<Arc<Rule>> = Vec::new();
        let mut new: HashMap<Rule, RuleId> = HashMap::new();
        let mut ids = Vec::with_capacity(wanted.len());
        let mut next = self.next_rule;
        for rule in wanted {
            let plain = without_id(&rule);
            if let Some(id) = self.known(&plain).or_else(|| new.get(&plain).copied()) {
                deleted.retain(|rule| rule.id != id);
                ids.push(id);
                continue;
            }
            let id = RuleId(next);
            next += 1;
            ids.push(id);
            new.insert(plain, id);
            added.push(Arc::new(Rule { id, ..rule }));
        }
        let count = (self.stored_rules.len() + added.len()).saturating_sub(deleted.len());
        if !added.is_empty() {
            limits::check("permission rules", count.saturating_sub(1), limits.rules_max)?;
        }
        Ok(RuleChange { deleted, added, ids })
    }

    pub(super) fn apply(&mut self, change: RuleChange) {
        change.deleted.iter().for_each(|rule| self.remove_rule(rule.id));
        change.added.into_iter().for_each(|rule| self.insert_rule(rule));
    }

    pub(super) fn recover_user(&mut self, user: User) {
        self.put_user(user);
    }

    pub(super) fn recover_rule(&mut self, rule: Rule) {
        self.insert_rule(Arc::new(rule));
    }

    pub(super) fn put_user(&mut self, user: User) {
        self.stored_users.insert(user.name.clone(), Arc::new(user));
    }

    pub(super) fn remove_user(&mut self, name: &str) {
        self.stored_users.remove(name);
    }

    fn insert_rule(&mut self, rule: Arc<Rule>) {
        self.next_rule = self.next_rule.max(rule.id.0 + 1);
        self.known.entry(self.hasher.hash_one(without_id(&rule))).or_default().push(rule.id);
        self.index.insert(rule.clone());
        self.stored_rules.insert(rule.id, rule);
    }

    pub(super) fn remove_rule(&mut self, id: RuleId) {
        if let Some(rule) = self.stored_rules.remove(&id) {
            let hash = self.hasher.hash_one(without_id(&rule));
            if let Some(ids) = self.known.get_mut(&hash) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    self.known.remove(&hash);
                }
            }
            self.index.remove(&rule);
        }
    }

    /// The id of the stored rule that is this one but for its id.
    fn known(&self, plain: &Rule) -> Option<RuleId> {
        let ids = self.known.get(&self.hasher.hash_one(plain))?;
        let is_it = |id: &&RuleId| self.stored_rules.get(*id).is_some_and(|rule| without_id(rule) == *plain);
        ids.iter().find(is_it).copied()
    }

    pub(super) fn set_configured(&mut self, users: BTreeMap<String, Arc<User>>, rules: Vec<Arc<Rule>>) {
        self.configured_users = users;
        self.configured_rules.iter().for_each(|rule| self.index.remove(rule));
        rules.iter().for_each(|rule| self.index.insert(rule.clone()));
        self.configured_rules = rules;
    }
}

fn without_id(rule: &Rule) -> Rule {
    Rule { id: RuleId(0), ..rule.clone() }
}

/// Whether a user may have this name.
pub(super) fn check_name(name: &str) -> Result<(), AccessError> {
    let is_valid = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if is_valid { Ok(()) } else { Err(AccessError::InvalidName) }
}
