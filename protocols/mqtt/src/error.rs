//! Why a connection ends, and why a CONNECT is refused.

use inver_access::scram::ScramError;
use inver_broker::{
    AdmitError, AuthError, CloseReason, LoginRefusal, PublishError, ScramLoginError, SessionError,
};
use inver_storage::{LogError, SubmitError};

use crate::codec::{DecodeError, Reason};
use crate::map::ORIGIN;

/// The end of a connection. All but [`Stop::Disconnected`] publish the will [MQTT-3.1.2-8].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("client sent DISCONNECT")]
    Disconnected,
    /// Malformed bytes, or a packet that the protocol forbids here.
    #[error("{0}")]
    Violation(#[from] DecodeError),
    #[error("no packet within one and a half keep alive intervals [MQTT-3.1.2-22]")]
    KeepAliveTimeout,
    /// There is no memory for the packet that it has begun to send.
    #[error("memory is used up")]
    NoMemory,
    #[error("session taken over by another connection")]
    TakenOver,
    #[error("server is shutting down")]
    ShuttingDown,
    /// The broker closes the connection: its user or namespace is gone, or an operator asked for it.
    #[error("{0}")]
    Closed(CloseReason),
    /// A refused publish of a client whose PUBACK cannot carry a reason (before MQTT 5).
    #[error("message rejected by a full queue")]
    QueueFull,
    /// They would hold up all behind them, and the client is to know.
    #[error("the next messages of the client cannot be read: the log is damaged or the disk fails")]
    Unreadable,
    /// The client did not prove again who it is.
    #[error("re-authentication failed: {0}")]
    Scram(#[from] ScramLoginError),
    /// Its new token is not accepted.
    #[error("re-authentication failed: {0}")]
    Token(AuthError),
    /// It proved to be another user, or one that is gone.
    #[error("re-authentication failed: the client is not the user of the connection any more")]
    OtherUser,
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("log write rejected: {0}")]
    Write(#[from] SubmitError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Stop {
    /// The reason code for a DISCONNECT; `None` where no DISCONNECT is sent.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Stop::Disconnected | Stop::QueueFull => None,
            Stop::Violation(error) => Some(error.reason),
            Stop::Scram(ScramLoginError::Unsupported) => Some(Reason::ProtocolError),
            Stop::Scram(ScramLoginError::TooManyFailures) => Some(Reason::ServerBusy),
            Stop::Scram(_) | Stop::Token(_) | Stop::OtherUser => Some(Reason::NotAuthorized),
            Stop::KeepAliveTimeout => Some(Reason::KeepAliveTimeout),
            Stop::NoMemory => Some(Reason::QuotaExceeded),
            Stop::TakenOver => Some(Reason::SessionTakenOver),
            Stop::ShuttingDown => Some(Reason::ServerShuttingDown),
            Stop::Closed(CloseReason::CredentialExpired) => Some(Reason::MaximumConnectTime),
            Stop::Closed(_) => Some(Reason::AdministrativeAction),
            Stop::Unreadable => Some(Reason::ImplementationSpecific),
            Stop::Publish(_) | Stop::Write(_) | Stop::Log(_) => Some(Reason::Unspecified),
        }
    }
}

/// Counts a reason code that a client is told of.
pub(crate) fn count_reason(reason: Reason) {
    inver_driver::count_error(ORIGIN, format!("{:#04x}", reason as u8));
}

/// Why a CONNECT is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Packet(#[from] DecodeError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// SCRAM failed.
    #[error(transparent)]
    Scram(#[from] ScramLoginError),
    #[error(transparent)]
    Admit(#[from] AdmitError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("log write rejected: {0}")]
    Write(#[from] SubmitError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Refusal {
    /// The reason in metrics.
    pub(crate) fn login_refusal(&self) -> LoginRefusal {
        match self {
            Refusal::Packet(error) if error.reason == Reason::NotAuthorized => LoginRefusal::NotPermitted,
            Refusal::Packet(_) => LoginRefusal::Protocol,
            Refusal::Auth(error) => error.into(),
            Refusal::Scram(ScramLoginError::Unsupported) => LoginRefusal::Protocol,
            Refusal::Scram(ScramLoginError::TooManyFailures) => LoginRefusal::TooManyFailures,
            Refusal::Scram(_) => LoginRefusal::Credentials,
            Refusal::Admit(error) => error.login_refusal(),
            Refusal::Session(SessionError::OtherOwner) => LoginRefusal::NotPermitted,
            Refusal::Session(SessionError::Limit(_)) => LoginRefusal::Limit,
            Refusal::Session(_) | Refusal::Write(_) | Refusal::Log(_) => LoginRefusal::Unavailable,
        }
    }

    /// The reason code for CONNACK (section 3.2.2.2).
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Refusal::Packet(error) => error.reason,
            Refusal::Auth(AuthError::Refused | AuthError::Token(_)) => Reason::BadUserNameOrPassword,
            Refusal::Auth(AuthError::Busy | AuthError::TooManyFailures) => Reason::ServerBusy,
            Refusal::Auth(
                AuthError::LoopbackOnly | AuthError::CredentialsRequired | AuthError::Certificate,
            ) => Reason::NotAuthorized,
            Refusal::Scram(error) => scram_reason(error),
            Refusal::Admit(AdmitError::UserConnections { .. } | AdmitError::NamespaceConnections { .. })
            | Refusal::Session(SessionError::Limit(_)) => Reason::QuotaExceeded,
            Refusal::Admit(AdmitError::Banned) => Reason::Banned,
            Refusal::Admit(AdmitError::NoMemory) => Reason::ServerBusy,
            Refusal::Admit(AdmitError::ConnectionRate) => Reason::ConnectionRateExceeded,
            Refusal::Admit(_) | Refusal::Session(SessionError::OtherOwner) => Reason::NotAuthorized,
            Refusal::Session(_) | Refusal::Write(_) | Refusal::Log(_) => Reason::ServerUnavailable,
        }
    }
}

fn scram_reason(error: &ScramLoginError) -> Reason {
    match error {
        ScramLoginError::Unsupported => Reason::BadAuthenticationMethod,
        ScramLoginError::TooManyFailures => Reason::ServerBusy,
        ScramLoginError::Failed(ScramError::Proof) | ScramLoginError::TokenOver => {
            Reason::BadUserNameOrPassword
        }
        ScramLoginError::OtherUser | ScramLoginError::Failed(_) => Reason::NotAuthorized,
    }
}
