// What the browser's statistics say, in one shape for all browsers. Pure.

/** Members of received RTP that the page and its tests look at. */
const INBOUND = [
  "kind", "bytesReceived", "packetsReceived", "packetsLost", "jitter",
  "framesDecoded", "framesPerSecond", "frameWidth", "frameHeight", "keyFramesDecoded",
  "totalAudioEnergy", "audioLevel", "freezeCount",
];
const OUTBOUND = [
  "kind", "bytesSent", "packetsSent", "framesEncoded", "framesPerSecond",
  "frameWidth", "frameHeight", "qualityLimitationReason", "encoderImplementation",
];

export function inboundBySsrc(report) {
  return bySsrc(report, "inbound-rtp", INBOUND);
}

export function outboundBySsrc(report) {
  return bySsrc(report, "outbound-rtp", OUTBOUND);
}

/** The path in use: `{ protocol, roundTripMs }`, empty before there is one. */
export function describePair(report) {
  const transport = find(report, (stat) => stat.type === "transport" && stat.selectedCandidatePairId);
  const pair =
    report.get(transport?.selectedCandidatePairId) ??
    find(report, (stat) => stat.type === "candidate-pair" && (stat.selected || stat.nominated));
  if (!pair) return {};
  const [local, remote] = [report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)];
  return {
    protocol: (remote ?? local)?.protocol?.toLowerCase(),
    roundTripMs: Math.round((pair.currentRoundTripTime ?? 0) * 1000),
  };
}

function bySsrc(report, type, members) {
  const found = new Map();
  for (const stat of report.values()) {
    if (stat.type !== type) continue;
    const picked = { ssrc: stat.ssrc, mimeType: report.get(stat.codecId)?.mimeType };
    for (const member of members) {
      if (stat[member] !== undefined) picked[member] = stat[member];
    }
    found.set(stat.ssrc, picked);
  }
  return found;
}

function find(report, test) {
  for (const stat of report.values()) if (test(stat)) return stat;
  return undefined;
}
