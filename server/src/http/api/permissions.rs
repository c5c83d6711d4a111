//! Permission rules, and the question whether somebody may do something.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{Decision, Operation, ResourceKind, RuleId, RuleText, Subject, key_name};
use inver_broker::{AccessError, AuditKind, Source};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{answer, blocking, deleted, durable};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{ListQuery, Listed, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::{Body, Name, Query};

/// The name of a source.
pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Stored => "stored",
        Source::Configuration => "configuration",
    }
}

/// A permission rule. Exactly one of `user`, `tag`, `anyone` and `anonymous` says whom it applies to; at most one of `name`,
/// `prefix`, `filter`, `regex` and `dotted` says which resources.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Permission)]
pub(in crate::http) struct Shown {
    /// Its id, as text.
    id: String,
    user: Option<String>,
    tag: Option<String>,
    /// Everybody.
    anyone: bool,
    /// Clients without a user.
    anonymous: bool,
    /// The namespace in which it applies; none: in every namespace.
    namespace: Option<String>,
    /// The kind of resource.
    kind: Option<String>,
    name: Option<String>,
    prefix: Option<String>,
    filter: Option<String>,
    regex: Option<String>,
    /// A regular expression over addresses in dotted form.
    dotted: Option<String>,
    /// Of routing keys: the exchange whose keys they are.
    exchange: Option<String>,
    operations: Vec<String>,
    /// `allow`, or `deny`, which wins.
    effect: Option<String>,
    /// The address that the client must connect from; none: any.
    host: Option<String>,
    /// The dialect that wrote it.
    dialect: Option<String>,
    /// `stored`, or `configuration`: read-only.
    source: String,
}

impl Shown {
    fn of(text: RuleText, of: Source) -> Shown {
        Shown {
            id: text.id.map(|id| id.to_string()).unwrap_or_default(),
            user: text.user,
            tag: text.tag,
            anyone: text.anyone,
            anonymous: text.anonymous,
            namespace: text.namespace,
            kind: text.kind,
            name: text.name,
            prefix: text.prefix,
            filter: text.filter,
            regex: text.regex,
            dotted: text.dotted,
            exchange: text.exchange,
            operations: text.operations,
            effect: text.effect,
            host: text.host.map(|host| host.to_string()),
            dialect: text.dialect,
            source: source(of).to_owned(),
        }
    }
}

/// A rule to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewPermission {
    #[schema(nullable = false)]
    user: Option<String>,
    #[schema(nullable = false)]
    tag: Option<String>,
    /// Everybody, clients without a user included.
    #[serde(default)]
    anyone: bool,
    /// Clients without a user.
    #[serde(default)]
    anonymous: bool,
    /// The namespace in which it applies; without it, every namespace.
    #[schema(nullable = false)]
    namespace: Option<String>,
    /// `topic`, `exchange`, `address`, `group`, `transactional-id`, `session`, `cluster`, `namespace`, `routing-key`;
    /// without it, a rule for each kind is added.
    #[schema(nullable = false)]
    kind: Option<String>,
    #[schema(nullable = false)]
    name: Option<String>,
    #[schema(nullable = false)]
    prefix: Option<String>,
    #[schema(nullable = false)]
    filter: Option<String>,
    #[schema(nullable = false)]
    regex: Option<String>,
    /// A regular expression over addresses in dotted form; with the kind `address` only.
    #[schema(nullable = false)]
    dotted: Option<String>,
    /// The exchange whose keys they are; with the kind `routing-key` only.
    #[schema(nullable = false)]
    exchange: Option<String>,
    /// `all`, or some of `connect`, `configure`, `create`, `delete`, `alter`, `describe`, `describe-configs`,
    /// `alter-configs`, `read`, `write`, `subscribe`, `receive`, `resume`, `idempotent-write`, `cluster-action`.
    #[schema(min_items = 1)]
    operations: Vec<String>,
    /// `allow` (without it) or `deny`.
    #[schema(nullable = false)]
    effect: Option<String>,
    #[schema(nullable = false, value_type = Option<String>)]
    host: Option<IpAddr>,
}

impl From<NewPermission> for RuleText {
    fn from(new: NewPermission) -> RuleText {
        RuleText {
            user: new.user,
            tag: new.tag,
            anyone: new.anyone,
            anonymous: new.anonymous,
            namespace: new.namespace,
            kind: new.kind,
            name: new.name,
            prefix: new.prefix,
            filter: new.filter,
            regex: new.regex,
            dotted: new.dotted,
            exchange: new.exchange,
            operations: new.operations,
            effect: new.effect,
            host: new.host,
            ..RuleText::default()
        }
    }
}

/// The ids of the rules that were added, those that existed already included.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Added {
    ids: Vec<String>,
}

/// Which rules are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Only {
    /// Only rules whose principal is this user.
    #[param(nullable = false, max_length = 255)]
    user: Option<String>,
    /// Only rules that apply in this namespace.
    #[param(nullable = false, max_length = 255)]
    namespace: Option<String>,
}

impl Only {
    /// Whether what concerns this user in this namespace is listed.
    pub(super) fn has(&self, user: &str, namespace: &str) -> bool {
        self.user.as_deref().is_none_or(|wanted| wanted == user)
            && self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}

/// Lists the rules, stored ones and those of the configuration.
#[utoipa::path(get, path = "/permissions", tag = "access", params(ListQuery, Only),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    Listed(query, only): Listed<Only>,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        let rules = app.broker.access().rules();
        let shown = rules.iter().map(|(rule, source)| Shown::of(RuleText::from(rule.as_ref()), *source));
        let listed = shown.filter(|rule| {
            is(&only.user, &rule.user) && (rule.namespace.is_none() || is(&only.namespace, &rule.namespace))
        });
        query.page(app, Whole::new(listed.collect(), |rule: &Shown| &rule.id, &[]), Clone::clone)
    })
    .await
}

/// Adds a rule. What exists already is not added again.
#[utoipa::path(post, path = "/permissions", tag = "access", request_body = NewPermission,
    responses((status = 201, body = Added)))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewPermission>,
) -> Result<(StatusCode, Json<Added>), Problem> {
    caller.check_administers()?;
    let added = durable(&app, move |app| {
        let rules = RuleText::from(new).rules().map_err(|error| Problem::bad_request(error.to_string()))?;
        let (ids, completion) = app.broker.access().add_rules(rules)?;
        ids.iter().for_each(|id| {
            caller.did(AuditKind::Access, "create", "permission", &id.0.to_string());
        });
        Ok((Added { ids: ids.iter().map(|id| id.0.to_string()).collect() }, completion))
    })
    .await?;
    Ok((StatusCode::CREATED, Json(added)))
}

/// Deletes a stored rule.
#[utoipa::path(delete, path = "/permissions/{id}", tag = "access",
    params(("id" = String, Path, description = "The rule's id")),
    responses((status = 204)))]
pub(in crate::http) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Name(id): Name,
) -> Result<StatusCode, Problem> {
    caller.check_administers()?;
    deleted(&app, move |app| {
        let unknown = || Problem::not_found(format!("there is no permission rule {id}"));
        let wanted = RuleId(id.parse().map_err(|_| unknown())?);
        let access = app.broker.access();
        let (deleted, completion) = access.delete_rules(|rule| rule.id == wanted)?;
        if deleted.is_empty() {
            if access.rules().iter().any(|(rule, _)| rule.id == wanted) {
                return Err(AccessError::ReadOnly(format!("permission rule {id}")).into());
            }
            return Err(unknown());
        }
        caller.did(AuditKind::Access, "delete", "permission", &id);
        Ok(completion)
    })
    .await
}

/// Who wants to do what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Question {
    /// The user; without it, an anonymous client.
    #[param(nullable = false, max_length = 255)]
    user: Option<String>,
    /// The namespace; without it, `/`.
    #[param(nullable = false, max_length = 255)]
    namespace: Option<String>,
    /// The client id.
    #[param(nullable = false, max_length = 255)]
    client_id: Option<String>,
    /// The address that the client connects from; without it, 127.0.0.1.
    #[param(nullable = false, value_type = Option<String>)]
    host: Option<String>,
    /// The kind of resource.
    kind: String,
    /// The name of the resource; without it, empty, as for `cluster`.
    #[param(nullable = false)]
    name: Option<String>,
    /// Of a `routing-key`: the exchange.
    #[param(nullable = false)]
    exchange: Option<String>,
    operation: String,
}

/// Whether it is allowed, and by which rule.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Answer {
    allowed: bool,
    /// The rule that allows or denies it; none where no rule matches, or an administrator asks.
    rule: Option<Shown>,
    /// Why, in words.
    reason: String,
}

/// Whether somebody may do something, and by which rule.
#[utoipa::path(get, path = "/permissions/check", tag = "access", params(Question),
    responses((status = 200, body = Answer)))]
pub(in crate::http) async fn check(
    State(app): State<App>,
    caller: Caller,
    Query(question): Query<Question>,
) -> Result<Json<Answer>, Problem> {
    caller.check_sees_all()?;
    answer(&app, move |app| question.answer(app)).await
}

impl Question {
    fn answer(&self, app: &App) -> Result<Answer, Problem> {
        let access = app.broker.access();
        let wrong = |what: String| Problem::bad_request(what);
        let kind = ResourceKind::named(&self.kind)
            .ok_or_else(|| wrong(format!("kind: there is no kind of resource `{}`", self.kind)))?;
        let operation = Operation::named(&self.operation)
            .ok_or_else(|| wrong(format!("operation: there is no operation `{}`", self.operation)))?;
        let host = self.host.as_deref().unwrap_or("127.0.0.1");
        let host = host.parse().map_err(|_| wrong(format!("host: `{host}` is not an address")))?;
        let user = match &self.user {
            Some(name) => Some(
                access.user(name).ok_or_else(|| Problem::not_found(format!("there is no user `{name}`")))?,
            ),
            None => None,
        };
        if user.as_ref().is_some_and(|(user, _)| user.disabled) {
            let reason = "the user is disabled".to_owned();
            return Ok(Answer { allowed: false, rule: None, reason });
        }
        let tags = user.as_ref().map(|(user, _)| user.tags.clone()).unwrap_or_default();
        let subject = Subject {
            user: self.user.as_deref(),
            tags: &tags,
            client_id: self.client_id.as_deref().unwrap_or_default(),
            namespace: self.namespace.as_deref().unwrap_or("/"),
            host,
        };
        let name = self.name.as_deref().unwrap_or_default();
        let key = self.exchange.as_deref().map(|exchange| key_name(exchange, name));
        let name = key.as_deref().filter(|_| kind == ResourceKind::RoutingKey).unwrap_or(name);
        let Decision { allowed, by } = access.check(&subject, kind, name, operation);
        let rules = access.rules();
        let rule = by.and_then(|id| rules.iter().find(|(rule, _)| rule.id == id));
        let rule = rule.map(|(rule, source)| Shown::of(RuleText::from(rule.as_ref()), *source));
        let reason = match (&rule, allowed) {
            (Some(rule), true) => format!("rule {} allows it", rule.id),
            (Some(rule), false) => format!("rule {} denies it", rule.id),
            (None, true) if !access.is_enforced() => {
                "there are no users and no rules, so that nothing is restricted".to_owned()
            }
            (None, true) if kind == ResourceKind::RoutingKey => {
                "no rule restricts the keys of the exchange".to_owned()
            }
            (None, true) => "an administrator may do everything that no rule denies".to_owned(),
            (None, false) => "no rule allows it".to_owned(),
        };
        Ok(Answer { allowed, rule, reason })
    }
}
