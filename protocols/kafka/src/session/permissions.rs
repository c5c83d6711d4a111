//! DescribeAcls, CreateAcls, DeleteAcls, DescribeClientQuotas, DescribeUserScramCredentials: what there is none of here.
//!
//! Permissions are answered as by a Kafka without an authorizer, quotas and SCRAM users by empty lists, so that tools
//! that look before they act get on. To set them is not advertised, and so refused by the clients themselves.

use super::{Call, Session, message};
use crate::codec::api::create_acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};
use crate::codec::api::delete_acls::{DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse};
use crate::codec::api::describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
use crate::codec::api::describe_client_quotas::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use crate::codec::api::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
};
use crate::codec::error_code::ErrorCode;
use crate::error::ConnectionError;

/// As Kafka says it.
const NO_AUTHORIZER: &str = "No Authorizer is configured.";

impl Session {
    pub(super) fn describe_acls(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let _: DescribeAclsRequest = call.read()?;
        let response = DescribeAclsResponse {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: message(NO_AUTHORIZER),
            ..DescribeAclsResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn create_acls(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: CreateAclsRequest = call.read()?;
        let results = request.creations.iter().map(|_| AclCreationResult {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: message(NO_AUTHORIZER),
        });
        let response = CreateAclsResponse { throttle_time_ms: 0, results: results.collect() };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn delete_acls(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DeleteAclsRequest = call.read()?;
        let results = request.filters.iter().map(|_| DeleteAclsFilterResult {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: message(NO_AUTHORIZER),
            matching_acls: Vec::new(),
        });
        let response = DeleteAclsResponse { throttle_time_ms: 0, filter_results: results.collect() };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn describe_client_quotas(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let _: DescribeClientQuotasRequest = call.read()?;
        let response = DescribeClientQuotasResponse {
            entries: Some(Vec::new()),
            ..DescribeClientQuotasResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn describe_user_scram_credentials(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeUserScramCredentialsRequest = call.read()?;
        let results = request.users.unwrap_or_default().into_iter().map(|user| {
            let text = format!("Attempt to describe a user credential that does not exist: {}", user.name);
            DescribeUserScramCredentialsResult {
                user: user.name,
                error_code: ErrorCode::RESOURCE_NOT_FOUND,
                error_message: message(text),
                credential_infos: Vec::new(),
            }
        });
        let response = DescribeUserScramCredentialsResponse {
            results: results.collect(),
            ..DescribeUserScramCredentialsResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }
}
