//! AlterUserScramCredentials: sets and deletes SCRAM credentials of users (KIP-554).
//!
//! A user that does not exist is created; the first user of a broker is an administrator, or nobody would be. Users of the
//! configuration are read-only, and those with a tag that is a role (administrator, monitoring, …) are changed by
//! administrators only.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use bytes::Bytes;
use inver_access::scram::ScramKeys;
use inver_access::{Credential, Digest, Operation, Tag, Tags, User};
use inver_broker::{AuditKind, Completion};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
use super::scram_users;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map;

messages! {
    /// Versions 0, flexible 0+.
    pub struct AlterUserScramCredentialsRequest {
        deletions: Vec<ScramCredentialDeletion> [0..],
        upsertions: Vec<ScramCredentialUpsertion> [0..],
    }

    /// The SCRAM credentials to remove.
    pub struct ScramCredentialDeletion {
        name: Str [0..],
        mechanism: i8 [0..],
    }

    /// The SCRAM credentials to update/insert.
    pub struct ScramCredentialUpsertion {
        name: Str [0..],
        mechanism: i8 [0..],
        iterations: i32 [0..],
        salt: Bytes [0..],
        salted_password: Bytes [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct AlterUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AlterUserScramCredentialsResult> [0..],
    }

    /// The results for deletions and alterations, one per affected user.
    pub struct AlterUserScramCredentialsResult {
        user: Str [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The AlterUserScramCredentials API.
pub struct AlterUserScramCredentials;

/// Kafka's bounds of iterations.
const ITERATIONS: RangeInclusive<i32> = 4096..=16_384;
/// Bytes of a salt.
const SALT_BYTES_MAX: usize = 128;

/// The changes of one user: by mechanism, new keys or none.
type Changes = Vec<(Digest, Option<ScramKeys>)>;

impl Handler for AlterUserScramCredentials {
    const KEY: i16 = 51;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = AlterUserScramCredentialsRequest;
    type Response = AlterUserScramCredentialsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AlterUserScramCredentialsRequest,
    ) -> Reply<AlterUserScramCredentialsResponse> {
        let checked = scram_users::check(cx, Operation::Alter);
        let mut completion = Completion::Now;
        let mut results = Vec::new();
        for (user, changes) in by_user(&request) {
            let altered = checked.clone().and(changes).and_then(|changes| alter(cx, &user, changes));
            let (error_code, error_message) = match altered {
                Ok(altered) => {
                    completion = completion.and(altered);
                    (ErrorCode::NONE, None)
                }
                Err((code, text)) => (code, message(text)),
            };
            results.push(AlterUserScramCredentialsResult { user, error_code, error_message });
        }
        Reply::Response(AlterUserScramCredentialsResponse { throttle_time_ms: 0, results }, completion)
    }
}

/// The changes by user; an error in one of them is the user's.
fn by_user(request: &AlterUserScramCredentialsRequest) -> BTreeMap<Str, Result<Changes, Refusal>> {
    let deletions = request.deletions.iter().map(|one| {
        let change = digest_of(one.mechanism).map(|digest| (digest, None));
        (&one.name, change)
    });
    let upsertions = request.upsertions.iter().map(|one| (&one.name, upsertion(one)));
    let mut users: BTreeMap<Str, Result<Changes, Refusal>> = BTreeMap::new();
    for (name, change) in deletions.chain(upsertions) {
        let known = users.entry(name.clone()).or_insert_with(|| match name.is_empty() {
            true => Err((ErrorCode::UNACCEPTABLE_CREDENTIAL, "Username must not be empty".to_owned())),
            false => Ok(Vec::new()),
        });
        let Ok(changes) = known else { continue };
        match change {
            Ok(change) => changes.push(change),
            Err(refusal) => *known = Err(refusal),
        }
    }
    for known in users.values_mut() {
        let Ok(changes) = known else { continue };
        let mut mechanisms = HashSet::new();
        if !changes.iter().all(|(digest, _)| mechanisms.insert(*digest)) {
            let text = "A user credential cannot be altered twice in the same request";
            *known = Err((ErrorCode::DUPLICATE_RESOURCE, text.to_owned()));
        }
    }
    users
}

fn digest_of(mechanism: i8) -> Result<Digest, Refusal> {
    let unknown = || (ErrorCode::UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism".to_owned());
    scram_users::digest_of(mechanism).ok_or_else(unknown)
}

fn upsertion(one: &ScramCredentialUpsertion) -> Result<(Digest, Option<ScramKeys>), Refusal> {
    let unacceptable = |text: &str| (ErrorCode::UNACCEPTABLE_CREDENTIAL, text.to_owned());
    let digest = digest_of(one.mechanism)?;
    if one.iterations < *ITERATIONS.start() {
        return Err(unacceptable("Too few iterations"));
    }
    if one.iterations > *ITERATIONS.end() {
        return Err(unacceptable("Too many iterations"));
    }
    let iterations = u32::try_from(one.iterations).ok().and_then(NonZeroU32::new);
    if one.salt.is_empty() || one.salt.len() > SALT_BYTES_MAX {
        return Err(unacceptable("The salt must have 1 to 128 bytes"));
    }
    let keys = iterations.and_then(|iterations| {
        ScramKeys::of_salted(digest, &one.salted_password, one.salt.to_vec(), iterations)
    });
    let keys = keys.ok_or_else(|| unacceptable("The salted password has the wrong length"))?;
    Ok((digest, Some(keys)))
}

fn alter(cx: &RequestContext<'_>, name: &str, changes: Changes) -> Result<Completion, Refusal> {
    let access = cx.node.broker.access();
    let present = access.user(name).map(|(user, _)| user);
    let has = |digest: Digest| {
        let keys =
            |credential: &Credential| matches!(credential, Credential::Scram(keys) if keys.digest == digest);
        present.as_ref().is_some_and(|user| user.credentials.iter().any(keys))
    };
    if changes.iter().any(|(digest, keys)| keys.is_none() && !has(*digest)) {
        let text = "Attempt to delete a user credential that does not exist";
        return Err((ErrorCode::RESOURCE_NOT_FOUND, text.to_owned()));
    }
    // What such users may do, no permission of the client's gives it.
    let has_role = |user: &User| user.tags.iter().any(|tag| !matches!(tag, Tag::Custom(_)));
    if present.as_ref().is_some_and(|user| has_role(user)) && !scram_users::is_administrator(cx) {
        let text = format!("only administrators change `{name}`, a user with a tag");
        return Err((ErrorCode::CLUSTER_AUTHORIZATION_FAILED, text));
    }
    let administers = present.as_ref().is_some_and(|user| user.tags.contains(&Tag::Administrator));
    if let Some(Err(refused)) = cx.principal().map(|client| client.check_changes_user(name, administers)) {
        return Err((ErrorCode::CLUSTER_AUTHORIZATION_FAILED, refused.to_string()));
    }
    let altered = match present {
        Some(_) => access.update_user(name, |user| apply(user, changes)),
        None => {
            let mut user = User::new(name);
            if !access.has_users() {
                user.tags = Tags::from_iter([Tag::Administrator]);
            }
            apply(&mut user, changes);
            access.put_user(user)
        }
    };
    let altered = altered.map_err(|error| map::access_error(&error))?;
    cx.namespace().audit(AuditKind::Access, "alter", "user", name);
    Ok(altered)
}

fn apply(user: &mut User, changes: Changes) {
    for (digest, keys) in changes {
        user.credentials.retain(|known| !matches!(known, Credential::Scram(keys) if keys.digest == digest));
        user.credentials.extend(keys.map(Credential::Scram));
    }
}
