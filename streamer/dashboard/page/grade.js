// The severity of what is decided, as a word that colours only repeat. What is not to be relied on looks otherwise than
// what is: an open outline and a question mark where the model is unsure, or the window still waits for a sensor.

import { setText } from "./dom.js";

// Args:
//   severity: of an output, by the model; undefined: the model does not say
//   final: false while the window waits
export function grade(node, { severity, sure, final }) {
  const graded = severity !== undefined && severity !== "normal";
  node.hidden = !graded;
  node.dataset.severity = severity ?? "";
  node.dataset.sure = String(sure);
  const why = final === false ? "Provisional: the window still waits for a sensor" : "The model is unsure: this is not to be acted on";
  node.title = sure ? "" : why;
  setText(node, graded ? `${severity}${sure ? "" : "?"}` : "");
}
