// What `streamer speak` says aloud, muted until the visitor wants it.

import { $, clock, setText } from "./dom.js";
import { state } from "./state.js";

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

export function forgetSpeech() {
  hush();
  spoken = new Set();
  $("speech").hidden = true;
}

export function hearSpeech(utterance) {
  if (utterance.session !== state.chosen || spoken.has(utterance.id)) return;
  spoken.add(utterance.id);
  $("speech").hidden = false;
  setText($("speech-text"), `“${utterance.text}” ${utterance.severity}, ${clock(utterance.end_us)}`);
  $("speech-text").dataset.severity = utterance.severity;
  const newest_us = state.sessions.get(state.chosen)?.end_us ?? utterance.end_us;
  if (!loud || state.at_us !== null || newest_us - utterance.end_us > STALE_US) return;
  // as streamer/speak/sentences.py has it: more severe cuts off, else the newest one waits
  if (playing && URGENCY[utterance.severity] <= URGENCY[playing.severity]) waiting = utterance;
  else play(utterance);
}

function play(utterance) {
  playing = utterance;
  waiting = null;
  player.src = `/api/speech?${new URLSearchParams({ id: utterance.id })}`;
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
