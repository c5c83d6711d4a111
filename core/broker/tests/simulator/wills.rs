//! Wills: published exactly once if their client went away for so long or its session ended, never if it cleared them or
//! came back in time.

use std::sync::Arc;

use inver_broker::Will;
use inver_storage::BatchBuilder;

use crate::model::{Copy, Now, Number};
use crate::places::WILLS;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its client is connected.
    Armed,
    /// Its client has been away since then, which the broker may know as a later time.
    Pending { since_ms: i64, latest_ms: i64 },
    /// It must arrive, if the log reaches this position.
    Owed { lsn: u64 },
    /// It may arrive.
    Open,
    /// It must not arrive, if the log reaches this position.
    Never { lsn: u64 },
    /// It has arrived.
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct WillOf {
    client: usize,
    lsn: u64,
    delay_ms: i64,
    pub(crate) fate: Fate,
}

impl WillOf {
    fn may_be_due(&self, since_ms: i64, now: &Now) -> bool {
        now.may_have_passed(since_ms, self.delay_ms)
    }
}

impl World {
    /// A connected client sets or clears its will.
    pub(crate) fn change_will(&mut self, at: usize) {
        let client = self.sessions[at].client;
        let delay_s = [0, 5, 5, 40][self.random.below(4) as usize];
        let number = self.next_number();
        let sets = !self.random.once_in(4);
        let will = sets.then(|| will_of(client, number, delay_s));
        self.note(format_args!("will {number} of {client}: {sets}, after {delay_s} s"));
        let Ok(completion) = self.sessions[at].session.set_will(will) else { return };
        let lsn = completion.lsn().map_or_else(|| self.submitted(), |lsn| lsn.0);
        for will in self.wills.values_mut().filter(|it| it.client == client && it.fate == Fate::Armed) {
            will.fate = Fate::Never { lsn };
        }
        if sets {
            let delay_ms = i64::from(delay_s) * 1000;
            self.wills.insert(number, WillOf { client, lsn, delay_ms, fate: Fate::Armed });
        }
    }

    /// A client's connection ended.
    pub(crate) fn wills_of_gone(&mut self, client: usize, ends_session: bool) {
        let (now_ms, lsn) = (self.clock.steady_ms(), self.submitted());
        for will in self.wills.values_mut().filter(|it| it.client == client && it.fate == Fate::Armed) {
            let is_due = ends_session || will.delay_ms == 0;
            will.fate = if is_due {
                Fate::Owed { lsn }
            } else {
                Fate::Pending { since_ms: now_ms, latest_ms: now_ms }
            };
        }
    }

    /// A client came back, to its session or to a new one.
    pub(crate) fn wills_of_returned(&mut self, client: usize, is_present: bool) {
        let (now, now_ms) = (self.now(), self.clock.steady_ms());
        for will in self.wills.values_mut().filter(|it| it.client == client) {
            let Fate::Pending { since_ms, latest_ms } = will.fate else { continue };
            will.fate = match is_present {
                true if latest_ms + will.delay_ms <= now_ms => Fate::Owed { lsn: now.submitted },
                true if will.may_be_due(since_ms, &now) => Fate::Open,
                true => Fate::Never { lsn: now.submitted },
                false => Fate::Owed { lsn: now.submitted },
            };
        }
    }

    /// A will arrives: it is seen for the first time, or it is known.
    pub(crate) fn arrived_will(&mut self, number: Number) -> Number {
        let now = self.now();
        if !self.places[WILLS].copies.contains_key(&number) {
            let will = self.wills.get_mut(&number).unwrap_or_else(|| panic!("there is no will {number}"));
            let client = &self.clients[will.client];
            let is_due = match will.fate {
                Fate::Owed { .. } | Fate::Open => true,
                Fate::Pending { since_ms, .. } => {
                    will.may_be_due(since_ms, &now)
                        || client.expiry_ms.is_some_and(|expiry_ms| now.may_have_passed(since_ms, expiry_ms))
                }
                Fate::Armed | Fate::Never { .. } | Fate::Done => false,
            };
            assert!(is_due, "will {number} is published: {will:?}");
            will.fate = Fate::Done;
            self.places[WILLS].copies.insert(number, Copy::new(0, self.clock.steady_ms(), 0));
        }
        number
    }

    /// The process ended, and the log ends at `end`.
    pub(crate) fn crash_wills(&mut self, end: u64) {
        let now_ms = self.clock.steady_ms();
        for will in self.wills.values_mut() {
            will.fate = match will.fate {
                Fate::Done => Fate::Done,
                _ if will.lsn > end => Fate::Never { lsn: 0 },
                Fate::Armed if self.clients[will.client].is_durable => {
                    Fate::Pending { since_ms: now_ms, latest_ms: now_ms }
                }
                Fate::Armed => Fate::Owed { lsn: 0 },
                // Its session may be there still, and its client may come back in time.
                Fate::Owed { lsn } if lsn > end && self.clients[will.client].is_durable => Fate::Open,
                Fate::Pending { since_ms, .. } => Fate::Pending { since_ms, latest_ms: now_ms },
                Fate::Never { lsn } if lsn > end => Fate::Open,
                other => other,
            };
        }
    }

    /// All clients have been away for longer than any will waits.
    pub(crate) fn check_wills(&self) {
        for (number, will) in &self.wills {
            let is_missing = matches!(will.fate, Fate::Owed { .. } | Fate::Pending { .. });
            assert!(!is_missing, "will {number} was not published: {will:?}");
        }
    }
}

fn will_of(client: usize, number: Number, delay_s: u32) -> Will {
    let mut batch = BatchBuilder::new(0);
    batch.push(0, None, &[], Some(number.to_string().as_bytes()));
    Will {
        address: format!("w/{client}").into_bytes(),
        batch: batch.finish().bytes().to_vec(),
        delay_s,
        expiry_s: None,
        retain: false,
        guaranteed: true,
        origin: "test".into(),
    }
}

/// What a client may do: everything.
pub(crate) fn permissions(
    sessions: &inver_broker::Sessions,
    client_id: &str,
) -> Arc<inver_broker::Permissions> {
    sessions.access().permissions(inver_broker::PermissionScope {
        user: None,
        external_tags: None,
        client_id: client_id.into(),
        namespace: sessions.namespace().name().into(),
        protocol: "test",
        peer: ([127, 0, 0, 1], 0).into(),
    })
}
