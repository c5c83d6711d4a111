//! What stands before every request and response.

use bytes::{BufMut, BytesMut};

use super::api_key::{self, Api};
use super::reader::{DecodeError, Reader};
use super::text::Str;
use super::wire::Version;

/// The header of a request that is answered.
#[derive(Debug, Clone)]
pub struct RequestHeader {
    /// The kind of request.
    pub api: &'static Api,
    /// Its version.
    pub version: Version,
    /// Returned with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

/// What the front of a request says.
#[derive(Debug, Clone)]
pub enum Header {
    /// A request that is answered; its body follows.
    Known(RequestHeader),
    /// ApiVersions in a version of the future: answered in version 0 with the error, so that the client can come
    /// down (KIP-511).
    ApiVersionsTooNew {
        /// Returned with the response.
        correlation_id: i32,
    },
    /// A kind or a version that was not advertised: Kafka closes the connection.
    Unknown {
        /// The kind of request.
        api_key: i16,
        /// Its version.
        api_version: i16,
    },
}

/// Reads the front of a request.
pub fn read(reader: &mut Reader) -> Result<Header, DecodeError> {
    let (api_key, api_version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
    let known = api_key::api(api_key).and_then(|api| Some((api, api.version(api_version)?)));
    let Some((api, version)) = known else {
        return Ok(match api_key {
            api_key::key::ApiVersions => Header::ApiVersionsTooNew { correlation_id },
            _ => Header::Unknown { api_key, api_version },
        });
    };
    // The client id keeps its old encoding in every version, so that it can be read before the version is known.
    let client_id = reader.string(false)?;
    if version.flexible {
        reader.skip_tagged_fields()?;
    }
    Ok(Header::Known(RequestHeader { api, version, correlation_id, client_id }))
}

/// Appends the header of a response.
pub fn write_response(out: &mut BytesMut, api: &Api, version: Version, correlation_id: i32) {
    out.put_i32(correlation_id);
    // The response to ApiVersions never has tagged fields in its header: a client must be able to read it before it
    // knows what the broker speaks (KIP-511).
    if version.flexible && api.key != api_key::key::ApiVersions {
        out.put_u8(0);
    }
}
