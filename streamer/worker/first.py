"""First results: what the early run of a window found, and whether it holds once the window has closed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamer.events import Position, Window
from streamer.model.predictor import Prediction, Predictor
from streamer.model.sample import Reject, Sample
from streamer.result import in_words
from streamer.worker.ports import Owner


class First(msgspec.Struct, eq=False):
    """What an early run found.

    Attributes:
        members: The window's records, by sensor.
        sample: Without its content: what a result tells of it.
        rejects: Records with broken payloads; they become dead letters with the final result.
        shown: Whether Redis took it for the session's newest result.
    """

    owner: Owner
    members: tuple[Position, ...]
    predictor: Predictor
    sample: Sample
    rejects: list[Reject]
    prediction: Prediction
    shown: bool = False

    @classmethod
    def of(
        cls,
        owner: Owner,
        window: Window,
        predictor: Predictor,
        sample: Sample,
        rejects: list[Reject],
        prediction: Prediction,
    ) -> First:
        """Keep what the final result may need, and no payload or array."""
        told = Sample(sample.present, sample.coverage, mismatches=sample.mismatches, sensors=sample.sensors)
        return cls(owner, _members(window), predictor, told, rejects, prediction)

    def holds(self, window: Window, predictor: Predictor) -> bool:
        """Whether a run of the closed window would be the same: no record has come, and the model is the same."""
        return self.predictor is predictor and self.members == _members(window)


def _members(window: Window) -> tuple[Position, ...]:
    return tuple(event.position for events in window.events for event in events)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """The outputs whose decision is another: label, tags or words. Numbers are measured, not decided."""
    for name in before.keys() | after.keys():
        said = [outputs.get(name, {}) for outputs in (before, after)]
        if not any("value" in output for output in said) and in_words(said[0]) != in_words(said[1]):
            yield name
