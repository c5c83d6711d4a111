//! Re-authentication (section 4.12.1): the client of a connection that began with AUTH packets proves again who it is.

use inver_broker::{Broker, ScramLoginError};

use super::Session;
use super::reauthentication::Reauthentication;
use crate::codec::{Auth, DecodeError, Reason};
use crate::error::Stop;
use crate::scram::{self, Exchange, Method};

impl Session {
    /// The client authenticated with AUTH packets, and may do so again.
    pub(crate) fn allow_reauthentication(&mut self, broker: Broker, method: Method) {
        self.reauthentication = Some(Box::new(Reauthentication { broker, method, exchange: None }));
    }

    /// AUTH from the client: begins a re-authentication, or ends it. The connection ends if it fails.
    pub(super) fn reauthenticate(&mut self, auth: &Auth<'_>, out: &mut Vec<u8>) -> Result<(), Stop> {
        let Some(again) = &mut self.reauthentication else {
            return Err(DecodeError::protocol(
                "AUTH on a connection without an authentication method [MQTT-4.12.0-6]",
            )
            .into());
        };
        let method = again.method;
        let Some(exchange) = again.exchange.take() else {
            let data = scram::data_of(auth, Reason::ReAuthenticate, method)?;
            again.exchange = Some(Exchange::begin(&again.broker, method, data, out)?);
            return Ok(());
        };
        let data = scram::data_of(auth, Reason::ContinueAuthentication, method)?;
        let (identity, answer) = exchange.finish(data)?;
        if identity.name() != self.user() {
            return Err(ScramLoginError::OtherUser.into());
        }
        scram::put_auth(Reason::Success, method, &answer, out);
        Ok(())
    }
}
