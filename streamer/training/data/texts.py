"""Texts without labels, from which to learn words and the common embedding space.

wikiextractor   https://github.com/attardi/wikiextractor: ``<doc id=… url=… title=…>`` … ``</doc>``, or with --json
                one object per line with ``id``, ``url``, ``title``, ``text``; a file, or the folder of ``AA/wiki_00``
plain           .txt: texts separated by blank lines, or one per line if there are none; a file, or a folder of them

Each paragraph of an article is an example, since a model reads a few dozen words; all paragraphs of an article are in
the same part. Texts are read from the files when they are needed; an example takes half a kilobyte of memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamer.errors import UsageError
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data.rows import BadRow, File, Found, Row

PLAIN = ".txt"
WIKI = "wiki_*"  # wikiextractor's file names
DOCUMENT = re.compile(rb'<doc id="(?P<id>[^"]*)" [^>]*>\s*')
END = b"</doc>"


class Article(msgspec.Struct, frozen=True):
    """A line of wikiextractor --json."""

    id: str
    url: str
    title: str
    text: str


class Paragraph(msgspec.Struct, frozen=True):
    """A paragraph of an article that is a line of JSON."""

    line: File
    number: int

    def read(self) -> bytes:
        return _paragraphs(msgspec.json.decode(self.line.read(), type=Article))[self.number].encode()


class Line(NamedTuple):
    """A line of a file without surrounding white space, and where it is."""

    number: int
    begin: int
    text: bytes


def looks_so(path: Path) -> bool:
    """Whether it is such a file or a folder with such files."""
    return any(_kind(file) for file in _files(path))


def load(path: Path, spec: ModelSpec, settings: Settings) -> Iterator[Found]:
    """The rows of all files.

    Raises:
        UsageError: A file cannot be read, or an article does not end.
    """
    for file in _files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            yield from READERS[_kind(file)](file, name)
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror}") from None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if _kind(path) else []
    return sorted(file for file in (*path.glob(f"*{PLAIN}"), *path.glob(WIKI), *path.glob(f"*/{WIKI}")) if _kind(file))


def _kind(path: Path) -> str:
    """The reader of a file, by its name or its first line; empty if there is none."""
    if path.suffix.lower() == PLAIN:
        return "plain"
    try:
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
    except OSError:
        return ""
    if DOCUMENT.match(first):
        return "wiki"
    try:
        msgspec.json.decode(first, type=Article)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return "json"


def _lines(path: Path) -> Iterator[Line]:
    begin = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield Line(number, begin + len(line) - len(line.lstrip()), line.strip())
            begin += len(line)


def _plain(path: Path, name: str) -> Iterator[Found]:
    """Each run of lines is a text; if the file has no blank lines, each line is."""
    runs: list[list[Line]] = [[]]
    for line in _lines(path):
        if line.text:
            runs[-1].append(line)
        elif runs[-1]:
            runs.append([])
    divided = len(runs) > 1 and bool(runs[1])
    for lines in runs if divided else [[line] for line in runs[0]]:
        if lines:
            yield _row(path, name, lines, "")


def _wiki(path: Path, name: str) -> Iterator[Found]:
    """Paragraphs are lines; the first of an article is its title."""
    article, titled, opened = "", False, 0
    for line in _lines(path):
        begins = DOCUMENT.match(line.text)
        if begins:
            article, titled, opened = f"article {begins['id'].decode('utf-8', 'replace')}", False, line.number
        elif line.text == END:
            article = ""
        elif line.text and not article:
            yield BadRow(f"{name} line {line.number}", "is outside of <doc …> and </doc>")
        elif line.text and titled:
            yield _row(path, name, [line], article)
        elif line.text:
            titled = True
    if article:
        raise UsageError(f"{path} is truncated: the article of line {opened} has no </doc>")


def _json(path: Path, name: str) -> Iterator[Found]:
    for line in _lines(path):
        if not line.text:
            continue
        where = f"{name} line {line.number}"
        try:
            article = msgspec.json.decode(line.text, type=Article)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield BadRow(where, f"is no article of wikiextractor: {error}")
            continue
        source = File(str(path), name, line.begin, len(line.text))
        for number in range(len(_paragraphs(article))):
            paragraph = Paragraph(source, number)
            yield Row(
                f"{where} paragraph {number + 1}", {}, {"text": paragraph}, group=f"article {article.id}", checked=True
            )


def _paragraphs(article: Article) -> list[str]:
    lines = [line.strip() for line in article.text.splitlines()]
    return [line for line in lines if line and line != article.title]


def _row(path: Path, name: str, lines: Sequence[Line], group: str) -> Found:
    """Consecutive lines as one text. Equal texts are in the same part."""
    where = f"{name} line {lines[0].number}"
    text = b" ".join(line.text for line in lines)
    try:
        text.decode()
    except UnicodeDecodeError:
        return BadRow(where, "is not UTF-8 text: convert it, e.g. with iconv")
    begin = lines[0].begin
    source = File(str(path), name, begin, lines[-1].begin + len(lines[-1].text) - begin)
    return Row(where, {}, {"text": source}, group=group, key=hashlib.sha256(text).hexdigest()[:16], checked=True)


READERS = {"wiki": _wiki, "json": _json, "plain": _plain}
