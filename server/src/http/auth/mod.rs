//! Who a request is from, and what the client may do.
//!
//! A client shows itself by HTTP Basic (RFC 7617), by a bearer token (RFC 6750), or by the cookie of a login. Without
//! users, clients on this machine are let in without any of these. What the client may do follows from its tags: an
//! administrator everything, monitoring may read everything, management and policymaker may work with the namespaces that
//! they may connect to, within the permissions of the broker.

mod caller;
mod forgery;
pub(super) mod logins;
pub(super) mod tokens;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::BASE64;
use inver_broker::{AuditEvent, AuditKind, AuditResult, Credentials, Identity};

pub(super) use self::caller::{Caller, Scope};
pub(super) use self::logins::Logins;

use super::problem::Problem;
use super::{App, Peer};

/// Lets a request pass whose client is known and has a tag for it.
pub(super) async fn authenticate(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = caller(&app, &peer, request.headers(), request.method()).await?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    caller.check_tags(reads)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// Lets a request for metrics pass, which needs a login where `http.metrics_login` is set.
pub(super) async fn authenticate_metrics(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if app.node.settings.metrics_login {
        caller(&app, &peer, request.headers(), request.method()).await?.check_sees_all()?;
    }
    Ok(next.run(request).await)
}

/// How a client showed itself.
enum Shown {
    /// By nothing, or by what a browser adds to every request.
    Ambient(Credentials),
    Token(String),
    /// By a cookie, which a browser adds to every request.
    Cookie(String),
}

/// The client of a request.
pub(super) async fn caller(
    app: &App,
    peer: &Peer,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Caller, Problem> {
    let address = peer.address;
    let shown = shown(headers).ok_or_else(|| {
        Problem::unauthorized("the Authorization header is neither valid Basic nor a bearer token")
    })?;
    let identity = match shown {
        Shown::Token(token) if tokens::is_own(&token) => tokens::identity(app, &token, address),
        Shown::Token(token) => verified(app, peer, &Credentials::Token(token)).await,
        Shown::Cookie(cookie) => {
            forgery::check(headers, method, true)?;
            app.logins.identity(app, &cookie)
        }
        Shown::Ambient(credentials) => {
            forgery::check(headers, method, false)?;
            if credentials == Credentials::Anonymous {
                forgery::check_host(headers)?;
            }
            verified(app, peer, &credentials).await
        }
    };
    Ok(Caller::new(app, identity?, address))
}

/// The identity of a client with these credentials.
async fn verified(app: &App, peer: &Peer, credentials: &Credentials) -> Result<Identity, Problem> {
    let address = peer.address;
    let verified = app.broker.authenticate(&peer.listener, address, credentials).await;
    verified.map_err(|error| {
        let user = match credentials {
            Credentials::Password { user, .. } | Credentials::Certificate { user } => Some(user.as_str()),
            Credentials::Anonymous | Credentials::Token(_) => None,
        };
        app.broker.audit().record(&AuditEvent {
            kind: AuditKind::Login,
            result: AuditResult::Refused,
            who: caller::who(user, address),
            operation: "connect",
            resource: "broker",
            name: "",
            namespace: None,
            rule: None,
            reason: Some(&error.to_string()),
        });
        Problem::unauthorized(error.to_string())
    })
}

/// Whether the user of an identity can still log in, and what it showed is there and has not expired.
fn is_current(app: &App, identity: &Identity) -> bool {
    let access = app.broker.access();
    if identity.expires_at_ms().is_some_and(|at_ms| at_ms <= app.broker.clock().now_ms()) {
        return false;
    }
    if identity.token().is_some_and(|id| !tokens::is_there(app, id)) {
        return false;
    }
    match identity.name().map(|name| access.user(name)) {
        None => !access.has_users(),
        // The user of a token need not exist, but one that is disabled may not log in by a token either.
        Some(user) if identity.external_tags().is_some() || !access.has_users() => {
            user.is_none_or(|(user, _)| !user.disabled)
        }
        Some(user) => user.is_some_and(|(user, _)| !user.disabled),
    }
}

/// What a request shows; none where the Authorization header is malformed or of another scheme.
fn shown(headers: &HeaderMap) -> Option<Shown> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        let cookie = logins::cookie(headers).map(Shown::Cookie);
        return Some(cookie.unwrap_or(Shown::Ambient(Credentials::Anonymous)));
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Shown::Token(encoded.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim().as_bytes()).ok()?;
    let at = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(at);
    let user = String::from_utf8(user.to_vec()).ok()?;
    Some(Shown::Ambient(Credentials::Password { user, password: password.get(1..)?.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Shown> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        shown(&headers)
    }

    #[test]
    fn credentials_are_decoded() {
        let encoded = BASE64.encode("ann:p:w".as_bytes());
        let expected = Credentials::Password { user: "ann".into(), password: b"p:w".to_vec() };
        for scheme in ["Basic", "basic"] {
            let shown = of(&format!("{scheme} {encoded}"));
            assert!(matches!(shown, Some(Shown::Ambient(credentials)) if credentials == expected));
        }
        assert!(matches!(of("Bearer x"), Some(Shown::Token(token)) if token == "x"));
        assert!(matches!(shown(&HeaderMap::new()), Some(Shown::Ambient(Credentials::Anonymous))));
        for wrong in ["Basic", "Basic !", "Digest x", "Basic YW5u"] {
            assert!(of(wrong).is_none(), "{wrong}");
        }
    }
}
