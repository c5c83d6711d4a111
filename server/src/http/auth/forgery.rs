//! Requests that a page of another site makes a browser send.
//!
//! A browser adds cookies, remembered passwords and its place on this machine to the requests of any page. Changes that rest
//! on these alone are refused where the browser says, or could say, that another site asks.

use axum::http::{HeaderMap, Method, header};

use crate::http::problem::Problem;

/// A header that only scripts of the same site can set; its value does not matter.
const OWN_HEADER: &str = "x-inver-request";

/// Refuses changes that another site asks for. A request with a cookie must have [`OWN_HEADER`] too.
pub(super) fn check(headers: &HeaderMap, method: &Method, by_cookie: bool) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(Problem::forbidden("another site asks for this change"));
    }
    if let Some(origin) = text(header::ORIGIN.as_str()) {
        let host = origin.split_once("://").map(|(_, host)| host);
        if host.is_none() || host != text(header::HOST.as_str()) {
            return Err(Problem::forbidden("another site asks for this change"));
        }
    }
    if by_cookie && !headers.contains_key(OWN_HEADER) {
        return Err(Problem::forbidden(
            "a change with the cookie of a login needs the header `X-Inver-Request`",
        ));
    }
    Ok(())
}

/// Refuses a client without credentials that calls this machine by a name that another site could have given it.
pub(super) fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return Ok(()) };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    if address.is_ok() || name.eq_ignore_ascii_case("localhost") || !name.contains('.') {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "without a login, the broker is called by address or as `localhost`, not `{name}`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn changes_of_other_sites_are_refused() {
        let passes = |pairs: &[_], cookie| check(&headers(pairs), &Method::POST, cookie).is_ok();
        assert!(passes(&[], false));
        assert!(!passes(&[], true));
        assert!(passes(&[("x-inver-request", "1")], true));
        assert!(!passes(&[("sec-fetch-site", "cross-site")], false));
        assert!(!passes(&[("sec-fetch-site", "same-site")], false));
        assert!(passes(&[("sec-fetch-site", "same-origin")], false));
        assert!(passes(&[("origin", "http://h:1"), ("host", "h:1")], false));
        assert!(!passes(&[("origin", "http://evil"), ("host", "h:1"), ("x-inver-request", "1")], true));
        assert!(!passes(&[("origin", "null"), ("host", "h:1")], false));
        assert!(check(&headers(&[("sec-fetch-site", "cross-site")]), &Method::GET, true).is_ok());
    }

    #[test]
    fn without_a_login_the_host_is_this_machine() {
        let passes = |host: &str| check_host(&headers(&[("host", host)])).is_ok();
        for host in ["localhost", "localhost:15672", "127.0.0.1:15672", "[::1]:15672", "192.0.2.1", "x"] {
            assert!(passes(host), "{host}");
        }
        for host in ["evil.example", "evil.example:15672", "localhost.evil.example"] {
            assert!(!passes(host), "{host}");
        }
    }
}
