//! Authentication of the API: HTTP Basic (RFC 7617) by the broker's users.
//!
//! Without users the broker's authenticator accepts loopback clients only, anonymously too.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::BASE64;
use inver_broker::{Credentials, ListenerInfo};
use tracing::debug;

use super::problem::Problem;
use super::{App, Peer};

/// Lets a request pass whose credentials the broker accepts.
pub(super) async fn authenticate(
    State(app): State<App>,
    Extension(Peer(address)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let credentials = credentials(request.headers())
        .ok_or_else(|| Problem::unauthorized("the Authorization header is not valid Basic authentication"))?;
    match app.broker.authenticate(&ListenerInfo::default(), address, &credentials).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            Ok(next.run(request).await)
        }
        Err(error) => {
            debug!(%error, %address, "API login refused");
            Err(Problem::unauthorized(error.to_string()))
        }
    }
}

/// The credentials of a request; none where the header is malformed or of another scheme.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Some(Credentials::Anonymous);
    };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim().as_bytes()).ok()?;
    let at = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(at);
    let user = String::from_utf8(user.to_vec()).ok()?;
    Some(Credentials::Password { user, password: password.get(1..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Credentials> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        credentials(&headers)
    }

    #[test]
    fn basic_credentials_are_decoded() {
        let encoded = BASE64.encode("ann:p:w".as_bytes());
        let expected = Credentials::Password { user: "ann".into(), password: b"p:w".to_vec() };
        assert_eq!(of(&format!("Basic {encoded}")), Some(expected.clone()));
        assert_eq!(of(&format!("basic {encoded}")), Some(expected));
        assert_eq!(credentials(&HeaderMap::new()), Some(Credentials::Anonymous));
        for wrong in ["Basic", "Basic !", "Bearer x", "Basic YW5u"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
