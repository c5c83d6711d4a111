//! Kafka's access control lists and the broker's permission rules.
//!
//! A rule of any dialect is shown as the ACLs that mean the same: one for each operation, or one with the operation `All`.
//! What Kafka cannot express (addresses of the hub, exchanges, sessions, namespaces, filters, regular expressions) is not
//! shown. An ACL becomes a rule of the client's namespace.

use std::net::IpAddr;

use inver_access::{Effect, Operation, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, Tag};

/// The dialect of rules made from ACLs.
pub(crate) const DIALECT: &str = "kafka";

/// Codes of the wire, with Kafka's names.
pub(crate) mod code {
    /// Stands for every value, in filters.
    pub(crate) const ANY: i8 = 1;
    pub(crate) const TOPIC: i8 = 2;
    pub(crate) const GROUP: i8 = 3;
    pub(crate) const CLUSTER: i8 = 4;
    pub(crate) const TRANSACTIONAL_ID: i8 = 5;
    pub(crate) const DELEGATION_TOKEN: i8 = 6;
    pub(crate) const USER: i8 = 7;
    /// Pattern types: in filters, every pattern that matches a name.
    pub(crate) const MATCH: i8 = 2;
    pub(crate) const LITERAL: i8 = 3;
    pub(crate) const PREFIXED: i8 = 4;
    /// Every operation.
    pub(crate) const ALL: i8 = 2;
    pub(crate) const DENY: i8 = 2;
    pub(crate) const ALLOW: i8 = 3;
}

/// The greatest codes that Kafka has.
const RESOURCE_TYPE_MAX: i8 = 7;
const PATTERN_TYPE_MAX: i8 = 4;
const OPERATION_MAX: i8 = 15;
const PERMISSION_MAX: i8 = 3;

/// The name of the cluster as a resource.
const CLUSTER_NAME: &str = "kafka-cluster";
/// The name, principal or host that stands for all.
const WILDCARD: &str = "*";
const ANYONE: &str = "User:*";
const USER: &str = "User";
/// Kafka's name for clients without a user.
const ANONYMOUS: &str = "ANONYMOUS";
/// The type of principal that stands for the users with a tag.
const TAG: &str = "Tag";

/// Operations with their codes.
const OPERATIONS: [(Operation, i8); 12] = [
    (Operation::Read, 3),
    (Operation::Write, 4),
    (Operation::Create, 5),
    (Operation::Delete, 6),
    (Operation::Alter, 7),
    (Operation::Describe, 8),
    (Operation::ClusterAction, 9),
    (Operation::DescribeConfigs, 10),
    (Operation::AlterConfigs, 11),
    (Operation::IdempotentWrite, 12),
    (Operation::CreateTokens, 13),
    (Operation::DescribeTokens, 14),
];

/// The code of an operation, if Kafka has it.
pub(crate) fn operation_code(operation: Operation) -> Option<i8> {
    OPERATIONS.iter().find(|(known, _)| *known == operation).map(|(_, code)| *code)
}

fn operation_of(code: i8) -> Option<Operation> {
    OPERATIONS.iter().find(|(_, known)| *known == code).map(|(operation, _)| *operation)
}

/// An ACL, as its codes and texts on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acl {
    pub(crate) resource_type: i8,
    pub(crate) name: String,
    pub(crate) pattern_type: i8,
    pub(crate) principal: String,
    pub(crate) host: String,
    pub(crate) operation: i8,
    pub(crate) permission: i8,
}

/// A filter of ACLs. A text that is not given matches every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AclFilter {
    pub(crate) resource_type: i8,
    pub(crate) name: Option<String>,
    pub(crate) pattern_type: i8,
    pub(crate) principal: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) operation: i8,
    pub(crate) permission: i8,
}

impl AclFilter {
    /// Checks that every code is one of Kafka's.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let known = (1..=RESOURCE_TYPE_MAX).contains(&self.resource_type)
            && (1..=PATTERN_TYPE_MAX).contains(&self.pattern_type)
            && (1..=OPERATION_MAX).contains(&self.operation)
            && (1..=PERMISSION_MAX).contains(&self.permission);
        if known { Ok(()) } else { Err("The filter contains unknown elements.") }
    }

    /// Whether an ACL is one of those that the filter names.
    pub(crate) fn matches(&self, acl: &Acl) -> bool {
        let is = |wanted: i8, code: i8| wanted == code::ANY || wanted == code;
        let is_text =
            |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        is(self.resource_type, acl.resource_type)
            && self.matches_name(acl)
            && is_text(&self.principal, &acl.principal)
            && is_text(&self.host, &acl.host)
            && is(self.operation, acl.operation)
            && is(self.permission, acl.permission)
    }

    fn matches_name(&self, acl: &Acl) -> bool {
        let Some(name) = &self.name else {
            return matches!(self.pattern_type, code::ANY | code::MATCH)
                || self.pattern_type == acl.pattern_type;
        };
        match self.pattern_type {
            code::ANY => *name == acl.name,
            code::MATCH if acl.pattern_type == code::PREFIXED => name.starts_with(&acl.name),
            code::MATCH => *name == acl.name || acl.name == WILDCARD,
            wanted => wanted == acl.pattern_type && *name == acl.name,
        }
    }
}

/// The rule of a namespace that an ACL means; it has no id yet.
pub(crate) fn to_rule(acl: &Acl, namespace: &str) -> Result<Rule, String> {
    let kind = match acl.resource_type {
        code::TOPIC => ResourceKind::Topic,
        code::GROUP => ResourceKind::Group,
        code::CLUSTER => ResourceKind::Cluster,
        code::TRANSACTIONAL_ID => ResourceKind::TransactionalId,
        code::DELEGATION_TOKEN => ResourceKind::DelegationToken,
        code::USER => ResourceKind::User,
        _ => return Err("Invalid resource type".to_owned()),
    };
    if acl.name.is_empty() {
        return Err("Invalid empty resource name".to_owned());
    }
    if kind == ResourceKind::Cluster && acl.name != CLUSTER_NAME {
        return Err(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
    }
    let name = match kind {
        ResourceKind::Cluster => "",
        ResourceKind::User if acl.name != WILDCARD => user_of(&acl.name)?,
        _ => acl.name.as_str(),
    };
    let pattern = match acl.pattern_type {
        code::LITERAL if name == WILDCARD => Pattern::Any,
        code::LITERAL => Pattern::Literal(name.to_owned()),
        code::PREFIXED => Pattern::Prefix(name.to_owned()),
        _ => return Err("Invalid pattern type".to_owned()),
    };
    let operations = match acl.operation {
        code::ALL => Operations::ALL,
        OPERATION_MAX => return Err("Two-phase commits are not supported.".to_owned()),
        other => Operations::of(&[operation_of(other).ok_or("Invalid operation type")?]),
    };
    let effect = match acl.permission {
        code::ALLOW => Effect::Allow,
        code::DENY => Effect::Deny,
        _ => return Err("Invalid permission type".to_owned()),
    };
    let host = match acl.host.as_str() {
        WILDCARD => None,
        address => {
            let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
            Some(address.to_canonical())
        }
    };
    Ok(Rule {
        id: RuleId(0),
        principal: principal_of(&acl.principal)?,
        namespace: Some(namespace.to_owned()),
        kind,
        pattern,
        operations,
        effect,
        host,
        dialect: DIALECT.to_owned(),
    })
}

/// The user whom the name of a resource stands for.
fn user_of(name: &str) -> Result<&str, String> {
    let user = name.strip_prefix(USER).and_then(|name| name.strip_prefix(':'));
    let user = user.filter(|name| !name.is_empty());
    user.ok_or_else(|| format!("Could not parse the user resource `{name}` (expected: User:name)"))
}

fn principal_of(text: &str) -> Result<Principal, String> {
    match text.split_once(':') {
        Some((USER, "")) | None => {
            Err(format!("Could not parse principal from `{text}` (expected: User:name)"))
        }
        Some((USER, WILDCARD)) => Ok(Principal::Anyone),
        Some((USER, ANONYMOUS)) => Ok(Principal::Anonymous),
        Some((USER, name)) => Ok(Principal::User(name.to_owned())),
        Some((TAG, name)) if !name.is_empty() => Ok(Principal::Tag(Tag::named(name))),
        Some((kind, _)) => {
            Err(format!("Principals of the type `{kind}` are not supported: use User or Tag."))
        }
    }
}

/// The ACLs that mean the same as a rule: none if Kafka cannot express it.
pub(crate) fn of_rule(rule: &Rule) -> Vec<Acl> {
    let resource_type = match rule.kind {
        ResourceKind::Topic => code::TOPIC,
        ResourceKind::Group => code::GROUP,
        ResourceKind::Cluster => code::CLUSTER,
        ResourceKind::TransactionalId => code::TRANSACTIONAL_ID,
        ResourceKind::DelegationToken => code::DELEGATION_TOKEN,
        ResourceKind::User => code::USER,
        _ => return Vec::new(),
    };
    let (pattern_type, name) = match &rule.pattern {
        Pattern::Any if rule.kind == ResourceKind::Cluster => (code::LITERAL, CLUSTER_NAME),
        Pattern::Any => (code::LITERAL, WILDCARD),
        Pattern::Regex(pattern) if matches!(pattern.as_str(), ".*" | "^.*" | "^.*$") => {
            (code::LITERAL, WILDCARD)
        }
        Pattern::Literal(name) if rule.kind == ResourceKind::Cluster && name.is_empty() => {
            (code::LITERAL, CLUSTER_NAME)
        }
        Pattern::Prefix(name) if rule.kind == ResourceKind::Cluster && name.is_empty() => {
            (code::PREFIXED, CLUSTER_NAME)
        }
        // A resource with the name of the wildcard.
        Pattern::Literal(name) if name == WILDCARD => return Vec::new(),
        Pattern::Literal(name) if !name.is_empty() => (code::LITERAL, name.as_str()),
        Pattern::Prefix(name) if !name.is_empty() => (code::PREFIXED, name.as_str()),
        Pattern::Prefix(_) => (code::LITERAL, WILDCARD),
        _ => return Vec::new(),
    };
    let principal = match &rule.principal {
        Principal::User(user) => format!("{USER}:{user}"),
        Principal::Tag(tag) => format!("{TAG}:{}", tag.name()),
        Principal::Anyone => ANYONE.to_owned(),
        Principal::Anonymous => format!("{USER}:{ANONYMOUS}"),
    };
    let operations = match rule.operations {
        Operations::ALL => vec![code::ALL],
        some => plain(some).iter().filter_map(operation_code).collect(),
    };
    let acl = |operation| Acl {
        resource_type,
        name: match rule.kind {
            ResourceKind::User if name != WILDCARD => format!("{USER}:{name}"),
            _ => name.to_owned(),
        },
        pattern_type,
        principal: principal.clone(),
        host: rule.host.map_or_else(|| WILDCARD.to_owned(), |host| host.to_string()),
        operation,
        permission: if rule.effect == Effect::Allow { code::ALLOW } else { code::DENY },
    };
    operations.into_iter().map(acl).collect()
}

/// Operations with `Configure` replaced by the two that it stands for.
fn plain(operations: Operations) -> Operations {
    let others = operations.iter().filter(|operation| *operation != Operation::Configure);
    let others: Vec<Operation> = others.collect();
    match operations.contains(Operation::Configure) {
        true => Operations::of(&others).or(Operations::of(&[Operation::Create, Operation::Delete])),
        false => operations,
    }
}

/// What is left of a rule without some of its ACLs, given by the codes of their operations; none if nothing is left.
pub(crate) fn without(rule: &Rule, codes: &[i8]) -> Option<Rule> {
    if codes.contains(&code::ALL) {
        return None;
    }
    let left = plain(rule.operations)
        .iter()
        .filter(|operation| !operation_code(*operation).is_some_and(|code| codes.contains(&code)));
    let left: Vec<Operation> = left.collect();
    let rest = Rule { id: RuleId(0), operations: Operations::of(&left), ..rule.clone() };
    (!left.is_empty()).then_some(rest)
}
