"""How rows of data sets have a kind's contents: one class a kind, in ``columns``, or beside a kind of yours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from streamer.events import KIND_NAMES, KINDS
from streamer.kinds.kind import KindOfInput, part
from streamer.model.sample import Sample

Cell = TypeVar("Cell")


class Piece(NamedTuple):
    """An event of a row's window, which begins at 0; see :class:`streamer.events.Event`."""

    start_us: int
    end_us: int
    payload: bytes
    media_type: str
    body: Any = None


class Column(ABC, Generic[Cell]):
    """A kind's contents in rows.

    Attributes:
        value: Type of a manifest's values.
    """

    value: ClassVar[Any]

    @abstractmethod
    def cell(self, value: Any, folder: Path) -> Cell:
        """A manifest's value, of the type ``value``, as what :meth:`pieces` reads; no file is opened.

        Raises:
            RowError: It cannot be right.
        """

    def files(self, value: Any) -> list[str]:
        """Names of the files that a manifest's value names: rows with the same files are in the same part."""
        return []

    @abstractmethod
    def pieces(self, cell: Cell, start_us: int, end_us: int) -> Iterable[Piece]:
        """The events of a row.

        Args:
            start_us: Where the row's contents begin; below 0 if the window begins later in them.
            end_us: End of the window.

        Raises:
            RowError: Something cannot be read.
        """

    def fault(self, sample: Sample, wanted: KindOfInput) -> str | None:
        """What a model cannot use in contents that are there, begun with a verb; ``None``: nothing.

        Args:
            sample: What has the sensor's content.
        """
        return None


@cache
def column(kind: str) -> Column[Any]:
    """How rows have a kind's contents, by its name."""
    made: Column[Any] = part(KINDS[KIND_NAMES.index(kind)].column)()
    return made
