//! One run of a seed: the broker is opened, used, and ended by a crash, a kill, a fault or a shutdown, several times.

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::sync::Arc;
use std::time::Duration;

use inver_broker::{Broker, BrokerConfig, Clock, Completion, Namespace, Publisher, TopicIds};
use inver_storage::medium::fake::{FakeMedium, Fault, Random};
use inver_storage::{CommitPolicy, Log, LogOptions};
use tokio_util::sync::CancellationToken;

use crate::consumers::Actor;
use crate::executor::Executor;
use crate::model::{Now, Number, Place, Versions};
use crate::places::{self, BOUND, EXPIRING, KEYED, SHARED, SHORT, SHORT_MAX};
use crate::sessions::{self, Client, Holder, Opening};
use crate::wills::WillOf;

const LIVES: u32 = 3;
const STEPS_MAX: u64 = 160;
/// Steps of the last process, which no fault ends.
const LAST_STEPS_MAX: u64 = 200;
/// Steps whose writes end with the process.
const TORN_STEPS: u64 = 12;
const START_MS: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 86_400_000;

/// The broker's clock as the log's.
#[derive(Debug)]
struct LogClock(Clock);

impl inver_storage::Clock for LogClock {
    fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.steady_ms() as u64)
    }
}

pub(crate) struct World {
    pub(crate) random: Random,
    medium: FakeMedium,
    options: LogOptions,
    pub(crate) clock: Clock,
    /// What has elapsed since the first start, while the broker was down too.
    elapsed_ms: i64,
    /// What had elapsed when the present process started, and its steady time then.
    started: (i64, i64),
    /// The system's time was wrong at the start.
    is_behind: bool,
    /// It was, and has been set right.
    was_behind: bool,
    pub(crate) executor: Executor,
    topic_ids: TopicIds,
    broker: Option<Broker>,
    lives: u32,
    /// The position up to which everything was seen to be committed.
    promised: u64,
    pub(crate) next_number: Number,
    pub(crate) next_consumer: u64,
    pub(crate) places: Vec<Place>,
    pub(crate) consumers: Vec<Actor>,
    pub(crate) kept_publisher: Option<Publisher>,
    pub(crate) bindings: BTreeMap<usize, Versions<bool>>,
    pub(crate) retained: [Versions<Option<Number>>; 2],
    pub(crate) offsets: [Versions<Option<Number>>; 2],
    pub(crate) clients: [Client; 3],
    pub(crate) sessions: Vec<Holder>,
    pub(crate) openings: Vec<Opening>,
    pub(crate) group_exists: Versions<bool>,
    pub(crate) wills: BTreeMap<Number, WillOf>,
    is_traced: bool,
    digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let commit = if random.once_in(6) { CommitPolicy::Os } else { CommitPolicy::Always };
        let options = LogOptions {
            commit,
            segment_bytes_max: 4096 + random.below(20_000),
            tail_cache_bytes_max: [0, 2000, 1 << 20][random.below(3) as usize],
            index_cache_bytes_max: 0,
            open_files_max: 3,
            clean_live_percent_max: [0, 60][random.below(2) as usize],
            clean_places_min: 0,
            checkpoint_bytes: 10_000 + random.below(60_000),
            checkpoint_interval: Duration::from_millis(2000 + random.below(60_000)),
            preallocate: false,
            checkpoint_cache_bytes_max: 1 << 20,
            ..LogOptions::default()
        };
        World {
            medium: FakeMedium::new(random.any()),
            random,
            options,
            clock: Clock::manual(START_MS),
            elapsed_ms: 0,
            started: (0, START_MS),
            is_behind: false,
            was_behind: false,
            executor: Executor::default(),
            topic_ids: TopicIds::numbered(),
            broker: None,
            lives: 0,
            promised: 0,
            next_number: 0,
            next_consumer: 0,
            places: places::places(),
            consumers: Vec::new(),
            kept_publisher: None,
            bindings: BOUND.into_iter().map(|at| (at, Versions::new(true))).collect(),
            retained: [const { None }; 2].map(Versions::new),
            offsets: [const { None }; 2].map(Versions::new),
            clients: sessions::clients(),
            sessions: Vec::new(),
            openings: Vec::new(),
            group_exists: Versions::new(false),
            wills: BTreeMap::new(),
            is_traced: std::env::var_os("INVER_SIMULATOR_TRACE").is_some(),
            digest: 0,
        }
    }

    /// Notes what happens, in the digest of the run.
    pub(crate) fn note(&mut self, what: Arguments<'_>) {
        let text = what.to_string();
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_traced {
            println!("{:>7} {text}", self.elapsed_ms);
        }
    }

    // ---- what the actors ask

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    pub(crate) fn log(&self) -> &Log {
        self.broker().log()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.broker().default_namespace()
    }

    pub(crate) fn submitted(&self) -> u64 {
        self.log().submitted().0
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            steady_max_ms: self.steady_max_ms(),
            committed: self.log().committed().0,
            submitted: self.submitted(),
            lives: self.lives,
        }
    }

    /// Steady time may be ahead of what has elapsed by a twentieth, and is set to the system's when that is set right.
    fn steady_max_ms(&self) -> i64 {
        let (elapsed_ms, steady_ms) = self.started;
        let passed_ms = self.elapsed_ms - elapsed_ms;
        (steady_ms + passed_ms + passed_ms / 20).max(START_MS + self.elapsed_ms)
    }

    /// The position that a completion waits for. One that waits for nothing promises all that was submitted.
    pub(crate) fn position_of(&mut self, completion: Completion) -> u64 {
        completion.lsn().map_or_else(
            || {
                self.promised = self.promised.max(self.submitted());
                self.promised
            },
            |lsn| lsn.0,
        )
    }

    // ---- the run

    /// Returns a digest of all that happened.
    pub(crate) fn run(&mut self) -> u64 {
        self.open();
        places::create(&self.namespace());
        // From here on the log knows the time, as it does soon after any start.
        self.broker().note_time();
        self.log().wait_committed_blocking(self.log().submitted()).unwrap();
        for life in 0..LIVES {
            if life > 0 {
                self.open();
            }
            self.schedule_fault();
            let steps = self.random.below(STEPS_MAX);
            for _ in 0..steps {
                if self.log().failure().is_some() {
                    break;
                }
                self.step();
            }
            self.tear();
            self.end();
        }
        self.open();
        for _ in 0..self.random.below(LAST_STEPS_MAX) {
            self.step();
        }
        self.drain();
        self.digest
    }

    /// Lets the process end in the middle of the write of several entries.
    fn tear(&mut self) {
        if self.random.once_in(2) || self.log().failure().is_some() {
            return;
        }
        for _ in 0..TORN_STEPS {
            match self.random.below(8) {
                0 => self.publish(),
                1 | 2 => self.transact(),
                3 => self.settle_any(),
                4..7 => self.use_session(),
                _ => {
                    self.executor.step(&mut self.random);
                    self.finish_openings();
                }
            }
        }
        // The last entries of the write are those of acknowledgements, so that it often ends among them.
        for at in 0..self.sessions.len() {
            self.pull_inbox(at);
            self.acknowledge_inbox(at, 3);
        }
        self.medium.schedule(1 + self.random.below(2), Fault::Stop);
        self.write();
    }

    fn schedule_fault(&mut self) {
        let at = 1 + self.random.below(300);
        match self.random.below(4) {
            0 => self.medium.schedule(at, Fault::Fail(std::io::ErrorKind::Other)),
            1 => self.medium.schedule(at, Fault::Stop),
            _ => {}
        }
    }

    fn open(&mut self) {
        let down_ms = self.random.below(5000) as i64;
        self.elapsed_ms += down_ms;
        // The system's time may be behind at a start, as on a machine without a clock of its own.
        self.is_behind = (1..LIVES).contains(&self.lives) && self.random.once_in(4);
        self.was_behind = false;
        let behind_ms = if self.is_behind { DAY_MS } else { 0 };
        let steady_max_ms = self.steady_max_ms();
        self.clock = Clock::manual(START_MS + self.elapsed_ms - behind_ms);
        self.executor = Executor::default();
        let clock = Arc::new(LogClock(self.clock.clone()));
        let medium = Arc::new(self.medium.clone());
        let log = Log::open_manual(medium, clock, self.options.clone()).unwrap();
        let end = log.committed().0;
        let promised = self.promised;
        self.note(format_args!("start at {end} of {promised}"));
        assert!(end >= promised, "recovered up to {end} of {promised}");
        let config = BrokerConfig {
            clock: self.clock.clone(),
            blocking: self.executor.blocking(),
            topic_ids: self.topic_ids.clone(),
            queue_memory_bytes_max: 200,
            ..BrokerConfig::default()
        };
        let broker = Broker::open(log, config).unwrap();
        let steady_ms = self.clock.steady_ms();
        assert!(steady_ms <= steady_max_ms, "steady time begins {} ms ahead", steady_ms - steady_max_ms);
        self.started = (self.elapsed_ms, steady_ms);
        self.crash_model(end);
        self.promised = end;
        broker.publish_recovered_wills();
        self.executor.spawn(broker.clone().housekeep(CancellationToken::new()));
        self.broker = Some(broker);
        if self.lives > 0 {
            places::declare_transient(&self.namespace());
            self.compare_records();
        }
        self.lives += 1;
    }

    fn crash_model(&mut self, end: u64) {
        let promised = self.promised;
        self.places.iter_mut().for_each(|place| place.crash(end, promised));
        self.bindings.values_mut().for_each(|it| it.crash(end));
        self.retained.iter_mut().chain(&mut self.offsets).for_each(|it| it.crash(end));
        self.crash_clients(end);
        self.crash_wills(end);
    }

    /// The process ends.
    fn end(&mut self) {
        let committed = self.log().committed().0;
        let is_whole = self.options.commit == CommitPolicy::Always;
        let log = self.log().clone();
        self.promised = self.promised.max(committed);
        if self.random.once_in(6) && log.failure().is_none() && log.shutdown().is_ok() {
            self.note(format_args!("shutdown"));
            self.promised = self.promised.max(log.committed().0);
        }
        // The process ends before what it held is dropped.
        self.medium.stop();
        self.consumers.clear();
        self.sessions.clear();
        self.openings.clear();
        self.kept_publisher = None;
        self.executor = Executor::default();
        self.broker = None;
        drop(log);
        if is_whole && self.random.once_in(2) {
            self.note(format_args!("power cut"));
            self.medium.crash();
        } else {
            self.note(format_args!("kill"));
            self.medium.kill();
        }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..7 => self.publish(),
            7..9 => self.produce(),
            9..11 => self.transact(),
            11..16 => self.pull_any(),
            16..21 => self.settle_any(),
            21..23 => self.attach(),
            23 => self.retain(),
            24 => self.commit_offset(),
            25 => match self.random.once_in(3) {
                true => self.purge(),
                false => self.rebind(),
            },
            26..28 => self.connect_any(),
            28..31 => self.use_session(),
            31..34 => self.write(),
            34 => self.maintain(),
            35 => self.pass_time(3000),
            36 => self.pass_time(300),
            _ => {
                self.executor.step(&mut self.random);
                self.finish_openings();
            }
        }
    }

    /// One round of the log's writer.
    fn write(&mut self) {
        if self.log().step_writer().is_ok() {
            self.promised = self.promised.max(self.log().committed().0);
        }
    }

    fn maintain(&mut self) {
        if self.random.once_in(4) {
            // What fails ends the log or is put off.
            let _ = self.log().step_maintenance();
        } else if self.is_behind {
            self.note(format_args!("the system's time is set right"));
            (self.is_behind, self.was_behind) = (false, true);
            self.clock.step(DAY_MS);
        } else if self.random.once_in(4) && !self.was_behind {
            let days = self.random.below(5) as i64 - 2;
            self.note(format_args!("the system's time is set by {days} days"));
            self.clock.step(days * DAY_MS);
        }
    }

    fn pass_time(&mut self, most_ms: u64) {
        self.release_sessions();
        let ms = 1 + self.random.below(most_ms);
        self.elapsed_ms += ms as i64;
        self.clock.advance(Duration::from_millis(ms));
        (0..2).for_each(|client| self.expire(client));
    }

    // ---- the end

    /// Runs everything until nothing is left to do. Whether any consumer got anything.
    fn settle(&mut self) -> bool {
        let mut is_fed = false;
        loop {
            self.executor.run(&mut self.random);
            self.finish_openings();
            let mut goes_on = self.release_sessions();
            goes_on |= self.log().step_writer().unwrap();
            for at in 0..self.consumers.len() {
                let is_given = self.pull(at);
                let held = std::mem::take(&mut self.consumers[at].held);
                if !held.is_empty() {
                    self.acknowledge(at, held);
                }
                goes_on |= is_given;
                is_fed |= is_given;
            }
            for at in 0..self.sessions.len() {
                let is_given = self.pull_inbox(at);
                self.acknowledge_inbox(at, usize::MAX);
                goes_on |= is_given;
                is_fed |= is_given;
            }
            if !goes_on && self.executor.is_idle() {
                return is_fed;
            }
        }
    }

    /// Delivers all that is left, and checks that nothing is missing.
    fn drain(&mut self) {
        self.medium.schedule_reads(0, 0);
        self.note(format_args!("drain"));
        self.settle();
        // Clients take what waits for them.
        for client in [0, 1, 2] {
            self.connect(client);
            self.settle();
            assert!(self.openings.is_empty(), "client {client} is not let in");
        }
        while *self.group_exists.get() && !self.consumers.iter().any(|it| it.place == places::GROUP) {
            self.connect(0);
            self.settle();
        }
        self.settle();
        self.check_left(|at| at >= places::GROUP);
        // Nobody reads some queues: their limits hold all the same.
        let unread = [EXPIRING, SHORT];
        let places = (0..=places::WILLS).filter(|at| !unread.contains(at)).chain([SHARED, KEYED]);
        for place in places {
            if !self.consumers.iter().any(|it| it.place == place) {
                self.attach_to(place);
            }
        }
        self.settle();
        for at in (0..self.consumers.len()).rev() {
            if unread.contains(&self.consumers[at].place) {
                self.leave(at);
            }
        }
        while let Some(at) = self.sessions.len().checked_sub(1) {
            self.disconnect(at);
        }
        // Longer than wills wait, sessions last and messages live.
        for _ in 0..45 {
            self.elapsed_ms += 2000;
            self.clock.advance(Duration::from_millis(2000));
            self.settle();
        }
        let namespace = self.namespace();
        let ready = |at: usize| namespace.queue(places::QUEUES[at]).unwrap().counts().ready;
        assert_eq!(ready(EXPIRING), 0, "messages that did not expire");
        assert!(ready(SHORT) <= SHORT_MAX, "{} messages in the short queue", ready(SHORT));
        self.check_clients();
        self.check_wills();
        for at in unread {
            self.attach_to(at);
        }
        self.settle();
        self.compare_records();
        self.check_left(|at| at < places::GROUP);
        self.end();
    }

    fn check_left(&self, is_checked: impl Fn(usize) -> bool) {
        for (_, place) in self.places.iter().enumerate().filter(|(at, _)| is_checked(*at)) {
            let left = place.left();
            assert!(left.is_empty(), "{}: {left:?} were never delivered", place.name);
        }
    }
}
