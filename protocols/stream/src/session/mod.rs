//! The state machine of a connection: the login, then publishers and subscriptions.

mod consuming;
mod handshake;
mod machine;
mod offsets;
mod publishing;
mod reading;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;

use inver_broker::{
    Broker, Completion, Connection, ConnectionHandle, Endpoints, LoggedClient, Mailbox, Namespace, Partition,
    Permissions, Topic, TopicKind,
};
use inver_driver::CommitQueue;
use inver_storage::LogError;
use tokio::time::Instant;

use self::consuming::Subscription;
use self::handshake::Login;
use self::publishing::Publisher;
use crate::codec::chunk::Chunk;
use crate::codec::frame::{self, Code, key};
use crate::codec::request::Request;
use crate::codec::wire::Malformed;
use crate::config::StreamConfig;
use crate::map::{Composer, ORIGIN};
use crate::watch::Watchers;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The client sent `Close`.
    #[error("client closed the connection")]
    ByClient,
    /// The client is told this with `Close`.
    #[error("{1}")]
    Refused(Code, String),
    /// The login was refused, and the client was told.
    #[error("login refused")]
    LoginRefused,
    /// The login was not done in time.
    #[error("handshake took too long")]
    LoginTimeout,
    /// The client was silent for two heartbeat intervals.
    #[error("missed heartbeats from client")]
    HeartbeatsMissed,
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<Malformed> for Ended {
    fn from(error: Malformed) -> Ended {
        Ended::Refused(Code::UnknownFrame, error.to_string())
    }
}

/// What an answer waits for the log with.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An encoded frame.
    Frame(Vec<u8>),
    /// Confirms of a publisher, by its number and by how many were declared before it.
    Confirms { publisher: u8, made: u64, ids: Vec<u64> },
}

/// An open virtual host.
pub(crate) struct Opened {
    pub(crate) namespace: Namespace,
    pub(crate) permissions: Arc<Permissions>,
    pub(crate) connection: ConnectionHandle,
}

pub(crate) struct Session {
    broker: Broker,
    config: Arc<StreamConfig>,
    watchers: Arc<Watchers>,
    endpoints: Endpoints,
    certificate_user: Option<String>,
    client: LoggedClient,
    mailbox: Arc<Mailbox>,
    now: Instant,
    login: Login,
    opened: Option<Opened>,
    /// Frames are no larger than this.
    frame_max: usize,
    heartbeat_s: u32,
    /// When a heartbeat was due last.
    beat: Instant,
    is_at_gate: bool,
    publishers: BTreeMap<u8, Publisher>,
    composer: Composer,
    unconfirmed: usize,
    /// Publishers that were declared.
    publishers_made: u64,
    answers: CommitQueue<Answer>,
    subscriptions: BTreeMap<u8, Subscription>,
    /// The one that the next turn begins with, or the next greater one.
    first_subscription: u8,
    chunk: Chunk,
    /// The version of `Deliver` that the client takes.
    deliver_version: u16,
    next_number: u64,
}

/// A response: its code, when it may be sent, and what follows the code.
pub(crate) struct Reply {
    code: Code,
    done: Completion,
    content: Vec<u8>,
}

impl From<Code> for Reply {
    fn from(code: Code) -> Reply {
        Reply { code, done: Completion::Now, content: Vec::new() }
    }
}

impl Reply {
    fn of(content: Vec<u8>) -> Reply {
        Reply { content, ..Code::Ok.into() }
    }

    fn after(done: Completion) -> Reply {
        Reply { done, ..Code::Ok.into() }
    }
}

impl Session {
    pub(crate) fn new(
        broker: Broker,
        connection: &Connection,
        config: Arc<StreamConfig>,
        watchers: Arc<Watchers>,
    ) -> Session {
        let now = Instant::now();
        Session {
            client: broker.client_log().client(ORIGIN, connection.peer),
            endpoints: connection.endpoints(),
            certificate_user: connection
                .certificate
                .as_ref()
                .and_then(|certificate| certificate.user.clone()),
            mailbox: Mailbox::new(),
            now,
            login: Login::new(now + config.timeouts.login),
            opened: None,
            frame_max: config.frame_bytes_max as usize,
            heartbeat_s: 0,
            beat: now,
            is_at_gate: false,
            publishers: BTreeMap::new(),
            composer: Composer::default(),
            unconfirmed: 0,
            publishers_made: 0,
            answers: CommitQueue::default(),
            subscriptions: BTreeMap::new(),
            first_subscription: 0,
            chunk: Chunk::default(),
            deliver_version: 1,
            next_number: 0,
            broker,
            config,
            watchers,
        }
    }

    /// Takes one frame. False if the following ones must wait.
    fn frame(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<bool, Ended> {
        let (command, version, mut reader) = frame::header(frame)?;
        if self.opened.is_some() {
            match command {
                key::PUBLISH => {
                    self.publish(version, &mut reader, out)?;
                    return Ok(true);
                }
                key::CREDIT => {
                    self.credit(&mut reader, out)?;
                    return Ok(true);
                }
                key::STORE_OFFSET => {
                    self.store_offset(&mut reader)?;
                    return Ok(true);
                }
                _ => {}
            }
        }
        match command & !key::RESPONSE {
            key::HEARTBEAT => return Ok(true),
            key::TUNE => {
                self.tune(&mut reader)?;
                return Ok(true);
            }
            // The answer to a `Close` of the broker.
            key::CLOSE if command & key::RESPONSE != 0 => return Err(Ended::ByClient),
            _ => {}
        }
        let correlation = reader.u32()?;
        let unknown = || Ended::Refused(Code::UnknownFrame, format!("unknown command {command:#06x}"));
        let request = Request::parse(command, &mut reader)?.ok_or_else(unknown)?;
        if let Request::Close { .. } = request {
            // What came before it is published.
            self.flush(out);
            frame::put_response(out, command, correlation, Code::Ok, |_| {});
            return Err(Ended::ByClient);
        }
        if self.opened.is_none() {
            return self.login_request(command, correlation, &request, out);
        }
        if let (Request::Metadata { streams }, Some(opened)) = (&request, &self.opened) {
            // The one response without a code.
            frame::put(out, key::RESPONSE | command, 1, |out| {
                out.extend_from_slice(&correlation.to_be_bytes());
                opened.put_metadata(out, streams, &self.endpoints);
            });
            return Ok(true);
        }
        let reply = self.request(&request, out)?;
        let mut answer = Vec::new();
        frame::put_response(&mut answer, command, correlation, reply.code, |out| {
            out.extend_from_slice(&reply.content);
        });
        match reply.done {
            Completion::Now => out.extend_from_slice(&answer),
            done => self.answers.push(done, Answer::Frame(answer)),
        }
        Ok(true)
    }

    fn request(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Result<Reply, Ended> {
        let Some(opened) = &self.opened else { return Ok(Code::UnknownFrame.into()) };
        Ok(match request {
            Request::DeclarePublisher { id, reference, stream } => {
                self.declare_publisher(*id, reference, stream).into()
            }
            Request::QueryPublisherSequence { reference, stream } => opened.sequence(reference, stream),
            Request::DeletePublisher { id } => self.delete_publisher(*id, out).into(),
            Request::Subscribe { id, stream, from, credit, properties } => {
                self.subscribe(*id, stream, *from, *credit, properties).into()
            }
            Request::Unsubscribe { id } => match self.subscriptions.remove(id) {
                Some(_) => Code::Ok.into(),
                None => Code::SubscriptionIdDoesNotExist.into(),
            },
            Request::QueryOffset { reference, stream } => opened.query_offset(reference, stream),
            Request::Create { stream, arguments } => opened.create(stream, arguments, &self.client),
            Request::Delete { stream } => opened.delete(stream, &self.watchers, &self.client),
            Request::StreamStats { stream } => opened.stats(stream),
            Request::ExchangeCommandVersions(versions) => {
                let known = versions.iter().find(|(command, ..)| *command == key::DELIVER);
                self.deliver_version = known.map_or(1, |(_, _, highest)| (*highest).clamp(1, 2));
                Reply::of(streams::command_versions())
            }
            Request::Metadata { .. }
            | Request::PeerProperties(_)
            | Request::SaslHandshake
            | Request::SaslAuthenticate { .. }
            | Request::Open { .. }
            | Request::Close { .. } => {
                return Err(Ended::Refused(Code::UnknownFrame, "the connection is open".to_owned()));
            }
        })
    }

    /// A number that no other use of this connection has.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// The one partition of a log topic, which is what a stream is.
pub(crate) struct OpenStream {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: Arc<Partition>,
}

impl Opened {
    /// The stream of this name.
    pub(crate) fn stream(&self, name: &str) -> Option<OpenStream> {
        let topic = self.namespace.topic(name).filter(|topic| topic.kind() == TopicKind::Log)?;
        let partition = topic.partition(0).filter(|_| topic.partition_count() == 1)?;
        Some(OpenStream { topic, partition })
    }
}
