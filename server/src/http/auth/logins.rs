//! Logins of pages: a cookie instead of a password with every request.
//!
//! Cookies are random, kept as hashes in memory, bounded in number and time, and end with the process.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use data_encoding::BASE64URL_NOPAD;
use inver_broker::{Credentials, Identity};
use parking_lot::Mutex;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Caller, forgery, is_current, verified};
use crate::http::problem::Problem;
use crate::http::request::Body;
use crate::http::{App, Peer};

/// Name of the cookie.
const COOKIE: &str = "inver_login";

type Hash = [u8; digest::SHA256_OUTPUT_LEN];

/// The logins that are valid.
#[derive(Default)]
pub(in crate::http) struct Logins(Mutex<HashMap<Hash, Login>>);

struct Login {
    identity: Identity,
    until: Instant,
}

impl Logins {
    fn add(&self, identity: Identity, now: Instant, life: Duration, max: usize) -> Result<String, Problem> {
        let secret = secret()?;
        let mut all = self.0.lock();
        if all.len() >= max {
            all.retain(|_, login| login.until > now);
        }
        if all.len() >= max {
            // The one that ends first makes room.
            let first = all.iter().min_by_key(|(_, login)| login.until).map(|(hash, _)| *hash);
            first.into_iter().for_each(|hash| drop(all.remove(&hash)));
        }
        all.insert(hash(&secret), Login { identity, until: now + life });
        Ok(secret)
    }

    /// The identity of the login with this cookie.
    pub(super) fn identity(&self, app: &App, cookie: &str) -> Result<Identity, Problem> {
        let now = app.broker.clock().now();
        let all = self.0.lock();
        let login = all.get(&hash(cookie)).filter(|login| login.until > now);
        let identity = login.map(|login| login.identity.clone()).filter(|identity| is_current(app, identity));
        identity.ok_or_else(|| Problem::unauthorized("the login has ended"))
    }

    /// Ends the logins of a user of the broker, which was deleted or has other credentials now.
    pub(in crate::http) fn end_of_user(&self, user: &str) {
        self.0.lock().retain(|_, login| {
            login.identity.external_tags().is_some() || login.identity.name() != Some(user)
        });
    }

    fn remove(&self, cookie: &str) {
        self.0.lock().remove(&hash(cookie));
    }
}

/// A random secret as text.
pub(super) fn secret() -> Result<String, Problem> {
    let mut secret = [0; 32];
    let filled = SystemRandom::new().fill(&mut secret);
    filled.map_err(|_| Problem::internal("no random numbers from the operating system"))?;
    Ok(BASE64URL_NOPAD.encode(&secret))
}

/// The hash that a secret is kept as. Secrets are random and long, so that it needs no salt and no work factor.
pub(super) fn hash(secret: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    hash
}

/// The cookie of a login, if there is one.
pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

/// A user and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewLogin {
    #[schema(max_length = 255)]
    user: String,
    #[schema(max_length = 4096)]
    password: String,
}

/// The client of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Who {
    /// None without a login.
    user: Option<String>,
    tags: Vec<String>,
}

impl Who {
    fn of(caller: &Caller) -> Who {
        let tags = caller.tags.iter().map(|tag| tag.name().to_owned()).collect();
        Who { user: caller.identity.name().map(str::to_owned), tags }
    }
}

/// Logs a page in: sets a cookie that stands for the user. Changes with the cookie need the header `X-Inver-Request`.
#[utoipa::path(post, path = "/login", tag = "login", request_body = NewLogin,
    responses((status = 200, body = Who)))]
pub(in crate::http) async fn login(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Body(new): Body<NewLogin>,
) -> Result<impl IntoResponse, Problem> {
    forgery::check(&headers, &Method::POST, false)?;
    let credentials = Credentials::Password { user: new.user, password: new.password.into_bytes() };
    let identity = verified(&app, &peer, &credentials).await?;
    let caller = Caller::new(&app, identity.clone(), peer.address);
    caller.check_tags(true)?;
    let settings = &app.node.settings;
    let now = app.broker.clock().now();
    let secret = app.logins.add(identity, now, settings.login_life, settings.logins_max)?;
    let secure = if peer.encrypted { "; Secure" } else { "" };
    let life = settings.login_life.as_secs();
    let cookie = format!("{COOKIE}={secret}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{secure}");
    Ok(([(header::SET_COOKIE, cookie_value(&cookie)?)], Json(Who::of(&caller))))
}

/// Ends the login of the cookie.
#[utoipa::path(post, path = "/logout", tag = "login", responses((status = 204)))]
pub(in crate::http) async fn logout(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    cookie(&headers).into_iter().for_each(|cookie| app.logins.remove(&cookie));
    let ended = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie_value(&ended)?)]))
}

fn cookie_value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| Problem::internal("the cookie is not a header's value"))
}

/// The user of the request, and its tags.
#[utoipa::path(get, path = "/whoami", tag = "login", responses((status = 200, body = Who)))]
pub(in crate::http) async fn whoami(caller: Caller) -> Json<Who> {
    Json(Who::of(&caller))
}
