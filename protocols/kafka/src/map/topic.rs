//! Names and errors of topics.

use inver_broker::TopicError;

use crate::access;
use crate::codec::error_code::ErrorCode;

/// Whether Kafka clients may create a topic with this name: Kafka's rule, plus `%`, which escapes addresses of other
/// protocols (`a%2Eb`). Existing topics with other names can be used.
pub(crate) fn is_legal_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= inver_broker::TOPIC_NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'%'))
}

/// Names of Kafka's internal topics. They do not exist here, and nobody may take their place.
const INTERNAL: [&str; 4] =
    ["__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"];

/// Refuses a name that is reserved.
pub(crate) fn check_reserved(name: &str) -> Result<(), (ErrorCode, String)> {
    match INTERNAL.contains(&name) {
        true => {
            let text = format!("Creation of internal topic {name} is prohibited.");
            Err((ErrorCode::INVALID_REQUEST, text))
        }
        false => Ok(()),
    }
}

/// Separators of a name up to which it is compared with those of other topics.
const COMPARED_SEPARATORS_MAX: usize = 12;

/// Refuses a name that differs from an existing topic's only in `.` and `_`, as Kafka does: metrics show both as `_`.
pub(crate) fn check_collision(name: &str, exists: impl Fn(&str) -> bool) -> Result<(), (ErrorCode, String)> {
    let places: Vec<usize> =
        name.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'.' | b'_')).map(|(at, _)| at).collect();
    if places.len() > COMPARED_SEPARATORS_MAX {
        return Ok(());
    }
    for separators in 0..1_u32 << places.len() {
        let mut other = name.as_bytes().to_vec();
        for (bit, place) in places.iter().enumerate() {
            if let Some(byte) = other.get_mut(*place) {
                *byte = if separators & 1 << bit == 0 { b'.' } else { b'_' };
            }
        }
        let other = String::from_utf8_lossy(&other);
        if other != name && exists(&other) {
            let text = format!("Topic '{name}' collides with existing topic: {other}");
            return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, text));
        }
    }
    Ok(())
}

/// The error message for an illegal name.
pub(crate) fn illegal_name(name: &str) -> String {
    format!(
        "Topic name '{name}' is illegal: it has 1 to 249 characters, each one of ASCII alphanumerics, '.', '_', '-' and '%', and is not '.' or '..'"
    )
}

/// The error code for an error of the model.
pub(crate) fn error_code(error: &TopicError) -> ErrorCode {
    match error {
        TopicError::Exists(_) => ErrorCode::TOPIC_ALREADY_EXISTS,
        TopicError::Unknown(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        TopicError::BadName(..) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        TopicError::BadPartitions(_) => ErrorCode::INVALID_PARTITIONS,
        TopicError::BadConfig(_) => ErrorCode::INVALID_CONFIG,
        TopicError::NotAllowed(_) => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        TopicError::IsQueue(_) | TopicError::Limit(_) => ErrorCode::POLICY_VIOLATION,
        TopicError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// The error code and message for an error of the model.
pub(crate) fn refusal(error: &TopicError) -> (ErrorCode, String) {
    let text = match error {
        TopicError::Exists(name) => format!("Topic '{name}' already exists."),
        other => other.to_string(),
    };
    (error_code(error), text)
}

/// The error code and message for a topic that does not exist, or that the client may not use.
pub(crate) fn no_topic(code: ErrorCode) -> (ErrorCode, String) {
    let text = match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "This server does not host this topic-partition.",
        code => access::text(code),
    };
    (code, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_separators_only_collide() {
        for (name, existing, collides) in [
            ("a.b", "a_b", true),
            ("a_b.c", "a.b_c", true),
            ("a.b", "a.b", false),
            ("a.b", "a-b", false),
            ("ab", "a_b", false),
            ("a.b", "a_c", false),
            (&"x.".repeat(12), &"x_".repeat(12), true),
        ] {
            let checked = check_collision(name, |other| other == existing);
            assert_eq!(checked.is_err(), collides, "{name} {existing}");
        }
        let (code, text) = check_collision("a.b", |other| other == "a_b").unwrap_err();
        assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert_eq!(text, "Topic 'a.b' collides with existing topic: a_b");
    }

    #[test]
    fn legal_names_are_kafkas_and_escaped_ones() {
        for name in ["a", "a.b_c-D9", "a%2Eb.c", &"x".repeat(249)] {
            assert!(is_legal_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(!is_legal_name(name), "{name}");
        }
    }
}
