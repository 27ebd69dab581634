"""A result and its words -> what the window shows, in plain English. Pure: the same results in the same order give the
same sentences, on whichever machine and after however many restarts.

Outputs are those of any model folder: a class is told with its probability, and with what it was before if it has
changed; tags with their counts where the model counts; a number with its unit. A model that tells its findings in text
has told its tags and numbers by that. What a device had sent
before and this window lacks is named; silence is not, since people pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamer.describe.evidence import Words
from streamer.model.wording import counted, listed
from streamer.result import Result, strange
from streamer.settings import Settings

MAX_SAID = 300  # characters of what was said
POOR = 0.5  # a sensor that covers less of the window is named
PER = {"1/min": "per minute", "1/s": "per second", "1/h": "per hour"}
STATUS = {
    "failed": "The model failed on this window.",
    "empty": "There was nothing in this window that the model takes.",
    "partial": "Data may be missing from it, since Redis had lost what it knew of the session.",
}
SPARSE = frozenset({"text"})
STOPS = (".", "!", "?", "…")  # words that were said may bring their own


class Before(msgspec.Struct, frozen=True):
    """What the windows before have shown.

    Attributes:
        labels: Output of classes -> its newest label.
        seen: The sensors that the session has had so far.
    """

    labels: dict[str, str] = {}
    seen: tuple[str, ...] = ()

    def after(self, result: Result) -> Before:
        """The same after one more window."""
        labels = {name: str(output["label"]) for name, output in _decided(result)}
        seen = dict.fromkeys((*self.seen, *result.present))
        return Before(self.labels | labels, tuple(seen))


def changed(result: Result, before: Before) -> bool:
    """Whether an output of classes has another label than in the window before."""
    return any(
        name in before.labels and str(output.get("label")) != before.labels[name] for name, output in _decided(result)
    )


def _decided(result: Result) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outputs of classes that the model is sure of."""
    return ((n, output) for n, output in result.outputs.items() if "label" in output and not output.get("unsure"))


def sparse(settings: Settings) -> frozenset[str]:
    """The sensors whose silence says nothing."""
    return frozenset(name for name, sensor in settings.sensors.items() if sensor.idle_after_ms is None)


def sentences(result: Result, words: Words, before: Before, silent: frozenset[str] = SPARSE) -> str:
    """What the window shows.

    Args:
        silent: Sensors that are not missed where they are absent.
    """
    texts = [str(output["text"]) for output in result.outputs.values() if "text" in output]
    heads = [(name, output) for name, output in result.outputs.items() if not texts or {"text", "label"} & set(output)]
    told = [part for part in (_output(name, output, before.labels) for name, output in heads) if part]
    parts = [_sentence("; ".join(told)) if told else ""]
    parts.append(_said(words, " ".join(texts)))
    parts.append(_missing(result, before, silent))
    parts.append(_strange(result))
    parts.append(STATUS.get(result.status, ""))
    if result.closed_by == "end":
        parts.append("The session ends here.")
    return " ".join(part for part in parts if part) or "Nothing is known of this window."


def _output(name: str, output: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """One output, without a full stop; empty if it says nothing."""
    what = plain(name)
    if "label" in output:
        label = str(output["label"])
        score = output.get("score")
        sure = f" ({100 * score:.0f} %)" if isinstance(score, (int, float)) else ""
        if output.get("unsure"):
            return f"{what} may be {plain(label)}{sure}"
        was = labels.get(name, label)
        return f"{what} is {plain(label)}{sure}" + (f", and was {plain(was)} before" if was != label else "")
    if "labels" in output:
        counts = output.get("counts")
        counts = counts if isinstance(counts, Mapping) else {}
        return f"{what}: {listed([_tag(str(label), counts.get(label)) for label in output['labels']]) or 'none'}"
    if "value" in output:
        unit = str(output.get("unit") or "")
        return f"{what} is {output['value']:.5g} {PER.get(unit, unit)}".rstrip()
    return " ".join(str(output.get("text", "")).split())


def _strange(result: Result) -> str:
    """What is unlike all that the model has met."""
    names = strange(result)
    return (
        _sentence(f"the model has met nothing like this in {listed([plain(name) for name in names])}") if names else ""
    )


def _tag(label: str, count: Any) -> str:
    return counted(plain(label), int(count)) if isinstance(count, (int, float)) and count >= 1 else plain(label)


def _said(words: Words, told: str) -> str:
    """What was said, unless the outputs have told it."""
    said = " … ".join(phrase for phrase in words.phrases if phrase not in told)
    if len(said) > MAX_SAID:
        said = said[:MAX_SAID].rsplit(" ", 1)[0] + " …"
    parts = [f"Said: “{said}”."] if said else []
    if words.gone:
        parts.append("Kafka no longer has what was said.")
    return " ".join(parts)


def _missing(result: Result, before: Before, silent: frozenset[str]) -> str:
    absent = [name for name in before.seen if name not in result.present and name not in silent]
    poor = [
        f"{plain(name)} covers {100 * share:.0f} % of it"
        for name, share in result.coverage.items()
        if name in result.present and share < POOR
    ]
    parts = [f"There is no {listed([plain(name) for name in absent], 'or')}."] if absent else []
    parts += [_sentence(listed(poor))] if poor else []
    return " ".join(parts)


def plain(name: str) -> str:
    """A name from a model folder or a setting, as one writes it: ``heart_rate`` -> ``heart rate``."""
    return name.replace("_", " ")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith(STOPS) else '.'}"
