// The time zone in which times are shown: that of this browser, or UTC. Another choice loads the page again.

const KEY = "streamer.zone";
const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone;
const utc = localStorage.getItem(KEY) === "UTC";

export const timeZone = utc ? "UTC" : LOCAL;

// "UTC", or the place and its distance from UTC: "Europe/Berlin, UTC+1"
export function zoneName() {
  if (utc) return "UTC";
  const parts = new Intl.DateTimeFormat("en", { timeZone, timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find(({ type }) => type === "timeZoneName").value.replace("GMT", "UTC");
  return LOCAL === "UTC" ? "UTC" : `${LOCAL}, ${offset}`;
}

export function changeZone() {
  localStorage.setItem(KEY, utc ? "local" : "UTC");
  location.reload();
}
