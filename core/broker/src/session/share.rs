//! The text of shared subscriptions.

/// The prefix of shared subscriptions.
pub(super) const SHARE: &str = "$share/";

/// Group and filter of a shared subscription's text.
pub(super) fn split_share(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(SHARE.as_bytes())?;
    let slash = rest.iter().position(|b| *b == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

/// The name of a group's hidden queue.
pub(super) fn group_queue(group: &[u8], filter: &[u8]) -> String {
    format!("{SHARE}{}/{}", String::from_utf8_lossy(group), String::from_utf8_lossy(filter))
}
