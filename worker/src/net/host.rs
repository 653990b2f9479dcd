//! What the machine says about addresses and files.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::settings::{Family, Host};

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Host for Machine {
    fn detect(&self, family: Family) -> Option<IpAddr> {
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        getifaddrs()
            .ok()?
            .filter(|interface| interface.flags.contains(wanted))
            .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
            .filter_map(|interface| ip_of(&interface.address?))
            .find(|ip| Family::of(*ip) == family && self.check_bind(*ip).is_ok())
    }

    fn check_bind(&self, ip: IpAddr) -> Result<(), String> {
        UdpSocket::bind(SocketAddr::new(ip, 0))
            .map(drop)
            .map_err(|error| text_of(&error))
    }

    fn check_file(&self, path: &Path) -> Result<(), String> {
        let cannot = |error| format!("cannot read file '{}': {}", path.display(), text_of(&error));
        if !fs::metadata(path).map_err(cannot)?.is_file() {
            return Err(format!("'{}' is not a regular file", path.display()));
        }
        File::open(path).map(drop).map_err(cannot)
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The operating system's sentence, without the number that Rust adds.
fn text_of(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_asked_in_v2s_words() {
        assert_eq!(Machine.check_bind([127, 0, 0, 1].into()), Ok(()));
        let error = Machine.check_bind([192, 0, 2, 1].into()).unwrap_err();
        assert_eq!(error, "Cannot assign requested address");
        let error = Machine.check_file(Path::new("/nonexistent")).unwrap_err();
        let expected = "cannot read file '/nonexistent': No such file or directory";
        assert_eq!(error, expected);
        let error = Machine.check_file(Path::new("/")).unwrap_err();
        assert_eq!(error, "'/' is not a regular file");
    }

    #[test]
    fn what_is_detected_can_be_bound_and_is_not_internal() {
        for family in [Family::V4, Family::V6] {
            if let Some(ip) = Machine.detect(family) {
                assert_eq!(Machine.check_bind(ip), Ok(()));
                assert!(!ip.is_loopback());
            }
        }
    }
}
