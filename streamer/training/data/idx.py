"""Idx files: MNIST and other sets in its format (Fashion-MNIST, EMNIST, KMNIST), gzipped or not.

The format, as http://yann.lecun.com/exdb/mnist/ describes it: two zero bytes, a byte for the type of the values (8:
unsigned byte), a byte for the number of dimensions; a big-endian 32-bit size for each dimension; the values, row by
row.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data import labels
from streamer.training.data.parts import TEST
from streamer.training.data.rows import Found, of_pixels

# train-images-idx3-ubyte.gz; some mirrors write train-images.idx3-ubyte
IMAGES = re.compile(r"(?P<set>.*)images(?P<between>[-.])idx3-ubyte(?P<packed>\.gz)?")
UNSIGNED_BYTE = 8
MAX_BYTES = 4 << 30  # all of EMNIST has 0.6 GB; a header that claims more is damaged


def looks_so(path: Path) -> bool:
    """Whether it is an images file, or a folder with one."""
    return bool(_images_files(path))


def load(path: Path, spec: ModelSpec, settings: Settings) -> Iterator[Found]:
    """The rows of all pairs of images and labels; files called t10k or test are the test part.

    Raises:
        UsageError: A file is missing, truncated, too large or of another type, or the files of a pair do not match.
    """
    output = labels.class_output(spec, path)
    for images_path in _images_files(path):
        pixels_NHW, numbers_N = _pair(images_path)
        part = TEST if re.search("t10k|test", images_path.name) else ""
        names = labels.class_names(spec.outputs[output], int(numbers_N.max(initial=0)) + 1)
        yield from of_pixels(images_path.name, pixels_NHW, numbers_N.tolist(), names, output, part)


def _images_files(path: Path) -> list[Path]:
    """Files of images; one that exists both gzipped and not counts once."""
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    found = {file.name.removesuffix(".gz"): file for file in candidates if IMAGES.fullmatch(file.name)}
    return list(found.values())


def _pair(images_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    named = IMAGES.fullmatch(images_path.name)
    stem = f"{named['set']}labels{named['between']}idx1-ubyte" if named else ""
    labels_path = next((p for name in (stem, f"{stem}.gz") if (p := images_path.with_name(name)).is_file()), None)
    if labels_path is None:
        raise UsageError(f"{images_path} has no labels: {stem} or {stem}.gz must be beside it")
    pixels_NHW, numbers_N = read(images_path, 3), read(labels_path, 1)
    if len(pixels_NHW) != len(numbers_N):
        raise UsageError(f"{images_path} has {len(pixels_NHW)} images, {labels_path.name} {len(numbers_N)} labels")
    return pixels_NHW, numbers_N


def read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The values of a file with this number of dimensions.

    Raises:
        UsageError: It cannot be read, or is not what its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _values(path, file, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


def _values(path: Path, file: BinaryIO | gzip.GzipFile, dimensions: int) -> NDArray[np.uint8]:
    wanted = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    magic = file.read(4)
    if magic != wanted:
        raise UsageError(f"{path} begins with {magic.hex() or 'nothing'}, not {wanted.hex()}: no idx file of its name")
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise UsageError(f"{path} is truncated in its header")
    sizes = struct.unpack(f">{dimensions}I", header)
    count = math.prod(sizes)
    if count > MAX_BYTES or 0 in sizes[1:]:
        raise UsageError(f"{path} is damaged: its header has the sizes {' × '.join(map(str, sizes))}")
    content = file.read(count + 1)
    if len(content) != count:
        more = "more" if len(content) > count else "truncated: less"
        raise UsageError(f"{path} is {more} than the {count} bytes of its header's sizes")
    return np.frombuffer(content, np.uint8).reshape(sizes)
