use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::subscriber::with_default;

use super::*;
use crate::audit::{AuditConfig, AuditKinds};

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(run: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish();
    with_default(subscriber, run);
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn log(clock: &Clock, address: u32, connection: u32) -> Arc<ClientLog> {
    let limits = ClientLogLimits {
        address_lines_per_minute_max: address,
        connection_lines_per_minute_max: connection,
    };
    let config = AuditConfig { kinds: AuditKinds::from_iter([]), limits, ..AuditConfig::default() };
    Arc::new(ClientLog::new(clock.clone(), limits, Audit::new(clock.clone(), &config)))
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

#[test]
fn a_client_has_a_line_for_its_login_and_one_for_its_end() {
    let clock = Clock::manual(0);
    let lines = logged(|| {
        let mut client = log(&clock, 10, 10).client("p", peer(1));
        client.identify("device \"7\"\n");
        client.logged_in(Some("ann"), "/");
        client.logged_in(Some("again"), "/");
        clock.advance(Duration::from_secs(5));
        client.ended(&"client closed the connection");
    });
    let fields = r#"protocol="p" client_id="device \"7\"\n" user="ann" address=192.0.2.7:1"#;
    assert_eq!(
        lines,
        [
            format!("INFO client connected {fields}"),
            format!(r#"INFO client disconnected {fields} reason="client closed the connection" seconds=5"#),
        ]
    );
}

#[test]
fn a_refused_login_has_one_line_and_a_silent_client_none() {
    let clock = Clock::manual(0);
    let lines = logged(|| {
        let log = log(&clock, 10, 10);
        let mut refused = log.client("p", peer(1));
        refused.claim_user(Some(&"x".repeat(1000)));
        refused.login_refused(LoginRefusal::Credentials, &AuthError::Refused);
        refused.ended(&"closed");
        log.client("p", peer(2)).ended(&"closed");
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains(r#"reason="user name or password is wrong""#), "{line}");
    assert!(line.contains(&format!(r#"user="{}""#, "x".repeat(TEXT_BYTES_MAX))), "{line}");
}

#[test]
fn lines_are_limited_per_connection_and_per_address() {
    let clock = Clock::manual(0);
    let lines = logged(|| {
        let log = log(&clock, 30, 10);
        let mut first = log.client("p", peer(1));
        first.logged_in(None, "/");
        (0..100).for_each(|_| first.request_refused("publish", &"no"));
        for port in 2..100 {
            let mut other = log.client("p", peer(port));
            other.login_refused(LoginRefusal::Credentials, &"no");
        }
        clock.advance(Duration::from_secs(6));
        first.request_refused("publish", &"no");
        clock.advance(Duration::from_secs(60));
        log.sweep();
        first.ended(&"closed");
    });
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count("request refused"), count("login refused")), (11, 19), "{lines:#?}");
    // 90 of the connection, 79 of the address.
    assert_eq!(count("suppressed=169"), 1, "{lines:#?}");
    assert_eq!(count("client disconnected"), 1);
}
