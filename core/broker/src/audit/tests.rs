use std::net::SocketAddr;
use std::time::Duration;

use super::*;

fn audit(clock: &Clock, queue_events_max: usize, per_minute: u32) -> Audit {
    let limits = ClientLogLimits {
        address_lines_per_minute_max: per_minute,
        connection_lines_per_minute_max: per_minute,
    };
    let config =
        AuditConfig { topic: Some("_audit".into()), queue_events_max, limits, ..AuditConfig::default() };
    Audit::new(clock.clone(), &config)
}

fn event(kind: AuditKind, name: &str) -> AuditEvent<'_> {
    AuditEvent {
        kind,
        result: AuditResult::Refused,
        who: Who {
            protocol: "p",
            user: Some("ann"),
            client_id: Some("c"),
            address: Some(SocketAddr::from(([192, 0, 2, 7], 1))),
        },
        operation: "write",
        resource: "topic",
        name,
        namespace: Some("/"),
        rule: Some(7),
        reason: None,
    }
}

fn taken(audit: &Audit) -> Vec<String> {
    let events = audit.queue().unwrap().take(usize::MAX);
    events.iter().map(|event| String::from_utf8(event.json.to_vec()).unwrap()).collect()
}

#[test]
fn an_event_is_a_json_object_without_what_is_not_known() {
    let audit = audit(&Clock::manual(5), 10, 10);
    audit.record(&event(AuditKind::Denied, "orders \"x\""));
    let own = Who::default();
    audit.record(&AuditEvent {
        who: own,
        rule: None,
        result: AuditResult::Accepted,
        ..event(AuditKind::Deleted, "q")
    });
    assert_eq!(
        taken(&audit),
        [
            r#"{"time_ms":5,"event":"denied","result":"refused","protocol":"p","client_id":"c","user":"ann","address":"192.0.2.7:1","operation":"write","resource":"topic","name":"orders \"x\"","namespace":"/","rule":7}"#,
            r#"{"time_ms":5,"event":"deleted","result":"accepted","operation":"write","resource":"topic","name":"q","namespace":"/"}"#,
        ]
    );
}

#[test]
fn denials_are_limited_and_changes_of_users_are_not() {
    let clock = Clock::manual(0);
    let audit = audit(&clock, 1000, 10);
    (0..100).for_each(|_| audit.record(&event(AuditKind::Denied, "t")));
    assert_eq!(taken(&audit).len(), 10);
    (0..100).for_each(|_| audit.record(&event(AuditKind::Topology, "t")));
    (0..100).for_each(|_| audit.record(&event(AuditKind::Access, "t")));
    assert_eq!(taken(&audit).len(), 200);
    clock.advance(Duration::from_secs(60));
    audit.record(&event(AuditKind::Denied, "t"));
    let told = taken(&audit);
    assert!(told[0].ends_with(r#""suppressed":90}"#), "{told:?}");
}

#[test]
fn events_beyond_the_queue_are_counted_and_dropped() {
    let audit = audit(&Clock::manual(0), 3, 10);
    (0..10).for_each(|_| audit.record(&event(AuditKind::Access, "t")));
    assert_eq!(audit.queue().unwrap().take_dropped(), 7);
    assert_eq!(taken(&audit).len(), 3);
}

#[test]
fn what_is_not_wanted_is_not_recorded_and_long_names_are_cut() {
    let audit = audit(&Clock::manual(0), 3, 10);
    audit.record(&event(AuditKind::Transient, "t"));
    assert_eq!(taken(&audit), Vec::<String>::new());
    audit.record(&event(AuditKind::Topology, &"é".repeat(2000)));
    assert!(taken(&audit)[0].len() < 1500);
}
