//! The threads that verify passwords, and the queue before them.
//!
//! Hashing is slow and takes megabytes by design, so it has threads of its own, each with memory that it uses again and
//! frees when nothing was to do for [`IDLE_AFTER`]. Addresses take turns: a client that sends many logins delays its own
//! and not those of others. Logins that are suspected of guessing wait behind all others.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use inver_access::{Credential, HashMemory, User};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::passwords::{SCRAM_DIGESTS, SCRAM_ITERATIONS};

/// Idle time after which a thread frees its memory.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Suspected logins get every so many turns while others wait.
const SUSPECTED_EVERY: u32 = 8;

/// How urgent a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Usual,
    /// Many logins of this address or user failed lately.
    Suspected,
}

/// A password to check.
pub(super) struct Check {
    pub(super) user: Arc<User>,
    /// Its credentials are checked in vain where the user has none of their kind, so that a wrong password takes as long as an
    /// unknown user.
    pub(super) decoy: Arc<User>,
    pub(super) password: Vec<u8>,
    /// Whether to compute Inver's own credentials of a right password where the user has none.
    pub(super) wants_own_credentials: bool,
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) matches: bool,
    /// Credentials to store beside those that the user has.
    pub(super) own_credentials: Vec<Credential>,
}

/// The queue is full.
#[derive(Debug)]
pub(super) struct QueueFull;

/// The threads and their queue. Dropping it ends the threads.
pub(super) struct Checks(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

struct Job {
    check: Check,
    done: oneshot::Sender<Checked>,
}

struct Queue {
    usual: Turns,
    suspected: Turns,
    max: usize,
    /// Turns since a suspected login had one.
    since_suspected: u32,
    is_over: bool,
}

/// Jobs by address, and the addresses that have some in the order of their turns.
#[derive(Default)]
struct Turns {
    jobs: HashMap<IpAddr, VecDeque<Job>>,
    turns: VecDeque<IpAddr>,
    len: usize,
}

impl Turns {
    fn push(&mut self, address: IpAddr, job: Job) {
        let jobs = self.jobs.entry(address).or_default();
        if jobs.is_empty() {
            self.turns.push_back(address);
        }
        jobs.push_back(job);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Job> {
        let address = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&address)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        self.len -= usize::from(job.is_some());
        job
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Job> {
        self.since_suspected += 1;
        if self.since_suspected >= SUSPECTED_EVERY
            && let Some(job) = self.suspected.pop()
        {
            self.since_suspected = 0;
            return Some(job);
        }
        self.usual.pop().or_else(|| self.suspected.pop())
    }
}

impl Checks {
    /// Starts `threads` threads before a queue of at most `queued_max` checks.
    pub(super) fn start(threads: usize, queued_max: usize) -> std::io::Result<Checks> {
        let queue = Queue {
            usual: Turns::default(),
            suspected: Turns::default(),
            max: queued_max,
            since_suspected: 0,
            is_over: false,
        };
        let checks = Checks(Arc::new(Shared { queue: Mutex::new(queue), filled: Condvar::new() }));
        for number in 0..threads.max(1) {
            let shared = checks.0.clone();
            thread::Builder::new().name(format!("inver-logins-{number}")).spawn(move || shared.work())?;
        }
        Ok(checks)
    }

    /// Checks a password in its turn.
    pub(super) async fn check(
        &self,
        address: IpAddr,
        class: Class,
        check: Check,
    ) -> Result<Checked, QueueFull> {
        let (done, checked) = oneshot::channel();
        {
            let mut queue = self.0.queue.lock();
            if queue.usual.len + queue.suspected.len >= queue.max {
                return Err(QueueFull);
            }
            let turns = match class {
                Class::Usual => &mut queue.usual,
                Class::Suspected => &mut queue.suspected,
            };
            turns.push(address, Job { check, done });
        }
        self.0.filled.notify_one();
        checked.await.map_err(|_| QueueFull)
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.queue.lock().is_over = true;
        self.0.filled.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut memory = HashMemory::default();
        while let Some(job) = self.next(&mut memory) {
            // A client that left meanwhile needs no answer.
            if !job.done.is_closed() {
                let _ = job.done.send(run(&job.check, &mut memory));
            }
        }
    }

    /// The next job; none when the queue is over.
    fn next(&self, memory: &mut HashMemory) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_over {
                return None;
            }
            if let Some(job) = queue.pop() {
                return Some(job);
            }
            if self.filled.wait_for(&mut queue, IDLE_AFTER).timed_out() {
                memory.free();
                self.filled.wait(&mut queue);
            }
        }
    }
}

fn run(check: &Check, memory: &mut HashMemory) -> Checked {
    let matches = check.user.verify(&check.password, memory);
    if !matches {
        // All kinds that a user may have take their time, so that it does not tell which the user has, or that there is none.
        let is_lacking = |decoy: &&Credential| {
            !check.user.credentials.iter().any(|of_user| of_user.kind() == decoy.kind())
        };
        for decoy in check.decoy.credentials.iter().filter(is_lacking) {
            let _ = decoy.verify_with(&check.password, memory);
        }
    }
    let own_credentials = match matches && check.wants_own_credentials {
        true => missing_credentials(&check.user, &check.password),
        false => Vec::new(),
    };
    Checked { matches, own_credentials }
}

fn is_argon2(credential: &Credential) -> bool {
    matches!(credential, Credential::Argon2(_))
}

/// An argon2id hash and SCRAM keys of a password, without those that the user has already.
fn missing_credentials(user: &User, password: &[u8]) -> Vec<Credential> {
    let argon2 = (!user.credentials.iter().any(is_argon2)).then(|| Credential::argon2id(password));
    let missing = SCRAM_DIGESTS.into_iter().filter(|digest| {
        !user.credentials.iter().any(|each| matches!(each, Credential::Scram(keys) if keys.digest == *digest))
    });
    let scram = missing.map(|digest| Credential::scram(digest, password, SCRAM_ITERATIONS));
    argon2.into_iter().chain(scram).filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn job(name: &str) -> (Job, oneshot::Receiver<Checked>) {
        let (done, checked) = oneshot::channel();
        let user = Arc::new(User::new(name));
        let check = Check { decoy: user.clone(), user, password: Vec::new(), wants_own_credentials: false };
        (Job { check, done }, checked)
    }

    fn queue() -> Queue {
        Queue {
            usual: Turns::default(),
            suspected: Turns::default(),
            max: 10,
            since_suspected: 0,
            is_over: false,
        }
    }

    fn order(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|job| job.check.user.name.clone()).collect()
    }

    #[test]
    fn addresses_take_turns() {
        let mut queue = queue();
        for (last, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            queue.usual.push(address(last), job(name).0);
        }
        assert_eq!(order(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(queue.usual.jobs.is_empty() && queue.usual.turns.is_empty() && queue.usual.len == 0);
    }

    #[test]
    fn suspected_logins_wait_but_are_not_starved() {
        let mut queue = queue();
        queue.suspected.push(address(1), job("guess").0);
        for number in 0..10 {
            queue.usual.push(address(2), job(&number.to_string()).0);
        }
        let order = order(&mut queue);
        assert_eq!(order.iter().position(|name| name == "guess"), Some(7));
    }

    #[tokio::test]
    async fn passwords_are_checked_and_a_full_queue_refuses() {
        let mut user = User::new("ann");
        user.credentials = vec![Credential::argon2id(b"pw").unwrap()];
        let user = Arc::new(user);
        let checks = Checks::start(2, 10).unwrap();
        let check = |password: &str, wants_own_credentials| {
            let (user, decoy) = (user.clone(), user.clone());
            let check = Check { user, decoy, password: password.into(), wants_own_credentials };
            checks.check(address(1), Class::Usual, check)
        };
        assert!(check("pw", false).await.unwrap().matches);
        assert!(!check("wp", true).await.unwrap().matches);
        let own = check("pw", true).await.unwrap().own_credentials;
        assert!(own.len() == 2 && own.iter().all(|each| each.verify(b"pw")), "SCRAM keys, the hash is there");
        let full = Checks::start(1, 0).unwrap();
        let nothing = Check { decoy: user.clone(), user, password: Vec::new(), wants_own_credentials: false };
        assert!(full.check(address(1), Class::Usual, nothing).await.is_err());
    }
}
