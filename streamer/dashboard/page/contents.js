// Sound, words and telemetry of the windows, newest first.

import { $, ask, clock, element } from "./dom.js";
import { had, state } from "./state.js";

const READS = 2; // windows that are read at once

let reading = 0;

// Args:
//   changed: called when a window of those shown has been read
export function readContents(changed) {
  if (document.hidden) return;
  while (reading < READS) {
    const next = state.results.findLast((result) => !state.contents.has(result.end_us));
    if (!next) return;
    const mine = state.contents;
    mine.set(next.end_us, null);
    reading += 1;
    ask("/api/window", { session: state.chosen, end_us: next.end_us })
      .then((content) => {
        for (const sound of Object.values(content.audio)) sound.levels = Uint8Array.from(atob(sound.levels), (char) => char.charCodeAt(0));
        mine.set(next.end_us, content);
      })
      .catch(() => mine.set(next.end_us, false))
      .finally(() => {
        reading -= 1;
        if (mine === state.contents) changed();
        readContents(changed);
      });
  }
}

export function loaded() {
  return state.results.map((result) => state.contents.get(result.end_us)).filter(Boolean);
}

// A segment is in every window that it overlaps, and is shown once.
export function segments() {
  const found = new Map();
  for (const content of loaded()) {
    for (const segment of content.transcripts) found.set(`${segment.start_us} ${segment.sensor} ${segment.text}`, segment);
  }
  return [...found.values()].sort((one, other) => other.start_us - one.start_us);
}

export function showWords() {
  const list = $("words");
  const spoken = segments();
  const several = had("text").length > 1;
  const keys = spoken.map((segment) => `${segment.start_us} ${several ? segment.sensor : ""} ${segment.text}`);
  if (keys.join("\n") !== list.dataset.keys) {
    list.dataset.keys = keys.join("\n");
    list.replaceChildren(
      ...spoken.map((segment) =>
        element(
          "li",
          {},
          element("time", { textContent: clock(segment.start_us) }),
          element("span", { textContent: segment.text }),
          ...(several ? [element("span", { className: "muted small said-by", textContent: segment.sensor })] : []),
        ),
      ),
    );
  }
  $("no-words").hidden = spoken.length > 0;
}
