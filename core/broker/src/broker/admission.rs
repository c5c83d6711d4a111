//! Admission of an authenticated client: its namespace, and what it may do there.

use std::net::IpAddr;
use std::sync::Arc;

use inver_access::{Operation, ResourceKind};

use super::{Broker, DEFAULT_NAMESPACE};
use crate::access::{PermissionScope, Permissions};
use crate::client_log::LoginRefusal;
use crate::identity::Identity;
use crate::listener::ListenerInfo;
use crate::session::Sessions;

/// A client that was authenticated and asks to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Who the client is.
    pub identity: &'a Identity,
    /// The client's address.
    pub peer: IpAddr,
    /// The listener that it connected to.
    pub listener: &'a ListenerInfo,
    /// The namespace that the client asks for; none: the listener or the user decide.
    pub namespace: Option<&'a str>,
    /// The client id, or the connection's name; may be empty.
    pub client_id: &'a str,
}

/// What an admitted client works with.
pub struct Admitted {
    /// The sessions of its namespace, which know the namespace.
    pub sessions: Sessions,
    /// What it may do.
    pub permissions: Arc<Permissions>,
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
    /// A limit of connections is reached: of the user, or of the namespace.
    #[error("limit of {what} reached: at most {max}")]
    LimitReached {
        /// What is limited.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

impl AdmitError {
    /// The reason in metrics.
    #[must_use]
    pub fn login_refusal(&self) -> LoginRefusal {
        match self {
            AdmitError::NoSuchNamespace(_) | AdmitError::NotAllowed { .. } | AdmitError::Disabled => {
                LoginRefusal::NotPermitted
            }
            AdmitError::LimitReached { .. } => LoginRefusal::Limit,
        }
    }
}

impl Broker {
    /// Admits an authenticated client. Its namespace is the one that it asks for, else the user's default, else `/`; a
    /// listener that is bound to a namespace admits to no other. Only a namespace that the client asks for needs permission.
    pub fn admit(&self, admission: &Admission<'_>) -> Result<Admitted, AdmitError> {
        let access = self.access();
        let user = admission.identity.name().and_then(|name| access.user(name));
        if access.has_users()
            && admission.identity.name().is_some()
            && admission.identity.external_tags().is_none()
            && user.as_ref().is_none_or(|(user, _)| user.disabled)
        {
            return Err(AdmitError::Disabled);
        }
        let default = user.as_ref().and_then(|(user, _)| user.default_namespace.as_deref());
        let bound = admission.listener.namespace.as_deref();
        let wanted = admission
            .namespace
            .or(bound)
            .or(admission.identity.namespace())
            .or(default)
            .unwrap_or(DEFAULT_NAMESPACE);
        let refused = || AdmitError::NotAllowed { namespace: wanted.to_owned() };
        if bound.is_some_and(|bound| bound != wanted) {
            return Err(refused());
        }
        let sessions = self.sessions(wanted).ok_or_else(|| AdmitError::NoSuchNamespace(wanted.to_owned()))?;
        let permissions = access.permissions(PermissionScope {
            user: admission.identity.shared_name(),
            external_tags: admission.identity.external_tags().cloned(),
            client_id: admission.client_id.into(),
            namespace: wanted.into(),
            host: admission.peer,
        });
        let is_asked_for = admission.namespace.is_some();
        if is_asked_for && !permissions.may(ResourceKind::Namespace, wanted, Operation::Connect) {
            return Err(refused());
        }
        Ok(Admitted { sessions, permissions })
    }
}
