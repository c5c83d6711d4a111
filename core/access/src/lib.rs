//! Access control: users, credentials, permission rules, and the decision over them.
//!
//! Owns the plain values and the algorithms: verifying passwords against many kinds of hashes, the server side of SCRAM,
//! rules as people write them, whether a subject may perform an operation on a resource, and which quotas concern a client.
//!
//! Does not own storage, sockets or threads. Verifying a password
//! can take milliseconds of CPU by design: callers run it off the connections' threads.
//!
//! Invariants: secrets are compared in constant time and never appear in `Debug` output; the cost that a stored
//! credential asks for is bounded; deny wins over allow, and no matching rule means denied.

mod credential;
mod decision;
mod delegation;
pub mod dialect;
mod digest;
mod grant;
pub mod oauthbearer;
mod pattern;
mod quota;
mod quota_text;
mod rule;
pub mod scram;
mod text;
mod user;

pub use credential::{Credential, CredentialError, HashMemory, SaltPosition};
pub use decision::{Decision, EffectiveRules, Rules, Subject};
pub use delegation::{DelegationToken, SECRET_BYTES, TokenSecret, new_token_id};
pub use digest::Digest;
pub use grant::{Grant, GrantedRule};
pub use pattern::{Pattern, PatternError};
pub use quota::{
    EntityName, QuotaEntity, QuotaError, QuotaKind, QuotaLimits, QuotaShare, QuotaTable, canonical_ip,
};
pub use quota_text::QuotaText;
pub use rule::{Effect, Operation, Operations, Principal, ResourceKind, Rule, RuleId, key_name};
pub use text::{RuleText, RuleTextError};
pub use user::{Tag, Tags, User, UserLimits};
