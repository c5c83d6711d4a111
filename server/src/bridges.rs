//! The bridges of the broker: those of the configuration, and those that were added while it runs.
//!
//! Owns which bridges run, where the added ones are stored (rows of the log), and the connections to other servers. What
//! a bridge does is its protocol's.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use inver_broker::{Broker, Completion, Io, SessionError};
use inver_storage::SubmitError;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::http_client;
use crate::protocols::{BRIDGES_MAX, Bridge, BridgeHost, BridgeSpec, BridgeTls, Dial, forget_bridge};
use crate::runtime::Workers;

/// The table of the bridges that were added while the broker ran.
const TABLE: &str = "bridges";
/// Why a bridge with the mask of a password is not added.
const NO_PASSWORD: &str =
    "`password` is `***`, which stands for the password of the bridge that is there: none is known";

/// Every bridge.
pub(crate) struct Bridges {
    host: Arc<BridgeHost>,
    workers: Workers,
    shutdown: CancellationToken,
    running: Mutex<BTreeMap<String, Running>>,
    /// Held while bridges are added and removed.
    changing: tokio::sync::Mutex<()>,
}

struct Running {
    bridge: Arc<Bridge>,
    is_configured: bool,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

/// Why bridges were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgesError {
    #[error("{0}")]
    Invalid(String),
    #[error("bridge `{0}` is one of the configuration, which is read-only here")]
    Configured(String),
    #[error("bridge `{0}` has the same `local_client_id`")]
    SameSession(String),
    #[error("the broker stops, or failed to change the bridge")]
    Unfinished,
    #[error("there are {BRIDGES_MAX} bridges already")]
    TooMany,
    #[error(transparent)]
    Log(#[from] SubmitError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Bridges {
    /// Starts the bridges of the configuration and those that are stored.
    pub(crate) fn start(
        host: BridgeHost,
        configured: Vec<BridgeSpec>,
        workers: Workers,
        shutdown: CancellationToken,
    ) -> Arc<Bridges> {
        let bridges = Arc::new(Bridges {
            host: Arc::new(host),
            workers,
            shutdown,
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        });
        for spec in configured {
            bridges.start_one(spec, true);
        }
        for (name, row) in bridges.broker().states(TABLE) {
            let name = String::from_utf8_lossy(&name).into_owned();
            if bridges.running.lock().contains_key(&name) {
                info!(bridge = name, "the bridge of the configuration takes the place of the stored one");
                continue;
            }
            match serde_json::from_slice(&row) {
                Ok(spec) => match bridges.with_session_of(&spec) {
                    None => bridges.start_one(spec, false),
                    Some(other) => error!(bridge = name, "not started: {}", BridgesError::SameSession(other)),
                },
                Err(error) => error!(bridge = name, %error, "a stored bridge cannot be read"),
            }
        }
        bridges
    }

    fn broker(&self) -> &Broker {
        &self.host.broker
    }

    fn start_one(&self, spec: BridgeSpec, is_configured: bool) {
        let bridge = match Bridge::new(spec) {
            Ok(bridge) => Arc::new(bridge),
            Err(what) => return error!("a bridge is not started: {what}"),
        };
        let (stop, (end, ended)) = (self.shutdown.child_token(), oneshot::channel());
        let running = Running { bridge: bridge.clone(), is_configured, stop: stop.clone(), ended };
        self.running.lock().insert(bridge.spec().name.clone(), running);
        let host = self.host.clone();
        self.workers.assign().run(|slot| async move {
            bridge.run(&host, &stop).await;
            drop((slot, end));
        });
    }

    /// Every bridge, and whether it is one of the configuration.
    pub(crate) fn all(&self) -> Vec<(Arc<Bridge>, bool)> {
        self.running.lock().values().map(|it| (it.bridge.clone(), it.is_configured)).collect()
    }

    /// A bridge, and whether it is one of the configuration.
    pub(crate) fn get(&self, name: &str) -> Option<(Arc<Bridge>, bool)> {
        self.running.lock().get(name).map(|it| (it.bridge.clone(), it.is_configured))
    }

    /// Another bridge with the same session on this broker.
    fn with_session_of(&self, spec: &BridgeSpec) -> Option<String> {
        let running = self.running.lock();
        let mut others = running.values().map(|it| it.bridge.spec()).filter(|other| other.name != spec.name);
        others.find(|other| other.shares_session(spec)).map(|other| other.name.clone())
    }

    /// Adds a bridge, or puts it in the place of the one of its name. Whether there was none. It goes on to its end though its
    /// caller may not wait for it.
    pub(crate) async fn put(self: Arc<Self>, spec: BridgeSpec) -> Result<(bool, Completion), BridgesError> {
        let changing = tokio::spawn(async move { self.put_whole(spec).await });
        changing.await.unwrap_or(Err(BridgesError::Unfinished))
    }

    async fn put_whole(&self, spec: BridgeSpec) -> Result<(bool, Completion), BridgesError> {
        let mut spec = spec.complete().map_err(BridgesError::Invalid)?;
        let _changing = self.changing.lock().await;
        let name = spec.name.clone();
        let former = match self.get(&name) {
            Some((_, true)) => return Err(BridgesError::Configured(name)),
            None if self.running.lock().len() >= BRIDGES_MAX => return Err(BridgesError::TooMany),
            Some((bridge, false)) => Some(bridge.spec().clone()),
            // One that was not started.
            None => self.stored(&name),
        };
        if let Some(other) = self.with_session_of(&spec) {
            return Err(BridgesError::SameSession(other));
        }
        if let Some(former) = &former {
            spec.unmask(former);
        }
        if spec.is_masked() {
            return Err(BridgesError::Invalid(NO_PASSWORD.to_owned()));
        }
        let row = serde_json::to_vec(&spec).map_err(|error| BridgesError::Invalid(error.to_string()))?;
        let mut completion =
            Completion::At(self.broker().put_state(TABLE, name.as_bytes(), Bytes::from(row))?);
        self.stop_one(&name).await;
        let ended = match &former {
            Some(former) if !former.shares_session(&spec) => self.end_own_session(former).await,
            _ => Ok(Completion::Now),
        };
        self.start_one(spec, false);
        completion = completion.and(ended?);
        Ok((former.is_none(), completion))
    }

    /// Removes a bridge with its session, and what waits in it. None if there is no such bridge. It goes on to its end though
    /// its caller may not wait for it.
    pub(crate) async fn remove(self: Arc<Self>, name: String) -> Result<Option<Completion>, BridgesError> {
        let changing = tokio::spawn(async move { self.remove_whole(&name).await });
        changing.await.unwrap_or(Err(BridgesError::Unfinished))
    }

    async fn remove_whole(&self, name: &str) -> Result<Option<Completion>, BridgesError> {
        let _changing = self.changing.lock().await;
        let spec = match (self.get(name), self.broker().state(TABLE, name.as_bytes())) {
            (Some((_, true)), _) => return Err(BridgesError::Configured(name.to_owned())),
            (Some((bridge, false)), _) => Some(bridge.spec().clone()),
            (None, Some(_)) => self.stored(name),
            (None, None) => return Ok(None),
        };
        let mut completion = Completion::At(self.broker().delete_state(TABLE, name.as_bytes())?);
        self.stop_one(name).await;
        completion = completion.and(forget_bridge(self.broker(), name)?.into());
        if let Some(spec) = spec {
            completion = completion.and(self.end_own_session(&spec).await?);
        }
        Ok(Some(completion))
    }

    /// A bridge as it is stored, if it can be read.
    fn stored(&self, name: &str) -> Option<BridgeSpec> {
        serde_json::from_slice(&self.broker().state(TABLE, name.as_bytes())?).ok()
    }

    /// Ends the session of a bridge on this broker. One that was not started for another's session leaves that as it is.
    async fn end_own_session(&self, spec: &BridgeSpec) -> Result<Completion, SessionError> {
        if self.with_session_of(spec).is_some() {
            return Ok(Completion::Now);
        }
        match self.broker().sessions(&spec.namespace) {
            Some(sessions) => Ok(sessions.end(&spec.local_client_id).await?.unwrap_or_default()),
            None => Ok(Completion::Now),
        }
    }

    /// Stops a bridge, if it runs, and waits until it has ended.
    async fn stop_one(&self, name: &str) {
        let running = self.running.lock().remove(name);
        if let Some(Running { stop, ended, .. }) = running {
            stop.cancel();
            let _ended = ended.await;
        }
    }
}

/// Connects over TCP, with TLS where it is asked for.
pub(crate) struct TcpDial;

#[async_trait]
impl Dial for TcpDial {
    async fn dial(&self, address: &str, tls: Option<&BridgeTls>) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls.cloned() else { return Ok(Box::new(stream)) };
        let connector = tokio::task::spawn_blocking(move || {
            let path = |text: &str| (!text.is_empty()).then(|| Path::new(text).to_owned());
            let own = path(&tls.cert).zip(path(&tls.key));
            http_client::tls_with(path(&tls.ca).as_deref(), own.as_ref())
        });
        let connector = connector.await?.map_err(|error| io::Error::other(format!("{error:#}")))?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}
