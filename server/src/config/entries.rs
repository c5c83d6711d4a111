//! All listeners of a configuration as one list, and what is wrong with them.

use std::collections::BTreeSet;

use super::listeners::{Address, Addresses, ClientAuth, ListenerKeys, WebSocketPath};
use super::{Config, Endpoint, Problem, ProtocolConfig, WebSocketEndpoint};
use crate::protocols::{PROTOCOLS, ProtocolEntry};

/// The name of HTTP as a protocol of a listener.
pub(crate) const HTTP: &str = "http";
/// The name of metrics by RabbitMQ's names, over HTTP, as a protocol of a listener.
pub(crate) const PROMETHEUS: &str = "prometheus";

/// A listener, whether it is in the list `[[listeners]]` or made by short keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerEntry {
    /// The key that its address is set by: `kafka.listen`, or `listeners[1]` for the first of the list.
    pub(crate) key: String,
    /// Its settings; the name is never empty.
    pub(crate) settings: ListenerKeys,
}

impl ListenerEntry {
    /// The protocol's entry in the list of protocols; none for HTTP and for an unknown name.
    pub(crate) fn protocol(&self) -> Option<&'static ProtocolEntry> {
        PROTOCOLS.iter().find(|entry| entry.name == self.settings.protocol)
    }
}

impl Config {
    /// Every listener: those of the short keys, then those of the list.
    pub(crate) fn listeners(&self) -> Vec<ListenerEntry> {
        let mut entries: Vec<ListenerEntry> = self.protocols.iter().flat_map(of_protocol).collect();
        entries.extend(short(HTTP, &self.http_endpoint, None, &|_| None));
        if let Some(address) = self.http.prometheus_listen.0 {
            let settings = ListenerKeys {
                name: PROMETHEUS.into(),
                protocol: PROMETHEUS.into(),
                address: Addresses(vec![Address::Tcp(address)]),
                ..ListenerKeys::default()
            };
            entries.push(ListenerEntry { key: "http.prometheus_listen".into(), settings });
        }
        entries.extend(self.general.listeners.0.iter().enumerate().map(|(at, settings)| {
            let mut settings = settings.clone();
            if settings.name.is_empty() {
                settings.name = format!("{}-{}", settings.protocol, at + 1);
            }
            ListenerEntry { key: format!("listeners[{}]", at + 1), settings }
        }));
        entries
    }

    /// What is wrong with the listeners, as far as the configuration alone says it.
    pub(super) fn listener_problems(&self) -> Vec<Problem> {
        let entries = self.listeners();
        let mut problems = Vec::new();
        if entries.is_empty() {
            let what = "every listener is `off`: nobody could connect".to_owned();
            problems.push(Problem { place: "listeners".into(), what });
        }
        let mut names = BTreeSet::new();
        for entry in &entries {
            let mut wrong: Vec<String> = wrong(entry);
            if !names.insert(entry.settings.name.as_str()) {
                wrong.push(format!("another listener is named `{}` too", entry.settings.name));
            }
            problems.extend(wrong.iter().map(|what| Problem::new(&entry.key, what)));
        }
        let addresses: Vec<(&str, &Address)> = entries
            .iter()
            .flat_map(|entry| entry.settings.address.0.iter().map(|address| (entry.key.as_str(), address)))
            .collect();
        for (at, (key, address)) in addresses.iter().enumerate() {
            let before = addresses.iter().take(at).find(|(_, other)| other.overlaps(address));
            if let Some((other_key, other)) = before {
                let what = format!(
                    "{address} is taken by {other_key} ({other}): set one of them to another address, or to `off`"
                );
                problems.push(Problem::new(key, &what));
            }
        }
        problems
    }
}

/// The listeners that a protocol's short keys make.
fn of_protocol(protocol: &ProtocolConfig) -> Vec<ListenerEntry> {
    let ProtocolConfig { entry, endpoint, websocket, settings } = protocol;
    short(entry.name, endpoint, websocket.as_ref(), &|tls_port| settings.advertised(tls_port))
}

/// The listeners that a section's short keys make. `advertised` is the address that clients are told, given the port of a TLS
/// listener.
fn short(
    name: &str,
    endpoint: &Endpoint,
    websocket: Option<&WebSocketEndpoint>,
    advertised: &dyn Fn(Option<u16>) -> Option<(String, u16)>,
) -> Vec<ListenerEntry> {
    let has_tls = endpoint.tls_cert.is_some() && endpoint.tls_key.is_some();
    [
        ("listen", "", Some(endpoint.listen), false, false),
        ("tls_listen", "-tls", Some(endpoint.tls_listen), true, false),
        ("websocket_listen", "-websocket", websocket.map(|form| form.websocket_listen), false, true),
        (
            "websocket_tls_listen",
            "-websocket-tls",
            websocket.map(|form| form.websocket_tls_listen),
            true,
            true,
        ),
    ]
    .into_iter()
    .filter_map(|(key, suffix, listen, tls, websocket)| {
        let address = listen?.0.filter(|_| has_tls || !tls)?;
        let files = tls.then(|| (endpoint.tls_cert.clone(), endpoint.tls_key.clone()));
        let (tls_cert, tls_key) = files.unwrap_or_default();
        let settings = ListenerKeys {
            name: format!("{name}{suffix}"),
            protocol: name.into(),
            address: Addresses(vec![Address::Tcp(address)]),
            websocket_path: WebSocketPath(websocket.then(|| WebSocketPath::ANY.into())),
            tls_cert,
            tls_key,
            advertised: advertised(tls.then(|| address.port())),
            ..ListenerKeys::default()
        };
        Some(ListenerEntry { key: format!("{name}.{key}"), settings })
    })
    .collect()
}

/// What is wrong with one listener by itself.
fn wrong(entry: &ListenerEntry) -> Vec<String> {
    let listener = &entry.settings;
    let mut wrong = Vec::new();
    let mut check = |is_wrong: bool, what: &str| {
        if is_wrong {
            wrong.push(what.to_string());
        }
    };
    let (has_cert, has_key) = (listener.tls_cert.is_some(), listener.tls_key.is_some());
    let auth = listener.tls_client_auth != ClientAuth::None;
    let has_tcp = listener.address.0.iter().any(|address| matches!(address, Address::Tcp(_)));
    let has_unix = listener.address.0.iter().any(|address| matches!(address, Address::Unix(_)));
    let protocol = entry.protocol();
    check(listener.address.0.is_empty(), "`address` is missing");
    check(has_cert && !has_key, "tls_cert is set but tls_key is not: TLS needs both");
    check(has_key && !has_cert, "tls_key is set but tls_cert is not: TLS needs both");
    check(
        listener.tls_client_ca.is_some() && !auth,
        "tls_client_ca has no effect: set tls_client_auth to `request` or `require`",
    );
    check(auth && listener.tls_client_ca.is_none(), "tls_client_auth needs tls_client_ca");
    check(auth && !has_cert && !has_key, "tls_client_auth needs tls_cert and tls_key");
    check(
        listener.proxy_protocol && has_tcp && listener.proxy_trusted.is_empty(),
        "proxy_protocol needs proxy_trusted: any client could claim any address",
    );
    check(
        !listener.proxy_protocol && !listener.proxy_trusted.is_empty(),
        "proxy_trusted has no effect without proxy_protocol = true",
    );
    check(
        listener.anonymous_any_name
            && listener.anonymous.0.is_none_or(|rule| rule == super::AnonymousRule::Never),
        "anonymous_any_name needs anonymous = \"loopback\" or \"always\"",
    );
    check(
        listener.websocket_path.0.is_some() && protocol.is_none_or(|protocol| protocol.websocket.is_none()),
        "the protocol has no WebSocket form: remove websocket_path",
    );
    check(
        listener.advertised.is_some() && protocol.is_none_or(|protocol| !protocol.advertises),
        "the protocol tells clients no address: remove advertised",
    );
    check(
        has_unix
            && protocol.is_some_and(|protocol| protocol.advertises)
            && listener.advertised.is_none()
            && !listener.proxy_protocol,
        "a Unix socket of this protocol needs advertised, since clients are told where to connect",
    );
    if protocol.is_none() && ![HTTP, PROMETHEUS].contains(&listener.protocol.as_str()) {
        let known: Vec<&str> = PROTOCOLS.iter().map(|entry| entry.name).chain([HTTP, PROMETHEUS]).collect();
        wrong.push(match listener.protocol.as_str() {
            "" => format!("`protocol` is missing: one of {}", known.join(", ")),
            other => format!("unknown protocol `{other}`: one of {}", known.join(", ")),
        });
    }
    wrong
}
