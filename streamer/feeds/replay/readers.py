"""Which reader opens a file: by entry points, so that a package of yours can add one.

An entry point of the group ``streamer.recordings`` names a function ``part(path, options) -> Part``. Its own name says
what the function reads, in lower case:

    mp4, rlog.zst         files whose name ends so, after a dot
    rlog                  files that are called so
    folder:metadata.yaml  folders that hold a file or folder of this name
    *                     files that no other name matches

The longest name that matches wins. No reader is imported before a file needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from streamer.errors import UsageError
from streamer.feeds.replay.part import Options, Part

GROUP = "streamer.recordings"
FOLDER = "folder:"
ANY = "*"
EXTRA = "pip install 'streamer-multimodal[feeds]'"

Reader = Callable[[Path, Options], Part | None]


def known() -> dict[str, EntryPoint]:
    """Name of an entry point -> the entry point."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def open_part(path: Path, options: Options) -> Part | None:
    """Open a recording; ``None`` if it only explains another one.

    Raises:
        UsageError: It is missing, of unknown kind, broken, or has nothing to send.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    readers = known()
    name = next((name for name in _names(path, readers) if name in readers), None)
    if name is None and path.is_dir():
        kinds = ", ".join(sorted(name.removeprefix(FOLDER) for name in readers if name.startswith(FOLDER)))
        known_folders = f" (known are folders with {kinds})" if kinds else ""
        raise UsageError(f"{path} is a folder of no known kind{known_folders}: name the files in it of one session")
    unknown = f"{path} is of no known kind; known are {kinds_of_files()}"
    if name is None:
        raise UsageError(unknown)
    try:
        return _read(readers[name], path, options)
    except UsageError as error:
        if name == ANY:
            raise UsageError(unknown) from error
        raise


def kinds_of_files() -> str:
    """The endings that are known, for a message."""
    return " ".join(f".{name}" for name in known() if name != ANY and not name.startswith(FOLDER))


def _names(path: Path, readers: dict[str, EntryPoint]) -> Iterator[str]:
    """Names of readers to look for, the longest first."""
    if path.is_dir():
        there = [name for name in readers if name.startswith(FOLDER) and (path / name.removeprefix(FOLDER)).exists()]
        yield from sorted(there, key=len, reverse=True)
        return
    rest = path.name.lower()
    yield rest
    while "." in rest:
        rest = rest.partition(".")[2]
        yield rest
    yield ANY


def _read(entry: EntryPoint, path: Path, options: Options) -> Part | None:
    try:
        return cast(Reader, entry.load())(path, options)
    except ModuleNotFoundError as error:  # a reader names its extra, if it has another than the one of all readers
        remedy = EXTRA if entry.module.startswith("streamer.") else f"install it, {entry.module} needs it"
        raise UsageError(f"{path} needs the package {error.name}: {remedy}") from None
