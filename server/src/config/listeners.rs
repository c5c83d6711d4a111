//! The list `[[listeners]]`: its entries' keys, and their values with a spelling of their own.
//!
//! The short keys of a protocol (`kafka.listen`, `mqtt.tls_listen`, …) become entries of the same list: see
//! [`super::entries`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use inver_broker::Network;
use inver_settings::rules::{count, flag, value};
use inver_settings::{Form, Section, Setting, section};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::values::resolve;

/// Bound of the entries of the list.
const LISTENERS_MAX: usize = 1000;
/// Bound of a listener's own limits of connections.
const CONNECTIONS_MAX: u64 = 10_000_000;

section! {
    /// One entry of `[[listeners]]`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct ListenerKeys {
        /// Name in logs and messages. Empty: the protocol and the number of the entry.
        pub(crate) name: String = String::new() => value("a text"),
        /// What is spoken: a protocol, `http` for health, metrics and the API, or `prometheus` for metrics at RabbitMQ's paths.
        /// Required.
        pub(crate) protocol: String = String::new() => value("`kafka`, `mqtt`, `amqp`, `http` or `prometheus`"),
        /// Addresses to listen on. Required.
        pub(crate) address: Addresses = Addresses::default()
            => value("`address:port`, `unix:PATH`, or an array of these"),
        /// Permissions of Unix sockets. Who may write to the file may connect.
        pub(crate) unix_mode: UnixMode = UnixMode(0o660) => value("an octal number such as `0660`"),
        /// Clients connect by WebSocket, with this path; `*`: with any path. Empty: no WebSocket.
        pub(crate) websocket_path: WebSocketPath = WebSocketPath(None) => value("a path such as `/mqtt`, `*`, or empty"),
        /// File of the certificate chain, PEM. With it the listener speaks TLS.
        pub(crate) tls_cert: Option<PathBuf> = None => value("a path, or empty"),
        /// File of the private key, PEM.
        pub(crate) tls_key: Option<PathBuf> = None => value("a path, or empty"),
        /// File of the authorities whose client certificates are accepted, PEM.
        pub(crate) tls_client_ca: Option<PathBuf> = None => value("a path, or empty"),
        /// Whether clients are asked for a certificate: `none`, `request` (those who have none may connect) or `require`.
        pub(crate) tls_client_auth: ClientAuth = ClientAuth::None => value("`none`, `request` or `require`"),
        /// Oldest version of TLS that is accepted.
        pub(crate) tls_min_version: TlsVersion = TlsVersion::Tls12 => value("`1.2` or `1.3`"),
        /// Which name of a client's certificate is its user: `none`, `common_name` (where there is exactly one), the whole
        /// `subject`, or the first `dns` name, `email` address or `uri` of the alternative names. With the PROXY protocol
        /// version 2 the common name is the one that the proxy verified.
        pub(crate) certificate_user: CertificateUser = CertificateUser::None
            => value("`none`, `common_name`, `subject`, `dns`, `email` or `uri`"),
        /// Connections begin with a header of the PROXY protocol, version 1 or 2, which names the client's address.
        pub(crate) proxy_protocol: bool = false => flag(),
        /// Addresses of the proxies that may connect; others are refused. Unix sockets need none.
        pub(crate) proxy_trusted: Networks = Networks::default()
            => value("an array of addresses or networks such as `10.0.0.0/8`"),
        /// The namespace of all clients. Empty: chosen by the client or its user.
        pub(crate) namespace: String = String::new() => value("a name, or empty"),
        /// Who may connect without a user: nobody, clients on this machine, or everybody. Empty: as without the key, where
        /// clients on this machine may as long as there are no users.
        pub(crate) anonymous: Anonymous = Anonymous(None) => value("`never`, `loopback`, `always`, or empty"),
        /// Clients that may connect without a user may also send any user name without a password; it has no meaning.
        pub(crate) anonymous_any_name: bool = false => flag(),
        /// Concurrent connections of this listener. 0: only the limits of all listeners hold.
        pub(crate) connections_max: usize = 0 => count(0..=CONNECTIONS_MAX),
        /// Concurrent connections of this listener from one address. 0: only the limits of all listeners hold.
        pub(crate) connections_per_address_max: usize = 0 => count(0..=CONNECTIONS_MAX),
        /// Address that clients of this listener are told to connect to. Empty: the address at which they reached the
        /// broker.
        pub(crate) advertised: Option<(String, u16)> = None => value("`host:port`, or empty"),
    }
}

/// The entries of `[[listeners]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listeners(pub(crate) Vec<ListenerKeys>);

impl Setting for Listeners {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Listeners;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of tables with `protocol` and `address`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Listeners, A::Error> {
                let mut list = Vec::new();
                while let Some(Entry(entry)) = entries.next_element()? {
                    if list.len() >= LISTENERS_MAX {
                        return Err(A::Error::custom(format_args!("more than {LISTENERS_MAX} listeners")));
                    }
                    list.push(entry);
                }
                Ok(Listeners(list))
            }
        }
        value.deserialize_seq(List)
    }

    fn show(&self) -> String {
        let defaults = ListenerKeys::default().keys();
        let entries = self.0.iter().map(|entry| {
            let changed = entry.keys().into_iter().zip(&defaults);
            let changed = changed.filter(|(key, default)| key.default != default.default).map(|(key, _)| {
                let value = match key.form {
                    Form::Text => format!("{:?}", key.default),
                    Form::Bare | Form::Structured => key.default,
                };
                format!("{} = {value}", key.name)
            });
            format!("{{ {} }}", changed.collect::<Vec<_>>().join(", "))
        });
        format!("[{}]", entries.collect::<Vec<_>>().join(", "))
    }
}

/// One entry as it is read.
struct Entry(ListenerKeys);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Entry;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table with `protocol` and `address`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut entry = ListenerKeys::default();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value_seed(Value { entry: &mut entry, key: &key })?;
                }
                Ok(Entry(entry))
            }
        }
        value.deserialize_map(Keys)
    }
}

/// The value of one key of an entry.
struct Value<'a> {
    entry: &'a mut ListenerKeys,
    key: &'a str,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        let keys = self.entry.keys();
        if !keys.iter().any(|key| key.name == self.key) {
            let distance = |key: &&inver_settings::Key| strsim::damerau_levenshtein(self.key, &key.name);
            let nearest = keys.iter().min_by_key(distance).map_or("", |key| &key.name);
            return Err(D::Error::custom(format_args!(
                "unknown key `{}` of a listener; the nearest is `{nearest}`",
                self.key
            )));
        }
        self.entry
            .set(self.key, value)
            .map_err(|error| D::Error::custom(format_args!("{}: {error}", self.key)))
    }
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    fn parse(text: &str) -> Option<Address> {
        match text.strip_prefix("unix:") {
            Some("") => None,
            Some(path) => Some(Address::Unix(path.into())),
            None => resolve(text).map(Address::Tcp),
        }
    }

    /// Whether both cannot be listened on at once.
    pub(crate) fn overlaps(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Unix(one), Address::Unix(other)) => one == other,
            (Address::Tcp(one), Address::Tcp(other)) => {
                let any = |ip: IpAddr| ip.is_unspecified();
                let (a, b) = (one.ip(), other.ip());
                // All addresses of IPv6 include those of IPv4.
                let wide =
                    |any_of: IpAddr, of: IpAddr| any(any_of) && (any_of.is_ipv6() || of.is_ipv4() || any(of));
                one.port() != 0 && one.port() == other.port() && (a == b || wide(a, b) || wide(b, a))
            }
            _ => false,
        }
    }
}

/// Addresses to listen on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<Address>);

impl Setting for Addresses {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let texts = one_or_many(value)?;
        let parse = |text: &String| {
            let text = text.trim();
            let expected = "`address:port` (such as 127.0.0.1:9092 or [::1]:9092) or `unix:PATH`";
            Address::parse(text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(text), &expected))
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Addresses)
    }

    fn show(&self) -> String {
        show_texts(self.0.iter().map(ToString::to_string))
    }
}

/// Addresses of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<Network>);

impl Networks {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of them.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Setting for Networks {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let parse = |text: &String| {
            let expected = "an address such as 10.1.2.3 or a network such as 10.0.0.0/8";
            let network = text.trim().parse();
            network.map_err(|()| D::Error::invalid_value(Unexpected::Str(text), &expected))
        };
        one_or_many(value)?.iter().map(parse).collect::<Result<_, _>>().map(Networks)
    }

    fn show(&self) -> String {
        show_texts(self.0.iter().map(ToString::to_string))
    }
}

/// A text or an array of texts.
fn one_or_many<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "expected a text or an array of texts")]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Texts::deserialize(value)? {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    })
}

fn show_texts(texts: impl Iterator<Item = String>) -> String {
    match texts.collect::<Vec<_>>().as_slice() {
        [one] => format!("{one:?}"),
        several => format!("{several:?}"),
    }
}

/// Permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnixMode(pub(crate) u32);

impl Setting for UnixMode {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let mode = u32::from_str_radix(text.trim(), 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(UnixMode).ok_or_else(|| {
            D::Error::invalid_value(Unexpected::Str(&text), &"an octal number from `0000` to `0777`")
        })
    }

    fn show(&self) -> String {
        format!("{:04o}", self.0)
    }
}

/// The path of WebSocket connections; `*` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebSocketPath(pub(crate) Option<String>);

impl WebSocketPath {
    /// The path that stands for every path.
    pub(crate) const ANY: &str = "*";
}

impl Setting for WebSocketPath {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        match text.trim() {
            "" => Ok(WebSocketPath(None)),
            path if path == WebSocketPath::ANY || path.starts_with('/') => {
                Ok(WebSocketPath(Some(path.into())))
            }
            other => {
                Err(D::Error::invalid_value(Unexpected::Str(other), &"a path that begins with `/`, or `*`"))
            }
        }
    }

    fn show(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

/// A value that is one of a few words.
macro_rules! words {
    ($type:ident, $expected:literal, { $($word:literal => $value:expr),* $(,)? }) => {
        impl Setting for $type {
            fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
                let text = String::deserialize(value)?;
                match text.trim() {
                    $($word => Ok($value),)*
                    _ => Err(D::Error::invalid_value(Unexpected::Str(&text), &$expected)),
                }
            }

            fn show(&self) -> String {
                $(if *self == $value { return $word.into(); })*
                String::new()
            }
        }
    };
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// Never.
    None,
    /// Yes; a client without one may connect.
    Request,
    /// Yes; a client without one is refused.
    Require,
}

words!(ClientAuth, "`none`, `request` or `require`", {
    "none" => ClientAuth::None,
    "request" => ClientAuth::Request,
    "require" => ClientAuth::Require,
});

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

words!(TlsVersion, "`1.2` or `1.3`: older versions of TLS are broken and not supported", {
    "1.2" => TlsVersion::Tls12,
    "1.3" => TlsVersion::Tls13,
});

/// Which name of a certificate is the client's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateUser {
    /// None: the certificate names no user.
    None,
    /// The subject's common name.
    CommonName,
    /// The distinguished name of the subject.
    Subject,
    /// The first DNS name.
    Dns,
    /// The first e-mail address.
    Email,
    /// The first URI.
    Uri,
}

words!(CertificateUser, "`none`, `common_name`, `subject`, `dns`, `email` or `uri`", {
    "none" => CertificateUser::None,
    "common_name" => CertificateUser::CommonName,
    "subject" => CertificateUser::Subject,
    "dns" => CertificateUser::Dns,
    "email" => CertificateUser::Email,
    "uri" => CertificateUser::Uri,
});

/// Who may connect without a user; none if not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anonymous(pub(crate) Option<AnonymousRule>);

/// Who may connect without a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnonymousRule {
    /// Nobody.
    Never,
    /// Clients on this machine.
    Loopback,
    /// Everybody.
    Always,
}

words!(Anonymous, "`never`, `loopback` or `always`", {
    "" => Anonymous(None),
    "never" => Anonymous(Some(AnonymousRule::Never)),
    "loopback" => Anonymous(Some(AnonymousRule::Loopback)),
    "always" => Anonymous(Some(AnonymousRule::Always)),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let networks = |texts: &[&str]| Networks(texts.iter().map(|text| text.parse().unwrap()).collect());
        let contain = |networks: &Networks, text: &str| networks.contain(text.parse().unwrap());
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        for inside in ["10.255.0.1", "192.0.2.7", "::ffff:10.1.1.1", "2001:db8:1::1"] {
            assert!(contain(&some, inside), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "::1", "2001:db9::1"] {
            assert!(!contain(&some, outside), "{outside}");
        }
        assert!(contain(&networks(&["0.0.0.0/0"]), "192.0.2.1"));
        assert!(contain(&networks(&["::ffff:10.0.0.0/104"]), "10.1.1.1"));
        assert!(!contain(&Networks::default(), "127.0.0.1"));
        for wrong in ["10.0.0.0/33", "::/129", "host", "10.0.0.0/", "/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_listened_on_at_once_overlap() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (Address::parse(one).unwrap(), Address::parse(other).unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        for (one, other) in [
            ("127.0.0.1:5", "127.0.0.1:5"),
            ("0.0.0.0:5", "127.0.0.1:5"),
            ("[::]:5", "127.0.0.1:5"),
            ("[::]:5", "0.0.0.0:5"),
            ("[::]:5", "[::1]:5"),
            ("unix:/a", "unix:/a"),
        ] {
            assert!(overlap(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:5", "127.0.0.1:6"),
            ("127.0.0.1:5", "127.0.0.2:5"),
            ("0.0.0.0:5", "[::1]:5"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/a", "unix:/b"),
            ("unix:/a", "127.0.0.1:5"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }
}
