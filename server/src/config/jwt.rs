//! Issuers of tokens: `[[jwt]]`.

use std::path::PathBuf;

use inver_settings::{Form, Setting};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::de::{Deserialize, Deserializer, Error};
use toml_edit::{Array, InlineTable, Value};

/// Issuers of the configuration.
const ISSUERS_MAX: usize = 32;
/// Seconds between two looks at an issuer's keys.
const REFRESH_S: std::ops::RangeInclusive<u64> = 1..=86_400;
/// Seconds by which clocks may differ.
const LEEWAY_S_MAX: u64 = 600;

/// The issuers whose tokens are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TokenIssuers(pub(crate) Vec<TokenIssuer>);

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// A file with a JSON Web Key Set.
    File(PathBuf),
    /// A URL of one.
    Url(String),
    /// A file with the secret that the issuer signs with.
    Secret(PathBuf),
}

/// One issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenIssuer {
    pub(crate) source: KeySource,
    /// Certificates by which the URL's server is verified; none: those of the system.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) refresh_s: u64,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) leeway_s: u64,
    pub(crate) user_claim: String,
    pub(crate) scope_claim: String,
    pub(crate) scope_prefix: String,
    pub(crate) tags_claim: Option<String>,
    pub(crate) acl_claim: Option<String>,
    pub(crate) namespace_claim: Option<String>,
    /// Tags of every client with a token of the issuer.
    pub(crate) tags: Vec<String>,
    /// The namespace of connections that name none, where the token has none.
    pub(crate) namespace: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    secret_file: Option<PathBuf>,
    jwks_ca: Option<PathBuf>,
    #[serde(default = "default_refresh")]
    refresh_s: u64,
    algorithms: Option<Vec<String>>,
    issuer: Option<String>,
    #[serde(default)]
    audience: OneOrMany,
    #[serde(default = "default_leeway")]
    leeway_s: u64,
    user_claim: Option<String>,
    scope_claim: Option<String>,
    #[serde(default)]
    scope_prefix: String,
    tags_claim: Option<String>,
    acl_claim: Option<String>,
    namespace_claim: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    namespace: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        OneOrMany::Many(Vec::new())
    }
}

fn default_refresh() -> u64 {
    300
}

fn default_leeway() -> u64 {
    30
}

impl TryFrom<Table> for TokenIssuer {
    type Error = String;

    fn try_from(table: Table) -> Result<TokenIssuer, String> {
        let source = match (table.jwks_file, table.jwks_url, table.secret_file) {
            (Some(path), None, None) => KeySource::File(path),
            (None, Some(url), None) => KeySource::Url(url),
            (None, None, Some(path)) => KeySource::Secret(path),
            _ => return Err("one of `jwks_file`, `jwks_url` and `secret_file` is needed".into()),
        };
        if let KeySource::Url(url) = &source {
            crate::http_client::check_url(url)?;
        }
        let is_secret = matches!(source, KeySource::Secret(_));
        let default = if is_secret { "HS256" } else { "RS256" };
        let names = table.algorithms.unwrap_or_else(|| vec![default.to_owned()]);
        let algorithms: Result<Vec<Algorithm>, String> = names
            .iter()
            .map(|name| {
                name.parse().map_err(|_| format!("`{name}` is no algorithm of signatures that is known"))
            })
            .collect();
        let algorithms = algorithms?;
        if algorithms.is_empty() {
            return Err("`algorithms` is empty".into());
        }
        // A public key must never be usable as a secret.
        if let Some(other) =
            algorithms.iter().find(|one| (one.family() == AlgorithmFamily::Hmac) != is_secret)
        {
            let needs = if is_secret { "`jwks_file` or `jwks_url`" } else { "`secret_file`" };
            return Err(format!("{other:?} needs {needs}"));
        }
        if !REFRESH_S.contains(&table.refresh_s) {
            return Err(format!("`refresh_s` is from {} to {}", REFRESH_S.start(), REFRESH_S.end()));
        }
        if table.leeway_s > LEEWAY_S_MAX {
            return Err(format!("`leeway_s` is at most {LEEWAY_S_MAX}"));
        }
        Ok(TokenIssuer {
            source,
            ca: table.jwks_ca,
            refresh_s: table.refresh_s,
            algorithms,
            issuer: table.issuer,
            audience: match table.audience {
                OneOrMany::One(one) => vec![one],
                OneOrMany::Many(many) => many,
            },
            leeway_s: table.leeway_s,
            user_claim: table.user_claim.unwrap_or_else(|| "sub".into()),
            scope_claim: table.scope_claim.unwrap_or_else(|| "scope".into()),
            scope_prefix: table.scope_prefix,
            tags_claim: table.tags_claim,
            acl_claim: table.acl_claim,
            namespace_claim: table.namespace_claim,
            tags: table.tags,
            namespace: table.namespace,
        })
    }
}

impl Setting for TokenIssuers {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let tables = Vec::<Table>::deserialize(value)?;
        if tables.len() > ISSUERS_MAX {
            return Err(D::Error::custom(format_args!("there are at most {ISSUERS_MAX} issuers")));
        }
        let issuers = tables.into_iter().enumerate().map(|(at, table)| {
            TokenIssuer::try_from(table)
                .map_err(|error| D::Error::custom(format_args!("issuer {}: {error}", at + 1)))
        });
        issuers.collect::<Result<_, _>>().map(TokenIssuers)
    }

    fn show(&self) -> String {
        self.0.iter().map(TokenIssuer::show).collect::<Array>().to_string()
    }
}

impl TokenIssuer {
    fn show(&self) -> Value {
        let mut table = InlineTable::new();
        let (key, place) = match &self.source {
            KeySource::File(path) => ("jwks_file", path.display().to_string()),
            KeySource::Url(url) => ("jwks_url", url.clone()),
            KeySource::Secret(path) => ("secret_file", path.display().to_string()),
        };
        table.insert(key, place.into());
        let number = |value: u64| Value::from(i64::try_from(value).unwrap_or(i64::MAX));
        let list = |texts: &[String]| Value::from(texts.iter().collect::<Array>());
        table.insert("refresh_s", number(self.refresh_s));
        let algorithms = self.algorithms.iter().map(|algorithm| format!("{algorithm:?}"));
        table.insert("algorithms", algorithms.collect::<Array>().into());
        let ca = self.ca.as_ref().map(|path| path.display().to_string());
        let texts = [
            ("jwks_ca", ca.as_ref()),
            ("issuer", self.issuer.as_ref()),
            ("tags_claim", self.tags_claim.as_ref()),
            ("acl_claim", self.acl_claim.as_ref()),
            ("namespace_claim", self.namespace_claim.as_ref()),
            ("namespace", self.namespace.as_ref()),
            ("user_claim", Some(&self.user_claim)),
            ("scope_claim", Some(&self.scope_claim)),
            ("scope_prefix", Some(&self.scope_prefix)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                table.insert(name, text.into());
            }
        }
        table.insert("audience", list(&self.audience));
        table.insert("leeway_s", number(self.leeway_s));
        table.insert("tags", list(&self.tags));
        table.into()
    }
}
