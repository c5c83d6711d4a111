//! Quotas: how much a user, a client id, a namespace or an address may use, and which of them concern a client.
//!
//! The entities of users and client ids, and which of several quotas wins, are Kafka's (KIP-13, KIP-55, KIP-124, KIP-546): the
//! most specific one, by each limit. A namespace's quota applies beside it, and connections by address too (KIP-612).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The text for [`EntityName::Default`].
const DEFAULT_NAME: &str = "*";

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 1024;

/// Whom a quota is for: one of a name, or everyone of the kind who has none of his own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EntityName {
    /// Everyone without a quota of his own, each with a share of his own.
    Default,
    /// The one of this name.
    Named(String),
}

impl EntityName {
    /// Reads a name; `*` is the default.
    #[must_use]
    pub fn parse(text: &str) -> EntityName {
        if text == DEFAULT_NAME { EntityName::Default } else { EntityName::Named(text.to_owned()) }
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            EntityName::Default => DEFAULT_NAME,
            EntityName::Named(name) => name,
        }
    }

    fn check(&self) -> Result<(), QuotaError> {
        match self {
            EntityName::Named(name) if name == DEFAULT_NAME || name.len() > NAME_BYTES_MAX => {
                Err(QuotaError::Name)
            }
            _ => Ok(()),
        }
    }
}

/// What a quota is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum QuotaEntity {
    /// A user, a client id, or both.
    Client {
        /// The user; none: all users together, each client id has one share.
        user: Option<EntityName>,
        /// The client id; none: all client ids of the user have one share.
        client_id: Option<EntityName>,
    },
    /// A namespace, whose clients have one share.
    Namespace(EntityName),
    /// An address that connections come from, in its canonical form; see [`QuotaEntity::of_ip`].
    Ip(EntityName),
}

/// An address in the one form in which it is looked up; a text that is no address as it is.
#[must_use]
pub fn canonical_ip(text: &str) -> String {
    text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |ip| ip.to_canonical().to_string())
}

impl QuotaEntity {
    /// The connections from an address, however that is written.
    #[must_use]
    pub fn of_ip(name: EntityName) -> QuotaEntity {
        QuotaEntity::Ip(match name {
            EntityName::Named(text) => EntityName::Named(canonical_ip(&text)),
            EntityName::Default => EntityName::Default,
        })
    }

    /// Whether there can be such an entity.
    pub fn check(&self) -> Result<(), QuotaError> {
        match self {
            QuotaEntity::Client { user: None, client_id: None } => Err(QuotaError::NoEntity),
            QuotaEntity::Client { user, client_id } => {
                user.iter().chain(client_id).try_for_each(EntityName::check)
            }
            QuotaEntity::Namespace(name) => name.check(),
            QuotaEntity::Ip(EntityName::Named(address)) => {
                address.parse::<IpAddr>().map(drop).map_err(|_| QuotaError::Address)
            }
            QuotaEntity::Ip(EntityName::Default) => Ok(()),
        }
    }
}

impl fmt::Display for QuotaEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaEntity::Client { user: Some(user), client_id: Some(client_id) } => {
                write!(f, "user `{}`, client id `{}`", user.text(), client_id.text())
            }
            QuotaEntity::Client { user: Some(user), client_id: None } => write!(f, "user `{}`", user.text()),
            QuotaEntity::Client { client_id: Some(client_id), .. } => {
                write!(f, "client id `{}`", client_id.text())
            }
            QuotaEntity::Client { .. } => f.write_str("nobody"),
            QuotaEntity::Namespace(name) => write!(f, "namespace `{}`", name.text()),
            QuotaEntity::Ip(name) => write!(f, "address `{}`", name.text()),
        }
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaKind {
    /// Bytes from clients, a second.
    BytesIn,
    /// Bytes to clients, a second.
    BytesOut,
    /// Messages from clients, a second.
    MessagesIn,
    /// Messages to clients, a second.
    MessagesOut,
    /// Time of a thread, seconds a second.
    RequestTime,
    /// Partitions created and deleted, a second.
    Mutations,
    /// New connections, a second.
    Connections,
}

impl QuotaKind {
    /// Every kind that concerns a connection while it is open.
    pub const OF_CONNECTIONS: [QuotaKind; 6] = [
        QuotaKind::BytesIn,
        QuotaKind::BytesOut,
        QuotaKind::MessagesIn,
        QuotaKind::MessagesOut,
        QuotaKind::RequestTime,
        QuotaKind::Mutations,
    ];
}

/// The limits of one entity; none: it has no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuotaLimits {
    /// Bytes from clients, a second.
    pub bytes_in: Option<u64>,
    /// Bytes to clients, a second.
    pub bytes_out: Option<u64>,
    /// Messages from clients, a second.
    pub messages_in: Option<u64>,
    /// Messages to clients, a second.
    pub messages_out: Option<u64>,
    /// Time of the broker's threads, percent of one thread.
    pub request_time_percent: Option<f64>,
    /// New connections, a second.
    pub connections: Option<u64>,
    /// Partitions created and deleted, a second.
    pub mutations: Option<f64>,
}

impl QuotaLimits {
    /// The limit of a kind, in units a second.
    #[must_use]
    pub fn rate(&self, kind: QuotaKind) -> Option<f64> {
        let whole = |limit: Option<u64>| limit.map(|limit| limit as f64);
        match kind {
            QuotaKind::BytesIn => whole(self.bytes_in),
            QuotaKind::BytesOut => whole(self.bytes_out),
            QuotaKind::MessagesIn => whole(self.messages_in),
            QuotaKind::MessagesOut => whole(self.messages_out),
            QuotaKind::RequestTime => self.request_time_percent.map(|percent| percent / 100.0),
            QuotaKind::Mutations => self.mutations,
            QuotaKind::Connections => whole(self.connections),
        }
    }

    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == QuotaLimits::default()
    }

    /// Whether an entity can have these limits.
    pub fn check(&self, entity: &QuotaEntity) -> Result<(), QuotaError> {
        entity.check()?;
        let whole = [self.bytes_in, self.bytes_out, self.messages_in, self.messages_out, self.connections];
        let fractions = [self.request_time_percent, self.mutations];
        let is_usable = |limit: f64| limit.is_finite() && limit > 0.0;
        if whole.contains(&Some(0)) || fractions.into_iter().flatten().any(|limit| !is_usable(limit)) {
            return Err(QuotaError::Zero);
        }
        let others = QuotaLimits { connections: None, ..*self };
        if matches!(entity, QuotaEntity::Ip(_)) && !others.is_empty() {
            return Err(QuotaError::OnlyConnections);
        }
        Ok(())
    }
}

/// Why a quota is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// It is for nobody.
    #[error("a quota needs a user, a client id, a namespace or an address")]
    NoEntity,
    /// It is for things that cannot be together.
    #[error("a quota is for a user and a client id, or a namespace, or an address, not for several of these")]
    Mixed,
    /// A name cannot be used.
    #[error("a name of a quota's entity has at most 1024 bytes; `*` is the default for all others")]
    Name,
    /// An address cannot be read.
    #[error("the address of a quota must be an IP address, or `*` for all others")]
    Address,
    /// It limits nothing.
    #[error("a quota needs a limit")]
    NoLimit,
    /// A limit is 0.
    #[error("a limit must be above 0")]
    Zero,
    /// A limit that an address cannot have.
    #[error("an address can only have a limit of connections per second")]
    OnlyConnections,
}

/// Who shares a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QuotaShare {
    /// The connections of a user and a client id; each of them may be left open.
    Client {
        /// The user; inner none: anonymous clients.
        user: Option<Option<String>>,
        /// The client id.
        client_id: Option<String>,
    },
    /// The connections to a namespace.
    Namespace(String),
    /// The connections from an address.
    Ip(IpAddr),
}

/// The quotas of all entities.
#[derive(Clone, Debug, Default)]
pub struct QuotaTable {
    limits: HashMap<QuotaEntity, QuotaLimits>,
}

impl FromIterator<(QuotaEntity, QuotaLimits)> for QuotaTable {
    fn from_iter<I: IntoIterator<Item = (QuotaEntity, QuotaLimits)>>(quotas: I) -> QuotaTable {
        QuotaTable { limits: quotas.into_iter().filter(|(_, limits)| !limits.is_empty()).collect() }
    }
}

impl QuotaTable {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// The limit of a user and a client id, in units a second, and who shares it. From the most specific quota that has
    /// such a limit: a user's with its client id, with the default client id, of the user; the same of the default user; of
    /// the client id; of the default client id.
    #[must_use]
    pub fn of_client(
        &self,
        kind: QuotaKind,
        user: Option<&str>,
        client_id: &str,
    ) -> Option<(QuotaShare, f64)> {
        use EntityName::{Default, Named};
        let named_user = user.map(|user| Named(user.to_owned()));
        let named_client = || Some(Named(client_id.to_owned()));
        let mut candidates = Vec::with_capacity(8);
        for of_user in named_user.into_iter().chain([Default]) {
            for of_client in [named_client(), Some(Default), None] {
                candidates.push((Some(of_user.clone()), of_client));
            }
        }
        candidates.extend([(None, named_client()), (None, Some(Default))]);
        candidates.into_iter().find_map(|(of_user, of_client)| {
            let share = QuotaShare::Client {
                user: of_user.is_some().then(|| user.map(str::to_owned)),
                client_id: of_client.is_some().then(|| client_id.to_owned()),
            };
            self.rate(&QuotaEntity::Client { user: of_user, client_id: of_client }, kind)
                .map(|rate| (share, rate))
        })
    }

    /// The limit of a namespace, in units a second, and who shares it.
    #[must_use]
    pub fn of_namespace(&self, kind: QuotaKind, namespace: &str) -> Option<(QuotaShare, f64)> {
        let of = |name| self.rate(&QuotaEntity::Namespace(name), kind);
        let rate = of(EntityName::Named(namespace.to_owned())).or_else(|| of(EntityName::Default))?;
        Some((QuotaShare::Namespace(namespace.to_owned()), rate))
    }

    /// The limit of connections from an address, in units a second, and who shares it.
    #[must_use]
    pub fn of_ip(&self, ip: IpAddr) -> Option<(QuotaShare, f64)> {
        let ip = ip.to_canonical();
        let of = |name| self.rate(&QuotaEntity::Ip(name), QuotaKind::Connections);
        let rate = of(EntityName::Named(ip.to_string())).or_else(|| of(EntityName::Default))?;
        Some((QuotaShare::Ip(ip), rate))
    }

    fn rate(&self, entity: &QuotaEntity, kind: QuotaKind) -> Option<f64> {
        self.limits.get(entity)?.rate(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(user: Option<&str>, client_id: Option<&str>) -> QuotaEntity {
        QuotaEntity::Client { user: user.map(EntityName::parse), client_id: client_id.map(EntityName::parse) }
    }

    fn bytes(limit: u64) -> QuotaLimits {
        QuotaLimits { bytes_in: Some(limit), ..QuotaLimits::default() }
    }

    #[test]
    fn the_most_specific_quota_wins() {
        // From the most specific to the least; each is removed once it has won.
        let mut order = vec![
            (client(Some("ann"), Some("app")), (true, true)),
            (client(Some("ann"), Some("*")), (true, true)),
            (client(Some("ann"), None), (true, false)),
            (client(Some("*"), Some("app")), (true, true)),
            (client(Some("*"), Some("*")), (true, true)),
            (client(Some("*"), None), (true, false)),
            (client(None, Some("app")), (false, true)),
            (client(None, Some("*")), (false, true)),
        ];
        while !order.is_empty() {
            let numbered = order.iter().zip(1..).map(|((entity, _), number)| (entity.clone(), bytes(number)));
            let table: QuotaTable = numbered.collect();
            let (_, (has_user, has_client)) = order[0];
            let share = QuotaShare::Client {
                user: has_user.then(|| Some("ann".to_owned())),
                client_id: has_client.then(|| "app".to_owned()),
            };
            assert_eq!(table.of_client(QuotaKind::BytesIn, Some("ann"), "app"), Some((share, 1.0)));
            assert_eq!(table.of_client(QuotaKind::BytesOut, Some("ann"), "app"), None);
            order.remove(0);
        }
    }

    #[test]
    fn each_limit_is_looked_up_on_its_own() {
        let time = QuotaLimits { request_time_percent: Some(50.0), ..QuotaLimits::default() };
        let table: QuotaTable =
            [(client(Some("ann"), None), bytes(7)), (client(Some("*"), None), time)].into_iter().collect();
        let rate = |kind| table.of_client(kind, Some("ann"), "").map(|(_, rate)| rate);
        assert_eq!((rate(QuotaKind::BytesIn), rate(QuotaKind::RequestTime)), (Some(7.0), Some(0.5)));
        // Anonymous clients together are one of the others.
        let (share, _) = table.of_client(QuotaKind::RequestTime, None, "c").unwrap();
        assert_eq!(share, QuotaShare::Client { user: Some(None), client_id: None });
    }

    #[test]
    fn namespaces_and_addresses_have_quotas_and_defaults() {
        let connections = |limit| QuotaLimits { connections: Some(limit), ..QuotaLimits::default() };
        let ip = |name| QuotaEntity::of_ip(EntityName::parse(name));
        let namespace = |name| QuotaEntity::Namespace(EntityName::parse(name));
        let table: QuotaTable = [
            (ip("10.0.0.1"), connections(1)),
            (ip("*"), connections(2)),
            (ip("2001:DB8:0::1"), connections(5)),
            (ip("::ffff:10.0.0.3"), connections(6)),
            (namespace("red"), bytes(3)),
            (namespace("*"), bytes(4)),
        ]
        .into_iter()
        .collect();
        let of_ip = |address: &str| table.of_ip(address.parse().unwrap()).map(|(_, rate)| rate);
        assert_eq!((of_ip("::ffff:10.0.0.1"), of_ip("10.0.0.2")), (Some(1.0), Some(2.0)));
        assert_eq!((of_ip("2001:db8::1"), of_ip("10.0.0.3")), (Some(5.0), Some(6.0)));
        let of_namespace = |name: &str| table.of_namespace(QuotaKind::BytesIn, name);
        assert_eq!(of_namespace("red"), Some((QuotaShare::Namespace("red".to_owned()), 3.0)));
        assert_eq!(of_namespace("blue"), Some((QuotaShare::Namespace("blue".to_owned()), 4.0)));
    }

    #[test]
    fn impossible_quotas_are_refused() {
        let check = |entity: QuotaEntity, limits: QuotaLimits| limits.check(&entity);
        assert_eq!(check(client(None, None), bytes(1)), Err(QuotaError::NoEntity));
        assert_eq!(check(client(Some("ann"), None), bytes(0)), Err(QuotaError::Zero));
        let of_time = |percent| QuotaLimits { request_time_percent: Some(percent), ..QuotaLimits::default() };
        for percent in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(check(client(Some("ann"), None), of_time(percent)), Err(QuotaError::Zero));
            let mutations = QuotaLimits { mutations: Some(percent), ..QuotaLimits::default() };
            assert_eq!(check(client(Some("ann"), None), mutations), Err(QuotaError::Zero));
        }
        let ip = |name: &str| QuotaEntity::Ip(EntityName::parse(name));
        assert_eq!(check(ip("10.0.0.1"), bytes(1)), Err(QuotaError::OnlyConnections));
        assert_eq!(check(ip("nowhere"), QuotaLimits::default()), Err(QuotaError::Address));
        let star = QuotaEntity::Namespace(EntityName::Named("*".to_owned()));
        assert_eq!(check(star, bytes(1)), Err(QuotaError::Name));
        assert_eq!(check(client(Some(&"u".repeat(1025)), None), bytes(1)), Err(QuotaError::Name));
        assert_eq!(check(client(Some("*"), Some("")), bytes(1)), Ok(()));
    }
}
