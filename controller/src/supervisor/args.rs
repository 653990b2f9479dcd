//! The arguments of a worker, in the words of mediasoup v2's (`spec: channel.md` §1.2). Pure.
//!
//! broth's worker gets its sockets and its certificate over the channel and passes over the
//! options for them; the original one knows no other way.

use std::ops::RangeInclusive;

use crate::settings::Settings;

/// Arguments of worker `idx` of `count`, its id first.
pub(crate) fn worker_args(settings: &Settings, id: &str, idx: usize, count: usize) -> Vec<String> {
    let mut args = vec![id.into(), format!("--logLevel={}", settings.log_level)];
    args.extend(
        settings
            .log_tags
            .iter()
            .map(|tag| format!("--logTag={tag}")),
    );
    for (family, is_ipv6) in [("IPv4", false), ("IPv6", true)] {
        let mut listen = settings.listen.iter();
        let Some(listen) = listen.find(|listen| listen.ip.is_ipv6() == is_ipv6) else {
            args.push(format!("--rtc{family}=false"));
            continue;
        };
        args.push(format!("--rtc{family}={}", listen.ip));
        if let Some(announced) = &listen.announced {
            args.push(format!("--rtcAnnounced{family}={announced}"));
        }
    }
    let ports = share(&settings.rtc_ports, idx, count);
    args.push(format!("--rtcMinPort={}", ports.start()));
    args.push(format!("--rtcMaxPort={}", ports.end()));
    args
}

/// Why the original worker cannot serve these settings.
pub(crate) fn original_refusal(settings: &Settings) -> Option<&'static str> {
    let of_family = |is_ipv6| {
        let family = settings.listen.iter();
        family
            .filter(|listen| listen.ip.is_ipv6() == is_ipv6)
            .count()
    };
    if settings.dtls.is_some() {
        return Some("the original worker reads its DTLS certificate from files: give none");
    }
    let is_crowded = of_family(false) > 1 || of_family(true) > 1;
    is_crowded.then_some("the original worker listens on one address per family: give one of each")
}

/// The part of the ports that one of `count` workers may use (`spec: api.md` §3.1).
fn share(ports: &RangeInclusive<u16>, idx: usize, count: usize) -> RangeInclusive<u16> {
    let (min, max) = (usize::from(*ports.start()), usize::from(*ports.end()));
    let size = (max - min) / count.max(1);
    let low = min + size * idx;
    let high = low + size;
    let low = low + low % 2;
    let high = high - (high + 1) % 2;
    low as u16..=high as u16
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::settings::ListenAddr;

    #[test]
    fn ports_are_shared_without_overlap() {
        let rows = [
            (10_000..=59_999, 0, 1, 10_000..=59_999),
            (10_000..=59_999, 0, 2, 10_000..=34_999),
            (10_000..=59_999, 1, 2, 35_000..=59_997),
            (10_001..=10_011, 0, 3, 10_002..=10_003),
            (10_001..=10_011, 2, 3, 10_008..=10_009),
        ];
        for (ports, idx, count, expected) in rows {
            assert_eq!(
                share(&ports, idx, count),
                expected,
                "{ports:?} {idx}/{count}"
            );
        }
    }

    #[test]
    fn addresses_are_told_by_family() {
        let v4 = IpAddr::from([127, 0, 0, 1]);
        let v6 = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
        let announced = ListenAddr {
            ip: v4,
            announced: Some("sfu.example".into()),
        };
        let mut settings = Settings {
            log_tags: vec!["ice".into()],
            listen: vec![announced],
            rtc_ports: 40_000..=49_999,
            ..Settings::default()
        };
        let args = worker_args(&settings, "x#1", 0, 1);
        let expected = [
            "x#1",
            "--logLevel=error",
            "--logTag=ice",
            "--rtcIPv4=127.0.0.1",
            "--rtcAnnouncedIPv4=sfu.example",
            "--rtcIPv6=false",
            "--rtcMinPort=40000",
            "--rtcMaxPort=49999",
        ];
        assert_eq!(args, expected);
        assert_eq!(original_refusal(&settings), None);
        settings.listen = vec![v6.into()];
        let args = worker_args(&settings, "x#1", 0, 1);
        assert!(args.contains(&"--rtcIPv4=false".into()) && args.contains(&"--rtcIPv6=::1".into()));
        settings
            .listen
            .push(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 2]).into());
        assert!(original_refusal(&settings).is_some());
    }
}
