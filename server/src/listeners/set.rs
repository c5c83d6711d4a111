//! The listeners that run: bound at the start, changed by a reload.
//!
//! A reload is prepared first: files are read and new addresses bound, which can fail and then changes nothing. Applying
//! it cannot fail. Open connections stay as they were opened, whatever becomes of their listener.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use inver_broker::{Anonymous, ListenerInfo, ProtocolPlugin};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::admission::{Admission, ConnectionLimits};
use super::socket::{Socket, explain};
use super::tls::TlsFiles;
use super::{Service, Shared, describe, start, websocket};
use crate::config::{Address, AnonymousRule, Config, HTTP, ListenerEntry, PROMETHEUS, WebSocketPath};
use crate::http::{Http, Listening, RabbitmqMetrics};
use crate::memory;
use crate::protocols::SharedSettings;

/// Pause after accepting failed, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listeners of the process.
pub(crate) struct ListenerSet {
    /// Every protocol by name, HTTP included. They live as long as the process: they have the state of their clients.
    protocols: BTreeMap<&'static str, Arc<dyn ProtocolPlugin>>,
    /// Shows the listeners.
    http: Arc<Http>,
    admission: Arc<Admission>,
    http_admission: Arc<Admission>,
    shared: Shared,
    tasks: TaskTracker,
    running: Vec<Running>,
    files: BTreeMap<PathBuf, Option<FileState>>,
    poll_interval: Duration,
}

/// One address that is listened on.
struct Running {
    entry: ListenerEntry,
    address: Address,
    service: Arc<RwLock<Arc<Service>>>,
    stop: CancellationToken,
}

impl Running {
    /// What HTTP shows of it; nothing of a Unix socket.
    fn shown(&self) -> Option<Listening> {
        let Address::Tcp(address) = self.address else { return None };
        let settings = &self.entry.settings;
        Some(Listening {
            protocol: settings.protocol.clone(),
            address,
            is_encrypted: TlsFiles::of(settings).is_some(),
            is_websocket: settings.websocket_path.0.is_some(),
        })
    }
}

/// What shows that a file has changed: its time, its size, and which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// Listeners that are ready to take the place of those that run.
pub(crate) struct Prepared {
    poll_interval: Duration,
    limits: (ConnectionLimits, ConnectionLimits),
    listeners: Vec<PreparedListener>,
}

struct PreparedListener {
    entry: ListenerEntry,
    address: Address,
    service: Arc<Service>,
    /// None: the address is listened on already.
    socket: Option<Socket>,
}

impl ListenerSet {
    /// No listeners yet. Protocols take their settings from `config`.
    pub(crate) fn new(config: &Config, http: Arc<Http>, shared: Shared) -> ListenerSet {
        describe();
        let settings = SharedSettings {
            message_bytes_max: config.limits.message_bytes_max,
            timeouts: config.limits.timeouts(),
            memory_limit: memory::limit_bytes(config.memory.limit),
        };
        let protocols = config.protocols.iter();
        let mut protocols: BTreeMap<&'static str, Arc<dyn ProtocolPlugin>> =
            protocols.map(|protocol| (protocol.entry.name, protocol.settings.protocol(settings))).collect();
        protocols.insert(HTTP, http.clone());
        protocols.insert(PROMETHEUS, Arc::new(RabbitmqMetrics(http.clone())));
        let (limits, http_limits) = connection_limits(config);
        ListenerSet {
            protocols,
            http,
            admission: Admission::new("limits", limits),
            http_admission: Admission::new("http", http_limits),
            shared,
            tasks: TaskTracker::new(),
            running: Vec::new(),
            files: BTreeMap::new(),
            poll_interval: config.tls.poll_interval,
        }
    }

    /// A protocol by its name.
    pub(crate) fn protocol(&self, name: &str) -> Option<Arc<dyn ProtocolPlugin>> {
        self.protocols.get(name).cloned()
    }

    /// Reads the files and binds the addresses of a configuration; nothing changes yet. Must run within a runtime.
    pub(crate) fn prepare(&self, config: &Config) -> anyhow::Result<Prepared> {
        let mut listeners = Vec::new();
        for entry in config.listeners() {
            let service = Arc::new(self.service(&entry, config)?);
            for address in &entry.settings.address.0 {
                let is_running = self.running.iter().any(|running| running.address == *address);
                let bind = || {
                    let bound =
                        Socket::bind(address, entry.settings.unix_mode.0, config.limits.accept_backlog);
                    bound.map_err(|error| explain(&error, &entry.key, address))
                };
                let socket = if is_running { None } else { Some(bind()?) };
                let (entry, address, service) = (entry.clone(), address.clone(), service.clone());
                listeners.push(PreparedListener { entry, address, service, socket });
            }
        }
        let (limits, poll_interval) = (connection_limits(config), config.tls.poll_interval);
        Ok(Prepared { poll_interval, limits, listeners })
    }

    fn service(&self, entry: &ListenerEntry, config: &Config) -> anyhow::Result<Service> {
        let settings = &entry.settings;
        let protocol = self.protocols.get(settings.protocol.as_str());
        let protocol = protocol.with_context(|| format!("unknown protocol {}", settings.protocol))?;
        let tls = TlsFiles::of(settings).map(|files| files.acceptor()).transpose();
        let form = entry.protocol().and_then(|protocol| protocol.websocket.as_ref());
        let websocket = settings.websocket_path.0.as_deref().zip(form).map(|(path, form)| {
            let path = (path != WebSocketPath::ANY).then_some(path);
            websocket::Form::new(path, form.subprotocols, config.limits.message_bytes_max)
        });
        let is_http = [HTTP, PROMETHEUS].contains(&settings.protocol.as_str());
        Ok(Service {
            info: Arc::new(listener_info(entry, config.general.loopback_anonymous)),
            protocol: protocol.clone(),
            admission: if is_http { self.http_admission.clone() } else { self.admission.clone() },
            own_admission: self.own_admission(entry),
            proxies: settings.proxy_protocol.then(|| settings.proxy_trusted.clone()),
            tls: tls.with_context(|| format!("TLS of {}", settings.name))?,
            certificate_user: settings.certificate_user,
            websocket,
            handshake_timeout: config.limits.handshake_timeout,
        })
    }

    /// The limits of a listener of its own; a listener of the same name keeps its count.
    fn own_admission(&self, entry: &ListenerEntry) -> Option<Arc<Admission>> {
        own_limits(entry)?;
        let same = self.running.iter().find(|running| running.entry.settings.name == entry.settings.name);
        let kept = same.and_then(|running| running.service.read().own_admission.clone());
        kept.or_else(|| Some(Admission::new(entry.key.clone(), own_limits(entry)?)))
    }

    /// Changes to the prepared listeners: new ones accept connections, those that are gone do not any more.
    pub(crate) fn apply(&mut self, prepared: Prepared) {
        let (limits, http_limits) = prepared.limits;
        self.admission.set_limits(limits);
        self.http_admission.set_limits(http_limits);
        self.poll_interval = prepared.poll_interval;
        let mut before = std::mem::take(&mut self.running);
        for PreparedListener { entry, address, service, socket } in prepared.listeners {
            if let (Some(own), Some(limits)) = (&service.own_admission, own_limits(&entry)) {
                own.set_limits(limits);
            }
            let at = before.iter().position(|running| running.address == address);
            let (slot, stop) = match at.map(|at| before.swap_remove(at)) {
                Some(running) => {
                    *running.service.write() = service;
                    if let Address::Unix(path) = &address {
                        let mode = Permissions::from_mode(entry.settings.unix_mode.0);
                        if let Err(error) = std::fs::set_permissions(path, mode) {
                            warn!(%error, path = %path.display(), "failed to set the permissions of a socket");
                        }
                    }
                    (running.service, running.stop)
                }
                None => (Arc::new(RwLock::new(service)), self.shared.shutdown.child_token()),
            };
            if let Some(socket) = socket {
                let (key, shown) = (&entry.key, socket.local(&address));
                info!(key, name = entry.settings.name, address = %shown, "listening");
                self.tasks.spawn(accept(socket, slot.clone(), stop.clone(), self.shared.clone()));
            }
            self.running.push(Running { entry, address, service: slot, stop });
        }
        for gone in before {
            info!(name = gone.entry.settings.name, address = %gone.address, "no longer listening");
            gone.stop.cancel();
        }
        self.http.set_listening(self.running.iter().filter_map(Running::shown).collect());
        self.files = self.file_states();
    }

    /// TLS of each address that has it.
    fn tls_files(&self) -> impl Iterator<Item = TlsFiles> {
        self.running.iter().filter_map(|running| TlsFiles::of(&running.entry.settings))
    }

    fn file_states(&self) -> BTreeMap<PathBuf, Option<FileState>> {
        let paths =
            self.tls_files().flat_map(|files| files.paths().map(Into::into).collect::<Vec<PathBuf>>());
        paths.map(|path| (path.clone(), FileState::of(&path))).collect()
    }

    /// Time between two looks at the files; zero: never.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// Loads certificates and keys whose files have changed. A listener whose files are not usable keeps what it has.
    pub(crate) fn load_changed_files(&mut self) {
        let now = self.file_states();
        if now == self.files {
            return;
        }
        let has_changed = |path: &std::path::Path| now.get(path) != self.files.get(path);
        for running in &self.running {
            let name = &running.entry.settings.name;
            let Some(files) = TlsFiles::of(&running.entry.settings) else { continue };
            if !files.paths().any(has_changed) {
                continue;
            }
            match files.acceptor() {
                Ok(acceptor) => {
                    let mut service = running.service.write();
                    *service = Arc::new(Service { tls: Some(acceptor), ..(**service).clone() });
                    info!(listener = name, address = %running.address, "loaded changed certificate files");
                }
                Err(error) => error!(
                    listener = name,
                    "certificate files have changed and cannot be used, the former ones stay: {error:#}"
                ),
            }
            if let Some(warning) = files.warning() {
                warn!(listener = name, "{warning}");
            }
        }
        self.files = now;
    }

    /// Waits until no listener accepts connections any more. Must be called after shutdown was requested.
    pub(crate) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl FileState {
    fn of(path: &std::path::Path) -> Option<FileState> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(FileState { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    }
}

/// The limits of all protocols together, and of HTTP.
fn connection_limits(config: &Config) -> (ConnectionLimits, ConnectionLimits) {
    let limits = &config.limits;
    let all =
        ConnectionLimits { total: limits.connections_max, per_address: limits.connections_per_address_max };
    let http = config.http.connections_max;
    (all, ConnectionLimits { total: http, per_address: http })
}

fn own_limits(entry: &ListenerEntry) -> Option<ConnectionLimits> {
    let (total, per_address) = (entry.settings.connections_max, entry.settings.connections_per_address_max);
    let or_none = |max: usize| if max == 0 { usize::MAX } else { max };
    (total > 0 || per_address > 0)
        .then(|| ConnectionLimits { total: or_none(total), per_address: or_none(per_address) })
}

fn listener_info(entry: &ListenerEntry, loopback_anonymous: bool) -> ListenerInfo {
    let settings = &entry.settings;
    let namespace = settings.namespace.as_str();
    ListenerInfo {
        name: settings.name.clone(),
        namespace: (!namespace.is_empty()).then(|| namespace.into()),
        anonymous: match settings.anonymous.0 {
            Some(AnonymousRule::Never) => Anonymous::Never,
            Some(AnonymousRule::Loopback) => Anonymous::Loopback,
            Some(AnonymousRule::Always) => Anonymous::Always,
            None if loopback_anonymous => Anonymous::LoopbackWithoutUsers,
            None => Anonymous::Never,
        },
        any_user_name: settings.anonymous_any_name,
        advertised: settings.advertised.clone(),
        is_internal: false,
    }
}

/// Accepts connections until shutdown or until the listener is removed, and then closes the socket.
async fn accept(socket: Socket, service: Arc<RwLock<Arc<Service>>>, stop: CancellationToken, shared: Shared) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let service = service.read().clone();
        match accepted {
            Ok((stream, peer)) => start(&shared, &service, stream, peer),
            Err(error) => {
                warn!(%error, protocol = service.protocol.name(), "failed to accept a connection");
                shared.broker.clock().sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
