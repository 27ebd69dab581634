// The list of sessions: the most severe first, those that match the filter.
//
// How severe a result is comes from the server, as its rank (streamer/dashboard/severity.py). So that nothing jumps each
// second, a session rises at once, and falls only HOLD_MS after it was last as severe; sessions of one rank are by name;
// and while somebody points at the list or moves in it, nothing moves. An early result counts where it is more severe
// than the final one before it.

import { $, ago, clock, date, element, setText } from "./dom.js";
import { grade } from "./grade.js";
import { address, now_us, state } from "./state.js";
import { plural } from "./wording.js";

const HOLD_MS = 10_000;
const TOUCHED_MS = 3000;
const RECENT_S = 600; // a session that falls silent keeps its place for so long

const BY_NAME = new Intl.Collator(undefined, { numeric: true });

const items = new Map(); // name -> the item's nodes
const held = new Map(); // name -> [{ rank, severity, until_ms }], ranks descending; the last one is that of now
let ordered = []; // names as they are listed
let touched_ms = -Infinity;
let due = false; // the list is to be brought up to date

function age(summary) {
  return summary.age_s === null ? null : summary.age_s + (performance.now() - summary.heard_ms) / 1000;
}

// what is shown of a session: its newest final result, or an early one that is more severe
function shown(summary) {
  return summary.early && summary.early.rank > summary.rank ? summary.early : summary;
}

// the newest event time that a result of the session covers
function event_us(summary) {
  return Math.max(summary.end_us, summary.early?.end_us ?? 0);
}

function eventAge(summary) {
  const now = now_us();
  return now === null ? null : (now - event_us(summary)) / 1e6;
}

function health(summary) {
  if (summary.status !== "ok") return summary.status;
  if (summary.closed_by === "end") return "ended";
  const seconds = age(summary);
  return seconds !== null && seconds < state.gap_s ? "live" : "quiet";
}

function isLive(summary) {
  const seconds = age(summary);
  return seconds !== null && seconds < state.gap_s && summary.closed_by !== "end";
}

function isRecent(summary) {
  return summary.closed_by !== "end" && (age(summary) ?? Infinity) < RECENT_S;
}

// the most severe of the last HOLD_MS

function hold(summary) {
  const { session, rank, severity } = shown(summary);
  const grades = held.get(session) ?? [];
  const until_ms = performance.now() + HOLD_MS;
  if (grades.length) grades.at(-1).until_ms = until_ms; // that of the result before has been so until now
  while (grades.at(-1)?.rank <= rank) grades.pop();
  grades.push({ rank, severity, until_ms });
  held.set(session, grades);
}

function mostSevere(name) {
  const grades = held.get(name);
  const now = performance.now();
  while (grades.length > 1 && grades[0].until_ms < now) grades.shift();
  return grades[0];
}

// Recent ones by how severe they have been, then by name; then the others, by newest result.
export function order(one, other) {
  const recent = isRecent(one);
  if (recent !== isRecent(other)) return recent ? -1 : 1;
  if (!recent) return (age(one) ?? Infinity) - (age(other) ?? Infinity) || other.end_us - one.end_us;
  return mostSevere(other.session).rank - mostSevere(one.session).rank || BY_NAME.compare(one.session, other.session);
}

function inOrder() {
  const all = [...state.sessions.values()];
  if (performance.now() - touched_ms > TOUCHED_MS) return all.sort(order);
  const place = new Map(ordered.map((name, index) => [name, index]));
  return all.sort((one, other) => (place.get(one.session) ?? Infinity) - (place.get(other.session) ?? Infinity) || order(one, other));
}

// the filter

function wanted(summary) {
  if (mostSevere(summary.session).rank < (state.severities[$("filter-severity").value] ?? 0)) return false;
  const words = $("filter-text").value.trim().toLowerCase();
  const one = shown(summary);
  return [summary.session, one.label, ...Object.values(one.decisions)].some((text) => text.toLowerCase().includes(words));
}

// the list

function item(name) {
  if (!items.has(name)) {
    const parts = {
      name: element("span", { className: "name", title: name }),
      age: element("span", { className: "age", title: "age of the newest result" }),
      event: element("span", { className: "age event", title: "age of the newest event" }),
      severity: element("span", { className: "severity" }),
      said: element("span", { className: "said" }),
      before: element("span", { className: "before" }),
      health: element("span", { className: "health" }),
    };
    const ages = element("span", { className: "ages" }, parts.age, " · ", parts.event);
    const lines = [
      element("span", { className: "line" }, parts.name, ages),
      element("span", { className: "line" }, parts.severity, parts.said, parts.before, parts.health),
    ];
    const link = element("a", { href: address(name), tabIndex: -1 }, ...lines);
    items.set(name, { ...parts, link, li: element("li", {}, link), filled: null });
    parts.name.textContent = name;
  }
  return items.get(name);
}

// What changes with each result.
function fill(nodes, one) {
  nodes.filled = one;
  const graded = one.severity === "failed" || one.severity === "empty" ? { severity: "normal" } : one; // the label says it
  grade(nodes.severity, graded);
  const score = one.score === null || one.score === undefined ? "" : ` ${one.score.toFixed(2)}`;
  setText(nodes.said, `${one.label}${score}`);
  nodes.said.title = Object.entries(one.decisions).map(([name, said]) => `${name}: ${said}`).join("\n");
  nodes.link.dataset.severity = one.severity;
  nodes.link.dataset.sure = String(one.sure);
}

// What changes with the time.
function tick(nodes, summary) {
  const how = health(summary);
  setText(nodes.age, ago(age(summary)));
  setText(nodes.event, ago(eventAge(summary)));
  setText(nodes.health, how === "live" ? "" : how); // the sign is enough for what most of them are
  const worst = mostSevere(summary.session);
  const one = shown(summary);
  setText(nodes.before, worst.rank > one.rank && worst.severity !== one.severity ? `was ${worst.severity}` : "");
  if (nodes.health.dataset.health !== how) nodes.health.dataset.health = nodes.health.title = how;
  const current = String(summary.session === state.chosen);
  if (nodes.link.getAttribute("aria-current") !== current) nodes.link.setAttribute("aria-current", current);
}

// Puts the items into their places; moving a node takes its focus away, so few are moved, and the focus is given back.
function arrange(list, nodes) {
  const focused = document.activeElement;
  nodes.forEach((li, index) => {
    if (list.children[index] === li) return;
    if (list.children[index + 1] === li) list.append(list.children[index]); // one that has fallen
    else list.insertBefore(li, list.children[index] ?? null);
  });
  while (list.children.length > nodes.length) list.lastChild.remove();
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
}

export function showSessions() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    listSessions();
  });
}

function listSessions() {
  for (const known of [items, held]) {
    for (const name of known.keys()) if (!state.sessions.has(name)) known.delete(name);
  }
  const all = inOrder();
  ordered = all.map((summary) => summary.session);
  const listed = all.filter(wanted);
  for (const summary of listed) {
    const nodes = item(summary.session);
    const one = shown(summary);
    if (nodes.filled !== one) fill(nodes, one);
    tick(nodes, summary);
  }
  arrange($("sessions"), listed.map((summary) => items.get(summary.session).li));
  reachable();
  showTotals(all, listed);
  showHead();
  showEmpty();
}

function showTotals(all, listed) {
  const live = all.filter(isLive).length;
  const severe = ["alarm", "warning"].map((severity) => [severity, all.filter((one) => isRecent(one) && shown(one).severity === severity).length]);
  const counts = severe.filter(([, count]) => count).map(([severity, count]) => `, ${plural(count, severity)}`);
  setText($("totals"), all.length ? `${plural(all.length, "session")}, ${live} live${counts.join("")}` : "");
  setText($("filter-state"), listed.length < all.length ? `${listed.length} of ${all.length} shown` : "");
}

function showHead() {
  const summary = state.sessions.get(state.chosen);
  if (!summary) return;
  const how = health(summary);
  $("state").dataset.health = how;
  setText($("state"), how);
  if (state.at_us !== null) {
    setText($("when"), `window that ended ${date(state.at_us)} ${clock(state.at_us)}`);
    return;
  }
  const [result, event] = [age(summary), eventAge(summary)];
  const heard = event === null ? "" : `newest event ${clock(event_us(summary))}, ${ago(event)} ago`;
  setText($("when"), [heard, result === null ? "" : `last result ${ago(result)} ago`].filter(Boolean).join("; "));
}

export function showEmpty() {
  const missing = state.chosen !== null && !state.sessions.has(state.chosen) && !state.results.length;
  $("empty").hidden = !state.asked || (state.sessions.size > 0 && !missing);
  $("session").hidden = !state.asked || state.chosen === null || missing;
  $("filter").hidden = !state.sessions.size;
  setText($("empty-title"), missing ? `Nothing of ${state.chosen}` : "No sessions yet");
  setText(
    $("empty-text"),
    missing
      ? "Redis has no results of this session. It appears here with its first result."
      : "As soon as a worker publishes a result, its session appears here.",
  );
  $("empty-how").hidden = missing;
}

export function take(summary) {
  const early = state.sessions.get(summary.session)?.early;
  const still = early && early.end_us > summary.end_us ? early : null;
  state.sessions.set(summary.session, { ...summary, heard_ms: performance.now(), early: still });
  hold(state.sessions.get(summary.session));
}

export function takeEarly(early) {
  const summary = state.sessions.get(early.session);
  if (!summary) take(early);
  else if (early.end_us > summary.end_us) {
    summary.early = early;
    hold(summary);
  }
}

// by keyboard the list is one stop, in which the arrows move

function reachable() {
  const links = [...$("sessions").querySelectorAll("a")];
  const stop = links.find((link) => link === document.activeElement) ?? links.find((link) => link.getAttribute("aria-current") === "true") ?? links[0];
  for (const link of links) if (link.tabIndex !== (link === stop ? 0 : -1)) link.tabIndex = link === stop ? 0 : -1;
}

$("sessions").addEventListener("keydown", (event) => {
  const links = [...$("sessions").querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  links[Math.min(Math.max(to, 0), links.length - 1)].focus();
});
for (const kind of ["pointermove", "wheel", "touchmove", "keydown"]) {
  $("sessions").addEventListener(kind, () => (touched_ms = performance.now()), { passive: true });
}
$("filter").addEventListener("input", showSessions);
$("filter").addEventListener("submit", (event) => event.preventDefault());
