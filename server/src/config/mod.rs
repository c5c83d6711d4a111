//! The configuration: one file in TOML, every key also as an environment variable.
//!
//! [`keys::KEYS`] is the one table of what exists; file, environment and `inver config check` are driven by
//! it, so a key cannot be known to one of them alone. The environment wins over the file, the file over the
//! defaults. All that is wrong is reported at once, not one problem a start.
//!
//! What it deliberately lacks: reloading, includes, and any reading of the process environment of its own —
//! variables are handed in, so that tests need no global state.

pub(crate) mod keys;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inver_broker::Limits;
use inver_storage::LogOptions;
use toml_edit::{Document, Item};
use tracing_subscriber::filter::Targets;

use crate::protocols::PLUGS;
use keys::{KEYS, Key};
use value::Value;

/// The start of each environment variable's name.
pub(crate) const ENVIRONMENT_PREFIX: &str = "INVER_";

/// When an acknowledged write is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    /// Synced before it is acknowledged.
    Always,
    /// Synced every `log.commit_interval_ms`.
    Interval,
    /// Left to the operating system.
    Os,
}

/// How connections are spread over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuntimeKind {
    /// One single-threaded runtime a core, each connection pinned to one.
    PerCore,
    /// One work-stealing runtime; kept for comparison.
    MultiThread,
}

/// An address to listen on, or `off`.
pub(crate) type Listen = Option<SocketAddr>;

/// Listeners and certificate of one protocol.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoint {
    /// Plain TCP.
    pub(crate) listen: Listen,
    /// TLS over TCP; used only when a certificate is configured.
    pub(crate) tls_listen: Listen,
    /// Certificate chain, PEM.
    pub(crate) tls_cert: Option<PathBuf>,
    /// WebSocket over TCP; for protocols that have a WebSocket form.
    pub(crate) websocket_listen: Listen,
    /// WebSocket over TLS.
    pub(crate) websocket_tls_listen: Listen,
    /// Private key, PEM.
    pub(crate) tls_key: Option<PathBuf>,
}

/// Which hub publishes are appended to which log topic; the first matching rule wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaptureRule {
    /// Only what was published over this protocol; over every one if none.
    pub(crate) protocol: Option<String>,
    /// Topic filter with `+` and `#`.
    pub(crate) filter: String,
    /// Template of the log topic's name.
    pub(crate) topic: String,
    /// Template of the record's key.
    pub(crate) key: String,
}

/// Everything that `inver serve` needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) log_commit: Commit,
    pub(crate) log_commit_interval: Duration,
    pub(crate) log_segment_bytes_max: u64,
    pub(crate) log_tail_cache_bytes_max: u64,
    pub(crate) log_direct_bytes_max: u64,
    /// The log's other bounds.
    pub(crate) log: LogOptions,
    /// One a plug, in the order of the list of plugs.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The plugs' own settings by their dotted name; checked when they were read.
    pub(crate) settings: BTreeMap<String, Value>,
    pub(crate) http_listen: Listen,
    pub(crate) users: BTreeMap<String, String>,
    pub(crate) capture_rules: Vec<CaptureRule>,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
    pub(crate) message_bytes_max: usize,
    /// How much of everything a namespace can have.
    pub(crate) limits: Limits,
    pub(crate) inbox_messages_max: u64,
    pub(crate) queue_memory_bytes_max: u64,
    /// 0: for ever.
    pub(crate) subscription_idle_s: u64,
    pub(crate) handshake_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) runtime_kind: RuntimeKind,
    pub(crate) runtime_threads: usize,
    pub(crate) log_filter: Targets,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `inver.toml:12` or the environment variable's name.
    pub(crate) place: String,
    /// What is wrong and what would be right.
    pub(crate) what: String,
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not right:")?;
        for problem in &self.0 {
            write!(f, "\n  {}: {}", problem.place, problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// A plug's own setting.
    pub(crate) fn setting(&self, name: &str) -> Result<&Value, String> {
        self.settings.get(name).ok_or_else(|| format!("there is no setting `{name}`"))
    }
}

/// A configuration and what is doubtful in it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration, whole.
    pub(crate) config: Config,
    /// Not wrong enough to refuse the start.
    pub(crate) warnings: Vec<Problem>,
}

/// Reads defaults, then `file`, then the variables in `environment` that start with [`ENVIRONMENT_PREFIX`].
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let mut loading =
        Loading { config: defaults(), problems: Vec::new(), warnings: Vec::new(), set: Vec::new() };
    if let Some(path) = file {
        loading.read_file(path);
    }
    loading.read_environment(environment);
    loading.check_whole();
    if loading.problems.is_empty() {
        Ok(Loaded { config: loading.config, warnings: loading.warnings })
    } else {
        Err(ConfigError(loading.problems))
    }
}

/// The configuration that holds where nothing is said.
pub(crate) fn defaults() -> Config {
    let mut config = Config {
        data_dir: PathBuf::new(),
        log_commit: Commit::Always,
        log_commit_interval: Duration::ZERO,
        log_segment_bytes_max: 0,
        log_tail_cache_bytes_max: 0,
        log_direct_bytes_max: 0,
        log: LogOptions::default(),
        endpoints: vec![Endpoint::default(); PLUGS.len()],
        settings: BTreeMap::new(),
        http_listen: None,
        users: BTreeMap::new(),
        capture_rules: Vec::new(),
        connections_max: 0,
        connections_per_address_max: 0,
        message_bytes_max: 0,
        limits: Limits::default(),
        inbox_messages_max: 0,
        queue_memory_bytes_max: 0,
        subscription_idle_s: 0,
        handshake_timeout: Duration::ZERO,
        shutdown_grace: Duration::ZERO,
        runtime_kind: RuntimeKind::PerCore,
        runtime_threads: 0,
        log_filter: Targets::new(),
    };
    for key in KEYS.iter() {
        let applied = key.read(&key.default).and_then(|value| key.set(&mut config, &value));
        debug_assert!(applied.is_ok(), "the default of {} does not parse: {applied:?}", key.name);
    }
    config
}

struct Loading {
    config: Config,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Keys that someone set, for checks on the whole.
    set: Vec<&'static str>,
}

impl Loading {
    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.wrong(shown, format!("cannot be read: {error}")),
        };
        match Document::parse(text.as_str()) {
            Ok(document) => {
                let place = |item: &Item, name_at: Option<usize>| {
                    let at = name_at.or_else(|| item.span().map(|span| span.start)).unwrap_or(0);
                    format!("{shown}:{}", line_of(&text, at))
                };
                self.read_table(document.as_item(), "", &place);
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                self.wrong(format!("{shown}:{line}"), error.message().trim().to_string());
            }
        }
    }

    fn read_table(&mut self, item: &Item, prefix: &str, place: &dyn Fn(&Item, Option<usize>) -> String) {
        let Some(table) = item.as_table_like() else { return };
        for (name, child) in table.iter() {
            let full = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            let name_at = table.key(name).and_then(|key| key.span()).map(|span| span.start);
            let here = place(child, name_at);
            if let Some(key) = keys::find(&full) {
                match Value::from_item(child).and_then(|value| key.set(&mut self.config, &value)) {
                    Ok(()) => self.set.push(&key.name),
                    Err(what) => self.wrong(here, format!("{full}: {what}")),
                }
            } else if keys::is_section(&full) && child.is_table_like() {
                self.read_table(child, &full, place);
            } else if keys::is_section(&full) {
                self.wrong(here, format!("`{full}` is a section: write `[{full}]` and its keys below it"));
            } else {
                let nearest = keys::nearest(&full);
                self.wrong(here, format!("there is no key `{full}`; the nearest is `{nearest}`"));
            }
        }
    }

    fn read_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut variables: Vec<_> =
            environment.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
        variables.sort();
        for (name, text) in variables {
            match keys::find_variable(&name) {
                Some(key) => self.apply_variable(key, name, &text),
                // Not an error: container platforms set variables of their own under a service's name.
                None => {
                    let nearest = keys::nearest_variable(&name);
                    let what = format!("no key is set by this variable; the nearest is `{nearest}`");
                    self.warnings.push(Problem { place: name, what });
                }
            }
        }
    }

    fn apply_variable(&mut self, key: &'static Key, name: String, text: &str) {
        match key.read(text).and_then(|value| key.set(&mut self.config, &value)) {
            Ok(()) => self.set.push(&key.name),
            Err(what) => self.wrong(name, what),
        }
    }

    /// What can only be judged with all keys read.
    fn check_whole(&mut self) {
        for (plug, endpoint) in PLUGS.iter().zip(&self.config.endpoints) {
            let name = plug.name;
            let asked = |key: &str| self.set.contains(&format!("{name}.{key}").as_str());
            let what = match (endpoint.tls_cert.is_some(), endpoint.tls_key.is_some()) {
                (true, false) => format!("{name}.tls_cert is set and {name}.tls_key is not: both are needed"),
                (false, true) => format!("{name}.tls_key is set and {name}.tls_cert is not: both are needed"),
                (false, false) if asked("tls_listen") && endpoint.tls_listen.is_some() => {
                    format!("{name}.tls_listen needs {name}.tls_cert and {name}.tls_key")
                }
                (false, false) if endpoint.websocket_tls_listen.is_some() => {
                    format!("{name}.websocket_tls_listen needs {name}.tls_cert and {name}.tls_key")
                }
                _ => continue,
            };
            self.problems.push(Problem { place: format!("[{name}]"), what });
        }
    }

    fn wrong(&mut self, place: String, what: String) {
        self.problems.push(Problem { place, what });
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
