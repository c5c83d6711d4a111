//! What the APIs of access control lists share: the rules of the client's namespace as ACLs.

use std::sync::Arc;

use inver_access::{Operation, Rule};
use inver_broker::Source;

use super::context::RequestContext;
use super::reply::Refusal;
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::map::acl::{self, Acl};

/// Kafka's error message where no authorizer is configured, and the reason here.
const NO_USERS: &str = "No Authorizer is configured. (Permissions are checked once there is a user: add one with \
                        `inver user add`, or with kafka-configs.)";

/// Checks that there are ACLs, and that the client may do something to them. Without users nothing is checked: a first rule
/// would shut everybody out.
pub(super) fn check(cx: &RequestContext<'_>, operation: Operation) -> Result<(), Refusal> {
    if !cx.node.broker.access().has_users() {
        return Err((ErrorCode::SECURITY_DISABLED, NO_USERS.to_owned()));
    }
    cx.access.check_cluster(operation).map_err(|code| (code, access::text(code).to_owned()))
}

/// A rule of the client's namespace with the ACLs that mean the same.
pub(super) struct Expressed {
    pub(super) rule: Arc<Rule>,
    pub(super) acls: Vec<Acl>,
    source: Source,
}

impl Expressed {
    /// Why the rule cannot be deleted from here; none if it can.
    pub(super) fn is_fixed(&self) -> Option<&'static str> {
        match (self.source, &self.rule.namespace) {
            (Source::Configuration, _) => {
                Some("The rule is set in the broker's configuration and is read-only here.")
            }
            (Source::Stored, None) => Some("The rule applies to every namespace and is read-only here."),
            (Source::Stored, Some(_)) => None,
        }
    }
}

/// The rules that apply in the client's namespace and that Kafka can express.
pub(super) fn expressed(cx: &RequestContext<'_>) -> Vec<Expressed> {
    let namespace = cx.namespace().name();
    let rules = cx.node.broker.access().rules().into_iter();
    let here = rules
        .filter(|(rule, _)| rule.namespace.as_deref().is_none_or(|of| of == namespace))
        .map(|(rule, source)| Expressed { acls: acl::of_rule(&rule), rule, source });
    here.filter(|expressed| !expressed.acls.is_empty()).collect()
}
