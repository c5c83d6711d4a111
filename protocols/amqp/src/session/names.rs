//! Names of queues and exchanges: what clients may not give, and how texts show them.

use crate::error::Refusal;

/// The pseudo-queue that stands for a channel's own replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Names that clients may not give.
pub(super) const RESERVED: &str = "amq.";

/// Line ends cannot be part of a name.
pub(super) fn without_line_ends(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

/// A name that is to be made begins with what is the broker's.
pub(super) fn check_not_reserved(kind: &str, name: &str) -> Result<(), Refusal> {
    if name.starts_with(RESERVED) {
        return Err(Refusal::access_refused(format_args!(
            "{kind} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}

/// The default exchange is nobody's to change.
pub(super) fn check_not_default(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// A name that nobody can guess.
pub(super) fn generated_name(prefix: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = uuid::Uuid::new_v4().as_u128();
    let mut name = prefix.to_owned();
    for _ in 0..22 {
        name.push(char::from(*ALPHABET.get((bits & 63) as usize).unwrap_or(&b'A')));
        bits >>= 6;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_differ() {
        let name = generated_name("amq.gen-");
        assert_eq!(name.len(), 8 + 22);
        assert_ne!(name, generated_name("amq.gen-"));
    }
}
