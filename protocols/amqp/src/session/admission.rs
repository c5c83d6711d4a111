//! Admission: the virtual host of a connection, and the limits of its user.

use std::time::Duration;

use inver_broker::{Admission, AdmitError, Admitted, Broker, Identity, UserChannel};

use super::Session;
use super::shared::Shared;
use crate::error::{Refusal, ReplyCode};
use crate::map::ORIGIN;

/// For how long `connection.open-ok` may wait where connections come faster than a quota allows. Clients wait longer than
/// that for it.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

impl Session {
    /// Admits the authenticated client to a virtual host, which is a namespace.
    pub(super) fn admit(&mut self, vhost: &str) -> Result<Admitted, Refusal> {
        let anonymous = Identity::anonymous();
        let identity = self.identity.as_ref().unwrap_or(&anonymous);
        let admitted = self.broker.admit(&Admission {
            protocol: ORIGIN,
            identity,
            endpoints: &self.endpoints,
            namespace: Some(vhost),
            client_id: &self.handshake.connection_name,
            mailbox: &self.mailbox,
            wait_max: CONNECT_WAIT_MAX,
        });
        admitted.map_err(|error| {
            let refusal = refusal(&error, vhost, identity.name().unwrap_or("none"));
            self.client.login_refused(error.login_refusal(), &error);
            refusal
        })
    }

    /// The client of an open connection shows a new token. Its permissions change at once. What is not a token, such as a
    /// password, does not expire and is taken without a look at the secret.
    pub(super) fn update_secret(&mut self, secret: &[u8]) -> Result<(), Refusal> {
        let Some(shared) = self.shared.as_deref_mut() else { return Ok(()) };
        if self.identity.as_ref().is_none_or(|identity| identity.grant().is_none()) {
            return Ok(());
        }
        let token = std::str::from_utf8(secret).unwrap_or_default();
        let checked = self.broker.check_token(self.endpoints.peer.ip(), token);
        let identity = checked.map_err(|error| {
            self.client.request_refused("connection.update-secret", &error);
            Refusal::not_allowed("New secret was refused by one of the backends")
        })?;
        if !self.broker.renew(&identity, &shared.permissions, &shared.connection) {
            self.client.request_refused("connection.update-secret", &"the token is another user's");
            return Err(Refusal::not_allowed("New secret was refused by one of the backends"));
        }
        self.identity = Some(identity);
        Ok(())
    }
}

fn refusal(error: &AdmitError, vhost: &str, user: &str) -> Refusal {
    if error.is_passing() {
        // The client may try again, so not a code that says it may not.
        return Refusal::new(ReplyCode::ConnectionForced, error);
    }
    Refusal::not_allowed(match error {
        AdmitError::NoSuchNamespace(_) => format!("vhost {vhost} not found"),
        AdmitError::NotAllowed { .. } | AdmitError::Disabled | AdmitError::Banned => {
            format!("access to vhost '{vhost}' refused for user '{user}'")
        }
        AdmitError::UserConnections { max, .. } => {
            format!("connection refused for user '{user}': user connection limit ({max}) is reached")
        }
        AdmitError::NamespaceConnections { max, .. } => {
            format!(
                "access to vhost '{vhost}' refused for user '{user}': connection limit ({max}) is reached"
            )
        }
        AdmitError::ConnectionRate | AdmitError::NoMemory => error.to_string(),
    })
}

/// Counts a channel among those of the user; none for an anonymous client.
pub(super) fn count_channel(broker: &Broker, shared: &Shared) -> Result<Option<UserChannel>, Refusal> {
    let Some(user) = &shared.permissions.scope().user else { return Ok(None) };
    broker.access().open_channel(user).map(Some).map_err(|reached| {
        Refusal::not_allowed(format_args!(
            "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({})",
            reached.max
        ))
    })
}
