// What the page says, apart from where it says it.

export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

export function openAlarms(counts, shown) {
  const some = Object.entries(counts).filter(([, count]) => count);
  if (!some.length) return "none open";
  const all = some.reduce((sum, [, count]) => sum + count, 0);
  const rest = all > shown ? `; the first ${shown} are shown` : "";
  return `${some.map(([severity, count]) => plural(count, severity)).join(", ")} open${rest}`;
}

export function closedBy({ closed_by, status }) {
  const partial = status === "partial" ? ", data may be missing" : "";
  return `${closed_by === "open" ? "still open" : closed_by}${partial}`;
}

// Why a browser shows nothing for a frame that the server answered with this status.
export function unshown(status) {
  if (status === 200) return "This picture cannot be decoded";
  if (status === 404) return "Kafka no longer has this frame";
  return "This frame cannot be read now";
}
