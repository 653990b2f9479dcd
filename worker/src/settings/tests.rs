use super::*;

/// Has one reachable address of each family that is not switched off, and one file.
struct FakeHost {
    has_ipv6: bool,
}

const HOST: FakeHost = FakeHost { has_ipv6: true };
const DETECTED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Host for FakeHost {
    fn detect(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => Some(DETECTED),
            Family::V6 => self.has_ipv6.then(|| "2001:db8::1".parse().unwrap()),
        }
    }

    fn check_bind(&self, ip: IpAddr) -> Result<(), String> {
        match ip.to_string().as_str() {
            "1.2.3.4" => Err("Cannot assign requested address".into()),
            _ => Ok(()),
        }
    }

    fn check_file(&self, path: &Path) -> Result<(), String> {
        match path.to_str() {
            Some("/good.pem") => Ok(()),
            other => Err(format!("cannot read file '{}': no", other.unwrap())),
        }
    }
}

fn parse(arguments: &str) -> Result<Settings, SettingsError> {
    let arguments: Vec<String> = arguments.split(' ').map(Into::into).collect();
    Settings::parse(&arguments, &HOST)
}

#[test]
fn without_options_nothing_is_asked_of_the_machine() {
    assert_eq!(Settings::parse(&[], &HOST), Ok(Settings::default()));
    let ports = Settings::default().rtc.ports;
    assert_eq!(ports, 10_000..=59_999);
}

#[test]
fn what_v2s_controller_passes_is_understood() {
    let settings = parse(
        "--logLevel=DEBUG --logTag=ice --logTag=chicken --logTag=dtls --rtcIPv4=127.0.0.1 \
         --rtcIPv6=false --rtcAnnouncedIPv4=9.9.9.9 --rtcAnnouncedIPv6=2001:db8::9 \
         --rtcMinPort=40001 --rtcMaxPort=40100 --dtlsCertificateFile=/good.pem \
         --dtlsPrivateKeyFile=/good.pem",
    );
    let expected = Settings {
        log_level: Level::Debug,
        log_tags: Tags::of(["ice", "dtls"]),
        rtc: RtcSettings {
            ipv4: FamilySettings {
                listen: Listen::On(Ipv4Addr::LOCALHOST.into()),
                announced: Some("9.9.9.9".into()),
            },
            ipv6: FamilySettings {
                listen: Listen::Off,
                announced: None,
            },
            ports: 40_000..=40_099,
        },
        identity: Some(IdentityFiles {
            certificate: "/good.pem".into(),
            private_key: "/good.pem".into(),
        }),
    };
    assert_eq!(settings, Ok(expected));
}

#[test]
fn the_other_family_is_detected_at_once_where_one_is_off() {
    let settings = parse("--rtcIPv6=").unwrap();
    assert_eq!(settings.rtc.ipv4.listen, Listen::On(DETECTED));
    let settings = parse("--rtcIPv4=true --rtcIPv6=true").unwrap();
    assert_eq!(settings.rtc, RtcSettings::default());
    let alone = FakeHost { has_ipv6: false };
    let error = Settings::parse(&["--rtcIPv4=false".into()], &alone).unwrap_err();
    assert_eq!(error.text, "at least rtcIPv4 or rtcIPv6 must be enabled");
}

#[test]
fn one_dtls_file_alone_is_ignored() {
    let settings = parse("--dtlsCertificateFile=/nonexistent").unwrap();
    assert_eq!(settings.identity, None);
}

#[test]
fn refusals_are_worded_as_v2_words_them() {
    let rows = [
        (
            "--logLevel=WRONG",
            "SetLogLevel",
            "invalid value 'wrong' for logLevel",
        ),
        (
            "--logLevel",
            "SetConfiguration",
            "unknown configuration parameter: (null)",
        ),
        (
            "--bogus=1",
            "SetConfiguration",
            "unknown configuration parameter: (null)",
        ),
        (
            "-logLevel=warn",
            "SetConfiguration",
            "unknown configuration parameter: (null)",
        ),
        (
            "logLevel=warn",
            "SetConfiguration",
            "unknown configuration parameter: (null)",
        ),
        ("--rtcIPv4=x", "SetRtcIPv4", "invalid value 'x' for rtcIPv4"),
        ("--rtcIPv6=x", "SetRtcIPv6", "invalid value 'x' for rtcIPv6"),
        (
            "--rtcIPv4=::1",
            "SetRtcIPv4",
            "invalid IPv6 '::1' for rtcIPv4",
        ),
        (
            "--rtcIPv6=127.0.0.1",
            "SetRtcIPv6",
            "invalid IPv4 '127.0.0.1' for rtcIPv6",
        ),
        (
            "--rtcIPv4=0.0.0.0",
            "SetRtcIPv4",
            "rtcIPv4 cannot be '0.0.0.0'",
        ),
        ("--rtcIPv6=::", "SetRtcIPv6", "rtcIPv6 cannot be '::'"),
        (
            "--rtcIPv4=1.2.3.4",
            "SetRtcIPv4",
            "cannot bind on '1.2.3.4' for rtcIPv4: Cannot assign requested address",
        ),
        (
            "--rtcIPv4=false --rtcIPv6=false",
            "SetConfiguration",
            "at least rtcIPv4 or rtcIPv6 must be enabled",
        ),
        (
            "--rtcMinPort=1023",
            "SetRtcPorts",
            "rtcMinPort must be greater or equal than 1024",
        ),
        ("--rtcMaxPort=0", "SetRtcPorts", "rtcMaxPort can not be 0"),
        (
            "--rtcMinPort=2000 --rtcMaxPort=1800",
            "SetRtcPorts",
            "rtcMaxPort must be higher than rtcMinPort",
        ),
        (
            "--rtcMinPort=2000 --rtcMaxPort=2000",
            "SetRtcPorts",
            "rtcMaxPort must be higher than rtcMinPort",
        ),
        (
            "--rtcMinPort=70000",
            "SetConfiguration",
            "invalid value '70000' for rtcMinPort",
        ),
        (
            "--rtcMaxPort=many",
            "SetConfiguration",
            "invalid value 'many' for rtcMaxPort",
        ),
        (
            "--dtlsCertificateFile=/no --dtlsPrivateKeyFile=/no",
            "SetDtlsCertificateAndPrivateKeyFiles",
            "dtlsCertificateFile: cannot read file '/no': no",
        ),
        (
            "--dtlsCertificateFile=/good.pem --dtlsPrivateKeyFile=/no",
            "SetDtlsCertificateAndPrivateKeyFiles",
            "dtlsPrivateKeyFile: cannot read file '/no': no",
        ),
    ];
    for (arguments, function, text) in rows {
        let error = parse(arguments).unwrap_err();
        assert_eq!(error.text, text, "{arguments}");
        assert_eq!(error.place, format!("Settings::{function}"), "{arguments}");
    }
}
