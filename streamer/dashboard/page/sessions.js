// The list of sessions.

import { $, ago, clock, date, element, setText } from "./dom.js";
import { address, state } from "./state.js";

function age(summary) {
  return summary.age_s === null ? null : summary.age_s + (performance.now() - summary.heard_ms) / 1000;
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

// Live ones by name, so that they keep their places; then the others, by newest result.
export function order(one, other) {
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

export function showSessions() {
  const ordered = [...state.sessions.values()].sort(order);
  const list = $("sessions");
  for (const [name, nodes] of items) {
    if (!state.sessions.has(name)) {
      nodes.li.remove();
      items.delete(name);
    }
  }
  ordered.forEach((summary, index) => {
    const nodes = item(summary.session);
    const how = health(summary);
    setText(nodes.age, ago(age(summary)));
    setText(nodes.said, summary.score === null ? summary.label : `${summary.label} ${summary.score.toFixed(2)}`);
    setText(nodes.health, how);
    nodes.health.dataset.health = how;
    nodes.link.setAttribute("aria-current", String(summary.session === state.chosen));
    // moving a node takes its focus away, so only misplaced nodes move
    if (list.children[index] !== nodes.li) list.insertBefore(nodes.li, list.children[index] ?? null);
  });
  const live = ordered.filter(isLive).length;
  setText($("totals"), ordered.length ? `${ordered.length} session${ordered.length > 1 ? "s" : ""}, ${live} live` : "");
  const summary = state.sessions.get(state.chosen);
  if (summary) {
    $("state").dataset.health = health(summary);
    setText($("state"), health(summary));
    const seconds = age(summary);
    const live = seconds === null ? "" : `last result ${ago(seconds)} ago`;
    setText($("when"), state.at_us === null ? live : `window that ended ${date(state.at_us)} ${clock(state.at_us)}`);
  }
  showEmpty();
}

export function showEmpty() {
  const missing = state.chosen !== null && !state.sessions.has(state.chosen) && !state.results.length;
  $("empty").hidden = !state.asked || (state.sessions.size > 0 && !missing);
  $("session").hidden = !state.asked || state.chosen === null || missing;
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
  state.sessions.set(summary.session, { ...summary, heard_ms: performance.now() });
}
