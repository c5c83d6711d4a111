//! InitProducerId: an identity for a producer.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-6, flexible 2+.
    pub struct InitProducerIdRequest {
        transactional_id: Option<Str> [0..; null 0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..; default -1],
        producer_epoch: i16 [3..; default -1],
        enable2_pc: bool [6..],
        keep_prepared_txn: bool [6..],
    }

    /// Versions 0-6, flexible 2+.
    pub struct InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        producer_id: i64 [0..; default -1],
        producer_epoch: i16 [0..],
        ongoing_txn_producer_id: i64 [6..; default -1],
        ongoing_txn_producer_epoch: i16 [6..; default -1],
    }
}
