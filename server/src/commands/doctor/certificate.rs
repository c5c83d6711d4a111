//! The end of a certificate's validity, read from its DER form (RFC 5280, section 4.1).

/// DER tags.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3600 * 1000;

/// When a certificate expires, milliseconds since 1970; none if it cannot be read.
pub(super) fn expires_ms(der: &[u8]) -> Option<i64> {
    let (SEQUENCE, certificate, _) = element(der)? else { return None };
    let (SEQUENCE, to_be_signed, _) = element(certificate)? else { return None };
    let (tag, _, rest) = element(to_be_signed)?;
    // Version, serial number, signature algorithm, issuer.
    let rest = if tag == VERSION { element(rest)?.2 } else { rest };
    let rest = element(rest)?.2;
    let rest = element(rest)?.2;
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let after_first = element(validity)?.2;
    let (tag, time, _) = element(after_first)?;
    time_ms(tag, std::str::from_utf8(time).ok()?)
}

/// The tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(*first), rest),
        _ => {
            let count = usize::from(first & 0x7f);
            if count > size_of::<u32>() || count > rest.len() {
                return None;
            }
            let (bytes, rest) = rest.split_at(count);
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    if length > rest.len() {
        return None;
    }
    let (content, after) = rest.split_at(length);
    Some((*tag, content, after))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time_ms(tag: u8, text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let number = |at: usize, length: usize| text.get(at..at + length)?.parse::<i64>().ok();
    let (year, at) = match tag {
        UTC_TIME => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let days = days_since_1970(year, number(at, 2)?, number(at + 2, 2)?);
    let seconds = number(at + 4, 2)? * 3600 + number(at + 6, 2)? * 60 + number(at + 8, 2)?;
    Some(days * DAY_MS + seconds * 1000)
}

/// Days of the Gregorian calendar, counted from March, since the leap day then ends the year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_before_month + day
        - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time_ms(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(time_ms(UTC_TIME, "260301123456Z"), Some(1_772_368_496_000));
        assert_eq!(time_ms(GENERALIZED_TIME, "20240229000000Z"), Some(1_709_164_800_000));
        for wrong in ["", "Z", "26", "2603011234Z", "xx0301123456Z", "260301123456"] {
            assert_eq!(time_ms(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn broken_certificates_are_not_read() {
        for broken in
            [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", b"\x30\x85\0\0\0\0\0"]
        {
            assert_eq!(expires_ms(broken), None);
        }
    }
}
