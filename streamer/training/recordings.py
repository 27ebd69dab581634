"""Recordings as the windows that a model would see of them, to measure what it says of what it was not made for."""

from __future__ import annotations

from pathlib import Path

import msgspec

from streamer.events import KIND_NAMES
from streamer.feeds import replay
from streamer.model.sample import Limits, Sample, cut
from streamer.model.spec import ModelSpec
from streamer.training.simulated import START_US, aligned, logged, settings_of


def samples_of(path: Path, spec: ModelSpec) -> list[Sample]:
    """The windows of a film, a sound, a table … that have anything that the model reads.

    What it has of a kind is taken for the model's first input of that kind.

    Raises:
        StreamerError: It cannot be read.
    """
    first = {kind: next(iter(spec.inputs.of_kind(kind)), None) for kind in KIND_NAMES}
    settings = settings_of(spec)
    sent = (
        msgspec.structs.replace(record, sensor=name)
        for record in replay.open_all([path], replay.Options()).outgoing(path.stem, START_US)
        if (name := first[KIND_NAMES[record.row]]) is not None
    )
    cuts = (cut(window, spec.inputs, Limits.of(settings)) for window in aligned(logged(sent), settings))
    return [sample for sample, _ in cuts if any(sample.present)]
