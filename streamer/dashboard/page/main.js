// The page: a list of sessions, and one of them whole.
//
// Names, labels and transcripts come from producers and models: they reach the document as textContent or as text on a
// canvas, never as HTML. Times are microseconds of event time (…_us) or milliseconds of this browser's clock (…_ms).

import { showAlarms } from "./alarms.js";
import { forgetCameras, readFrames, showCameras } from "./cameras.js";
import { readContents, showWords } from "./contents.js";
import { newest, readDrifts, showDecision, showDescription, showDrifts } from "./decision.js";
import { $, ask, setText } from "./dom.js";
import { showFaults } from "./faults.js";
import "./keys.js";
import { draw, forgetLanes } from "./lanes.js";
import { showChosenHit } from "./search.js";
import { order, showEmpty, showSessions, take, takeEarly } from "./sessions.js";
import { forgetSpeech, hearSpeech } from "./speech.js";
import { address, SPAN_US, state } from "./state.js";
import { connection, showWorkers } from "./status.js";

const RETRY_MS = 3000;
const DRIFTS_EVERY_MS = 15_000; // a worker reports every 10 s

let stream = null;

function choose(name, end_us = null) {
  state.chosen = name;
  state.at_us = end_us;
  state.results = [];
  state.first = null;
  state.contents = new Map();
  state.seen = new Set();
  forgetCameras();
  forgetLanes();
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
  const name = state.chosen;
  try {
    const found = await ask("/api/sessions");
    state.gap_s = found.gap_s;
    state.severities = found.severities;
    state.ahead_us = found.now_us - performance.now() * 1000;
    state.kinds = new Map(found.sensors.map(({ name, kind }) => [name, kind]));
    $("search").hidden = !found.search;
    state.asked = true;
    state.sessions.clear();
    found.sessions.forEach(take);
    if (state.chosen === null && state.sessions.size) {
      choose([...state.sessions.values()].sort(order)[0].session);
      return;
    }
    showSessions();
    if (name === null || name !== state.chosen) return;
    readDrifts();
    const newest = state.at_us ?? state.sessions.get(name)?.end_us ?? 0;
    // all of the span: a result that came by the stream says nothing of those before it
    const since = Math.max(0, newest - SPAN_US);
    const until = state.at_us === null ? {} : { until: state.at_us };
    add(name, await ask("/api/results", { session: name, since, ...until }));
    const description = await ask("/api/description", { session: name, ...until });
    if (description) showDescription(description);
  } catch (error) {
    console.warn(error.message);
    setTimeout(() => name === state.chosen && catchUp(), RETRY_MS);
  }
}

function add(name, more) {
  if (name !== state.chosen || !more.length) return;
  const known = new Set(state.results.map((result) => result.end_us));
  const wanted = more.filter((result) => !known.has(result.end_us) && (state.at_us === null || result.end_us <= state.at_us));
  if (!wanted.length) return;
  state.results.push(...wanted);
  state.results.sort((one, other) => one.end_us - other.end_us);
  const from_us = state.results.at(-1).end_us - SPAN_US;
  state.results = state.results.filter((result) => result.end_us > from_us);
  for (const end_us of state.contents.keys()) if (end_us <= from_us) state.contents.delete(end_us);
  for (const result of state.results) result.present.forEach((name) => state.seen.add(name));
  showDecision(newest());
  showEmpty();
  showCameras();
  readFrames();
  readContents(contentsChanged);
  draw();
}

function contentsChanged() {
  showWords();
  draw();
}

function listen() {
  stream?.close();
  const parameters = state.chosen === null ? "" : `?${new URLSearchParams({ session: state.chosen })}`;
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
  if (state.chosen === null && state.sessions.size) {
    choose([...state.sessions.values()].sort(order)[0].session);
    return;
  }
  news.early?.forEach(takeEarly);
  if (news.sessions.length || news.early) showSessions();
  if (news.redis !== undefined) news.redis ? connection("live", "Live") : connection("lost", "Redis does not answer");
  if (news.workers) showWorkers(news.workers);
  if (news.faults) showFaults(news.faults);
  if (news.alarms) showAlarms(news.alarms);
  if (news.first) state.first = news.first;
  add(state.chosen, news.results);
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
  readContents(contentsChanged);
  draw();
});
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
setInterval(showSessions, 1000);
choose(...fromAddress());
