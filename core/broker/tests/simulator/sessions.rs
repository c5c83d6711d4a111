//! Sessions: clients connect, also while another connection has their session, subscribe, acknowledge together with state
//! that must agree, leave, and come back before their sessions expire or after.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{
    ConsumerSpec, Expiry, Mailbox, Mode, Opened, Session, SessionError, SessionSpec, SessionTerms,
    SubscriptionOptions,
};

use crate::consumers::{Held, number_of};
use crate::model::{Number, Versions};
use crate::places::{GROUP, INBOXES};
use crate::wills::permissions;
use crate::world::World;

/// The filter that clients subscribe to, and the address that is published to.
pub(crate) const FILTER: &[u8] = b"d/x";
const SHARED_FILTER: &[u8] = b"$share/g/d/x";
const CLIENT_IDS: [&str; 3] = ["a", "b", "c"];
const EXPIRY_S: u32 = 30;

const INBOX: u64 = 1;
const TAKEN_OVER: u64 = 3;

/// What is known of a client's session.
pub(crate) struct Client {
    /// Its session may outlive its connection.
    pub(crate) is_durable: bool,
    pub(crate) expiry_ms: Option<i64>,
    exists: Versions<bool>,
    has_filter: Versions<bool>,
    /// Messages that the session's state names: they were acknowledged with it.
    state: Versions<BTreeSet<Number>>,
    /// By the broker's steady time; none while a connection has the session.
    pub(crate) away_since_ms: Option<i64>,
    /// The position at which it was opened last.
    opened_lsn: u64,
    /// Whether the session exists is open.
    pub(crate) is_unsure: bool,
}

impl Client {
    fn new(is_durable: bool, expiry_ms: Option<i64>) -> Client {
        Client {
            is_durable,
            expiry_ms,
            exists: Versions::new(false),
            has_filter: Versions::new(false),
            state: Versions::new(BTreeSet::new()),
            away_since_ms: Some(0),
            opened_lsn: 0,
            is_unsure: false,
        }
    }

    pub(crate) fn receives(&self) -> bool {
        *self.exists.get() && *self.has_filter.get()
    }

    fn crash(&mut self, end: u64, now_ms: i64) {
        self.exists.crash(end);
        self.has_filter.crash(end);
        self.state.crash(end);
        self.is_unsure |= self.opened_lsn > end;
        self.away_since_ms.get_or_insert(now_ms);
    }
}

/// A lasting one, one that expires, and one that ends with its connection.
pub(crate) fn clients() -> [Client; 3] {
    let expiry_ms = i64::from(EXPIRY_S) * 1000;
    [Client::new(true, None), Client::new(true, Some(expiry_ms)), Client::new(false, Some(0))]
}

/// A connection that has a session.
pub(crate) struct Holder {
    id: u64,
    pub(crate) client: usize,
    pub(crate) session: Session,
    mailbox: Arc<Mailbox>,
    is_woken: bool,
    is_taken_over: bool,
    held: Vec<Held>,
}

/// A connection that waits for its session.
pub(crate) struct Opening {
    client: usize,
    cleans: bool,
    mailbox: Arc<Mailbox>,
    outcome: Rc<RefCell<Option<Result<Opened, SessionError>>>>,
}

impl World {
    /// Some client connects.
    pub(crate) fn connect_any(&mut self) {
        let client = self.random.below(3) as usize;
        self.connect(client);
    }

    /// A client connects, if not too many do.
    pub(crate) fn connect(&mut self, client: usize) {
        if self.openings.len() >= 2 {
            return;
        }
        let mailbox = Mailbox::new();
        let terms = Arc::new(SessionTerms {
            inbox_token: INBOX,
            live_token: 2,
            taken_over_token: TAKEN_OVER,
            live_messages_max: 100,
            live_bytes_max: 1 << 20,
        });
        let expiry = [Expiry::Never, Expiry::After(EXPIRY_S), Expiry::AtDetach][client];
        let cleans = client == 1 && self.random.once_in(3);
        let outcome = Rc::new(RefCell::new(None));
        self.note(format_args!("client {client} connects, clean start: {cleans}"));
        self.openings.push(Opening { client, cleans, mailbox: mailbox.clone(), outcome: outcome.clone() });
        let sessions = self.broker().default_sessions();
        self.executor.spawn(async move {
            let client_id = CLIENT_IDS[client];
            let permissions = permissions(&sessions, client_id);
            let spec =
                SessionSpec { client_id, clean_start: cleans, expiry, mailbox, terms: &terms, permissions };
            let opened = sessions.open(spec).await;
            *outcome.borrow_mut() = Some(opened);
        });
    }

    /// Takes the sessions that were opened.
    pub(crate) fn finish_openings(&mut self) {
        let mut at = 0;
        while at < self.openings.len() {
            let outcome = self.openings[at].outcome.borrow_mut().take();
            match outcome {
                None => at += 1,
                Some(outcome) => {
                    let opening = self.openings.remove(at);
                    match outcome {
                        Ok(opened) => self.opened(opening, opened),
                        Err(SessionError::Busy) => panic!("client {} is not let in", opening.client),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    fn opened(&mut self, opening: Opening, opened: Opened) {
        let Opening { client, cleans, mailbox, .. } = opening;
        assert!(
            self.sessions.iter().all(|holder| holder.client != client),
            "two connections have the session of client {client}"
        );
        let (now, is_present) = (self.now(), opened.present);
        self.note(format_args!("client {client} is connected, session present: {is_present}"));
        let lsn = opened.completion.lsn().map_or_else(|| self.submitted(), |lsn| lsn.0);
        self.wills_of_returned(client, is_present);
        self.expire(client);
        let model = &mut self.clients[client];
        model.opened_lsn = now.submitted;
        let found: BTreeSet<Number> = opened.state.iter().map(|(key, _)| number_in(key)).collect();
        let has_filter = opened.subscriptions.iter().any(|(text, _)| text == FILTER);
        if model.is_durable && !model.is_unsure && !cleans {
            assert_eq!(is_present, *model.exists.get(), "the session of client {client} is present");
        }
        assert!(model.is_durable && !cleans || !is_present, "client {client} was given an old session");
        if is_present && !model.is_unsure {
            assert_eq!(found, *model.state.get(), "the state of client {client}");
            assert_eq!(has_filter, *model.has_filter.get(), "the subscription of client {client}");
        }
        if !is_present && model.is_durable {
            self.places[INBOXES + client].remove_all(now.submitted);
        }
        let model = &mut self.clients[client];
        if !is_present || model.is_unsure {
            model.state.set(lsn, found);
            model.has_filter.set(lsn, has_filter);
            model.exists.set(lsn, true);
        }
        (model.is_unsure, model.away_since_ms) = (false, None);
        self.next_consumer += 1;
        let (id, session) = (self.next_consumer, opened.session);
        let (is_woken, is_taken_over, held) = (true, false, Vec::new());
        self.sessions.push(Holder { id, client, session, mailbox, is_woken, is_taken_over, held });
        if client < 2 {
            self.join(self.sessions.len() - 1);
        }
    }

    /// If a session may have expired, whether it exists is open.
    pub(crate) fn expire(&mut self, client: usize) {
        let now = self.now();
        let model = &mut self.clients[client];
        if let (Some(since_ms), Some(expiry_ms)) = (model.away_since_ms, model.expiry_ms) {
            model.is_unsure |= now.may_have_passed(since_ms, expiry_ms);
        }
    }

    /// Joins the shared subscription, of which the first client stays a member.
    fn join(&mut self, at: usize) {
        if !*self.group_exists.get() && self.sessions[at].client != 0 || self.random.once_in(3) {
            return;
        }
        let mailbox = Mailbox::new();
        let options = SubscriptionOptions { guaranteed: true, ..SubscriptionOptions::default() };
        let spec = ConsumerSpec::new(mailbox.clone(), 7);
        let client = self.sessions[at].client;
        let joined = self.sessions[at].session.join(SHARED_FILTER, &options, Mode::Shared, spec);
        if let Ok((consumer, _, completion)) = joined {
            let lsn = completion.lsn().map_or_else(|| self.submitted(), |lsn| lsn.0);
            if !*self.group_exists.get() {
                self.group_exists.set(lsn, true);
            }
            self.enter(GROUP, mailbox, consumer, Some(client));
        }
    }

    /// One connection does something with its session.
    pub(crate) fn use_session(&mut self) {
        let count = self.sessions.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.random.below(count) as usize;
        self.read_mailbox(at);
        if self.sessions[at].is_taken_over {
            return self.disconnect(at);
        }
        match self.random.below(10) {
            0 => self.disconnect(at),
            1 => self.change_will(at),
            2 => self.subscribe(at),
            3..6 => {
                self.pull_inbox(at);
            }
            _ => self.acknowledge_inbox(at, 3),
        }
    }

    fn read_mailbox(&mut self, at: usize) {
        let holder = &mut self.sessions[at];
        let mut tokens = Vec::new();
        holder.mailbox.drain(&mut tokens);
        holder.is_woken |= tokens.contains(&INBOX);
        holder.is_taken_over |= tokens.contains(&TAKEN_OVER);
    }

    /// Connections whose sessions others want end. Whether there were any.
    pub(crate) fn release_sessions(&mut self) -> bool {
        let before = self.sessions.len();
        for at in (0..self.sessions.len()).rev() {
            self.read_mailbox(at);
            if self.sessions[at].is_taken_over {
                self.disconnect(at);
            }
        }
        self.sessions.len() < before
    }

    fn subscribe(&mut self, at: usize) {
        let holder = &mut self.sessions[at];
        let client = holder.client;
        if client == 2 {
            return;
        }
        let removes = *self.clients[client].has_filter.get() && self.random.once_in(4);
        let options = SubscriptionOptions { guaranteed: true, ..SubscriptionOptions::default() };
        let done = match removes {
            true => holder.session.unsubscribe(FILTER).ok(),
            false => holder.session.subscribe(FILTER, &options).ok(),
        };
        self.note(format_args!("client {client} subscribes: {}", !removes));
        // A new queue wakes only after a pull.
        self.sessions[at].is_woken = true;
        if let Some((_, completion)) = done {
            let lsn = self.position_of(completion);
            self.clients[client].has_filter.set(lsn, !removes);
        }
    }

    /// Whether it got anything.
    pub(crate) fn pull_inbox(&mut self, at: usize) -> bool {
        self.read_mailbox(at);
        let holder = &mut self.sessions[at];
        if !holder.is_woken || holder.client == 2 {
            return false;
        }
        let room = 4usize.saturating_sub(holder.held.len());
        let mut got = Vec::new();
        let pull = holder.session.pull_inbox(room, usize::MAX, &mut got);
        holder.is_woken = pull.more;
        let (id, client) = (holder.id, holder.client);
        let place = INBOXES + client;
        for delivery in &got {
            let number = number_of(delivery);
            self.note(format_args!("client {client} gets {number}"));
            let now = self.now();
            assert!(
                !self.clients[client].state.get().contains(&number),
                "{number} is delivered again, though the state of client {client} has it"
            );
            self.places[place].deliver(number, delivery.id.offset, id, 0, &now);
            self.sessions[at].held.push(Held { number, place, id: delivery.id });
        }
        !got.is_empty()
    }

    /// Acknowledges messages, and notes them in the session's state with the same entry.
    pub(crate) fn acknowledge_inbox(&mut self, at: usize, max: usize) {
        let holder = &mut self.sessions[at];
        let count = holder.held.len().min(max);
        if count == 0 {
            return;
        }
        let client = holder.client;
        let settled: Vec<Held> = holder.held.drain(..count).collect();
        let offsets: Vec<u64> = settled.iter().map(|held| held.id.offset).collect();
        let key_of = |held: &Held| (Bytes::from(held.number.to_string()), Bytes::from_static(b"done"));
        let puts: Vec<(Bytes, Bytes)> = settled.iter().map(key_of).collect();
        self.note(format_args!("client {client} acknowledges {settled:?}"));
        match self.sessions[at].session.ack_and_put(&offsets, &puts) {
            Ok(completion) => {
                let lsn = self.position_of(completion);
                let model = &mut self.clients[client];
                let mut state = model.state.get().clone();
                state.extend(settled.iter().map(|held| held.number));
                model.state.set(lsn, state);
                for held in settled {
                    self.places[held.place].remove(held.number, lsn, true);
                }
            }
            Err(_) => settled.into_iter().for_each(|held| self.forget(held)),
        }
    }

    pub(crate) fn disconnect(&mut self, at: usize) {
        let holder = self.sessions.swap_remove(at);
        let client = holder.client;
        self.note(format_args!("client {client} disconnects"));
        for at in (0..self.consumers.len()).rev() {
            if self.consumers[at].client == Some(client) {
                self.leave(at);
            }
        }
        drop(holder.session);
        for held in holder.held {
            self.places[held.place].give_back(held.number, 0);
        }
        self.wills_of_gone(client, !self.clients[client].is_durable);
        self.clients[client].away_since_ms = Some(self.clock.steady_ms());
    }

    pub(crate) fn crash_clients(&mut self, end: u64) {
        let now_ms = self.clock.steady_ms();
        self.clients.iter_mut().for_each(|client| client.crash(end, now_ms));
        self.group_exists.crash(end);
    }

    /// All clients have been away for longer than any session lasts.
    pub(crate) fn check_clients(&mut self) {
        let sessions = self.broker().default_sessions();
        let lasting = *self.clients[0].exists.get() && !self.clients[0].is_unsure;
        assert!(sessions.len() <= 1, "{} sessions are left", sessions.len());
        assert!(!lasting || sessions.len() == 1, "a session is missing");
        self.places[INBOXES + 1].remove_all(0);
    }
}

fn number_in(key: &[u8]) -> Number {
    std::str::from_utf8(key).unwrap().parse().unwrap()
}
