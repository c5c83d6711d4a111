//! Lines of the log: one for each event, whatever texts of clients are in it.
//!
//! Most fields are written in quotes. Those that are not (errors, addresses) may hold names that clients chose, and these a
//! line break or the escapes of a terminal.

use std::io::{self, Write};

/// Writes events, each in one call, with their control characters escaped.
pub(crate) struct OneLine<W>(pub(crate) W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        if line.chars().any(char::is_control) {
            let mut escaped = String::with_capacity(line.len() + 16);
            for c in line.chars() {
                if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
            }
            self.0.write_all((escaped + end).as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || OneLine(writer.clone()))
            .without_time()
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let address = "a\n INFO forged \u{1b}[31m\u{9b}";
            tracing::info!(%address, "dropped: ä");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains("address=a\\n INFO forged ") && text.contains("dropped: ä"), "{text}");
        assert!(!text.trim_end_matches('\n').chars().any(char::is_control), "{text:?}");
    }
}
