//! Consumers of queues and subscriptions: they pull when they are woken, and acknowledge, return, reject, leave and die.

use std::sync::Arc;

use inver_broker::message::{HeaderView, Property};
use inver_broker::{Consumer, ConsumerSpec, Delivery, DeliveryId, DropReason, Mailbox, Subscription};

use crate::model::{Copy, Number};
use crate::places::{DEAD, GROUP, KEYED, MEMORY, PLAIN, QUEUES, SHARED, SINGLE, TOPIC, WILLS};
use crate::world::World;

/// Consumers at a time.
const CONSUMERS_MAX: usize = 10;

/// The token of consumers.
const TOKEN: u64 = 7;

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) number: Number,
    pub(crate) place: usize,
    pub(crate) id: DeliveryId,
}

pub(crate) struct Actor {
    pub(crate) id: u64,
    /// The place of its first partition.
    pub(crate) place: usize,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) consumer: Consumer,
    pub(crate) is_woken: bool,
    prefetch: usize,
    /// In the order of delivery.
    pub(crate) held: Vec<Held>,
    /// A consumer of the shared subscription belongs to this client.
    pub(crate) client: Option<usize>,
}

impl World {
    fn subscription(&self, place: usize) -> Arc<Subscription> {
        let namespace = self.namespace();
        let queue = |name: &str| namespace.queue(name).unwrap().subscription().clone();
        let of_topic = |name: &str| namespace.subscription(&namespace.topic(TOPIC).unwrap(), name).unwrap();
        match place {
            DEAD => queue("dead"),
            WILLS => queue("wills"),
            SHARED => of_topic("shared"),
            KEYED => of_topic("keyed"),
            other => queue(QUEUES[other]),
        }
    }

    pub(crate) fn attach(&mut self) {
        if self.consumers.len() < CONSUMERS_MAX {
            let places = [0, 1, 1, 2, 3, 4, 5, DEAD, WILLS, SHARED, KEYED, KEYED];
            let place = places[self.random.below(places.len() as u64) as usize];
            self.attach_to(place);
        }
    }

    pub(crate) fn attach_to(&mut self, place: usize) {
        let mailbox = Mailbox::new();
        let consumer = self.subscription(place).attach(ConsumerSpec::new(mailbox.clone(), TOKEN)).unwrap();
        self.enter(place, mailbox, consumer, None);
    }

    pub(crate) fn enter(
        &mut self,
        place: usize,
        mailbox: Arc<Mailbox>,
        consumer: Consumer,
        client: Option<usize>,
    ) {
        self.next_consumer += 1;
        let (id, prefetch) = (self.next_consumer, 1 + self.random.below(6) as usize);
        self.note(format_args!("consumer {id} of {place} attaches"));
        let held = Vec::new();
        self.consumers.push(Actor { id, place, mailbox, consumer, is_woken: true, prefetch, held, client });
    }

    fn any_consumer(&mut self) -> Option<usize> {
        let count = self.consumers.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// One consumer pulls if it was woken.
    pub(crate) fn pull_any(&mut self) {
        if let Some(at) = self.any_consumer() {
            self.pull(at);
        }
    }

    /// Whether it got anything.
    pub(crate) fn pull(&mut self, at: usize) -> bool {
        let actor = &mut self.consumers[at];
        let mut tokens = Vec::new();
        actor.mailbox.drain(&mut tokens);
        actor.is_woken |= tokens.contains(&TOKEN);
        if !actor.is_woken {
            return false;
        }
        let room = actor.prefetch.saturating_sub(actor.held.len());
        let mut got = Vec::new();
        let pull = actor.consumer.pull(room, usize::MAX, &mut got);
        actor.is_woken = pull.more;
        let (id, place) = (actor.id, actor.place);
        assert!(!pull.cancelled || self.log().failure().is_some(), "a consumer of {place} is cancelled");
        self.note(format_args!("consumer {id} of {place} pulls {}", got.len()));
        self.take(at, &got);
        !got.is_empty()
    }

    /// Checks what a consumer was given.
    fn take(&mut self, at: usize, got: &[Delivery]) {
        for delivery in got {
            let (id, place) = (self.consumers[at].id, self.consumers[at].place);
            let place = place + delivery.id.partition as usize;
            let number = number_of(delivery);
            self.note(format_args!("  {number} from {place}, {} times before", delivery.redelivered));
            let now = self.now();
            let number = match place {
                DEAD => self.arrived_dead(delivery, number),
                WILLS => self.arrived_will(number),
                _ => number,
            };
            self.places[place].deliver(number, delivery.id.offset, id, delivery.redelivered, &now);
            self.places[place].noted(number, now.submitted);
            self.consumers[at].held.push(Held { number, place, id: delivery.id });
        }
    }

    /// A dead letter: it is seen for the first time, or it is known. Its number is that of the copy that died.
    fn arrived_dead(&mut self, delivery: &Delivery, number: Number) -> Number {
        let view = HeaderView::of(&delivery.record);
        let death = view.typed_properties().find_map(|property| match property {
            Property::Death(death) => inver_broker::message::Death::decode(death),
            _ => None,
        });
        let death = death.unwrap_or_else(|| panic!("{number} has no death record"));
        assert_eq!(death.count, 1, "{number} died more than once in {}", death.queue);
        let from = QUEUES.iter().position(|name| *name == death.queue).unwrap();
        let dead = number * 10 + from as u64;
        if !self.places[DEAD].copies.contains_key(&dead) {
            let now = self.now();
            self.places[from].died(number, reason(death.reason), &now);
            self.places[DEAD].copies.insert(dead, Copy::new(0, self.clock.steady_ms(), 0));
        }
        dead
    }

    /// A consumer acknowledges, returns or rejects some of what it holds, or leaves.
    pub(crate) fn settle_any(&mut self) {
        let Some(at) = self.any_consumer() else { return };
        let held = self.consumers[at].held.len() as u64;
        match self.random.below(12) {
            0 => self.leave(at),
            _ if held == 0 => {}
            what => {
                let mut settled = Vec::new();
                for _ in 0..1 + self.random.below(held) {
                    let which = self.random.below(self.consumers[at].held.len() as u64) as usize;
                    settled.push(self.consumers[at].held.remove(which));
                }
                match what {
                    1..7 => self.acknowledge(at, settled),
                    7..10 => self.requeue(at, settled),
                    _ => self.reject(at, settled),
                }
            }
        }
    }

    pub(crate) fn acknowledge(&mut self, at: usize, settled: Vec<Held>) {
        let ids: Vec<DeliveryId> = settled.iter().map(|held| held.id).collect();
        self.note(format_args!("acknowledge {settled:?}"));
        match self.consumers[at].consumer.ack(&ids) {
            Ok(completion) => {
                let is_durable = settled.iter().any(|held| self.places[held.place].terms.is_durable);
                let lsn = if is_durable { self.position_of(completion) } else { 0 };
                for held in settled {
                    self.places[held.place].remove(held.number, lsn, false);
                }
            }
            Err(_) => settled.into_iter().for_each(|held| self.forget(held)),
        }
    }

    /// The log rejected an acknowledgement: it ended.
    pub(crate) fn forget(&mut self, held: Held) {
        self.places[held.place].remove(held.number, u64::MAX, false);
    }

    fn requeue(&mut self, at: usize, settled: Vec<Held>) {
        let ids: Vec<DeliveryId> = settled.iter().map(|held| held.id).collect();
        self.note(format_args!("return {settled:?}"));
        let lsn = match self.consumers[at].consumer.requeue(&ids) {
            Ok(completion) => completion.lsn().map_or_else(|| self.submitted(), |lsn| lsn.0),
            Err(_) => u64::MAX,
        };
        for held in settled {
            self.places[held.place].give_back(held.number, lsn);
        }
    }

    fn reject(&mut self, at: usize, settled: Vec<Held>) {
        let ids: Vec<DeliveryId> = settled.iter().map(|held| held.id).collect();
        self.note(format_args!("reject {settled:?}"));
        let rejected = self.consumers[at].consumer.reject(&ids);
        for held in settled {
            let place = &mut self.places[held.place];
            if place.terms.has_dead_letters {
                let copy = place.copies.get_mut(&held.number).unwrap();
                copy.holder = None;
                copy.returned += 1;
                (copy.is_rejected, copy.is_dying) = (true, true);
                continue;
            }
            let lsn = rejected.as_ref().map_or(u64::MAX, |it| it.lsn().map_or(0, |lsn| lsn.0));
            self.places[held.place].remove(held.number, lsn, false);
        }
    }

    /// Removes what waits in a queue.
    pub(crate) fn purge(&mut self) {
        let places = [PLAIN, SINGLE, MEMORY];
        let place = places[self.random.below(places.len() as u64) as usize];
        if let Ok((removed, completion)) = self.subscription(place).purge() {
            self.note(format_args!("purge {removed} of {place}"));
            // That nothing was written, because there was nothing, promises nothing.
            let lsn = completion.lsn().map_or_else(|| self.submitted(), |lsn| lsn.0);
            self.places[place].purge(removed, lsn);
        }
    }

    /// A consumer leaves: what it holds is returned.
    pub(crate) fn leave(&mut self, at: usize) {
        let actor = self.consumers.swap_remove(at);
        self.note(format_args!("consumer {} of {} leaves", actor.id, actor.place));
        drop(actor.consumer);
        // Many are returned by work that may come later.
        let lsn = if actor.held.len() > 2 { u64::MAX } else { self.submitted() };
        for held in actor.held {
            self.places[held.place].give_back(held.number, lsn);
        }
        if actor.client.is_some() {
            assert_eq!(actor.place, GROUP);
        }
    }
}

pub(crate) fn number_of(delivery: &Delivery) -> Number {
    let value = delivery.record.value.as_deref().unwrap();
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn reason(reason: DropReason) -> &'static str {
    reason.as_str()
}
