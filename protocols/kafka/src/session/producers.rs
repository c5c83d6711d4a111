//! InitProducerId: an identity for a producer, so that what it sends twice is kept once.

use super::{Call, Session};
use crate::codec::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::codec::error_code::ErrorCode;
use crate::error::ConnectionError;

impl Session {
    pub(super) fn init_producer_id(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: InitProducerIdRequest = call.read()?;
        if request.transactional_id.is_some() {
            let error_code = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
            self.answer(&call, &InitProducerIdResponse { error_code, ..InitProducerIdResponse::default() });
            return Ok(());
        }
        match self.node.producer_id() {
            Ok((producer_id, lsn)) => {
                let response = InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() };
                self.answer_after(&call, &response, Some(lsn));
            }
            Err(error) => {
                tracing::error!(%error, "no producer id could be set aside");
                let error_code = ErrorCode::COORDINATOR_NOT_AVAILABLE;
                self.answer(
                    &call,
                    &InitProducerIdResponse { error_code, ..InitProducerIdResponse::default() },
                );
            }
        }
        Ok(())
    }
}
