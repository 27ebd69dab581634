// Late records and dead letters.

import { $, clock, element, setText } from "./dom.js";

export function showFaults(faults) {
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
  const more = before ? `; ${before.toLocaleString()} from before ${before === 1 ? "is" : "are"} in Kafka` : "";
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
