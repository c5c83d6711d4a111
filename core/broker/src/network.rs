//! Which clients are counted as one: by their IPv4 address, or by the network of their IPv6 address, of which a single client
//! has as many as it likes.

use std::net::{IpAddr, Ipv6Addr};

/// Leading bits of an IPv6 address that name a network, the rest a host in it (RFC 4291, 2.5.4).
const NETWORK_BITS: u32 = 64;

/// What clients of an address are counted under: the address, or the first address of its /64.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & (u128::MAX << (u128::BITS - NETWORK_BITS));
            // This machine stays what it is.
            if v6.is_loopback() { IpAddr::V6(v6) } else { IpAddr::V6(Ipv6Addr::from_bits(network)) }
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let of = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_eq!(
            (of("192.0.2.1"), of("::ffff:192.0.2.1"), of("::1")),
            ("192.0.2.1".into(), "192.0.2.1".into(), "::1".into())
        );
    }
}
