//! What a client may do: by its tags, and in a namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use inver_access::{Operation, ResourceKind, Tag, Tags};
use inver_broker::{
    Audit, AuditEvent, AuditKind, AuditResult, Broker, DEFAULT_EXCHANGE, Facts, Identity, LiveConnection,
    Namespace, PermissionScope, Permissions, PolicyKind, Sessions, Who,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::is_current;
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::request::{Nothing, Scoped};

/// The name of this interface in the audit log.
const HTTP: &str = "http";
/// The name of the broker itself there.
const BROKER: &str = "broker";

/// The client of a request.
#[derive(Debug, Clone)]
pub(in crate::http) struct Caller {
    pub(in crate::http) identity: Identity,
    pub(in crate::http) tags: Tags,
    address: IpAddr,
    audit: Audit,
}

impl Caller {
    pub(super) fn new(app: &App, identity: Identity, address: IpAddr) -> Caller {
        let audit = app.broker.audit().clone();
        Caller { tags: identity.tags(app.broker.access()), identity, address, audit }
    }

    /// The broker itself, at its start: it may do everything, also where there are users.
    pub(in crate::http) fn of_broker(app: &App) -> Caller {
        let identity = Identity::external(BROKER, [Tag::Administrator].into_iter().collect());
        Caller::new(app, identity, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// The client with the tags that it has now; none if it could not log in any more.
    pub(in crate::http) fn renewed(&self, app: &App) -> Option<Caller> {
        let caller = Caller::new(app, self.identity.clone(), self.address);
        (is_current(app, &self.identity) && caller.check_tags(true).is_ok()).then_some(caller)
    }

    /// Records in the audit log what it did to the broker as a whole.
    pub(in crate::http) fn did(&self, kind: AuditKind, operation: &str, resource: &str, name: &str) {
        self.record(kind, AuditResult::Accepted, operation, resource, name);
    }

    /// Tells programs of what it did to the broker as a whole.
    pub(in crate::http) fn tell(&self, name: &'static str, facts: impl FnOnce() -> Facts) {
        self.audit.events().tell(name, || facts().by(self.identity.name()));
    }

    fn record(&self, kind: AuditKind, result: AuditResult, operation: &str, resource: &str, name: &str) {
        self.audit.record(&AuditEvent {
            kind,
            result,
            who: who(self.identity.name(), self.address),
            operation,
            resource,
            name,
            namespace: None,
            rule: None,
            reason: None,
        });
    }

    /// A refusal, which the audit log tells of.
    pub(in crate::http) fn refused(&self, operation: &str, text: &str) -> Problem {
        self.record(AuditKind::Denied, AuditResult::Refused, operation, "broker", "");
        Problem::forbidden(text)
    }

    fn has(&self, tags: &[Tag]) -> bool {
        tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// The user's name; none for an anonymous client.
    pub(in crate::http) fn name(&self) -> Option<&str> {
        self.identity.name()
    }

    /// Whether it sees every namespace and the broker as a whole.
    pub(in crate::http) fn sees_all(&self) -> bool {
        self.has(&[Tag::Administrator, Tag::Monitoring])
    }

    /// Refuses a client that has no tag for the API, or none for changes.
    pub(in crate::http) fn check_tags(&self, reads: bool) -> Result<(), Problem> {
        let changes = self.has(&[Tag::Administrator, Tag::Management, Tag::Policymaker]);
        match (reads, changes || self.has(&[Tag::Monitoring]), changes) {
            (true, true, _) | (false, _, true) => Ok(()),
            (false, true, false) => Err(self.refused("alter", "the tag `monitoring` reads only")),
            _ => Err(self.refused(
                if reads { "describe" } else { "alter" },
                "the user has none of the tags `administrator`, `monitoring`, `policymaker` and `management`",
            )),
        }
    }

    /// Refuses a client that does not see the broker as a whole.
    pub(in crate::http) fn check_sees_all(&self) -> Result<(), Problem> {
        if self.sees_all() {
            return Ok(());
        }
        Err(self.refused("describe", "this needs the tag `administrator` or `monitoring`"))
    }

    /// Names what it sees of the broker among what others see.
    pub(in crate::http) fn view(&self) -> String {
        match self.sees_all() {
            true => "all".to_owned(),
            false => {
                format!("{:?} {}", self.identity.name(), self.identity.external_tags().is_some())
            }
        }
    }

    /// Whether it is an administrator.
    pub(in crate::http) fn administers(&self) -> bool {
        self.has(&[Tag::Administrator])
    }

    /// Whether it is this user of the broker, or, for none, a client without a user. One whose name an outside authority
    /// vouches for is no user of the broker, though the names may be the same.
    pub(in crate::http) fn is_user(&self, user: Option<&str>) -> bool {
        self.identity.external_tags().is_none() && self.identity.name() == user
    }

    /// Whether a connection is of its own user.
    pub(in crate::http) fn is_user_of(&self, connection: &LiveConnection) -> bool {
        self.identity.external_tags().is_some() == connection.is_external()
            && self.identity.name() == connection.user()
    }

    /// Refuses a client that is no administrator.
    pub(in crate::http) fn check_administers(&self) -> Result<(), Problem> {
        if self.administers() {
            return Ok(());
        }
        Err(self.refused("alter", "this needs the tag `administrator`"))
    }

    /// Refuses a client that may not set policies of a kind.
    pub(in crate::http) fn check_sets_policies(&self, kind: PolicyKind) -> Result<(), Problem> {
        match kind {
            PolicyKind::Ordinary if self.has(&[Tag::Administrator, Tag::Policymaker]) => Ok(()),
            PolicyKind::Ordinary => {
                Err(self.refused("alter", "this needs the tag `administrator` or `policymaker`"))
            }
            PolicyKind::Operator => self.check_administers(),
        }
    }

    /// What it may do in a namespace.
    fn permissions(&self, broker: &Broker, namespace: &str) -> Arc<Permissions> {
        let scope = PermissionScope {
            user: self.identity.shared_name(),
            external_tags: self.identity.external_tags().cloned(),
            client_id: "".into(),
            namespace: namespace.into(),
            protocol: HTTP,
            peer: SocketAddr::new(self.address, 0),
        };
        broker.access().granted_permissions(scope, self.identity.grant())
    }

    /// Whether it sees a namespace.
    pub(in crate::http) fn sees(&self, broker: &Broker, namespace: &str) -> bool {
        self.sees_all()
            || self.permissions(broker, namespace).may(ResourceKind::Namespace, namespace, Operation::Connect)
    }
}

/// A client of this interface in the audit log.
pub(super) fn who(user: Option<&str>, address: IpAddr) -> Who<'_> {
    Who { protocol: HTTP, user, client_id: None, address: Some(SocketAddr::new(address, 0)) }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Problem::internal("the request was not authenticated"))
    }
}

/// The parameter that names the namespace.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Named {
    /// The namespace; `/` without it.
    #[param(default = "/", max_length = 255)]
    namespace: String,
}

impl Default for Named {
    fn default() -> Named {
        Named { namespace: "/".into() }
    }
}

/// The namespace of a request, which the client sees, and what it may do there.
#[derive(Clone)]
pub(in crate::http) struct Scope {
    sessions: Sessions,
    namespace: Namespace,
    permissions: Arc<Permissions>,
}

impl IntoParams for Scope {
    fn into_params(
        parameter_in_provider: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
    ) -> Vec<utoipa::openapi::path::Parameter> {
        Named::into_params(parameter_in_provider)
    }
}

impl Scope {
    /// The namespace of this name, for a client that sees it.
    pub(in crate::http) fn of(
        broker: &Broker,
        caller: &Caller,
        namespace: Option<&str>,
    ) -> Result<Scope, Problem> {
        let default = Named::default();
        let name = namespace.unwrap_or(&default.namespace);
        if !caller.sees(broker, name) {
            caller.permissions(broker, name).denied(ResourceKind::Namespace, name, Operation::Connect);
            return Err(Problem::forbidden(format!("no permission to connect to namespace `{name}`")));
        }
        let sessions = broker.sessions(name);
        let sessions =
            sessions.ok_or_else(|| Problem::not_found(format!("there is no namespace `{name}`")))?;
        let permissions = caller.permissions(broker, name);
        let namespace = sessions.namespace().on_behalf_of(&permissions);
        Ok(Scope { sessions, namespace, permissions })
    }

    /// The namespace.
    pub(in crate::http) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its sessions.
    pub(in crate::http) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What the client may do in it.
    pub(in crate::http) fn permissions(&self) -> &Arc<Permissions> {
        &self.permissions
    }

    /// Refuses a client that may not do this.
    pub(in crate::http) fn check(
        &self,
        kind: ResourceKind,
        name: &str,
        operation: Operation,
    ) -> Result<(), Problem> {
        if self.permissions.may(kind, name, operation) {
            return Ok(());
        }
        self.permissions.denied(kind, name, operation);
        let (kind, operation) = (kind.name(), operation.name());
        Err(Problem::forbidden(format!("no permission for {operation} on {kind} `{name}`")))
    }

    /// The same for an exchange; the empty name is the default one.
    pub(in crate::http) fn check_exchange(&self, name: &str, operation: Operation) -> Result<(), Problem> {
        let name = if name.is_empty() { DEFAULT_EXCHANGE } else { name };
        self.check(ResourceKind::Exchange, name, operation)
    }

    /// Refuses a client that may not subscribe to a filter of addresses.
    pub(in crate::http) fn check_filter(&self, filter: &str) -> Result<(), Problem> {
        if self.permissions.may_filter(filter, Operation::Subscribe) {
            return Ok(());
        }
        self.permissions.denied_filter(filter, Operation::Subscribe);
        Err(Problem::forbidden(format!("no permission for subscribe on address `{filter}`")))
    }
}

impl FromRequestParts<App> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Scoped(scope, Nothing {}) = Scoped::from_request_parts(parts, app).await?;
        Ok(scope)
    }
}
