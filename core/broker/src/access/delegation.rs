//! Delegation tokens (KIP-48): making, renewing and ending them, and what a login by one needs.
//!
//! A token is a row of the log and lives as long as its owner. Its HMAC is in no row: it is made from the token's id and
//! the secret of [`DelegationConfig`], so tokens made with another secret are gone.
//!
//! Bounds: [`DelegationConfig::tokens_max`] and [`DelegationConfig::tokens_per_owner_max`]. Expired tokens are removed by
//! housekeeping, and count until then.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use inver_access::scram::ScramKeys;
use inver_access::{DelegationToken, Digest, TokenSecret, new_token_id};
use inver_storage::{Entry, SubmitError};

use super::store::State;
use super::{AccessControl, rows};
use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::tables::DELEGATION_TOKENS;

/// Renewers of a token.
const RENEWERS_MAX: usize = 100;

/// Settings of delegation tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationConfig {
    /// What HMACs are made with; none: there are no tokens.
    pub secret: Option<TokenSecret>,
    /// For how long a token can be renewed, milliseconds.
    pub max_lifetime_ms: i64,
    /// For how long a token is valid when it was made or renewed, milliseconds.
    pub expiry_ms: i64,
    /// Tokens at the same time; 0: there are none.
    pub tokens_max: usize,
    /// Tokens of one owner at the same time.
    pub tokens_per_owner_max: usize,
}

impl Default for DelegationConfig {
    fn default() -> DelegationConfig {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        DelegationConfig {
            secret: None,
            max_lifetime_ms: 7 * DAY_MS,
            expiry_ms: DAY_MS,
            tokens_max: 10_000,
            tokens_per_owner_max: 100,
        }
    }
}

/// Why something about a delegation token is refused.
#[derive(Debug, thiserror::Error)]
pub enum DelegationError {
    /// There are no delegation tokens: no users, no secret, or a limit of 0.
    #[error("delegation tokens are disabled")]
    Disabled,
    /// No token has this HMAC.
    #[error("no such delegation token")]
    NotFound,
    /// The user is neither the token's owner nor its requester or a renewer.
    #[error("the delegation token is another user's")]
    NotTheirs,
    /// The token is expired.
    #[error("the delegation token is expired")]
    Expired,
    /// The owner is no user of the broker.
    #[error("no such user: {0}")]
    NoSuchUser(String),
    /// There are too many tokens, or renewers of one.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The system provides no random numbers.
    #[error("the system provides no random numbers")]
    Random,
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelegationToken {
    /// The user that a client with the token is.
    pub owner: String,
    /// The user who asks for it.
    pub requester: String,
    /// Users who may renew it and end it.
    pub renewers: Vec<String>,
    /// For how long it can be renewed, if less than is configured, milliseconds.
    pub max_lifetime_ms: Option<i64>,
}

/// The keys of SCRAM of a token, which are computed when they are first asked for.
#[derive(Default)]
struct Keys {
    sha256: OnceLock<Option<ScramKeys>>,
    sha512: OnceLock<Option<ScramKeys>>,
}

impl Keys {
    fn get(&self, id: &str, digest: Digest, secret: &TokenSecret) -> Option<ScramKeys> {
        let keys = match digest {
            Digest::Sha256 => &self.sha256,
            Digest::Sha512 => &self.sha512,
            Digest::Md5 => return None,
        };
        keys.get_or_init(|| secret.scram_keys(digest, id)).clone()
    }
}

struct Known {
    token: DelegationToken,
    hmac_hash: Vec<u8>,
    keys: Arc<Keys>,
}

/// The tokens by id.
#[derive(Default)]
pub(super) struct Tokens {
    by_id: HashMap<String, Known>,
    /// Ids by a hash of the HMAC.
    by_hmac: HashMap<Vec<u8>, String>,
    of_owner: HashMap<String, usize>,
}

impl Tokens {
    /// Ids of the tokens that a function selects.
    pub(super) fn select(&self, select: impl Fn(&DelegationToken) -> bool) -> Vec<String> {
        let tokens = self.by_id.values().map(|known| &known.token);
        tokens.filter(|token| select(token)).map(|token| token.id.clone()).collect()
    }

    fn put(&mut self, token: DelegationToken, secret: &TokenSecret) {
        let id = token.id.clone();
        if let Some(known) = self.by_id.get_mut(&id) {
            known.token = token;
            return;
        }
        let hmac_hash = hash_of(&secret.hmac(&id));
        self.by_hmac.insert(hmac_hash.clone(), id.clone());
        *self.of_owner.entry(token.owner.clone()).or_default() += 1;
        self.by_id.insert(id, Known { token, hmac_hash, keys: Arc::default() });
    }

    /// Replaces a token by one with the same id.
    pub(super) fn replace(&mut self, token: DelegationToken) {
        if let Some(known) = self.by_id.get_mut(&token.id) {
            known.token = token;
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(known) = self.by_id.remove(id) else { return };
        self.by_hmac.remove(&known.hmac_hash);
        if let Some(count) = self.of_owner.get_mut(&known.token.owner) {
            *count -= 1;
            if *count == 0 {
                self.of_owner.remove(&known.token.owner);
            }
        }
    }

    fn by_hmac(&self, hmac: &[u8]) -> Option<&DelegationToken> {
        let known = self.by_id.get(self.by_hmac.get(&hash_of(hmac))?)?;
        Some(&known.token)
    }
}

/// What tokens are found by. A look-up by the HMAC itself would take as long as it is alike.
fn hash_of(hmac: &[u8]) -> Vec<u8> {
    Digest::Sha256.hash(&[hmac])
}

impl AccessControl {
    /// Enters the tokens that the log has.
    pub(super) fn recover_tokens(&self) -> Result<(), crate::tables::RowError> {
        let Some(secret) = &self.0.delegation.secret else { return Ok(()) };
        let fingerprint = secret.fingerprint();
        let mut lost = Vec::new();
        let mut state = self.0.state.write();
        for (id, row) in self.0.log.recovered_state(DELEGATION_TOKENS) {
            let (token, made_with) = rows::decode_token(&String::from_utf8_lossy(&id), &row)?;
            if made_with == fingerprint {
                state.tokens.put(token, secret);
            } else {
                lost.push(id);
            }
        }
        drop(state);
        if !lost.is_empty() {
            tracing::warn!(
                count = lost.len(),
                "delegation tokens removed: they were made with another secret"
            );
            let mut entry = Entry::new();
            lost.into_iter().for_each(|id| entry.delete(DELEGATION_TOKENS, id));
            if let Err(error) = self.0.log.submit(entry) {
                tracing::warn!(%error, "failed to remove delegation tokens");
            }
        }
        Ok(())
    }

    /// The settings of delegation tokens.
    #[must_use]
    pub fn delegation(&self) -> &DelegationConfig {
        &self.0.delegation
    }

    /// The secret, if there can be tokens.
    fn token_secret(&self) -> Result<&TokenSecret, DelegationError> {
        let config = &self.0.delegation;
        let secret = config.secret.as_ref().filter(|_| config.tokens_max > 0 && self.has_users());
        secret.ok_or(DelegationError::Disabled)
    }

    /// Whether there can be delegation tokens.
    #[must_use]
    pub fn supports_delegation(&self) -> bool {
        self.token_secret().is_ok()
    }

    /// Whether there are delegation tokens.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.supports_delegation() && !self.0.state.read().tokens.by_id.is_empty()
    }

    /// All delegation tokens, the oldest first, those included that expired and are not removed yet.
    #[must_use]
    pub fn tokens(&self) -> Vec<DelegationToken> {
        let mut all: Vec<DelegationToken> =
            self.0.state.read().tokens.by_id.values().map(|known| known.token.clone()).collect();
        all.sort_unstable_by(|a, b| (a.issued_ms, &a.id).cmp(&(b.issued_ms, &b.id)));
        all
    }

    /// The HMAC of a token: what logs in by it.
    #[must_use]
    pub fn token_hmac(&self, id: &str) -> Vec<u8> {
        self.0.delegation.secret.as_ref().map(|secret| secret.hmac(id)).unwrap_or_default()
    }

    /// Makes a token.
    pub fn create_token(
        &self,
        new: NewDelegationToken,
        now_ms: i64,
    ) -> Result<(DelegationToken, Completion), DelegationError> {
        let secret = self.token_secret()?;
        let config = &self.0.delegation;
        limits::check("renewers of a delegation token", new.renewers.len().saturating_sub(1), RENEWERS_MAX)?;
        let asked = new.max_lifetime_ms.unwrap_or(i64::MAX).max(0);
        let max_ms = now_ms.saturating_add(asked.min(config.max_lifetime_ms));
        let token = DelegationToken {
            id: new_token_id().ok_or(DelegationError::Random)?,
            owner: new.owner,
            requester: new.requester,
            renewers: new.renewers,
            issued_ms: now_ms,
            expires_ms: max_ms.min(now_ms.saturating_add(config.expiry_ms)),
            max_ms,
        };
        let mut state = self.0.state.write();
        if state.user(&token.owner).is_none_or(|(user, _)| user.disabled) {
            return Err(DelegationError::NoSuchUser(token.owner));
        }
        let of_owner = state.tokens.of_owner.get(&token.owner).copied().unwrap_or_default();
        limits::check("delegation tokens", state.tokens.by_id.len(), config.tokens_max)?;
        limits::check("delegation tokens of one owner", of_owner, config.tokens_per_owner_max)?;
        let completion = self.put_token(&mut state, &token, secret)?;
        Ok((token, completion))
    }

    /// Renews a token on behalf of a user; returns it as it is then. Without a time it is valid for as long as is
    /// configured, and never longer.
    pub fn renew_token(
        &self,
        hmac: &[u8],
        by: &str,
        valid_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(DelegationToken, Completion), DelegationError> {
        let secret = self.token_secret()?;
        let mut state = self.0.state.write();
        let mut token = self.token_of(&state, hmac, by)?;
        if token.is_expired(now_ms) {
            return Err(DelegationError::Expired);
        }
        let valid_ms = valid_ms.unwrap_or(i64::MAX).min(self.0.delegation.expiry_ms);
        token.expires_ms = token.max_ms.min(now_ms.saturating_add(valid_ms));
        let completion = self.put_token(&mut state, &token, secret)?;
        Ok((token, completion))
    }

    /// Has a token expire after a time, or removes it now and ends the connections that were authenticated by it.
    pub fn expire_token(
        &self,
        hmac: &[u8],
        by: &str,
        after_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(DelegationToken, Completion), DelegationError> {
        let secret = self.token_secret()?;
        let mut state = self.0.state.write();
        let mut token = self.token_of(&state, hmac, by)?;
        let completion = match after_ms {
            Some(_) if token.is_expired(now_ms) => return Err(DelegationError::Expired),
            Some(after_ms) => {
                token.expires_ms = token.max_ms.min(now_ms.saturating_add(after_ms));
                self.put_token(&mut state, &token, secret)?
            }
            None => {
                token.expires_ms = now_ms;
                self.remove_tokens(&mut state, std::slice::from_ref(&token.id))?
            }
        };
        drop(state);
        if token.is_expired(now_ms) {
            self.0.connections.close_of_token(&token.id);
        }
        Ok((token, completion))
    }

    /// Removes the tokens that are expired.
    pub(crate) fn remove_expired_tokens(&self, now_ms: i64) {
        let mut state = self.0.state.write();
        let expired = state.tokens.select(|token| token.is_expired(now_ms));
        if let Err(error) = self.remove_tokens(&mut state, &expired) {
            tracing::warn!(%error, "failed to remove expired delegation tokens");
        }
    }

    /// Removes the tokens of those of these users who are no users any more, and their rights to tokens of others.
    pub(super) fn remove_from_tokens(&self, users: &[String]) {
        let mut state = self.0.state.write();
        let is_gone = |user: &str| state.user(user).is_none() && users.iter().any(|gone| gone == user);
        let left = state.tokens.select(|token| state.user(&token.owner).is_none());
        let mut entry = Entry::new();
        let changed = self.tokens_without(&state, is_gone, &mut entry);
        left.iter().for_each(|id| entry.delete(DELEGATION_TOKENS, id.clone().into_bytes().into()));
        if entry.is_empty() {
            return;
        }
        match self.0.log.submit(entry) {
            Ok(_) => {
                changed.into_iter().for_each(|token| state.tokens.replace(token));
                left.iter().for_each(|id| state.tokens.remove(id));
            }
            Err(error) => tracing::warn!(%error, "failed to remove delegation tokens of deleted users"),
        }
    }

    /// Tokens of others to which users have rights, without these: a later user of the same name is another one, who must not
    /// be shown what logs in by them. Puts their rows into the entry.
    pub(super) fn tokens_without(
        &self,
        state: &State,
        is_gone: impl Fn(&str) -> bool,
        entry: &mut Entry,
    ) -> Vec<DelegationToken> {
        let Some(secret) = &self.0.delegation.secret else { return Vec::new() };
        let concerned = |token: &DelegationToken| {
            !is_gone(&token.owner)
                && (is_gone(&token.requester) || token.renewers.iter().any(|renewer| is_gone(renewer)))
        };
        let ids = state.tokens.select(concerned);
        let tokens = ids.iter().filter_map(|id| state.tokens.by_id.get(id)).map(|known| {
            let mut token = known.token.clone();
            token.renewers.retain(|renewer| !is_gone(renewer));
            if is_gone(&token.requester) {
                token.requester.clone_from(&token.owner);
            }
            entry.put(
                DELEGATION_TOKENS,
                token.id.clone().into_bytes().into(),
                rows::encode_token(&token, secret.fingerprint()),
            );
            token
        });
        tokens.collect()
    }

    /// The keys that a login by a token is checked against; keys that match no password if there is no such token.
    pub(crate) fn token_keys(&self, id: &str, digest: Digest) -> Option<ScramKeys> {
        let secret = self.token_secret().ok()?;
        let keys = self.0.state.read().tokens.by_id.get(id).map(|known| known.keys.clone());
        match keys {
            Some(keys) => keys.get(id, digest, secret),
            None => Some(secret.decoy_keys(digest, id)),
        }
    }

    /// The token that a client proved to have, unless it is over or its owner is.
    pub(crate) fn token_for_login(&self, id: &str, now_ms: i64) -> Option<DelegationToken> {
        let state = self.0.state.read();
        let token = state.tokens.by_id.get(id).map(|known| &known.token)?;
        let is_usable =
            !token.is_expired(now_ms) && state.user(&token.owner).is_some_and(|(owner, _)| !owner.disabled);
        is_usable.then(|| token.clone())
    }

    /// Whether a token is there.
    pub(crate) fn is_live_token(&self, id: &str) -> bool {
        self.0.state.read().tokens.by_id.contains_key(id)
    }

    fn token_of(&self, state: &State, hmac: &[u8], by: &str) -> Result<DelegationToken, DelegationError> {
        let token = state.tokens.by_hmac(hmac).ok_or(DelegationError::NotFound)?;
        if !token.belongs_to(by) {
            return Err(DelegationError::NotTheirs);
        }
        Ok(token.clone())
    }

    fn put_token(
        &self,
        state: &mut State,
        token: &DelegationToken,
        secret: &TokenSecret,
    ) -> Result<Completion, SubmitError> {
        let mut entry = Entry::new();
        let row = rows::encode_token(token, secret.fingerprint());
        entry.put(DELEGATION_TOKENS, token.id.clone().into_bytes().into(), row);
        let lsn = self.0.log.submit(entry)?.lsn;
        state.tokens.put(token.clone(), secret);
        Ok(lsn.into())
    }

    fn remove_tokens(&self, state: &mut State, ids: &[String]) -> Result<Completion, SubmitError> {
        if ids.is_empty() {
            return Ok(Completion::Now);
        }
        let mut entry = Entry::new();
        ids.iter().for_each(|id| entry.delete(DELEGATION_TOKENS, id.clone().into_bytes().into()));
        let lsn = self.0.log.submit(entry)?.lsn;
        ids.iter().for_each(|id| state.tokens.remove(id));
        Ok(lsn.into())
    }
}
