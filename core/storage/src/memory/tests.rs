use bytes::Bytes;

use super::*;

const MIB: usize = 1 << 20;

fn account() -> (Arc<Memory>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    (Memory::new(100 * MIB, gate.clone(), || Duration::ZERO), gate)
}

/// A client that is told to end, and does not.
struct Client {
    party: u64,
    is_evicted: AtomicBool,
}

impl Holder for Client {
    fn party(&self) -> u64 {
        self.party
    }

    fn evict(&self) {
        self.is_evicted.store(true, Ordering::Relaxed);
    }
}

fn client(memory: &Arc<Memory>, party: u64) -> (Account, Arc<Client>) {
    let client = Arc::new(Client { party, is_evicted: AtomicBool::new(false) });
    (memory.account(client.clone()), client)
}

fn is_evicted(client: &(Account, Arc<Client>)) -> bool {
    client.1.is_evicted.load(Ordering::Relaxed)
}

fn set_input(client: &mut (Account, Arc<Client>), bytes: usize) {
    client.0.set(bytes, 0, 0);
}

#[test]
fn small_amounts_are_free_and_others_are_drawn_in_steps() {
    let (memory, _) = account();
    let step = memory.free_bytes();
    let mut held = memory.holder(Share::Queues);
    held.set(step).unwrap();
    assert_eq!(memory.used(Share::Queues), 0);
    held.set(step + 1).unwrap();
    assert_eq!(memory.used(Share::Queues), 2 * step);
    held.set(2 * step).unwrap();
    assert_eq!(memory.total().0, 2 * step);
    drop(held);
    assert_eq!((memory.used(Share::Queues), memory.total().0), (0, 0));
}

#[test]
fn what_is_free_is_a_part_of_the_limit() {
    let step = |limit| Memory::new(limit, Arc::default(), || Duration::ZERO).free_bytes();
    assert_eq!((step(MIB), step(1 << 30), step(usize::MAX)), (4 << 10, 16 << 10, 64 << 10));
}

#[test]
fn publishers_are_held_back_near_the_limit() {
    let (memory, gate) = account();
    let mut holders: Vec<Held> = Share::ALL.iter().map(|share| memory.holder(*share)).collect();
    holders.iter_mut().for_each(|held| held.force(13 * MIB));
    assert_eq!(gate.shortage(), None, "{memory:?}");
    holders[0].force(16 * MIB);
    assert_eq!(gate.shortage(), Some(Shortage::Memory), "{memory:?}");
    holders[0].force(13 * MIB);
    assert_eq!(gate.shortage(), Some(Shortage::Memory), "within the hysteresis");
    assert!(!memory.is_full());
    holders[0].force(30 * MIB);
    assert!(memory.is_full());
    holders.truncate(4);
    assert_eq!((gate.shortage(), memory.is_full()), (None, false));
}

#[test]
fn who_holds_its_part_of_a_used_up_share_is_refused_more() {
    let (memory, _) = account();
    let (mut large, mut small) = (memory.holder(Share::Queues), memory.holder(Share::Queues));
    large.set(24 * MIB).unwrap();
    small.set(MIB).unwrap();
    assert_eq!(large.set(25 * MIB), Err(NoMemory));
    assert_eq!(memory.used(Share::Queues), 25 * MIB);
    small.set(2 * MIB).unwrap();
    drop(large);
    small.set(25 * MIB).unwrap();
    assert_eq!(small.set(26 * MIB), Err(NoMemory), "alone it has all of it");
}

#[test]
fn somebody_is_always_refused_at_the_limit() {
    let (memory, _) = account();
    let mut holders: Vec<Held> = (0..100).map(|_| memory.holder(Share::Queues)).collect();
    for bytes in (1..=16).map(|mib| mib * MIB) {
        holders.retain_mut(|held| held.set(bytes).is_ok());
        assert!(memory.used(Share::Queues) <= memory.limit(Share::Queues) + 2 * MIB, "{memory:?}");
    }
    assert!(!holders.is_empty() && holders.len() < 100);
}

#[test]
fn those_that_come_late_have_their_part_until_memory_is_low() {
    let (memory, _) = account();
    let mut holders = Vec::new();
    for _ in 0..100 {
        let mut held = memory.holder(Share::Queues);
        (1..=16).take_while(|mib| held.set(mib * MIB).is_ok()).count();
        holders.push(held);
    }
    let used = memory.used(Share::Queues);
    assert!(used > memory.limit(Share::Queues) && used <= 50 * MIB, "{memory:?}");
    assert!(!memory.is_tight());
}

#[test]
fn at_the_limit_of_input_the_largest_accounts_end_and_small_ones_go_on() {
    let (memory, gate) = account();
    let mut idle: Vec<_> = (0..9).map(|_| client(&memory, 1)).collect();
    let mut good = client(&memory, 1);
    for mib in 1..=5 {
        idle.iter_mut().for_each(|client| set_input(client, mib * MIB));
    }
    set_input(&mut good, MIB);
    assert!(!memory.is_tight() && !idle.iter().any(is_evicted));
    idle.iter_mut().for_each(|client| set_input(client, 6 * MIB));
    let ended = idle.iter().filter(|client| is_evicted(client)).count();
    assert!((1..9).contains(&ended), "{ended} of 9");
    assert_eq!(memory.ended(), ended);
    assert!(good.0.may_grow() && !is_evicted(&good), "it has less than its part");
    assert!(!idle.iter().any(|client| client.0.may_grow()), "until those have left");
    idle.retain(|client| !is_evicted(client));
    assert!(!memory.is_tight() && idle.iter().all(|client| client.0.may_grow()));
    assert_eq!(gate.shortage(), None);
    drop((idle, good));
    assert_eq!((memory.total().0, memory.claims.counted(), memory.claims.leaving_bytes(None)), (0, 0, 0));
}

#[test]
fn many_clients_of_one_party_end_before_one_of_another() {
    let (memory, _) = account();
    let mut other = client(&memory, 2);
    set_input(&mut other, 10 * MIB);
    let mut many: Vec<_> = (0..100).map(|_| client(&memory, 1)).collect();
    many.iter_mut().for_each(|client| set_input(client, MIB));
    assert!(!is_evicted(&other));
    assert!(many.iter().filter(|client| is_evicted(client)).count() >= 50);
}

#[test]
fn one_account_alone_may_have_more_than_the_share() {
    let (memory, _) = account();
    let mut only = client(&memory, 1);
    set_input(&mut only, 60 * MIB);
    assert!(!is_evicted(&only) && only.0.may_grow());
    set_input(&mut only, 76 * MIB);
    assert!(is_evicted(&only), "but not all memory");
}

#[test]
fn accounts_end_before_publishers_are_held_back_for_what_others_hold() {
    let (memory, gate) = account();
    let mut clients: Vec<_> = (0..40).map(|_| client(&memory, 1)).collect();
    clients.iter_mut().for_each(|client| client.0.set(0, MIB / 2, 0));
    clients.iter_mut().for_each(|client| client.0.set(MIB / 2, MIB / 2, 0));
    let mut queues = memory.holder(Share::Queues);
    queues.force(38 * MIB);
    assert_eq!(gate.shortage(), None);
    clients.retain(|client| !is_evicted(client));
    assert!(memory.total().0 <= 66 * MIB, "{memory:?}");
    queues.force(90 * MIB);
    clients.retain(|client| !is_evicted(client));
    let left = memory.used(Share::Input) + memory.used(Share::Transactions);
    assert!(left >= 9 * MIB, "{left} bytes may always stay");
    assert!(gate.shortage().is_some());
}

#[test]
fn progress_makes_an_account_young() {
    let seconds = Arc::new(AtomicU64::new(0));
    let time = seconds.clone();
    let memory =
        Memory::new(100 * MIB, Arc::default(), move || Duration::from_secs(time.load(Ordering::Relaxed)));
    let (mut idle, mut busy) = (client(&memory, 1), client(&memory, 1));
    set_input(&mut idle, 20 * MIB);
    set_input(&mut busy, 25 * MIB);
    seconds.store(10, Ordering::Relaxed);
    // A message was complete, the next has begun.
    set_input(&mut busy, MIB);
    seconds.store(11, Ordering::Relaxed);
    set_input(&mut busy, 32 * MIB);
    assert!(is_evicted(&idle) && !is_evicted(&busy));
}

#[test]
fn a_client_that_holds_nothing_is_read_whatever_others_hold() {
    let (memory, _) = account();
    let mut consumer = client(&memory, 1);
    consumer.0.set(0, 0, MIB);
    consumer.0.set(0, 0, 0);
    let mut queues = memory.holder(Share::Queues);
    queues.force(100 * MIB);
    assert!(memory.is_tight() && consumer.0.may_grow(), "its acknowledgements free the queues");
    consumer.0.set(0, 0, MIB);
    assert!(!consumer.0.may_grow());
}

#[test]
fn nothing_is_low_when_many_threads_have_given_everything_back() {
    let (memory, gate) = account();
    for _ in 0..200 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut held = memory.holder(Share::Queues);
                    (0..20).for_each(|_| [90 * MIB, 0].into_iter().for_each(|bytes| held.force(bytes)));
                });
            }
        });
        assert_eq!((memory.total().0, memory.is_tight(), gate.shortage()), (0, false, None));
    }
}

#[test]
fn what_many_share_is_counted_once_until_the_last_has_dropped_it() {
    let (memory, _) = account();
    let bytes = memory.charge(Share::Queues, &Bytes::from(vec![7; 1000]));
    let slices: Vec<_> = (0..30).map(|at| bytes.slice(at..at + 10)).collect();
    assert_eq!((bytes.len(), &slices[3][..]), (1000, &[7; 10][..]));
    drop(bytes);
    assert_eq!((memory.used(Share::Queues), memory.total().0), (1000, 1000));
    drop(slices);
    assert_eq!(memory.total().0, 0);
}

#[test]
fn who_holds_shared_bytes_is_refused_more_as_if_they_were_its_own() {
    let (memory, _) = account();
    let all: Vec<_> = (0..26).map(|_| memory.charge(Share::Queues, &Bytes::from(vec![0; MIB]))).collect();
    let (mut slow, mut quick) = (memory.holder(Share::Queues), memory.holder(Share::Queues));
    slow.force_of(0, all.len() * MIB);
    quick.force_of(0, MIB);
    assert_eq!(memory.used(Share::Queues), 26 * MIB);
    assert!(!slow.has_room(0, 27 * MIB) && quick.has_room(0, 2 * MIB));
    drop(all);
    assert!(slow.has_room(0, 27 * MIB));
}
