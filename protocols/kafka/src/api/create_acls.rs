//! CreateAcls: adds to the access control list (KIP-140, KIP-290): permission rules of the client's namespace.

use std::ops::RangeInclusive;

use inver_access::{Operation, Rule};
use inver_broker::{AuditKind, Completion};

use super::acls;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map;
use crate::map::acl::{self, Acl};

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct CreateAclsRequest {
        creations: Vec<AclCreation> [0..],
    }

    /// The ACLs that we want to create.
    pub struct AclCreation {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        resource_pattern_type: i8 [1..; default 3],
        principal: Str [0..],
        host: Str [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// Versions 1-3, flexible 2+.
    pub struct CreateAclsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AclCreationResult> [0..],
    }

    /// The results for each ACL creation.
    pub struct AclCreationResult {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The CreateAcls API.
pub struct CreateAcls;

impl Handler for CreateAcls {
    const KEY: i16 = 30;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = CreateAclsRequest;
    type Response = CreateAclsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: CreateAclsRequest) -> Reply<CreateAclsResponse> {
        let namespace = cx.namespace().name();
        let mut outcomes: Vec<Result<Rule, Refusal>> = match acls::check(cx, Operation::Alter) {
            Ok(()) => request.creations.iter().map(|creation| rule(creation, namespace)).collect(),
            Err(refusal) => request.creations.iter().map(|_| Err(refusal.clone())).collect(),
        };
        let rules: Vec<Rule> = outcomes.iter().flatten().cloned().collect();
        let count = rules.len();
        let completion = match cx.node.broker.access().add_rules(rules) {
            Ok((ids, completion)) => {
                tracing::debug!(count, namespace, "ACLs created");
                ids.iter().for_each(|id| {
                    cx.namespace().audit(AuditKind::Access, "create", "permission", &id.0.to_string());
                });
                completion
            }
            Err(error) => {
                let refusal = map::access_error(&error);
                outcomes.iter_mut().filter(|one| one.is_ok()).for_each(|one| *one = Err(refusal.clone()));
                Completion::Now
            }
        };
        let results = outcomes.into_iter().map(|outcome| match outcome {
            Ok(_) => AclCreationResult { error_code: ErrorCode::NONE, error_message: None },
            Err((error_code, text)) => AclCreationResult { error_code, error_message: message(text) },
        });
        let results = results.collect();
        Reply::Response(CreateAclsResponse { throttle_time_ms: 0, results }, completion)
    }
}

fn rule(creation: &AclCreation, namespace: &str) -> Result<Rule, Refusal> {
    let acl = Acl {
        resource_type: creation.resource_type,
        name: creation.resource_name.to_string(),
        pattern_type: creation.resource_pattern_type,
        principal: creation.principal.to_string(),
        host: creation.host.to_string(),
        operation: creation.operation,
        permission: creation.permission_type,
    };
    acl::to_rule(&acl, namespace).map_err(|text| (ErrorCode::INVALID_REQUEST, text))
}
