//! Who a client of a CONNECT is, and what it may do: authentication and admission.

use std::sync::Arc;
use std::time::Duration;

use inver_broker::{
    Admission, Admitted, Broker, ClientCertificate, Credentials, Endpoints, Identity, Mailbox,
};
use uuid::Uuid;

use crate::codec::{Connect, DecodeError, Reason, Version};
use crate::config::{ClientIdBinding, MqttConfig};
use crate::error::Refusal;
use crate::map::ORIGIN;

/// What is known of a client beside its CONNECT.
pub(crate) struct Client<'a> {
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) certificate: Option<&'a ClientCertificate>,
    /// Who it proved to be in an exchange of AUTH packets.
    pub(crate) authenticated: Option<Identity>,
}

/// A client that may connect.
pub(super) struct LoggedIn {
    pub(super) admitted: Admitted,
    /// The client identifier that the server assigned.
    pub(super) assigned: Option<String>,
}

/// Authenticates the client, unless an exchange of AUTH packets did, and admits it.
pub(super) async fn log_in(
    connect: &Connect<'_>,
    client: &Client<'_>,
    broker: &Broker,
    config: &MqttConfig,
    mailbox: &Arc<Mailbox>,
) -> Result<LoggedIn, Refusal> {
    check_client_id(connect)?;
    let (namespace, user) = split_user_name(connect.username, broker);
    let identity = match &client.authenticated {
        Some(identity) => identity.clone(),
        None => {
            let credentials = credentials(connect, client, user);
            let Endpoints { listener, peer, .. } = client.endpoints;
            broker.authenticate(listener, peer.ip(), &credentials).await?
        }
    };
    let binding = config.client_id_binding;
    let assigned = connect.client_id.is_empty().then(|| assigned_client_id(binding, identity.name()));
    let client_id = assigned.as_deref().unwrap_or(connect.client_id);
    if identity.name().is_some_and(|user| !binding.allows(user, client_id)) {
        return Err(DecodeError::because(
            Reason::ClientIdNotValid,
            "a client identifier that the user may not use (mqtt.client_id_binding)",
        )
        .into());
    }
    let admitted = broker.admit(&Admission {
        protocol: ORIGIN,
        identity: &identity,
        endpoints: client.endpoints,
        // A client that is taken as anonymous may send anything as its user name.
        namespace: namespace.filter(|_| identity != Identity::anonymous()),
        client_id,
        mailbox,
        wait_max: Duration::ZERO,
    })?;
    Ok(LoggedIn { admitted, assigned })
}

/// Splits `namespace:user` at the last colon, unless it is the name of a user as a whole.
fn split_user_name<'a>(name: Option<&'a str>, broker: &Broker) -> (Option<&'a str>, Option<&'a str>) {
    let Some(name) = name else { return (None, None) };
    match name.rsplit_once(':') {
        Some((namespace, user)) if broker.access().user(name).is_none() => (Some(namespace), Some(user)),
        _ => (None, Some(name)),
    }
}

/// The user that the listener takes from the client's certificate, else the user name and password. Some clients send an
/// empty user name for none.
fn credentials(connect: &Connect<'_>, client: &Client<'_>, user: Option<&str>) -> Credentials {
    if let Some(user) = client.certificate.and_then(|certificate| certificate.user.clone()) {
        return Credentials::Certificate { user };
    }
    match (user, connect.password) {
        (None | Some(""), None | Some([])) => Credentials::Anonymous,
        (user, password) => Credentials::Password {
            user: user.unwrap_or_default().to_owned(),
            password: password.unwrap_or_default().to_vec(),
        },
    }
}

/// Refuses an empty client identifier where none may be assigned [MQTT-3.1.3-6], [MQTT-3.1.3-7].
fn check_client_id(connect: &Connect<'_>) -> Result<(), DecodeError> {
    let what = match connect.version {
        // Identifiers of more than 23 characters, which MQTT 3.1 forbids as well, are accepted as by other servers.
        Version::V31 => "an empty client identifier in MQTT 3.1",
        Version::V311 if !connect.clean_start => {
            "an empty client identifier without Clean Session [MQTT-3.1.3-8 of 3.1.1]"
        }
        _ => return Ok(()),
    };
    if connect.client_id.is_empty() {
        return Err(DecodeError::because(Reason::ClientIdNotValid, what));
    }
    Ok(())
}

/// A client identifier for a client without one.
fn assigned_client_id(binding: ClientIdBinding, user: Option<&str>) -> String {
    let random = Uuid::new_v4();
    match (binding, user) {
        (ClientIdBinding::User, Some(user)) => user.to_owned(),
        (ClientIdBinding::Prefix, Some(user)) => format!("{user}-{}", random.simple()),
        _ => format!("auto-{}", random.simple()),
    }
}
