use super::*;
use crate::spec::Overflow;

fn spec(pattern: &str, priority: i64, definition: &[(&str, Value)]) -> PolicySpec {
    PolicySpec {
        pattern: pattern.into(),
        applies_to: AppliesTo::All,
        priority,
        definition: definition.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

fn policy(kind: PolicyKind, name: &str, spec: PolicySpec) -> Arc<Policy> {
    Arc::new(Policy::new(kind, name, spec).unwrap())
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

#[test]
fn the_first_match_by_priority_and_name_applies() {
    let mut policies = Policies::default();
    let bound = [("max-length", Value::Int(1))];
    for (name, pattern, priority) in [("b", "^q", 1), ("a", "^q", 1), ("high", "^q1$", 2), ("low", "", -1)] {
        policies.insert(
            PolicyKind::Ordinary,
            policy(PolicyKind::Ordinary, name, spec(pattern, priority, &bound)),
        );
    }
    let applied = |name: &str| {
        let applied = policies.of_queue(name, &QueueSpec::default());
        applied.policy.map(|policy| policy.name().to_owned())
    };
    assert_eq!(applied("q1").as_deref(), Some("high"));
    assert_eq!(applied("q2").as_deref(), Some("a"));
    assert_eq!(applied("x").as_deref(), Some("low"));
}

#[test]
fn a_policy_applies_to_objects_of_its_kind() {
    let quorum =
        QueueSpec { arguments: [("x-queue-type".to_owned(), text("quorum"))].into(), ..QueueSpec::default() };
    let stream = QueueSpec {
        durable: true,
        arguments: [("x-queue-type".to_owned(), text("stream"))].into(),
        ..QueueSpec::default()
    };
    let classic = QueueSpec::default();
    let kinds = [
        (AppliesTo::All, [true, true, true, true]),
        (AppliesTo::Exchanges, [false, false, false, true]),
        (AppliesTo::Queues, [true, true, true, false]),
        (AppliesTo::ClassicQueues, [true, false, false, false]),
        (AppliesTo::QuorumQueues, [false, true, false, false]),
        (AppliesTo::Streams, [false, false, true, false]),
    ];
    for (applies_to, wanted) in kinds {
        let spec = PolicySpec { applies_to, ..spec("^q", 0, &[("max-length", Value::Int(1))]) };
        let mut policies = Policies::default();
        policies.insert(PolicyKind::Operator, policy(PolicyKind::Operator, "p", spec));
        let found = [
            policies.of_queue("q", &classic).operator.is_some(),
            policies.of_queue("q", &quorum).operator.is_some(),
            policies.of_queue("q", &stream).operator.is_some(),
            policies.of_exchange("q").operator.is_some(),
        ];
        assert_eq!(found, wanted, "{applies_to:?}");
        assert!(policies.of_queue("x", &classic).is_empty());
    }
}

#[test]
fn the_smallest_number_holds_and_of_others_the_argument() {
    let ordinary = spec(
        "",
        0,
        &[
            ("max-length", Value::Int(10)),
            ("message-ttl", Value::Int(50)),
            ("overflow", text("reject-publish")),
            ("dead-letter-exchange", text("x")),
            ("dead-letter-routing-key", text("k")),
            ("delivery-limit", Value::Int(30)),
        ],
    );
    let operator = spec("", 0, &[("max-length", Value::Int(8)), ("expires", Value::Int(1000))]);
    let applied = Applied {
        policy: Some(policy(PolicyKind::Ordinary, "p", ordinary)),
        operator: Some(policy(PolicyKind::Operator, "o", operator)),
    };
    assert_eq!(applied.definition().get("max-length"), Some(&Value::Int(8)));
    let limits = applied.limits(&QueueSpec::default());
    let dead_letter = DeadLetter { exchange: "x".into(), routing_key: Some(b"k".to_vec()) };
    let expected = QueueLimits {
        message_ttl_ms: Some(50),
        expires_after_ms: Some(1000),
        messages_max: Some(8),
        overflow: Overflow::RejectPublish,
        dead_letter: Some(dead_letter),
        ..QueueLimits::default()
    };
    assert_eq!(limits, expected);

    let own = QueueLimits {
        messages_max: Some(5),
        message_ttl_ms: Some(100),
        dead_letter: Some(DeadLetter { exchange: "own".into(), routing_key: None }),
        deliveries_max: Some(20),
        ..QueueLimits::default()
    };
    let arguments = [("x-overflow", "drop-head"), ("x-queue-type", "quorum")];
    let declared = QueueSpec {
        limits: own,
        arguments: arguments.map(|(name, value)| (name.to_owned(), text(value))).into(),
        ..QueueSpec::default()
    };
    let limits = applied.limits(&declared);
    assert_eq!((limits.messages_max, limits.message_ttl_ms), (Some(5), Some(50)));
    assert_eq!(limits.overflow, Overflow::DropHead);
    let dead_letter = DeadLetter { exchange: "own".into(), routing_key: Some(b"k".to_vec()) };
    assert_eq!(limits.dead_letter, Some(dead_letter));
    assert_eq!(limits.deliveries_max, Some(30), "the default of the type is no argument");
}

#[test]
fn a_negative_delivery_limit_is_none() {
    let applied = |policy_limit: i128, argument: Option<i128>| {
        let arguments = argument.map(|limit| ("x-delivery-limit".to_owned(), Value::Int(limit)));
        let arguments = arguments.into_iter().chain([("x-queue-type".to_owned(), text("quorum"))]);
        let declared = QueueSpec { arguments: arguments.collect(), ..QueueSpec::default() };
        let spec = spec("", 0, &[("delivery-limit", Value::Int(policy_limit))]);
        let policy = Some(policy(PolicyKind::Ordinary, "p", spec));
        Applied { policy, operator: None }.limits(&declared).deliveries_max
    };
    assert_eq!(applied(-1, None), None);
    assert_eq!(applied(3, None), Some(3));
    assert_eq!(applied(3, Some(2)), Some(2));
    assert_eq!(applied(3, Some(-1)), Some(3));
}

#[test]
fn wrong_definitions_are_refused_by_name() {
    let refused = |kind, definition: &[(&str, Value)]| {
        Policy::new(kind, "p", spec("", 0, definition)).unwrap_err().to_string()
    };
    let ordinary = |definition: &[(&str, Value)]| refused(PolicyKind::Ordinary, definition);
    assert_eq!(ordinary(&[]), "no policy provided");
    assert_eq!(
        ordinary(&[("nope", Value::Int(1)), ("nada", text("x")), ("max-length", Value::Int(1))]),
        "[{<<\"nada\">>,<<\"x\">>},{<<\"nope\">>,1}] are not recognised policy settings"
    );
    for (name, value, expected) in [
        ("max-length", Value::Int(-1), "-1 is not a valid maximum length"),
        ("max-length", text("a"), "<<\"a\">> is not a valid maximum length"),
        ("expires", Value::Int(0), "0 is not a valid queue expiry"),
        ("message-ttl", Value::Int(-1), "-1 is not a valid message TTL"),
        ("overflow", text("drop"), "<<\"drop\">> is not a valid overflow value"),
        ("max-age", text("0D"), "<<\"0D\">> is not a valid max age"),
        ("stream-filter-size-bytes", Value::Int(1), "1 is not a valid filter size. Valid range is 16-255"),
        ("alternate-exchange", Value::Int(1), "1 is not a valid alternate exchange name"),
        ("queue-version", Value::Int(3), "3 is not a valid queue-version value"),
    ] {
        assert_eq!(ordinary(&[(name, value)]), expected);
    }
    let of_operator = refused(PolicyKind::Operator, &[("dead-letter-exchange", text("x"))]);
    assert_eq!(of_operator, "[{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings");
    let pattern = Policy::new(PolicyKind::Ordinary, "p", spec("(", 0, &[("max-length", Value::Int(1))]));
    assert!(
        pattern.unwrap_err().to_string().starts_with("pattern should be regular expression but is invalid")
    );
    assert!(Policy::new(PolicyKind::Ordinary, "", spec("", 0, &[("max-length", Value::Int(1))])).is_err());
    let names = [("queue-mode", text("lazy")), ("max-length", Value::Int(1))];
    assert_eq!(policy(PolicyKind::Ordinary, "p", spec("", 0, &names)).without_effect(), ["queue-mode"]);
}
