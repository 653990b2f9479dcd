// The page: lobby, controls, messages, and the handles that tests use.

import { Call } from "./call.js";
import { explain, obstacle, openCamera, openMicrophone } from "./media.js";
import { Tiles } from "./tiles.js";

const NAME_CHARS_MAX = 64;
const STATS_INTERVAL_MS = 1_000;
const TOAST_MS = 8_000;

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const settings = {
  codec: query.get("codec") ?? undefined,
  simulcast: query.get("simulcast") === "1",
  udp: query.get("udp") !== "0",
  width: numberFrom("width", 1280),
  height: numberFrom("height", 720),
  fps: numberFrom("fps", 30),
};
const wants = { mic: query.get("audio") !== "0", camera: query.get("video") !== "0" };

/** The tracks shown in the lobby and taken into the call. */
const preview = { mic: null, camera: null, meter: null };
let call = null;
let statsTimer;
/** The panel that ends workers, where the server allows that. */
let chaos = null;

const tiles = new Tiles($("stage"), {
  profile: (name, profile) => call?.setProfile(name, profile),
  soundBlocked: (play) => toast("Your browser keeps the sound off.", "Turn on", play),
  added: (tile) => chaos?.add(tile),
  removed: (tile) => chaos?.remove(tile),
});

// Lobby

async function openLobby() {
  document.body.dataset.view = "lobby";
  document.title = "broth";
  const problem = obstacle();
  $("join").disabled = Boolean(problem);
  if (problem) {
    $("preview-text").textContent = "No camera, no call.";
    showError(problem);
    return;
  }
  await openPreview();
}

async function openPreview() {
  // One after the other: asked for both, a browser gives none if one is missing.
  if (wants.mic) preview.mic = await tryOpen(() => openMicrophone($("mic-select").value), "microphone");
  if (wants.camera) {
    preview.camera = await tryOpen(() => openCamera(settings, $("camera-select").value), "camera");
  }
  wants.mic &&= Boolean(preview.mic);
  wants.camera &&= Boolean(preview.camera);
  showPreview();
  await listDevices();
}

async function tryOpen(open, what) {
  try {
    const track = await open();
    // Joined or left the lobby meanwhile.
    if (document.body.dataset.view === "lobby") return track;
    track.stop();
  } catch (error) {
    const problem = explain(error, what);
    preview.problem = preview.problem ? `${preview.problem} ${problem}` : problem;
    if (document.body.dataset.view === "call") toast(problem);
  }
  return null;
}

function showPreview() {
  const { camera, mic } = preview;
  $("preview-video").srcObject = camera ? new MediaStream([camera]) : null;
  $("preview-text").textContent = camera ? "" : (preview.problem ?? "Your camera is off.");
  $("preview-camera").setAttribute("aria-pressed", String(Boolean(camera)));
  $("preview-mic").setAttribute("aria-pressed", String(Boolean(mic)));
  preview.meter?.stop();
  preview.meter = mic ? meter(mic, $("preview-level")) : null;
}

function closePreview() {
  preview.meter?.stop();
  $("preview-video").srcObject = null;
  const tracks = { mic: preview.mic, camera: preview.camera };
  Object.assign(preview, { mic: null, camera: null, meter: null, problem: undefined });
  return tracks;
}

async function togglePreview(source) {
  preview.problem = undefined;
  if (preview[source]) {
    preview[source].stop();
    preview[source] = null;
  } else if (source === "mic") {
    preview.mic = await tryOpen(() => openMicrophone($("mic-select").value), "microphone");
  } else {
    preview.camera = await tryOpen(() => openCamera(settings, $("camera-select").value), "camera");
  }
  wants[source] = Boolean(preview[source]);
  showPreview();
  await listDevices();
}

async function changeDevice(source) {
  if (!preview[source]) return;
  await togglePreview(source);
  await togglePreview(source);
}

async function listDevices() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const selects = [
    ["mic-select", "audioinput", preview.mic],
    ["camera-select", "videoinput", preview.camera],
  ];
  for (const [id, kind, track] of selects) {
    const options = devices
      .filter((device) => device.kind === kind && device.deviceId)
      .map((device) => new Option(device.label || "Default", device.deviceId));
    if (!options.length) options.push(new Option("None found", ""));
    const current = track?.getSettings().deviceId ?? $(id).value;
    $(id).replaceChildren(...options);
    if (options.some(({ value }) => value === current)) $(id).value = current;
  }
}

/** Moves `bar` with what `track` hears. */
function meter(track, bar) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    const level = Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-9) / 5));
    bar.style.transform = `scaleY(${level.toFixed(2)})`;
  }, 80);
  return {
    stop() {
      clearInterval(timer);
      context.close();
      bar.style.transform = "scaleY(0)";
    },
  };
}

// Call

async function join() {
  const [name, room] = [$("name").value.trim(), $("room").value.trim()];
  const fault = faultOf("Your name", name) ?? faultOf("The room’s name", room);
  $("name").setAttribute("aria-invalid", String(Boolean(faultOf("", name))));
  $("room").setAttribute("aria-invalid", String(Boolean(faultOf("", room))));
  showError(fault);
  if (fault || call) return;

  remember(name);
  $("join-form").classList.add("is-busy");
  $("join").disabled = true;
  const options = { ...settings, name, room, micId: $("mic-select").value, cameraId: $("camera-select").value };
  call = new Call(options);
  call.addEventListener("change", showCall);
  call.addEventListener("state", showState);
  call.addEventListener("speakers", ({ detail }) => tiles.showSpeakers(detail));
  call.addEventListener("problem", ({ detail }) => toast(detail));
  const { problem } = preview;
  try {
    await call.join(closePreview());
    if (problem) toast(problem);
  } catch {
    // The state says it.
  }
}

function showState() {
  const { state, reason } = call;
  $("banner").hidden = state !== "rejoining";
  $("banner-text").textContent = `${reason} Coming back…`;
  document.body.classList.toggle("is-rejoining", state === "rejoining");
  if (state === "joining") return;
  $("join-form").classList.remove("is-busy");
  $("join").disabled = false;
  if (state === "joined") openCall();
  if (state === "failed" || state === "left") closeCall(state === "failed" ? reason : null);
}

function openCall() {
  document.body.dataset.view = "call";
  document.title = `${call.room} · broth`;
  $("room-name").textContent = call.room;
  const address = new URL(location.href);
  address.searchParams.set("room", call.room);
  history.replaceState(null, "", address);
  clearInterval(statsTimer);
  statsTimer = setInterval(showStats, STATS_INTERVAL_MS);
  chaos?.enter(call.room);
}

function closeCall(error) {
  clearInterval(statsTimer);
  chaos?.leave();
  tiles.render({ state: "left", peers: [] });
  call = null;
  showError(error);
  openLobby();
}

function showCall() {
  if (!call || document.body.dataset.view !== "call") return;
  const { mic, camera, screen } = call.local;
  press("mic", mic.isOn, mic.isOn ? "Mute" : "Unmute");
  press("camera", camera.isOn, camera.isOn ? "Stop video" : "Start video");
  press("screen", screen.isOn, screen.isOn ? "Stop share" : "Share");
  $("people").textContent = String(call.peers.length + 1);
  $("alone").hidden = call.state !== "joined" || call.peers.length > 0;
  tiles.render(call);
}

async function showStats() {
  if (call?.state === "joined") tiles.showStats(await call.stats());
}

function press(id, isOn, label) {
  $(id).setAttribute("aria-pressed", String(isOn));
  $(id).querySelector(".label").textContent = label;
}

const toggles = {
  mic: () => (call.local.mic.isOn ? call.mute() : call.unmute()),
  camera: () => (call.local.camera.isOn ? call.cameraOff() : call.cameraOn()),
  screen: () => (call.local.screen.isOn ? call.stopScreen() : call.shareScreen()),
  figures: () => press("figures", !document.body.classList.toggle("hide-figures"), "Figures"),
};

async function copyLink() {
  const link = new URL("/", location.href);
  link.searchParams.set("room", call.room);
  if (settings.codec) link.searchParams.set("codec", settings.codec);
  try {
    await navigator.clipboard.writeText(link);
    $("invite-text").textContent = "Copied";
    setTimeout(() => ($("invite-text").textContent = "Copy link"), 2_000);
  } catch {
    toast(`The link: ${link}`);
  }
}

// Messages

function showError(text) {
  $("join-error").hidden = !text;
  $("join-error").textContent = text ?? "";
}

function toast(text, action, act) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.innerHTML = '<svg class="icon"><use href="#i-alert"/></svg><span></span>';
  toast.querySelector("span").textContent = text;
  const button = document.createElement("button");
  button.textContent = action ?? "OK";
  button.addEventListener("click", () => {
    act?.();
    toast.remove();
  });
  toast.append(button);
  $("toasts").append(toast);
  if (!action) setTimeout(() => toast.remove(), TOAST_MS);
}

// Small things

function numberFrom(parameter, otherwise) {
  const number = Number(query.get(parameter));
  return number > 0 ? number : otherwise;
}

function faultOf(what, name) {
  if (!name) return `${what} is missing.`;
  if ([...name].length > NAME_CHARS_MAX) return `${what} has more than ${NAME_CHARS_MAX} characters.`;
  return /\p{Cc}/u.test(name) ? `${what} has characters that cannot be shown.` : null;
}

/** The name of last time; storage may be forbidden. */
function remember(name) {
  try {
    localStorage.setItem("name", name);
  } catch {
    // Then it is asked for again.
  }
}

function remembered() {
  try {
    return localStorage.getItem("name") ?? "";
  } catch {
    return "";
  }
}

function inventRoom() {
  const pick = (...words) => words[Math.floor(Math.random() * words.length)];
  const taste = pick("amber", "bright", "calm", "clear", "golden", "gentle", "smoky", "warm");
  const soup = pick("bisque", "bouillon", "chowder", "dashi", "goulash", "minestrone", "pho", "ramen");
  return `${taste}-${soup}-${100 + Math.floor(Math.random() * 900)}`;
}

// Start

/** What the server offers beside calls; an older one says nothing of it. */
async function readConfig() {
  try {
    return await (await fetch("api/config")).json();
  } catch {
    return {};
  }
}

$("name").value = query.get("name") ?? remembered();
$("room").value = query.get("room") ?? inventRoom();
$("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  join();
});
$("preview-mic").addEventListener("click", () => togglePreview("mic"));
$("preview-camera").addEventListener("click", () => togglePreview("camera"));
$("mic-select").addEventListener("change", () => changeDevice("mic"));
$("camera-select").addEventListener("change", () => changeDevice("camera"));
for (const [id, toggle] of Object.entries(toggles)) $(id).addEventListener("click", toggle);
$("leave").addEventListener("click", () => call.leave());
$("invite").addEventListener("click", copyLink);
document.addEventListener("keydown", (event) => {
  if (!call || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const id = { m: "mic", v: "camera", s: "screen", i: "figures" }[event.key.toLowerCase()];
  if (id) toggles[id]();
});
addEventListener("pagehide", () => call?.leave());

/** For tests and kiosks; the buttons do the same. */
window.broth = Object.freeze({
  get state() {
    return call?.state ?? "lobby";
  },
  get joins() {
    return call?.joins ?? 0;
  },
  stats: async () => ({ state: call?.state ?? "lobby", ...(call ? await call.stats() : { peers: {}, sent: {} }) }),
  call: Object.freeze(
    Object.fromEntries(
      ["mute", "unmute", "cameraOn", "cameraOff", "shareScreen", "stopScreen", "leave", "setProfile"].map(
        (method) => [method, (...args) => call[method](...args)],
      ),
    ),
  ),
});

if ((await readConfig()).chaos) {
  const { Chaos } = await import("./chaos.js");
  chaos = new Chaos();
}
await openLobby();
if (query.get("join") === "1" && !obstacle()) await join();
