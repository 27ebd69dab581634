// What the keyboard reaches at once: / the search, f the filter of sessions, and links that skip to places.
// The links do not change the address, which names the session.

import { $ } from "./dom.js";

const PLACES = { "/": () => ($("search").hidden ? $("filter-text") : $("query")), f: () => $("filter-text") };

function go(node) {
  node.focus();
  node.select?.();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !PLACES[event.key]) return;
  event.preventDefault();
  go(PLACES[event.key]());
});
for (const link of document.querySelectorAll(".skip")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    go($(link.getAttribute("href").slice(1)));
  });
}
