//! The server side of the SASL mechanism OAUTHBEARER (RFC 7628): one message of the client, which holds a bearer token.

/// Bytes of a message of a client.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What a client whose token is not accepted is told (RFC 7628, section 3.2.2). It answers with [`ACKNOWLEDGED`], and the
/// exchange has failed.
pub const INVALID_TOKEN: &str = r#"{"status":"invalid_token"}"#;

/// The client's answer to an error.
pub const ACKNOWLEDGED: &[u8] = b"\x01";

/// Separates the parts of a message.
const SEPARATOR: char = '\x01';

/// The message is malformed, or binds a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed OAUTHBEARER message")]
pub struct Malformed;

/// The client's message.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientMessage {
    /// The identity that it wants to act as, if it names one.
    pub authorization_id: Option<String>,
    /// The bearer token.
    pub token: String,
}

impl ClientMessage {
    /// Parses the message: `n,a=user,` or `n,,`, then pairs of names and values, of which `auth` holds the token. Other
    /// pairs are extensions without a meaning here.
    pub fn parse(message: &[u8]) -> Result<ClientMessage, Malformed> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(message).map_err(|_| Malformed)?;
        let (header, pairs) = text.split_once(SEPARATOR).ok_or(Malformed)?;
        let authorization = match header.strip_prefix("n,").or_else(|| header.strip_prefix("y,")) {
            Some(rest) => rest.strip_suffix(',').ok_or(Malformed)?,
            None => return Err(Malformed),
        };
        let authorization_id = match authorization {
            "" => None,
            named => Some(unescaped(named.strip_prefix("a=").ok_or(Malformed)?)?),
        };
        // A separator ends each pair, and one more the list.
        let pairs = pairs.strip_suffix(SEPARATOR).ok_or(Malformed)?;
        let pairs = pairs.strip_suffix(SEPARATOR).ok_or(Malformed)?;
        let mut token = None;
        for pair in pairs.split(SEPARATOR) {
            let (name, value) = pair.split_once('=').ok_or(Malformed)?;
            if name == "auth" && token.replace(bearer(value)?).is_some() {
                return Err(Malformed);
            }
        }
        Ok(ClientMessage { authorization_id, token: token.ok_or(Malformed)? })
    }
}

impl std::fmt::Debug for ClientMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientMessage")
            .field("authorization_id", &self.authorization_id)
            .finish_non_exhaustive()
    }
}

fn bearer(value: &str) -> Result<String, Malformed> {
    let (scheme, token) = value.split_once(' ').ok_or(Malformed)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer")
        || token.is_empty()
        || !token.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(Malformed);
    }
    Ok(token.to_owned())
}

/// A name in which `=2C` stands for a comma and `=3D` for an equals sign (RFC 5801, section 4).
fn unescaped(name: &str) -> Result<String, Malformed> {
    let plain = name.replace("=2C", ",").replace("=3D", "=");
    let escapes = name.matches("=2C").count() + name.matches("=3D").count();
    if name.is_empty() || name.contains(',') || name.matches('=').count() != escapes {
        return Err(Malformed);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Option<String>, String), Malformed> {
        let message = ClientMessage::parse(text.replace('|', "\x01").as_bytes())?;
        Ok((message.authorization_id, message.token))
    }

    #[test]
    fn messages_hold_a_token() {
        let token = || "a.b.c".to_owned();
        assert_eq!(parsed("n,,|auth=Bearer a.b.c||"), Ok((None, token())));
        assert_eq!(
            parsed("n,a=ann,|host=x|port=1|auth=bearer a.b.c|e=1=2||"),
            Ok((Some("ann".into()), token()))
        );
        assert_eq!(parsed("y,a=a=2Cb=3D,|auth=Bearer a.b.c||"), Ok((Some("a,b=".into()), token())));
        for wrong in [
            "",
            "n,,",
            "n,,|auth=Bearer a.b.c|",
            "n,,|auth=Basic a.b.c||",
            "n,,|auth=Bearer ||",
            "n,,|auth=Bearer a b||",
            "n,,|auth||",
            "n,,||",
            "n,,|host=x||",
            "n,,|auth=Bearer a|auth=Bearer b||",
            "p=tls-unique,,|auth=Bearer a||",
            "n,b=ann,|auth=Bearer a||",
            "n,a=,|auth=Bearer a||",
            "n,a=x=41,|auth=Bearer a||",
            "n|auth=Bearer a||",
        ] {
            assert_eq!(parsed(wrong), Err(Malformed), "{wrong}");
        }
        assert_eq!(ClientMessage::parse(b"n,,\x01auth=Bearer \xff\x01\x01"), Err(Malformed));
        assert_eq!(ClientMessage::parse(&vec![b'x'; MESSAGE_BYTES_MAX + 1]), Err(Malformed));
        let shown = format!("{:?}", ClientMessage::parse(b"n,,\x01auth=Bearer secret\x01\x01").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
