//! ApiVersions.

use super::{Call, Session};
use crate::codec::api::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use crate::codec::api_key::Api;
use crate::codec::error_code::ErrorCode;
use crate::error::ConnectionError;

fn entry(api: &Api) -> ApiVersion {
    ApiVersion { api_key: api.key, min_version: api.version_min, max_version: api.version_max }
}

/// The answer in version 0 to a client from the future: it tells which versions of ApiVersions itself there are, so
/// that the client can come down (KIP-511).
pub(super) fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: vec![entry(&Api::ApiVersions)],
        ..ApiVersionsResponse::default()
    }
}

impl Session {
    pub(super) fn api_versions(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ApiVersionsRequest = call.read()?;
        let said = !request.client_software_name.is_empty() && !request.client_software_version.is_empty();
        let response = match call.header.version.flexible && !said {
            // Kafka insists on a name, since people look for it in their logs (KIP-511).
            true => ApiVersionsResponse {
                error_code: ErrorCode::INVALID_REQUEST,
                ..ApiVersionsResponse::default()
            },
            false => ApiVersionsResponse {
                api_keys: Api::ALL.iter().map(entry).collect(),
                ..ApiVersionsResponse::default()
            },
        };
        tracing::debug!(name = %request.client_software_name, version = %request.client_software_version, "client");
        self.answer(&call, &response);
        Ok(())
    }
}
