// Whether the server, Redis and workers answer, and the time zone: the head of the page.

import { $, clock, date, setText } from "./dom.js";
import { changeZone, zoneName } from "./zone.js";

export function connection(how, text) {
  $("connection").dataset.state = how;
  setText($("connection"), text);
  document.body.classList.toggle("stale", how === "lost");
}

// Before any worker has given a sign there is nothing to miss: the page says how to start one.
export function showWorkers({ answers, role, since_us }) {
  $("workers").hidden = answers || (!role && since_us === null);
  const who = role ? `No worker of role ${role}` : "No worker";
  const day = since_us !== null && date(since_us) !== date(Date.now() * 1000) ? `${date(since_us)} ` : "";
  setText($("workers"), since_us === null ? `${who} has answered yet` : `${who} answers since ${day}${clock(since_us)}`);
}

setText($("zone"), `Times: ${zoneName()}`);
$("zone").addEventListener("click", changeZone);
