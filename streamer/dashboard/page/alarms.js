// Open alarms of `streamer rules`, the most severe first; whoever looks acknowledges them under a name.

import { $, ask, clock, date, element, setText } from "./dom.js";
import { address } from "./state.js";
import { openAlarms } from "./wording.js";

const NAME = "streamer.name"; // of who looks, in this browser's storage
const ACKNOWLEDGE = { method: "POST", headers: { "Content-Type": "application/json" } };

const rows = new Map(); // session and rule -> the row's nodes
let asked = null; // the alarm for which a name is asked

function moment(us) {
  return date(us) === date(Date.now() * 1000) ? clock(us) : `${date(us)} ${clock(us)}`;
}

function key(alarm) {
  return JSON.stringify([alarm.session, alarm.rule]);
}

function row(alarm) {
  const parts = {
    severity: element("span", { className: "severity" }),
    session: element("a"),
    text: element("span"),
    rule: element("span", { className: "muted", textContent: alarm.rule, title: alarm.rule }),
    since: element("span"),
    last: element("a"),
    button: element("button", { type: "button", textContent: "Acknowledge" }),
  };
  const cells = [
    ["alarm-severity", parts.severity],
    ["alarm-session", parts.session],
    ["alarm-text", parts.text, " ", parts.rule],
    ["alarm-since", element("span", { className: "narrow muted", textContent: "since " }), parts.since],
    ["alarm-last", element("span", { className: "narrow muted", textContent: "last " }), parts.last],
    ["alarm-button", parts.button],
  ];
  const node = element("tr", {}, ...cells.map(([className, ...content]) => element("td", { className }, ...content)));
  parts.button.setAttribute("aria-label", `Acknowledge ${alarm.rule} of ${alarm.session}`);
  parts.button.addEventListener("click", () => acknowledge(rows.get(key(alarm)).alarm));
  return { ...parts, node };
}

export function showAlarms({ ruled, open, counts, readable }) {
  $("alarms").hidden = !ruled && readable;
  setText($("alarms-state"), openAlarms(counts, open.length));
  $("alarms-unread").hidden = readable;
  const keys = new Set(open.map(key));
  for (const [name, { node }] of rows) {
    if (keys.has(name)) continue;
    node.remove();
    rows.delete(name);
  }
  open.forEach((alarm, index) => {
    if (!rows.has(key(alarm))) rows.set(key(alarm), row(alarm));
    const nodes = rows.get(key(alarm));
    nodes.alarm = alarm;
    nodes.severity.dataset.severity = alarm.severity;
    setText(nodes.severity, alarm.severity);
    nodes.session.href = address(alarm.session);
    setText(nodes.session, alarm.session);
    setText(nodes.text, alarm.text);
    nodes.rule.hidden = alarm.text === alarm.rule;
    setText(nodes.since, moment(alarm.since_us));
    nodes.last.href = address(alarm.session, alarm.end_us);
    setText(nodes.last, `${moment(alarm.end_us)}${alarm.count > 1 ? ` (${alarm.count} times)` : ""}`);
    // moving a node takes its focus away, so only misplaced nodes move
    const list = $("alarms-open");
    if (list.children[index] !== nodes.node) list.insertBefore(nodes.node, list.children[index] ?? null);
  });
  $("alarms-table").hidden = !open.length;
  if (!$("alarms-log").hidden) readLog();
}

function problem(text) {
  $("alarms-problem").hidden = !text;
  setText($("alarms-problem"), text);
}

async function acknowledge(alarm) {
  const name = localStorage.getItem(NAME);
  if (!name) {
    askName(alarm);
    return;
  }
  const button = rows.get(key(alarm))?.button;
  if (!button) return; // somebody else was faster
  button.disabled = true;
  try {
    const { session, rule, end_us } = alarm;
    await ask("/api/alarms/acknowledge", {}, { ...ACKNOWLEDGE, body: JSON.stringify({ session, rule, end_us, by: name }) });
    problem("");
  } catch (error) {
    problem(error.message);
  } finally {
    button.disabled = false;
  }
}

function askName(alarm = null) {
  asked = alarm;
  $("alarms-name").hidden = false;
  $("alarms-by").value = localStorage.getItem(NAME) ?? "";
  setText($("alarms-name-save"), alarm ? "Acknowledge" : "Save");
  $("alarms-by").focus();
}

function showName() {
  const name = localStorage.getItem(NAME);
  $("alarms-who").hidden = !name;
  setText($("alarms-who"), name ? `as ${name}` : "");
}

async function readLog() {
  try {
    const found = await ask("/api/alarms/log");
    $("alarms-log").replaceChildren(...(found.length ? found.map(line) : [element("li", { textContent: "Nothing yet" })]));
  } catch (error) {
    problem(error.message);
  }
}

function line(entry) {
  const what = entry.by ? `${entry.what} by ${entry.by}` : entry.what;
  const more = entry.note || (entry.what === "raised" ? entry.alarm?.text : "");
  const said = element("span", { textContent: `${entry.session}: ${entry.rule} ${what}${more ? `: ${more}` : ""}` });
  return element("li", {}, element("time", { textContent: moment(entry.at_ms * 1000) }), said);
}

$("alarms-name").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("alarms-by").value.trim();
  if (!name) return;
  localStorage.setItem(NAME, name);
  $("alarms-name").hidden = true;
  showName();
  if (asked) acknowledge(asked);
  asked = null;
});
$("alarms-name-cancel").addEventListener("click", () => ($("alarms-name").hidden = true));
$("alarms-who").addEventListener("click", () => askName());
$("alarms-log-toggle").addEventListener("click", () => {
  const hidden = !$("alarms-log").hidden;
  $("alarms-log").hidden = hidden;
  $("alarms-log-toggle").setAttribute("aria-expanded", String(!hidden));
  if (!hidden) readLog();
});
showName();
