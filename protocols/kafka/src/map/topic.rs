//! Topics' names and errors.

use inver_broker::TopicError;

use crate::codec::error_code::ErrorCode;

/// Whether Kafka clients may make a topic of this name: Kafka's rule, and `%`, by which addresses of other protocols
/// are escaped (`a%2Eb`). Topics of other names that are there already can be used all the same.
pub(crate) fn is_legal_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= inver_broker::TOPIC_NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'%'))
}

/// The text for an illegal name.
pub(crate) fn illegal_name(name: &str) -> String {
    format!(
        "Topic name '{name}' is illegal: it has 1 to 249 characters, each one of ASCII alphanumerics, '.', '_', '-' and '%', and is not '.' or '..'"
    )
}

/// The code for what the core says.
pub(crate) fn error_code(error: &TopicError) -> ErrorCode {
    match error {
        TopicError::Exists(_) => ErrorCode::TOPIC_ALREADY_EXISTS,
        TopicError::Unknown(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        TopicError::BadName(..) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        TopicError::BadPartitions(_) => ErrorCode::INVALID_PARTITIONS,
        TopicError::BadConfig(_) => ErrorCode::INVALID_CONFIG,
        TopicError::IsQueue(_) | TopicError::Limit(_) => ErrorCode::POLICY_VIOLATION,
        TopicError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "a.b_c-D9", "a%2Eb.c", &"x".repeat(249)] {
            assert!(is_legal_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(!is_legal_name(name), "{name}");
        }
    }
}
