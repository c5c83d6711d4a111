//! An event of the audit log and its two forms: a log line and a JSON object.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::Serialize;

/// Bytes of a name or reason in an event; what is longer is cut.
const TEXT_BYTES_MAX: usize = 1024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditKind {
    /// A client logged in, or was refused.
    Login,
    /// A permission was missing.
    Denied,
    /// Something durable was made or changed: a topic, queue, exchange, binding, session, subscription or namespace.
    Topology,
    /// Something was made, changed or deleted that ends with its connection, or a subscription of a session.
    Transient,
    /// A user, permission, quota or token was made, changed or deleted.
    Access,
    /// Something durable or its messages were deleted.
    Deleted,
}

impl AuditKind {
    /// All kinds.
    pub const ALL: [AuditKind; 6] = [
        AuditKind::Login,
        AuditKind::Denied,
        AuditKind::Topology,
        AuditKind::Transient,
        AuditKind::Access,
        AuditKind::Deleted,
    ];

    /// Its name in events and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AuditKind::Login => "login",
            AuditKind::Denied => "denied",
            AuditKind::Topology => "topology",
            AuditKind::Transient => "transient",
            AuditKind::Access => "access",
            AuditKind::Deleted => "deleted",
        }
    }

    /// Whether anybody can cause such events, without any permission.
    pub(super) fn is_anybodys(self) -> bool {
        matches!(self, AuditKind::Login | AuditKind::Denied)
    }

    /// Whether its log lines may be suppressed, while the topic has all such events.
    pub(super) fn is_change(self) -> bool {
        matches!(self, AuditKind::Topology | AuditKind::Transient | AuditKind::Deleted)
    }

    fn message(self, result: AuditResult) -> &'static str {
        match (self, result) {
            (AuditKind::Login, AuditResult::Accepted) => "client connected",
            (AuditKind::Login, AuditResult::Refused) => "login refused",
            (AuditKind::Denied, _) => "permission denied",
            (AuditKind::Topology | AuditKind::Transient | AuditKind::Access, _) => "changed",
            (AuditKind::Deleted, _) => "deleted",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// A set of kinds. The default is all but [`AuditKind::Transient`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditKinds(u8);

impl AuditKinds {
    /// Whether a kind is in it.
    #[must_use]
    pub fn contains(self, kind: AuditKind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl FromIterator<AuditKind> for AuditKinds {
    fn from_iter<I: IntoIterator<Item = AuditKind>>(kinds: I) -> AuditKinds {
        AuditKinds(kinds.into_iter().fold(0, |set, kind| set | kind.bit()))
    }
}

impl Default for AuditKinds {
    fn default() -> AuditKinds {
        AuditKind::ALL.into_iter().filter(|kind| *kind != AuditKind::Transient).collect()
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditResult {
    /// It was done.
    Accepted,
    /// It was refused.
    Refused,
}

impl AuditResult {
    pub(super) fn name(self) -> &'static str {
        match self {
            AuditResult::Accepted => "accepted",
            AuditResult::Refused => "refused",
        }
    }
}

/// Who did it. The broker's own acts have neither protocol nor address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// The protocol's name.
    pub protocol: &'a str,
    /// The user; none for an anonymous client.
    pub user: Option<&'a str>,
    /// The client id or connection name.
    pub client_id: Option<&'a str>,
    /// The address that the client connected from; port 0: the port is not known.
    pub address: Option<SocketAddr>,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEvent<'a> {
    /// What it is about.
    pub kind: AuditKind,
    /// What became of it.
    pub result: AuditResult,
    /// Who did it.
    pub who: Who<'a>,
    /// What was done, such as `create`.
    pub operation: &'a str,
    /// The kind of what it was done to, such as `queue`.
    pub resource: &'a str,
    /// The name of what it was done to.
    pub name: &'a str,
    /// The namespace of what it was done to.
    pub namespace: Option<&'a str>,
    /// The permission rule that decided.
    pub rule: Option<u64>,
    /// Why it was refused, or what was changed.
    pub reason: Option<&'a str>,
}

/// An event in JSON. Fields that are not known are left out.
#[derive(Serialize)]
struct Json<'a> {
    time_ms: i64,
    event: &'a str,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    operation: &'a str,
    resource: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<u64>,
}

impl AuditEvent<'_> {
    fn json_of(&self, time_ms: i64, suppressed: u64) -> Json<'_> {
        let Who { protocol, user, client_id, address } = self.who;
        let known = |text: &&str| !text.is_empty();
        Json {
            time_ms,
            event: self.kind.name(),
            result: self.result.name(),
            protocol: Some(protocol).filter(known),
            client_id: client_id.filter(known).map(cut),
            user: user.map(cut),
            address: address.map(show),
            operation: self.operation,
            resource: self.resource,
            name: cut(self.name),
            namespace: self.namespace.map(cut),
            rule: self.rule,
            reason: self.reason.map(cut),
            suppressed: (suppressed > 0).then_some(suppressed),
        }
    }

    /// Writes it to the log. `suppressed` lines before it were not written.
    pub(super) fn log(&self, suppressed: u64) {
        let Json {
            event,
            result,
            protocol,
            client_id,
            user,
            address,
            operation,
            resource,
            name,
            namespace,
            rule,
            reason,
            suppressed,
            time_ms: _,
        } = self.json_of(0, suppressed);
        let address = address.map(tracing::field::display);
        tracing::info!(
            target: "inver::audit",
            protocol, client_id, user, address, reason, event, result, operation, resource, name, namespace, rule,
            suppressed, "{}", self.kind.message(self.result)
        );
    }

    /// Its JSON.
    pub(super) fn json(&self, time_ms: i64, suppressed: u64) -> Bytes {
        // A map of texts and numbers can always be written.
        serde_json::to_vec(&self.json_of(time_ms, suppressed)).unwrap_or_default().into()
    }
}

fn show(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_canonical().to_string(),
        port => SocketAddr::new(address.ip().to_canonical(), port).to_string(),
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default()
}
