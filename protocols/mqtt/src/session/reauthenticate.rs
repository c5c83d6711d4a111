//! Re-authentication (section 4.12.1): the client of a connection that began with AUTH packets proves again who it is.

use std::net::IpAddr;

use inver_broker::{Broker, Identity};

use super::Session;
use super::reauthentication::Reauthentication;
use crate::codec::{Auth, DecodeError, Reason};
use crate::enhanced_auth::{self, Exchange, Method};
use crate::error::Stop;

impl Session {
    /// The client authenticated with AUTH packets, and may do so again.
    pub(crate) fn allow_reauthentication(&mut self, broker: Broker, peer: IpAddr, method: Method) {
        self.reauthentication = Some(Box::new(Reauthentication { broker, peer, method, exchange: None }));
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
        if method == Method::OAuthBearer {
            let data = enhanced_auth::data_of(auth, Reason::ReAuthenticate, method)?;
            let identity =
                enhanced_auth::check_bearer(&again.broker, again.peer, data).map_err(Stop::Token)?;
            let broker = again.broker.clone();
            return self.renew(&broker, &identity, method, "", out);
        }
        let Some(exchange) = again.exchange.take() else {
            let data = enhanced_auth::data_of(auth, Reason::ReAuthenticate, method)?;
            again.exchange = Some(Exchange::begin(&again.broker, again.peer, method, data, out)?);
            return Ok(());
        };
        let data = enhanced_auth::data_of(auth, Reason::ContinueAuthentication, method)?;
        let (identity, answer) = exchange.finish(data)?;
        let broker = again.broker.clone();
        self.renew(&broker, &identity, method, &answer, out)
    }

    fn renew(
        &mut self,
        broker: &Broker,
        identity: &Identity,
        method: Method,
        answer: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        if !broker.renew(identity, self.core.permissions(), &self.connection) {
            return Err(Stop::OtherUser);
        }
        enhanced_auth::put_auth(Reason::Success, method, answer, out);
        Ok(())
    }
}
