//! DeleteAcls: removes from the access control list (KIP-140, KIP-290).
//!
//! A rule of another dialect that allows several operations loses those that the deleted ACLs stand for.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use inver_access::{Operation, RuleId};
use inver_broker::{AuditKind, Completion};

use super::acls::{self, Expressed};
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map;
use crate::map::acl::{self, Acl, AclFilter};

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter> [0..],
    }

    /// The filters to use when deleting ACLs.
    pub struct DeleteAclsFilter {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<Str> [0..; null 0..],
        pattern_type_filter: i8 [1..; default 3],
        principal_filter: Option<Str> [0..; null 0..],
        host_filter: Option<Str> [0..; null 0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// Versions 1-3, flexible 2+.
    pub struct DeleteAclsResponse {
        throttle_time_ms: i32 [0..],
        filter_results: Vec<DeleteAclsFilterResult> [0..],
    }

    /// The results for each filter.
    pub struct DeleteAclsFilterResult {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        matching_acls: Vec<DeleteAclsMatchingAcl> [0..],
    }

    /// The ACLs which matched this filter.
    pub struct DeleteAclsMatchingAcl {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        resource_type: i8 [0..],
        resource_name: Str [0..],
        pattern_type: i8 [1..; default 3],
        principal: Str [0..],
        host: Str [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

/// The DeleteAcls API.
pub struct DeleteAcls;

impl Handler for DeleteAcls {
    const KEY: i16 = 31;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = DeleteAclsRequest;
    type Response = DeleteAclsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DeleteAclsRequest) -> Reply<DeleteAclsResponse> {
        let checked = acls::check(cx, Operation::Alter);
        let rules = acls::expressed(cx);
        // Codes of the operations to delete, by rule.
        let mut deletions: HashMap<RuleId, Vec<i8>> = HashMap::new();
        let mut filter_results = Vec::with_capacity(request.filters.len());
        for filter in request.filters {
            let filter = AclFilter::from(filter);
            let valid = filter.check().map_err(|text| (ErrorCode::INVALID_REQUEST, text.to_owned()));
            if let Err((error_code, text)) = checked.clone().and(valid) {
                let error_message = message(text);
                filter_results.push(DeleteAclsFilterResult {
                    error_code,
                    error_message,
                    matching_acls: Vec::new(),
                });
                continue;
            }
            // ACLs with the reason why they stay, each once: several rules may mean the same.
            let mut matching: BTreeMap<&Acl, Option<&'static str>> = BTreeMap::new();
            for rule in &rules {
                let fixed = rule.is_fixed();
                for acl in rule.acls.iter().filter(|acl| filter.matches(acl)) {
                    let stays = matching.entry(acl).or_default();
                    *stays = stays.or(fixed);
                    if fixed.is_none() {
                        deletions.entry(rule.rule.id).or_default().push(acl.operation);
                    }
                }
            }
            let matching_acls = matching.into_iter().map(|(acl, stays)| matching_acl(acl, stays)).collect();
            filter_results.push(DeleteAclsFilterResult {
                error_code: ErrorCode::NONE,
                error_message: None,
                matching_acls,
            });
        }
        let completion = match delete(cx, &rules, &deletions) {
            Ok(completion) => completion,
            Err((error_code, text)) => {
                let all = filter_results.iter_mut().flat_map(|result| result.matching_acls.iter_mut());
                all.filter(|acl| acl.error_code.is_none()).for_each(|acl| {
                    acl.error_code = error_code;
                    acl.error_message = message(text.as_str());
                });
                Completion::Now
            }
        };
        Reply::Response(DeleteAclsResponse { throttle_time_ms: 0, filter_results }, completion)
    }
}

/// Deletes ACLs of rules, given by the codes of their operations.
fn delete(
    cx: &RequestContext<'_>,
    rules: &[Expressed],
    deletions: &HashMap<RuleId, Vec<i8>>,
) -> Result<Completion, Refusal> {
    let rests = rules.iter().filter_map(|known| acl::without(&known.rule, deletions.get(&known.rule.id)?));
    let changed =
        cx.node.broker.access().replace_rules(|rule| deletions.contains_key(&rule.id), rests.collect());
    let changed = changed.map_err(|error| map::access_error(&error))?;
    let (count, namespace) = (deletions.values().map(Vec::len).sum::<usize>(), cx.namespace().name());
    tracing::debug!(count, namespace, "ACLs deleted");
    for id in deletions.keys() {
        cx.namespace().audit(AuditKind::Access, "delete", "permission", &id.0.to_string());
    }
    Ok(changed.completion)
}

fn matching_acl(acl: &Acl, stays: Option<&'static str>) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        error_code: if stays.is_some() { ErrorCode::POLICY_VIOLATION } else { ErrorCode::NONE },
        error_message: stays.and_then(message),
        resource_type: acl.resource_type,
        resource_name: acl.name.as_str().into(),
        pattern_type: acl.pattern_type,
        principal: acl.principal.as_str().into(),
        host: acl.host.as_str().into(),
        operation: acl.operation,
        permission_type: acl.permission,
    }
}

impl From<DeleteAclsFilter> for AclFilter {
    fn from(filter: DeleteAclsFilter) -> AclFilter {
        AclFilter {
            resource_type: filter.resource_type_filter,
            name: filter.resource_name_filter.map(|name| name.to_string()),
            pattern_type: filter.pattern_type_filter,
            principal: filter.principal_filter.map(|principal| principal.to_string()),
            host: filter.host_filter.map(|host| host.to_string()),
            operation: filter.operation,
            permission: filter.permission_type,
        }
    }
}
