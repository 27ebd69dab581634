// What all of the page shares: what is known of all sessions, and what is shown of the chosen one.

export const SPAN_US = 60e6; // what the lanes show

export const state = {
  sessions: new Map(), // name -> { ...summary, heard_ms, early }: the newest final result, and an early one after it
  ahead_us: null, // by how much the server's clock is ahead of performance.now()
  kinds: new Map(), // declared sensor -> its kind: first those that there are, in the order of results
  severities: {}, // severity -> the least rank of those that are at least as severe
  gap_s: 10, // silence after which a session is no longer live
  asked: false, // the server has answered with its sessions
  chosen: null, // name of the session that is shown
  at_us: null, // end of the window that is shown; null: always the newest
  results: [], // of the chosen session within the span, oldest first
  first: null, // its newest early result, of a window that has not closed
  contents: new Map(), // end_us -> content of that window; null: being read; false: cannot be read
  seen: new Set(), // sensors that the chosen session has had
};

// The server's time: devices are compared with it, not with this browser's clock.
export function now_us() {
  return state.ahead_us === null ? null : state.ahead_us + performance.now() * 1000;
}

export function address(name, end_us = null) {
  return `#session=${encodeURIComponent(name)}${end_us === null ? "" : `&at=${end_us}`}`;
}

// sensors, by the newest window first: a change of the settings leaves those of before behind
export function names() {
  const found = state.results.toReversed().flatMap((result) => Object.keys(result.coverage));
  return [...new Set(found.length ? found : state.kinds.keys())];
}

// those of a kind that the session has had
export function had(kind) {
  return names().filter((name) => state.kinds.get(name) === kind && state.seen.has(name));
}
