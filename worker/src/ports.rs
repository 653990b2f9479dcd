//! Which ports of the worker's range are taken. Pure: who binds them is `net::binder`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use broth_ipc::body::Protocol;

/// The ports a worker may open, and those it has open.
#[derive(Debug)]
pub struct RtcPorts {
    range: RangeInclusive<u16>,
    taken: HashSet<(Protocol, SocketAddr)>,
}

impl RtcPorts {
    /// All ports of a range, which is not empty.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            taken: HashSet::new(),
        }
    }

    /// Every port that is not taken, once: from somewhere in the range, which `random` chooses, to
    /// its end, and then from its beginning.
    pub fn free(
        &self,
        protocol: Protocol,
        ip: IpAddr,
        random: u16,
    ) -> impl Iterator<Item = u16> + '_ {
        let (min, max) = (*self.range.start(), *self.range.end());
        let start = min + random % (max - min + 1);
        (start..=max)
            .chain(min..start)
            .filter(move |port| !self.taken.contains(&(protocol, SocketAddr::new(ip, *port))))
    }

    /// Marks a port as taken.
    pub fn take(&mut self, protocol: Protocol, address: SocketAddr) {
        self.taken.insert((protocol, address));
    }

    /// Gives a port back; nothing happens if it was not taken here.
    pub fn release(&mut self, protocol: Protocol, address: SocketAddr) {
        self.taken.remove(&(protocol, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Tcp, Udp};

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn free(ports: &RtcPorts, protocol: Protocol, ip: IpAddr, random: u16) -> Vec<u16> {
        ports.free(protocol, ip, random).collect()
    }

    #[test]
    fn every_port_is_offered_once_from_anywhere() {
        let ports = RtcPorts::new(40_000..=40_003);
        for (random, expected) in [
            (0, [40_000, 40_001, 40_002, 40_003]),
            (2, [40_002, 40_003, 40_000, 40_001]),
            (7, [40_003, 40_000, 40_001, 40_002]),
        ] {
            assert_eq!(free(&ports, Udp, V4, random), expected);
        }
        let all = RtcPorts::new(1024..=u16::MAX);
        assert_eq!(all.free(Udp, V4, u16::MAX).count(), 65_536 - 1024);
    }

    #[test]
    fn ports_are_taken_and_released_by_protocol_and_address() {
        let mut ports = RtcPorts::new(40_000..=40_001);
        let taken = SocketAddr::new(V4, 40_000);
        ports.take(Udp, taken);
        assert_eq!(free(&ports, Udp, V4, 0), [40_001]);
        assert_eq!(free(&ports, Tcp, V4, 0).len(), 2);
        assert_eq!(free(&ports, Udp, V6, 0).len(), 2);
        ports.take(Udp, SocketAddr::new(V4, 40_001));
        assert!(free(&ports, Udp, V4, 0).is_empty());
        ports.release(Tcp, taken);
        assert!(free(&ports, Udp, V4, 0).is_empty());
        ports.release(Udp, taken);
        assert_eq!(free(&ports, Udp, V4, 1), [40_000]);
    }
}
