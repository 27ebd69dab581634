"""How good the pretrained senses are on real recordings: a table for each role, for docs/senses.md.

    python -m bench.senses [ROLE…] [--data FOLDER] [--record]

A role's module has ``measure(settings, data) -> Table``. ``--record`` writes the tables between the page's markers. The
recordings are those of the tests, and no part of the repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """What was measured of a role.

    Attributes:
        about: A paragraph before the table: which data, which measures.
        head: Headings of the columns.
        rows: Cells, a row for each thing measured.
    """

    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The paragraph and the table."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join([self.about, "", *(f"| {' | '.join(cells)} |" for cells in lines)])
