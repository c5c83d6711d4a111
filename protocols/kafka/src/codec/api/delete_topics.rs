//! DeleteTopics: topics are removed.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

messages! {
    /// Versions 1-6, flexible 4+.
    pub struct DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<Str> [0..=5],
        timeout_ms: i32 [0..],
    }

    /// The name or topic ID of the topic.
    pub struct DeleteTopicState {
        name: Option<Str> [6..; null 6..],
        topic_id: Uuid [6..],
    }

    /// Versions 1-6, flexible 4+.
    pub struct DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        responses: Vec<DeletableTopicResult> [0..],
    }

    /// The results for each topic we tried to delete.
    pub struct DeletableTopicResult {
        name: Option<Str> [0..; null 6..],
        topic_id: Uuid [6..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [5..; null 5..],
    }
}
