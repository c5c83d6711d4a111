//! Names of queues and exchanges: which ones clients may use.

use crate::error::Refusal;

/// The pseudo-queue of direct reply-to.
pub(crate) const REPLY_TO: &str = crate::map::DIRECT_REPLY_TO;

/// The prefix of reserved names.
pub(crate) const RESERVED: &str = "amq.";

/// A name without line ends, which RabbitMQ strips.
pub(crate) fn without_line_ends(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

/// Rejects names with the reserved prefix `amq.`.
pub(crate) fn check_not_reserved(kind: &str, name: &str) -> Result<(), Refusal> {
    if name.starts_with(RESERVED) {
        return Err(Refusal::access_refused(format_args!(
            "{kind} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}

/// Rejects operations on the default exchange.
pub(crate) fn check_not_default(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// A random name with 128 bits of entropy.
pub(crate) fn generated_name(prefix: &str) -> String {
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
