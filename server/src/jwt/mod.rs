//! Tokens: JSON Web Tokens (RFC 7519) of the issuers of the configuration, as credentials.
//!
//! Owns the issuers with their keys, which are fetched in the background ([`Tokens::refresh`]), and the verification. The
//! signatures are verified on the caller's thread: the slowest, of RSA with 8192 bits, takes less than a millisecond.
//!
//! Invariants: an algorithm is used only if the issuer's setting lists it and the key is one of it; a token without an end
//! is refused; keys stay as they were while a fetch fails.

mod claims;
mod fetch;
mod keys;
mod verifier;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use inver_broker::{AuthError, Clock, Identity};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::claims::{Claims, ScopesMax};
use self::keys::Keys;
use crate::config::{Config, ConfigError, KeySource, Problem, TokenIssuer, TokenIssuers};

/// Time between two fetches of the keys of one issuer, where tokens with unknown keys ask for another.
const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// Tokens begin so: the encoded `{"`.
const BEGINNING: &str = "eyJ";

/// Limits of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenLimits {
    /// Bytes of a token.
    pub(crate) bytes_max: usize,
    /// Scopes, tags and rules of a token, each.
    pub(crate) scopes_max: usize,
}

impl Default for TokenLimits {
    fn default() -> Self {
        TokenLimits { bytes_max: 16 * 1024, scopes_max: 200 }
    }
}

/// The issuers whose tokens are accepted; cheap to clone.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<Inner>);

struct Inner {
    clock: Clock,
    limits: TokenLimits,
    issuers: RwLock<Vec<Arc<Issuer>>>,
    /// The issuers changed, or a token has an unknown key.
    wanted: Notify,
}

struct Issuer {
    settings: TokenIssuer,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// None before the first fetch.
    keys: Option<Arc<Keys>>,
    fetched: Option<Instant>,
    /// A token has a key that is not among them.
    is_wanted: bool,
}

impl Tokens {
    /// No issuers yet.
    pub(crate) fn new(limits: TokenLimits, clock: Clock) -> Tokens {
        verifier::install();
        Tokens(Arc::new(Inner { clock, limits, issuers: RwLock::default(), wanted: Notify::new() }))
    }

    /// Replaces the issuers. One that is as before keeps its keys.
    pub(crate) fn set(&self, issuers: &TokenIssuers) {
        let before = self.0.issuers.read().clone();
        let issuers = issuers.0.iter().map(|settings| {
            let known = before.iter().find(|issuer| issuer.settings == *settings);
            known.cloned().unwrap_or_else(|| Arc::new(Issuer::new(settings.clone())))
        });
        // Files are read before the lock is taken.
        let issuers = issuers.collect();
        *self.0.issuers.write() = issuers;
        self.0.wanted.notify_one();
    }

    /// Whether there is an issuer.
    pub(crate) fn has_issuers(&self) -> bool {
        !self.0.issuers.read().is_empty()
    }

    /// Whether a password is meant as a token.
    pub(crate) fn is_token(&self, password: &[u8]) -> bool {
        self.has_issuers()
            && password.starts_with(BEGINNING.as_bytes())
            && password.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// The client that a token stands for. The issuers that it may be of are asked, by its algorithm and by the issuer that
    /// it names.
    pub(crate) fn check(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > self.0.limits.bytes_max {
            return Err(AuthError::Token("it is too long (logins.token_bytes_max)"));
        }
        let header = decode_header(token).map_err(|_| AuthError::Token("it is not a JSON Web Token"))?;
        let named = claims::unverified_issuer(token);
        let issuers = self.0.issuers.read().clone();
        let (now_ms, max) = (self.0.clock.now_ms(), ScopesMax(self.0.limits.scopes_max));
        let mut rejections = Vec::new();
        let mut refusal = AuthError::Token("its algorithm is not allowed");
        for issuer in issuers.iter().filter(|issuer| issuer.settings.algorithms.contains(&header.alg)) {
            if issuer.settings.issuer.is_some() && issuer.settings.issuer != named {
                refusal = AuthError::Token("it is of another issuer");
                continue;
            }
            match issuer.check(token, &header, now_ms, max) {
                Ok(identity) => return Ok(identity),
                Err(rejection) => {
                    if matches!(rejection, Rejection::UnknownKey) {
                        self.want(issuer);
                    }
                    rejections.push(rejection);
                }
            }
        }
        Err(rejections.into_iter().max_by_key(Rejection::weight).map_or(refusal, Rejection::error))
    }

    /// Has the keys fetched again because one is missing, if the last fetch is not too near.
    fn want(&self, issuer: &Issuer) {
        let now = self.0.clock.now();
        let mut state = issuer.state.write();
        if !state.is_wanted && state.fetched.is_none_or(|at| now >= at + FETCH_INTERVAL_MIN) {
            state.is_wanted = true;
            drop(state);
            self.0.wanted.notify_one();
        }
    }

    /// Keeps the keys of all issuers fresh until shutdown is requested.
    pub(crate) async fn refresh(self, shutdown: CancellationToken) {
        loop {
            let issuers = self.0.issuers.read().clone();
            let now = self.0.clock.now();
            let due = issuers.iter().filter(|issuer| issuer.due().is_none_or(|due| due <= now));
            // All at once, so that one that does not answer holds up no other.
            tokio::select! {
                _ = join_all(due.map(|issuer| issuer.fetch(&self.0.clock))) => {}
                () = shutdown.cancelled() => return,
            }
            let next = issuers.iter().filter_map(|issuer| issuer.due()).min();
            let sleep = async {
                match next {
                    Some(next) => self.0.clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.0.wanted.notified() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

/// Why an issuer does not vouch for a token.
enum Rejection {
    /// None of its keys has the token's key id and algorithm.
    UnknownKey,
    /// None of its keys made the signature.
    Signature(AuthError),
    /// The signature is right, and what the token claims is not.
    Claims(AuthError),
    /// Its keys are not there yet.
    NoKeys,
}

impl Rejection {
    /// Of several the one that says most is told: that the client may try again, then what a right signature covers.
    fn weight(&self) -> u8 {
        match self {
            Rejection::UnknownKey => 0,
            Rejection::Signature(_) => 1,
            Rejection::Claims(_) => 2,
            Rejection::NoKeys => 3,
        }
    }

    fn error(self) -> AuthError {
        match self {
            Rejection::UnknownKey => AuthError::Token("its key is unknown"),
            Rejection::Signature(error) | Rejection::Claims(error) => error,
            Rejection::NoKeys => AuthError::Busy,
        }
    }
}

impl Issuer {
    /// An issuer; keys in files are there at once.
    fn new(settings: TokenIssuer) -> Issuer {
        let keys = match read(&settings.source) {
            Some(Ok(keys)) => Some(Arc::new(keys)),
            Some(Err(error)) => {
                warn!(keys = shown(&settings.source), "failed to read the keys of tokens: {error:#}");
                None
            }
            None => None,
        };
        Issuer { settings, state: RwLock::new(State { keys, ..State::default() }) }
    }

    /// The client that a token of it stands for.
    fn check(
        &self,
        token: &str,
        header: &Header,
        now_ms: i64,
        max: ScopesMax,
    ) -> Result<Identity, Rejection> {
        let keys = self.state.read().keys.clone().ok_or(Rejection::NoKeys)?;
        let mut validation = Validation::new(header.alg);
        // Times are checked by the broker's clock, and the rest beside them.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let mut rejection = Rejection::UnknownKey;
        for key in keys.find(header.kid.as_deref(), header.alg) {
            match decode::<Claims>(token, key, &validation) {
                Ok(decoded) => {
                    let identity = claims::identity(&decoded.claims, &self.settings, now_ms, max);
                    return identity.map_err(Rejection::Claims);
                }
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    rejection = Rejection::Signature(AuthError::Refused);
                }
                Err(_) => {
                    rejection = Rejection::Signature(AuthError::Token("it is not a valid JSON Web Token"));
                }
            }
        }
        Err(rejection)
    }

    /// When the keys are fetched next; none: now.
    fn due(&self) -> Option<Instant> {
        let state = self.state.read();
        let fetched = state.fetched?;
        let interval = match state.is_wanted || state.keys.is_none() {
            true => FETCH_INTERVAL_MIN,
            false => Duration::from_secs(self.settings.refresh_s),
        };
        Some(fetched + interval)
    }

    async fn fetch(&self, clock: &Clock) {
        let fetched = match &self.settings.source {
            KeySource::Url(url) => {
                fetch::get(url, self.settings.ca.as_deref()).await.and_then(|set| Keys::parse(&set))
            }
            file => {
                let file = file.clone();
                match tokio::task::spawn_blocking(move || read(&file)).await {
                    Ok(Some(keys)) => keys,
                    _ => return,
                }
            }
        };
        let place = shown(&self.settings.source);
        let mut state = self.state.write();
        state.fetched = Some(clock.now());
        state.is_wanted = false;
        match fetched {
            Ok(keys) => {
                if state.keys.is_none() {
                    info!(keys = place, count = keys.len(), "keys of tokens loaded");
                }
                state.keys = Some(Arc::new(keys));
            }
            Err(error) => {
                let kept = state.keys.as_ref().map_or(0, |keys| keys.len());
                warn!(keys = place, kept, "failed to load the keys of tokens: {error:#}");
            }
        }
    }
}

/// The place of keys, as log lines name it.
fn shown(source: &KeySource) -> String {
    match source {
        KeySource::File(path) | KeySource::Secret(path) => path.display().to_string(),
        KeySource::Url(url) => url.clone(),
    }
}

/// Keys in a file; none where they are elsewhere.
fn read(source: &KeySource) -> Option<anyhow::Result<Keys>> {
    match source {
        KeySource::File(path) => Some(read_file(path).and_then(|text| Keys::parse(&text))),
        KeySource::Secret(path) => Some(read_file(path).and_then(|text| Keys::of_secret(text.trim_ascii()))),
        KeySource::Url(_) => None,
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let max = fetch::SET_BYTES_MAX as u64;
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut text));
    if read.with_context(|| format!("failed to read {}", path.display()))? as u64 > max {
        anyhow::bail!("{} is longer than {max} bytes", path.display());
    }
    Ok(text)
}

/// Opens the key files: all problems, or warnings.
pub(crate) fn check(config: &Config) -> Result<Vec<Problem>, ConfigError> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for (at, issuer) in config.general.jwt.0.iter().enumerate() {
        let place = format!("jwt[{}]", at + 1);
        if let Some(Err(error)) = read(&issuer.source) {
            problems.push(Problem {
                place: place.clone(),
                what: format!("{}: {error:#}", shown(&issuer.source)),
            });
        }
        if let KeySource::Url(url) = &issuer.source
            && url.starts_with("http://")
        {
            let what = format!("the keys come from {url} without TLS: who is in between can make tokens");
            warnings.push(Problem { place: place.clone(), what });
        }
        if issuer.issuer.is_none() && issuer.audience.is_empty() {
            let what =
                "neither `issuer` nor `audience` is set: tokens for any other service are accepted too";
            warnings.push(Problem { place, what: what.into() });
        }
    }
    if problems.is_empty() { Ok(warnings) } else { Err(ConfigError(problems)) }
}

#[cfg(test)]
mod tests;
