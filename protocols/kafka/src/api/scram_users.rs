//! What the APIs of SCRAM credentials share.

use inver_access::{Credential, Digest, Operation, Tag};
use inver_broker::Identity;

use super::context::RequestContext;
use super::reply::Refusal;
use crate::access;
use crate::codec::error_code::ErrorCode;

/// Mechanisms on the wire (KIP-554).
const SCRAM_SHA_256: i8 = 1;
const SCRAM_SHA_512: i8 = 2;

/// The hash function of a mechanism.
pub(super) fn digest_of(mechanism: i8) -> Option<Digest> {
    match mechanism {
        SCRAM_SHA_256 => Some(Digest::Sha256),
        SCRAM_SHA_512 => Some(Digest::Sha512),
        _ => None,
    }
}

/// The mechanism and the iterations of SCRAM keys.
pub(super) fn mechanism_of(credential: &Credential) -> Option<(i8, i32)> {
    let Credential::Scram(keys) = credential else { return None };
    let mechanism = match keys.digest {
        Digest::Sha256 => SCRAM_SHA_256,
        Digest::Sha512 => SCRAM_SHA_512,
        Digest::Md5 => return None,
    };
    Some((mechanism, i32::try_from(keys.iterations.get()).unwrap_or(i32::MAX)))
}

/// Checks that the client may do something to users. Users belong to no namespace: the clients of the namespace `/` manage
/// them, and administrators.
pub(super) fn check(cx: &RequestContext<'_>, operation: Operation) -> Result<(), Refusal> {
    let code = match cx.access.check_cluster(operation) {
        Ok(()) if is_administrator(cx) || cx.namespace().name() == "/" => return Ok(()),
        Ok(()) => ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        Err(code) => code,
    };
    Err((code, access::text(code).to_owned()))
}

/// Whether the client is an administrator now.
pub(super) fn is_administrator(cx: &RequestContext<'_>) -> bool {
    let tags = cx.principal().map(|client: &Identity| client.tags(cx.node.broker.access()));
    tags.is_some_and(|tags| tags.contains(&Tag::Administrator))
}
