// As much of RTP as the tests look at, and a UDP port that keeps what comes.

import { createSocket } from "node:dgram";

/** Opens a port on loopback; `packets` are the RTP packets in the order they came. */
export async function openPort() {
  const socket = createSocket("udp4");
  const packets = [];
  let rtcpCount = 0;
  socket.on("message", (bytes) => {
    if (isRtcp(bytes)) rtcpCount += 1;
    else packets.push(parseRtp(bytes));
  });
  await new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.bind(0, "127.0.0.1", resolve);
  });
  return {
    port: socket.address().port,
    packets,
    rtcpCount: () => rtcpCount,
    close: () => new Promise((resolve) => socket.close(resolve)),
  };
}

/** RFC 5761, 4: packet types 192 to 223 are RTCP. */
function isRtcp(bytes) {
  return bytes[1] >= 192 && bytes[1] <= 223;
}

function parseRtp(bytes) {
  const version = bytes[0] >> 6;
  let offset = 12 + 4 * (bytes[0] & 15);
  if (bytes[0] & 16) offset += 4 + 4 * bytes.readUInt16BE(offset + 2);
  return {
    version,
    pt: bytes[1] & 127,
    seq: bytes.readUInt16BE(2),
    ssrc: bytes.readUInt32BE(8),
    payload: bytes.subarray(offset),
  };
}

/** Whether a VP8 payload begins a key frame: RFC 7741, 4.2 and 4.3. */
export function isVp8KeyFrame(payload) {
  if (payload.length < 2) return false;
  const [first, second] = payload;
  const beginsFrame = (first & 0x10) !== 0 && (first & 7) === 0;
  let offset = 1;
  if (first & 0x80) {
    offset = 2;
    if (second & 0x80) offset += payload[2] & 0x80 ? 2 : 1;
    if (second & 0x40) offset += 1;
    if (second & 0x30) offset += 1;
  }
  return beginsFrame && offset < payload.length && (payload[offset] & 1) === 0;
}
