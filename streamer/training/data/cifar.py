"""CIFAR-10 (Krizhevsky 2009), its batches for Python and the binary ones: https://www.cs.toronto.edu/~kriz/cifar.html.

A binary batch is records of 3,073 bytes: the class, then 32 × 32 pixels of red, of green and of blue, row by row. A
Python batch is a pickled dictionary whose ``data`` has the same 3,072 bytes a row, and whose ``labels`` is the list
of classes.

A pickle can run any code. These are read by an unpickler that only knows NumPy arrays of bytes, and makes those itself;
a file that names any other type is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError, one_line
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data import labels
from streamer.training.data.parts import TEST
from streamer.training.data.rows import Found, of_pixels

SIDE, COLOURS, CLASSES = 32, 3, 10
PIXELS = COLOURS * SIDE * SIDE
TRAINING_BATCHES, TEST_BATCH = [f"data_batch_{number}" for number in range(1, 6)], "test_batch"
BINARY = ".bin"
MAX_BATCH_BYTES = 256 << 20  # a batch has 31 MB


def looks_so(path: Path) -> bool:
    """Whether it is a folder with batches, as in CIFAR's archives."""
    return bool(_batches(path))


def load(path: Path, spec: ModelSpec, settings: Settings) -> Iterator[Found]:
    """The rows of all batches in the folder; ``test_batch`` is the test part.

    Raises:
        UsageError: A batch is truncated or not a batch.
    """
    output = labels.class_output(spec, path)
    names = labels.class_names(spec.outputs[output], CLASSES, _names(path))
    for batch in _batches(path):
        numbers_N, data_NP = _binary(batch) if batch.suffix == BINARY else _python(batch)
        pixels_NHW3 = data_NP.reshape(-1, COLOURS, SIDE, SIDE).transpose(0, 2, 3, 1)
        part = TEST if batch.stem == TEST_BATCH else ""
        yield from of_pixels(batch.name, pixels_NHW3, numbers_N, names, output, part)


def _batches(path: Path) -> list[Path]:
    files = [path / f"{name}{end}" for end in ("", BINARY) for name in (*TRAINING_BATCHES, TEST_BATCH)]
    return [file for file in files if file.is_file()]


def _names(path: Path) -> Sequence[str]:
    """The classes' names, if there is a file with them."""
    lines, pickled = path / "batches.meta.txt", path / "batches.meta"
    if lines.is_file():
        return _content(lines).decode("utf-8", "replace").split()
    if not pickled.is_file():
        return ()
    names = _unpickled(pickled).get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise UsageError(f"{pickled} has no label_names")
    return [name.decode("utf-8", "replace") for name in names]


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BATCH_BYTES:
            raise UsageError(f"{path} has more than {MAX_BATCH_BYTES >> 20} MiB: no batch of CIFAR-10")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _binary(path: Path) -> tuple[list[int], NDArray[np.uint8]]:
    content = _content(path)
    if not content or len(content) % (1 + PIXELS):
        raise UsageError(f"{path} is truncated: {len(content)} bytes are no whole number of {1 + PIXELS}-byte records")
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 0].tolist(), records[:, 1:]


def _python(path: Path) -> tuple[list[int], NDArray[np.uint8]]:
    batch = _unpickled(path)
    numbers, data = batch.get(b"labels"), batch.get(b"data")
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise UsageError(f"{path} has no labels of CIFAR-10")
    data_NP = data.values() if isinstance(data, _Array) else None
    if data_NP is None or data_NP.shape != (len(numbers), PIXELS):
        raise UsageError(f"{path} has no data of {len(numbers)} images of {PIXELS} bytes")
    return numbers, data_NP


# pickles


class _Dtype:
    """Replaces ``numpy.dtype``; all but unsigned bytes are refused."""

    def __init__(self, name: object, *flags: object) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"values of type {name!r}")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and fields, which bytes do not have."""


class _Array:
    """Replaces ``numpy.ndarray``: the pickle's description of one, used only if it is consistent."""

    def __init__(self, *made_of: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        self._state = state if isinstance(state, tuple) else ()

    def values(self) -> NDArray[np.uint8] | None:
        match self._state:
            case (_, tuple() as shape, _Dtype(), bool() | int() as by_column, bytes() as content):
                sizes = [size for size in shape if type(size) is int and size >= 0]
                if len(sizes) == len(shape) and math.prod(sizes) == len(content):
                    order = np.frombuffer(content, np.uint8)
                    return order.reshape(sizes, order="F" if by_column else "C")
        return None


def _reconstruct(kind: object, shape: object, type_code: object) -> _Array:
    return _Array()


# numpy.core was renamed in NumPy 2: a batch written with it has the new name
KNOWN: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _unpickled(path: Path) -> Mapping[Any, Any]:
    content = _content(path)
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # noqa: BLE001 - pickle raises whatever the bytes make it stumble over
        raise UsageError(f"{path} is refused, it is no batch of CIFAR-10: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is refused, it is no batch of CIFAR-10 but a {type(found).__name__}")
    return found
