//! Who is at the other end, and whether to let them in.
//!
//! Permissions beyond "in or out" are not here yet; their place is [`Identity`], which every act carries.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

/// What a client shows at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A user name and a password.
    Password {
        /// The user's name.
        user: String,
        /// The password, as bytes.
        password: Vec<u8>,
    },
}

/// A client that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    user: Option<Arc<str>>,
}

impl Identity {
    /// A client that gave no name.
    #[must_use]
    pub fn anonymous() -> Identity {
        Identity { user: None }
    }

    /// A client that proved this name.
    #[must_use]
    pub fn user(name: &str) -> Identity {
        Identity { user: Some(name.into()) }
    }

    /// The name, if one was proved.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

/// Why a client was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Unknown user or wrong password; which of the two is not told.
    #[error("user name or password is wrong")]
    Refused,
    /// No user is configured, so only this machine gets in.
    #[error(
        "no users are configured, so only connections from this machine are let in; add one with `inver user add`"
    )]
    LoopbackOnly,
    /// Users are configured and the client gave no name.
    #[error("a user name and password are required")]
    CredentialsRequired,
}

/// Decides who gets in. Slow checks (password hashing) must not run on the caller's thread.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Lets in or refuses.
    async fn authenticate(&self, peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError>;
}

/// The user and password that are known where no users are configured.
pub const DEFAULT_USER: &str = "guest";

/// The rule without configured users: this machine only, nameless or as `guest`/`guest`.
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

/// Verifies passwords given as plain text in memory; for tests and embedding.
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
