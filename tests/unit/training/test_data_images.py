"""Data sets of images: MNIST's idx files, and both formats of CIFAR-10."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.model.spec import ImageInput, InputSpec, ModelSpec, Output, TextInput
from streamer.training.data import open_data
from tests.datasets import spec

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RANDOM = np.random.default_rng(0)
DIGITS = RANDOM.integers(0, 256, (30, 6, 5), np.uint8)
NUMBERS = np.arange(30, dtype=np.uint8) % 10
SMALL_IMAGES = RANDOM.integers(0, 256, (20, 3072), np.uint8)


def images_of(height: int, width: int, labels: Iterable[str], name: str = "digit") -> ModelSpec:
    inputs = InputSpec(image=ImageInput(frames=1, height=height, width=width))
    return spec({name: Output(tuple(labels))}, inputs)


DIGIT = images_of(6, 5, map(str, range(10)))
THING = images_of(32, 32, CLASSES, "thing")


def idx(magic: bytes, *sizes: int, values: bytes) -> bytes:
    return magic + struct.pack(f">{len(sizes)}I", *sizes) + values


def images(pixels: np.ndarray[Any, Any] = DIGITS) -> bytes:
    return idx(b"\0\0\x08\x03", *pixels.shape, values=pixels.tobytes())


def labels(numbers: np.ndarray[Any, Any] = NUMBERS) -> bytes:
    return idx(b"\0\0\x08\x01", len(numbers), values=numbers.tobytes())


def mnist(folder: Path, images_bytes: bytes | None = None, labels_bytes: bytes | None = None) -> Path:
    (folder / "train-images-idx3-ubyte").write_bytes(images() if images_bytes is None else images_bytes)
    (folder / "train-labels-idx1-ubyte").write_bytes(labels() if labels_bytes is None else labels_bytes)
    return folder


# idx


def test_idx_files_are_images_with_the_digits_as_labels(tmp_path: Path) -> None:
    data = open_data(mnist(tmp_path), DIGIT)
    assert len(data.training) + len(data.validation) + len(data.test) == 30
    for part in (data.training, data.validation, data.test):
        for n in range(len(part)):
            example = part[n]
            assert example.sample.image_FHW3 is not None
            number = next(k for k in range(30) if (example.sample.image_FHW3[0] == DIGITS[k, :, :, None]).all())
            assert example.labels == {"digit": str(NUMBERS[number])}


def test_packed_files_and_a_test_part_are_taken_as_they_are(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images(DIGITS[:7])))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels(NUMBERS[:7])))
    data = open_data(tmp_path, DIGIT)
    assert len(data.test) == 7
    assert len(data.training) + len(data.validation) == 30
    assert data.test[3].labels == {"digit": "3"}


def test_other_labels_are_the_classes_in_their_order(tmp_path: Path) -> None:
    names = [f"class of {number}" for number in range(10)]
    data = open_data(mnist(tmp_path), images_of(6, 5, names))
    assert {data.training[n].labels["digit"] for n in range(len(data.training))} <= set(names)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels(np.full(30, 4, np.uint8)))
    assert open_data(tmp_path, images_of(6, 5, names)).test[0].labels == {"digit": "class of 4"}


def test_a_class_without_a_label_is_a_bad_row(tmp_path: Path) -> None:
    data = open_data(mnist(tmp_path), images_of(6, 5, map(str, range(9))), refuse_bad=False)
    assert [bad.reason for bad in data.bad] == ["class 9 has no label in output digit"] * 3
    assert data.bad[0].where == "train-images-idx3-ubyte image 10"


@pytest.mark.parametrize(
    ("images_bytes", "labels_bytes", "message"),
    [
        (images()[:-1], None, "is truncated: less than the 900 bytes"),
        (images() + b"x", None, "is more than the 900 bytes"),
        (images()[:9], None, "is truncated in its header"),
        (b"", None, "begins with nothing, not 00000803"),
        (labels(), None, "begins with 00000801, not 00000803"),
        (b"\x89PNG\r\n\x1a\n", None, "begins with 89504e47, not 00000803"),
        (idx(b"\0\0\x0d\x03", 1, 1, 1, values=b"\0" * 4), None, "begins with 00000d03"),
        (idx(b"\0\0\x08\x03", 2**32 - 1, 2**32 - 1, 3, values=b""), None, "is damaged: its header has the sizes"),
        (idx(b"\0\0\x08\x03", 30, 0, 5, values=b""), None, "is damaged: its header has the sizes 30 × 0 × 5"),
        (None, labels(NUMBERS[:29]), "has 30 images, train-labels-idx1-ubyte 29 labels"),
    ],
)
def test_a_malformed_idx_file_is_one_clear_error(
    tmp_path: Path, images_bytes: bytes | None, labels_bytes: bytes | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(mnist(tmp_path, images_bytes, labels_bytes), DIGIT)


def test_images_without_labels_and_broken_gzip_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a-images-idx3-ubyte.gz"
    packed = gzip.compress(images())
    path.write_bytes(packed[:-20])
    with pytest.raises(UsageError, match=r"a-labels-idx1-ubyte or a-labels-idx1-ubyte.gz must be beside it"):
        open_data(path, DIGIT)
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(labels())
    for broken in (packed[:-20], packed[:20], b"no gzip", packed[:40] + b"\xff" * 40 + packed[80:]):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match=r"a-images-idx3-ubyte.gz is (damaged|truncated)"):
            open_data(path, DIGIT)


def test_a_model_without_a_place_for_it_refuses_the_data(tmp_path: Path) -> None:
    mnist(tmp_path)
    with pytest.raises(UsageError, match=r"has 2 outputs of kind classes \(a, b\)"):
        open_data(tmp_path, spec({"a": Output(("0", "1")), "b": Output(("0", "1"))}))
    with pytest.raises(UsageError, match="has none of what the model takes: text"):
        open_data(tmp_path, spec({"digit": DIGIT.outputs["digit"]}, InputSpec(text=TextInput(max_tokens=4))))


def test_real_digits_are_read(data: Path) -> None:
    found = open_data(data / "mnist", images_of(28, 28, map(str, range(10))))
    assert len(found.training) + len(found.validation) + len(found.test) == 1000
    example = found.training[0]
    assert example.sample.image_FHW3 is not None
    assert 0.05 < (example.sample.image_FHW3 > 128).mean() < 0.3  # strokes on black


# CIFAR-10


def binary(rows: np.ndarray[Any, Any] = SMALL_IMAGES) -> bytes:
    return b"".join(bytes([number % 10]) + row.tobytes() for number, row in enumerate(rows))


def text(value: bytes) -> bytes:
    """A string as Python 2 pickled it, which CIFAR's authors used."""
    return b"T" + struct.pack("<i", len(value)) + value


def whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def array(shape: tuple[int, ...], values: bytes, kind: bytes = b"u1", by_column: bool = False) -> bytes:
    """An array as Python 2's NumPy pickled it."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + whole(0) + b"t" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(kind) + whole(0) + whole(1) + b"tR("
    dtype += whole(3) + text(b"|") + b"NNN" + whole(-1) + whole(-1) + whole(0) + b"tb"
    sizes = b"(" + b"".join(map(whole, shape)) + b"t"
    return made + b"(" + whole(1) + sizes + dtype + (b"\x88" if by_column else b"\x89") + text(values) + b"tb"


def dictionary(**items: bytes) -> bytes:
    pairs = b"".join(text(name.encode()) + value for name, value in items.items())
    return b"\x80\x02}(" + pairs + b"u."


def numbers(count: int) -> bytes:
    return b"](" + b"".join(whole(n % 10) for n in range(count)) + b"e"


def python_batch(rows: np.ndarray[Any, Any] = SMALL_IMAGES) -> bytes:
    return dictionary(
        data=array(rows.shape, rows.tobytes()), labels=numbers(len(rows)), batch_label=text(b"training batch 1 of 5")
    )


META = dictionary(label_names=b"](" + b"".join(map(text, map(str.encode, CLASSES))) + b"e")


def cifar(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("form", ["python", "binary"])
def test_a_batch_is_images_with_colours_in_place_and_named_classes(tmp_path: Path, form: str) -> None:
    folder = tmp_path
    if form == "python":
        cifar(folder, data_batch_1=python_batch(), test_batch=python_batch(SMALL_IMAGES[:4]))
        (folder / "batches.meta").write_bytes(META)
    else:
        (folder / "data_batch_1.bin").write_bytes(binary())
        (folder / "test_batch.bin").write_bytes(binary(SMALL_IMAGES[:4]))
        (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    data = open_data(folder, THING)
    assert (len(data.training) + len(data.validation), len(data.test)) == (20, 4)
    example = data.test[3]
    assert example.labels == {"thing": "cat"}
    assert example.sample.image_FHW3 is not None
    wanted = SMALL_IMAGES[3].reshape(3, 32, 32)  # red, green and blue planes, row by row
    assert np.array_equal(example.sample.image_FHW3[0], wanted.transpose(1, 2, 0))


def test_an_array_that_was_stored_by_columns_is_read_so(tmp_path: Path) -> None:
    by_column = dictionary(
        data=array(SMALL_IMAGES.shape, SMALL_IMAGES.tobytes("F"), by_column=True), labels=numbers(len(SMALL_IMAGES))
    )
    data = open_data(cifar(tmp_path, data_batch_1=by_column, test_batch=by_column), THING)
    image = data.test[5].sample.image_FHW3
    assert image is not None
    assert np.array_equal(image[0], SMALL_IMAGES[5].reshape(3, 32, 32).transpose(1, 2, 0))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('the pickle ran code')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Bomb(), 2), "it asks for __builtin__.exec"),
        (b"cos\nsystem\n(" + text(b"true") + b"tR.", "it asks for os.system"),
        (b"cstreamer.settings\nSettings\n.", "it asks for streamer.settings.Settings"),
        (python_batch()[:200], "pickle data was truncated"),
        (b"", "Ran out of input"),
        (b"no pickle", "is refused"),
        (b"](.", "is refused"),
        (b"].", "it is no batch of CIFAR-10 but a list"),
        (dictionary(labels=numbers(2)), "has no data of 2 images"),
        (dictionary(data=array((1, 3072), b"x" * 3072)), "has no labels"),
        (dictionary(data=array((2, 3072), b"x" * 3072), labels=numbers(2)), "has no data of 2 images"),
        (dictionary(data=array((1, 3072), b"x" * 3072), labels=numbers(2)), "has no data of 2 images"),
        (dictionary(data=array((2**30, 3072), b""), labels=numbers(2)), "has no data of 2 images"),
        (dictionary(data=array((2, 3072), b"x" * 6144, b"O8"), labels=numbers(2)), "values of type b'O8'"),
        (dictionary(data=text(b"x" * 6144), labels=numbers(2)), "has no data of 2 images"),
        (dictionary(data=b"cnumpy\nndarray\n(" + whole(2**30) + b"tR", labels=numbers(2)), "has no data of 2 images"),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused_and_runs_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(cifar(tmp_path, data_batch_1=content), THING)


def test_a_truncated_binary_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(binary()[:-1])
    with pytest.raises(UsageError, match="61459 bytes are no whole number of 3073-byte records"):
        open_data(tmp_path, THING)


def test_without_names_classes_are_the_labels_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(binary())
    (tmp_path / "data_batch_1.bin").write_bytes(binary())
    assert open_data(tmp_path, THING).test[2].labels == {"thing": "bird"}
