//! The dispatch of frames, by the state of the connection and of the channel.

use std::collections::{HashSet, VecDeque};

use inver_broker::{Admitted, Completion, Credentials, Identity, Publisher, PublisherId};
use inver_driver::{TURN_TIME, note_request, observe_request};
use tokio::time::Instant;

use super::admission::count_channel;
use super::assembly::Bodies;
use super::channel::{Channel, Outcome};
use super::ending::forget_confirms;
use super::handshake::Step;
use super::shared::Shared;
use super::{Session, State, confirms};
use crate::codec::frame::Frame;
use crate::codec::{
    ContentHeader, FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Malformed, Method, write,
};
use crate::error::{Refusal, snippet};
use crate::map::{Composer, ORIGIN, Renderer};
use crate::topology::Client;

impl Session {
    pub(super) fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        match (self.state, frame.channel) {
            (State::Closing, 0) if frame.kind == FRAME_METHOD => self.closing_method(frame, out),
            (State::Closing | State::Lost | State::Over, _) => Ok(Outcome::Done),
            (State::Handshake, channel) if channel != 0 => Err(unexpected(frame)),
            (_, 0) => self.frame_of_connection(frame, out),
            (_, number) => self.frame_of_channel(number, frame, out),
        }
    }

    fn frame_of_connection(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        match (frame.kind, frame.payload) {
            (FRAME_HEARTBEAT, []) => Ok(Outcome::Done),
            (FRAME_METHOD, payload) => {
                let method = decode(payload)?;
                self.connection_method(&method, out).map_err(|refusal| refusal.at(method.id()))
            }
            (FRAME_HEADER | FRAME_BODY, _) => Err(unexpected(frame)),
            _ => Err(unknown(frame)),
        }
    }

    fn connection_method(&mut self, method: &Method<'_>, out: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        match (self.state, method) {
            (_, Method::ConnectionClose { .. }) => {
                self.flush()?;
                self.release();
                write::method(out, 0, &Method::ConnectionCloseOk {});
                self.state = State::Over;
                self.closed_by_client = true;
            }
            (State::Handshake, method) => match self.handshake.method(method, &self.limits)? {
                Step::Continue => {}
                Step::Authenticate(credentials) => {
                    self.client.identify(&self.handshake.connection_name);
                    if let Credentials::Password { user, .. } | Credentials::Certificate { user } =
                        &credentials
                    {
                        self.client.claim_user(Some(user));
                    }
                    self.credentials = Some(credentials);
                    self.authenticating = true;
                }
                Step::Open { vhost } => self.open(&vhost, out)?,
            },
            (_, Method::ConnectionUpdateSecret { new_secret, .. }) => {
                self.update_secret(new_secret)?;
                write::method(out, 0, &Method::ConnectionUpdateSecretOk {});
            }
            _ => return Err(Refusal::channel_error("unexpected method in connection state running")),
        }
        Ok(Outcome::Done)
    }

    fn closing_method(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<Outcome, Refusal> {
        match Method::decode(frame.payload) {
            Ok(Method::ConnectionCloseOk {}) => self.state = State::Over,
            Ok(Method::ConnectionClose { .. }) => write::method(out, 0, &Method::ConnectionCloseOk {}),
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn open(&mut self, vhost: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let Admitted { sessions, permissions, connection } = self.admit(vhost)?;
        let namespace = sessions.namespace().on_behalf_of(&permissions);
        let publisher = PublisherId { origin: ORIGIN, session: None };
        self.shared = Some(Box::new(Shared {
            limits: self.limits.clone(),
            frame_max: self.handshake.tuned.frame_max,
            capabilities: self.handshake.capabilities,
            publisher: Publisher::new(namespace.clone(), publisher).with_permissions(permissions.clone()),
            consumers_checked: permissions.version(),
            client: Client::new(namespace, permissions),
            connection,
            exclusive: HashSet::new(),
            composer: Composer::default(),
            renderer: Renderer::default(),
            told: crate::map::Told::default(),
            mailbox: self.mailbox.clone(),
            now_ms: self.broker.clock().steady_ms(),
            is_traced: false,
            last_write: Completion::Now,
            halt: None,
            pending_confirms: confirms::PendingConfirms::default(),
            unconfirmed: 0,
            has_published: false,
            blocked: false,
            is_at_gate: false,
            bodies: Bodies::default(),
            transaction_bytes: 0,
            published: Vec::new(),
            acknowledged: Vec::new(),
            ready: VecDeque::new(),
            deliveries_left: 0,
            delivery_bytes: 0,
            deliveries: Vec::new(),
            incarnations: 0,
        }));
        self.state = State::Running;
        self.client.logged_in(self.identity.as_ref().and_then(Identity::name), vhost);
        write::method(out, 0, &Method::ConnectionOpenOk { known_hosts: "" });
        Ok(())
    }

    fn frame_of_channel(
        &mut self,
        number: u16,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let Some(shared) = self.shared.as_deref_mut() else { return Err(unexpected(frame)) };
        let Some(channel) = self.channels.find(number) else {
            return self.open_channel(number, frame, out);
        };
        if channel.closing {
            return self.frame_of_closing_channel(number, frame, out);
        }
        match frame.kind {
            FRAME_METHOD => {
                channel.assembly.method()?;
                let method = decode(frame.payload)?;
                self.channel_method(number, &method, out).map_err(|refusal| refusal.at(method.id()))
            }
            FRAME_HEADER => {
                let header = ContentHeader::decode(frame.payload).map_err(|_| unknown(frame))?;
                let result = channel.content_header(&header, shared, out);
                result.map(|()| Outcome::Done).map_err(|refusal| refusal.at((60, 40)))
            }
            FRAME_BODY => {
                let result = channel.content_body(frame.payload, shared, out);
                result.map(|()| Outcome::Done).map_err(|refusal| refusal.at((60, 40)))
            }
            FRAME_HEARTBEAT if frame.payload.is_empty() => Err(unexpected(frame)),
            _ => Err(unknown(frame)),
        }
    }

    fn channel_method(
        &mut self,
        number: u16,
        method: &Method<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let hot = matches!(
            method,
            Method::BasicPublish { .. }
                | Method::BasicAck { .. }
                | Method::BasicNack { .. }
                | Method::BasicReject { .. }
        );
        if !hot {
            // All other methods must see the effects of those before them.
            self.flush_in_slices()?;
            // One that is processed again has waited since.
            self.request.get_or_insert_with(|| (method.name(), Instant::now()));
            if self.shared.as_deref().is_some_and(|shared| shared.publisher.has_more_to_deliver()) {
                return Ok(Outcome::Retry);
            }
            self.write_replies(out);
            note_request(method.name());
        }
        let Some(shared) = self.shared.as_deref_mut() else { return Ok(Outcome::Done) };
        let Some(channel) = self.channels.find(number) else { return Ok(Outcome::Done) };
        if let Method::BasicPublish { exchange, routing_key, mandatory, immediate, .. } = *method {
            if immediate {
                return Err(Refusal::not_implemented("immediate=true"));
            }
            if shared.waits_at_gate() {
                return Ok(Outcome::Retry);
            }
            shared.has_published = true;
            channel.assembly.publish(exchange, routing_key, mandatory);
            return Ok(Outcome::Done);
        }
        let commits = matches!(method, Method::TxCommit {}) && channel.holds_publishes();
        if commits && shared.waits_at_gate() {
            return Ok(Outcome::Retry);
        }
        if matches!(method, Method::ChannelClose { .. }) {
            forget_confirms(channel, shared);
        }
        let outcome = channel.method(method, shared, out);
        if !hot
            && !matches!(outcome, Ok(Outcome::Retry))
            && shared.halt.is_none()
            && let Some((request, since)) = self.request.take()
        {
            let now = Instant::now();
            observe_request(request, now - since);
            self.is_turn_over = now - self.turn >= TURN_TIME;
        }
        let outcome = outcome?;
        if outcome == Outcome::Closed {
            self.channels.remove(number);
        }
        Ok(outcome)
    }

    fn open_channel(
        &mut self,
        number: u16,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let channel_max = self.handshake.tuned.channel_max;
        // RabbitMQ limits the number of channels, not the channel numbers.
        if self.channels.len() >= usize::from(channel_max) {
            return Err(Refusal::not_allowed(format_args!(
                "number of channels opened ({}) has reached the negotiated channel_max ({channel_max})",
                self.channels.len()
            )));
        }
        if frame.kind == FRAME_HEARTBEAT {
            return Err(unexpected(frame));
        }
        if frame.kind != FRAME_METHOD {
            return Err(Refusal::unexpected_frame("expected method frame, got non method frame instead"));
        }
        let method = decode(frame.payload)?;
        let Method::ChannelOpen { .. } = method else {
            return Err(Refusal::channel_error("expected 'channel.open'").at(method.id()));
        };
        let Some(shared) = self.shared.as_deref_mut() else { return Ok(Outcome::Done) };
        let counted = count_channel(&self.broker, shared)?;
        shared.incarnations += 1;
        let channel = Channel::new(number, shared.incarnations, counted);
        channel.tell_created(shared);
        self.channels.open(channel);
        write::method(out, number, &Method::ChannelOpenOk { channel_id: b"" });
        Ok(Outcome::Done)
    }

    /// Ignores everything but the channel's close handshake.
    fn frame_of_closing_channel(
        &mut self,
        number: u16,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        if frame.kind == FRAME_METHOD {
            match Method::decode(frame.payload) {
                Ok(Method::ChannelCloseOk {}) => self.channels.remove(number),
                Ok(Method::ChannelClose { .. }) => write::method(out, number, &Method::ChannelCloseOk {}),
                _ => {}
            }
        }
        Ok(Outcome::Done)
    }
}

fn decode(payload: &[u8]) -> Result<Method<'_>, Refusal> {
    Method::decode(payload).map_err(|error| {
        let at = match (error, payload) {
            (Malformed::UnknownMethod { class, method }, _) => (class, method),
            (_, [c1, c0, m1, m0, ..]) => (u16::from_be_bytes([*c1, *c0]), u16::from_be_bytes([*m1, *m0])),
            _ => (0, 0),
        };
        Refusal::from(error).at(at)
    })
}

fn unexpected(frame: &Frame<'_>) -> Refusal {
    Refusal::unexpected_frame(format_args!("type {}, {}", frame.kind, snippet(frame.payload)))
}

fn unknown(frame: &Frame<'_>) -> Refusal {
    Refusal::frame_error(format_args!("type {}, {}: unknown_frame", frame.kind, snippet(frame.payload)))
}
