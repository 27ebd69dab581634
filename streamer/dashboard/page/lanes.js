// Lanes: each has a label, a strip of canvas and its newest value.

import { loaded, segments } from "./contents.js";
import { $, clock, element, milliseconds, number, setText } from "./dom.js";
import { had, names, SPAN_US, state } from "./state.js";

const MAX_LANES = 8; // score lanes of one head, and telemetry lanes of one sensor
const SEVERE = { notice: "notice", warning: "warn", alarm: "bad" };
const CLOSED = { complete: "C", deadline: "D", end: "E", memory: "M" };

let lanes = [];
let drawn = false; // a drawing is due

export function forgetLanes() {
  lanes = [];
  $("lanes").replaceChildren();
}

export function draw() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    if (state.results.length) drawLanes();
  });
}

function wanted() {
  const newest = state.results.at(-1);
  const found = [];
  const many = Object.keys(newest.outputs).length > 1;
  const heads = state.results.findLast((result) => Object.keys(result.outputs).length)?.outputs ?? {};
  for (const [head, output] of Object.entries(heads)) {
    if (typeof output.value === "number") {
      const unit = output.unit ? ` (${output.unit})` : "";
      found.push({ key: `value ${head}`, label: `${head}${unit}`, height: 24, first: true, draw: (pen) => drawValue(pen, head) });
    }
    const labels = Object.keys(output.scores ?? {});
    labels.slice(0, MAX_LANES).forEach((label, index) => {
      const spec = { key: `score ${head} ${label}`, label: many ? `${head}: ${label}` : label, height: 18 };
      found.push({ ...spec, first: index === 0, draw: (pen) => drawScore(pen, head, label) });
    });
  }
  const heard = had("audio");
  (heard.length ? heard : ["audio"]).forEach((name, index) => {
    const height = heard.length > 1 ? 32 : 48;
    found.push({ key: `sound ${name}`, label: name, height, first: index === 0, draw: (pen) => drawSound(pen, name) });
  });
  const worded = had("text");
  for (const name of worded.length > 1 ? worded : [null]) {
    found.push({ key: `words ${name}`, label: name ?? "transcript", height: 14, draw: (pen) => drawWords(pen, name) });
  }
  const measured = had("telemetry");
  for (const sensor of measured) {
    const channels = new Map();
    for (const content of loaded()) {
      for (const [name, { unit }] of Object.entries(content.telemetry[sensor] ?? {})) channels.set(name, unit);
    }
    for (const [name, unit] of [...channels].sort().slice(0, MAX_LANES)) {
      const label = measured.length > 1 ? `${sensor} ${name}` : name;
      found.push({ key: `telemetry ${sensor} ${name}`, label, height: 24, draw: (pen) => drawSignal(pen, sensor, name, unit) });
    }
  }
  names().forEach((name, index) => {
    found.push({ key: `cover ${name}`, label: `has ${name}`, height: 16, first: index === 0, draw: (pen) => drawCover(pen, name) });
  });
  found.push({ key: "closed", label: "closed by", height: 18, draw: drawClosed });
  found.push({ key: "latency", label: "latency", height: 22, draw: drawLatency });
  found.push({ key: "axis", label: "", height: 18, draw: drawAxis });
  return found;
}

function drawLanes() {
  const specs = wanted();
  if (specs.map((spec) => spec.key).join("\n") !== lanes.map((lane) => lane.key).join("\n")) {
    const old = new Map(lanes.map((lane) => [lane.key, lane]));
    lanes = specs.map((spec) => old.get(spec.key) ?? lane(spec));
    $("lanes").replaceChildren(...lanes.map((one) => one.row));
  }
  const styles = getComputedStyle(document.body);
  const colours = new Map();
  const colour = (name) => {
    if (!colours.has(name)) colours.set(name, styles.getPropertyValue(`--${name}`).trim());
    return colours.get(name);
  };
  const end_us = state.results.at(-1).end_us;
  // Everything is drawn for a rem of 16 px. The strips are as wide as each other, and measured once: after a change of
  // the document each measurement would lay it out again.
  const zoom = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
  const ratio = (window.devicePixelRatio || 1) * zoom;
  const width = lanes[0].canvas.clientWidth / zoom;
  specs.forEach((spec, index) => {
    const { canvas, value } = lanes[index];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(spec.height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(spec.height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, spec.height);
    context.font = `11px ${styles.fontFamily}`;
    context.textBaseline = "middle";
    const x = (us) => width * (1 - (end_us - us) / SPAN_US);
    const said = spec.draw({ context, colour, x, width, height: spec.height, value, ratio }) ?? "";
    setText(value, said);
    const told = `${spec.label || "time"}: ${said || "see the newest values"}`;
    if (canvas.getAttribute("aria-label") !== told) canvas.setAttribute("aria-label", told);
  });
}

function lane(spec) {
  const canvas = element("canvas");
  canvas.style.height = `${spec.height / 16}rem`;
  canvas.setAttribute("role", "img");
  const value = element("span", { className: "value" });
  const label = element("span", { className: "label", textContent: spec.label, title: spec.label });
  const row = element("div", { className: spec.first ? "lane first" : "lane" }, label, canvas, value);
  return { key: spec.key, canvas, value, row };
}

// Bars of the windows; a hop shorter than the window leaves each the part that the next one does not cover.
function bars(pen, share, fill) {
  const { context, x, height } = pen;
  state.results.forEach((result, index) => {
    const left = x(result.start_us);
    const right = Math.min(x(result.end_us), index + 1 < state.results.length ? x(state.results[index + 1].start_us) : Infinity);
    const part = share(result);
    if (part === null) return;
    context.fillStyle = fill(result);
    const tall = Math.max(part > 0 ? 1 : 0, part * (height - 3));
    context.fillRect(left, height - 1 - tall, Math.max(1, right - left - 1), tall);
  });
}

function floor(pen) {
  pen.context.fillStyle = pen.colour("line");
  pen.context.fillRect(0, pen.height - 1, pen.width, 1);
}

function drawScore(pen, head, label) {
  floor(pen);
  const score = (result) => result.outputs[head]?.scores?.[label] ?? null;
  const said = (output) => output?.label === label || (output?.labels?.includes(label) ?? false);
  bars(pen, score, (result) => pen.colour(said(result.outputs[head]) ? decided(result.outputs[head]) : "fill"));
  const newest = score(state.results.at(-1));
  pen.value.classList.toggle("now", said(state.results.at(-1).outputs[head]));
  return newest === null ? "–" : newest.toFixed(2);
}

// The colour of a decision; of tags nothing says which of them is as severe as the output.
function decided(output) {
  return output.label !== undefined && !output.unsure ? (SEVERE[output.severity] ?? "accent") : "accent";
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

// level -> colour: from the background through the accent to the colour of text
function palette(pen) {
  const stops = ["track", "accent", "text"].map((name) => rgb(pen.colour(name)));
  return Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * 2;
    const [from, to] = place < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
    return from.map((part, index) => Math.round(part + (to[index] - part) * (place % 1 || (level === 255 ? 1 : 0))));
  });
}

function tile({ columns, bands, levels }, colours) {
  const picture = new ImageData(columns, bands);
  levels.forEach((level, at) => {
    const row = bands - 1 - (at % bands); // the lowest band is at the bottom
    picture.data.set([...colours[level], 255], 4 * (row * columns + Math.floor(at / bands)));
  });
  const made = new OffscreenCanvas(columns, bands);
  made.getContext("2d").putImageData(picture, 0, 0);
  return made;
}

function drawSound(pen, name) {
  const { context, x, width, height } = pen;
  context.fillStyle = pen.colour("track");
  context.fillRect(0, 0, width, height);
  const theme = pen.colour("ground");
  for (const content of loaded()) {
    const sound = content.audio[name];
    if (!sound) continue;
    if (sound.theme !== theme) Object.assign(sound, { theme, tile: tile(sound, palette(pen)) });
    context.drawImage(sound.tile, x(content.start_us), 0, x(content.end_us) - x(content.start_us), height);
  }
  const newest = loaded().at(-1)?.audio[name];
  return newest && newest.peak_dbfs !== null ? `${newest.peak_dbfs.toFixed(0)} dBFS` : "–";
}

// of one sensor; null: of all
function drawWords(pen, name) {
  const { context, x, height } = pen;
  floor(pen);
  const spoken = segments().filter((segment) => name === null || segment.sensor === name);
  context.fillStyle = pen.colour("fill");
  for (const segment of spoken) {
    const left = x(segment.start_us);
    context.fillRect(left, 3, Math.max(2, x(segment.end_us) - left - 1), height - 6);
  }
  return spoken.length ? `${spoken.length} said` : "–";
}

function drawSignal(pen, sensor, name, unit) {
  const times = [];
  const values = [];
  for (const content of loaded()) {
    const signal = content.telemetry[sensor]?.[name];
    signal?.times_us.forEach((time, index) => {
      if (times.length && time <= times.at(-1)) return; // windows overlap where the hop is shorter
      times.push(time);
      values.push(signal.values[index]);
    });
  }
  return curve(pen, times, values, 1e6, unit);
}

// What an output of kind number said, each at its window's end.
function drawValue(pen, head) {
  const shown = state.results.filter((result) => typeof result.outputs[head]?.value === "number");
  const newest = shown.at(-1);
  const values = shown.map((result) => result.outputs[head].value);
  const span_us = newest ? newest.end_us - newest.start_us : 0;
  return curve(pen, shown.map((result) => result.end_us), values, 1.5 * span_us, newest?.outputs[head].unit ?? "");
}

// A line through values, interrupted by gaps longer than gap_us.
function curve(pen, times, values, gap_us, unit) {
  const { context, x, height } = pen;
  floor(pen);
  if (!values.length) return "–";
  const low = values.reduce((one, other) => Math.min(one, other));
  const high = values.reduce((one, other) => Math.max(one, other));
  const y = (value) => (high > low ? 2 + (height - 5) * (1 - (value - low) / (high - low)) : height / 2);
  context.strokeStyle = pen.colour("accent");
  context.lineWidth = 1.25;
  context.beginPath();
  times.forEach((time, index) => {
    const gap = index === 0 || time - times[index - 1] > gap_us;
    context[gap ? "moveTo" : "lineTo"](x(time), y(values[index]));
  });
  context.stroke();
  return `${number(values.at(-1))} ${unit}`.trim();
}

function drawCover(pen, name) {
  floor(pen);
  const { context, x, height } = pen;
  bars(pen, (result) => (result.present.includes(name) ? (result.coverage[name] ?? 0) : null), () => pen.colour("fill"));
  context.fillStyle = pen.colour("muted");
  for (const result of state.results) {
    if (result.present.includes(name)) continue;
    context.beginPath();
    context.arc((x(result.start_us) + x(result.end_us)) / 2, height / 2, 1.2, 0, 7);
    context.fill();
  }
  const newest = state.results.at(-1);
  return newest.present.includes(name) ? `${Math.round(100 * (newest.coverage[name] ?? 0))} %` : "absent";
}

function drawClosed(pen) {
  const { context, x, height } = pen;
  context.textAlign = "center";
  let free = -Infinity; // letters must not overlap
  for (const result of state.results) {
    const middle = (x(result.start_us) + x(result.end_us)) / 2;
    if (middle - free < 7 || middle < 4) continue;
    free = middle;
    context.fillStyle = pen.colour({ deadline: "warn", memory: "bad" }[result.closed_by] ?? "muted");
    context.fillText(CLOSED[result.closed_by] ?? "?", middle, height / 2);
  }
  context.textAlign = "start";
  return state.results.at(-1).closed_by;
}

function drawLatency(pen) {
  floor(pen);
  const most = Math.max(...state.results.map((result) => result.latencies_us.total ?? 0), 1);
  bars(pen, (result) => (result.latencies_us.total ?? 0) / most, () => pen.colour("fill"));
  return milliseconds(state.results.at(-1).latencies_us.total);
}

function drawAxis(pen) {
  const { context, x, width, height } = pen;
  const end_us = state.results.at(-1).end_us;
  const step = width < 420 ? 20e6 : 10e6;
  context.fillStyle = pen.colour("muted");
  for (let time = Math.ceil((end_us - SPAN_US) / step) * step; time <= end_us; time += step) {
    const at = x(time);
    const half = context.measureText("00:00:00").width / 2;
    context.fillRect(Math.min(at, width - 1), 0, 1, 3);
    if (at < half || at > width - half) continue;
    context.textAlign = "center";
    context.fillText(clock(time), at, height / 2 + 3);
  }
  context.textAlign = "start";
  return "";
}
