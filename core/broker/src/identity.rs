//! Authentication: credentials, identities, and the interface of authenticators.
//!
//! Does not own permissions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use inver_access::Digest;
use inver_access::scram::ScramKeys;

/// The credentials of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// None.
    Anonymous,
    /// A user name and a password.
    Password {
        /// The user's name.
        user: String,
        /// The password, as bytes.
        password: Vec<u8>,
    },
}

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    user: Option<Arc<str>>,
}

impl Identity {
    /// A client without a user name.
    #[must_use]
    pub fn anonymous() -> Identity {
        Identity { user: None }
    }

    /// A client authenticated under this name.
    #[must_use]
    pub fn user(name: &str) -> Identity {
        Identity { user: Some(name.into()) }
    }

    /// The user name, if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

/// Why a client was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Unknown user or wrong password, not distinguished.
    #[error("user name or password is wrong")]
    Refused,
    /// No users are configured: only loopback connections are accepted.
    #[error(
        "no users are configured, so only connections from this machine are let in; add one with `inver user add`"
    )]
    LoopbackOnly,
    /// Users are configured and the client gave no credentials.
    #[error("a user name and password are required")]
    CredentialsRequired,
}

/// Authenticates clients. Slow checks (password hashing) must not run on the caller's thread.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Accepts or refuses a client.
    async fn authenticate(&self, peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError>;

    /// Whether users can authenticate by SCRAM with this hash function.
    fn supports_scram(&self, digest: Digest) -> bool {
        let _ = digest;
        false
    }

    /// The SCRAM keys of a user; for an unknown user and for one without keys, keys that match no password. `None` where
    /// SCRAM with this hash function is not supported. Must not block.
    fn scram_keys(&self, user: &str, digest: Digest) -> Option<ScramKeys> {
        let _ = (user, digest);
        None
    }
}

/// The user name and password that are accepted where no users are configured.
pub const DEFAULT_USER: &str = "guest";

/// The authenticator without configured users: loopback connections only, anonymous or as `guest`/`guest`.
#[derive(Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl Authenticator for LoopbackOnly {
    async fn authenticate(&self, peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError> {
        if !peer.to_canonical().is_loopback() {
            return Err(AuthError::LoopbackOnly);
        }
        match credentials {
            Credentials::Anonymous => Ok(Identity::anonymous()),
            Credentials::Password { user, password }
                if user == DEFAULT_USER && password == DEFAULT_USER.as_bytes() =>
            {
                Ok(Identity::user(user))
            }
            Credentials::Password { .. } => Err(AuthError::Refused),
        }
    }
}

/// Authenticates against plain-text passwords in memory; for tests and embedding.
#[derive(Debug, Default)]
pub struct FixedUsers(pub HashMap<String, Vec<u8>>);

#[async_trait]
impl Authenticator for FixedUsers {
    async fn authenticate(&self, _peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError> {
        match credentials {
            Credentials::Anonymous => Err(AuthError::CredentialsRequired),
            Credentials::Password { user, password } if self.0.get(user) == Some(password) => {
                Ok(Identity::user(user))
            }
            Credentials::Password { .. } => Err(AuthError::Refused),
        }
    }
}
