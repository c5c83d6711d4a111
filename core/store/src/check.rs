//! Whether a store does what is asked of it. There are services that take the header of a create-if-absent and ignore it: on
//! one of them two nodes would both take themselves for the owner of a log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::error::StoreError;
use crate::store::{Listed, Page, Store};

/// Creates of one name at a time.
pub const RACERS: usize = 16;
/// Names that are raced for: a store that checks and then writes loses a race now and then only.
const RACES: usize = 4;
/// Times that a race is run again because too few creates were decided.
const FALSE_STARTS_MAX: usize = 4;
/// Attempts of a request that may be repeated.
const ATTEMPTS_MAX: u32 = 5;
/// Time before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// An object can be stored, and is read as it was stored, also when it was stored over another.
    PutAndGet,
    /// A part of an object is read.
    RangedGet,
    /// A name that has no object is read, and is not found.
    Absence,
    /// An object is created, and cannot be created a second time.
    Create,
    /// Of [`RACERS`] creates of one name one succeeds, and its object stays.
    RacingCreates,
    /// A list shows what was stored before, in order, and from a name on.
    List,
    /// A deleted object is neither read nor listed, and its name can be created again.
    Delete,
}

impl Checked {
    /// Every check, in the order in which they run.
    pub const ALL: [Checked; 7] = [
        Checked::PutAndGet,
        Checked::RangedGet,
        Checked::Absence,
        Checked::Create,
        Checked::RacingCreates,
        Checked::List,
        Checked::Delete,
    ];

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Checked::PutAndGet => "put and get",
            Checked::RangedGet => "ranged get",
            Checked::Absence => "get of nothing",
            Checked::Create => "create if absent",
            Checked::RacingCreates => "16 racing creates, one winner",
            Checked::List => "list after put",
            Checked::Delete => "delete",
        }
    }
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The store did not do it.
    Error(StoreError),
    /// It did something else, described here.
    Wrong(String),
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub checked: Checked,
    /// How it went.
    pub result: Result<(), Failure>,
}

/// Checks a store with objects below `folder`, a name that nothing else uses, and deletes them. Ends early where nothing can
/// be stored.
pub async fn check(store: Arc<dyn Store>, folder: &str) -> Vec<Finding> {
    let run = Run { store, folder: folder.to_owned() };
    let mut findings = Vec::new();
    for checked in Checked::ALL {
        let result = run.one(checked).await;
        let is_over = checked == Checked::PutAndGet && matches!(result, Err(Failure::Error(_)));
        findings.push(Finding { checked, result });
        if is_over {
            break;
        }
    }
    run.clean().await;
    findings
}

struct Run {
    store: Arc<dyn Store>,
    folder: String,
}

type Checking = Result<(), Failure>;

fn wrong(text: impl Into<String>) -> Failure {
    Failure::Wrong(text.into())
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Error(error)
    }
}

/// Makes a request again while that can help.
async fn repeat<T, F>(request: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS_MAX {
        match request().await {
            Err(error) if error.is_worth_repeating() => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 2;
    }
    request().await
}

impl Run {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn one(&self, checked: Checked) -> Checking {
        match checked {
            Checked::PutAndGet => self.put_and_get().await,
            Checked::RangedGet => self.ranged_get().await,
            Checked::Absence => self.absence().await,
            Checked::Create => self.create().await,
            Checked::RacingCreates => self.races().await,
            Checked::List => self.list().await,
            Checked::Delete => self.delete().await,
        }
    }

    async fn put(&self, name: &str, body: &'static str) -> Result<(), StoreError> {
        let key = self.key(name);
        repeat(|| self.store.put(&key, Bytes::from_static(body.as_bytes()))).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let key = self.key(name);
        repeat(|| self.store.get(&key)).await
    }

    /// Creates an object. One's own object of an earlier attempt is success.
    async fn create_one(&self, name: &str, body: &Bytes) -> Result<(), StoreError> {
        let key = self.key(name);
        match repeat(|| self.store.create(&key, body.clone())).await {
            Err(StoreError::AlreadyExists) if self.get(name).await.as_ref() == Ok(body) => Ok(()),
            created => created,
        }
    }

    async fn put_and_get(&self) -> Checking {
        for body in ["first", "second, longer"] {
            self.put("put", body).await?;
            let read = self.get("put").await?;
            if read != body.as_bytes() {
                return Err(wrong("an object was read otherwise than it was stored"));
            }
        }
        Ok(())
    }

    async fn ranged_get(&self) -> Checking {
        self.put("range", "0123456789").await?;
        let key = self.key("range");
        for (range, expected) in [(2..5, "234"), (8..20, "89")] {
            let read = repeat(|| self.store.get_range(&key, range.clone())).await?;
            if read != expected.as_bytes() {
                return Err(wrong(format!("the range {range:?} has other bytes")));
            }
        }
        Ok(())
    }

    async fn absence(&self) -> Checking {
        match self.get("absent").await {
            Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(wrong("an object was read that was never stored")),
        }
    }

    async fn create(&self) -> Checking {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        self.create_one("create", &first).await?;
        match self.create_one("create", &second).await {
            Err(StoreError::AlreadyExists) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Err(wrong("a second create of one name succeeded")),
        }
        if self.get("create").await? == first {
            Ok(())
        } else {
            Err(wrong("a refused create changed the object"))
        }
    }

    async fn races(&self) -> Checking {
        for race in 0..RACES {
            let mut starts = 0;
            while let Some(error) = self.race(&format!("race-{race}-{starts}")).await? {
                starts += 1;
                if starts > FALSE_STARTS_MAX {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Runs a race. Returns an error if it was none: the store was too busy for more than one of the creates.
    async fn race(&self, name: &str) -> Result<Option<StoreError>, Failure> {
        let bodies: Vec<Bytes> = (0..RACERS).map(|racer| Bytes::from(format!("racer {racer}"))).collect();
        let key = self.key(name);
        // A racer that was told nothing reads the object: it may be its own.
        let one = async |body: &Bytes| match self.store.create(&key, body.clone()).await {
            Ok(()) => Ok(Raced::Won),
            Err(StoreError::AlreadyExists | StoreError::Conflict(_)) => Ok(Raced::Lost),
            Err(error @ StoreError::Again(_)) => Ok(Raced::Not(error)),
            Err(StoreError::Unknown(_)) => match self.get(name).await {
                Ok(stored) if stored == body => Ok(Raced::Won),
                Ok(_) | Err(StoreError::NotFound) => Ok(Raced::Lost),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let raced = join_all(bodies.iter().map(one)).await.into_iter().collect::<Result<Vec<Raced>, _>>()?;
        let mut won: Vec<bool> = raced.iter().map(|raced| matches!(raced, Raced::Won)).collect();
        let mut not: Vec<StoreError> = raced.into_iter().filter_map(Raced::error).collect();
        if not.len() + 1 >= RACERS {
            return Ok(not.pop());
        }
        let mut winners = won.iter().filter(|won| **won).count();
        if winners == 0 {
            // All were undecided: the name is still free.
            self.create_one(name, &bodies[0]).await?;
            won[0] = true;
            winners = 1;
        }
        if winners > 1 {
            return Err(wrong(format!("{winners} of {RACERS} creates of one name succeeded")));
        }
        let stored = self.get(name).await?;
        let is_winners = bodies.iter().zip(&won).any(|(body, won)| *won && *body == stored);
        if is_winners { Ok(None) } else { Err(wrong("the object is not that of the create that succeeded")) }
    }

    async fn list(&self) -> Checking {
        for name in ["list/b", "list/a-1", "list/a", "list/c"] {
            self.put(name, "x").await?;
        }
        let all: Vec<String> = ["a", "a-1", "b", "c"].map(|name| self.key(&format!("list/{name}"))).into();
        let prefix = self.key("list/");
        let whole = repeat(|| self.store.list(&prefix, None, 10)).await?;
        expect(&whole, &all, false, "a list lacks what was stored before, or is out of order")?;
        let first = repeat(|| self.store.list(&prefix, None, 2)).await?;
        expect(&first, &all[..2], true, "a list of at most two names has others")?;
        let rest = repeat(|| self.store.list(&prefix, Some(&all[1]), 10)).await?;
        expect(&rest, &all[2..], false, "a list after a name has others than those behind it")
    }

    async fn delete(&self) -> Checking {
        let key = self.key("deleted/x");
        self.put("deleted/x", "x").await?;
        // The second time there is nothing to delete.
        for _ in 0..2 {
            repeat(|| self.store.delete(&key)).await?;
        }
        match self.get("deleted/x").await {
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(wrong("a deleted object was read")),
        }
        let prefix = self.key("deleted/");
        let listed = repeat(|| self.store.list(&prefix, None, 10)).await?;
        expect(&listed, &[], false, "a deleted object was listed")?;
        Ok(self.create_one("deleted/x", &Bytes::from_static(b"again")).await?)
    }

    /// Deletes what the checks stored, as far as the store does that.
    async fn clean(&self) {
        let prefix = format!("{}/", self.folder);
        let Ok(Page { objects, .. }) = repeat(|| self.store.list(&prefix, None, 100)).await else { return };
        for Listed { key, .. } in objects {
            // Those that stay are named in the documentation.
            let _ = repeat(|| self.store.delete(&key)).await;
        }
    }
}

/// How a create did in a race.
enum Raced {
    Won,
    Lost,
    /// It was not decided against another.
    Not(StoreError),
}

impl Raced {
    fn error(self) -> Option<StoreError> {
        match self {
            Raced::Not(error) => Some(error),
            Raced::Won | Raced::Lost => None,
        }
    }
}

fn expect(page: &Page, keys: &[String], has_more: bool, otherwise: &str) -> Checking {
    let is_so = page.objects.iter().map(|object| &object.key).eq(keys) && page.has_more == has_more;
    if is_so { Ok(()) } else { Err(wrong(otherwise)) }
}
