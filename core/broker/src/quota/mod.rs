//! Quotas: how much users, client ids, namespaces and addresses may use, changed while the broker runs.
//!
//! Owns the quotas stored in the log, those of the configuration beside them (which are read-only), and the rates: token
//! buckets that all connections of an entity share, whatever their protocol. Does not own what happens to a client that has
//! used up its quota: the connection driver and the protocols hold it back.
//!
//! Invariants:
//! - [`Quotas::version`] changes with every change; a connection looks its quotas up once for each version.
//! - A connection that no quota concerns compares two numbers.

mod applied;
mod bucket;
mod rows;
mod shares;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use inver_access::{QuotaEntity, QuotaError, QuotaKind, QuotaLimits, QuotaShare, QuotaTable};
use inver_storage::{Entry, Log, SubmitError};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::source::Source;
use crate::tables::{self, QUOTAS, RowError};

pub use applied::AppliedQuotas;
pub(crate) use applied::ConnectionQuotas;

use bucket::Bucket;
use shares::Shares;

/// Why a change of quotas is refused.
#[derive(Debug, thiserror::Error)]
pub enum QuotasError {
    /// The quota is part of the configuration.
    #[error("the quota of {0} is set in the configuration and is read-only here")]
    ReadOnly(QuotaEntity),
    /// There can be no such quota.
    #[error(transparent)]
    Invalid(#[from] QuotaError),
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// Whom quotas may concern: a connection.
#[derive(Clone, Debug)]
pub(crate) struct QuotaScope<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) client_id: Arc<str>,
    pub(crate) namespace: &'a str,
}

/// The quotas of the broker; cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    log: Log,
    clock: Clock,
    quotas_max: usize,
    state: RwLock<State>,
    version: AtomicU64,
    shares: Shares,
}

#[derive(Default)]
struct State {
    stored: BTreeMap<QuotaEntity, QuotaLimits>,
    configured: BTreeMap<QuotaEntity, QuotaLimits>,
    /// Both; the configuration's wins.
    table: QuotaTable,
}

impl State {
    fn all(&self) -> BTreeMap<&QuotaEntity, (QuotaLimits, Source)> {
        let mut all = BTreeMap::new();
        all.extend(self.stored.iter().map(|(entity, limits)| (entity, (*limits, Source::Stored))));
        all.extend(self.configured.iter().map(|(entity, limits)| (entity, (*limits, Source::Configuration))));
        all
    }

    fn index(&mut self) {
        self.table = self.all().into_iter().map(|(entity, (limits, _))| (entity.clone(), limits)).collect();
    }
}

impl Quotas {
    /// Restores the quotas from the log.
    pub(crate) fn open(log: Log, clock: Clock, quotas_max: usize) -> Result<Quotas, RowError> {
        let mut state = State::default();
        for (key, row) in log.recovered_state(QUOTAS) {
            state.stored.insert(tables::decode(QUOTAS, &key)?, rows::decode(&row)?);
        }
        state.index();
        Ok(Quotas(Arc::new(Inner {
            log,
            clock,
            quotas_max,
            state: RwLock::new(state),
            version: AtomicU64::new(1),
            shares: Shares::default(),
        })))
    }

    /// The version of the quotas: it changes with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// All quotas, by entity.
    #[must_use]
    pub fn list(&self) -> Vec<(QuotaEntity, QuotaLimits, Source)> {
        let state = self.0.state.read();
        state.all().into_iter().map(|(entity, (limits, source))| (entity.clone(), limits, source)).collect()
    }

    /// The quota of an entity.
    #[must_use]
    pub fn get(&self, entity: &QuotaEntity) -> Option<(QuotaLimits, Source)> {
        let state = self.0.state.read();
        let configured = state.configured.get(entity).map(|limits| (*limits, Source::Configuration));
        configured.or_else(|| state.stored.get(entity).map(|limits| (*limits, Source::Stored)))
    }

    /// Changes the stored quota of an entity by a function of what it is now, which runs under a lock. One without limits is
    /// deleted. Returns the limits before.
    pub fn update(
        &self,
        entity: &QuotaEntity,
        update: impl FnOnce(&mut QuotaLimits),
    ) -> Result<(QuotaLimits, Completion), QuotasError> {
        entity.check()?;
        let mut state = self.0.state.write();
        if state.configured.contains_key(entity) {
            return Err(QuotasError::ReadOnly(entity.clone()));
        }
        let before = state.stored.get(entity).copied();
        let mut limits = before.unwrap_or_default();
        update(&mut limits);
        limits.check(entity)?;
        if limits == before.unwrap_or_default() {
            return Ok((limits, Completion::Now));
        }
        if before.is_none() {
            limits::check("quotas", state.stored.len(), self.0.quotas_max)?;
        }
        let key: Bytes = tables::encode(entity);
        let mut entry = Entry::new();
        match limits.is_empty() {
            true => entry.delete(QUOTAS, key),
            false => entry.put(QUOTAS, key, rows::encode(&limits)),
        }
        let lsn = self.0.log.submit(entry)?.lsn;
        match limits.is_empty() {
            true => state.stored.remove(entity),
            false => state.stored.insert(entity.clone(), limits),
        };
        state.index();
        self.changed();
        Ok((before.unwrap_or_default(), lsn.into()))
    }

    /// Replaces the quotas of the configuration.
    pub fn set_configured(&self, quotas: Vec<(QuotaEntity, QuotaLimits)>) -> Result<(), QuotaError> {
        quotas.iter().try_for_each(|(entity, limits)| limits.check(entity))?;
        let mut state = self.0.state.write();
        state.configured = quotas.into_iter().collect();
        state.index();
        self.changed();
        Ok(())
    }

    fn changed(&self) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The quotas that concern an open connection.
    fn resolve(&self, scope: &QuotaScope<'_>) -> Option<AppliedQuotas> {
        let state = self.0.state.read();
        if state.table.is_empty() {
            return None;
        }
        let now = self.0.clock.now();
        let of_kind = |kind: QuotaKind| {
            let shares = [
                state.table.of_client(kind, scope.user, &scope.client_id),
                state.table.of_namespace(kind, scope.namespace),
            ];
            shares.map(|share| share.map(|(share, rate)| self.0.shares.bucket(kind, share, rate, now)))
        };
        let buckets = QuotaKind::OF_CONNECTIONS.map(of_kind);
        let is_any = buckets.iter().flatten().any(Option::is_some);
        is_any.then(|| AppliedQuotas::new(buckets))
    }

    /// Counts a new connection; returns for how long it must wait before it is served. None: it would have to wait for
    /// longer than `wait_max`, and is not counted.
    pub(crate) fn connect(&self, scope: &QuotaScope<'_>, ip: IpAddr, wait_max: Duration) -> Option<Duration> {
        let shares = {
            let state = self.0.state.read();
            if state.table.is_empty() {
                return Some(Duration::ZERO);
            }
            [
                state.table.of_ip(ip),
                state.table.of_client(QuotaKind::Connections, scope.user, &scope.client_id),
                state.table.of_namespace(QuotaKind::Connections, scope.namespace),
            ]
        };
        let now = self.0.clock.now();
        let mut wait = Duration::ZERO;
        let mut reserved: Vec<Arc<Bucket>> = Vec::new();
        for (share, rate) in shares.into_iter().flatten() {
            let bucket = self.of_connections(share, rate, now);
            match bucket.reserve(wait_max, now) {
                Some(delay) => wait = wait.max(delay),
                None => {
                    reserved.iter().for_each(|bucket| bucket.give_back());
                    return None;
                }
            }
            reserved.push(bucket);
        }
        Some(wait)
    }

    #[cfg(test)]
    pub(crate) fn in_memory(clock: Clock) -> Quotas {
        use inver_storage::medium::fake::FakeMedium;
        use inver_storage::{LogOptions, SystemClock};
        let log =
            Log::open_manual(Arc::new(FakeMedium::new(1)), Arc::new(SystemClock), LogOptions::default());
        Quotas::open(log.unwrap(), clock, 3).unwrap()
    }

    fn of_connections(&self, share: QuotaShare, rate: f64, now: Instant) -> Arc<Bucket> {
        self.0.shares.bucket(QuotaKind::Connections, share, rate, now)
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("version", &self.version()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
