//! What one connection may do.
//!
//! Decisions are cached for one version of users and rules, so that an operation on a resource that was used before costs
//! one look-up, and none where nothing restricts the client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use inver_access::{Decision, EffectiveRules, Grant, Operation, ResourceKind, Subject, Tag, Tags, key_name};
use parking_lot::{Mutex, RwLock};

use super::AccessControl;
use crate::address::{Address, Filter, Form, rewrite};
use crate::audit::{Audit, AuditEvent, AuditKind, AuditResult, Who};

/// Decisions that a connection remembers; beyond it all are forgotten.
const DECISIONS_MAX: usize = 1024;

/// Whose permissions: everything that rules can refer to.
#[derive(Clone, Debug)]
pub struct PermissionScope {
    /// The user; none for an anonymous client.
    pub user: Option<Arc<str>>,
    /// Tags of a client whose user is not one of the broker's (of a token); none: the user's own tags are used, and a user
    /// that does not exist any more may do nothing.
    pub external_tags: Option<Tags>,
    /// The client id or connection name; may be empty, also where it is not known yet.
    pub client_id: Arc<str>,
    /// The namespace of the connection.
    pub namespace: Arc<str>,
    /// The protocol's name; empty where it is not known any more.
    pub protocol: &'static str,
    /// The address that the client connected from; port 0 where the port is not known.
    pub peer: SocketAddr,
}

/// What one connection may do.
pub struct Permissions {
    access: AccessControl,
    scope: PermissionScope,
    /// The client id where the protocol learned it after the client was admitted.
    late_client_id: OnceLock<Box<str>>,
    /// What an outside authority grants the client, which it may renew.
    grant: RwLock<Option<Arc<Grant>>>,
    /// How often that or the client id changed.
    renewals: AtomicU64,
    /// The version at which that is known, times two; plus one if nothing restricts the client then.
    unrestricted: AtomicU64,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    version: u64,
    /// None where nothing restricts the client.
    rules: Option<Box<EffectiveRules>>,
    /// None until a question is asked.
    decided: Option<Box<Decided>>,
}

/// What was decided at one version.
#[derive(Default)]
struct Decided {
    decisions: HashMap<(ResourceKind, Operation), HashMap<Box<str>, bool>>,
    filters: HashMap<Operation, HashMap<Box<str>, bool>>,
    count: usize,
}

impl Permissions {
    pub(super) fn new(
        access: AccessControl,
        scope: PermissionScope,
        grant: Option<Arc<Grant>>,
    ) -> Arc<Permissions> {
        let of_tags = |tags: &Tags| Arc::new(Grant::of_tags(tags.clone()));
        let grant = grant.or_else(|| scope.external_tags.as_ref().map(of_tags));
        let permissions = Permissions {
            access,
            scope,
            late_client_id: OnceLock::new(),
            grant: RwLock::new(grant),
            renewals: AtomicU64::new(0),
            unrestricted: AtomicU64::new(0),
            current: Mutex::default(),
        };
        permissions.refresh(&mut permissions.current.lock());
        Arc::new(permissions)
    }

    /// Whose permissions these are.
    #[must_use]
    pub fn scope(&self) -> &PermissionScope {
        &self.scope
    }

    /// Sets the client id of a client that was admitted without one; a second one is ignored.
    pub fn identify(&self, client_id: &str) {
        let is_new = self.scope.client_id.is_empty() && !client_id.is_empty();
        if is_new && self.late_client_id.set(client_id.into()).is_ok() {
            self.renewals.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn client_id(&self) -> &str {
        self.late_client_id.get().map_or(&*self.scope.client_id, |late| &**late)
    }

    /// Who this is for the audit log.
    #[must_use]
    pub fn who(&self) -> Who<'_> {
        Who {
            protocol: self.scope.protocol,
            user: self.user(),
            client_id: Some(self.client_id()),
            address: (!self.scope.peer.ip().is_unspecified()).then_some(self.scope.peer),
        }
    }

    /// The user; none for an anonymous client.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.scope.user.as_deref()
    }

    /// Caches of decisions hold while this does not change.
    #[must_use]
    pub fn version(&self) -> u64 {
        // Both only grow, so that no sum comes twice.
        self.access.version().wrapping_add(self.renewals.load(Ordering::Acquire))
    }

    /// Whether an outside authority vouches for the client.
    pub(crate) fn has_grant(&self) -> bool {
        self.grant.read().is_some()
    }

    /// Replaces what an outside authority grants the client.
    pub(crate) fn renew(&self, grant: Arc<Grant>) {
        *self.grant.write() = Some(grant);
        self.renewals.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether permissions are checked at all: there are users or rules.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.access.is_enforced()
    }

    /// Whether nothing restricts the client, so that no question needs to be asked.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        let version = self.version();
        let known = self.unrestricted.load(Ordering::Acquire);
        if known >> 1 == version {
            return known & 1 == 1;
        }
        let mut current = self.current.lock();
        if current.version != version {
            self.refresh(&mut current);
        }
        self.unrestricted.load(Ordering::Acquire) & 1 == 1
    }

    /// Whether the client may perform an operation on the resource of this name.
    #[must_use]
    pub fn may(&self, kind: ResourceKind, name: &str, operation: Operation) -> bool {
        if self.is_unrestricted() {
            return true;
        }
        let mut current = self.current.lock();
        let decided = current.decided.as_ref();
        let known = decided.and_then(|all| all.decisions.get(&(kind, operation))?.get(name));
        if let Some(allowed) = known {
            return *allowed;
        }
        let allowed = current.rules.as_ref().is_none_or(|rules| rules.decide(kind, name, operation).allowed);
        current.with_room().decisions.entry((kind, operation)).or_default().insert(name.into(), allowed);
        allowed
    }

    /// Whether the client may perform an operation ([`Operation::Read`], [`Operation::Write`]) with a routing key of a topic
    /// exchange.
    #[must_use]
    pub fn may_key(&self, exchange: &str, routing_key: &str, operation: Operation) -> bool {
        self.is_unrestricted()
            || self.may(ResourceKind::RoutingKey, &key_name(exchange, routing_key), operation)
    }

    /// Whether the client's user was deleted or disabled, so that it may do nothing any more.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.access.has_users() && self.tags().is_none()
    }

    /// Whether the client's user has a tag now.
    #[must_use]
    pub fn has_tag(&self, tag: &Tag) -> bool {
        self.tags().is_some_and(|tags| tags.contains(tag))
    }

    /// Whether the client may perform an operation ([`Operation::Subscribe`], [`Operation::Receive`]) on every address that
    /// a filter (slashed) matches.
    #[must_use]
    pub fn may_filter(&self, filter: &str, operation: Operation) -> bool {
        if self.is_unrestricted() {
            return true;
        }
        let mut current = self.current.lock();
        let decided = current.decided.as_ref();
        let known = decided.and_then(|all| all.filters.get(&operation)?.get(filter));
        if let Some(allowed) = known {
            return *allowed;
        }
        let allowed =
            current.rules.as_ref().is_none_or(|rules| rules.decide_filter(filter, operation).allowed);
        current.with_room().filters.entry(operation).or_default().insert(filter.into(), allowed);
        allowed
    }

    /// Whether certainly nothing that a filter (slashed) matches is kept from the client: it may receive from every such
    /// address, and read every log topic that is met there. False where that is not known.
    #[must_use]
    pub fn receives_all_of(&self, filter: &str) -> bool {
        if self.is_unrestricted() {
            return true;
        }
        let current = self.current.lock();
        let Some(rules) = &current.rules else { return true };
        // Escapes have more than one spelling.
        if filter.contains('%') || !rules.allows_all_of(filter, Operation::Receive) {
            return false;
        }
        let (topic, read) = (ResourceKind::Topic, Operation::Read);
        if !filter.contains(['+', '#']) {
            let name = rewrite(Form::Slashed, Form::Dotted, filter.as_bytes());
            return rules.decide(topic, &String::from_utf8_lossy(&name), read).allowed;
        }
        // A filter that ends with `/#` matches the level above as well.
        let fixed = filter.find(['+', '#']).and_then(|at| filter.get(..at)).unwrap_or(filter);
        let fixed = fixed.strip_suffix('/').filter(|_| filter.ends_with("/#")).unwrap_or(fixed);
        let beginning = rewrite(Form::Slashed, Form::Dotted, fixed.as_bytes());
        let filter = Filter::slashed(filter.as_bytes());
        let is_met = |name: &str| filter.matches(&Address::parse(Form::Dotted, name.as_bytes()));
        rules.allows_every(topic, read, &String::from_utf8_lossy(&beginning), is_met)
    }

    /// Whether the client may certainly publish at every address of the hub. False where that is not known.
    #[must_use]
    pub fn writes_all_addresses(&self) -> bool {
        let writes_all = |rules: &EffectiveRules| rules.allows_all_of("#", Operation::Write);
        self.is_unrestricted() || self.current.lock().rules.as_deref().is_none_or(writes_all)
    }

    /// Whether the client may perform an operation on some resource of this kind.
    #[must_use]
    pub fn may_any(&self, kind: ResourceKind, operation: Operation) -> bool {
        self.is_unrestricted()
            || self.current.lock().rules.as_ref().is_none_or(|rules| rules.decide_any(kind, operation))
    }

    /// Whether any rule denies the operation on resources of this kind, so that what an allowing rule covers whole must
    /// still be decided name by name.
    #[must_use]
    pub fn has_denials(&self, kind: ResourceKind, operation: Operation) -> bool {
        if self.is_unrestricted() {
            return false;
        }
        self.current.lock().rules.as_ref().is_some_and(|rules| rules.has_denials(kind, operation))
    }

    /// Records that the client was refused an operation for want of permission, with the rule that denies it.
    pub fn denied(&self, kind: ResourceKind, name: &str, operation: Operation) {
        if self.audit().wants(AuditKind::Denied) {
            let decided = self.current.lock().rules.as_ref().map(|rules| rules.decide(kind, name, operation));
            self.record_denial(kind, name, operation, decided);
        }
    }

    /// Records that the client was refused an operation on a filter of addresses.
    pub fn denied_filter(&self, filter: &str, operation: Operation) {
        if self.audit().wants(AuditKind::Denied) {
            let decided =
                self.current.lock().rules.as_ref().map(|rules| rules.decide_filter(filter, operation));
            self.record_denial(ResourceKind::Address, filter, operation, decided);
        }
    }

    fn record_denial(&self, kind: ResourceKind, name: &str, operation: Operation, decided: Option<Decision>) {
        let by = decided.filter(|decision| !decision.allowed).and_then(|decision| decision.by);
        self.audit().record(&AuditEvent {
            kind: AuditKind::Denied,
            result: AuditResult::Refused,
            who: self.who(),
            operation: operation.name(),
            resource: kind.name(),
            name,
            namespace: Some(&self.scope.namespace),
            rule: by.map(|id| id.0),
            reason: None,
        });
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        self.access.audit()
    }

    fn refresh(&self, current: &mut Current) {
        // Read before the rules are, so that a change in between is found by the next question.
        let version = self.version();
        *current = Current { version, ..Current::default() };
        let is_unrestricted = !self.access.is_enforced() || {
            let rules = self.rules();
            let is_unrestricted = rules.is_unrestricted();
            current.rules = (!is_unrestricted).then(|| Box::new(rules));
            is_unrestricted
        };
        self.unrestricted.store(version << 1 | u64::from(is_unrestricted), Ordering::Release);
    }

    /// The rules that apply to the client now.
    fn rules(&self) -> EffectiveRules {
        let Some(tags) = self.tags() else { return EffectiveRules::default() };
        let subject = Subject {
            user: self.user(),
            tags: &tags,
            client_id: self.client_id(),
            namespace: &self.scope.namespace,
            host: self.scope.peer.ip(),
        };
        let grant = self.grant.read().clone();
        let state = self.access.0.state.read();
        match &grant {
            Some(grant) => state.index().with_grant(&subject, grant),
            None => state.index().for_subject(&subject),
        }
    }
}

impl Permissions {
    /// The client's tags; none for a user that was deleted or disabled.
    fn tags(&self) -> Option<Tags> {
        match (self.user(), &*self.grant.read()) {
            (_, Some(grant)) => Some(grant.tags.clone()),
            (None, None) => Some(Tags::default()),
            (Some(name), None) => {
                let Some((user, _)) = self.access.user(name) else {
                    return (!self.access.has_users()).then(Tags::default);
                };
                (!user.disabled).then(|| user.tags.clone())
            }
        }
    }
}

impl Current {
    /// What was decided, with room for one more.
    fn with_room(&mut self) -> &mut Decided {
        let decided = self.decided.get_or_insert_default();
        if decided.count >= DECISIONS_MAX {
            **decided = Decided::default();
        }
        decided.count += 1;
        decided
    }
}

impl std::fmt::Debug for Permissions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permissions").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every connection has them.
    #[test]
    fn permissions_are_small() {
        assert!(size_of::<Permissions>() <= 224, "{}", size_of::<Permissions>());
        assert!(size_of::<Current>() <= 24, "{}", size_of::<Current>());
    }
}
