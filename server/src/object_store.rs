//! The object store that the configuration names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use inver_store::{Credentials, Folder, S3, S3Options, Store};

use crate::config::StoreSection;
use crate::http_client;

/// Opens the store, without a request to it; none if the configuration has none. `variable` gives the value of an environment
/// variable.
pub(crate) fn open(
    section: &StoreSection,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<Arc<dyn Store>>> {
    match (section.bucket.as_str(), section.folder.as_deref()) {
        ("", None) => Ok(None),
        ("", Some(folder)) => Ok(Some(Arc::new(self::folder(folder)?))),
        (_, None) => Ok(Some(Arc::new(bucket(section, variable)?))),
        (_, Some(_)) => bail!("`store.bucket` and `store.folder` are both set: a store is one of them"),
    }
}

/// Checks what the configuration says about the store, and makes nothing.
pub(crate) fn check(section: &StoreSection, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    if section.bucket.is_empty() { Ok(()) } else { open(section, variable).map(|_| ()) }
}

fn bucket(section: &StoreSection, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<S3> {
    Ok(S3::new(options(section, variable)?)?)
}

fn folder(path: &Path) -> anyhow::Result<Folder> {
    Folder::open(path).with_context(|| format!("store.folder: failed to open {}", path.display()))
}

fn options(section: &StoreSection, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<S3Options> {
    let endpoint = Some(section.endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    let needs_tls = match &endpoint {
        None => true,
        Some(endpoint) => {
            let uri =
                http_client::check_url(endpoint).map_err(|why| anyhow::anyhow!("store.endpoint: {why}"))?;
            http_client::is_tls(&uri)
        }
    };
    let tls = needs_tls.then(|| http_client::tls(section.ca.as_deref())).transpose().context("store.ca")?;
    Ok(S3Options {
        bucket: section.bucket.clone(),
        endpoint,
        region: section.region.clone(),
        prefix: section.prefix.trim_end_matches('/').to_owned(),
        path_style: section.path_style,
        credentials: credentials(section, variable)?,
        timeout: section.timeout,
        connect_timeout: section.connect_timeout,
        tls,
    })
}

/// Those of the configuration, or those of the environment; never some of each.
fn credentials(
    section: &StoreSection,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Credentials> {
    let [id, secret, token] = if section.access_key_id.is_empty() {
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
            .map(|name| variable(name).unwrap_or_default())
    } else {
        [&section.access_key_id, &section.secret_access_key, &section.session_token].map(Clone::clone)
    };
    if id.is_empty() || secret.is_empty() {
        bail!(
            "there are no credentials for the store: set `store.access_key_id` and `store.secret_access_key` (or \
             `store.secret_access_key_file`), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        );
    }
    let session_token = Some(token).filter(|token| !token.is_empty());
    Ok(Credentials { access_key_id: id, secret_access_key: secret, session_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(section: &StoreSection) -> String {
        format!("{:#}", open(section, |_| None).err().unwrap())
    }

    fn bucket() -> StoreSection {
        StoreSection { bucket: "b".into(), endpoint: "http://127.0.0.1:1".into(), ..StoreSection::default() }
    }

    #[test]
    fn there_is_no_store_by_default() {
        assert!(open(&StoreSection::default(), |_| None).unwrap().is_none());
    }

    #[test]
    fn credentials_are_those_of_the_configuration_or_of_the_environment() {
        let environment = |name: &str| Some(format!("{name}'s"));
        let section = StoreSection { access_key_id: "id".into(), ..bucket() };
        assert!(credentials(&section, environment).is_err(), "a secret of the environment is another key's");
        let section = StoreSection { secret_access_key: "secret".into(), ..section };
        let own = credentials(&section, environment).unwrap();
        assert_eq!((own.secret_access_key.as_str(), own.session_token), ("secret", None));
        let other = credentials(&bucket(), environment).unwrap();
        assert_eq!(other.access_key_id, "AWS_ACCESS_KEY_ID's");
        assert_eq!(other.session_token.as_deref(), Some("AWS_SESSION_TOKEN's"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error(&bucket()).contains("store.access_key_id"));
        assert!(error(&StoreSection { endpoint: "127.0.0.1".into(), ..bucket() }).contains("store.endpoint"));
        assert!(error(&StoreSection { folder: Some("x".into()), ..bucket() }).contains("store.folder"));
        let keys = ("id".to_owned(), "secret".to_owned());
        let section = StoreSection { access_key_id: keys.0, secret_access_key: keys.1, ..bucket() };
        assert!(error(&StoreSection { prefix: "/a b".into(), ..section }).contains("`/a b"));
    }
}
