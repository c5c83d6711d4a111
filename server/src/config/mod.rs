//! The configuration: one TOML file; every key is also an environment variable.
//!
//! Owns loading: defaults, then the file, then the environment, each winning over the one before. The keys are the
//! fields of the sections in [`sections`] and of the protocols' own sections, each declared once
//! ([`inver_settings::section!`]). All problems are reported at once, with their line and, for an unknown key, the
//! nearest one.
//!
//! It does not own reloading or includes, and reads no process environment itself: variables are handed in.

pub(crate) mod acl_file;
mod entries;
mod jwt;
mod listeners;
mod namespaces;
pub(crate) mod page;
mod permissions;
mod quotas;
pub(crate) mod sections;
mod store;
pub(crate) mod users;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use inver_access::{Rule, User};
use inver_broker::AuditConfig;
use inver_settings::{Form, Key, MESSAGE_BYTES_MAX, excerpt};
use parking_lot::Mutex;
use toml_edit::{Document, DocumentMut, Item};

use crate::protocols::{PROTOCOLS, ProtocolEntry, ProtocolSettings};
use crate::settings::{Input, Settings};
pub(crate) use entries::{HTTP, ListenerEntry, PROMETHEUS};
pub(crate) use jwt::{KeySource, TokenIssuer, TokenIssuers};
pub(crate) use listeners::{
    Address, AnonymousRule, CertificateUser, ClientAuth, ListenerKeys, Networks, TlsVersion, WebSocketPath,
};
pub(crate) use sections::Tracing;
use sections::{
    AuditSection, Capture, Endpoint, General, Http, Hub, Limits, Log, Logging, Logins, MemorySection,
    Runtime, Tls, WebSocketEndpoint,
};
pub(crate) use store::StoreSection;
pub(crate) use values::{Listen, LogFilter, LogFormat, RuntimeKind};

/// Prefix of every environment variable.
pub(crate) const ENVIRONMENT_PREFIX: &str = "INVER_";
/// What follows a key's name where its value is the path of a file that holds the value.
const FILE_SUFFIX: &str = "_file";
/// Bytes of the largest file that holds a value.
const VALUE_FILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a name for which the nearest key is looked for.
const COMPARED_BYTES_MAX: usize = 128;

/// Everything that `inver serve` needs to know.
pub(crate) struct Config {
    pub(crate) general: General,
    pub(crate) log: Log,
    /// One per protocol, in the order of [`PROTOCOLS`].
    pub(crate) protocols: Vec<ProtocolConfig>,
    /// The HTTP listeners of short keys.
    pub(crate) http_endpoint: Endpoint,
    pub(crate) http: Http,
    pub(crate) hub: Hub,
    pub(crate) tls: Tls,
    pub(crate) capture: Capture,
    pub(crate) limits: Limits,
    pub(crate) logins: Logins,
    pub(crate) runtime: Runtime,
    pub(crate) logging: Logging,
    pub(crate) tracing: Tracing,
    pub(crate) audit: AuditSection,
    pub(crate) memory: MemorySection,
    pub(crate) store: StoreSection,
}

/// The section of one protocol.
pub(crate) struct ProtocolConfig {
    pub(crate) entry: &'static ProtocolEntry,
    pub(crate) endpoint: Endpoint,
    pub(crate) websocket: Option<WebSocketEndpoint>,
    pub(crate) settings: Box<dyn ProtocolSettings>,
}

impl Default for Config {
    fn default() -> Config {
        let protocols = PROTOCOLS.iter().map(|entry| ProtocolConfig {
            entry,
            endpoint: Endpoint::of(entry),
            websocket: entry.websocket.as_ref().map(WebSocketEndpoint::of),
            settings: (entry.settings)(),
        });
        Config {
            general: General::default(),
            log: Log::default(),
            protocols: protocols.collect(),
            http_endpoint: Endpoint::of_http(),
            http: Http::default(),
            hub: Hub::default(),
            tls: Tls::default(),
            capture: Capture::default(),
            limits: Limits::default(),
            logins: Logins::default(),
            runtime: Runtime::default(),
            logging: Logging::default(),
            tracing: Tracing::default(),
            audit: AuditSection::default(),
            memory: MemorySection::default(),
            store: StoreSection::default(),
        }
    }
}

impl Config {
    /// Users and permission rules of the configuration and of the files that it names.
    pub(crate) fn access(&self) -> anyhow::Result<(Vec<User>, Vec<Rule>)> {
        let (users, mut rules) = self.general.access()?;
        for protocol in &self.protocols {
            rules.extend(protocol.settings.rules()?);
        }
        Ok((users, rules))
    }

    /// Partitions of a log topic that the broker creates without a number of partitions.
    pub(crate) fn default_partitions(&self) -> u32 {
        self.protocols.iter().find_map(|protocol| protocol.settings.default_partitions()).unwrap_or(1)
    }

    /// Every key's dotted name with its value, spelled as in a variable.
    pub(crate) fn values(&mut self) -> Vec<(String, String)> {
        let sections = self.sections().into_iter();
        let values = sections.flat_map(|(section, settings)| {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            settings.keys().into_iter().map(move |key| (format!("{prefix}{}", key.name), key.default))
        });
        values.collect()
    }

    /// The topics of capture rules that name a topic and not a template, with their partitions. They are created at once,
    /// so that a consumer can subscribe before anything is published.
    pub(crate) fn capture_topics(&self) -> Vec<(String, u32)> {
        let partitions = self.default_partitions();
        let rules = self.capture.rules.0.iter();
        let names: BTreeSet<&String> =
            rules.map(|rule| &rule.topic).filter(|topic| !topic.contains('{')).collect();
        names.into_iter().map(|topic| (topic.clone(), partitions)).collect()
    }

    /// What is recorded for auditors.
    pub(crate) fn audit(&self) -> AuditConfig {
        AuditConfig {
            kinds: self.audit.events.0,
            topic: Some(self.audit.topic.clone()).filter(|topic| !topic.is_empty()),
            namespace: self.audit.namespace.clone(),
            queue_events_max: self.audit.queue_events_max,
            events_waiting_max: self.limits.events_waiting_max,
            limits: self.logging.client_lines(),
        }
    }

    /// Every section with its name, in the order of the documentation. Keys at the top of the file have no section.
    fn sections(&mut self) -> Vec<(&'static str, &mut dyn Settings)> {
        let mut sections: Vec<(&'static str, &mut dyn Settings)> =
            vec![("", &mut self.general), ("log", &mut self.log)];
        for protocol in &mut self.protocols {
            let name = protocol.entry.name;
            sections.push((name, &mut protocol.endpoint));
            if let Some(websocket) = &mut protocol.websocket {
                sections.push((name, websocket));
            }
            sections.push((name, protocol.settings.as_mut()));
        }
        sections.push(("http", &mut self.http_endpoint));
        sections.push(("http", &mut self.http));
        sections.push(("hub", &mut self.hub));
        sections.push(("tls", &mut self.tls));
        sections.push(("capture", &mut self.capture));
        sections.push(("limits", &mut self.limits));
        sections.push(("logins", &mut self.logins));
        sections.push(("runtime", &mut self.runtime));
        sections.push(("logging", &mut self.logging));
        sections.push(("tracing", &mut self.tracing));
        sections.push(("audit", &mut self.audit));
        sections.push(("memory", &mut self.memory));
        sections.push(("store", &mut self.store));
        sections
    }
}

/// A key and the section that it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct SectionKey {
    /// Empty for keys at the top of the file.
    pub(crate) section: &'static str,
    pub(crate) key: Key,
    /// Index of its struct among [`Config::sections`].
    at: usize,
}

impl SectionKey {
    /// Its dotted name, as in the file.
    pub(crate) fn name(&self) -> String {
        if self.section.is_empty() {
            self.key.name.clone()
        } else {
            format!("{}.{}", self.section, self.key.name)
        }
    }

    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        variable(&self.name())
    }

    /// Whether its value holds secrets.
    fn is_secret(&self) -> bool {
        SECRET.contains(&self.name().as_str())
    }

    /// A value from a variable's text.
    fn input(&self, text: &str) -> Result<Input, String> {
        if self.key.form != Form::Structured {
            return Ok(Input::Text(text.to_string()));
        }
        // The text may be secret: it is not shown.
        toml_value(text).map(Input::Toml).map_err(|reason| format!("not a TOML value: {reason}"))
    }

    /// A value from a file that holds it alone, such as a container's secret. A table may be written as lines.
    fn file_input(&self, path: &Path) -> Result<Input, String> {
        let shown = path.display();
        let failed = |error: io::Error| match self.is_secret() && !path.is_absolute() {
            // The secret may be in the place of the path.
            true => format!("failed to read the file: {error}"),
            false => format!("failed to read {shown}: {error}"),
        };
        let text = read_value(path).map_err(failed)?;
        if self.key.form != Form::Structured {
            return Ok(Input::Text(text.trim_end_matches(['\r', '\n']).to_string()));
        }
        let table = || text.parse::<DocumentMut>().ok().map(|document| document.as_item().clone());
        toml_value(text.trim())
            .ok()
            .or_else(table)
            .map(Input::Toml)
            .ok_or_else(|| format!("{shown} holds no TOML value"))
    }
}

/// Reads a value; the error does not repeat it.
fn toml_value(text: &str) -> Result<Item, String> {
    let parsed = format!("value = {text}").parse::<DocumentMut>();
    let mut document = parsed.map_err(|error| error.message().trim().to_owned())?;
    let value = document.remove("value").filter(|_| document.is_empty());
    value.ok_or_else(|| "there is more than one value".to_owned())
}

/// The text of a file that holds one value.
fn read_value(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(VALUE_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > VALUE_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {VALUE_FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// The environment variable of a dotted key.
pub(crate) fn variable(name: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", name.to_uppercase().replace('.', "_"))
}

/// Every key, with its default, in the order of the documentation.
pub(crate) fn keys() -> Vec<SectionKey> {
    let mut defaults = Config::default();
    let sections = defaults.sections().into_iter().enumerate();
    sections
        .flat_map(|(at, (section, settings))| {
            settings.keys().into_iter().map(move |key| SectionKey { section, key, at })
        })
        .collect()
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `inver.toml:12` or the environment variable's name.
    pub(crate) place: String,
    /// What is wrong and what would be right.
    pub(crate) what: String,
}

impl Problem {
    /// Names and values that it repeats are of any length, and it is not.
    fn new(place: &str, what: &str) -> Problem {
        let bounded = |text| excerpt(text, MESSAGE_BYTES_MAX).into_owned();
        Problem { place: bounded(place), what: bounded(what) }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid configuration:")?;
        for problem in &self.0 {
            write!(f, "\n  {}: {}", problem.place, problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A valid configuration and warnings about it.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Problems that do not prevent the start.
    pub(crate) warnings: Vec<Problem>,
    /// Where each key that was set was set last: the file and line, or the variable.
    pub(crate) sources: BTreeMap<String, String>,
}

/// A key with the value that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EffectiveKey {
    /// Its dotted name.
    pub(crate) name: String,
    /// The value, spelled as in a variable; secrets are masked.
    pub(crate) value: String,
    /// The value where none is given.
    pub(crate) default: String,
    /// The file and line, or the variable, that set it; none: it has its default.
    pub(crate) source: Option<String>,
}

/// The keys with the values that hold; a reload changes them.
pub(crate) type SharedKeys = Arc<Mutex<Vec<EffectiveKey>>>;

/// Keys whose values hold secrets.
const SECRET: [&str; 4] = ["users", "tracing.otlp_headers", "store.secret_access_key", "store.session_token"];

impl Config {
    /// Every key with the value that holds, in the order of the documentation.
    pub(crate) fn effective(&mut self, sources: &BTreeMap<String, String>) -> Vec<EffectiveKey> {
        let shown = self.sections().into_iter().flat_map(|(_, settings)| settings.keys());
        let shown: Vec<Key> = shown.collect();
        let with_value = keys().into_iter().zip(shown);
        let effective = with_value.map(|(key, shown)| {
            let name = key.name();
            let is_secret = key.is_secret() && shown.default != key.key.default;
            let value = if is_secret { "***".to_owned() } else { shown.default };
            let source = sources.get(&name).cloned();
            EffectiveKey { name, value, default: key.key.default, source }
        });
        effective.collect()
    }
}

/// Reads defaults, then `file`, then the variables in `environment` that start with [`ENVIRONMENT_PREFIX`].
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut loading = Loading {
        config: Config::default(),
        keys: keys(),
        problems: Vec::new(),
        warnings: Vec::new(),
        set: BTreeMap::new(),
    };
    if let Some(path) = file {
        loading.read_file(path);
    }
    loading.read_environment(environment);
    loading.drop_default_listeners();
    loading.check_whole();
    if loading.problems.is_empty() {
        Ok(Loaded { config: loading.config, warnings: loading.warnings, sources: loading.set })
    } else {
        Err(ConfigError(loading.problems))
    }
}

struct Loading {
    config: Config,
    keys: Vec<SectionKey>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Names of the keys that were set, with where.
    set: BTreeMap<String, String>,
}

impl Loading {
    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.problem(&shown, &format!("failed to read: {error}")),
        };
        match Document::parse(text.as_str()) {
            Ok(document) => {
                let place = |at: Option<usize>| format!("{shown}:{}", line_of(&text, at.unwrap_or(0)));
                self.read_table(document.as_item(), "", &place);
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                self.problem(&format!("{shown}:{line}"), error.message().trim());
            }
        }
    }

    fn read_table(&mut self, item: &Item, prefix: &str, place: &dyn Fn(Option<usize>) -> String) {
        let Some(table) = item.as_table_like() else { return };
        for (name, child) in table.iter() {
            let full = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            let name_at = table.key(name).and_then(|key| key.span()).or_else(|| child.span());
            let name_at = name_at.map(|span| span.start);
            if let Some(key) = self.keys.iter().find(|key| key.name() == full).cloned() {
                if let Err((message, at)) = self.set(&key, Input::Toml(child.clone()), place(name_at)) {
                    self.problem(&place(at.or(name_at)), &format!("{full}: {message}"));
                }
            } else if let Some(key) = self.file_key(&full) {
                let path = child.as_str().ok_or_else(|| "the path of a file is expected".to_string());
                let input = path.and_then(|path| key.file_input(Path::new(path)));
                let set = input
                    .and_then(|input| self.set(&key, input, place(name_at)).map_err(|(message, _)| message));
                if table.contains_key(&key.key.name) {
                    self.problem(&place(name_at), &format!("{full}: `{}` is set too", key.name()));
                } else if let Err(message) = set {
                    self.problem(&place(name_at), &format!("{full}: {message}"));
                }
            } else if !self.is_section(&full) {
                let nearest = self.nearest(&full);
                self.problem(&place(name_at), &format!("unknown key `{full}`; the nearest is `{nearest}`"));
            } else if child.is_table_like() {
                self.read_table(child, &full, place);
            } else {
                let what = format!("`{full}` is a section: write `[{full}]` and its keys below it");
                self.problem(&place(name_at), &what);
            }
        }
    }

    fn read_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut variables: Vec<_> =
            environment.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
        variables.sort();
        let names: Vec<String> = variables.iter().map(|(name, _)| name.clone()).collect();
        for (name, text) in variables {
            if let Some(key) = self.file_key(&name) {
                let input = key.file_input(Path::new(&text));
                let set = input
                    .and_then(|input| self.set(&key, input, name.clone()).map_err(|(message, _)| message));
                if names.contains(&key.variable()) {
                    self.problem(&name, &format!("{} is set too", key.variable()));
                } else if let Err(message) = set {
                    self.problem(&name, &message);
                }
                continue;
            }
            match self.keys.iter().find(|key| key.variable() == name).cloned() {
                Some(key) => {
                    let input = key.input(&text);
                    let place = name.clone();
                    let set =
                        input.and_then(|input| self.set(&key, input, place).map_err(|(message, _)| message));
                    if let Err(message) = set {
                        self.problem(&name, &message);
                    }
                }
                // Not an error: container platforms set variables of their own under a service's name.
                None => {
                    let what = format!("unknown variable; the nearest is `{}`", self.nearest_variable(&name));
                    self.warnings.push(Problem::new(&name, &what));
                }
            }
        }
    }

    /// The key whose value is in a file, by the dotted name or the variable that holds the file's path.
    fn file_key(&self, name: &str) -> Option<SectionKey> {
        let variable = FILE_SUFFIX.to_uppercase();
        self.keys
            .iter()
            .find(|key| {
                name.strip_suffix(FILE_SUFFIX).is_some_and(|stem| stem == key.name())
                    || name.strip_suffix(&variable).is_some_and(|stem| stem == key.variable())
            })
            .cloned()
    }

    /// A protocol with listeners in the list has no default ones beside them.
    fn drop_default_listeners(&mut self) {
        let Config { general, protocols, http_endpoint, .. } = &mut self.config;
        let is_default = |protocol: &str, key: &str| {
            general.listeners.0.iter().any(|entry| entry.protocol == protocol)
                && !self.set.contains_key(&format!("{protocol}.{key}"))
        };
        let drop = |protocol: &str, key: &str, listen: &mut Listen| {
            if is_default(protocol, key) {
                *listen = Listen::OFF;
            }
        };
        for protocol in protocols {
            let name = protocol.entry.name;
            drop(name, "listen", &mut protocol.endpoint.listen);
            drop(name, "tls_listen", &mut protocol.endpoint.tls_listen);
            if let Some(websocket) = &mut protocol.websocket {
                drop(name, "websocket_listen", &mut websocket.websocket_listen);
                drop(name, "websocket_tls_listen", &mut websocket.websocket_tls_listen);
            }
        }
        drop(HTTP, "listen", &mut http_endpoint.listen);
        drop(HTTP, "tls_listen", &mut http_endpoint.tls_listen);
    }

    /// Sets a key; the error says what is wrong and, where known, at which byte of the file.
    fn set(&mut self, key: &SectionKey, input: Input, place: String) -> Result<(), (String, Option<usize>)> {
        let mut sections = self.config.sections();
        let Some((_, section)) = sections.get_mut(key.at) else { return Ok(()) };
        if let Input::Toml(item) = &input
            && key.is_secret()
            && key.key.form == Form::Structured
            && !item.is_table_like()
        {
            // The error of another type repeats the value.
            return Err(("a table is expected".into(), None));
        }
        let set = section.set(&key.key.name, input);
        set.map_err(|error| (error.message, error.span.map(|span| span.start)))?;
        self.set.insert(key.name(), place);
        Ok(())
    }

    /// Checks that need several keys.
    fn check_whole(&mut self) {
        let protocols = self.config.protocols.iter().map(|protocol| {
            let websocket_tls = protocol.websocket.as_ref().and_then(|form| form.websocket_tls_listen.0);
            (protocol.entry.name, &protocol.endpoint, websocket_tls)
        });
        for (name, endpoint, websocket_tls) in protocols.chain([(HTTP, &self.config.http_endpoint, None)]) {
            let is_set = |key: &str| self.set.contains_key(&format!("{name}.{key}"));
            let what = match (&endpoint.tls_cert, &endpoint.tls_key) {
                (Some(_), None) => {
                    format!("{name}.tls_cert is set but {name}.tls_key is not: TLS needs both")
                }
                (None, Some(_)) => {
                    format!("{name}.tls_key is set but {name}.tls_cert is not: TLS needs both")
                }
                (None, None) if is_set("tls_listen") && endpoint.tls_listen.0.is_some() => {
                    format!("{name}.tls_listen needs {name}.tls_cert and {name}.tls_key")
                }
                (None, None) if websocket_tls.is_some() => {
                    format!("{name}.websocket_tls_listen needs {name}.tls_cert and {name}.tls_key")
                }
                _ => continue,
            };
            self.problems.push(Problem { place: format!("[{name}]"), what });
        }
        self.problems.extend(self.config.listener_problems());
    }

    fn is_section(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.section == name)
    }

    /// The key whose name is nearest to `name`.
    fn nearest(&self, name: &str) -> String {
        let name = compared(name);
        // A correct last part in the wrong section is a likelier mistake than several wrong letters.
        let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_string();
        let distance = |key: &String| {
            let whole = strsim::damerau_levenshtein(name, key);
            whole.min(strsim::damerau_levenshtein(&last(name), &last(key)) + 2)
        };
        self.keys.iter().map(SectionKey::name).min_by_key(distance).unwrap_or_default()
    }

    /// The variable whose name is nearest to `variable`.
    fn nearest_variable(&self, variable: &str) -> String {
        let variable = compared(variable);
        let distance = |key: &String| strsim::damerau_levenshtein(variable, key);
        self.keys.iter().map(SectionKey::variable).min_by_key(distance).unwrap_or_default()
    }

    fn problem(&mut self, place: &str, what: &str) {
        self.problems.push(Problem::new(place, what));
    }
}

/// As much of a name as is compared with others: that takes time in its length.
fn compared(name: &str) -> &str {
    name.get(..name.floor_char_boundary(COMPARED_BYTES_MAX)).unwrap_or_default()
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod tests;
