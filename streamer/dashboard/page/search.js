// Search.

import { $, ask, clock, date, element, setText, whyUnshown } from "./dom.js";
import { address, state } from "./state.js";

let searching = null; // the newest search

async function look(parameters, options, what) {
  const mine = {};
  searching = mine;
  const limits = $("query-here").checked && state.chosen !== null ? { session: state.chosen } : {};
  $("found").hidden = false;
  $("hits").replaceChildren();
  setText($("found-state"), `Looking for ${what}`);
  try {
    const found = await ask("/api/search", { ...parameters, ...limits }, options);
    if (searching !== mine) return;
    $("hits").replaceChildren(...found.map(hit));
    setText($("found-state"), found.length ? `Most like ${what}, best match first` : `No window like ${what} is left in Redis`);
    showChosenHit();
  } catch (error) {
    if (searching === mine) setText($("found-state"), error.message);
  }
}

function hit(one) {
  const shot = element("div", { className: "shot" });
  if (one.frame) {
    const image = element("img", { alt: "", loading: "lazy" });
    image.onerror = () => whyUnshown(image.src).then((why) => shot.replaceChildren(why));
    image.src = `/api/frame?${new URLSearchParams({ session: one.session, end_us: one.end_us })}`;
    shot.append(image);
  } else {
    shot.append("no camera");
  }
  const score = one.score === null ? "" : ` ${one.score.toFixed(2)}`;
  const text = element(
    "div",
    { className: "hit-text" },
    element("span", { textContent: one.session, title: one.session }),
    element("span", { textContent: one.similarity.toFixed(3), title: "cosine similarity" }),
    element("span", { className: "small", textContent: `${one.label}${score}` }),
    element("span", { className: "small", textContent: clock(one.start_us), title: one.time }),
  );
  if (one.description) text.append(element("span", { className: "small description", textContent: one.description }));
  const link = element("a", { href: address(one.session, one.end_us) }, shot, text);
  link.setAttribute("aria-label", `${one.session}, ${date(one.start_us)} ${clock(one.start_us)}, ${one.label}, alike ${one.similarity.toFixed(3)}`);
  return element("li", {}, link);
}

export function showChosenHit() {
  const current = state.chosen === null ? "" : address(state.chosen, state.at_us);
  for (const link of $("hits").querySelectorAll("a")) link.setAttribute("aria-current", String(link.getAttribute("href") === current));
}

$("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("query").value.trim();
  if (words) look({ q: words }, {}, `“${words}”`);
});
$("query-file").addEventListener("change", () => {
  const [file] = $("query-file").files;
  if (file) look({}, { method: "POST", body: file, headers: { "Content-Type": file.type || "application/octet-stream" } }, file.name);
  $("query-file").value = ""; // the same file may be asked for again
});
$("found-close").addEventListener("click", () => {
  searching = null;
  $("found").hidden = true;
  $("query").focus();
});
