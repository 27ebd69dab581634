"""Files of word vectors: word2vec's and GloVe's formats.

word2vec (Mikolov et al. 2013), text and binary: a line ``words dimensions``, then each word, a space and its vector: as
decimal numbers and a line break, or as little-endian float32 (after which some tools write a line break, some do not).
fastText's ``.vec`` is the text form.

GloVe (Pennington et al. 2014), text: the same without the first line. Binary: float64, no words: for each word of
``vocab.txt`` beside it, vector and bias as a word, then all of them again as context; a word's vector is the sum of
both, as in the text form.

Text and word2vec's binary may be compressed (``.gz``). Files are read as streams: of millions of vectors only those
that are needed take memory.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from streamer.errors import one_line
from streamer.model.nets.architecture import BuildError

MAX_DIMENSIONS = 16_384
MAX_LINE_BYTES = 1 << 20
MAX_WORD_BYTES = 4096
HEADER = re.compile(rb"(\d{1,18}) (\d{1,18})\s*\n")
VOCABULARY_FILE = "vocab.txt"  # the name that GloVe's scripts use

Entry = tuple[str, bytes]  # a word and its vector as in the file


class WordVectors:
    """A file of word vectors.

    Raises:
        BuildError: It is missing or not such a file; while it is read: it is truncated, or a line is broken.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BuildError(f"{path} is not a file of word vectors")
        self.path = path
        self._is_text = True
        self._count: int | None = None
        self._glove_words: list[str] = []
        with self._open() as file:
            first = file.readline(MAX_LINE_BYTES)
            header = HEADER.fullmatch(first)
            if header:
                self._count, self.dimensions = int(header[1]), int(header[2])
                self._check_claim()
                self._is_text = _numbers_in(file.readline(MAX_LINE_BYTES)) >= self.dimensions
            elif (numbers := _numbers_in(first)) > 1:
                self.dimensions = numbers
            else:
                self._of_glove_binary()

    def words(self, most: int) -> list[str]:
        """The first words, which are the most frequent ones in files made by these tools."""
        found: list[str] = []
        for word, _ in self._entries():
            if len(found) == most:
                break
            found.append(word)
        return found

    def vectors(self, wanted: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Vectors [dimensions] of the wanted words that the file has; of a repeated word the first."""
        names = set(wanted)
        found: dict[str, NDArray[np.float32]] = {}
        for word, stored in self._entries():
            if word in names and word not in found:
                found[word] = self._numbers(word, stored)
        return found

    def _numbers(self, word: str, stored: bytes) -> NDArray[np.float32]:
        try:
            if self._is_text:
                vector = np.array(stored.split(), np.float64).astype(np.float32)
            elif self._glove_words:
                word_side, context_side = np.frombuffer(stored, "<f8").reshape(2, -1)[:, :-1]
                vector = (word_side + context_side).astype(np.float32)
            else:
                vector = np.frombuffer(stored, "<f4").astype(np.float32)
        except ValueError as error:
            raise BuildError(f"{self.path}: the vector of {word!r} is broken: {one_line(error)}") from None
        if not np.isfinite(vector).all():
            raise BuildError(f"{self.path}: the vector of {word!r} holds numbers that are not finite")
        return vector

    def _entries(self) -> Iterator[Entry]:
        if self._glove_words:
            return self._glove_entries()
        return self._text_entries() if self._is_text else self._binary_entries()

    def _text_entries(self) -> Iterator[Entry]:
        count = 0
        with self._open() as file:
            if self._count is not None:
                file.readline(MAX_LINE_BYTES)
            while line := file.readline(MAX_LINE_BYTES):
                parts = line.rstrip().rsplit(b" ", self.dimensions)  # GloVe's 840B has words with spaces in them
                whole = line.endswith(b"\n")  # else the last number may lack digits
                if len(parts) != self.dimensions + 1 or not whole:
                    raise BuildError(
                        f"{self.path} is truncated or damaged: vector {count + 1:,} has {len(parts) - 1} of "
                        f"{self.dimensions} numbers{'' if whole else ' and no line break'}"
                    )
                count += 1
                yield parts[0].decode("utf-8", "replace"), b" ".join(parts[1:])
        self._check_count(count)

    def _binary_entries(self) -> Iterator[Entry]:
        with self._open() as file:
            file.readline(MAX_LINE_BYTES)
            for number in range(cast(int, self._count)):
                word = _until_space(file).lstrip(b"\n")
                vector = file.read(4 * self.dimensions)
                if not word or len(vector) < 4 * self.dimensions:
                    raise BuildError(f"{self.path} is truncated: it has {number} of {self._count} vectors")
                yield word.decode("utf-8", "replace"), vector

    def _glove_entries(self) -> Iterator[Entry]:
        row_bytes = 8 * (self.dimensions + 1)
        with self.path.open("rb") as word_side, self.path.open("rb") as context_side:
            context_side.seek(len(self._glove_words) * row_bytes)
            for word in self._glove_words:
                yield word, word_side.read(row_bytes) + context_side.read(row_bytes)

    def _of_glove_binary(self) -> None:
        beside = self.path.with_name(VOCABULARY_FILE)
        if not beside.is_file():
            raise BuildError(
                f"{self.path} is no file of word vectors of word2vec or GloVe (GloVe's binary ones need "
                f"{VOCABULARY_FILE} beside them)"
            )
        lines = beside.read_text("utf-8", "replace").splitlines()
        self._glove_words = [line.rsplit(" ", 1)[0] for line in lines if line]
        numbers, odd = divmod(self.path.stat().st_size, 8)
        rows = 2 * len(self._glove_words)
        if odd or not rows or numbers % rows or numbers // rows < 2:
            raise BuildError(f"{self.path} is truncated, or not of the {len(self._glove_words)} words of {beside}")
        self._is_text = False
        self.dimensions = numbers // rows - 1

    def _check_claim(self) -> None:
        """Compare the header with the file's size before memory is allocated for it."""
        if not 0 < self.dimensions <= MAX_DIMENSIONS or not self._count:
            raise BuildError(f"{self.path} claims {self._count:,} vectors of {self.dimensions:,} numbers")
        least = self._count * 2 * (self.dimensions + 1)  # a digit and a space for each number, as text
        size = self.path.stat().st_size
        if self.path.suffix != ".gz" and least > size:
            raise BuildError(
                f"{self.path} claims {self._count:,} vectors of {self.dimensions:,} numbers, which do not fit into its "
                f"{size:,} bytes: it is truncated or no file of word vectors"
            )

    def _check_count(self, count: int) -> None:
        if self._count is not None and count != self._count:
            raise BuildError(
                f"{self.path} has {count:,} vectors and claims {self._count:,}: it is truncated or damaged"
            )

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") as raw:
                zipped = self.path.suffix == ".gz"
                with gzip.open(raw) if zipped else raw as file:
                    yield cast(BinaryIO, file)
        except (OSError, EOFError, zlib.error) as error:
            raise BuildError(f"{self.path} is truncated or cannot be read: {one_line(error)}") from None


def _numbers_in(line: bytes) -> int:
    """The number of numbers at the end of a line after a word; 0 for any other line."""
    fields = line.rstrip().split(b" ")
    numbers = 0
    for field in reversed(fields[1:]):
        try:
            float(field)
        except ValueError:
            break
        numbers += 1
    return numbers


def _until_space(file: BinaryIO) -> bytes:
    word = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        word += byte
        if len(word) > MAX_WORD_BYTES:
            return b""
    return bytes(word)
