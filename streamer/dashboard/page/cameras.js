// Cameras: a picture each; of one, one frame is loaded at a time, so a slow connection shows fewer frames, never older.

import { $, ago, clock, element, setText, whyUnshown } from "./dom.js";
import { had, names, state } from "./state.js";

const MAX_COLUMNS = 4; // of cameras

let cameras = new Map(); // sensor -> its figure and what it shows

function camera(name) {
  const image = element("img", { alt: "", hidden: true });
  const missing = element("p", { className: "muted", textContent: "No frame yet" });
  const picture = element("button", { type: "button", className: "picture" }, image, missing);
  const title = element("span", { className: "camera-name", textContent: name });
  const caption = element("span", { textContent: "\u00a0" });
  const figure = element("figure", { className: "panel frame" }, picture, element("figcaption", { className: "muted small" }, title, caption));
  figure.dataset.sensor = name;
  picture.setAttribute("aria-label", `Enlarge ${name}`);
  picture.setAttribute("aria-pressed", "false");
  picture.addEventListener("click", () => {
    const large = figure.classList.toggle("large");
    picture.setAttribute("aria-pressed", String(large));
    for (const other of cameras.values()) {
      if (other.figure === figure) continue;
      other.figure.classList.remove("large");
      other.picture.setAttribute("aria-pressed", "false");
    }
  });
  return { figure, picture, image, missing, caption, shown_us: 0, loading: false };
}

export function forgetCameras() {
  cameras = new Map();
  showCameras();
}

export function showCameras() {
  const found = had("image");
  const shown = found.length ? found : [names().find((name) => state.kinds.get(name) === "image") ?? "camera"];
  const before = [...cameras.keys()].join(" ");
  if (before !== shown.join(" ")) {
    cameras = new Map(shown.map((name) => [name, cameras.get(name) ?? camera(name)]));
    $("cameras").replaceChildren(...[...cameras.values()].map((one) => one.figure));
    $("top").classList.toggle("many", shown.length > 1);
    const rows = Math.ceil(shown.length / MAX_COLUMNS);
    $("cameras").style.setProperty("--columns", Math.ceil(shown.length / rows)); // rows that are as full as each other, nearly
  }
  const newest = state.results.at(-1);
  for (const [name, { figure }] of cameras) figure.classList.toggle("gone", Boolean(newest) && !newest.present.includes(name));
}

export function readFrames() {
  for (const [name, one] of cameras) readFrame(name, one);
}

function readFrame(name, one) {
  const newest = state.results.findLast((result) => result.present.includes(name));
  if (!newest) {
    setText(one.missing, "No camera in the last minute");
    return;
  }
  const silent_us = state.results.at(-1).end_us - newest.end_us;
  if (silent_us > 0 && newest.end_us === one.shown_us) setText(one.caption, `${clock(newest.start_us)}, absent for ${ago(silent_us / 1e6)}`);
  if (one.loading || newest.end_us === one.shown_us || document.hidden) return;
  const image = new Image();
  const done = () => {
    one.loading = false;
    one.shown_us = newest.end_us;
    if (cameras.get(name) === one) readFrame(name, one);
  };
  one.loading = true;
  image.onload = () => {
    image.alt = `${name} of ${state.chosen} at ${clock(newest.end_us)}`;
    one.image.replaceWith(image);
    one.image = image;
    one.missing.hidden = true;
    setText(one.caption, `${clock(newest.start_us)}   ${image.naturalWidth} × ${image.naturalHeight}`);
    done();
  };
  image.onerror = async () => {
    const why = await whyUnshown(image.src);
    one.image.hidden = true;
    one.missing.hidden = false;
    setText(one.missing, why);
    setText(one.caption, clock(newest.start_us));
    done();
  };
  image.src = `/api/frame?${new URLSearchParams({ session: state.chosen, end_us: newest.end_us, sensor: name })}`;
}
