"""Folders of files, a folder per class, as in ImageNet and IMDB.

    train/pos/0_9.txt  train/neg/0_3.txt  test/pos/…            parts given
    cat/1.jpg  dog/2.jpg                                        flat: parts are drawn

The class folder's name is the label. Its files are images (JPEG, PNG, WebP), sounds (WAV, FLAC, Ogg, MP3) or texts
(.txt), also in subfolders; hidden files, and files beside the class folders, are ignored. Reviews in ``unsup``, a
folder of IMDB (Maas et al. 2011, https://ai.stanford.edu/~amaas/data/sentiment/), have no label.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from streamer.errors import UsageError
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data import labels
from streamer.training.data.parts import NAMES
from streamer.training.data.rows import BadRow, File, Found, Row, RowError
from streamer.training.dataset import Label

IMAGES, SOUNDS, TEXTS = (".jpg", ".jpeg", ".png", ".webp"), (".wav", ".flac", ".ogg", ".oga", ".mp3"), (".txt",)
UNLABELLED = "unsup"


def looks_so(path: Path) -> bool:
    """Whether a subfolder of it, or of its train, val or test, has a file of a known kind."""
    if not path.is_dir():
        return False
    folders = [class_folder for _, part in _parts(path) for class_folder in _folders(part)]
    return any(Path(name).suffix.lower() in (*IMAGES, *SOUNDS, *TEXTS) for f in folders for name in _files(f))


def load(path: Path, spec: ModelSpec, settings: Settings) -> Iterator[Found]:
    """The rows of all class folders; a folder whose name is not a label of the model is a single bad row.

    Raises:
        UsageError: A part has no class folders, or a folder cannot be read.
    """
    output = labels.class_output(spec, path)
    for part, folder in _parts(path):
        class_folders = _folders(folder)
        if not class_folders:
            raise UsageError(f"{folder} has no class folders: sort its files into a folder per class")
        for class_folder in class_folders:
            where = class_folder.relative_to(path).as_posix()
            files = list(_files(class_folder))
            try:
                own = {} if class_folder.name == UNLABELLED else labels.checked(spec, {output: class_folder.name})
            except RowError as error:
                yield BadRow(f"{where}/ ({len(files)} files)", str(error))
                continue
            for name in files:
                yield _row(f"{where}/{name}", class_folder / name, own, part)


def _row(where: str, path: Path, own: dict[str, Label], part: str) -> Found:
    content, kind = File(str(path), path.name), path.suffix.lower()
    if kind in IMAGES:
        return Row(where, own, contents={"image": (content,)}, part=part, key=where)
    if kind in SOUNDS:
        return Row(where, own, contents={"audio": content}, part=part, key=where)
    if kind in TEXTS:
        return Row(where, own, contents={"text": content}, part=part, key=where)
    known = " ".join((*IMAGES, *SOUNDS, *TEXTS))
    return BadRow(where, f"is neither image, sound nor text by its name; known: {known}")


def _parts(path: Path) -> list[tuple[str, Path]]:
    """Part -> its folder; the whole path, if no folder has the name of a part."""
    parts = [(NAMES[folder.name.lower()], folder) for folder in _folders(path) if folder.name.lower() in NAMES]
    return parts or [("", path)]


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _files(path: Path) -> Iterator[str]:
    """Names of the files below a folder, relative to it, in order."""
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(path)
        yield from ((below / name).as_posix() for name in sorted(names) if not name.startswith("."))
