//! Authentication by SCRAM: the exchange of one client, with keys from the authenticator.
//!
//! Owns the rule that a client may only act as the user whose password it proves, or whose delegation token it has. Does not own the messages
//! (`inver-access`), nor how a protocol carries them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use inver_access::Digest;
use inver_access::scram::{ClientFirst, Exchange, ScramError};

use crate::access::AccessControl;
use crate::clock::Clock;
use crate::identity::{Authenticator, Identity};

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramLoginError {
    /// The authenticator has no keys for this hash function.
    #[error("the mechanism is not supported")]
    Unsupported,
    /// The client asks to act as another user.
    #[error("the authorization id is not the user's name")]
    OtherUser,
    /// Too many logins of this user from this address failed lately; nothing was checked.
    #[error("too many failed logins of this user from this address, try again later")]
    TooManyFailures,
    /// The delegation token is expired, or its owner may not log in.
    #[error("the delegation token is over")]
    TokenOver,
    /// A message is malformed, the password is wrong, or the user is unknown.
    #[error(transparent)]
    Failed(#[from] ScramError),
}

/// An exchange that waits for the client's final message.
pub struct ScramLogin {
    user: String,
    /// Present for a login by a delegation token, whose id the user is: where tokens are, and the time.
    tokens: Option<(AccessControl, Clock)>,
    exchange: Exchange,
    peer: IpAddr,
    authenticator: Arc<dyn Authenticator>,
}

impl ScramLogin {
    /// Begins an exchange with the client's first message; returns it with the server's first message.
    pub(crate) fn begin(
        authenticator: &Arc<dyn Authenticator>,
        access: &AccessControl,
        clock: &Clock,
        peer: IpAddr,
        digest: Digest,
        message: &[u8],
    ) -> Result<(ScramLogin, String), ScramLoginError> {
        let first = ClientFirst::parse(message)?;
        if first.authorization_id.as_ref().is_some_and(|id| *id != first.user) {
            return Err(ScramLoginError::OtherUser);
        }
        if !authenticator.admits_guess(peer, &first.user) {
            return Err(ScramLoginError::TooManyFailures);
        }
        let keys = match first.is_token {
            true => access.token_keys(&first.user, digest),
            false => authenticator.scram_keys(access, &first.user, digest),
        };
        let (exchange, answer) = Exchange::begin(&first, keys.ok_or(ScramLoginError::Unsupported)?)?;
        let authenticator = authenticator.clone();
        let tokens = first.is_token.then(|| (access.clone(), clock.clone()));
        Ok((ScramLogin { user: first.user, tokens, exchange, peer, authenticator }, answer))
    }

    /// The user that authenticates, as the client claims; for a delegation token its id.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Finishes the exchange with the client's final message; returns the server's final message.
    pub fn finish(self, message: &[u8]) -> Result<(Identity, String), ScramLoginError> {
        // Others may have guessed since the exchange began.
        if !self.authenticator.admits_guess(self.peer, &self.user) {
            return Err(ScramLoginError::TooManyFailures);
        }
        let answer = self.exchange.finish(message).inspect_err(|error| {
            if *error == ScramError::Proof {
                self.authenticator.guessed_wrong(self.peer, &self.user);
            }
        })?;
        let Some((access, clock)) = &self.tokens else { return Ok((Identity::user(&self.user), answer)) };
        let token = access.token_for_login(&self.user, clock.now_ms());
        let token = token.ok_or(ScramLoginError::TokenOver)?;
        let identity = Identity::user(&token.owner).expiring_at(token.expires_ms).with_token(&token.id);
        Ok((identity, answer))
    }
}

impl fmt::Debug for ScramLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramLogin").field("user", &self.user).finish_non_exhaustive()
    }
}
