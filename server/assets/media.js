// The own microphone, camera and screen. No page elements, no network.

/** What a person can do about a device that cannot be had. */
export function explain(error, what) {
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return `This page may not use your ${what}. Allow it in the address bar, then try again.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No ${what} was found.`;
    case "NotReadableError":
    case "AbortError":
      return `Your ${what} is used by another program.`;
    default:
      return `Your ${what} cannot be used: ${error?.message ?? error}`;
  }
}

/** Whether the browser gives devices and connections to this page at all. */
export function obstacle() {
  if (!window.RTCPeerConnection) return "This browser has no WebRTC.";
  if (!window.isSecureContext || !navigator.mediaDevices) {
    return "Browsers give camera and microphone only to pages from https:// or localhost.";
  }
  return null;
}

/** A camera track of about the wanted size. */
export async function openCamera({ width, height, fps }, deviceId) {
  const video = {
    width: { ideal: width },
    height: { ideal: height },
    frameRate: { ideal: fps },
    ...(deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" }),
  };
  const stream = await navigator.mediaDevices.getUserMedia({ video });
  return stream.getVideoTracks()[0];
}

/** A microphone track. */
export async function openMicrophone(deviceId) {
  const audio = {
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
    ...(deviceId && { deviceId: { exact: deviceId } }),
  };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  return stream.getAudioTracks()[0];
}

/** A track of the screen, a window or a tab, as the person chooses. */
export async function openScreen() {
  const stream = await navigator.mediaDevices.getDisplayMedia({
    video: { frameRate: { max: 15 } },
  });
  const track = stream.getVideoTracks()[0];
  track.contentHint = "detail";
  return track;
}
