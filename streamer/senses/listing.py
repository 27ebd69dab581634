"""What is there of the table of senses, for ``streamer senses``."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.errors import UsageError
from streamer.senses.files import State, find, state
from streamer.senses.table import ROLES, rows
from streamer.settings import Settings


@dataclass(frozen=True)
class Line:
    """A network of the table, or what a setting names instead.

    Attributes:
        role: Its role.
        name: Its name in the table, or the setting's value.
        state: Whether it is there: "ready", "missing", or "changed" if a file is not the known one.
        in_use: Whether it takes the role.
        packages: Packages with versions, as pip writes them; empty for what is not in the table, as are the next four.
        bytes: Size of its wheels.
        licence: As the packages state it.
        maker: Who publishes it.
        extra: Whether the extra ``senses`` installs it.
        contract: What goes in and what comes out.
        trouble: For a setting that cannot be followed: why.
    """

    role: str
    name: str
    state: State
    in_use: bool
    packages: tuple[str, ...] = ()
    bytes: int | None = None
    licence: str = ""
    maker: str = ""
    extra: bool = False
    contract: str = ""
    trouble: str = ""


def listing(settings: Settings) -> list[Line]:
    """All networks, by role; those of the user's settings come first in their role."""
    return [line for role in ROLES for line in _of(role, settings)]


def _of(role: str, settings: Settings) -> list[Line]:
    wanted = settings.senses.get(role)
    taken, trouble = wanted, ""
    try:
        taken = find(role, settings).name
    except UsageError as error:
        trouble = str(error)
    known = rows(role)
    lines = [
        Line(
            role,
            row.name,
            state(row, settings.senses_dir),
            row.name == taken,
            tuple(f"{package.name}=={package.version}" for package in row.packages),
            row.wheel_bytes,
            row.licence,
            row.maker,
            row.extra,
            row.contract,
        )
        for row in known
    ]
    if wanted is not None and wanted not in [row.name for row in known]:
        lines.insert(0, Line(role, wanted, "missing" if trouble else "ready", True, trouble=trouble))
    return lines
