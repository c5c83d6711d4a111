//! Headers of requests and responses.

use bytes::{BufMut, BytesMut};

use super::api::Api;
use super::reader::{DecodeError, Reader};
use super::text::Str;
use super::wire::Version;

/// Key of ApiVersions, whose response header never becomes flexible (KIP-511).
const API_VERSIONS: i16 = 18;

/// The parts of a request's header that its response depends on.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHeader {
    /// The API.
    pub api: &'static Api,
    /// Version of request and response.
    pub version: Version,
    /// Returned to the client unchanged.
    pub correlation_id: i32,
}

/// A decoded request header.
#[derive(Debug, Clone)]
pub enum RequestHeader {
    /// A request in a version that is answered; its body follows.
    Known {
        /// Header of the response.
        response: ResponseHeader,
        /// Name that the client gives itself.
        client_id: Option<Str>,
    },
    /// ApiVersions in a version that is too new: answered in version 0 with UNSUPPORTED_VERSION, so that the client
    /// retries with an older one (KIP-511).
    ApiVersionsTooNew {
        /// Returned to the client unchanged.
        correlation_id: i32,
    },
    /// An API or version that was not advertised. Kafka closes the connection.
    Unknown {
        /// Api key.
        api_key: i16,
        /// Version.
        api_version: i16,
    },
}

/// Reads a request header. `find` looks up an API by its key.
pub fn read(
    reader: &mut Reader,
    find: impl FnOnce(i16) -> Option<&'static Api>,
) -> Result<RequestHeader, DecodeError> {
    let (api_key, api_version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
    let known = find(api_key).and_then(|api| Some((api, api.version(api_version)?)));
    let Some((api, version)) = known else {
        return Ok(match api_key {
            API_VERSIONS => RequestHeader::ApiVersionsTooNew { correlation_id },
            _ => RequestHeader::Unknown { api_key, api_version },
        });
    };
    // The client id keeps its non-compact encoding in every version, so that it can be read before the version is
    // known to be flexible (KIP-482).
    let client_id = reader.string(false)?;
    if version.flexible {
        reader.skip_tagged_fields()?;
    }
    Ok(RequestHeader::Known { response: ResponseHeader { api, version, correlation_id }, client_id })
}

/// Appends the header of a response.
pub fn write_response(out: &mut BytesMut, header: ResponseHeader) {
    out.put_i32(header.correlation_id);
    // The response to ApiVersions never has tagged fields in its header: a client reads it before it knows which
    // versions the broker supports (KIP-511).
    if header.version.flexible && header.api.key != API_VERSIONS {
        out.put_u8(0);
    }
}
