//! Rows of users, rules and delegation tokens.

use bytes::Bytes;
use inver_access::{Credential, DelegationToken, Rule, RuleId, Tags, User, UserLimits};
use serde::{Deserialize, Serialize};

use crate::tables::{self, DELEGATION_TOKENS, RULES, RowError, USERS};

/// Users: name → this.
#[derive(Serialize, Deserialize)]
struct UserRow {
    disabled: bool,
    tags: Tags,
    default_namespace: Option<String>,
    /// Text forms of its credentials.
    credentials: Vec<String>,
    limits: UserLimits,
}

pub(super) fn encode_user(user: &User) -> Bytes {
    tables::encode(&UserRow {
        disabled: user.disabled,
        tags: user.tags.clone(),
        default_namespace: user.default_namespace.clone(),
        credentials: user.credentials.iter().map(Credential::to_text).collect(),
        limits: user.limits,
    })
}

/// A credential that cannot be read any more is left out: the user cannot log in with it.
pub(super) fn decode_user(name: &str, row: &[u8]) -> Result<User, RowError> {
    let row: UserRow = tables::decode(USERS, row)?;
    let credentials = row.credentials.iter().filter_map(|text| match Credential::parse(text) {
        Ok(credential) => Some(credential),
        Err(error) => {
            tracing::warn!(user = name, %error, "stored credential skipped");
            None
        }
    });
    Ok(User {
        name: name.to_owned(),
        disabled: row.disabled,
        tags: row.tags,
        default_namespace: row.default_namespace,
        credentials: credentials.collect(),
        limits: row.limits,
    })
}

/// Rules: id → the rule.
pub(super) fn rule_key(id: RuleId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

pub(super) fn encode_rule(rule: &Rule) -> Bytes {
    tables::encode(rule)
}

pub(super) fn decode_rule(id: RuleId, row: &[u8]) -> Result<Rule, RowError> {
    Ok(Rule { id, ..tables::decode(RULES, row)? })
}

/// Delegation tokens: id → this.
#[derive(Serialize, Deserialize)]
struct TokenRow {
    owner: String,
    requester: String,
    renewers: Vec<String>,
    issued_ms: i64,
    expires_ms: i64,
    max_ms: i64,
    /// Of the secret that it was made with.
    fingerprint: [u8; 8],
}

pub(super) fn encode_token(token: &DelegationToken, fingerprint: [u8; 8]) -> Bytes {
    let DelegationToken { id: _, owner, requester, renewers, issued_ms, expires_ms, max_ms } = token.clone();
    tables::encode(&TokenRow { owner, requester, renewers, issued_ms, expires_ms, max_ms, fingerprint })
}

pub(super) fn decode_token(id: &str, row: &[u8]) -> Result<(DelegationToken, [u8; 8]), RowError> {
    let row: TokenRow = tables::decode(DELEGATION_TOKENS, row)?;
    let TokenRow { owner, requester, renewers, issued_ms, expires_ms, max_ms, fingerprint } = row;
    let id = id.to_owned();
    Ok((DelegationToken { id, owner, requester, renewers, issued_ms, expires_ms, max_ms }, fingerprint))
}
