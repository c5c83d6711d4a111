//! The handshake, from the protocol header to `connection.open` (AMQP 0-9-1, section 2.2.4). A state machine of its
//! own, because its peers are not authenticated.

use inver_broker::Credentials;

use super::limits::Limits;
use crate::codec::table::{Table, TableWriter, Value};
use crate::codec::{Method, PROTOCOL_HEADER, write};
use crate::error::{Refusal, ReplyCode};

/// The product and version whose behaviour this broker has. Clients switch features and workarounds by version, if they
/// know the product; our own name and version are in `platform`. See docs/decisions/0004.
const PRODUCT: &str = "RabbitMQ";
/// The version of RabbitMQ that clients are told: some decide by it what they may use.
pub const RABBITMQ_VERSION: &str = "4.0.5";

/// The mechanisms that a connection can use beside those with a password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mechanisms {
    /// The user that the client's certificate names.
    pub(super) certificate_user: Option<String>,
    /// Whether the client is let in without credentials.
    pub(super) is_anonymous: bool,
}

impl Mechanisms {
    /// The mechanisms offered.
    fn names(&self) -> String {
        let more = [(self.certificate_user.is_some(), " EXTERNAL"), (self.is_anonymous, " ANONYMOUS")];
        let more = more.into_iter().filter(|(is_possible, _)| *is_possible).map(|(_, name)| name);
        std::iter::once("PLAIN AMQPLAIN").chain(more).collect()
    }

    /// The credentials in a response.
    fn credentials(&self, mechanism: &str, response: &[u8]) -> Result<Credentials, Refusal> {
        match (mechanism, &self.certificate_user) {
            ("PLAIN", _) => plain(response),
            ("AMQPLAIN", _) => amqplain(response),
            ("ANONYMOUS", _) if self.is_anonymous => Ok(Credentials::Anonymous),
            ("EXTERNAL", Some(user)) => Ok(Credentials::Certificate { user: user.clone() }),
            // RabbitMQ's words for a mechanism that it knows and does not offer.
            ("ANONYMOUS" | "RABBIT-CR-DEMO", _) => {
                Err(Refusal::command_invalid(format_args!("invalid authentication mechanism '{mechanism}'")))
            }
            _ => {
                Err(Refusal::command_invalid(format_args!("unknown authentication mechanism '{mechanism}'")))
            }
        }
    }
}

/// The smallest `frame_max` that may be negotiated: the specification's.
const FRAME_MAX_MIN: u32 = 4096;

/// The verdict on the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// More bytes are needed.
    NeedMore,
    /// AMQP 0-9-1, or 0-9, which is the same as far as this broker is concerned.
    Accepted,
    /// Another protocol: the reply is the supported protocol header, and the connection is closed.
    Refused,
}

/// Checks the first bytes.
pub(super) fn opening(input: &[u8]) -> Opening {
    const AMQP_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";
    let known = input.len().min(4);
    if input.get(..known) != PROTOCOL_HEADER.get(..known) {
        return Opening::Refused;
    }
    match input.get(..8) {
        None => Opening::NeedMore,
        Some(header) if header == PROTOCOL_HEADER || header == AMQP_0_9 => Opening::Accepted,
        Some(_) => Opening::Refused,
    }
}

/// The phase of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for the protocol header.
    Header,
    /// Waiting for `connection.start-ok`.
    StartOk,
    /// Waiting for the authenticator.
    Authenticating,
    /// Waiting for `connection.tune-ok`.
    TuneOk,
    /// Waiting for `connection.open`.
    Open,
}

/// The client's capabilities, as far as they matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// `basic.cancel` may be sent for consumers that the broker cancels.
    pub(super) consumer_cancel_notify: bool,
    /// `connection.blocked` may be sent.
    pub(super) connection_blocked: bool,
    /// `connection.close` is expected when the login fails.
    pub(super) authentication_failure_close: bool,
}

/// The negotiated parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuned {
    /// The size of the largest frame.
    pub(super) frame_max: u32,
    /// The greatest number of channels.
    pub(super) channel_max: u16,
    /// The heartbeat interval in seconds; 0 for none.
    pub(super) heartbeat_s: u16,
}

/// The next step of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Read on.
    Continue,
    /// Check the credentials, then call [`Handshake::authenticated`].
    Authenticate(Credentials),
    /// Open the connection.
    Open {
        /// The virtual host.
        vhost: String,
    },
}

/// The handshake of a connection.
#[derive(Debug)]
pub(super) struct Handshake {
    phase: Phase,
    mechanisms: Mechanisms,
    mechanism: String,
    /// The name that the client gave the connection; may be empty.
    pub(super) connection_name: String,
    /// The client's capabilities.
    pub(super) capabilities: Capabilities,
    /// The negotiated parameters; before, those offered.
    pub(super) tuned: Tuned,
}

impl Handshake {
    /// A handshake that waits for the protocol header.
    pub(super) fn new(limits: &Limits, mechanisms: Mechanisms) -> Self {
        Handshake {
            phase: Phase::Header,
            mechanisms,
            mechanism: String::new(),
            connection_name: String::new(),
            capabilities: Capabilities::default(),
            tuned: Tuned {
                frame_max: limits.frame_bytes_max,
                channel_max: limits.channels_max,
                heartbeat_s: limits.heartbeat_s,
            },
        }
    }

    /// The phase.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Accepts the protocol header and offers the mechanisms.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        let mut properties = Vec::new();
        server_properties(&mut properties);
        write::method(
            out,
            0,
            &Method::ConnectionStart {
                version_major: 0,
                version_minor: 9,
                server_properties: Table::of(&properties),
                mechanisms: self.mechanisms.names().as_bytes(),
                locales: b"en_US",
            },
        );
        self.phase = Phase::StartOk;
    }

    /// Processes a method on channel 0.
    pub(super) fn method(&mut self, method: &Method<'_>, limits: &Limits) -> Result<Step, Refusal> {
        match (self.phase, method) {
            (Phase::StartOk, Method::ConnectionStartOk { client_properties, mechanism, response, .. }) => {
                self.capabilities = capabilities(*client_properties);
                self.mechanism = (*mechanism).to_owned();
                if let Some(Value::Text(name)) = client_properties.get("connection_name") {
                    self.connection_name = String::from_utf8_lossy(name).into_owned();
                }
                let credentials = self.mechanisms.credentials(mechanism, response)?;
                self.phase = Phase::Authenticating;
                Ok(Step::Authenticate(credentials))
            }
            (Phase::TuneOk, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }) => {
                self.tune(limits, *frame_max, *channel_max, *heartbeat)?;
                self.phase = Phase::Open;
                Ok(Step::Continue)
            }
            (Phase::Open, Method::ConnectionOpen { virtual_host, .. }) => {
                Ok(Step::Open { vhost: (*virtual_host).to_owned() })
            }
            (phase, _) => Err(Refusal::channel_error(format_args!(
                "unexpected method in connection state {}",
                match phase {
                    Phase::Header => "pre_init",
                    Phase::StartOk => "starting",
                    Phase::Authenticating => "securing",
                    Phase::TuneOk => "tuning",
                    Phase::Open => "opening",
                }
            ))),
        }
    }

    /// Takes the authenticator's decision. On success `connection.tune` is sent.
    pub(super) fn authenticated(
        &mut self,
        good: bool,
        reason: Option<&str>,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if !good {
            let reason = reason.map_or_else(
                || {
                    format!(
                        "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                        self.mechanism
                    )
                },
                str::to_owned,
            );
            return Err(Refusal::access_refused(reason));
        }
        write::method(
            out,
            0,
            &Method::ConnectionTune {
                channel_max: limits.channels_max,
                frame_max: limits.frame_bytes_max,
                heartbeat: limits.heartbeat_s,
            },
        );
        self.phase = Phase::TuneOk;
        Ok(())
    }

    fn tune(
        &mut self,
        limits: &Limits,
        frame_max: u32,
        channel_max: u16,
        heartbeat_s: u16,
    ) -> Result<(), Refusal> {
        negotiated("frame_max", frame_max, FRAME_MAX_MIN, limits.frame_bytes_max)?;
        negotiated("channel_max", channel_max.into(), 1, limits.channels_max.into())?;
        self.tuned = Tuned { frame_max, channel_max, heartbeat_s };
        Ok(())
    }
}

fn negotiated(field: &str, value: u32, min: u32, max: u32) -> Result<(), Refusal> {
    let refuse = |how: &str, which: &str, bound: u32| {
        let text = format!("negotiated {field} = {value} is {how} than the {which} allowed value ({bound})");
        Err(Refusal::not_allowed(text).at((10, 30)))
    };
    match value {
        0 => refuse("higher", "maximum", max),
        value if value > max => refuse("higher", "maximum", max),
        value if value < min => refuse("lower", "minimum", min),
        _ => Ok(()),
    }
}

fn server_properties(out: &mut Vec<u8>) {
    let mut capabilities = Vec::new();
    let mut table = TableWriter::new(&mut capabilities);
    for capability in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        table.field(capability.as_bytes(), Value::Bool(true));
    }
    let platform = concat!("Inver ", env!("CARGO_PKG_VERSION"));
    let mut table = TableWriter::new(out);
    table.field(b"capabilities", Value::Table(Table::of(&capabilities)));
    for (name, text) in [
        ("cluster_name", "inver"),
        ("copyright", "The Inver authors"),
        ("information", "Inver, a broker that speaks AMQP 0-9-1 as RabbitMQ does. It is not RabbitMQ."),
        ("platform", platform),
        ("product", PRODUCT),
        ("version", RABBITMQ_VERSION),
    ] {
        table.field(name.as_bytes(), Value::Text(text.as_bytes()));
    }
}

fn capabilities(client_properties: Table<'_>) -> Capabilities {
    let Some(Value::Table(table)) = client_properties.get("capabilities") else {
        return Capabilities::default();
    };
    let can = |name: &str| table.get(name) == Some(Value::Bool(true));
    Capabilities {
        consumer_cancel_notify: can("consumer_cancel_notify"),
        connection_blocked: can("connection.blocked"),
        authentication_failure_close: can("authentication_failure_close"),
    }
}

/// RFC 4616: authorization identity (ignored), NUL, user, NUL, password.
fn plain(response: &[u8]) -> Result<Credentials, Refusal> {
    let mut parts = response.split(|byte| *byte == 0);
    let (Some(_), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::new(ReplyCode::SyntaxError, "response of mechanism PLAIN invalid"));
    };
    Ok(password_of(user, password))
}

/// A field table without its length, with the fields `LOGIN` and `PASSWORD`.
fn amqplain(response: &[u8]) -> Result<Credentials, Refusal> {
    crate::codec::table::validate(response)?;
    let table = Table::of(response);
    match (table.get("LOGIN"), table.get("PASSWORD")) {
        (
            Some(Value::Text(user) | Value::Binary(user)),
            Some(Value::Text(password) | Value::Binary(password)),
        ) => Ok(password_of(user, password)),
        (Some(_), Some(_)) => Err(Refusal::new(
            ReplyCode::SyntaxError,
            "AMQPLAIN auth info uses unsupported type for LOGIN or PASSWORD field",
        )),
        _ => {
            Err(Refusal::new(ReplyCode::SyntaxError, "AMQPLAIN auth info is missing LOGIN or PASSWORD field"))
        }
    }
}

fn password_of(user: &[u8], password: &[u8]) -> Credentials {
    Credentials::Password { user: String::from_utf8_lossy(user).into_owned(), password: password.to_vec() }
}

#[cfg(test)]
mod tests;
