"""First results: what the early run of a window found, and whether it holds once the window has closed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamer.events import Window
from streamer.model.predictor import Prediction, Predictor
from streamer.model.sample import Known, Reject, Sample, members, remembered
from streamer.result import in_words
from streamer.worker.ports import Owner


class First(msgspec.Struct, eq=False):
    """What an early run found.

    Attributes:
        found: Its rejects, records with broken payloads, become dead letters with the final result.
        whole: Whether the sample has its content, so that the final run decodes and encodes only what has come since.
        shown: Whether Redis took it for the session's newest result.
    """

    owner: Owner
    predictor: Predictor
    found: Known
    prediction: Prediction
    whole: bool
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
        room: int,
    ) -> First:
        """Keep what the final run may need, and no payload.

        Args:
            room: The sample's content is kept if it has no more bytes than that.
        """
        kept = remembered(sample, prediction.encoded)
        whole = kept.nbytes <= room
        if not whole:
            kept = Sample(sample.present, sample.coverage, mismatches=sample.mismatches, sensors=sample.sensors)
        prediction = msgspec.structs.replace(prediction, encoded={})
        return cls(owner, predictor, Known(members(window), kept, rejects), prediction, whole)

    @property
    def nbytes(self) -> int:
        """Bytes of what it keeps of the payloads."""
        return self.found.sample.nbytes

    def holds(self, window: Window, predictor: Predictor) -> bool:
        """Whether a run of the closed window would be the same: no record has come, and the model is the same."""
        return self.predictor is predictor and self.found.members == members(window)

    def known(self, predictor: Predictor) -> Known | None:
        """What the decoding of the closed window need not do again."""
        return self.found if self.whole and self.predictor is predictor else None


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """The outputs whose decision is another: label, tags or words. Numbers are measured, not decided."""
    for name in before.keys() | after.keys():
        said = [outputs.get(name, {}) for outputs in (before, after)]
        if not any("value" in output for output in said) and in_words(said[0]) != in_words(said[1]):
            yield name
