"""What models do with a kind of payloads: cut to a window, collate to tensors, encode.

One class a kind, in ``streamer.model.kinds``, or beside a kind of yours (``streamer.kinds.table``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from streamer.errors import BadRecord
from streamer.events import KIND_NAMES, KINDS, Event, Window
from streamer.kinds.kind import KindOfInput, part

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor, nn

    from streamer.model.nets.build import Plan
    from streamer.model.sample import Limits, Mismatch, Sample

Wanted = TypeVar("Wanted", bound=KindOfInput)


class Cutting(NamedTuple):
    """A window that is being cut; kinds add to its lists.

    Attributes:
        rejects: Events with a broken payload, each with its fault.
        mismatches: Audio payloads that are not as long as their events.
    """

    window: Window
    limits: Limits
    rejects: list[tuple[Event, BadRecord]]
    mismatches: list[Mismatch]


class Cut(NamedTuple):
    """What a window has of a sensor.

    Attributes:
        content: Fields of :class:`streamer.model.sample.Sample`; empty if the model has no such input, or there is
            nothing. A kind that has none there gives ``{"arrays": …}``.
        present: Whether the window has any content of the sensor.
        coverage: The share of the window that it covers.
    """

    content: dict[str, Any]
    present: bool
    coverage: float


class Handling(ABC, Generic[Wanted]):
    """How models handle a kind.

    Attributes:
        fields: Names of its tensors in the order in which its encoder takes them: the kind's name, for a mask
            ``_mask``, and the axes with a letter each, e.g. ``image_mask_BF``. A mask is True where there is content.
    """

    fields: ClassVar[tuple[str, ...]]

    @abstractmethod
    def cut(self, sensor: str, events: Sequence[Event], wanted: Wanted | None, cutting: Cutting) -> Cut:
        """Cut a sensor's events to the window's borders and decode what the model needs.

        Args:
            events: In order of time.
            wanted: The model's input; ``None``: it has none, and only presence and coverage are wanted.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Sample], wanted: Wanted, tokenizer: Tokenizer | None) -> dict[str, Tensor]:
        """Stack a sensor's content of several windows: a tensor for each of ``fields``.

        Args:
            samples: What has the sensor's content, see :meth:`streamer.model.sample.Sample.of`.
            tokenizer: The model's, if it reads words.
        """

    def lengths(self, wanted: Wanted, window_ms: int) -> dict[str, int]:
        """Length of the last axis of the tensors whose last axis is time, in a window of this length."""
        return {}

    def dimensions(self, wanted: Wanted, tokenizer: Tokenizer | None) -> dict[str, Any]:
        """What an encoder must know of the data: fields of :class:`streamer.model.nets.build.Data`."""
        return {"others": {wanted.kind: wanted}}

    @abstractmethod
    def encoder(self, plan: Plan) -> nn.Module:
        """A new encoder, which makes ``tokens_BND`` and ``mask_BN`` of its tensors."""


@cache
def handling(kind: str) -> Handling[Any]:
    """How models handle a kind, by its name."""
    made: Handling[Any] = part(KINDS[KIND_NAMES.index(kind)].model)()
    return made


def covered(window: Window, events: Iterable[Event]) -> float:
    """Share of the window that the union of the events' spans covers."""
    covered_us, reached_us = 0, window.start_us
    for event in sorted(events, key=lambda event: event.start_us):
        start_us, end_us = max(event.start_us, reached_us), min(event.end_us, window.end_us)
        covered_us += max(0, end_us - start_us)
        reached_us = max(reached_us, end_us)
    return covered_us / (window.end_us - window.start_us)
