"""What is said of a session's results, and when: pure.

A label is said when a window decides it and the window before did not; ``again_after_s`` of its sentence keeps one that
flickers from being said again and again. The labels that begin with one window are one utterance.

Utterances take time. This is how they follow each other, on the clock of event time: one that is more severe than the
one being said cuts it off. Another one waits until that has been said, and a newer one takes the place of one that
waits. Players that keep this rule say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from urllib.parse import quote

import msgspec

from streamer.errors import UsageError
from streamer.events import SPEECH_TYPE
from streamer.model.spec import PLACEHOLDER, ModelSpec, Sentence
from streamer.result import Result, in_words

MAX_CHARACTERS = 300  # in one utterance, about 20 s


class Severity(IntEnum):
    """How urgent an utterance is; travels by name."""

    NOTICE = 1
    WARNING = 2
    ALARM = 3


class Utterance(msgspec.Struct, frozen=True):
    """What is to be said of a window.

    Attributes:
        end_us: End of the window: when it is to be said, in event time.
        supersedes: Id of the utterance that it cuts off; empty if it cuts off none.
        rule: Whose alarm it says, see :mod:`streamer.rules`; empty if the model's ``[speak]`` says it.
    """

    session: str
    end_us: int
    text: str
    severity: Severity
    supersedes: str = ""
    rule: str = ""

    @property
    def id(self) -> str:
        """Follows from the window, which has one utterance at most of each rule; the session is percent-encoded."""
        rule = f"/{self.rule}" if self.rule else ""
        return f"{quote(self.session, safe='')}/{SPEECH_TYPE}/{self.end_us}{rule}"


class Playing(msgspec.Struct, frozen=True):
    """An utterance on the clock of event time."""

    id: str
    severity: Severity
    end_us: int


class Memory(msgspec.Struct):
    """What is remembered of a session between two of its results; kept in Redis as JSON.

    Attributes:
        before: Labels that the newest window decided, each as ``output/label``.
        newest_us: Label -> end of the newest window that decided it; only for sentences with ``again_after_s``.
        ended_us: End of the newest window if it closed because the session ended.
        saying: What is being said since the newest utterance began.
        waiting: What will be said after that, and how long it takes, microseconds.
    """

    before: list[str] = []
    newest_us: dict[str, int] = {}
    ended_us: int | None = None
    saying: Playing | None = None
    waiting: Playing | None = None


def sentences(spec: ModelSpec) -> dict[str, dict[str, Sentence]]:
    """Output -> label -> what is said of it, by the model's ``[speak]``.

    Without such a table each label of the first output that has labels is said as it is called. A sentence that does
    not say how severe it is has the label's severity.

    Raises:
        UsageError: The model has no output with labels.
    """
    table = spec.speak or _as_they_are_called(spec)
    return {name: {label: _graded(spec, name, label, one) for label, one in of.items()} for name, of in table.items()}


def _graded(spec: ModelSpec, name: str, label: str, sentence: Sentence) -> Sentence:
    severity = sentence.severity or spec.severity.get(name, {}).get(label, "notice")
    return msgspec.structs.replace(sentence, severity=severity)


def _as_they_are_called(spec: ModelSpec) -> dict[str, dict[str, Sentence]]:
    for name, output in spec.outputs.items():
        if output.labels:
            return {name: {label: Sentence(f"{label.replace('_', ' ').capitalize()}.") for label in output.labels}}
    raise UsageError(f"model {spec.name} has numbers alone, of which nothing is said: add [speak] to its model.toml")


class Speaker:
    """Decides what is said.

    Args:
        table: Of :func:`sentences`.
    """

    def __init__(self, table: dict[str, dict[str, Sentence]]) -> None:
        self._table = table

    def hear(self, result: Result, memory: Memory) -> Utterance | None:
        """Take a session's next result; gives what is to be said of it, and updates the memory.

        Tell :meth:`said` how long that takes before the session's next result.
        """
        # Several windows close when a session ends. What comes after them is another session of the name.
        if memory.ended_us is not None and (result.closed_by != "end" or result.start_us > memory.ended_us):
            memory.before, memory.newest_us = [], {}
        memory.ended_us = result.end_us if result.closed_by == "end" else None
        if not result.outputs:  # the model failed: nothing is decided, nothing changes
            return None
        begun = [found for found in self._decided(result) if self._begins(*found, result.end_us, memory)]
        memory.before = [key for key, _ in self._decided(result)]
        for key, sentence in self._decided(result):
            if sentence.again_after_s:
                memory.newest_us[key] = result.end_us
        if not begun:
            return None
        ordered = sorted((sentence for _, sentence in begun), key=_severity, reverse=True)
        text = " ".join(dict.fromkeys(_filled(sentence.say, result) for sentence in ordered))[:MAX_CHARACTERS]
        severity = _severity(ordered[0])
        self._pass_time(memory, result.end_us)
        cut = memory.saying if memory.saying is not None and severity > memory.saying.severity else None
        return Utterance(result.session, result.end_us, text, severity, cut.id if cut is not None else "")

    def said(self, utterance: Utterance, duration_us: int, memory: Memory) -> None:
        """Note how long an utterance takes; 0 if nothing could be said."""
        playing = Playing(utterance.id, utterance.severity, utterance.end_us + duration_us)
        if memory.saying is None or utterance.supersedes:
            memory.saying, memory.waiting = playing, None
        else:
            memory.waiting = msgspec.structs.replace(playing, end_us=memory.saying.end_us + duration_us)

    def _pass_time(self, memory: Memory, now_us: int) -> None:
        while memory.saying is not None and memory.saying.end_us <= now_us:
            memory.saying, memory.waiting = memory.waiting, None

    def _decided(self, result: Result) -> Iterator[tuple[str, Sentence]]:
        for name, of in self._table.items():
            output = result.outputs.get(name, {})
            if output.get("unsure"):
                continue
            labels = output.get("labels") or [output.get("label")]
            for label, sentence in of.items():
                if label in labels:
                    yield f"{name}/{label}", sentence

    def _begins(self, key: str, sentence: Sentence, end_us: int, memory: Memory) -> bool:
        if key in memory.before:
            return False
        newest_us = memory.newest_us.get(key)
        return newest_us is None or end_us - newest_us > sentence.again_after_s * 1e6


def _severity(sentence: Sentence) -> Severity:
    return Severity[(sentence.severity or "notice").upper()]


def _filled(say: str, result: Result) -> str:
    """A sentence with the window's outputs in the place of ``{NAME}``."""
    return re.sub(PLACEHOLDER, lambda found: in_words(result.outputs.get(found[1], {})), say)
