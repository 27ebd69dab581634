"use strict";

// The page: a list of sessions, and one of them whole.
//
// Names, labels and transcripts come from producers and models: they reach the document as textContent or as text on a
// canvas, never as HTML. Times are microseconds of event time (…_us) or milliseconds of this browser's clock (…_ms).

const SPAN_US = 60e6; // what the lanes show
const READS = 2; // windows that are read at once
const RETRY_MS = 3000;
const DRIFTS_EVERY_MS = 15_000; // a worker reports every 10 s
const MAX_LANES = 8; // score lanes of one head, and telemetry lanes of one sensor
const MAX_COLUMNS = 4; // of cameras
const CLOSED = { complete: "C", deadline: "D", end: "E", memory: "M" };

const $ = (id) => document.getElementById(id);

const sessions = new Map(); // name -> { ...summary, heard_ms }
let kinds = new Map(); // declared sensor -> its kind: first those that there are, in the order of results
let gap_s = 10; // silence after which a session is no longer live
let chosen = null; // name of the session that is shown
let at_us = null; // end of the window that is shown; null: always the newest
let results = []; // of the chosen session within the span, oldest first
let first = null; // its newest early result, of a window that has not closed
let contents = new Map(); // end_us -> content of that window; null: being read; false: cannot be read
let reading = 0;
let seen = new Set(); // sensors that the chosen session has had
let cameras = new Map(); // sensor -> its figure and what it shows
let stream = null;
let lanes = [];
let asked = false; // the server has answered with its sessions
let drawn = false; // a drawing is due

// small helpers

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function clock(us) {
  return new Date(us / 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

function date(us) {
  return new Date(us / 1000).toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" });
}

function ago(seconds) {
  if (seconds === null) return "";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function number(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

async function ask(path, parameters = {}, options = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, options);
  if (answer.status === 401) location.reload();
  if (!answer.ok) {
    const why = await answer.json().catch(() => ({}));
    throw new Error(why.error ?? `${path}: ${answer.status}`);
  }
  return answer.json();
}

// the list of sessions

function age(summary) {
  return summary.age_s === null ? null : summary.age_s + (performance.now() - summary.heard_ms) / 1000;
}

function health(summary) {
  if (summary.status !== "ok") return summary.status;
  if (summary.closed_by === "end") return "ended";
  const seconds = age(summary);
  return seconds !== null && seconds < gap_s ? "live" : "quiet";
}

function isLive(summary) {
  const seconds = age(summary);
  return seconds !== null && seconds < gap_s && summary.closed_by !== "end";
}

// Live ones by name, so that they keep their places; then the others, by newest result.
function order(one, other) {
  if (isLive(one) !== isLive(other)) return isLive(one) ? -1 : 1;
  if (isLive(one)) return one.session.localeCompare(other.session, undefined, { numeric: true });
  return (age(one) ?? Infinity) - (age(other) ?? Infinity) || other.end_us - one.end_us;
}

const items = new Map(); // name -> the item's nodes

function item(name) {
  if (!items.has(name)) {
    const parts = {
      name: element("span", { className: "name", title: name }),
      age: element("span", { className: "age" }),
      said: element("span", { className: "said" }),
      health: element("span", { className: "health" }),
    };
    const link = element("a", { href: address(name) }, parts.name, parts.age, parts.said, parts.health);
    items.set(name, { ...parts, link, li: element("li", {}, link) });
    parts.name.textContent = name;
  }
  return items.get(name);
}

function showSessions() {
  const ordered = [...sessions.values()].sort(order);
  const list = $("sessions");
  for (const [name, nodes] of items) {
    if (!sessions.has(name)) {
      nodes.li.remove();
      items.delete(name);
    }
  }
  ordered.forEach((summary, index) => {
    const nodes = item(summary.session);
    const state = health(summary);
    setText(nodes.age, ago(age(summary)));
    setText(nodes.said, summary.score === null ? summary.label : `${summary.label} ${summary.score.toFixed(2)}`);
    setText(nodes.health, state);
    nodes.health.dataset.health = state;
    nodes.link.setAttribute("aria-current", String(summary.session === chosen));
    // moving a node takes its focus away, so only misplaced nodes move
    if (list.children[index] !== nodes.li) list.insertBefore(nodes.li, list.children[index] ?? null);
  });
  const live = ordered.filter(isLive).length;
  setText($("totals"), ordered.length ? `${ordered.length} session${ordered.length > 1 ? "s" : ""}, ${live} live` : "");
  const summary = sessions.get(chosen);
  if (summary) {
    $("state").dataset.health = health(summary);
    setText($("state"), health(summary));
    const seconds = age(summary);
    const live = seconds === null ? "" : `last result ${ago(seconds)} ago`;
    setText($("when"), at_us === null ? live : `window that ended ${date(at_us)} ${clock(at_us)}`);
  }
  showEmpty();
}

function showEmpty() {
  const missing = chosen !== null && !sessions.has(chosen) && !results.length;
  $("empty").hidden = !asked || (sessions.size > 0 && !missing);
  $("session").hidden = !asked || chosen === null || missing;
  setText($("empty-title"), missing ? `Nothing of ${chosen}` : "No sessions yet");
  setText(
    $("empty-text"),
    missing
      ? "Redis has no results of this session. It appears here with its first result."
      : "As soon as a worker publishes a result, its session appears here.",
  );
  $("empty-how").hidden = missing;
}

function take(summary) {
  sessions.set(summary.session, { ...summary, heard_ms: performance.now() });
}

// the chosen session

function choose(name, end_us = null) {
  chosen = name;
  at_us = end_us;
  results = [];
  first = null;
  contents = new Map();
  seen = new Set();
  cameras = new Map();
  lanes = [];
  $("lanes").replaceChildren();
  showCameras();
  setText($("name"), name ?? "");
  $("heads").replaceChildren();
  $("description").hidden = $("provisional").hidden = true;
  showDrifts([]);
  for (const id of ["fact-window", "fact-closed", "fact-latency", "fact-model", "state", "when"]) setText($(id), "");
  $("back").hidden = end_us === null;
  $("back").href = address(name);
  showChosenHit();
  document.title = name === null ? "streamer" : `${name} · streamer`;
  forgetSpeech();
  showWords();
  showSessions();
  listen();
}

function address(name, end_us = null) {
  return `#session=${encodeURIComponent(name)}${end_us === null ? "" : `&at=${end_us}`}`;
}

// The session that the address names, and a window of it that a search found.
function fromAddress() {
  const [, name, end_us] = location.hash.match(/^#session=([^&]+)(?:&at=(\d{1,16}))?$/) ?? [];
  try {
    return name === undefined ? [null] : [decodeURIComponent(name), end_us === undefined ? null : Number(end_us)];
  } catch {
    return [null];
  }
}

async function catchUp() {
  const name = chosen;
  try {
    const found = await ask("/api/sessions");
    gap_s = found.gap_s;
    kinds = new Map(found.sensors.map(({ name, kind }) => [name, kind]));
    $("search").hidden = !found.search;
    asked = true;
    sessions.clear();
    found.sessions.forEach(take);
    if (chosen === null && sessions.size) {
      choose([...sessions.values()].sort(order)[0].session);
      return;
    }
    showSessions();
    if (name === null || name !== chosen) return;
    readDrifts();
    const newest = at_us ?? sessions.get(name)?.end_us ?? 0;
    // all of the span: a result that came by the stream says nothing of those before it
    const since = Math.max(0, newest - SPAN_US);
    const until = at_us === null ? {} : { until: at_us };
    add(name, await ask("/api/results", { session: name, since, ...until }));
    const description = await ask("/api/description", { session: name, ...until });
    if (description) showDescription(description);
  } catch (error) {
    console.warn(error.message);
    setTimeout(() => name === chosen && catchUp(), RETRY_MS);
  }
}

function add(name, more) {
  if (name !== chosen || !more.length) return;
  const known = new Set(results.map((result) => result.end_us));
  const wanted = more.filter((result) => !known.has(result.end_us) && (at_us === null || result.end_us <= at_us));
  if (!wanted.length) return;
  results.push(...wanted);
  results.sort((one, other) => one.end_us - other.end_us);
  const from_us = results.at(-1).end_us - SPAN_US;
  results = results.filter((result) => result.end_us > from_us);
  for (const end_us of contents.keys()) if (end_us <= from_us) contents.delete(end_us);
  for (const result of results) result.present.forEach((name) => seen.add(name));
  showDecision(newest());
  showEmpty();
  showCameras();
  readFrames();
  readContents();
  draw();
}

// classes, tags with or without counts, a number or words, as text
function saying(output) {
  if (typeof output.text === "string") return output.text;
  if (output.labels) {
    const counted = (label) => (output.counts?.[label] > 1 ? `${output.counts[label]} × ${label}` : label);
    return output.labels.map(counted).join(", ") || "–";
  }
  if (typeof output.value === "number") return `${number(output.value)} ${output.unit}`.trim();
  return String(output.label);
}

// sensors whose clocks drift away from the session's others, as its worker reports them now
async function readDrifts() {
  const name = chosen;
  if (name === null || document.hidden) return;
  try {
    const found = await ask("/api/drifts", { session: name });
    if (name === chosen) showDrifts(found);
  } catch (error) {
    console.warn(error.message);
  }
}

function showDrifts(drifts) {
  $("drifts").hidden = !drifts.length;
  $("drifts").replaceChildren(
    ...drifts.map(({ sensor, ppm, left_s }) => {
      const left = left_s < 120 ? `${Math.round(left_s)} s` : `${Math.round(left_s / 60)} min`;
      const fate = left_s > 0 ? `in ${left} windows lose members` : "windows lose members";
      const side = ppm > 0 ? "slow" : "fast";
      return element("li", { textContent: `The clock of ${sensor} is ${side} by ${Math.round(Math.abs(ppm))} ppm: ${fate}.` });
    }),
  );
}

// what the window shows in words, as `streamer describe` has it; newer ones replace older ones
function showDescription(description) {
  if (description.session !== chosen || (at_us !== null && description.end_us > at_us)) return;
  const node = $("description");
  if (!node.hidden && description.end_us < Number(node.dataset.end_us)) return;
  node.hidden = false;
  node.dataset.end_us = description.end_us;
  setText(node, description.text);
  const by = description.by === "outputs" ? "made from the outputs and the words" : `by ${description.by}`;
  node.title = `${clock(description.start_us)}, ${by}${description.note ? `; ${description.note}` : ""}`;
}

// of the newest window: an early result is shown in the decision alone, and marked as provisional
function newest() {
  const last = results.at(-1);
  return first && at_us === null && !(last?.end_us >= first.end_us) ? first : last;
}

function showDecision(result) {
  $("provisional").hidden = result.final !== false;
  const all = Object.entries(result.outputs);
  const short = all.filter(([, output]) => output.text === undefined); // the description has the words
  const heads = short.length ? short : all;
  const box = $("heads");
  while (box.children.length > Math.max(1, heads.length)) box.lastChild.remove();
  while (box.children.length < Math.max(1, heads.length)) {
    const score = element("div", { className: "score" }, element("meter", { max: 1 }), element("span"));
    box.append(
      element("div", { className: "head" }, element("p", { className: "what" }), element("p", { className: "label" }), score),
    );
  }
  const why = result.status === "empty" ? "nothing that the model takes" : "the model failed on this window";
  const shown = heads.length ? heads : [[why, { label: result.status, score: null }]];
  shown.forEach(([name, output], index) => {
    const [what, label, score] = box.children[index].children;
    const [meter, value] = score.children;
    setText(what, name);
    setText(label, `${saying(output)}${output.unsure ? "?" : ""}`);
    label.classList.toggle("bad", !heads.length);
    label.classList.toggle("unsure", Boolean(output.unsure));
    label.title = output.unsure ? "The model is unsure: this is not to be acted on" : "";
    score.hidden = typeof output.score !== "number";
    if (score.hidden) return;
    meter.value = output.score;
    meter.setAttribute("aria-label", `score of ${saying(output)}`);
    setText(value, output.score.toFixed(2));
  });
  const strange = Object.entries(result.novelty ?? {}).filter(([, far]) => far > 1).map(([name]) => name);
  $("strange").hidden = !strange.length;
  setText($("strange"), `The model has met nothing like this: ${strange.join(", ")}`);
  setText($("fact-window"), `${clock(result.start_us)}, ${(result.end_us - result.start_us) / 1e6} s`);
  const partial = result.status === "partial" ? ", data may be missing" : "";
  setText($("fact-closed"), `${result.closed_by}${partial}`);
  setText($("fact-latency"), milliseconds(result.latencies_us.total));
  $("fact-latency").title = Object.entries(result.latencies_us).map(([stage, us]) => `${stage} ${milliseconds(us)}`).join(", ");
  setText($("fact-model"), `${result.model} ${result.version}`);
  $("fact-model").title = `${result.model} ${result.version}`;
}

function milliseconds(us) {
  return us === undefined ? "" : `${Math.round(us / 1000)} ms`;
}

// sensors, by the newest window first: a change of the settings leaves those of before behind
function names() {
  const found = results.toReversed().flatMap((result) => Object.keys(result.coverage));
  return [...new Set(found.length ? found : kinds.keys())];
}

// those of a kind that the session has had
function had(kind) {
  return names().filter((name) => kinds.get(name) === kind && seen.has(name));
}

// cameras: a picture each; of one, one frame is loaded at a time, so a slow connection shows fewer frames, never older

function camera(name) {
  const image = element("img", { alt: "", hidden: true });
  const missing = element("p", { className: "muted", textContent: "No frame yet" });
  const picture = element("button", { type: "button", className: "picture" }, image, missing);
  const title = element("span", { className: "camera-name", textContent: name });
  const caption = element("span", { textContent: "\u00a0" });
  const figure = element("figure", { className: "panel frame" }, picture, element("figcaption", { className: "muted small" }, title, caption));
  figure.dataset.sensor = name;
  picture.setAttribute("aria-label", `Enlarge ${name}`);
  picture.setAttribute("aria-pressed", "false");
  picture.addEventListener("click", () => {
    const large = figure.classList.toggle("large");
    picture.setAttribute("aria-pressed", String(large));
    for (const other of cameras.values()) {
      if (other.figure === figure) continue;
      other.figure.classList.remove("large");
      other.picture.setAttribute("aria-pressed", "false");
    }
  });
  return { figure, picture, image, missing, caption, shown_us: 0, loading: false };
}

function showCameras() {
  const found = had("image");
  const shown = found.length ? found : [names().find((name) => kinds.get(name) === "image") ?? "camera"];
  const before = [...cameras.keys()].join(" ");
  if (before !== shown.join(" ")) {
    cameras = new Map(shown.map((name) => [name, cameras.get(name) ?? camera(name)]));
    $("cameras").replaceChildren(...[...cameras.values()].map((one) => one.figure));
    $("top").classList.toggle("many", shown.length > 1);
    const rows = Math.ceil(shown.length / MAX_COLUMNS);
    $("cameras").style.setProperty("--columns", Math.ceil(shown.length / rows)); // rows that are as full as each other, nearly
  }
  const newest = results.at(-1);
  for (const [name, { figure }] of cameras) figure.classList.toggle("gone", Boolean(newest) && !newest.present.includes(name));
}

function readFrames() {
  for (const [name, one] of cameras) readFrame(name, one);
}

function readFrame(name, one) {
  const newest = results.findLast((result) => result.present.includes(name));
  if (!newest) {
    setText(one.missing, "No camera in the last minute");
    return;
  }
  const silent_us = results.at(-1).end_us - newest.end_us;
  if (silent_us > 0 && newest.end_us === one.shown_us) setText(one.caption, `${clock(newest.start_us)}, absent for ${ago(silent_us / 1e6)}`);
  if (one.loading || newest.end_us === one.shown_us || document.hidden) return;
  const image = new Image();
  const done = () => {
    one.loading = false;
    one.shown_us = newest.end_us;
    if (cameras.get(name) === one) readFrame(name, one);
  };
  one.loading = true;
  image.onload = () => {
    image.alt = `${name} of ${chosen} at ${clock(newest.end_us)}`;
    one.image.replaceWith(image);
    one.image = image;
    one.missing.hidden = true;
    setText(one.caption, `${clock(newest.start_us)}   ${image.naturalWidth} × ${image.naturalHeight}`);
    done();
  };
  image.onerror = () => {
    one.image.hidden = true;
    one.missing.hidden = false;
    setText(one.missing, "Kafka no longer has this frame");
    setText(one.caption, clock(newest.start_us));
    done();
  };
  image.src = `/api/frame?${new URLSearchParams({ session: chosen, end_us: newest.end_us, sensor: name })}`;
}

// sound, words and telemetry of the windows, newest first

function readContents() {
  if (document.hidden) return;
  while (reading < READS) {
    const next = results.findLast((result) => !contents.has(result.end_us));
    if (!next) return;
    const mine = contents;
    mine.set(next.end_us, null);
    reading += 1;
    ask("/api/window", { session: chosen, end_us: next.end_us })
      .then((content) => {
        for (const sound of Object.values(content.audio)) sound.levels = Uint8Array.from(atob(sound.levels), (char) => char.charCodeAt(0));
        mine.set(next.end_us, content);
      })
      .catch(() => mine.set(next.end_us, false))
      .finally(() => {
        reading -= 1;
        if (mine === contents) {
          showWords();
          draw();
        }
        readContents();
      });
  }
}

function loaded() {
  return results.map((result) => contents.get(result.end_us)).filter(Boolean);
}

// A segment is in every window that it overlaps, and is shown once.
function segments() {
  const found = new Map();
  for (const content of loaded()) {
    for (const segment of content.transcripts) found.set(`${segment.start_us} ${segment.sensor} ${segment.text}`, segment);
  }
  return [...found.values()].sort((one, other) => other.start_us - one.start_us);
}

function showWords() {
  const list = $("words");
  const spoken = segments();
  const several = had("text").length > 1;
  const keys = spoken.map((segment) => `${segment.start_us} ${several ? segment.sensor : ""} ${segment.text}`);
  if (keys.join("\n") !== list.dataset.keys) {
    list.dataset.keys = keys.join("\n");
    list.replaceChildren(
      ...spoken.map((segment) =>
        element(
          "li",
          {},
          element("time", { textContent: clock(segment.start_us) }),
          element("span", { textContent: segment.text }),
          ...(several ? [element("span", { className: "muted small said-by", textContent: segment.sensor })] : []),
        ),
      ),
    );
  }
  $("no-words").hidden = spoken.length > 0;
}

// lanes: each has a label, a strip of canvas and its newest value

function draw() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    if (results.length) drawLanes();
  });
}

function wanted() {
  const newest = results.at(-1);
  const found = [];
  const many = Object.keys(newest.outputs).length > 1;
  const heads = results.findLast((result) => Object.keys(result.outputs).length)?.outputs ?? {};
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
  const colour = (name) => styles.getPropertyValue(`--${name}`).trim();
  const end_us = results.at(-1).end_us;
  specs.forEach((spec, index) => {
    const { canvas, value } = lanes[index];
    const width = canvas.clientWidth;
    const ratio = window.devicePixelRatio || 1;
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
    canvas.setAttribute("aria-label", `${spec.label || "time"}: ${said || "see the newest values"}`);
  });
}

function lane(spec) {
  const canvas = element("canvas");
  canvas.style.height = `${spec.height}px`;
  canvas.setAttribute("role", "img");
  const value = element("span", { className: "value" });
  const label = element("span", { className: "label", textContent: spec.label, title: spec.label });
  const row = element("div", { className: spec.first ? "lane first" : "lane" }, label, canvas, value);
  return { key: spec.key, canvas, value, row };
}

// Bars of the windows; a hop shorter than the window leaves each the part that the next one does not cover.
function bars(pen, share, fill) {
  const { context, x, height } = pen;
  results.forEach((result, index) => {
    const left = x(result.start_us);
    const right = Math.min(x(result.end_us), index + 1 < results.length ? x(results[index + 1].start_us) : Infinity);
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
  bars(pen, score, (result) => pen.colour(said(result.outputs[head]) ? "accent" : "fill"));
  const newest = score(results.at(-1));
  pen.value.classList.toggle("now", said(results.at(-1).outputs[head]));
  return newest === null ? "–" : newest.toFixed(2);
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
  const shown = results.filter((result) => typeof result.outputs[head]?.value === "number");
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
  for (const result of results) {
    if (result.present.includes(name)) continue;
    context.beginPath();
    context.arc((x(result.start_us) + x(result.end_us)) / 2, height / 2, 1.2, 0, 7);
    context.fill();
  }
  const newest = results.at(-1);
  return newest.present.includes(name) ? `${Math.round(100 * (newest.coverage[name] ?? 0))} %` : "absent";
}

function drawClosed(pen) {
  const { context, x, height } = pen;
  context.textAlign = "center";
  let free = -Infinity; // letters must not overlap
  for (const result of results) {
    const middle = (x(result.start_us) + x(result.end_us)) / 2;
    if (middle - free < 7 || middle < 4) continue;
    free = middle;
    context.fillStyle = pen.colour({ deadline: "warn", memory: "bad" }[result.closed_by] ?? "muted");
    context.fillText(CLOSED[result.closed_by] ?? "?", middle, height / 2);
  }
  context.textAlign = "start";
  return results.at(-1).closed_by;
}

function drawLatency(pen) {
  floor(pen);
  const most = Math.max(...results.map((result) => result.latencies_us.total ?? 0), 1);
  bars(pen, (result) => (result.latencies_us.total ?? 0) / most, () => pen.colour("fill"));
  return milliseconds(results.at(-1).latencies_us.total);
}

function drawAxis(pen) {
  const { context, x, width, height } = pen;
  const end_us = results.at(-1).end_us;
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

// search

let searching = null; // the newest search

async function look(parameters, options, what) {
  const mine = {};
  searching = mine;
  const limits = $("query-here").checked && chosen !== null ? { session: chosen } : {};
  $("found").hidden = false;
  $("hits").replaceChildren();
  setText($("found-state"), `Looking for ${what}`);
  try {
    const found = await ask("/api/search", { ...parameters, ...limits }, options);
    if (searching !== mine) return;
    $("hits").replaceChildren(...found.map(hit));
    setText($("found-state"), found.length ? `Most like ${what}, best match first` : `No window like ${what} is left in Redis`);
    showChosenHit();
  } catch (error) {
    if (searching === mine) setText($("found-state"), error.message);
  }
}

function hit(one) {
  const shot = element("div", { className: "shot" });
  if (one.frame) {
    const image = element("img", { alt: "", loading: "lazy" });
    image.onerror = () => shot.replaceChildren("no longer in Kafka");
    image.src = `/api/frame?${new URLSearchParams({ session: one.session, end_us: one.end_us })}`;
    shot.append(image);
  } else {
    shot.append("no camera");
  }
  const score = one.score === null ? "" : ` ${one.score.toFixed(2)}`;
  const text = element(
    "div",
    { className: "hit-text" },
    element("span", { textContent: one.session, title: one.session }),
    element("span", { textContent: one.similarity.toFixed(3), title: "cosine similarity" }),
    element("span", { className: "small", textContent: `${one.label}${score}` }),
    element("span", { className: "small", textContent: clock(one.start_us), title: one.time }),
  );
  if (one.description) text.append(element("span", { className: "small description", textContent: one.description }));
  const link = element("a", { href: address(one.session, one.end_us) }, shot, text);
  link.setAttribute("aria-label", `${one.session}, ${date(one.start_us)} ${clock(one.start_us)}, ${one.label}, alike ${one.similarity.toFixed(3)}`);
  return element("li", {}, link);
}

function showChosenHit() {
  const current = chosen === null ? "" : address(chosen, at_us);
  for (const link of $("hits").querySelectorAll("a")) link.setAttribute("aria-current", String(link.getAttribute("href") === current));
}

$("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("query").value.trim();
  if (words) look({ q: words }, {}, `“${words}”`);
});
$("query-file").addEventListener("change", () => {
  const [file] = $("query-file").files;
  if (file) look({}, { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" } }, file.name);
  $("query-file").value = ""; // the same file may be asked for again
});
$("found-close").addEventListener("click", () => {
  searching = null;
  $("found").hidden = true;
  $("query").focus();
});

// late records and dead letters

function showFaults(faults) {
  const sum = (counts) => Object.values(counts).reduce((one, other) => one + other, 0);
  for (const [id, counts] of [["late-count", faults.late], ["dead-count", faults.dead]]) {
    setText($(id), sum(counts).toLocaleString());
    $(id).classList.toggle("some", sum(counts) > 0);
  }
  const rows = [
    ...Object.entries(faults.dead),
    ...Object.entries(faults.late).map(([topic, count]) => [`late ${topic.split(".").at(-1)}`, count]),
  ].sort((one, other) => other[1] - one[1]);
  $("reasons").replaceChildren(
    ...rows.map(([reason, count]) =>
      element("li", {}, element("span", { textContent: reason }), element("span", { textContent: count.toLocaleString() })),
    ),
  );
  const before = sum(faults.kept);
  const more = before ? `; ${before.toLocaleString()} from before are in Kafka` : "";
  setText($("faults-since"), `since ${clock(faults.since_us)}${more}`);
  $("newest-box").hidden = !faults.newest.length;
  $("newest").replaceChildren(
    ...faults.newest.toReversed().map((fault) =>
      element("li", {
        textContent: `${clock(fault.time_us)} ${fault.session || "(no session)"}: ${fault.reason}. ${fault.detail} (${fault.origin})`,
      }),
    ),
  );
}

// what `streamer speak` says aloud, muted until the visitor wants it

const URGENCY = { notice: 1, warning: 2, alarm: 3 };
const STALE_US = 15e6; // what is older than this beside the newest result is shown, not played
const player = new Audio();
let loud = false;
let playing = null; // the utterance that is being played
let waiting = null; // the one after it
let spoken = new Set(); // ids that have come, of the chosen session: a restart may say one twice

function hush() {
  player.pause();
  playing = waiting = null;
}

function forgetSpeech() {
  hush();
  spoken = new Set();
  $("speech").hidden = true;
}

function hearSpeech(utterance) {
  if (utterance.session !== chosen || spoken.has(utterance.id)) return;
  spoken.add(utterance.id);
  $("speech").hidden = false;
  setText($("speech-text"), `“${utterance.text}” ${utterance.severity}, ${clock(utterance.end_us)}`);
  $("speech-text").dataset.severity = utterance.severity;
  const newest_us = sessions.get(chosen)?.end_us ?? utterance.end_us;
  if (!loud || at_us !== null || newest_us - utterance.end_us > STALE_US) return;
  // as streamer/speak/sentences.py has it: more severe cuts off, else the newest one waits
  if (playing && URGENCY[utterance.severity] <= URGENCY[playing.severity]) waiting = utterance;
  else play(utterance);
}

function play(utterance) {
  playing = utterance;
  waiting = null;
  player.src = `/api/speech?${new URLSearchParams({ session: utterance.session, end_us: utterance.end_us })}`;
  player.play().catch((error) => {
    if (error.name !== "AbortError") console.warn(error.message); // aborted: another one cut it off
  });
}

function playNext() {
  playing = null;
  if (waiting) play(waiting);
}

player.addEventListener("ended", playNext);
player.addEventListener("error", playNext);
$("speech-toggle").addEventListener("click", () => {
  loud = !loud;
  $("speech-toggle").setAttribute("aria-pressed", String(loud));
  setText($("speech-toggle"), loud ? "Speech: on" : "Speech: off");
  if (!loud) hush();
});

// what comes from the server

function connection(state, text) {
  $("connection").dataset.state = state;
  setText($("connection"), text);
  document.body.classList.toggle("stale", state === "lost");
}

function listen() {
  stream?.close();
  const parameters = chosen === null ? "" : `?${new URLSearchParams({ session: chosen })}`;
  const mine = new EventSource(`/events${parameters}`);
  stream = mine;
  // only now: no result can fall between what is read here and what the stream brings
  mine.onopen = () => mine === stream && (connection("live", "Live"), catchUp());
  mine.onmessage = (event) => mine === stream && heard(JSON.parse(event.data));
  mine.onerror = () => {
    if (mine !== stream) return;
    connection("lost", "Connection lost, trying again");
    // after a refusal the browser does not retry by itself
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => mine === stream && (listen(), catchUp()), RETRY_MS);
  };
}

function heard(news) {
  news.sessions.forEach(take);
  if (chosen === null && sessions.size) {
    choose([...sessions.values()].sort(order)[0].session);
    return;
  }
  if (news.sessions.length) showSessions();
  if (news.redis !== undefined) news.redis ? connection("live", "Live") : connection("lost", "Redis does not answer");
  if (news.faults) showFaults(news.faults);
  if (news.first) first = news.first;
  add(chosen, news.results);
  if (news.first && newest()) showDecision(newest());
  news.spoken?.forEach(hearSpeech);
  if (news.description) showDescription(news.description);
  if (news.gap) catchUp();
}

setInterval(readDrifts, DRIFTS_EVERY_MS);
window.addEventListener("hashchange", () => {
  const [name, end_us] = fromAddress();
  if (name !== null) choose(name, end_us);
});
document.addEventListener("visibilitychange", () => {
  readFrames();
  readContents();
  draw();
});
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
setInterval(showSessions, 1000);
choose(...fromAddress());
