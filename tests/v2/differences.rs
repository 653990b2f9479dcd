//! Where the worker is not like the original one, on purpose (`docs/decisions.md`).

/// What the worker does instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// It accepts.
    Accepts,
    /// It answers the same, but for this member.
    DiffersIn(&'static str),
    /// It rejects with a reason that starts like this.
    Rejects(&'static str),
    /// It says nothing.
    IsSilent,
}

/// A deliberate difference.
#[derive(Debug)]
pub struct Difference {
    /// What the worker does where the original first does something else.
    pub ours: Ours,
    /// Why.
    pub why: &'static str,
    /// `script/case`, or the start of several.
    pub cases: &'static [&'static str],
}

/// All of them; the first that fits a case counts.
pub static DIFFERENCES: &[Difference] = &[
    Difference {
        ours: Ours::Accepts,
        why: "the original does not answer if nothing changes",
        cases: &["methods/router.setAudioLevelsEvent"],
    },
    Difference {
        ours: Ours::Rejects("invalid destination port "),
        why: "nothing can be sent to port 0, and the original wraps ports at 65536",
        cases: &[
            "methods/router.createPlainRtpTransport data.remotePort = 0",
            "methods/router.createPlainRtpTransport data.remotePort = 4294967295",
            "methods/transport.setRemoteParameters data.port = ",
            "methods/transport.startMirroring data.remotePort = ",
        ],
    },
    Difference {
        ours: Ours::Rejects("missing data.remotePort"),
        why: "the original sends to a random port if none is given",
        cases: &["methods/router.createPlainRtpTransport data.remotePort"],
    },
    Difference {
        ours: Ours::Rejects("invalid destination IP 'x'"),
        why: "a transport that was never there does not close",
        cases: &["methods/router.createPlainRtpTransport data.remoteIP = "],
    },
    Difference {
        ours: Ours::Rejects("invalid binding IP 'x'"),
        why: "a transport that was never there does not close",
        cases: &["methods/router.createPlainRtpTransport data.localIP = "],
    },
    Difference {
        ours: Ours::Rejects("IPv6 "),
        why: "a transport that was never there does not close",
        cases: &["sequences/plain transports"],
    },
    Difference {
        ours: Ours::Rejects("could not open any IP:port"),
        why: "a transport that was never there does not close",
        cases: &["sequences/no protocol"],
    },
    Difference {
        ours: Ours::DiffersIn("maxBitrate"),
        why: "0 removes the limit; the original takes it for 10 kbit/s",
        cases: &["methods/transport.setMaxBitrate data.bitrate = 0"],
    },
    Difference {
        ours: Ours::Accepts,
        why: "the original dies of integers below -2^31; they are dropped like those from 2^31 on",
        cases: &["rtp-parameters/parameters {\"a\":-2147483649}"],
    },
    Difference {
        ours: Ours::Rejects("invalid RtpCodecParameters.clockRate"),
        why: "no clock runs at 0 Hz",
        cases: &[
            "rtp-parameters/router.createProducer data.rtpParameters.codecs[0].clockRate = 0",
            "rtp-parameters/router.createProducer data.rtpParameters.codecs[1].clockRate = 0",
            "rtp-parameters/consumer.enable data.rtpParameters.codecs[0].clockRate = 0",
            "rtp-parameters/consumer.enable data.rtpParameters.codecs[1].clockRate = 0",
        ],
    },
    Difference {
        ours: Ours::Rejects("invalid encoding.profile"),
        why: "the original dies when packets of such encodings arrive",
        cases: &[
            "rtp-parameters/encodings [{\"profile\":\"low\",\"ssrc\":1},{\"ssrc\":2}]",
            "rtp-parameters/encodings [{\"ssrc\":1},{\"profile\":\"high\",\"ssrc\":2}]",
        ],
    },
    Difference {
        ours: Ours::Rejects("ssrc already exists in RTP listener [ssrc:1]"),
        why: "one SSRC cannot carry two streams",
        cases: &[
            "rtp-parameters/encodings [{\"profile\":\"low\",\"ssrc\":1},{\"profile\":\"high\",\"ssrc\":1}]",
            "rtp-parameters/encodings [{\"rtx\":{\"ssrc\":1},\"ssrc\":1}]",
        ],
    },
    Difference {
        ours: Ours::DiffersIn("headerExtensionIds"),
        why: "an extension without a mapping is not forwarded, so dumps show no id for it",
        cases: &[
            "rtp-parameters/router.createProducer data.rtpMapping.headerExtensionIds",
            "rtp-parameters/router.createProducer data.rtpParameters.headerExtensions[1].id = ",
            "rtp-parameters/headerExtensions [{\"id\":10,",
            "rtp-parameters/headerExtensionIds ",
        ],
    },
    Difference {
        ours: Ours::Accepts,
        why: "RIDs are unique within a MID only (RFC 8852)",
        cases: &["rtp-parameters/taken encodingId of another muxId"],
    },
    Difference {
        ours: Ours::DiffersIn("headerExtensions"),
        why: "transport-wide sequence numbers are a known extension",
        cases: &["sequences/transport-wide sequence numbers"],
    },
    Difference {
        ours: Ours::DiffersIn("useNack"),
        why: "`nack` with a parameter is not generic NACK (RFC 4585)",
        cases: &["rtp-parameters/consumer.enable data.rtpParameters.codecs[0].rtcpFeedback[0]"],
    },
    Difference {
        ours: Ours::Rejects("Consumer already enabled"),
        why: "the original keeps a stale reference to the first transport",
        cases: &["sequences/consumer enabled twice"],
    },
    Difference {
        ours: Ours::Rejects("ssrc already exists on the Transport [ssrc:300]"),
        why: "two streams under one SSRC and key would use SRTP indices twice",
        cases: &["sequences/two consumers with one SSRC"],
    },
    Difference {
        ours: Ours::Rejects("targetId already in use in this Worker"),
        why: "the controller tells the objects of notifications apart by this number alone",
        cases: &[
            "sequences/same ids in another router",
            "sequences/one number for every kind of object",
        ],
    },
    Difference {
        ours: Ours::Rejects("wrong Transport type"),
        why: "mirroring is for WebRTC transports, as in the controller's API",
        cases: &["sequences/wrong class transport.startMirroring"],
    },
    Difference {
        ours: Ours::Rejects("wrong Transport type"),
        why: "the original dies of methods of the other class of transport",
        cases: &["sequences/wrong class"],
    },
    Difference {
        ours: Ours::IsSilent,
        why: "the original dies of top-level values that are no objects",
        cases: &[
            "malformed/true",
            "malformed/3",
            "malformed/\\\"text",
            "malformed/[",
        ],
    },
    Difference {
        ours: Ours::Rejects("invalid data: "),
        why: "a router and a plain transport may be handed sockets, and a controller says hello",
        cases: &[
            "sequences/sockets of a router",
            "sequences/socket of a plain transport",
            "sequences/hello without a protocol",
        ],
    },
    Difference {
        ours: Ours::Accepts,
        why: "a worker tells its load",
        cases: &["sequences/load"],
    },
    Difference {
        ours: Ours::IsSilent,
        why: "JSON has no comments",
        cases: &["malformed/{\\\"id\\\":7,/*", "malformed/{\\\"id\\\":7,//"],
    },
    Difference {
        ours: Ours::Rejects("JSON parsing error: recursion limit exceeded"),
        why: "the original dies of values nested deeper than 1000; 127 are enough",
        cases: &["malformed/nested 900 deep", "malformed/nested 1100 deep"],
    },
];

/// The difference that a case shows, if one is listed, and where.
pub fn of(script: &str, case: &str) -> Option<(&'static Difference, &'static str)> {
    let name = format!("{script}/{case}");
    DIFFERENCES.iter().find_map(|difference| {
        let mut cases = difference.cases.iter();
        let found = cases.find(|start| name.starts_with(**start))?;
        Some((difference, *found))
    })
}
