//! The login: `PeerProperties`, `SaslHandshake`, `SaslAuthenticate`, `Tune`, `Open`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use inver_broker::{Admission, AdmitError, AuthError, Credentials, Endpoints, Identity};
use tokio::time::Instant;

use super::{Ended, Opened, Session};
use crate::codec::frame::{self, Code, key};
use crate::codec::request::Request;
use crate::codec::wire::{Malformed, Reader, put_map, put_strings};
use crate::map::ORIGIN;

/// For how long the answer to `Open` may wait where connections come faster than a quota allows.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// The name of a connection that a client gives itself.
const CONNECTION_NAME: &str = "connection_name";

type Check = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send>>;

/// How far the login has come.
pub(super) struct Login {
    due: Instant,
    connection_name: String,
    /// Credentials are being checked; the correlation id of the answer.
    check: Option<(u32, Check)>,
    verdict: Option<(u32, Result<Identity, AuthError>)>,
    identity: Option<Identity>,
    is_tuned: bool,
}

impl Login {
    pub(super) fn new(due: Instant) -> Login {
        Login {
            due,
            connection_name: String::new(),
            check: None,
            verdict: None,
            identity: None,
            is_tuned: false,
        }
    }

    /// When it must be done.
    pub(super) fn due(&self) -> Option<Instant> {
        Some(self.due)
    }

    /// Whether credentials are being checked: what follows waits.
    pub(super) fn is_checking(&self) -> bool {
        self.check.is_some() || self.verdict.is_some()
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.identity.is_some()
    }

    /// Ready when credentials have been checked.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((correlation, check)) = &mut self.check else { return Poll::Pending };
        let verdict = ready!(check.as_mut().poll(cx));
        self.verdict = Some((*correlation, verdict));
        self.check = None;
        Poll::Ready(())
    }
}

impl Session {
    /// Takes a command of a client that has not opened a virtual host. False if the following ones must wait.
    pub(super) fn login_request(
        &mut self,
        command: u16,
        correlation: u32,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Ended> {
        match request {
            Request::PeerProperties(properties) => {
                let name = properties.iter().find(|(name, _)| *name == CONNECTION_NAME);
                if let Some((_, name)) = name {
                    self.login.connection_name = (*name).to_owned();
                    self.client.identify(name);
                }
                let platform = concat!("Inver ", env!("CARGO_PKG_VERSION"));
                frame::put_response(out, command, correlation, Code::Ok, |out| {
                    let properties = [
                        ("product", "RabbitMQ"),
                        ("version", self.config.version),
                        ("platform", platform),
                        ("cluster_name", "inver"),
                        ("copyright", "The Inver authors"),
                        (
                            "information",
                            "Inver, a broker that speaks RabbitMQ's stream protocol. It is not RabbitMQ.",
                        ),
                    ];
                    put_map(out, &properties);
                });
            }
            Request::SaslHandshake => {
                let more = [
                    (self.certificate_user.is_some(), "EXTERNAL"),
                    (self.broker.lets_anonymous_in(&self.endpoints), "ANONYMOUS"),
                ];
                let more = more.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, name)| name);
                let mechanisms: Vec<&str> = std::iter::once("PLAIN").chain(more).collect();
                frame::put_response(out, command, correlation, Code::Ok, |out| put_strings(out, &mechanisms));
            }
            Request::SaslAuthenticate { mechanism, response } if self.login.identity.is_none() => {
                match self.credentials(mechanism, response) {
                    Ok(credentials) => self.check(correlation, credentials),
                    Err(code) => {
                        frame::put_response(out, command, correlation, code, |_| {});
                        return Err(Ended::LoginRefused);
                    }
                }
                return Ok(false);
            }
            Request::Open { vhost } if self.login.identity.is_some() && self.login.is_tuned => {
                return match self.open(vhost) {
                    Ok(()) => {
                        let (host, port) = self.endpoints_advertised();
                        frame::put_response(out, command, correlation, Code::Ok, |out| {
                            put_map(
                                out,
                                &[("advertised_host", &host), ("advertised_port", &port.to_string())],
                            );
                        });
                        Ok(true)
                    }
                    Err(code) => {
                        frame::put_response(out, command, correlation, code, |_| {});
                        Err(Ended::LoginRefused)
                    }
                };
            }
            _ => {
                let text = format!("command {command} is not allowed before the virtual host is open");
                return Err(Ended::Refused(Code::UnknownFrame, text));
            }
        }
        Ok(true)
    }

    /// The credentials in a response (RFC 4616 for PLAIN).
    fn credentials(&mut self, mechanism: &str, response: &[u8]) -> Result<Credentials, Code> {
        match (mechanism, &self.certificate_user) {
            ("PLAIN", _) => {
                let mut parts = response.split(|byte| *byte == 0);
                let (Some(_), Some(user), Some(password), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return Err(Code::SaslError);
                };
                let user = String::from_utf8_lossy(user).into_owned();
                self.client.claim_user(Some(&user));
                Ok(Credentials::Password { user, password: password.to_vec() })
            }
            ("EXTERNAL", Some(user)) => Ok(Credentials::Certificate { user: user.clone() }),
            ("ANONYMOUS", _) => Ok(Credentials::Anonymous),
            _ => Err(Code::SaslMechanismNotSupported),
        }
    }

    fn check(&mut self, correlation: u32, credentials: Credentials) {
        let Endpoints { peer, listener, .. } = self.endpoints.clone();
        let broker = self.broker.clone();
        let check = async move { broker.authenticate(&listener, peer.ip(), &credentials).await };
        self.login.check = Some((correlation, Box::pin(check)));
    }

    /// Answers the login once credentials were checked, and offers the tuning.
    pub(super) fn finish_login(&mut self, out: &mut Vec<u8>) -> Result<(), Ended> {
        let Some((correlation, verdict)) = self.login.verdict.take() else { return Ok(()) };
        let identity = match verdict {
            Ok(identity) => identity,
            Err(error) => {
                self.client.login_refused((&error).into(), &error);
                let code = match error {
                    AuthError::LoopbackOnly => Code::AuthenticationFailureLoopback,
                    _ => Code::AuthenticationFailure,
                };
                frame::put_response(out, key::SASL_AUTHENTICATE, correlation, code, |_| {});
                return Err(Ended::LoginRefused);
            }
        };
        self.login.identity = Some(identity);
        frame::put_response(out, key::SASL_AUTHENTICATE, correlation, Code::Ok, |_| {});
        frame::put(out, key::TUNE, 1, |out| {
            out.extend_from_slice(&self.config.frame_bytes_max.to_be_bytes());
            out.extend_from_slice(&u32::from(self.config.heartbeat_s).to_be_bytes());
        });
        Ok(())
    }

    /// Takes the client's tuning: it may lower the largest frame, and chooses the heartbeat.
    pub(super) fn tune(&mut self, reader: &mut Reader<'_>) -> Result<(), Ended> {
        if self.login.identity.is_none() || self.opened.is_some() {
            return Err(Malformed.into());
        }
        let (frame_max, heartbeat_s) = (reader.u32()?, reader.u32()?);
        let offered = self.config.frame_bytes_max;
        self.frame_max = if frame_max == 0 { offered } else { frame_max.min(offered) } as usize;
        self.heartbeat_s = heartbeat_s.min(u32::from(u16::MAX));
        self.login.is_tuned = true;
        Ok(())
    }

    fn open(&mut self, vhost: &str) -> Result<(), Code> {
        let anonymous = Identity::anonymous();
        let identity = self.login.identity.as_ref().unwrap_or(&anonymous);
        let admitted = self.broker.admit(&Admission {
            protocol: ORIGIN,
            identity,
            endpoints: &self.endpoints,
            namespace: Some(vhost),
            client_id: &self.login.connection_name,
            mailbox: &self.mailbox,
            wait_max: CONNECT_WAIT_MAX,
        });
        let admitted = admitted.map_err(|error| {
            self.client.login_refused(error.login_refusal(), &error);
            match error {
                AdmitError::NoSuchNamespace(_)
                | AdmitError::NotAllowed { .. }
                | AdmitError::Disabled
                | AdmitError::Banned => Code::VirtualHostAccessFailure,
                AdmitError::UserConnections { .. }
                | AdmitError::NamespaceConnections { .. }
                | AdmitError::ConnectionRate
                | AdmitError::NoMemory => Code::PreconditionFailed,
            }
        })?;
        self.client.logged_in(identity.name(), vhost);
        let namespace = admitted.sessions.namespace().on_behalf_of(&admitted.permissions);
        self.opened =
            Some(Opened { namespace, permissions: admitted.permissions, connection: admitted.connection });
        self.beat = self.now;
        Ok(())
    }

    fn endpoints_advertised(&self) -> (String, u16) {
        advertised(&self.endpoints)
    }
}

/// Host and port that a client is told.
pub(super) fn advertised(endpoints: &Endpoints) -> (String, u16) {
    match &endpoints.listener.advertised {
        Some((host, port)) => (host.clone(), *port),
        None => (endpoints.local.ip().to_canonical().to_string(), endpoints.local.port()),
    }
}
