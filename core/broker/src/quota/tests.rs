use inver_access::EntityName;
use inver_storage::LogOptions;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn user(name: &str) -> QuotaEntity {
    QuotaEntity::Client { user: Some(EntityName::parse(name)), client_id: None }
}

fn scope<'a>(user: &'a str, client_id: &str, namespace: &'a str) -> QuotaScope<'a> {
    QuotaScope { user: Some(user), client_id: client_id.into(), namespace }
}

fn set(quotas: &Quotas, entity: &QuotaEntity, set: impl FnOnce(&mut QuotaLimits)) {
    quotas.update(entity, set).unwrap();
}

#[test]
fn quotas_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let log = Log::open(folder.path(), LogOptions::default()).unwrap();
        Quotas::open(log, Clock::system(), 10).unwrap()
    };
    let both = QuotaEntity::Client {
        user: Some(EntityName::Default),
        client_id: Some(EntityName::Named(String::new())),
    };
    let all = [
        both,
        user("ann"),
        QuotaEntity::Namespace(EntityName::parse("red")),
        QuotaEntity::Ip(EntityName::Default),
    ];
    let listed = {
        let quotas = open();
        all.iter().for_each(|entity| set(&quotas, entity, |limits| limits.connections = Some(5)));
        set(&quotas, &user("ann"), |limits| limits.request_time_percent = Some(12.5));
        set(&quotas, &user("bob"), |limits| limits.bytes_in = Some(1));
        set(&quotas, &user("bob"), |limits| limits.bytes_in = None);
        quotas.list()
    };
    assert_eq!((open().list(), listed.len()), (listed, 4));
    assert_eq!(open().get(&user("ann")).unwrap().0.request_time_percent, Some(12.5));
}

/// The key and the row of a quota, as they are stored; `rows` has a test of earlier rows.
#[test]
fn stored_bytes_are_read() {
    let entity = QuotaEntity::Client { user: Some(EntityName::Named("ann".into())), client_id: None };
    let limits = QuotaLimits { bytes_in: Some(300), connections: Some(2), ..QuotaLimits::default() };
    let (key, row) = ([1, 0, 1, 1, 3, b'a', b'n', b'n', 0], [2, 1, 0xac, 2, 0, 0, 0, 0, 1, 2, 0]);
    assert_eq!(tables::decode::<QuotaEntity>(QUOTAS, &key).unwrap(), entity);
    assert_eq!(rows::decode(&row).unwrap(), limits);
    assert_eq!((&*tables::encode(&entity), &*rows::encode(&limits)), (&key[..], &row[..]));
}

#[test]
fn connections_of_an_entity_share_its_rate_and_changes_reach_them() {
    let clock = Clock::manual(0);
    let quotas = Quotas::in_memory(clock.clone());
    let connections = [ConnectionQuotas::new(quotas.clone()), ConnectionQuotas::new(quotas.clone())];
    let applied = |at: usize| connections[at].applied(|| scope("ann", "c", "red"));
    assert!(applied(0).is_none());
    set(&quotas, &user("ann"), |limits| limits.bytes_in = Some(1000));
    applied(0).unwrap().take(QuotaKind::BytesIn, 3000.0, clock.now());
    assert_eq!(applied(1).unwrap().delay_in(clock.now()), 2 * SECOND);
    assert_eq!(applied(1).unwrap().delay_out(clock.now()), Duration::ZERO);
    // Another user has a share of his own; one who connects again has the same.
    set(&quotas, &user("*"), |limits| limits.bytes_in = Some(1000));
    let other = ConnectionQuotas::new(quotas.clone());
    assert_eq!(other.applied(|| scope("bob", "c", "red")).unwrap().delay_in(clock.now()), Duration::ZERO);
    let again = ConnectionQuotas::new(quotas.clone());
    assert_eq!(again.applied(|| scope("ann", "d", "blue")).unwrap().delay_in(clock.now()), 2 * SECOND);
    clock.advance(SECOND);
    set(&quotas, &user("ann"), |limits| limits.bytes_in = Some(2000));
    assert_eq!(applied(1).unwrap().delay_in(clock.now()), SECOND / 2);
    set(&quotas, &user("ann"), |limits| limits.bytes_in = None);
    set(&quotas, &user("*"), |limits| limits.bytes_in = None);
    assert!(applied(0).is_none() && applied(1).is_none());
}

#[test]
fn a_namespace_has_a_rate_beside_its_clients_and_the_stricter_holds() {
    let clock = Clock::manual(0);
    let quotas = Quotas::in_memory(clock.clone());
    set(&quotas, &user("*"), |limits| limits.messages_out = Some(10));
    set(&quotas, &QuotaEntity::Namespace(EntityName::parse("red")), |limits| limits.messages_out = Some(15));
    let of = |user: &'static str| {
        ConnectionQuotas::new(quotas.clone()).applied(|| scope(user, "", "red")).unwrap()
    };
    let (ann, bob) = (of("ann"), of("bob"));
    assert_eq!(ann.portion(QuotaKind::MessagesOut, clock.now()), Some(10.0));
    ann.take(QuotaKind::MessagesOut, 10.0, clock.now());
    assert_eq!(bob.portion(QuotaKind::MessagesOut, clock.now()), Some(5.0));
    assert_eq!(bob.portion(QuotaKind::MessagesIn, clock.now()), None);
    assert_eq!(ann.portion(QuotaKind::MessagesOut, clock.now()), Some(0.2));
    bob.take(QuotaKind::MessagesOut, 20.0, clock.now());
    assert_eq!((ann.delay_out(clock.now()), bob.delay_out(clock.now())), (SECOND, SECOND));
}

#[test]
fn connections_wait_for_their_turn_or_are_refused() {
    let clock = Clock::manual(0);
    let quotas = Quotas::in_memory(clock.clone());
    let ip = |address: &str| address.parse::<IpAddr>().unwrap();
    let connect = |user, address, wait_max| quotas.connect(&scope(user, "", "red"), ip(address), wait_max);
    assert_eq!(connect("ann", "10.0.0.1", Duration::ZERO), Some(Duration::ZERO));
    set(&quotas, &user("ann"), |limits| limits.connections = Some(2));
    set(&quotas, &QuotaEntity::Ip(EntityName::Default), |limits| limits.connections = Some(1));
    assert_eq!(connect("ann", "10.0.0.1", Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(connect("ann", "10.0.0.1", Duration::ZERO), None);
    assert_eq!(connect("ann", "10.0.0.2", Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(connect("ann", "10.0.0.3", SECOND), Some(SECOND / 2));
    assert_eq!(connect("bob", "10.0.0.1", SECOND), Some(SECOND));
    clock.advance(2 * SECOND);
    assert_eq!(connect("ann", "10.0.0.1", Duration::ZERO), Some(Duration::ZERO));
}

#[test]
fn shares_that_nobody_uses_are_removed() {
    let clock = Clock::manual(0);
    let quotas = Quotas::in_memory(clock.clone());
    set(&quotas, &QuotaEntity::Ip(EntityName::Default), |limits| limits.connections = Some(100));
    for number in 0..20_000u32 {
        clock.advance(Duration::from_millis(1));
        let ip = IpAddr::from(number.to_be_bytes());
        assert_eq!(quotas.connect(&scope("ann", "", "red"), ip, Duration::ZERO), Some(Duration::ZERO));
        assert!(quotas.0.shares.len() <= 1024, "{number}");
    }
}

#[test]
fn quotas_of_the_configuration_are_read_only_and_win() {
    let quotas = Quotas::in_memory(Clock::manual(0));
    set(&quotas, &user("ann"), |limits| limits.bytes_in = Some(1));
    let two = QuotaLimits { bytes_in: Some(2), ..QuotaLimits::default() };
    quotas.set_configured(vec![(user("ann"), two)]).unwrap();
    assert_eq!(quotas.list(), [(user("ann"), two, Source::Configuration)]);
    let refused = quotas.update(&user("ann"), |limits| limits.bytes_in = Some(3));
    assert!(matches!(refused, Err(QuotasError::ReadOnly(entity)) if entity == user("ann")));
    quotas.set_configured(Vec::new()).unwrap();
    assert_eq!(quotas.get(&user("ann")).map(|(limits, _)| limits.bytes_in), Some(Some(1)));
}

#[test]
fn the_number_of_quotas_is_bounded() {
    let quotas = Quotas::in_memory(Clock::manual(0));
    for name in ["a", "b", "c"] {
        set(&quotas, &user(name), |limits| limits.bytes_in = Some(1));
    }
    let refused = quotas.update(&user("d"), |limits| limits.bytes_in = Some(1));
    assert!(matches!(refused, Err(QuotasError::Limit(LimitReached { max: 3, .. }))));
    set(&quotas, &user("a"), |limits| limits.bytes_in = Some(2));
    set(&quotas, &user("a"), |limits| limits.bytes_in = None);
    set(&quotas, &user("d"), |limits| limits.bytes_in = Some(1));
}
