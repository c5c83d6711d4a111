//! The policies of a namespace: setting and deleting them, and applying them to what exists.
//!
//! Every change is written to the log under the topology lock, and holds at once for every queue and exchange.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use inver_storage::{Entry, SubmitError};

use super::Namespace;
use super::passing_on::{may_dead_letter, may_pass_on};
use crate::audit::AuditKind;
use crate::completion::Completion;
use crate::exchange::Exchange;
use crate::limits;
use crate::policy::{Policy, PolicyError};
use crate::queue::Queue;
use crate::removal::Removal;
use crate::rows;
use crate::spec::{PolicyKind, PolicySpec};

impl Namespace {
    /// Its policies of a kind, in the order in which they are tried: the first that matches applies.
    #[must_use]
    pub fn policies(&self, kind: PolicyKind) -> Vec<Arc<Policy>> {
        self.0.policies.read().of(kind).to_vec()
    }

    /// The policy of a name.
    #[must_use]
    pub fn policy(&self, kind: PolicyKind, name: &str) -> Option<Arc<Policy>> {
        self.0.policies.read().of(kind).iter().find(|policy| policy.name() == name).cloned()
    }

    /// Sets a policy, or replaces the one of its name; it holds at once. Whether it is new, and when it is durable.
    pub fn set_policy(
        &self,
        kind: PolicyKind,
        name: &str,
        spec: PolicySpec,
    ) -> Result<(bool, Completion), PolicyError> {
        let policy = Policy::new(kind, name, spec)?;
        let client = self.client().map(|client| &**client);
        if let Some(to) = policy.dead_letter().filter(|to| !may_dead_letter(client, to)) {
            return Err(PolicyError::NotAllowed(to.exchange));
        }
        if let Some(to) = policy.alternate_exchange().filter(|to| !may_pass_on(client, to)) {
            return Err(PolicyError::NotAllowed(to.to_owned()));
        }
        let _topology = self.topology();
        let present = self.policy(kind, name);
        if present.as_ref().is_some_and(|present| present.spec() == policy.spec()) {
            // As definitions do at each start. It may not be durable yet.
            return Ok((false, self.log().submitted().into()));
        }
        let is_new = present.is_none();
        if is_new {
            let max = self.own_max(self.limits().policies_max, |_| None);
            limits::check("policies", self.0.policies.read().of(kind).len(), max)?;
        }
        let mut entry = Entry::new();
        entry.put(rows::POLICIES, rows::policy_key(self.0.id, kind, name), rows::encode(policy.spec()));
        let lsn = self.log().submit(entry)?.lsn;
        let without_effect = policy.without_effect();
        if !without_effect.is_empty() {
            tracing::info!(
                namespace = self.name(),
                policy = name,
                ?without_effect,
                "settings of a policy have no effect"
            );
        }
        self.tell_policy("policy.set", name, Some(policy.spec()));
        self.0.policies.write().insert(kind, Arc::new(policy));
        self.police_all();
        let operation = if is_new { "create" } else { "alter" };
        self.audit(AuditKind::Topology, operation, kind.noun(), name);
        Ok((is_new, lsn.into()))
    }

    /// Deletes a policy; what it set no longer holds.
    pub fn delete_policy(&self, kind: PolicyKind, name: &str) -> Result<Completion, PolicyError> {
        let _topology = self.topology();
        if self.policy(kind, name).is_none() {
            return Err(PolicyError::Unknown { kind, name: name.to_owned() });
        }
        let mut entry = Entry::new();
        entry.delete(rows::POLICIES, rows::policy_key(self.0.id, kind, name));
        let lsn = self.log().submit(entry)?.lsn;
        self.0.policies.write().remove(kind, name);
        self.police_all();
        self.audit(AuditKind::Deleted, "delete", kind.noun(), name);
        let cleared = match kind {
            PolicyKind::Ordinary => "policy.cleared",
            PolicyKind::Operator => "operator.policy.cleared",
        };
        self.tell_policy(cleared, name, None);
        Ok(lsn.into())
    }

    /// Restores a policy; before the queues and exchanges.
    pub(crate) fn recover_policy(&self, key: &Bytes, spec: PolicySpec) {
        let Some((kind, name)) = rows::split_policy_key(key) else { return };
        match Policy::recover(&name, spec) {
            Ok(policy) => self.0.policies.write().insert(kind, Arc::new(policy)),
            Err(error) => tracing::error!(policy = name, %error, "policy skipped in recovery"),
        }
    }

    /// Applies the restored policies to the predeclared exchanges, which are there already.
    pub(crate) fn recovered_policies(&self) {
        self.exchanges_unordered().iter().for_each(|exchange| self.police_exchange(exchange));
    }

    pub(super) fn remove_policies(&self, removal: &mut Removal<'_>) -> Result<(), SubmitError> {
        for kind in PolicyKind::ALL {
            let all = self.0.policies.write().take(kind);
            for policy in all {
                removal.row(rows::POLICIES, rows::policy_key(self.0.id, kind, policy.name()));
                removal.end_of_object()?;
            }
        }
        Ok(())
    }

    /// Under the topology lock: no queue or exchange comes meanwhile.
    fn police_all(&self) {
        self.queues().iter().for_each(|queue| self.police_queue(queue));
        self.exchanges_unordered().iter().for_each(|exchange| self.police_exchange(exchange));
        self.changed();
    }

    /// Applies the policies to a queue. Those of shared subscriptions are no queues to those who set policies.
    pub(super) fn police_queue(&self, queue: &Arc<Queue>) {
        let spec = queue.spec();
        if spec.hidden && spec.owner.is_none() {
            return;
        }
        let applied = self.0.policies.read().of_queue(queue.name(), spec);
        if applied.is(&queue.applied()) {
            return;
        }
        queue.apply(applied);
        if queue.bounds().expires_after_ms.is_some() {
            self.let_expire(queue);
        }
    }

    /// Applies the policies to an exchange.
    pub(super) fn police_exchange(&self, exchange: &Exchange) {
        let applied = self.0.policies.read().of_exchange(exchange.name());
        if applied.is(&exchange.applied()) {
            return;
        }
        exchange.apply(applied);
        if exchange.alternate().is_some() {
            self.0.may_reach_headers.store(true, Ordering::Release);
        }
    }
}
