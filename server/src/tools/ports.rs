//! UDP ports for a program that binds them itself.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

const TRIES_MAX: usize = 200;

/// How often the table of sockets is read while a port is waited for.
const POLL_TIME: Duration = Duration::from_millis(20);

/// An even port and the one above, free until they are released: ffmpeg wants the second for RTCP
/// even where RTCP comes by the first.
pub(super) struct PortPair {
    pub(super) port: u16,
    _held: [UdpSocket; 2],
}

impl PortPair {
    /// Finds a pair at an address.
    pub(super) fn reserve(ip: IpAddr) -> anyhow::Result<Self> {
        for _ in 0..TRIES_MAX {
            let first = UdpSocket::bind((ip, 0)).context("cannot open a UDP port")?;
            let port = first.local_addr()?.port();
            if port % 2 == 0
                && let Ok(second) = UdpSocket::bind((ip, port + 1))
            {
                return Ok(Self {
                    port,
                    _held: [first, second],
                });
            }
        }
        bail!("no two neighbouring UDP ports are free at {ip}")
    }

    /// Leaves them to whoever binds them next.
    pub(super) fn release(self) -> u16 {
        self.port
    }
}

/// Waits until somebody has bound all `ports`. Looks at the system's table, as trying to bind
/// them would be in the way of whom is waited for.
pub(super) async fn bound(ports: &[u16], patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let mut table = std::fs::read_to_string("/proc/net/udp")?;
        if Path::new("/proc/net/udp6").exists() {
            table += &std::fs::read_to_string("/proc/net/udp6")?;
        }
        if ports.iter().all(|&port| is_bound(&table, port)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("UDP ports {ports:?} were not opened within {patience:?}");
        }
        sleep(POLL_TIME).await;
    }
}

/// Whether a port is among the local ones of `/proc/net/udp`.
fn is_bound(table: &str, port: u16) -> bool {
    let locals = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    locals
        .filter_map(|local| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok())
        .any(|local| local == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    const TABLE: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
 1054: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0
 1055: 0100007F:C001 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0
  sl  local_address                         remote_address                        st
  106: 00000000000000000000000001000000:14E9 00000000000000000000000000000000:0000 07
";

    #[test]
    fn local_ports_are_found_and_remote_ones_are_not() {
        for port in [8080, 0xC001, 5353] {
            assert!(is_bound(TABLE, port), "{port}");
        }
        assert!(!is_bound(TABLE, 80));
        assert!(!is_bound("", 8080));
    }

    #[tokio::test]
    async fn a_pair_is_held_until_it_is_released() {
        let pair = PortPair::reserve(LOOPBACK).unwrap();
        let port = pair.port;
        assert_eq!(port % 2, 0);
        bound(&[port, port + 1], Duration::ZERO).await.unwrap();
        assert!(UdpSocket::bind((LOOPBACK, port + 1)).is_err());
        assert_eq!(pair.release(), port);
    }
}
