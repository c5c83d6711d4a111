//! The claims of a token (RFC 7519) whose signature is right: whether it holds here and now, and what it grants.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use inver_access::dialect::scopes;
use inver_access::{
    Effect, Grant, GrantedRule, Operation, Operations, Pattern, Principal, ResourceKind, Rule, Tag,
};
use inver_broker::{AuthError, Identity};
use serde_json::{Map, Value};

use crate::config::TokenIssuer;

/// Bytes of a user's name.
const NAME_BYTES_MAX: usize = 255;

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// A limit of what one token may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScopesMax(pub(super) usize);

/// The client that a token stands for, if it holds.
pub(super) fn identity(
    claims: &Claims,
    settings: &TokenIssuer,
    now_ms: i64,
    max: ScopesMax,
) -> Result<Identity, AuthError> {
    let expires_at_ms = check(claims, settings, now_ms)?;
    let user = find(claims, &settings.user_claim).and_then(Value::as_str).unwrap_or_default();
    if user.is_empty() || user.len() > NAME_BYTES_MAX || user.chars().any(char::is_control) {
        return Err(AuthError::Token("it names no user"));
    }
    let identity =
        Identity::granted(user, Arc::new(grant(claims, settings, max)?)).expiring_at(expires_at_ms);
    let namespace = settings.namespace_claim.as_deref().and_then(|name| find(claims, name)?.as_str());
    Ok(match namespace.or(settings.namespace.as_deref()) {
        Some(namespace) => identity.with_namespace(namespace),
        None => identity,
    })
}

/// The issuer that a token names. Nobody vouches for it yet: it only says which keys to look for.
pub(super) fn unverified_issuer(token: &str) -> Option<String> {
    let claims = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// Checks issuer, audience and times; returns when the token expires.
fn check(claims: &Claims, settings: &TokenIssuer, now_ms: i64) -> Result<i64, AuthError> {
    if settings
        .issuer
        .as_deref()
        .is_some_and(|issuer| claims.get("iss").and_then(Value::as_str) != Some(issuer))
    {
        return Err(AuthError::Token("it is of another issuer"));
    }
    if !settings.audience.is_empty() {
        let is_right =
            |value: &Value| value.as_str().is_some_and(|text| settings.audience.iter().any(|a| a == text));
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(is_right),
            Some(one) => is_right(one),
            None => false,
        };
        if !is_for_us {
            return Err(AuthError::Token("it is for another audience"));
        }
    }
    let leeway_ms = i64::try_from(settings.leeway_s).unwrap_or(i64::MAX).saturating_mul(1000);
    let not_before = time_ms(claims, "nbf")?;
    if not_before.is_some_and(|at_ms| at_ms > now_ms.saturating_add(leeway_ms)) {
        return Err(AuthError::Token("it is not valid yet"));
    }
    let expires = time_ms(claims, "exp")?.ok_or(AuthError::Token("it never expires"))?;
    let expires_at_ms = expires.saturating_add(leeway_ms);
    if expires_at_ms <= now_ms {
        return Err(AuthError::Token("it has expired"));
    }
    Ok(expires_at_ms)
}

/// A time in milliseconds; none if the claim is not there. A claim of another type is an error, not a missing one.
fn time_ms(claims: &Claims, name: &str) -> Result<Option<i64>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            // Whole milliseconds within the range; the cast saturates.
            Some(seconds) if seconds.is_finite() => Ok(Some((seconds * 1000.0) as i64)),
            _ => Err(AuthError::Token("a time in it is not a number")),
        },
    }
}

/// A claim by its name, or by the names of the objects around it with dots between.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    find(claims.get(outer)?.as_object()?, inner)
}

/// A claim's texts: a list, or one text with spaces between.
fn texts<'a>(claims: &'a Claims, name: Option<&str>, max: ScopesMax) -> Result<Vec<&'a str>, AuthError> {
    let texts: Vec<&str> = match name.and_then(|name| find(claims, name)) {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).take(max.0 + 1).collect(),
        Some(Value::String(text)) => text.split_ascii_whitespace().take(max.0 + 1).collect(),
        _ => Vec::new(),
    };
    if texts.len() > max.0 {
        return Err(AuthError::Token("it has too many scopes (logins.token_scopes_max)"));
    }
    Ok(texts)
}

fn grant(claims: &Claims, settings: &TokenIssuer, max: ScopesMax) -> Result<Grant, AuthError> {
    let scopes = texts(claims, Some(&settings.scope_claim), max)?;
    let mut grant = scopes::grant(scopes, &settings.scope_prefix);
    let tags = texts(claims, settings.tags_claim.as_deref(), max)?;
    let configured = settings.tags.iter().map(String::as_str);
    let tags = tags.into_iter().chain(configured).map(Tag::named);
    grant.tags = grant.tags.iter().cloned().chain(tags).collect();
    if let Some(acl) = settings.acl_claim.as_deref().and_then(|name| find(claims, name)) {
        add_acl(acl, &mut grant.rules, max)?;
    }
    Ok(grant)
}

/// Addresses as EMQX writes them: `{"pub": ["a/#"], "sub": […], "all": […]}`, or a list of
/// `{"permission": "allow", "action": "publish", "topic": "a/#"}`.
fn add_acl(acl: &Value, rules: &mut Vec<GrantedRule>, max: ScopesMax) -> Result<(), AuthError> {
    let mut add = |effect: Effect, action: &str, topic: &str| {
        if rules.len() >= max.0.saturating_mul(8) {
            return Err(AuthError::Token("it has too many rules (logins.token_scopes_max)"));
        }
        let operations: &[Operation] = match action {
            "pub" | "publish" => &[Operation::Write],
            "sub" | "subscribe" => &[Operation::Subscribe, Operation::Receive],
            "all" => &[Operation::Write, Operation::Subscribe, Operation::Receive],
            _ => return Err(AuthError::Token("an action of its acl is unknown")),
        };
        let topic = topic.replace("${clientid}", "{client_id}").replace("${username}", "{username}");
        let pattern = match topic.strip_prefix("eq ") {
            Some(exact) => Pattern::Literal(exact.to_owned()),
            None => Pattern::Filter(topic),
        };
        pattern.check().map_err(|_| AuthError::Token("a topic of its acl is no filter"))?;
        let rule = Rule {
            id: Grant::rule_id(rules.len()),
            principal: Principal::Anyone,
            namespace: None,
            kind: ResourceKind::Address,
            pattern,
            operations: Operations::of(operations),
            effect,
            host: None,
            dialect: "acl-claim".to_owned(),
        };
        rules.push(GrantedRule { namespaces: Pattern::Any, rule });
        Ok(())
    };
    match acl {
        Value::Object(by_action) => {
            for (action, topics) in by_action {
                for topic in topics.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    add(Effect::Allow, action, topic)?;
                }
            }
        }
        Value::Array(all) => {
            for entry in all {
                let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
                let effect = match text("permission") {
                    "allow" => Effect::Allow,
                    "deny" => Effect::Deny,
                    _ => return Err(AuthError::Token("a permission of its acl is unknown")),
                };
                let more = entry.get("topics").and_then(Value::as_array).into_iter().flatten();
                for topic in entry.get("topic").into_iter().chain(more).filter_map(Value::as_str) {
                    add(effect, text("action"), topic)?;
                }
            }
        }
        _ => return Err(AuthError::Token("its acl is neither an object nor a list")),
    }
    Ok(())
}
