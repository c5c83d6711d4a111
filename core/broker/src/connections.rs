//! The live connections of all protocols: who is connected, from where, to which namespace; and how to end one.
//!
//! Owns a record of each admitted connection and the counts that limits of users and namespaces are checked against.
//! Does not own sockets: a connection is told to end by its mailbox, and its protocol ends it in its own way.
//!
//! Costs nothing for each message. Bound: a record for each connection that is open at the same time, and a count for each
//! of their users and namespaces.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::closing::CloseReason;
use crate::context::{Due, Timed};
use crate::events::{Events, Facts};
use crate::listener::{Endpoints, ListenerInfo};
use crate::mailbox::Mailbox;
use crate::network::network_of;
use crate::quota::{AppliedQuotas, ConnectionQuotas, QuotaScope, Quotas};
use crate::timers::Timers;

/// No time.
const NEVER_MS: i64 = i64::MAX;

/// The live connections; cheap to clone.
#[derive(Clone, Default)]
pub struct ConnectionRegistry(Arc<Inner>);

#[derive(Default)]
struct Inner {
    live: DashMap<u64, Arc<LiveConnection>, FxBuildHasher>,
    last_id: AtomicU64,
    of_user: Counts,
    of_namespace: Counts,
    /// Connections that were authenticated by a delegation token: the token's id.
    of_token: DashMap<u64, Box<str>, FxBuildHasher>,
    /// Somebody waits for the end of a namespace's connections.
    left: Notify,
    timers: Arc<Timers<Due>>,
    events: Events,
}

/// Connections by the name of what they belong to; a name without one has no entry. Names come from clients that were
/// authenticated.
#[derive(Default)]
struct Counts(DashMap<Arc<str>, u32>);

impl Counts {
    /// Counts one more, unless `max` are there.
    fn take(&self, name: &Arc<str>, max: Option<u32>) -> Result<(), u32> {
        let mut count = self.0.entry(name.clone()).or_insert(0);
        match max {
            Some(max) if *count >= max => {
                let is_unused = *count == 0;
                drop(count);
                if is_unused {
                    self.0.remove_if(name, |_, count| *count == 0);
                }
                Err(max)
            }
            _ => {
                *count += 1;
                Ok(())
            }
        }
    }

    fn give_back(&self, name: &str) {
        if let Some(mut count) = self.0.get_mut(name) {
            *count = count.saturating_sub(1);
        }
        self.0.remove_if(name, |_, count| *count == 0);
    }

    fn get(&self, name: &str) -> u32 {
        self.0.get(name).map_or(0, |count| *count)
    }
}

/// A connection to be registered.
pub(crate) struct NewConnection<'a> {
    pub(crate) protocol: &'static str,
    pub(crate) name: Arc<str>,
    pub(crate) user: Option<Arc<str>>,
    /// The user is not one of the broker's: another authority vouches for it.
    pub(crate) is_external: bool,
    pub(crate) user_connections_max: Option<u32>,
    pub(crate) namespace: Arc<str>,
    pub(crate) namespace_connections_max: Option<u32>,
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) since_ms: i64,
    pub(crate) quotas: Quotas,
    pub(crate) served_from: Option<Instant>,
    pub(crate) mailbox: &'a Arc<Mailbox>,
}

/// The limit that keeps a connection from being registered, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    User(u32),
    Namespace(u32),
}

impl ConnectionRegistry {
    /// A registry whose connections expire by these timers, and of whose connections programs are told.
    pub(crate) fn new(timers: Arc<Timers<Due>>, events: Events) -> ConnectionRegistry {
        ConnectionRegistry(Arc::new(Inner { timers, events, ..Inner::default() }))
    }

    /// Registers a connection unless a limit is reached.
    pub(crate) fn register(&self, new: NewConnection<'_>) -> Result<ConnectionHandle, Full> {
        let inner = &self.0;
        inner.of_namespace.take(&new.namespace, new.namespace_connections_max).map_err(Full::Namespace)?;
        if let Some(user) = &new.user
            && let Err(max) = inner.of_user.take(user, new.user_connections_max)
        {
            inner.of_namespace.give_back(&new.namespace);
            return Err(Full::User(max));
        }
        let Endpoints { peer, local, encrypted, listener } = new.endpoints;
        let connection = Arc::new(LiveConnection {
            id: inner.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            protocol: new.protocol,
            name: Mutex::new(new.name),
            user: new.user,
            is_external: new.is_external,
            namespace: new.namespace,
            addresses: Addresses::new(*peer, *local),
            is_encrypted: *encrypted,
            listener: listener.clone(),
            since_ms: new.since_ms,
            quotas: ConnectionQuotas::new(new.quotas),
            served_from: new.served_from.map(Box::new),
            is_throttled: AtomicBool::new(false),
            expires_at_ms: AtomicI64::new(NEVER_MS),
            mailbox: new.mailbox.clone(),
            registry: self.clone(),
        });
        connection.mailbox.set_connection(connection.id, connection.party());
        inner.live.insert(connection.id, connection.clone());
        inner.events.tell("connection.created", || connection.facts());
        Ok(ConnectionHandle(connection))
    }

    /// Every live connection, in no order.
    #[must_use]
    pub fn list_unordered(&self) -> Vec<Arc<LiveConnection>> {
        self.0.live.iter().map(|connection| connection.clone()).collect()
    }

    /// Every live connection, in the order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<LiveConnection>> {
        let mut all = self.list_unordered();
        all.sort_unstable_by_key(|connection| connection.id);
        all
    }

    /// A live connection.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<LiveConnection>> {
        self.0.live.get(&id).map(|connection| connection.clone())
    }

    /// Asks a connection to end. False if it is not there any more.
    pub fn close(&self, id: u64, reason: CloseReason) -> bool {
        self.get(id).map(|connection| connection.close(reason)).is_some()
    }

    /// Asks the connections that `select` selects to end; how many they are.
    pub fn close_where(
        &self,
        mut select: impl FnMut(&LiveConnection) -> bool,
        reason: &CloseReason,
    ) -> usize {
        // Collected first: closing wakes tasks, which may run at once and leave the map.
        let all = self.0.live.iter().filter(|connection| select(connection)).map(|c| c.clone());
        let selected: Vec<Arc<LiveConnection>> = all.collect();
        selected.iter().for_each(|connection| connection.close(reason.clone()));
        selected.len()
    }

    /// Ends the connections that were authenticated by a delegation token.
    pub(crate) fn close_of_token(&self, token: &str) {
        let of_token = self.0.of_token.iter().filter(|entry| entry.value().as_ref() == token);
        let ids: Vec<u64> = of_token.map(|entry| *entry.key()).collect();
        for connection in ids.into_iter().filter_map(|id| self.get(id)) {
            connection.close(CloseReason::CredentialExpired);
        }
    }

    /// The number of live connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.live.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.live.is_empty()
    }

    /// The number of live connections of a user.
    #[must_use]
    pub fn count_of_user(&self, user: &str) -> u32 {
        self.0.of_user.get(user)
    }

    /// The number of live connections to a namespace.
    #[must_use]
    pub fn count_of_namespace(&self, namespace: &str) -> u32 {
        self.0.of_namespace.get(namespace)
    }

    /// Waits until a namespace has no connection.
    pub async fn wait_for_none_of_namespace(&self, namespace: &str) {
        loop {
            let left = self.0.left.notified();
            if self.count_of_namespace(namespace) == 0 {
                return;
            }
            left.await;
        }
    }

    fn leave(&self, connection: &LiveConnection) {
        let Some((_, connection)) = self.0.live.remove(&connection.id) else { return };
        self.expire(&connection, None);
        self.0.of_token.remove(&connection.id);
        if let Some(user) = &connection.user {
            self.0.of_user.give_back(user);
        }
        self.0.of_namespace.give_back(&connection.namespace);
        self.0.left.notify_waiters();
        self.0.events.tell("connection.closed", || connection.facts());
    }

    fn expire(&self, connection: &Arc<LiveConnection>, at_ms: Option<i64>) {
        let before_ms = connection.expires_at_ms.swap(at_ms.unwrap_or(NEVER_MS), Ordering::AcqRel);
        if before_ms != NEVER_MS {
            self.0.timers.cancel(before_ms, Due::of(connection));
        }
        if let Some(at_ms) = at_ms {
            self.0.timers.schedule(at_ms, Due::of(connection));
        }
    }
}

impl std::fmt::Debug for ConnectionRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionRegistry").field("live", &self.len()).finish_non_exhaustive()
    }
}

/// An admitted connection. Every idle one has this record, so it is kept small.
pub struct LiveConnection {
    id: u64,
    protocol: &'static str,
    name: Mutex<Arc<str>>,
    user: Option<Arc<str>>,
    is_external: bool,
    namespace: Arc<str>,
    addresses: Addresses,
    is_encrypted: bool,
    listener: Arc<ListenerInfo>,
    since_ms: i64,
    quotas: ConnectionQuotas,
    /// When it is served, if connections came faster than their quota allows.
    served_from: Option<Box<Instant>>,
    is_throttled: AtomicBool,
    expires_at_ms: AtomicI64,
    mailbox: Arc<Mailbox>,
    registry: ConnectionRegistry,
}

impl LiveConnection {
    /// Unique while the broker runs; never given again.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The protocol's name.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// The client id, or the name that the client gave the connection; may be empty.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.name.lock().clone()
    }

    /// Whether this is its name.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        **self.name.lock() == *name
    }

    /// The user's name; none for an anonymous client.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What programs are told of it.
    fn facts(&self) -> Facts {
        let ((peer, local), name) = (self.addresses.both(), self.name());
        let facts = Facts::new([
            ("id", i64::try_from(self.id).unwrap_or(i64::MAX).into()),
            ("name", format!("{peer} -> {local}").into()),
            ("user_provided_name", (&*name).into()),
            ("protocol", self.protocol.into()),
            ("user", self.user().unwrap_or_default().into()),
            ("peer_host", peer.ip().to_string().into()),
            ("peer_port", i64::from(peer.port()).into()),
            ("host", local.ip().to_string().into()),
            ("port", i64::from(local.port()).into()),
            ("ssl", self.is_encrypted.into()),
            ("connected_at", self.since_ms.into()),
        ]);
        facts.within(&self.namespace).by(self.user())
    }

    /// Whom its memory is held for: its user, or the network of an anonymous client.
    fn party(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.user {
            Some(user) => user.hash(&mut hasher),
            None => network_of(self.peer().ip()).hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Whether an outside authority vouches for its user, who is none of the broker's then.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.is_external
    }

    /// Whether its user is one of the broker's.
    pub(crate) fn is_of_own_user(&self, name: &str) -> bool {
        !self.is_external && self.user() == Some(name)
    }

    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.addresses.both().0
    }

    /// The server's address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.addresses.both().1
    }

    /// Whether the bytes travel under TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The listener that accepted it.
    #[must_use]
    pub fn listener(&self) -> &ListenerInfo {
        &self.listener
    }

    /// When it was admitted, milliseconds since 1970.
    #[must_use]
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// The quotas that concern it at present; none: nothing is limited.
    #[must_use]
    pub fn quotas(&self) -> Option<Arc<AppliedQuotas>> {
        self.quotas.applied(|| QuotaScope {
            user: self.user(),
            client_id: self.name(),
            namespace: self.namespace(),
        })
    }

    /// When it is served from, if connections came faster than their quota allows.
    #[must_use]
    pub fn served_from(&self) -> Option<Instant> {
        self.served_from.as_deref().copied()
    }

    /// Whether a quota holds it back at present.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        self.is_throttled.load(Ordering::Relaxed)
    }

    /// Notes whether a quota holds it back.
    pub fn set_throttled(&self, is_throttled: bool) {
        self.is_throttled.store(is_throttled, Ordering::Relaxed);
    }

    /// When what the client proved to be with expires, in steady time; none: never, or its protocol sees to it.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<i64> {
        Some(self.expires_at_ms.load(Ordering::Acquire)).filter(|at_ms| *at_ms != NEVER_MS)
    }

    /// Takes it off the registry: its protocol has told the client that it ends, and it uses nothing of its namespace any
    /// more, though the client has not closed its side yet.
    pub fn leave(&self) {
        self.registry.leave(self);
    }

    /// Asks it to end; its protocol tells the client in its own way. Nothing happens if it ends already.
    pub fn close(&self, reason: CloseReason) {
        self.mailbox.close(reason);
    }
}

impl Timed for LiveConnection {
    fn order(&self) -> u64 {
        self.id
    }

    fn due(self: Arc<Self>, _at_ms: i64, now_ms: i64) {
        if self.expires_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            self.close(CloseReason::CredentialExpired);
        }
    }
}

impl std::fmt::Debug for LiveConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveConnection")
            .field("id", &self.id)
            .field("protocol", &self.protocol)
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

/// The registration of a connection, which the connection holds. Dropping it ends the registration.
#[derive(Debug)]
pub struct ConnectionHandle(Arc<LiveConnection>);

impl ConnectionHandle {
    /// Sets the connection's name, where a protocol learns it after the admission, or with each request.
    pub fn rename(&self, name: &str) {
        *self.0.name.lock() = name.into();
        self.0.quotas.forget();
    }

    /// Sets the delegation token that the client was authenticated by.
    pub(crate) fn set_token(&self, token: Option<&str>) {
        let of_token = &self.0.registry.0.of_token;
        match token {
            Some(token) => _ = of_token.insert(self.0.id, token.into()),
            None => _ = of_token.remove(&self.0.id),
        }
    }

    /// Sets when the connection is closed because its credential expires, in steady time.
    pub fn expire_at(&self, at_ms: Option<i64>) {
        self.0.registry.expire(&self.0, at_ms);
    }
}

impl std::ops::Deref for ConnectionHandle {
    type Target = LiveConnection;

    fn deref(&self) -> &LiveConnection {
        &self.0
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.0.registry.leave(&self.0);
    }
}

/// The client's and the server's address, small for the usual case of version 4.
enum Addresses {
    V4 { peer: [u8; 4], peer_port: u16, local: [u8; 4], local_port: u16 },
    Other(Box<(SocketAddr, SocketAddr)>),
}

impl Addresses {
    fn new(peer: SocketAddr, local: SocketAddr) -> Addresses {
        use std::net::IpAddr::V4;
        match (peer.ip().to_canonical(), local.ip().to_canonical()) {
            (V4(peer_ip), V4(local_ip)) => Addresses::V4 {
                peer: peer_ip.octets(),
                peer_port: peer.port(),
                local: local_ip.octets(),
                local_port: local.port(),
            },
            _ => Addresses::Other(Box::new((peer, local))),
        }
    }

    fn both(&self) -> (SocketAddr, SocketAddr) {
        match self {
            Addresses::V4 { peer, peer_port, local, local_port } => (
                SocketAddrV4::new((*peer).into(), *peer_port).into(),
                SocketAddrV4::new((*local).into(), *local_port).into(),
            ),
            Addresses::Other(both) => **both,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn endpoints(peer: &str) -> Endpoints {
        Endpoints {
            peer: peer.parse().unwrap(),
            local: "[::ffff:127.0.0.1]:1883".parse().unwrap(),
            encrypted: true,
            listener: Arc::new(ListenerInfo { name: "inside".into(), ..ListenerInfo::default() }),
        }
    }

    fn new<'a>(endpoints: &'a Endpoints, mailbox: &'a Arc<Mailbox>, user: &str) -> NewConnection<'a> {
        NewConnection {
            protocol: "p",
            name: "c1".into(),
            user: (!user.is_empty()).then(|| user.into()),
            is_external: false,
            user_connections_max: None,
            namespace: "/".into(),
            namespace_connections_max: None,
            endpoints,
            since_ms: 7,
            quotas: Quotas::in_memory(Clock::manual(0)),
            served_from: None,
            mailbox,
        }
    }

    #[test]
    fn a_connection_is_listed_until_its_handle_is_dropped() {
        let registry = ConnectionRegistry::default();
        let (endpoints, mailbox) = (endpoints("10.0.0.1:5000"), Mailbox::new());
        let handle = registry.register(new(&endpoints, &mailbox, "ann")).unwrap();
        handle.rename("c2");
        let listed = registry.list();
        assert_eq!(
            (listed.len(), registry.count_of_user("ann"), registry.count_of_namespace("/")),
            (1, 1, 1)
        );
        let it = &listed[0];
        assert_eq!((it.protocol(), &*it.name(), it.user(), it.namespace()), ("p", "c2", Some("ann"), "/"));
        assert_eq!((it.peer(), it.local().to_string()), (endpoints.peer, "127.0.0.1:1883".to_owned()));
        assert_eq!((it.is_encrypted(), it.since_ms(), &*it.listener().name), (true, 7, "inside"));
        let id = it.id();
        drop(handle);
        assert!(registry.is_empty() && registry.get(id).is_none());
        assert_eq!((registry.count_of_user("ann"), registry.count_of_namespace("/")), (0, 0));
        assert!(!registry.close(id, CloseReason::Asked("x".into())));
        let again = registry.register(new(&endpoints, &mailbox, "ann")).unwrap();
        assert_ne!(again.id(), id);
    }

    #[test]
    fn memory_is_held_for_the_user_of_the_last_login_or_for_the_network() {
        use inver_storage::Holder;

        let registry = ConnectionRegistry::default();
        let party = |peer: &str, mailbox: &Arc<Mailbox>, user: &str| {
            let _handle = registry.register(new(&endpoints(peer), mailbox, user)).unwrap();
            mailbox.party()
        };
        let (first, second) = (Mailbox::new(), Mailbox::new());
        let network = party("10.0.0.1:5000", &first, "");
        assert_eq!(party("10.0.0.1:6000", &second, ""), network);
        assert_ne!(party("10.9.0.1:6000", &second, ""), network);
        let ann = party("10.0.0.1:5000", &first, "ann");
        assert_ne!(ann, network, "a login after the connection was admitted without a user");
        assert_eq!(party("10.9.0.1:6000", &second, "ann"), ann);
    }

    #[test]
    fn a_limit_refuses_one_more_until_one_leaves() {
        let registry = ConnectionRegistry::default();
        let (endpoints, mailbox) = (endpoints("[2001:db8::1]:5000"), Mailbox::new());
        let limited = |user, of_user, of_namespace| NewConnection {
            user_connections_max: of_user,
            namespace_connections_max: of_namespace,
            ..new(&endpoints, &mailbox, user)
        };
        let first = registry.register(limited("ann", Some(1), None)).unwrap();
        assert_eq!(first.peer(), endpoints.peer);
        assert_eq!(registry.register(limited("ann", Some(1), None)).err(), Some(Full::User(1)));
        // The refused connection counts nowhere.
        assert_eq!(registry.count_of_namespace("/"), 1);
        assert_eq!(registry.register(limited("bob", Some(1), Some(1))).err(), Some(Full::Namespace(1)));
        assert_eq!(registry.register(limited("bob", Some(0), None)).err(), Some(Full::User(0)));
        assert_eq!(registry.count_of_user("bob"), 0);
        drop(first);
        assert!(registry.register(limited("ann", Some(1), Some(1))).is_ok());
    }

    #[tokio::test]
    async fn selected_connections_are_told_why_they_end() {
        let registry = ConnectionRegistry::default();
        let endpoints = endpoints("10.0.0.1:5000");
        let (of_ann, of_bob) = (Mailbox::new(), Mailbox::new());
        let ann = registry.register(new(&endpoints, &of_ann, "ann")).unwrap();
        let _bob = registry.register(new(&endpoints, &of_bob, "bob")).unwrap();
        let reason = CloseReason::UserDeleted("ann".into());
        assert_eq!(registry.close_where(|connection| connection.user() == Some("ann"), &reason), 1);
        of_ann.wait().await;
        // The first reason holds.
        registry.close(ann.id(), CloseReason::Asked("later".into()));
        assert_eq!((of_ann.closing(), of_bob.closing()), (Some(reason), None));
    }

    #[tokio::test]
    async fn a_connection_whose_credential_expires_is_asked_to_end() {
        let timers = Arc::<Timers<Due>>::default();
        let registry = ConnectionRegistry::new(timers.clone(), Events::default());
        let (endpoints, mailbox) = (endpoints("10.0.0.1:5000"), Mailbox::new());
        let run = |now_ms: i64| {
            let due = timers.take(now_ms);
            let count = due.len();
            due.into_iter().for_each(|(at_ms, due)| due.run(at_ms, now_ms));
            count
        };
        let handle = registry.register(new(&endpoints, &mailbox, "ann")).unwrap();
        handle.expire_at(Some(100));
        handle.expire_at(Some(200));
        assert_eq!((run(150), mailbox.closing()), (0, None), "it was renewed");
        assert_eq!((run(200), mailbox.closing()), (1, Some(CloseReason::CredentialExpired)));
        handle.expire_at(Some(300));
        drop(handle);
        assert_eq!(run(400), 0, "nothing is left of a connection that ended");
    }

    #[tokio::test]
    async fn the_end_of_all_connections_of_a_namespace_can_be_waited_for() {
        let registry = ConnectionRegistry::default();
        let (endpoints, mailbox) = (endpoints("10.0.0.1:5000"), Mailbox::new());
        registry.wait_for_none_of_namespace("/").await;
        let handle = registry.register(new(&endpoints, &mailbox, "")).unwrap();
        let mut waiting = Box::pin(registry.wait_for_none_of_namespace("/"));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut waiting).await.is_err());
        drop(handle);
        waiting.await;
    }

    #[test]
    fn records_are_small() {
        assert!(size_of::<LiveConnection>() <= 184, "a record: {}", size_of::<LiveConnection>());
        assert_eq!(size_of::<ConnectionHandle>(), 8);
    }
}
