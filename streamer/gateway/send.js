// A phone as a device: what its camera, microphone and sensors give is sent to the gateway as events.
//
// Times are those at which something was taken, by the browser's monotonic clock, mapped to the gateway's clock by the
// quickest of some round trips. Each event waits here until the gateway has answered that Kafka has it; after a break it
// is sent again under the same id. What waits is bounded: then the oldest frame is dropped, and counted.

const TYPES = { image: "frame", audio: "audio", text: "transcript", telemetry: "telemetry" };
const JSON_TYPE = "application/json";
const FRAME_HZ = 10;
const FRAME_WIDTH = 640;
const JPEG_QUALITY = 0.7;
const SOUND_HZ = 16000;
const MOTION_MS = 500; // length of a block of samples
const WAITING_BYTES = 16 << 20; // most that may wait here
const BUFFERED_BYTES = 1 << 20; // most that the browser may hold of that unsent
const ROUND_TRIPS = 8;
const CLOCK_MS = 30_000; // between two looks at the clock
const STEP_US = 20_000; // a smaller change of the clock is not followed, so that sound has no gaps
const JUMP_MS = 50; // by which a chunk of sound may come late before its clock is set again
const LATE_S = [1, 2, 5, 10]; // before each try to connect again
const END_MS = 3000; // longest wait for answers before the session ends

const $ = (id) => document.getElementById(id);
const now = () => performance.now();

// the token: in the fragment, which no server sees; kept for a reload of this tab alone
const fragment = decodeURIComponent(location.hash.slice(1));
if (fragment) sessionStorage.setItem("token", fragment);
const token = sessionStorage.getItem("token") ?? "";
history.replaceState(null, "", location.pathname);
addEventListener("hashchange", () => location.reload()); // another link, opened in this tab

let device = null; // what the gateway says of the token
let running = null; // what goes on now, to be stopped

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function connection(state, text) {
  $("connection").dataset.state = state;
  $("connection").textContent = text;
}

// clock

const clock = { offsetUs: null, uncertainMs: 0 };

async function measure() {
  let best = null;
  for (let i = 0; i < ROUND_TRIPS; i += 1) {
    const before = now();
    const { time_us: theirs } = await (await fetch("/v1/clock", { cache: "no-store" })).json();
    const after = now();
    if (best === null || after - before < best.trip) {
      best = { trip: after - before, offsetUs: theirs - 500 * (before + after) };
    }
  }
  clock.uncertainMs = best.trip / 2;
  if (clock.offsetUs === null || Math.abs(best.offsetUs - clock.offsetUs) > STEP_US + 1000 * clock.uncertainMs) {
    clock.offsetUs = best.offsetUs;
  }
  const behindMs = clock.offsetUs / 1000 - performance.timeOrigin;
  const by = Math.abs(behindMs) < 1000 ? `${Math.abs(behindMs).toFixed(1)} ms` : `${Math.abs(behindMs / 1000).toFixed(1)} s`;
  $("clock").textContent =
    `this device is ${by} ${behindMs < 0 ? "ahead of" : "behind"} the gateway (± ${clock.uncertainMs.toFixed(1)} ms)`;
}

// The gateway's time of a moment of performance.now(), RFC 3339 to the microsecond.
function rfc3339(atMs) {
  const us = Math.round(clock.offsetUs + 1000 * atMs);
  const seconds = Math.floor(us / 1e6);
  return `${new Date(1000 * seconds).toISOString().slice(0, 19)}.${String(us - 1e6 * seconds).padStart(6, "0")}Z`;
}

// what is sent

class Outbox {
  constructor(session, sources) {
    this.session = session;
    this.sources = sources; // rows of the list, by name
    this.waiting = new Map(); // by id: frame, source, whether it is on its way
    this.bytes = 0;
    this.run = crypto.randomUUID();
    this.count = 0;
    this.tries = 0;
    this.pausedUntil = 0;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/v1/stream`, ["cloudevents.json", `bearer.${token}`]);
    this.socket.addEventListener("open", () => {
      this.tries = 0;
      connection("live", "Connected");
      this.flush();
    });
    this.socket.addEventListener("message", (message) => this.answered(JSON.parse(message.data)));
    this.socket.addEventListener("close", () => {
      for (const one of this.waiting.values()) one.sent = false;
      if (this.closed) return;
      const late = LATE_S[Math.min(this.tries, LATE_S.length - 1)];
      this.tries += 1;
      connection("lost", `Connection lost, again in ${late} s`);
      this.timer = setTimeout(() => this.open(), 1000 * late);
    });
  }

  // Send an event. kind: of its type; at: performance.now() of its start.
  add(source, kind, mediaType, payload, at) {
    const id = `${this.run}/${this.count}`;
    this.count += 1;
    const attributes = {
      specversion: "1.0",
      id,
      source: `/send/${encodeURIComponent(this.session)}`,
      type: kind === "end" ? "streamer.end.v1" : `streamer.${TYPES[kind]}.v1`,
      partitionkey: this.session,
      datacontenttype: mediaType,
      time: rfc3339(at),
    };
    if (source.sensor) attributes.sensor = source.sensor;
    const head = new TextEncoder().encode(JSON.stringify(attributes));
    const frame = new Uint8Array(4 + head.length + payload.byteLength);
    new DataView(frame.buffer).setUint32(0, head.length, false);
    frame.set(head, 4);
    frame.set(new Uint8Array(payload), 4 + head.length);
    if (frame.length > device.limits.message_bytes) {
      source.dropped += 1;
      return;
    }
    this.waiting.set(id, { frame, source, kind, sent: false });
    this.bytes += frame.length;
    this.bound();
    this.flush();
  }

  bound() {
    while (this.bytes > WAITING_BYTES) {
      const all = [...this.waiting];
      const [id, one] = all.find(([, entry]) => entry.kind === "image") ?? all[0];
      one.source.dropped += 1;
      this.forget(id);
    }
  }

  forget(id) {
    this.bytes -= this.waiting.get(id).frame.length;
    this.waiting.delete(id);
  }

  flush() {
    if (this.socket.readyState !== WebSocket.OPEN || now() < this.pausedUntil) return;
    for (const one of this.waiting.values()) {
      if (this.socket.bufferedAmount > BUFFERED_BYTES) break;
      if (!one.sent) {
        one.sent = true;
        this.socket.send(one.frame);
      }
    }
  }

  answered(answer) {
    const one = this.waiting.get(answer.id);
    if (!one) return; // it was dropped while it was on its way
    if (answer.status === 200) {
      one.source.acknowledged += 1;
      this.forget(answer.id);
    } else if (answer.status === 429 || answer.status === 503) {
      one.sent = false;
      this.pausedUntil = now() + 1000 * answer.retry_after_s;
      connection("lost", `${answer.detail}; again in ${answer.retry_after_s} s`);
      clearTimeout(this.retry);
      this.retry = setTimeout(() => {
        connection("live", "Connected");
        this.flush();
      }, 1000 * answer.retry_after_s);
    } else {
      one.source.refused += 1;
      one.source.note = answer.detail;
      this.forget(answer.id);
    }
    this.flush();
  }

  async close() {
    const deadline = now() + END_MS;
    while (this.waiting.size && now() < deadline) await pause(50);
    this.add({ acknowledged: 0, dropped: 0, refused: 0 }, "end", JSON_TYPE, new ArrayBuffer(0), now());
    while (this.waiting.size && now() < deadline + END_MS) await pause(50);
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    this.socket.close();
  }
}

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const encoded = (body) => new TextEncoder().encode(JSON.stringify(body)).buffer;

// what there is to send: each starts, and returns how it is stopped

async function camera(source, outbox) {
  const wanted = { facingMode: source.choice, width: { ideal: FRAME_WIDTH } };
  const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  $("view").hidden = false;
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  let on = true;
  let busy = false;
  let next = 0;
  const taken = (shown, metadata) => {
    if (!on) return;
    video.requestVideoFrameCallback(taken);
    if (busy || shown < next) return;
    next = Math.max(next + 1000 / FRAME_HZ, shown); // no burst after a pause
    // when the camera took it, where the browser knows; some count from another beginning
    const captured = metadata.captureTime ?? shown;
    const at = captured <= shown && shown - captured < 1000 ? captured : shown;
    const scale = Math.min(1, FRAME_WIDTH / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(scale * video.videoWidth);
    canvas.height = Math.round(scale * video.videoHeight);
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    busy = true;
    canvas.toBlob(async (jpeg) => {
      if (on && jpeg) outbox.add(source, "image", "image/jpeg", await jpeg.arrayBuffer(), at);
      busy = false;
    }, "image/jpeg", JPEG_QUALITY);
  };
  video.requestVideoFrameCallback(taken);
  return () => {
    on = false;
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    $("view").hidden = true;
  };
}

async function microphone(source, outbox) {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  let context = new AudioContext({ sampleRate: SOUND_HZ });
  let input;
  try {
    input = context.createMediaStreamSource(stream);
  } catch { // a browser that does not change rates
    await context.close();
    context = new AudioContext();
    input = context.createMediaStreamSource(stream);
  }
  await context.audioWorklet.addModule("/microphone.js");
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  const rate = context.sampleRate;
  let zeroMs = null; // performance.now() of the context's frame 0, by the chunk that came with the least delay
  node.port.addEventListener("message", ({ data: { end, pcm } }) => {
    const zero = now() - (1000 * end) / rate;
    if (zeroMs === null || zero < zeroMs || zero - zeroMs > JUMP_MS) zeroMs = zero;
    const start = end - pcm.byteLength / 2;
    outbox.add(source, "audio", `audio/L16;rate=${rate};channels=1`, pcm, zeroMs + (1000 * start) / rate);
  });
  node.port.start();
  input.connect(node);
  await context.resume();
  return () => {
    for (const track of stream.getTracks()) track.stop();
    context.close();
  };
}

// A block of samples; names of channels with their units, null where the device does not measure.
function block(samples, units) {
  const begin = samples[0].at;
  const channels = {};
  for (const [name, unit] of Object.entries(units)) {
    const values = samples.map((sample) => sample[name]);
    if (values.every((value) => Number.isFinite(value))) channels[name] = { unit, values };
  }
  return { channels, times: samples.map((sample) => (sample.at - begin) / 1000) };
}

const MOTION_UNITS = {
  accel_x: "m/s^2", accel_y: "m/s^2", accel_z: "m/s^2", gyro_x: "deg/s", gyro_y: "deg/s", gyro_z: "deg/s",
};

// Some browsers want to be asked, and that while they handle the click.
const askForMotion = () => DeviceMotionEvent.requestPermission?.() ?? "granted";

async function motion(source, outbox) {
  if ((await source.asked) !== "granted") throw new Error("motion was not allowed");
  let samples = [];
  const moved = (event) => {
    const last = samples.at(-1);
    if (last && event.timeStamp <= last.at) return;
    const { x, y, z } = event.accelerationIncludingGravity ?? {};
    const { beta, gamma, alpha } = event.rotationRate ?? {};
    samples.push({ at: event.timeStamp, accel_x: x, accel_y: y, accel_z: z, gyro_x: beta, gyro_y: gamma, gyro_z: alpha });
    if (event.timeStamp - samples[0].at >= MOTION_MS) {
      const body = block(samples, MOTION_UNITS);
      if (Object.keys(body.channels).length) outbox.add(source, "telemetry", JSON_TYPE, encoded(body), samples[0].at);
      samples = [];
    }
  };
  addEventListener("devicemotion", moved);
  return () => removeEventListener("devicemotion", moved);
}

const POSITION_UNITS = {
  latitude: "deg", longitude: "deg", accuracy: "m", altitude: "m", heading: "deg", speed: "m/s",
};

async function position(source, outbox) {
  const found = ({ coords, timestamp }) => {
    const at = Math.min(now(), timestamp - performance.timeOrigin);
    const { latitude, longitude, accuracy, altitude, heading, speed } = coords;
    const sample = { at, latitude, longitude, accuracy, altitude, heading, speed };
    outbox.add(source, "telemetry", JSON_TYPE, encoded(block([sample], POSITION_UNITS)), at);
  };
  const lost = (error) => { source.note = error.message; };
  const watch = navigator.geolocation.watchPosition(found, lost, { enableHighAccuracy: true });
  return () => navigator.geolocation.clearWatch(watch);
}

const Recognition = globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition;

async function words(source, outbox) {
  const recognition = new Recognition();
  recognition.continuous = true;
  recognition.interimResults = true;
  recognition.lang = navigator.language;
  let on = true;
  let begin = null; // of what is being said: when the browser first heard something of it
  recognition.addEventListener("speechstart", () => { begin ??= now(); });
  recognition.addEventListener("result", (event) => {
    begin ??= now();
    for (let i = event.resultIndex; i < event.results.length; i += 1) {
      const result = event.results[i];
      const text = result[0].transcript.trim();
      if (result.isFinal && text) {
        const body = { text, end: (now() - begin) / 1000, confidence: Math.min(1, Math.max(0, result[0].confidence)) };
        outbox.add(source, "text", JSON_TYPE, encoded(body), begin);
        begin = null;
      }
    }
  });
  recognition.addEventListener("error", (event) => { source.note = `the recogniser: ${event.error}`; });
  recognition.addEventListener("end", () => {
    begin = null;
    if (on) setTimeout(() => { if (on) recognition.start(); }, 1000); // browsers end it after a silence
  });
  recognition.start();
  return () => {
    on = false;
    recognition.stop();
  };
}

const SOURCES = [
  { name: "Camera", kind: "image", start: camera, there: () => !!navigator.mediaDevices, on: true },
  { name: "Microphone", kind: "audio", start: microphone, there: () => !!navigator.mediaDevices, on: true },
  { name: "Motion", kind: "telemetry", named: ["motion", "imu"], start: motion, ask: askForMotion, there: () => "DeviceMotionEvent" in window },
  { name: "Position", kind: "telemetry", named: ["position", "gps"], start: position, there: () => !!navigator.geolocation },
  { name: "Words", kind: "text", start: words, there: () => !!Recognition, hint: "the browser may send the sound to its maker" },
];

// the list

function select(label, values, chosen) {
  const made = document.createElement("select");
  made.setAttribute("aria-label", label);
  for (const [value, text] of values) made.add(new Option(text, value, false, value === chosen));
  return made;
}

function row(source) {
  const item = document.createElement("li");
  const line = document.createElement("div");
  line.className = "row";
  const label = document.createElement("label");
  source.box = document.createElement("input");
  source.box.type = "checkbox";
  label.append(source.box, source.name);
  line.append(label);
  source.state = document.createElement("p");
  const sensors = device.sensors.filter(({ kind }) => kind === source.kind).map(({ name }) => name);
  const usable = source.there() && isSecureContext && sensors.length > 0;
  source.box.disabled = !usable;
  source.box.dataset.never = String(!usable);
  source.box.checked = usable && !!source.on;
  if (!usable) {
    source.state.textContent = sensors.length ? "not in this browser" : `no sensor of kind ${source.kind} is declared`;
  } else {
    source.state.textContent = source.hint ?? "";
  }
  if (source.start === camera) {
    source.facing = select("Which camera", [["environment", "back"], ["user", "front"]], "environment");
    line.append(source.facing);
  }
  if (sensors.length > 1) {
    const chosen = sensors.find((name) => source.named?.includes(name)) ?? sensors[0];
    source.sensors = select(`Sensor of ${source.name}`, sensors.map((name) => [name, name]), chosen);
    line.append(source.sensors);
  } else {
    [source.sensor] = sensors;
  }
  item.append(line, source.state);
  return item;
}

function show(outbox) {
  for (const source of SOURCES.filter(({ stop }) => stop)) {
    const parts = [`${source.acknowledged} in Kafka`];
    if (source.dropped) parts.push(`${source.dropped} dropped`);
    if (source.refused) parts.push(`${source.refused} refused`);
    if (source.note) parts.push(source.note);
    source.state.textContent = parts.join(" · ");
    source.state.classList.toggle("bad", !!(source.refused || source.note));
  }
  const size = outbox.bytes < 1e6 ? `${Math.ceil(outbox.bytes / 1000)} kB` : `${(outbox.bytes / 1e6).toFixed(1)} MB`;
  $("waiting").textContent = outbox.waiting.size ? `${outbox.waiting.size} events, ${size}` : "nothing";
}

// start and stop

async function start() {
  const chosen = SOURCES.filter(({ box }) => box.checked);
  if (!chosen.length) {
    problem("Choose something to send.");
    return;
  }
  problem("");
  for (const source of chosen) source.asked = source.ask?.();
  await measure();
  const outbox = new Outbox($("session").value, chosen);
  running = { outbox, timers: [] };
  for (const source of chosen) {
    Object.assign(source, { acknowledged: 0, dropped: 0, refused: 0, note: "" });
    source.sensor = source.sensors?.value ?? source.sensor;
    source.choice = source.facing?.value;
    try {
      source.stop = await source.start(source, outbox);
    } catch (error) {
      source.note = error.message || error.name; // not allowed, not there, or in use
      source.stop = () => {};
    }
  }
  running.timers.push(setInterval(() => { outbox.flush(); show(outbox); }, 250));
  const unseen = () => { $("clock").textContent = "the gateway's cannot be seen now"; };
  running.timers.push(setInterval(() => measure().catch(unseen), CLOCK_MS));
  running.awake = await navigator.wakeLock?.request("screen").catch(() => null); // else the screen goes dark, and the camera off
}

async function stop() {
  const { outbox, timers, awake } = running;
  for (const source of SOURCES.filter(({ stop: own }) => own)) source.stop();
  connection("wait", "Finishing");
  await outbox.close();
  timers.forEach(clearInterval);
  show(outbox);
  for (const source of SOURCES) source.stop = null;
  await awake?.release();
  running = null;
  connection("wait", outbox.waiting.size ? `Stopped: ${outbox.waiting.size} ${outbox.waiting.size === 1 ? "event was" : "events were"} not taken` : "Stopped: all is in Kafka");
}

async function main() {
  const answer = await fetch("/v1/device", { headers: { Authorization: `Bearer ${token}` } });
  if (answer.status === 401) {
    connection("lost", "No access");
    problem(token ? "The token of this link is not valid, or not any more." : "Open this page by a link with a token: …/send#TOKEN");
    return;
  }
  device = await answer.json();
  if (!isSecureContext) problem("A browser gives camera and microphone to pages by https: or on localhost alone.");
  for (const session of device.sessions) $("session").add(new Option(session));
  $("sources").replaceChildren(...SOURCES.map(row));
  connection("wait", "Ready");
  for (const id of ["form", "facts"]) $(id).hidden = false;
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("go");
    button.disabled = true;
    try {
      await (running ? stop() : start());
    } catch (error) {
      problem(error.message);
    }
    button.disabled = false;
    button.dataset.state = running ? "on" : "off";
    button.textContent = running ? "Stop" : "Start sending";
    for (const control of $("form").querySelectorAll("input, select")) {
      control.disabled = !!running || control.dataset.never === "true";
    }
  });
}

main().catch((error) => {
  connection("lost", "No connection");
  problem(`The gateway does not answer: ${error.message}`);
});
