//! What a process holds, as the kernel sees it: descriptors by kind, children, memory.

use std::fmt;
use std::fs;
use std::io;
use std::process;
use std::time::{Duration, Instant};

/// How long it may take until what ended is let go.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What this process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) sockets: usize,
    /// Flight recorders.
    pub(super) memfds: usize,
    pub(super) pidfds: usize,
    pub(super) pipes: usize,
    /// Descriptors of all other kinds.
    pub(super) others: usize,
    /// Child processes, dead ones that nobody waited for included.
    pub(super) children: usize,
}

impl Held {
    /// Now.
    pub(super) fn now() -> io::Result<Self> {
        let mut held = Self {
            children: children()?.len(),
            ..Self::default()
        };
        let links = fs::read_dir("/proc/self/fd")?.flatten();
        for link in links.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            *held.count(&link.to_string_lossy()) += 1;
        }
        Ok(held)
    }

    /// What is held when it is as `expected`, or in the end.
    pub(super) async fn like(expected: Self) -> io::Result<Self> {
        let until = Instant::now() + PATIENCE;
        loop {
            let held = Self::now()?;
            if held == expected || Instant::now() > until {
                return Ok(held);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn count(&mut self, link: &str) -> &mut usize {
        if link.starts_with("socket:") {
            &mut self.sockets
        } else if link.starts_with("/memfd:") {
            &mut self.memfds
        } else if link.contains("pidfd") {
            &mut self.pidfds
        } else if link.starts_with("pipe:") {
            &mut self.pipes
        } else {
            &mut self.others
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sockets,
            memfds,
            pidfds,
            pipes,
            others,
            children,
        } = self;
        write!(
            f,
            "{sockets} sockets, {memfds} memfds, {pidfds} pidfds, {pipes} pipes, {others} other \
             descriptors, {children} children"
        )
    }
}

/// Bytes of memory that this process has.
pub(super) fn rss_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let kib: u64 = kib.ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))?;
    Ok(kib << 10)
}

/// Processes whose parent this one is.
fn children() -> io::Result<Vec<u32>> {
    let own = process::id().to_string();
    let child = |entry: fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name between may have blanks.
        let (pid, behind) = (stat.split_once(' ')?.0, stat.rsplit_once(')')?.1);
        let is_own = behind.split_whitespace().nth(1) == Some(&own);
        is_own.then(|| pid.parse().ok())?
    };
    Ok(fs::read_dir("/proc")?.flatten().filter_map(child).collect())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;

    use super::*;

    #[test]
    fn links_tell_what_a_descriptor_is() {
        let mut held = Held::default();
        for link in [
            "socket:[77]",
            "/memfd:broth-recorder (deleted)",
            "anon_inode:[pidfd]",
            "pidfd:[4]",
            "pipe:[9]",
            "anon_inode:[eventpoll]",
            "/dev/null",
        ] {
            *held.count(link) += 1;
        }
        let expected = Held {
            sockets: 1,
            memfds: 1,
            pidfds: 2,
            pipes: 1,
            others: 2,
            children: 0,
        };
        assert_eq!(held, expected);
    }

    #[test]
    fn what_is_held_is_found() {
        // Other tests of this process open and close things, too.
        let _socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Held::now().unwrap().sockets >= 1);
        assert!(rss_bytes().unwrap() > 1 << 20);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children().unwrap().contains(&child.id()));
        child.kill().unwrap();
        // Nobody has waited for it.
        assert!(children().unwrap().contains(&child.id()));
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&child.id()));
    }
}
