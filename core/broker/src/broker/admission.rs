//! Admission of an authenticated client: its namespace, what it may do there, and its place among the live connections.

use std::sync::Arc;
use std::time::Duration;

use inver_access::{Operation, ResourceKind};

use super::Broker;
use crate::access::{Ban, BanScope, BanTarget, BansError, PermissionScope, Permissions};
use crate::client_log::LoginRefusal;
use crate::closing::CloseReason;
use crate::completion::Completion;
use crate::connections::{ConnectionHandle, Full, LiveConnection, NewConnection};
use crate::identity::Identity;
use crate::listener::Endpoints;
use crate::mailbox::Mailbox;
use crate::quota::QuotaScope;
use crate::session::Sessions;
use crate::spec::DEFAULT_NAMESPACE;

/// A client that was authenticated and asks to be admitted.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Who the client is.
    pub identity: &'a Identity,
    /// The client's address and the listener that it connected to.
    pub endpoints: &'a Endpoints,
    /// The namespace that the client asks for; none: the listener or the user decide.
    pub namespace: Option<&'a str>,
    /// The client id, or the connection's name; may be empty.
    pub client_id: &'a str,
    /// The mailbox by which the connection is told to end; the driver's machine has the same one.
    pub mailbox: &'a Arc<Mailbox>,
    /// For how long the protocol can have the client wait where connections come faster than a quota allows.
    pub wait_max: Duration,
}

/// What an admitted client works with.
pub struct Admitted {
    /// The sessions of its namespace, which know the namespace.
    pub sessions: Sessions,
    /// What it may do.
    pub permissions: Arc<Permissions>,
    /// Its place among the live connections, which the connection keeps until it ends.
    pub connection: ConnectionHandle,
}

/// Why an authenticated client is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// There is no such namespace.
    #[error("namespace `{0}` does not exist")]
    NoSuchNamespace(String),
    /// The user may not connect to the namespace.
    #[error("no permission to connect to namespace `{namespace}`")]
    NotAllowed {
        /// The namespace.
        namespace: String,
    },
    /// The user was disabled or deleted.
    #[error("the user is disabled")]
    Disabled,
    /// The user has as many connections as it may have.
    #[error("user `{user}` has reached its limit of {max} connections")]
    UserConnections {
        /// The user.
        user: String,
        /// The limit.
        max: u32,
    },
    /// The namespace has as many connections as it may have.
    #[error("namespace `{namespace}` has reached its limit of {max} connections")]
    NamespaceConnections {
        /// The namespace.
        namespace: String,
        /// The limit.
        max: u32,
    },
    /// The client is banned, by its client id, user or address.
    #[error("the client is banned")]
    Banned,
    /// Connections come faster than a quota allows: the client may try again.
    #[error("connections come faster than their quota allows, try again later")]
    ConnectionRate,
    /// Memory is nearly used up: the client may try again.
    #[error("memory is low, try again later")]
    NoMemory,
}

impl AdmitError {
    /// The reason in metrics.
    #[must_use]
    pub fn login_refusal(&self) -> LoginRefusal {
        match self {
            AdmitError::NoSuchNamespace(_)
            | AdmitError::NotAllowed { .. }
            | AdmitError::Disabled
            | AdmitError::Banned => LoginRefusal::NotPermitted,
            AdmitError::UserConnections { .. }
            | AdmitError::NamespaceConnections { .. }
            | AdmitError::ConnectionRate => LoginRefusal::Limit,
            AdmitError::NoMemory => LoginRefusal::Unavailable,
        }
    }

    /// Whether the same client may be admitted later without a change of what it or others are allowed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, AdmitError::ConnectionRate | AdmitError::NoMemory)
    }
}

impl Broker {
    /// Admits an authenticated client. Its namespace is the one that it asks for, else the user's default, else `/`; a
    /// listener that is bound to a namespace admits to no other. Only a namespace that the client asks for needs permission.
    pub fn admit(&self, admission: &Admission<'_>) -> Result<Admitted, AdmitError> {
        let access = self.access();
        let identity = admission.identity;
        let user = identity.name().and_then(|name| access.user(name));
        let default = user.as_ref().and_then(|(user, _)| user.default_namespace.as_deref());
        let bound = admission.endpoints.listener.namespace.as_deref();
        let wanted =
            admission.namespace.or(bound).or(identity.namespace()).or(default).unwrap_or(DEFAULT_NAMESPACE);
        let refused = || AdmitError::NotAllowed { namespace: wanted.to_owned() };
        if self.is_gone(identity) {
            return Err(AdmitError::Disabled);
        }
        let banned = BanScope {
            client_id: admission.client_id,
            user: identity.name(),
            address: admission.endpoints.peer.ip(),
        };
        let is_banned = || self.bans().bans(banned, self.clock().now_ms());
        if is_banned() {
            return Err(AdmitError::Banned);
        }
        if self.log().memory().is_full() {
            return Err(AdmitError::NoMemory);
        }
        if bound.is_some_and(|bound| bound != wanted) {
            return Err(refused());
        }
        let missing = || AdmitError::NoSuchNamespace(wanted.to_owned());
        let sessions = self.sessions(wanted).ok_or_else(missing)?;
        let client_id: Arc<str> = admission.client_id.into();
        let scope = PermissionScope {
            user: identity.shared_name(),
            external_tags: identity.external_tags().cloned(),
            client_id: client_id.clone(),
            namespace: sessions.namespace().shared_name(),
            protocol: admission.protocol,
            peer: admission.endpoints.peer,
        };
        let permissions = access.granted_permissions(scope, identity.grant());
        let is_asked_for = admission.namespace.is_some();
        if is_asked_for && !permissions.may(ResourceKind::Namespace, wanted, Operation::Connect) {
            permissions.denied(ResourceKind::Namespace, wanted, Operation::Connect);
            return Err(refused());
        }
        let scope = QuotaScope {
            user: identity.name(),
            client_id: client_id.clone(),
            namespace: sessions.namespace().name(),
        };
        let peer = admission.endpoints.peer.ip();
        let wait =
            self.quotas().connect(&scope, peer, admission.wait_max).ok_or(AdmitError::ConnectionRate)?;
        let registered = self.connections().register(NewConnection {
            protocol: admission.protocol,
            name: client_id,
            user: identity.shared_name(),
            is_external: identity.external_tags().is_some(),
            user_connections_max: user.as_ref().and_then(|(user, _)| user.limits.connections_max),
            namespace: sessions.namespace().shared_name(),
            namespace_connections_max: sessions.namespace().own_limits().connections_max,
            endpoints: admission.endpoints,
            since_ms: self.clock().now_ms(),
            quotas: self.quotas().clone(),
            served_from: (!wait.is_zero()).then(|| self.clock().now() + wait),
            mailbox: admission.mailbox,
        });
        let connection = registered.map_err(|full| match full {
            Full::User(max) => {
                AdmitError::UserConnections { user: identity.name().unwrap_or_default().to_owned(), max }
            }
            Full::Namespace(max) => AdmitError::NamespaceConnections { namespace: wanted.to_owned(), max },
        })?;
        // Once more: who deletes a user or a namespace, or bans, closes the connections that are registered then.
        if self.is_gone(identity) {
            return Err(AdmitError::Disabled);
        }
        if is_banned() {
            return Err(AdmitError::Banned);
        }
        if sessions.namespace().is_deleted() {
            return Err(missing());
        }
        if let Some(at_ms) = identity.expires_at_ms() {
            connection.expire_at(Some(self.clock().steady_at(at_ms)));
        }
        if let Some(token) = identity.token() {
            connection.set_token(Some(token));
            // Once more: who ends a token closes the connections that are registered then.
            if !access.is_live_token(token) {
                return Err(AdmitError::Disabled);
            }
        }
        Ok(Admitted { sessions, permissions, connection })
    }

    /// Bans clients, and ends the connections of those that are there; how many these are.
    pub fn ban(&self, target: &BanTarget, ban: &Ban) -> Result<(usize, Completion), BansError> {
        let completion = self.bans().set(target, ban)?;
        let is_banned = |connection: &LiveConnection| {
            let name = connection.name();
            let (user, address) = (connection.user(), connection.peer().ip());
            target.is_about(BanScope { client_id: &name, user, address })
        };
        let ended = self.connections().close_where(is_banned, &CloseReason::Asked("banned".into()));
        Ok((ended, completion))
    }

    /// An admitted client proved again who it is: it may do what is granted to it now, until that expires. False if it is
    /// another one, or its token ended meanwhile: its connection must end.
    #[must_use]
    pub fn renew(
        &self,
        identity: &Identity,
        permissions: &Permissions,
        connection: &ConnectionHandle,
    ) -> bool {
        // What an authority granted ends with its token: a password of the same user must not keep it.
        let access = self.access();
        let is_other =
            identity.name() != permissions.user() || identity.grant().is_some() != permissions.has_grant();
        if is_other || self.is_gone(identity) {
            return false;
        }
        if let Some(grant) = identity.grant() {
            permissions.renew(grant.clone());
        }
        connection.expire_at(identity.expires_at_ms().map(|at_ms| self.clock().steady_at(at_ms)));
        connection.set_token(identity.token());
        // Once more: who ends a token closes the connections that are registered with it then.
        identity.token().is_none_or(|token| access.is_live_token(token))
    }

    /// Whether the user of a client was deleted or disabled since it was authenticated. The user of a token need not exist.
    fn is_gone(&self, identity: &Identity) -> bool {
        let access = self.access();
        let Some(name) = identity.name() else { return false };
        let is_external = identity.external_tags().is_some();
        access.has_users() && access.user(name).map_or(!is_external, |(user, _)| user.disabled)
    }
}
