//! Access control: the users, permission rules and delegation tokens of the broker, changed while it runs.
//!
//! Owns the users and rules stored in the log, those of the configuration beside them (which are read-only), and
//! [`Permissions`]: what one connection may do. Does not own the decision itself (`inver-access`), authentication, or the
//! forms in which protocols express permissions.
//!
//! Invariants:
//! - [`AccessControl::version`] changes with every change that can change a decision; caches of decisions hold for one
//!   version.
//! - Without users and rules nothing is enforced: the authenticator lets loopback clients in only.
//! - A name is a user of the configuration or a stored user, never both: the configuration's wins and is read-only.

mod bans;
mod delegation;
mod permissions;
mod rows;
mod store;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inver_access::{Decision, Grant, PatternError, ResourceKind, Rule, RuleId, Subject, Tag, Tags, User};
use inver_storage::{Entry, Log, SubmitError};
use parking_lot::{Mutex, RwLock};

use crate::audit::Audit;
use crate::closing::CloseReason;
use crate::completion::Completion;
use crate::connections::{ConnectionRegistry, LiveConnection};
use crate::limits::{AccessLimits, LimitReached};
use crate::source::Source;
use crate::tables::{DELEGATION_TOKENS, RULES, RowError, USERS};

pub(crate) use bans::BanScope;
pub use bans::{Ban, BanTarget, Bans, BansError, Network};
pub use delegation::{DelegationConfig, DelegationError, NewDelegationToken};
pub use permissions::{PermissionScope, Permissions};
pub use usage::{ChannelLimitReached, UserChannel};

use store::State;
use usage::Usage;

/// Ids of rules of the configuration begin here: they are positions in the file, not stored ids.
const CONFIGURED_RULES: u64 = 1 << 63;

/// Why a change of users or rules is refused.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The user or rule is part of the configuration.
    #[error("{0} is set in the configuration and is read-only here")]
    ReadOnly(String),
    /// There is no such user.
    #[error("no such user: {0}")]
    NoSuchUser(String),
    /// A name is empty, too long, or has a control character.
    #[error("invalid user name")]
    InvalidName,
    /// A rule's pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// There are too many users or rules.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// A rule that is not stored yet, and so has no id.
pub type NewRule = Rule;

/// What a change of rules did.
#[derive(Debug)]
pub struct RulesChanged {
    /// Ids of the wanted rules in their order, those that existed included.
    pub added: Vec<RuleId>,
    /// The rules that were deleted.
    pub deleted: Vec<Arc<Rule>>,
    /// When the change is durable.
    pub completion: Completion,
}

/// The users and rules of the broker; cheap to clone.
#[derive(Clone)]
pub struct AccessControl(Arc<Inner>);

struct Inner {
    log: Log,
    limits: AccessLimits,
    delegation: DelegationConfig,
    connections: ConnectionRegistry,
    state: RwLock<State>,
    version: AtomicU64,
    usage: Usage,
    /// Held by [`AccessControl::change_rules`].
    changes: Mutex<()>,
    audit: Audit,
}

impl AccessControl {
    /// Restores users, rules and tokens from the log. Connections of users that are deleted or disabled are closed.
    pub(crate) fn open(
        log: Log,
        limits: AccessLimits,
        delegation: DelegationConfig,
        connections: ConnectionRegistry,
        audit: Audit,
    ) -> Result<AccessControl, RowError> {
        let mut state = State::default();
        for (name, row) in log.recovered_state(USERS) {
            state.recover_user(rows::decode_user(&String::from_utf8_lossy(&name), &row)?);
        }
        for (key, row) in log.recovered_state(RULES) {
            if let Some(id) = key.first_chunk::<8>() {
                state.recover_rule(rows::decode_rule(RuleId(u64::from_be_bytes(*id)), &row)?);
            }
        }
        let access = AccessControl(Arc::new(Inner {
            log,
            limits,
            delegation,
            connections,
            state: RwLock::new(state),
            version: AtomicU64::new(1),
            usage: Usage::default(),
            changes: Mutex::default(),
            audit,
        }));
        access.recover_tokens()?;
        Ok(access)
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// The version of users and rules: it changes with every change that can change a decision.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Whether permissions are checked: once there is a user or a rule.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        let state = self.0.state.read();
        state.has_users() || state.has_rules()
    }

    /// Whether there is a user, or another authority that is believed. Without users only loopback clients are let in.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.0.state.read().has_users()
    }

    /// All users by name.
    #[must_use]
    pub fn users(&self) -> Vec<(Arc<User>, Source)> {
        self.0.state.read().users().collect()
    }

    /// Up to `max` users behind the name `after`, in the order of names, without the first `skip` of them.
    #[must_use]
    pub fn users_following(&self, after: Option<&str>, skip: usize, max: usize) -> Vec<(Arc<User>, Source)> {
        self.0.state.read().users_following(after, skip, max)
    }

    /// The same backwards: before the name `before`.
    #[must_use]
    pub fn users_preceding(&self, before: Option<&str>, skip: usize, max: usize) -> Vec<(Arc<User>, Source)> {
        self.0.state.read().users_preceding(before, skip, max)
    }

    /// The number of users.
    #[must_use]
    pub fn user_count(&self) -> usize {
        self.0.state.read().user_count()
    }

    /// A user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<(Arc<User>, Source)> {
        self.0.state.read().user(name)
    }

    /// Creates a user, or replaces the stored user of this name.
    pub fn put_user(&self, user: User) -> Result<Completion, AccessError> {
        store::check_name(&user.name)?;
        let name = user.name.clone();
        let completion = self.change(|state, entry| {
            state.check_user(&user.name, &self.0.limits)?;
            entry.put(USERS, user.name.clone().into_bytes().into(), rows::encode_user(&user));
            Ok(move |state: &mut State| state.put_user(user))
        })?;
        self.close_if_gone(&name);
        Ok(completion)
    }

    /// Changes a stored user by a function of what it is now, which runs under a lock.
    pub fn update_user(&self, name: &str, update: impl FnOnce(&mut User)) -> Result<Completion, AccessError> {
        let completion = self.change(|state, entry| {
            let mut user = state.stored_user(name)?.as_ref().clone();
            update(&mut user);
            name.clone_into(&mut user.name);
            entry.put(USERS, name.to_owned().into_bytes().into(), rows::encode_user(&user));
            Ok(move |state: &mut State| state.put_user(user))
        })?;
        self.close_if_gone(name);
        Ok(completion)
    }

    /// Deletes a stored user, the stored rules of which it is the principal, and its delegation tokens.
    pub fn delete_user(&self, name: &str) -> Result<Completion, AccessError> {
        let completion = self.change(|state, entry| {
            state.stored_user(name)?;
            entry.delete(USERS, name.to_owned().into_bytes().into());
            let rules: Vec<RuleId> = state.stored_rules_of_user(name).map(|rule| rule.id).collect();
            rules.iter().for_each(|id| entry.delete(RULES, rows::rule_key(*id)));
            let tokens = state.tokens.select(|token| token.owner == name);
            for id in &tokens {
                entry.delete(DELEGATION_TOKENS, id.clone().into_bytes().into());
            }
            let changed = self.tokens_without(state, |user| user == name, entry);
            let name = name.to_owned();
            Ok(move |state: &mut State| {
                state.remove_user(&name);
                rules.iter().for_each(|id| state.remove_rule(*id));
                tokens.iter().for_each(|id| state.tokens.remove(id));
                changed.into_iter().for_each(|token| state.tokens.replace(token));
            })
        })?;
        self.close_if_gone(name);
        Ok(completion)
    }

    /// All rules: the stored ones by id, then those of the configuration in their order.
    #[must_use]
    pub fn rules(&self) -> Vec<(Arc<Rule>, Source)> {
        self.0.state.read().rules().collect()
    }

    /// Up to `max` rules behind the id `after`, in the order of ids, without the first `skip` of them. The ids of the
    /// configuration's rules are behind all others.
    #[must_use]
    pub fn rules_following(
        &self,
        after: Option<RuleId>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<Rule>, Source)> {
        self.0.state.read().rules_following(after, skip, max)
    }

    /// The same backwards: before the id `before`.
    #[must_use]
    pub fn rules_preceding(
        &self,
        before: Option<RuleId>,
        skip: usize,
        max: usize,
    ) -> Vec<(Arc<Rule>, Source)> {
        self.0.state.read().rules_preceding(before, skip, max)
    }

    /// The number of rules.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.0.state.read().rule_count()
    }

    /// Adds rules, all or none; their ids are given here, in order. A rule that exists already (in all but its id) keeps
    /// its id and is not added again.
    pub fn add_rules(&self, rules: Vec<NewRule>) -> Result<(Vec<RuleId>, Completion), AccessError> {
        self.replace_rules(|_| false, rules).map(|changed| (changed.added, changed.completion))
    }

    /// Deletes the stored rules that a function selects; returns them.
    pub fn delete_rules(
        &self,
        select: impl Fn(&Rule) -> bool,
    ) -> Result<(Vec<Arc<Rule>>, Completion), AccessError> {
        self.replace_rules(select, Vec::new()).map(|changed| (changed.deleted, changed.completion))
    }

    /// Deletes the stored rules that a function selects and adds others, as one change that is seen and stored whole.
    pub fn replace_rules(
        &self,
        select: impl Fn(&Rule) -> bool,
        rules: Vec<NewRule>,
    ) -> Result<RulesChanged, AccessError> {
        for rule in &rules {
            rule.pattern.check()?;
        }
        let (mut ids, mut deleted) = (Vec::new(), Vec::new());
        let completion = self.change(|state, entry| {
            let change = state.plan(&select, rules, &self.0.limits)?;
            change.deleted.iter().for_each(|rule| entry.delete(RULES, rows::rule_key(rule.id)));
            change.added.iter().for_each(|rule| {
                entry.put(RULES, rows::rule_key(rule.id), rows::encode_rule(rule));
            });
            ids.clone_from(&change.ids);
            deleted.clone_from(&change.deleted);
            Ok(move |state: &mut State| state.apply(change))
        })?;
        Ok(RulesChanged { added: ids, deleted, completion })
    }

    /// Replaces the stored rules that a function selects by what `change` makes of them, as one change. Such changes happen
    /// one at a time; `change` runs under their lock.
    pub fn change_rules<E: From<AccessError>>(
        &self,
        select: impl Fn(&Rule) -> bool,
        change: impl FnOnce(&[Arc<Rule>]) -> Result<Vec<NewRule>, E>,
    ) -> Result<RulesChanged, E> {
        let _changes = self.0.changes.lock();
        let present: Vec<Arc<Rule>> = self
            .rules()
            .into_iter()
            .filter(|(_, source)| *source == Source::Stored)
            .map(|(rule, _)| rule)
            .collect();
        let selected: Vec<Arc<Rule>> = present.into_iter().filter(|rule| select(rule)).collect();
        let rules = change(&selected)?;
        Ok(self.replace_rules(select, rules)?)
    }

    /// Replaces the users and rules of the configuration.
    pub fn set_configured(&self, users: Vec<User>, rules: Vec<NewRule>) -> Result<(), PatternError> {
        for rule in &rules {
            rule.pattern.check()?;
        }
        let users: BTreeMap<String, Arc<User>> =
            users.into_iter().map(|user| (user.name.clone(), Arc::new(user))).collect();
        let rules =
            rules.into_iter().zip(CONFIGURED_RULES..).map(|(rule, id)| Rule { id: RuleId(id), ..rule });
        let before: Vec<String> = {
            let mut state = self.0.state.write();
            let before = state.users().map(|(user, _)| user.name.clone()).collect();
            state.set_configured(users, rules.map(Arc::new).collect());
            self.changed();
            before
        };
        before.iter().for_each(|name| self.close_if_gone(name));
        self.remove_from_tokens(&before);
        Ok(())
    }

    /// Closes the connections of a user that was deleted or disabled. A changed password closes none. One that is disabled
    /// may not be connected by a token either; the user of a token need not exist.
    fn close_if_gone(&self, name: &str) {
        let (reason, is_deleted) = match self.user(name) {
            Some((user, _)) if !user.disabled => return,
            Some(_) => (CloseReason::UserDisabled(name.into()), false),
            None => (CloseReason::UserDeleted(name.into()), true),
        };
        let connections = &self.0.connections;
        if connections.count_of_user(name) > 0 {
            let is_closed = |connection: &LiveConnection| match is_deleted {
                true => connection.is_of_own_user(name),
                false => connection.user() == Some(name),
            };
            connections.close_where(is_closed, &reason);
        }
    }

    /// Whether anybody may do something, and by which rule: for administrators' questions. Connections ask their
    /// [`Permissions`]. `grant` is what an outside authority grants the subject.
    #[must_use]
    pub fn check(
        &self,
        subject: &Subject<'_>,
        grant: Option<&Grant>,
        kind: ResourceKind,
        name: &str,
        operation: inver_access::Operation,
    ) -> Decision {
        if !self.is_enforced() {
            return Decision { allowed: true, by: None };
        }
        let state = self.0.state.read();
        let rules = match grant {
            Some(grant) => state.index().with_grant(subject, grant),
            None => state.index().for_subject(subject),
        };
        rules.decide(kind, name, operation)
    }

    /// What a connection may do.
    #[must_use]
    pub fn permissions(&self, scope: PermissionScope) -> Arc<Permissions> {
        Permissions::new(self.clone(), scope, None)
    }

    /// What a connection may do whose client an outside authority grants something.
    #[must_use]
    pub fn granted_permissions(
        &self,
        scope: PermissionScope,
        grant: Option<&Arc<Grant>>,
    ) -> Arc<Permissions> {
        Permissions::new(self.clone(), scope, grant.cloned())
    }

    /// Whether other authorities than the broker's users are believed: clients are then let in as if there were users.
    pub fn set_external_authority(&self, is_believed: bool) {
        let mut state = self.0.state.write();
        if state.set_external_authority(is_believed) {
            self.changed();
        }
    }

    /// The present tags of a user: those of its identity may be older.
    #[must_use]
    pub fn tags(&self, user: &str) -> Option<Tags> {
        self.user(user).map(|(user, _)| user.tags.clone())
    }

    /// Whether a user is an administrator now.
    #[must_use]
    pub fn is_administrator(&self, user: &str) -> bool {
        self.tags(user).is_some_and(|tags| tags.contains(&Tag::Administrator))
    }

    /// Submits a change and makes it visible, under one lock, so that the log's order is the order of changes. `plan`
    /// writes the rows and returns what to do to the memory once the log has taken them.
    fn change<F: FnOnce(&mut State)>(
        &self,
        plan: impl FnOnce(&State, &mut Entry) -> Result<F, AccessError>,
    ) -> Result<Completion, AccessError> {
        let mut state = self.0.state.write();
        let mut entry = Entry::new();
        let apply = plan(&state, &mut entry)?;
        if entry.is_empty() {
            return Ok(Completion::Now);
        }
        let lsn = self.0.log.submit(entry)?.lsn;
        apply(&mut state);
        self.changed();
        Ok(lsn.into())
    }

    fn changed(&self) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessControl").field("version", &self.version()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
