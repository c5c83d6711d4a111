//! Authentication: credentials, identities, and the interface of authenticators.
//!
//! Does not own permissions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use inver_access::scram::ScramKeys;
use inver_access::{Digest, Grant, Tag, Tags};

use crate::access::AccessControl;
use crate::listener::{Anonymous, ListenerInfo};

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
    /// The user that a verified TLS client certificate names.
    Certificate {
        /// The user's name.
        user: String,
    },
    /// A bearer token (RFC 6750), which says who the client is.
    Token(String),
}

/// An authenticated client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    user: Option<Arc<str>>,
    /// What an outside authority vouches for; none for users of the broker.
    grant: Option<Arc<Grant>>,
    namespace: Option<Arc<str>>,
    expires_at_ms: Option<i64>,
    /// The id of the token that it proved to have.
    token: Option<Arc<str>>,
}

impl Identity {
    /// A client without a user name.
    #[must_use]
    pub fn anonymous() -> Identity {
        Identity::default()
    }

    /// A client authenticated as this user of the broker, whose tags and default namespace are looked up.
    #[must_use]
    pub fn user(name: &str) -> Identity {
        Identity { user: Some(name.into()), ..Identity::default() }
    }

    /// A client whose name and tags an outside authority vouches for.
    #[must_use]
    pub fn external(name: &str, tags: Tags) -> Identity {
        Identity::granted(name, Arc::new(Grant::of_tags(tags)))
    }

    /// A client whose name an outside authority vouches for, with what that grants.
    #[must_use]
    pub fn granted(name: &str, grant: Arc<Grant>) -> Identity {
        Identity { user: Some(name.into()), grant: Some(grant), ..Identity::default() }
    }

    /// With a time, in milliseconds since 1970, from which the client is not who it proved to be any more.
    #[must_use]
    pub fn expiring_at(self, at_ms: i64) -> Identity {
        Identity { expires_at_ms: Some(at_ms), ..self }
    }

    /// As one that proved who it is by a token of the broker, of this id.
    #[must_use]
    pub fn with_token(self, id: &str) -> Identity {
        Identity { token: Some(id.into()), ..self }
    }

    /// With a namespace for connections that name none.
    #[must_use]
    pub fn with_namespace(self, namespace: &str) -> Identity {
        Identity { namespace: Some(namespace.into()), ..self }
    }

    /// The user name, if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The user name, if any, to share.
    #[must_use]
    pub fn shared_name(&self) -> Option<Arc<str>> {
        self.user.clone()
    }

    /// Tags that an outside authority vouches for; none for users of the broker, whose own tags hold.
    #[must_use]
    pub fn external_tags(&self) -> Option<&Tags> {
        self.grant.as_ref().map(|grant| &grant.tags)
    }

    /// What an outside authority grants.
    #[must_use]
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
    }

    /// Milliseconds since 1970 from which the client must prove again who it is; none: never.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<i64> {
        self.expires_at_ms
    }

    /// Checks that it may make tokens of its user. Such a token stands for a user of the broker, and may outlive what a
    /// client with a token showed.
    pub fn check_makes_tokens(&self) -> Result<(), DelegatedError> {
        if self.token.is_some() || self.grant.is_some() { Err(DelegatedError::Tokens) } else { Ok(()) }
    }

    /// Checks that it may change what a user logs in with, or what users there are. What was made for a client within bounds
    /// must not get it rights without them: by its own user's password, or by one of an administrator.
    pub fn check_changes_user(&self, name: &str, administers: bool) -> Result<(), DelegatedError> {
        if self.token.is_some() && (administers || self.name() == Some(name)) {
            return Err(DelegatedError::Credentials);
        }
        Ok(())
    }

    /// The id of the token of the broker by which it proved who it is.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The namespace of connections that name none, if the authority says so.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The client's tags now: those of the authority, or those of the user. Where no users exist every client that is let
    /// in is an administrator.
    #[must_use]
    pub fn tags(&self, access: &AccessControl) -> Tags {
        if !access.has_users() {
            return Tags::from_iter([Tag::Administrator]);
        }
        match (&self.grant, &self.user) {
            (Some(grant), _) => grant.tags.clone(),
            (None, Some(user)) => access.tags(user).unwrap_or_default(),
            (None, None) => Tags::default(),
        }
    }
}

/// Why a client that logged in with a token may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelegatedError {
    /// It asks for a token.
    #[error("a client that logged in with a token cannot make tokens")]
    Tokens,
    /// It changes its own user or an administrator.
    #[error("a client that logged in with a token cannot change its own user or an administrator")]
    Credentials,
}

/// Why a client was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Unknown user or wrong password, not distinguished.
    #[error("user name or password is wrong")]
    Refused,
    /// The user that a client's certificate names is unknown or disabled.
    #[error("the user that the certificate names is unknown or disabled")]
    Certificate,
    /// No users are configured: only loopback connections are accepted.
    #[error(
        "no users are configured, so only connections from this machine are let in; add one with `inver user add`"
    )]
    LoopbackOnly,
    /// Users are configured and the client gave no credentials.
    #[error("a user name and password are required")]
    CredentialsRequired,
    /// Too many logins wait for their password to be checked: the client may try again.
    #[error("too many logins at the same time, try again later")]
    Busy,
    /// Too many logins of this user from this address failed lately: the client may try again after a minute.
    #[error("too many failed logins of this user from this address, try again later")]
    TooManyFailures,
    /// A token does not say that the client may log in. The text is for the log and the client.
    #[error("the token is not accepted: {0}")]
    Token(&'static str),
}

impl AuthError {
    /// Whether the same login may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, AuthError::Busy | AuthError::TooManyFailures)
    }
}

/// Whether a listener lets a client without credentials in, whatever the authenticator says. None: the authenticator
/// decides.
pub(crate) fn anonymous_by_listener(
    listener: &ListenerInfo,
    peer: IpAddr,
    credentials: &Credentials,
) -> Option<Result<Identity, AuthError>> {
    let is_anonymous = match credentials {
        Credentials::Anonymous => true,
        Credentials::Password { password, .. } => listener.any_user_name && password.is_empty(),
        Credentials::Certificate { .. } | Credentials::Token(_) => false,
    };
    match listener.anonymous {
        Anonymous::Always if is_anonymous => Some(Ok(Identity::anonymous())),
        Anonymous::Loopback if is_anonymous && peer.to_canonical().is_loopback() => {
            Some(Ok(Identity::anonymous()))
        }
        Anonymous::Never if is_anonymous => Some(Err(AuthError::CredentialsRequired)),
        _ => None,
    }
}

/// Authenticates clients. Slow checks (password hashing) must not run on the caller's thread.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Accepts or refuses a client; `access` has the users of the broker.
    async fn authenticate(
        &self,
        access: &AccessControl,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError>;

    /// Whether users can authenticate by SCRAM with this hash function.
    fn supports_scram(&self, access: &AccessControl, digest: Digest) -> bool {
        let _ = (access, digest);
        false
    }

    /// The SCRAM keys of a user; for an unknown user and for one without keys, keys that match no password. `None` where
    /// SCRAM with this hash function is not supported. Must not block.
    fn scram_keys(&self, access: &AccessControl, user: &str, digest: Digest) -> Option<ScramKeys> {
        let _ = (access, user, digest);
        None
    }

    /// Whether clients can authenticate by a bearer token.
    fn supports_tokens(&self) -> bool {
        false
    }

    /// Accepts or refuses a client by its bearer token. Must not block.
    fn check_token(&self, access: &AccessControl, peer: IpAddr, token: &str) -> Result<Identity, AuthError> {
        let _ = (access, peer, token);
        Err(AuthError::Refused)
    }

    /// Whether a client may try another password of a user outside [`Authenticator::authenticate`]. Must not block.
    fn admits_guess(&self, peer: IpAddr, user: &str) -> bool {
        let _ = (peer, user);
        true
    }

    /// Such a password was wrong.
    fn guessed_wrong(&self, peer: IpAddr, user: &str) {
        let _ = (peer, user);
    }
}

/// The user name and password that are accepted where no users are configured.
pub const DEFAULT_USER: &str = "guest";

/// The authenticator without configured users: loopback connections only, anonymous or as `guest`/`guest`.
#[derive(Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl Authenticator for LoopbackOnly {
    async fn authenticate(
        &self,
        _access: &AccessControl,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
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
            Credentials::Certificate { .. } => Err(AuthError::Certificate),
            Credentials::Password { .. } | Credentials::Token(_) => Err(AuthError::Refused),
        }
    }
}

/// Authenticates against plain-text passwords in memory; for tests and embedding.
#[derive(Debug, Default)]
pub struct FixedUsers(pub HashMap<String, Vec<u8>>);

#[async_trait]
impl Authenticator for FixedUsers {
    async fn authenticate(
        &self,
        _access: &AccessControl,
        _peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        match credentials {
            Credentials::Anonymous => Err(AuthError::CredentialsRequired),
            Credentials::Password { user, password } if self.0.get(user) == Some(password) => {
                Ok(Identity::user(user))
            }
            Credentials::Password { .. } | Credentials::Certificate { .. } | Credentials::Token(_) => {
                Err(AuthError::Refused)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_nothing_that_outlives_it() {
        let (own, external) = (Identity::user("ann"), Identity::external("ann", Tags::default()));
        assert_eq!((own.check_makes_tokens(), own.check_changes_user("ann", true)), (Ok(()), Ok(())));
        assert_eq!(external.check_makes_tokens(), Err(DelegatedError::Tokens));
        assert_eq!(external.check_changes_user("ann", true), Ok(()), "that is what its authority says");
        let lent = own.with_token("id");
        assert_eq!(lent.check_makes_tokens(), Err(DelegatedError::Tokens));
        assert_eq!(lent.check_changes_user("ann", false), Err(DelegatedError::Credentials));
        assert_eq!(lent.check_changes_user("bob", true), Err(DelegatedError::Credentials));
        assert_eq!(lent.check_changes_user("bob", false), Ok(()));
    }
}
