//! Permission rules, and the question whether somebody may do something.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inver_access::{
    Decision, Grant, GrantedRule, Operation, Pattern, Principal, ResourceKind, Rule, RuleId, RuleText,
    Subject, Tags, key_name,
};
use inver_broker::{AccessControl, AccessError, AuditKind, Order, Source};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{answer, blocking, deleted, durable};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::list::{self, Column, ListQuery, Listed, Page};
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
    /// `stored`; `configuration`: read-only; `token`: the client's token brings it.
    source: String,
}

impl Shown {
    /// A rule that a token of this user brings.
    fn granted(granted: &GrantedRule, user: &str) -> Shown {
        let namespace = match &granted.namespaces {
            Pattern::Literal(name) | Pattern::Regex(name) => Some(name.clone()),
            _ => None,
        };
        let text = RuleText::from(&granted.rule);
        let text = RuleText { user: Some(user.to_owned()), anyone: false, namespace, ..text };
        Shown { source: "token".to_owned(), ..Shown::of(text, Source::Stored) }
    }

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
    /// `topic`, `exchange`, `address`, `group`, `transactional-id`, `session`, `cluster`, `namespace`, `routing-key`,
    /// `user`, `delegation-token`; without it, a rule for each kind is added.
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
    /// `alter-configs`, `read`, `write`, `subscribe`, `receive`, `resume`, `idempotent-write`, `cluster-action`,
    /// `create-tokens`, `describe-tokens`.
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

/// The rules of the broker.
struct Rules {
    access: AccessControl,
    only: Only,
}

#[derive(Clone)]
struct ListedRule {
    id: String,
    rule: Arc<Rule>,
    source: Source,
}

impl ListedRule {
    fn of((rule, source): (Arc<Rule>, Source)) -> ListedRule {
        ListedRule { id: rule.id.0.to_string(), rule, source }
    }
}

impl Rules {
    fn part(&self, order: Order, after: Option<RuleId>, skip: usize, max: usize) -> Vec<(Arc<Rule>, Source)> {
        match order {
            Order::Ascending => self.access.rules_following(after, skip, max),
            Order::Descending => self.access.rules_preceding(after, skip, max),
        }
    }
}

impl list::Source for Rules {
    type Object = ListedRule;
    type Place = Option<RuleId>;

    fn read(
        &self,
        order: Order,
        place: &mut Option<RuleId>,
        max: usize,
        found: &mut Vec<ListedRule>,
    ) -> bool {
        let part = self.part(order, *place, 0, max);
        let is_last = part.len() < max;
        *place = part.last().map(|(rule, _)| rule.id);
        found.extend(part.into_iter().map(ListedRule::of));
        !is_last
    }

    fn page(&self, order: Order, skip: usize, max: usize) -> Option<(Vec<ListedRule>, u64)> {
        let part = self.part(order, None, skip, max);
        Some((part.into_iter().map(ListedRule::of).collect(), self.access.rule_count() as u64))
    }

    fn name<'a>(&self, rule: &'a ListedRule) -> &'a str {
        &rule.id
    }

    fn columns(&self) -> &'static [Column<ListedRule>] {
        &[]
    }

    fn lists(&self, it: &ListedRule) -> bool {
        let of_user = |wanted: &String| matches!(&it.rule.principal, Principal::User(of) if of == wanted);
        let in_namespace = |wanted: &String| it.rule.namespace.as_ref().is_none_or(|of| of == wanted);
        self.only.user.as_ref().is_none_or(of_user) && self.only.namespace.as_ref().is_none_or(in_namespace)
    }

    fn selects(&self) -> bool {
        self.only.user.is_some() || self.only.namespace.is_some()
    }

    fn id(&self) -> Option<String> {
        Some(format!("permissions {:?}", self.only))
    }
}

/// Lists the rules in the order of their ids, stored ones and those of the configuration.
#[utoipa::path(get, path = "/permissions", tag = "access", params(ListQuery, Only),
    responses((status = 200, body = Page<Shown>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    Listed(query, only): Listed<Only>,
) -> Result<Page<Shown>, Problem> {
    caller.check_sees_all()?;
    blocking(&app, move |app| {
        let rules = Rules { access: app.broker.access().clone(), only };
        let shown = |it: &ListedRule| Shown::of(RuleText::from(it.rule.as_ref()), it.source);
        query.page(app, rules, shown)
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
    answer(&app, move |app| {
        let Question { user, namespace, client_id, host, kind, name, exchange, operation } = question;
        let namespace = namespace.unwrap_or_else(|| "/".to_owned());
        let asked = Asked { namespace, client_id, host, kind, name, exchange, operation };
        asked.by_user(app, user.as_deref())
    })
    .await
}

/// What a client with a JSON Web Token wants to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TokenQuestion {
    token: String,
    /// The namespace; without it, that of the token, or `/`.
    #[schema(nullable = false)]
    namespace: Option<String>,
    /// The client id.
    #[schema(nullable = false)]
    client_id: Option<String>,
    /// The address that the client connects from; without it, 127.0.0.1.
    #[schema(nullable = false)]
    host: Option<String>,
    /// The kind of resource.
    kind: String,
    /// The name of the resource; without it, empty, as for `cluster`.
    #[schema(nullable = false)]
    name: Option<String>,
    /// Of a `routing-key`: the exchange.
    #[schema(nullable = false)]
    exchange: Option<String>,
    operation: String,
}

/// Whether it is allowed, and what the token brings.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TokenAnswer {
    allowed: bool,
    /// The rule that allows or denies it; none where no rule matches, or an administrator asks.
    rule: Option<Shown>,
    /// Why, in words.
    reason: String,
    /// The token's user; none if the token is not accepted.
    user: Option<String>,
    /// The user's tags.
    tags: Vec<String>,
    /// When the token expires, milliseconds since 1970.
    expires_ms: Option<i64>,
    /// The rules that the token brings. Their `namespace` is a name, or a regular expression over names.
    rules: Vec<Shown>,
}

/// Whether a client with a JSON Web Token may do something, by which rule, and which rules the token brings.
#[utoipa::path(post, path = "/permissions/check", tag = "access", request_body = TokenQuestion,
    responses((status = 200, body = TokenAnswer)))]
pub(in crate::http) async fn check_token(
    State(app): State<App>,
    caller: Caller,
    Body(question): Body<TokenQuestion>,
) -> Result<Json<TokenAnswer>, Problem> {
    caller.check_sees_all()?;
    answer(&app, move |app| question.answer(app)).await
}

impl TokenQuestion {
    fn answer(self, app: &App) -> Result<TokenAnswer, Problem> {
        let TokenQuestion { token, namespace, client_id, host, kind, name, exchange, operation } = self;
        // A wrong token is nobody's guess.
        let checked = app.broker.check_token(Ipv4Addr::UNSPECIFIED.into(), &token);
        let asked = Asked {
            namespace: namespace
                .or_else(|| checked.as_ref().ok().and_then(|client| client.namespace().map(str::to_owned)))
                .unwrap_or_else(|| "/".to_owned()),
            client_id,
            host,
            kind,
            name,
            exchange,
            operation,
        };
        let what = asked.what()?;
        let client = match checked {
            Ok(client) => client,
            Err(error) => {
                let reason = error.to_string();
                let (tags, rules) = (Vec::new(), Vec::new());
                let (rule, user, expires_ms) = (None, None, None);
                return Ok(TokenAnswer { allowed: false, rule, reason, user, tags, expires_ms, rules });
            }
        };
        let none = Tags::default();
        let tags = client.external_tags().unwrap_or(&none);
        let grant = client.grant().map(|grant| &**grant);
        let Answer { allowed, rule, reason } = asked.decide(app, &what, client.name(), tags, grant);
        let of_user = client.name().unwrap_or_default();
        let granted = grant.map(|grant| grant.rules.as_slice()).unwrap_or_default();
        Ok(TokenAnswer {
            allowed,
            rule,
            reason,
            user: client.name().map(str::to_owned),
            tags: tags.iter().map(|tag| tag.name().to_owned()).collect(),
            expires_ms: client.expires_at_ms(),
            rules: granted.iter().map(|rule| Shown::granted(rule, of_user)).collect(),
        })
    }
}

/// What somebody wants to do, as it was asked.
struct Asked {
    namespace: String,
    client_id: Option<String>,
    host: Option<String>,
    kind: String,
    name: Option<String>,
    exchange: Option<String>,
    operation: String,
}

/// What somebody wants to do.
struct What {
    kind: ResourceKind,
    name: String,
    operation: Operation,
    host: IpAddr,
}

impl Asked {
    fn what(&self) -> Result<What, Problem> {
        let wrong = |what: String| Problem::bad_request(what);
        let kind = ResourceKind::named(&self.kind)
            .ok_or_else(|| wrong(format!("kind: there is no kind of resource `{}`", self.kind)))?;
        let operation = Operation::named(&self.operation)
            .ok_or_else(|| wrong(format!("operation: there is no operation `{}`", self.operation)))?;
        let host = self.host.as_deref().unwrap_or("127.0.0.1");
        let host = host.parse().map_err(|_| wrong(format!("host: `{host}` is not an address")))?;
        let name = self.name.clone().unwrap_or_default();
        let name = match &self.exchange {
            Some(exchange) if kind == ResourceKind::RoutingKey => key_name(exchange, &name),
            _ => name,
        };
        Ok(What { kind, name, operation, host })
    }

    /// Whether a user of the broker may do it; none: an anonymous client.
    fn by_user(&self, app: &App, name: Option<&str>) -> Result<Answer, Problem> {
        let access = app.broker.access();
        let what = self.what()?;
        let user = match name {
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
        Ok(self.decide(app, &what, name, &tags, None))
    }

    fn decide(
        &self,
        app: &App,
        what: &What,
        user: Option<&str>,
        tags: &Tags,
        grant: Option<&Grant>,
    ) -> Answer {
        let access = app.broker.access();
        let subject = Subject {
            user,
            tags,
            client_id: self.client_id.as_deref().unwrap_or_default(),
            namespace: &self.namespace,
            host: what.host,
        };
        let Decision { allowed, by } = access.check(&subject, grant, what.kind, &what.name, what.operation);
        let rules = access.rules();
        let granted = grant.map(|grant| grant.rules.as_slice()).unwrap_or_default();
        let rule = by.and_then(|id| {
            let own = rules.iter().find(|(rule, _)| rule.id == id);
            let own = own.map(|(rule, source)| Shown::of(RuleText::from(rule.as_ref()), *source));
            let granted = || granted.iter().find(|granted| granted.rule.id == id);
            own.or_else(|| granted().map(|rule| Shown::granted(rule, user.unwrap_or_default())))
        });
        let reason = match (&rule, allowed) {
            (Some(rule), _) if rule.source == "token" => {
                format!("a rule of the token {} it", if allowed { "allows" } else { "denies" })
            }
            (Some(rule), true) => format!("rule {} allows it", rule.id),
            (Some(rule), false) => format!("rule {} denies it", rule.id),
            (None, true) if !access.is_enforced() => {
                "there are no users and no rules, so that nothing is restricted".to_owned()
            }
            (None, true) if what.kind == ResourceKind::RoutingKey => {
                "no rule restricts the keys of the exchange".to_owned()
            }
            (None, true) => "an administrator may do everything that no rule denies".to_owned(),
            (None, false) => "no rule allows it".to_owned(),
        };
        Answer { allowed, rule, reason }
    }
}
