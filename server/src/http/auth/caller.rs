//! What a client may do: by its tags, and in a namespace.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use inver_access::{Operation, ResourceKind, Tag, Tags};
use inver_broker::{Broker, Identity, Namespace, PermissionScope, Permissions, Sessions};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::App;
use crate::http::problem::Problem;
use crate::http::request::{Nothing, Scoped};

/// The client of a request.
#[derive(Debug, Clone)]
pub(in crate::http) struct Caller {
    pub(in crate::http) identity: Identity,
    pub(in crate::http) tags: Tags,
    address: IpAddr,
}

impl Caller {
    pub(super) fn new(app: &App, identity: Identity, address: IpAddr) -> Caller {
        Caller { tags: identity.tags(app.broker.access()), identity, address }
    }

    fn has(&self, tags: &[Tag]) -> bool {
        tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// Whether it sees every namespace and the broker as a whole.
    pub(in crate::http) fn sees_all(&self) -> bool {
        self.has(&[Tag::Administrator, Tag::Monitoring])
    }

    /// Refuses a client that has no tag for the API, or none for changes.
    pub(super) fn check_tags(&self, reads: bool) -> Result<(), Problem> {
        let changes = self.has(&[Tag::Administrator, Tag::Management, Tag::Policymaker]);
        match (reads, changes || self.has(&[Tag::Monitoring]), changes) {
            (true, true, _) | (false, _, true) => Ok(()),
            (false, true, false) => Err(Problem::forbidden("the tag `monitoring` reads only")),
            _ => Err(Problem::forbidden(
                "the user has none of the tags `administrator`, `monitoring`, `policymaker` and `management`",
            )),
        }
    }

    /// Refuses a client that does not see the broker as a whole.
    pub(in crate::http) fn check_sees_all(&self) -> Result<(), Problem> {
        if self.sees_all() {
            return Ok(());
        }
        Err(Problem::forbidden("this needs the tag `administrator` or `monitoring`"))
    }

    /// Refuses a client that is no administrator.
    pub(in crate::http) fn check_administers(&self) -> Result<(), Problem> {
        if self.has(&[Tag::Administrator]) {
            return Ok(());
        }
        Err(Problem::forbidden("this needs the tag `administrator`"))
    }

    /// What it may do in a namespace.
    fn permissions(&self, broker: &Broker, namespace: &str) -> Arc<Permissions> {
        broker.access().permissions(PermissionScope {
            user: self.identity.shared_name(),
            external_tags: self.identity.external_tags().cloned(),
            client_id: "".into(),
            namespace: namespace.into(),
            host: self.address,
        })
    }

    /// Whether it sees a namespace.
    pub(in crate::http) fn sees(&self, broker: &Broker, namespace: &str) -> bool {
        self.sees_all()
            || self.permissions(broker, namespace).may(ResourceKind::Namespace, namespace, Operation::Connect)
    }
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
            return Err(Problem::forbidden(format!("no permission to connect to namespace `{name}`")));
        }
        let sessions = broker.sessions(name);
        let sessions =
            sessions.ok_or_else(|| Problem::not_found(format!("there is no namespace `{name}`")))?;
        Ok(Scope { sessions, permissions: caller.permissions(broker, name) })
    }

    /// The namespace.
    pub(in crate::http) fn namespace(&self) -> &Namespace {
        self.sessions.namespace()
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
        let (kind, operation) = (kind.name(), operation.name());
        Err(Problem::forbidden(format!("no permission for {operation} on {kind} `{name}`")))
    }
}

impl FromRequestParts<App> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Scoped(scope, Nothing {}) = Scoped::from_request_parts(parts, app).await?;
        Ok(scope)
    }
}
