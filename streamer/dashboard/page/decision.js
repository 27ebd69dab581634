// The newest decision, its facts, what it shows in words, and clocks that drift.

import { $, ask, clock, element, milliseconds, number, setText } from "./dom.js";
import { grade } from "./grade.js";
import { state } from "./state.js";
import { closedBy } from "./wording.js";

// classes, tags with or without counts, a number or words, as text
function saying(output) {
  if (typeof output.text === "string") return output.text;
  if (output.labels) {
    const counted = (label) => (output.counts?.[label] > 1 ? `${output.counts[label]} × ${label}` : label);
    return output.labels.map(counted).join(", ") || "–";
  }
  if (typeof output.value === "number") return `${number(output.value)} ${output.unit}`.trim();
  return String(output.label);
}

// sensors whose clocks drift away from the session's others, as its worker reports them now
export async function readDrifts() {
  const name = state.chosen;
  if (name === null || document.hidden) return;
  try {
    const found = await ask("/api/drifts", { session: name });
    if (name === state.chosen) showDrifts(found);
  } catch (error) {
    console.warn(error.message);
  }
}

export function showDrifts(drifts) {
  $("drifts").hidden = !drifts.length;
  $("drifts").replaceChildren(
    ...drifts.map(({ sensor, ppm, left_s }) => {
      const left = left_s < 120 ? `${Math.round(left_s)} s` : `${Math.round(left_s / 60)} min`;
      const fate = left_s > 0 ? `in ${left} windows lose members` : "windows lose members";
      const side = ppm > 0 ? "slow" : "fast";
      return element("li", { textContent: `The clock of ${sensor} is ${side} by ${Math.round(Math.abs(ppm))} ppm: ${fate}.` });
    }),
  );
}

// what the window shows in words, as `streamer describe` has it; newer ones replace older ones
export function showDescription(description) {
  if (description.session !== state.chosen || (state.at_us !== null && description.end_us > state.at_us)) return;
  const node = $("description");
  if (!node.hidden && description.end_us < Number(node.dataset.end_us)) return;
  node.hidden = false;
  node.dataset.end_us = description.end_us;
  setText(node, description.text);
  const by = description.by === "outputs" ? "made from the outputs and the words" : `by ${description.by}`;
  node.title = `${clock(description.start_us)}, ${by}${description.note ? `; ${description.note}` : ""}`;
}

// of the newest window: an early result is shown in the decision alone, and marked as provisional
export function newest() {
  const last = state.results.at(-1);
  return state.first && state.at_us === null && !(last?.end_us >= state.first.end_us) ? state.first : last;
}

function what() {
  return element("p", { className: "what" }, element("span"), element("span", { className: "severity" }));
}

export function showDecision(result) {
  $("provisional").hidden = result.final !== false;
  const all = Object.entries(result.outputs);
  const short = all.filter(([, output]) => output.text === undefined); // the description has the words
  const heads = short.length ? short : all;
  const box = $("heads");
  while (box.children.length > Math.max(1, heads.length)) box.lastChild.remove();
  while (box.children.length < Math.max(1, heads.length)) {
    const score = element("div", { className: "score" }, element("meter", { max: 1 }), element("span"));
    box.append(
      element("div", { className: "head" }, what(), element("p", { className: "label" }), score),
    );
  }
  const why = result.status === "empty" ? "nothing that the model takes" : "the model failed on this window";
  const shown = heads.length ? heads : [[why, { label: result.status, score: null }]];
  shown.forEach(([name, output], index) => {
    const [title, label, score] = box.children[index].children;
    const [named, severity] = title.children;
    const [meter, value] = score.children;
    setText(named, name);
    const sure = !output.unsure && result.final !== false;
    grade(severity, { severity: output.severity, sure, final: result.final });
    label.dataset.severity = output.severity ?? "";
    label.dataset.sure = String(sure);
    setText(label, `${saying(output)}${output.unsure ? "?" : ""}`);
    label.classList.toggle("bad", !heads.length);
    label.classList.toggle("unsure", Boolean(output.unsure));
    label.title = output.unsure ? "The model is unsure: this is not to be acted on" : "";
    score.hidden = typeof output.score !== "number";
    if (score.hidden) return;
    meter.value = output.score;
    meter.setAttribute("aria-label", `score of ${saying(output)}`);
    setText(value, output.score.toFixed(2));
  });
  const strange = Object.entries(result.novelty ?? {}).filter(([, far]) => far > 1).map(([name]) => name);
  $("strange").hidden = !strange.length;
  setText($("strange"), `The model has met nothing like this: ${strange.join(", ")}`);
  setText($("fact-window"), `${clock(result.start_us)}, ${(result.end_us - result.start_us) / 1e6} s`);
  setText($("fact-closed"), closedBy(result));
  setText($("fact-latency"), milliseconds(result.latencies_us.total));
  $("fact-latency").title = Object.entries(result.latencies_us).map(([stage, us]) => `${stage} ${milliseconds(us)}`).join(", ");
  setText($("fact-model"), `${result.model} ${result.version}`);
  $("fact-model").title = `${result.model} ${result.version}`;
}
