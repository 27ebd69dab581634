"""What a kind of payloads is: all that differs between images, sounds, words and measurements, under one object.

Aligners have kinds, so none of this imports PyTorch: what models do with a kind, and how data sets have it, are in
other modules, which are named here as ``module:attribute`` and imported when they are first used, by
:func:`streamer.model.handling.handling` and :func:`streamer.training.data.column.column`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

if TYPE_CHECKING:
    from streamer.events import Event, Window


class KindOfInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """What all inputs have: ``[inputs.NAME]`` of a ``model.toml``; each kind has its own, tagged with its name.

    Attributes:
        share: Another input of this kind and shape, whose encoder reads this one too; empty: it has its own.
    """

    share: str = ""

    @property
    def kind(self) -> str:
        """Name of its kind."""
        return str(type(self).__struct_config__.tag)

    def problem(self) -> str | None:
        """What is wrong with it beside its fields' types, begun with the field's name; ``None``: nothing."""
        return None


class Read(NamedTuple):
    """What a payload says of its event.

    Attributes:
        body: The parsed payload, of kinds whose time is inside it; else ``None``.
        start_us: Start of its content after ``ce_time``, µs.
        length_us: Its length, µs; ``None`` if only the header ``ce_durationus`` could say, and does not.
    """

    body: Any
    start_us: int
    length_us: int | None


class Kind(ABC):
    """A kind of payloads.

    Attributes:
        name: Also of the sensor that records belong to which name none.
        topic: Suffix: the full name is ``f"{settings.topic_prefix}.{topic}"``.
        ce_type: CloudEvents type of its records.
        content_types: Media types that they may have, lower case.
        input: What a model may say about an input of this kind.
        rules: Fields of ``SensorSettings`` in which its sensors differ from others, if nothing is declared.
        model: ``module:attribute`` of what makes its :class:`streamer.model.handling.Handling`: a class.
        column: ``module:attribute`` of what makes its :class:`streamer.training.data.column.Column`: a class.
    """

    name: ClassVar[str]
    topic: ClassVar[str]
    ce_type: ClassVar[str]
    content_types: ClassVar[tuple[str, ...]]
    input: ClassVar[type[KindOfInput]]
    rules: ClassVar[Mapping[str, object]] = {}
    model: ClassVar[str]
    column: ClassVar[str]

    @abstractmethod
    def read(self, payload: bytes | None, media_type: str, params: Mapping[str, str], said_us: int | None) -> Read:
        """Read of a payload what alignment must know; every record comes here.

        Args:
            payload: ``None`` if it lies elsewhere (claim check).
            media_type, params: Content type, see :class:`streamer.events.Event`.
            said_us: The header ``ce_durationus``.

        Raises:
            BadRecord: The payload is broken in what had to be read.
        """

    def opened(self, window: Window, events: Sequence[Event], wanted: KindOfInput | None) -> tuple[bool, ...]:
        """Which of a sensor's payloads cutting opens if none of them is broken; only these travel to role infer.

        Args:
            events: The sensor's members of the window.
            wanted: The model's input of this sensor; ``None``: it has none.
        """
        return (wanted is not None,) * len(events)


@cache
def part(where: str) -> Any:
    """What a kind names as ``module:attribute``."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
