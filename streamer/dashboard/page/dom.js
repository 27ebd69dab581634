// Small helpers: elements, texts, times, questions to the server.

import { unshown } from "./wording.js";
import { timeZone } from "./zone.js";

// made once: a formatter takes longer to make than to use
const CLOCK = new Intl.DateTimeFormat([], { timeZone, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DATE = new Intl.DateTimeFormat([], { timeZone, year: "numeric", month: "short", day: "numeric" });

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function clock(us) {
  return CLOCK.format(us / 1000);
}

export function date(us) {
  return DATE.format(us / 1000);
}

export function ago(seconds) {
  if (seconds === null) return "";
  if (seconds < 0) return `−${ago(-seconds)}`; // by a clock that is fast
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function number(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

export async function ask(path, parameters = {}, options = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, options);
  if (answer.status === 401) location.reload();
  if (!answer.ok) {
    const why = await answer.json().catch(() => ({}));
    throw new Error(why.error ?? `${path}: ${answer.status}`);
  }
  return answer.json();
}

// Why an image of this address failed to load: a browser does not say whether bytes came.
export async function whyUnshown(path) {
  const answer = await fetch(path).catch(() => null);
  return unshown(answer?.status);
}

export function milliseconds(us) {
  return us === undefined ? "" : `${Math.round(us / 1000)} ms`;
}
