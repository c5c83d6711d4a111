//! The session of one connection: requests in, responses out in order. A state machine without sockets.
//!
//! A [`Session`] takes whole requests ([`Session::handle`]), passes them to their handlers ([`crate::api`]) and moves
//! responses to the output ([`Session::advance`]): in the order of the requests, each once it is complete, that is
//! once the log has committed it, the fetch has found enough, or the group's coordinator has given it. A request that
//! waits never holds up the handling of later ones; one that is handled on another thread does.

mod detached;
mod pipeline;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use inver_broker::{
    Admission, AdmitError, AppliedQuotas, AuthError, Completion, ConnectionHandle, Endpoints, Identity,
    LiveConnection, LoggedClient, LoginRefusal, Mailbox,
};
use inver_driver::{CountedConsumer, CountedPublisher, Output, note_request};
use inver_storage::Lsn;
use tokio::time::Instant;

pub(crate) use self::detached::{Detached, Handled};
use self::pipeline::Pipeline;
use crate::access::Access;
use crate::api;
use crate::api::api_versions::ApiVersions;
use crate::api::context::{RequestContext, TopicCache};
use crate::api::fetch::Fetch;
use crate::api::handler::Handler;
use crate::api::produce::Produce;
use crate::api::reply::Reply;
use crate::api::sasl_authenticate;
use crate::api::share_fetch::ShareFetch;
use crate::codec::api::Api;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::{Frame, FrameWriter};
use crate::codec::header::{self, RequestHeader, ResponseHeader};
use crate::codec::reader::Reader;
use crate::codec::wire::Version;
use crate::error::ConnectionError;
use crate::fetch::Fetcher;
use crate::metrics::NAME;
use crate::node::Node;
use crate::response::encode;
use crate::sasl::{Credentials, Sasl, Step};
use crate::share::Sharer;

/// For how long a client's requests may wait where connections come faster than a quota allows. Beyond it the connection is
/// closed; clients connect again.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// How the connection goes on after a request.
pub(crate) enum Next {
    /// With the next request.
    Go,
    /// It checks credentials and calls [`Session::authenticated`].
    Check(Credentials),
    /// It runs the request on another thread and calls [`Session::handled`].
    Run(Box<Detached>),
}

/// The session of one connection.
pub(crate) struct Session {
    node: Arc<Node>,
    endpoints: Endpoints,
    sasl: Sasl,
    access: Access,
    /// Its place among the live connections, once it is admitted.
    place: Option<ConnectionHandle>,
    mailbox: Arc<Mailbox>,
    pipeline: Pipeline,
    fetcher: Fetcher,
    /// There once it has fetched as a member of a share group.
    sharer: Option<Box<Sharer>>,
    topics: TopicCache,
    /// Memory that small responses share.
    arena: BytesMut,
    client: LoggedClient,
    /// Until when its requests wait because one of them exceeded a quota of its own.
    held_until: Option<Instant>,
    /// There once it has produced.
    publisher: Option<CountedPublisher>,
    /// There once it has fetched.
    consumer: Option<CountedConsumer>,
}

impl Session {
    /// The session of a client that is not authenticated.
    pub(crate) fn new(node: Arc<Node>, endpoints: Endpoints, mailbox: Arc<Mailbox>) -> Session {
        let access = node.before_login();
        Session {
            client: node.broker.client_log().client(NAME, endpoints.peer),
            endpoints,
            sasl: Sasl::new(),
            place: None,
            fetcher: Fetcher::new(node.clone(), access.clone(), mailbox.clone()),
            sharer: None,
            access,
            mailbox,
            pipeline: Pipeline::default(),
            topics: TopicCache::default(),
            arena: BytesMut::new(),
            held_until: None,
            publisher: None,
            consumer: None,
            node,
        }
    }

    /// Admits an authenticated client to its namespace. Nothing of the session depends on the namespace before.
    pub(crate) fn admit(&mut self, identity: Identity) -> Result<(), AdmitError> {
        // A client that was admitted without a user gives up its place.
        self.place = None;
        let (access, place) = self.node.admit(&Admission {
            protocol: NAME,
            identity: &identity,
            endpoints: &self.endpoints,
            namespace: None,
            client_id: "",
            mailbox: &self.mailbox,
            wait_max: CONNECT_WAIT_MAX,
        })?;
        // Kafka's clients learn how long they have, and are told nothing when it is over: their next request is refused.
        place.expire_at(None);
        (self.access, self.place) = (access, Some(place));
        self.access.node.coordinator.start();
        self.fetcher = Fetcher::new(self.node.clone(), self.access.clone(), self.mailbox.clone());
        self.sharer = None;
        self.topics = TopicCache::default();
        self.sasl.accept(identity);
        Ok(())
    }

    /// Its place among the live connections, once the client is admitted.
    pub(crate) fn place(&self) -> Option<&LiveConnection> {
        self.place.as_deref()
    }

    /// The quotas that concern the client.
    fn quotas(&self) -> Option<Arc<AppliedQuotas>> {
        self.place.as_ref().and_then(|place| place.quotas())
    }

    /// Until when one of its requests keeps the others waiting.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| *until > now)
    }

    /// Whether a quota keeps the client's requests waiting.
    pub(crate) fn is_held_back(&self, now: Instant) -> bool {
        let is_early =
            self.place.as_ref().and_then(|place| place.served_from()).is_some_and(|from| from > now);
        let owes = |quotas: Arc<AppliedQuotas>| quotas.delay_in(now).max(quotas.delay_out(now));
        is_early
            || self.held_until(now).is_some()
            || self.quotas().map(owes).is_some_and(|delay| !delay.is_zero())
    }

    /// Lets an authenticated client in: admits it, or, if it is authenticated again, goes on with what it may do now.
    fn let_in(&mut self, identity: Identity, header: Option<ResponseHeader>) -> Result<(), ConnectionError> {
        let user = identity.shared_name();
        if let (Some(place), true) = (&self.place, self.sasl.is_again()) {
            if !self.node.broker.renew(&identity, &self.access.permissions, place) {
                let before = self.sasl.identity().and_then(Identity::name).unwrap_or("ANONYMOUS").to_owned();
                let now = user.as_deref().unwrap_or("ANONYMOUS");
                let text = format!(
                    "Cannot change principals during re-authentication from User.{before}: User.{now}"
                );
                self.sasl.refuse(user.as_deref(), LoginRefusal::NotPermitted, text.clone());
                return Err(self.refuse(header, &text));
            }
            place.expire_at(None);
            self.sasl.accept(identity);
            return Ok(());
        }
        match self.admit(identity) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.not_admitted(header, user.as_deref(), &error)),
        }
    }

    /// Address of the client.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.endpoints.peer
    }

    /// Whether the client is authenticated, or need not be.
    pub(crate) fn is_open(&self) -> bool {
        self.sasl.identity().is_some()
    }

    /// Size limit of the next request, given its first bytes.
    pub(crate) fn request_bytes_max(&self, first_bytes: &[u8]) -> usize {
        let limits = &self.node.config.limits;
        if !self.is_open() {
            return limits.unauthenticated_request_bytes_max;
        }
        let api_key = first_bytes.first_chunk().map(|chunk| i16::from_be_bytes(*chunk));
        match api_key.and_then(api::find) {
            Some(api) if api.carries_records => limits.produce_bytes_max,
            _ => limits.request_bytes_max,
        }
    }

    /// Handles a request, given without its length prefix. What it asks for must be done before another request is passed.
    pub(crate) fn handle(&mut self, request: Bytes, now: Instant) -> Result<Next, ConnectionError> {
        if self.sasl.expects_bare_token() {
            // A bare token has no form for a failure: the connection ends.
            let step = self.sasl.token(&self.node.broker, self.endpoints.peer.ip(), &request, None);
            return match step.map_err(|_| ConnectionError::AuthenticationFailed)? {
                Step::Check(credentials) => Ok(Next::Check(credentials)),
                Step::Answer(token) => {
                    self.answer_bare_token(&token);
                    Ok(Next::Go)
                }
                Step::Finished(identity, token) => {
                    self.let_in(identity, None)?;
                    self.answer_bare_token(&token);
                    Ok(Next::Go)
                }
            };
        }
        let request_bytes = request.len();
        let mut body = Reader::new(request.clone());
        let header = header::read(&mut body, api::find).map_err(ConnectionError::NotARequest)?;
        let (header, client_id) = match header {
            RequestHeader::Known { response, client_id } => (response, client_id),
            RequestHeader::ApiVersionsTooNew { correlation_id } => {
                self.answer_too_new_api_versions(correlation_id);
                return Ok(Next::Go);
            }
            RequestHeader::Unknown { api_key, api_version } => {
                return Err(ConnectionError::Unsupported { api_key, api_version });
            }
        };
        if !self.is_open() && !header.api.before_authentication {
            return Err(ConnectionError::NotAuthenticated { api: header.api.name });
        }
        if !header.api.before_authentication {
            if self.sasl.is_expired(|| self.node.now_ms()) {
                return Err(ConnectionError::Expired { api: header.api.name });
            }
            self.sasl.works();
        }
        self.node.metrics.count_request(header.api);
        note_request(header.api.name);
        self.pipeline.begin(header.api.key, now);
        match header.api.key {
            Produce::KEY => _ = self.publisher.get_or_insert_default(),
            Fetch::KEY | ShareFetch::KEY => _ = self.consumer.get_or_insert_default(),
            _ => {}
        }
        if !header.api.before_authentication {
            self.name(client_id.as_deref().unwrap_or_default());
        }
        if !self.client.is_logged_in() && !header.api.before_authentication {
            let user = self.sasl.identity().and_then(Identity::name);
            self.client.logged_in(user, self.access.node.namespace.name());
        }
        let (version, correlation_id) = (header.version.number, header.correlation_id);
        tracing::trace!(api = header.api.name, version, correlation_id, "request");
        let quotas = self.quotas();
        self.fetcher.limit(quotas.clone());
        self.sharer.iter_mut().for_each(|sharer| sharer.limit(quotas.clone()));
        let mut cx = RequestContext {
            header,
            client_id,
            node: &self.node,
            endpoints: &self.endpoints,
            access: &self.access,
            sasl: &mut self.sasl,
            fetcher: &mut self.fetcher,
            sharer: &mut self.sharer,
            quotas: quotas.as_deref(),
            held_until: None,
            request_bytes,
            now,
            topics: &mut self.topics,
            mailbox: &self.mailbox,
            is_detached: false,
        };
        let reply = api::handle(&mut cx, body, &mut self.arena)?;
        if let Reply::Detach = reply {
            return Ok(Next::Run(Box::new(Detached {
                node: self.node.clone(),
                endpoints: self.endpoints.clone(),
                access: self.access.clone(),
                identity: self.sasl.identity().cloned(),
                quotas,
                mailbox: self.mailbox.clone(),
                request,
                header,
            })));
        }
        self.held_until = self.held_until.max(cx.held_until);
        self.queue(reply, header, now)
    }

    /// The client id of a request. That of the first one is the connection's, in rules and in the log; quotas are those of each
    /// request's own.
    fn name(&mut self, client_id: &str) {
        if !self.client.is_logged_in() {
            self.client.identify(client_id);
            self.access.permissions.identify(client_id);
        }
        if let Some(place) = self.place.as_ref().filter(|place| !place.is_named(client_id)) {
            place.rename(client_id);
        }
    }

    /// Queues a reply in its turn.
    fn queue(
        &mut self,
        reply: Reply<Frame>,
        header: ResponseHeader,
        now: Instant,
    ) -> Result<Next, ConnectionError> {
        match reply {
            Reply::Response(frame, Completion::Now) | Reply::Encoded(frame) => {
                self.pipeline.push_ready(frame);
            }
            Reply::Response(frame, Completion::At(lsn)) => self.pipeline.push_after(frame, lsn),
            Reply::Deferred(claim) => self.pipeline.push_claim(claim),
            Reply::Member { claim, group, member_id } => self.pipeline.push_member(claim, group, member_id),
            Reply::Fetch(number) => {
                self.pipeline.push_fetch(number);
                self.take_fetched(now);
            }
            Reply::ShareFetch(number) => {
                self.pipeline.push_share_fetch(number);
                self.take_fetched(now);
            }
            Reply::Authenticate(credentials) => return Ok(Next::Check(credentials)),
            Reply::Admit(identity, frame) => {
                self.let_in(identity, Some(header))?;
                self.pipeline.push_ready(frame);
            }
            Reply::None | Reply::Detach => {}
            Reply::Close(frame, error) => {
                if let Some(frame) = frame {
                    self.pipeline.push_ready(frame);
                }
                return Err(error);
            }
        }
        Ok(Next::Go)
    }

    /// Goes on after a request that ran on another thread.
    pub(crate) fn handled(&mut self, handled: Handled, now: Instant) -> Result<(), ConnectionError> {
        let Handled { reply, header, held_until } = handled;
        self.held_until = self.held_until.max(held_until);
        let _nothing_to_check = self.queue(reply?, header, now)?;
        Ok(())
    }

    /// Moves the responses of complete fetches to their turns.
    fn take_fetched(&mut self, now: Instant) {
        while let Some((number, frame)) = self.fetcher.poll(&mut self.arena, now) {
            self.pipeline.fetched(number, frame);
        }
        let Some(sharer) = &mut self.sharer else { return };
        while let Some((number, frame, completion)) = sharer.poll(&mut self.arena, now) {
            self.pipeline.share_fetched(number, frame, completion);
        }
    }

    fn answer_too_new_api_versions(&mut self, correlation_id: i32) {
        let version = Version { number: 0, flexible: false };
        let header = ResponseHeader { api: &Api::ApiVersions, version, correlation_id };
        let frame = encode(&mut self.arena, header, &ApiVersions::unsupported_version());
        self.pipeline.push_ready(frame);
    }

    /// Sends a token with nothing but its length before it.
    fn answer_bare_token(&mut self, token: &[u8]) {
        // The length, which the frame fills in.
        self.arena.put_i32(0);
        self.arena.put_slice(token);
        self.pipeline.push_ready(FrameWriter::bare(&mut self.arena).finish());
    }

    /// The outcome of checking credentials.
    pub(crate) fn authenticated(
        &mut self,
        credentials: &Credentials,
        outcome: Result<Identity, AuthError>,
    ) -> Result<(), ConnectionError> {
        let identity = match outcome {
            Ok(identity) => identity,
            Err(error) => {
                self.sasl.refuse(Some(&credentials.user), (&error).into(), error.to_string());
                let text = match error {
                    // Kafka's text.
                    AuthError::Refused => "Invalid username or password".to_owned(),
                    error => error.to_string(),
                };
                return Err(self.refuse(credentials.header, &text));
            }
        };
        let response = sasl_authenticate::success(&identity, Bytes::new(), self.node.now_ms());
        self.let_in(identity, credentials.header)?;
        match credentials.header {
            Some(header) => {
                self.pipeline.push_ready(encode(&mut self.arena, header, &response));
            }
            None => self.answer_bare_token(&[]),
        }
        Ok(())
    }

    /// The user of the client's certificate is not let in: the reason why the connection ends, unless the client logs in
    /// otherwise.
    pub(crate) fn certificate_refused(&mut self, user: &str, error: &AuthError) {
        self.sasl.refuse(Some(user), error.into(), error.to_string());
    }

    /// Tells a client that was authenticated that it is not let in.
    fn not_admitted(
        &mut self,
        header: Option<ResponseHeader>,
        user: Option<&str>,
        error: &AdmitError,
    ) -> ConnectionError {
        self.sasl.refuse(user, error.login_refusal(), error.to_string());
        if error.is_passing() {
            // Clients take a failed authentication as final.
            return ConnectionError::AuthenticationFailed;
        }
        self.refuse(header, &error.to_string())
    }

    /// Tells a client that it is not let in. A bare token has no form for that: the connection just ends.
    fn refuse(&mut self, header: Option<ResponseHeader>, reason: &str) -> ConnectionError {
        if let Some(header) = header {
            let reason = format!("Authentication failed: {reason}");
            let failure = sasl_authenticate::failure(ErrorCode::SASL_AUTHENTICATION_FAILED, &reason);
            self.pipeline.push_ready(encode(&mut self.arena, header, &failure));
        }
        ConnectionError::AuthenticationFailed
    }

    /// The client in the log.
    pub(crate) fn client(&mut self) -> &mut LoggedClient {
        &mut self.client
    }

    /// The connection ends because of `error`.
    pub(crate) fn failed(&mut self, error: &ConnectionError) {
        match self.sasl.take_failure() {
            Some(failure) => {
                self.client.claim_user(failure.user.as_deref());
                self.client.failed(failure.reason, &failure.text);
            }
            None => self.client.failed(error.login_refusal(), error),
        }
    }

    /// Moves complete responses to `output`.
    pub(crate) fn advance(&mut self, output: &mut Output) -> Result<(), ConnectionError> {
        let limit = self.node.config.limits.output_bytes_max;
        let (node, mut now) = (&self.node, None);
        self.pipeline.advance(node.broker.log().committed(), output, limit, |api_key, since| {
            // One reading of the clock for all responses of a turn.
            let now = *now.get_or_insert_with(|| node.broker.clock().now());
            node.metrics.observe_request(api_key, now.saturating_duration_since(since));
        })
    }

    /// The log position that the next response waits for.
    pub(crate) fn awaited_lsn(&self) -> Option<Lsn> {
        self.pipeline.awaited_lsn()
    }

    /// When to call [`Session::wake`] even if no token arrives.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let share = self.sharer.as_ref().and_then(|sharer| sharer.deadline());
        [self.fetcher.deadline(), share].into_iter().flatten().min()
    }

    /// Whether another request may be handled: not while too many are unanswered or too much output is pending.
    pub(crate) fn has_room(&self, pending_bytes: usize) -> bool {
        let limits = &self.node.config.limits;
        self.pipeline.len() < limits.pipeline_requests_max
            && self.fetcher.waiting_bytes() < limits.waiting_bytes_max
            && self.pipeline.bytes() + pending_bytes < limits.output_bytes_max
    }

    /// Bytes of its fetches.
    pub(crate) fn held_bytes(&self) -> usize {
        self.fetcher.held_bytes() + self.sharer.as_ref().map_or(0, |sharer| sharer.held_bytes())
    }

    /// Bytes of responses that wait, but for stored ones.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.pipeline.encoded_bytes()
    }

    /// Releases memory that is not in use.
    pub(crate) fn tidy(&mut self) {
        self.arena = BytesMut::new();
        self.pipeline.tidy();
        self.fetcher.tidy();
    }

    /// Continues after a wake-up, with the tokens from the mailbox.
    pub(crate) fn wake(&mut self, tokens: &[u64], now: Instant) {
        self.fetcher.wake(tokens, now);
        self.sharer.iter_mut().for_each(|sharer| sharer.wake(tokens, now));
        self.take_fetched(now);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (group, member_id) in self.pipeline.abandon() {
            self.access.node.coordinator.disconnected(&group, &member_id);
        }
        if self.access.node.namespace.is_deleted() {
            self.node.forget_deleted();
        }
    }
}
