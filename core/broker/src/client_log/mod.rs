//! Log lines about clients, in one form for all protocols: login, refusal, disconnect, refused requests.
//!
//! Owns the form of these lines and the count of logins. A line names protocol, client identifier, user, address and
//! reason. Logins are written to the audit log instead where that has them. Does not own why something is refused.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;

use metrics::counter;
use tokio::time::Instant;

use crate::audit::{Audit, AuditEvent, AuditKind, AuditResult, Who};
use crate::clock::Clock;
use crate::events::Facts;
use crate::identity::AuthError;
use crate::line_limit::{ClientLogLimits, LineLimits};
use crate::telemetry::LOGINS;

/// Bytes of a name or reason in a line; what is longer is cut.
const TEXT_BYTES_MAX: usize = 256;

/// The lines about all clients of a broker.
pub struct ClientLog {
    clock: Clock,
    lines: LineLimits,
    audit: Audit,
}

impl fmt::Debug for ClientLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLog").finish_non_exhaustive()
    }
}

/// Why a login was refused: the label `reason` of `inver_logins_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// An unknown user or a wrong password.
    Credentials,
    /// Users are configured and the client gave no credentials.
    CredentialsRequired,
    /// No users are configured and the client is not on this machine.
    LoopbackOnly,
    /// The user may not connect, or not to the namespace that it asked for.
    NotPermitted,
    /// A limit is reached.
    Limit,
    /// The client did not follow its protocol.
    Protocol,
    /// The client did not log in in time.
    Timeout,
    /// Too many logins of the user from this address failed before.
    TooManyFailures,
    /// The broker failed, or had no time for the login.
    Unavailable,
}

impl LoginRefusal {
    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            LoginRefusal::Credentials => "credentials",
            LoginRefusal::CredentialsRequired => "credentials_required",
            LoginRefusal::LoopbackOnly => "loopback_only",
            LoginRefusal::NotPermitted => "not_permitted",
            LoginRefusal::Limit => "limit",
            LoginRefusal::Protocol => "protocol",
            LoginRefusal::Timeout => "timeout",
            LoginRefusal::TooManyFailures => "too_many_failures",
            LoginRefusal::Unavailable => "unavailable",
        }
    }
}

impl From<&AuthError> for LoginRefusal {
    fn from(error: &AuthError) -> LoginRefusal {
        match error {
            AuthError::Refused | AuthError::Token(_) | AuthError::Certificate => LoginRefusal::Credentials,
            AuthError::LoopbackOnly => LoginRefusal::LoopbackOnly,
            AuthError::CredentialsRequired => LoginRefusal::CredentialsRequired,
            AuthError::Busy => LoginRefusal::Unavailable,
            AuthError::TooManyFailures => LoginRefusal::TooManyFailures,
        }
    }
}

impl ClientLog {
    /// Lines within these limits; logins go to the audit log.
    #[must_use]
    pub fn new(clock: Clock, limits: ClientLogLimits, audit: Audit) -> ClientLog {
        ClientLog { clock, lines: LineLimits::new(limits), audit }
    }

    /// A client that has connected. Writes no line yet.
    #[must_use]
    pub fn client(self: &Arc<Self>, protocol: &'static str, address: SocketAddr) -> LoggedClient {
        LoggedClient(Box::new(Client {
            log: self.clone(),
            protocol,
            address,
            client_id: None,
            user: None,
            since: self.clock.now(),
            state: State::Connected,
        }))
    }

    fn admit(&self, address: SocketAddr, is_request: bool) -> Option<u64> {
        self.lines.admit(address, is_request, self.clock.now())
    }

    /// Writes how many lines were suppressed since the last one of an address or connection. Called periodically.
    pub(crate) fn sweep(&self) {
        let mut untold = self.lines.sweep(self.clock.now());
        untold.extend(self.audit.sweep());
        for (address, suppressed) in untold {
            let address = address.map(tracing::field::display);
            tracing::info!(address, suppressed, "log lines suppressed");
        }
    }
}

/// A client in the log, for as long as it is connected. Dropping it without [`ended`](LoggedClient::ended) says that the
/// connection was dropped.
pub struct LoggedClient(Box<Client>);

struct Client {
    log: Arc<ClientLog>,
    protocol: &'static str,
    address: SocketAddr,
    client_id: Option<Box<str>>,
    user: Option<Box<str>>,
    since: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not logged in.
    Connected,
    LoggedIn,
    /// The line about its end, or about its refusal, was written.
    Over,
}

impl fmt::Debug for LoggedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { protocol, address, state, .. } = &*self.0;
        f.debug_struct("LoggedClient")
            .field("protocol", protocol)
            .field("address", address)
            .field("state", state)
            .finish()
    }
}

/// `text`, cut after [`TEXT_BYTES_MAX`] bytes.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default()
}

impl Client {
    /// Tells programs of its login, or why that was refused.
    fn tell(&self, name: &'static str, error: Option<&str>) {
        self.log.audit.events().tell(name, || {
            let mut facts = Facts::new([
                ("name", self.user.as_deref().unwrap_or_default().into()),
                ("protocol", self.protocol.into()),
                ("peer_host", self.address.ip().to_canonical().to_string().into()),
                ("peer_port", i64::from(self.address.port()).into()),
                ("user_provided_name", self.client_id.as_deref().unwrap_or_default().into()),
            ]);
            facts.more.extend(error.map(|error| ("error".to_owned(), error.into())));
            facts
        });
    }

    /// Its login, not accepted.
    fn login(&self) -> AuditEvent<'_> {
        AuditEvent {
            kind: AuditKind::Login,
            result: AuditResult::Refused,
            who: Who {
                protocol: self.protocol,
                user: self.user.as_deref(),
                client_id: self.client_id.as_deref(),
                address: Some(self.address),
            },
            operation: "connect",
            resource: "broker",
            name: "",
            namespace: None,
            rule: None,
            reason: None,
        }
    }
}

impl LoggedClient {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Whether it has logged in.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.0.state == State::LoggedIn
    }

    /// The client gave an identifier, such as the client id of MQTT or Kafka or the connection name of AMQP.
    pub fn identify(&mut self, client_id: &str) {
        self.0.client_id = (!client_id.is_empty()).then(|| cut(client_id).into());
    }

    /// The client gave the name of a user; it is not authenticated yet.
    pub fn claim_user(&mut self, user: Option<&str>) {
        self.0.user = user.filter(|user| !user.is_empty()).map(|user| cut(user).into());
    }

    /// The client is logged in as `user`, to a namespace. Does nothing for one that is.
    pub fn logged_in(&mut self, user: Option<&str>, namespace: &str) {
        if self.is_logged_in() {
            return;
        }
        self.claim_user(user);
        let client = &mut *self.0;
        client.state = State::LoggedIn;
        counter!(LOGINS, "protocol" => client.protocol, "result" => "accepted", "reason" => "").increment(1);
        client.tell("user.authentication.success", None);
        if client.log.audit.wants(AuditKind::Login) {
            let result = AuditResult::Accepted;
            client.log.audit.record(&AuditEvent { result, namespace: Some(namespace), ..client.login() });
            return;
        }
        if let Some(suppressed) = client.log.admit(client.address, false) {
            let Client { protocol, address, .. } = client;
            let (client_id, user) = (client.client_id.as_deref(), client.user.as_deref());
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::info!(protocol, client_id, user, %address, suppressed, "client connected");
        }
    }

    /// The client's login is refused; its end writes no line.
    pub fn login_refused(&mut self, reason: LoginRefusal, text: &dyn Display) {
        let client = &mut *self.0;
        if client.state != State::Connected {
            return;
        }
        client.state = State::Over;
        let label = reason.label();
        counter!(LOGINS, "protocol" => client.protocol, "result" => "refused", "reason" => label)
            .increment(1);
        let text = text.to_string();
        let reason = cut(&text);
        client.tell("user.authentication.failure", Some(reason));
        if client.log.audit.wants(AuditKind::Login) {
            client.log.audit.record(&AuditEvent { reason: Some(reason), ..client.login() });
            return;
        }
        if let Some(suppressed) = client.log.admit(client.address, false) {
            let Client { protocol, address, .. } = client;
            let (client_id, user) = (client.client_id.as_deref(), client.user.as_deref());
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::info!(protocol, client_id, user, %address, reason, suppressed, "login refused");
        }
    }

    /// The connection ended because of an error: a refused login for a client that was not logged in.
    pub fn failed(&mut self, reason: LoginRefusal, text: &dyn Display) {
        if self.is_logged_in() { self.ended(text) } else { self.login_refused(reason, text) }
    }

    /// A request of the client is refused, and the connection stays open.
    pub fn request_refused(&self, request: &str, reason: &dyn Display) {
        let client = &*self.0;
        if let Some(suppressed) = client.log.admit(client.address, true) {
            let Client { protocol, address, .. } = client;
            let (client_id, user) = (client.client_id.as_deref(), client.user.as_deref());
            let suppressed = (suppressed > 0).then_some(suppressed);
            let text = reason.to_string();
            let reason = cut(&text);
            tracing::info!(protocol, client_id, user, %address, request, reason, suppressed, "request refused");
        }
    }

    /// The connection has ended. For a client that has not logged in this is a line at `debug` only, since health checks
    /// connect and send nothing.
    pub fn ended(&mut self, reason: &dyn Display) {
        let client = &mut *self.0;
        let state = std::mem::replace(&mut client.state, State::Over);
        let Client { protocol, address, .. } = client;
        match state {
            State::Over => {}
            State::Connected => {
                let reason = reason.to_string();
                tracing::debug!(protocol, %address, reason, "client disconnected before login");
            }
            State::LoggedIn => {
                let Some(suppressed) = client.log.admit(*address, false) else { return };
                let (client_id, user) = (client.client_id.as_deref(), client.user.as_deref());
                let suppressed = (suppressed > 0).then_some(suppressed);
                let seconds = client.log.clock.now().saturating_duration_since(client.since).as_secs();
                let text = reason.to_string();
                let reason = cut(&text);
                tracing::info!(
                    protocol, client_id, user, %address, reason, seconds, suppressed, "client disconnected"
                );
            }
        }
    }
}

impl Drop for LoggedClient {
    fn drop(&mut self) {
        self.ended(&"connection dropped");
    }
}

#[cfg(test)]
mod tests;
