// What pages send. A drawn person and a spoken tone instead of the browser's fake devices, which
// beep too softly to be heard as speech and look like nobody. All of it runs in the page before its
// own scripts.

const LOOKS = [
  { wall: ["#f3c9a5", "#d98f6c"], skin: "#f0c3a0", hair: "#3b2418", shirt: "#2f5d8a", long: true, plant: true },
  { wall: ["#b9d3e6", "#6f9cc0"], skin: "#8d5a3b", hair: "#16110f", shirt: "#e0a030", long: false, shelf: true },
  { wall: ["#d9cfe8", "#9384b8"], skin: "#e8b48c", hair: "#b5532a", shirt: "#3d7a5c", long: true, shelf: true },
  { wall: ["#cfe3cf", "#7fa88a"], skin: "#f2cfb4", hair: "#6b6f78", shirt: "#7c3b4b", long: false, plant: true },
];

/** Gives `context`'s pages the devices of the look numbered `index`; who `speaks` makes sound. */
export async function drawDevices(context, index, speaks) {
  await context.addInitScript(script, { look: LOOKS[index % LOOKS.length], phase: index, speaks });
}

/**
 * Makes `context`'s pages send fewer frames when the processor is busy, not smaller ones: of a
 * picture that was made smaller for that reason Chromium sends no third layer.
 */
export async function keepResolution(context) {
  await context.addInitScript(() => {
    const { setParameters } = RTCRtpSender.prototype;
    RTCRtpSender.prototype.setParameters = function (parameters) {
      return setParameters.call(this, { ...parameters, degradationPreference: "maintain-resolution" });
    };
  });
}

function script({ look, phase, speaks }) {
  const media = navigator.mediaDevices;
  if (!media) return;

  media.getUserMedia = async ({ audio, video }) => {
    const tracks = [];
    if (audio) tracks.push(tone());
    if (video) tracks.push(portrait(video.width?.ideal ?? 640, video.height?.ideal ?? 480));
    return new MediaStream(tracks);
  };

  function tone() {
    const context = new AudioContext();
    const voice = context.createOscillator();
    const volume = context.createGain();
    const out = context.createMediaStreamDestination();
    voice.frequency.value = 180 + 40 * phase;
    volume.gain.value = speaks ? 0.3 : 0.0008;
    voice.connect(volume).connect(out);
    voice.start();
    return out.stream.getAudioTracks()[0];
  }

  function portrait(width, height) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const pen = canvas.getContext("2d");
    let step = phase * 17;
    const draw = () => {
      step += 1;
      pen.setTransform(height / 480, 0, 0, height / 480, width / 2, 0);
      scene(pen);
      person(pen, Math.sin(step / 17) * 3, Math.sin(step / 11) * 2, speaks ? Math.abs(Math.sin(step / 2)) : 0);
    };
    draw();
    setInterval(draw, 66);
    return canvas.captureStream(15).getVideoTracks()[0];
  }

  function scene(pen) {
    const wall = pen.createLinearGradient(-320, 0, 320, 480);
    wall.addColorStop(0, look.wall[0]);
    wall.addColorStop(1, look.wall[1]);
    pen.fillStyle = wall;
    pen.fillRect(-640, 0, 1280, 480);
    pen.fillStyle = "rgb(255 255 255 / .28)";
    pen.beginPath();
    pen.ellipse(-190, 80, 230, 210, 0, 0, 7);
    pen.fill();
    if (look.shelf) {
      pen.fillStyle = "rgb(70 45 30 / .75)";
      pen.fillRect(120, 150, 230, 10);
      ["#c8553d", "#f2d492", "#29524a", "#588b8b", "#f28f3b", "#ddd"].forEach((color, book) => {
        pen.fillStyle = color;
        pen.fillRect(140 + book * 24, 88 + (book % 3) * 9, 19, 62 - (book % 3) * 9);
      });
    }
    if (look.plant) {
      pen.fillStyle = "#b5694a";
      pen.fillRect(-268, 350, 74, 130);
      pen.fillStyle = "#3f7d57";
      for (const [x, y, turn] of [[-262, 285, -0.5], [-231, 262, 0], [-200, 290, 0.5], [-245, 315, -0.9], [-217, 318, 0.9]]) {
        pen.beginPath();
        pen.ellipse(x, y, 19, 66, turn, 0, 7);
        pen.fill();
      }
    }
  }

  function person(pen, sway, nod, mouth) {
    const blob = (color, x, y, rx, ry) => {
      pen.fillStyle = color;
      pen.beginPath();
      pen.ellipse(x, y, rx, ry, 0, 0, 7);
      pen.fill();
    };
    if (look.long) {
      blob(look.hair, sway, 235 + nod, 98, 118);
      pen.fillRect(sway - 98, 235, 196, 130);
    }
    pen.fillStyle = look.shirt;
    pen.beginPath();
    pen.roundRect(sway / 2 - 150, 372, 300, 240, 95);
    pen.fill();
    pen.fillStyle = look.skin;
    pen.fillRect(sway - 31, 310 + nod, 62, 75);
    blob(look.skin, sway * 0.8, 385, 31, 20);
    blob("rgb(0 0 0 / .10)", sway, 330 + nod, 31, 16);
    blob(look.skin, sway - 78, 245 + nod, 13, 20);
    blob(look.skin, sway + 78, 245 + nod, 13, 20);
    blob(look.skin, sway, 240 + nod, 78, 96);
    pen.fillStyle = look.hair;
    pen.beginPath();
    pen.ellipse(sway, 200 + nod, 86, 72, 0, Math.PI, 0);
    pen.quadraticCurveTo(sway + 40, 165 + nod, sway - 10, 172 + nod);
    pen.quadraticCurveTo(sway - 60, 175 + nod, sway - 86, 215 + nod);
    pen.fill();
    for (const side of [-1, 1]) {
      blob("#fff", sway + side * 30, 240 + nod, 11, 8);
      blob("#2a1d16", sway + side * 30 + 1, 240 + nod, 5.5, 6);
      pen.fillStyle = look.hair;
      pen.fillRect(sway + side * 30 - 14, 222 + nod, 28, 4);
    }
    blob("rgb(0 0 0 / .13)", sway, 264 + nod, 8, 5);
    blob("#8c3b3b", sway, 291 + nod, 20, 4 + mouth * 8);
  }
}
