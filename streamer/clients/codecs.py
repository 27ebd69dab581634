"""The codecs of Kafka's record batches, with a limit on what a batch unpacks to.

Numbers: the lowest three bits of a batch's attributes, https://kafka.apache.org/documentation/#recordbatch. Formats:
gzip (RFC 1952), LZ4 frames and Zstandard frames (RFC 8878), each perhaps several in a row; Snappy's raw format, or
blocks of it as snappy-java's ``SnappyOutputStream`` writes them: 16 bytes of header, then each block behind its length.

The clients unpack without a limit, and 200 KB of gzip may stand for 200 MiB. Here a decompressor is asked for a
portion at a time and never for more than one byte beyond the limit; a Snappy block says its size in front. So
unpacking takes the limit and a portion, whatever the batch claims to be.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from streamer.errors import UsageError, one_line

NONE = 0
NAMES = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
LIBRARIES = {"snappy": "cramjam", "lz4": "lz4.frame", "zstd": "zstandard"}  # the module that unpacks it
PACKAGES = {"cramjam": "cramjam", "lz4.frame": "lz4", "zstandard": "zstandard"}
PORTION_BYTES = 64 << 10  # the least that is asked for at a time; small batches need no more
GZIP_WINDOW = zlib.MAX_WBITS | 16  # with gzip's header
SNAPPY_JAVA = b"\x82SNAPPY\0"
SNAPPY_JAVA_HEADER_BYTES = 16  # with two version numbers, which writers disagree about: not looked at


def check() -> None:
    """See that every codec can be read.

    Raises:
        UsageError: A library is missing.
    """
    for codec, module in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            why = one_line(error).replace(";", ",")
            raise UsageError(
                f"record batches compressed with {codec} cannot be read: {why}; run `pip install {PACKAGES[module]}`"
            ) from None


def unpack(codec: int, packed: memoryview, limit_bytes: int) -> bytes:
    """What a batch was compressed from.

    Raises:
        ValueError: With one line: the codec is unknown, the bytes are none of it, or there is more than the limit.
    """
    name = NAMES.get(codec)
    if name is None:
        raise ValueError(f"codec {codec} is unknown")
    portions: list[bytes] = []
    left, portion_bytes = limit_bytes, max(PORTION_BYTES, 4 * len(packed))
    try:
        read = READERS[name](packed, limit_bytes)
        while portion := read(min(portion_bytes, left + 1)):
            left -= len(portion)
            if left < 0:
                raise ValueError(_too_much(limit_bytes))
            portions.append(portion)
            portion_bytes *= 2
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - each library has errors of its own class
        raise ValueError(f"{name}: {one_line(error)}") from None
    return b"".join(portions)


def _too_much(limit_bytes: int) -> str:
    return f"it unpacks to more than {limit_bytes} bytes"


Read = Callable[[int], bytes]  # at most so many of the bytes that come next; none at the end


class _Frames:
    """Frames in a row, read like a file.

    Args:
        new: Makes a decompressor of one frame.
        unread: What a decompressor wants to be given again, after it was asked for less than there was.
    """

    def __init__(self, packed: memoryview, new: Callable[[], Any], unread: Callable[[Any], bytes]) -> None:
        self._new = new
        self._unread = unread
        self._frame = new()
        self._given: bytes | memoryview = packed

    def read(self, most_bytes: int) -> bytes:
        while True:
            if self._frame.eof:
                if not self._frame.unused_data:
                    return b""
                self._given, self._frame = self._frame.unused_data, self._new()
            portion: bytes = self._frame.decompress(self._given, most_bytes)
            self._given = self._unread(self._frame)
            if portion:
                return portion
            if not self._frame.eof:
                raise ValueError("it ends early")


def _gzip(packed: memoryview, limit_bytes: int) -> Read:
    return _Frames(packed, lambda: zlib.decompressobj(GZIP_WINDOW), lambda inflater: inflater.unconsumed_tail).read


def _lz4(packed: memoryview, limit_bytes: int) -> Read:
    import lz4.frame

    return _Frames(packed, lz4.frame.LZ4FrameDecompressor, lambda decompressor: b"").read  # it keeps that itself


def _zstd(packed: memoryview, limit_bytes: int) -> Read:
    import zstandard

    read: Read = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read
    return read


def _snappy(packed: memoryview, limit_bytes: int) -> Read:
    import cramjam

    blocks, left = _snappy_blocks(packed), limit_bytes

    def read(most_bytes: int) -> bytes:
        """The next block, which can only be had whole."""
        nonlocal left
        for block in blocks:
            left -= cramjam.snappy.decompress_raw_len(block)
            if left < 0:
                raise ValueError(_too_much(limit_bytes))
            if portion := bytes(cramjam.snappy.decompress_raw(block)):
                return portion
        return b""

    return read


def _snappy_blocks(packed: memoryview) -> Iterator[memoryview]:
    if packed[: len(SNAPPY_JAVA)] != SNAPPY_JAVA:
        yield packed
        return
    at = SNAPPY_JAVA_HEADER_BYTES
    while at < len(packed):
        (size,) = struct.unpack_from(">I", packed, at)
        at += 4
        if size > len(packed) - at:
            raise ValueError(f"a block of {size} bytes ends after the batch")
        yield packed[at : at + size]
        at += size


READERS: dict[str, Callable[[memoryview, int], Read]] = {"gzip": _gzip, "snappy": _snappy, "lz4": _lz4, "zstd": _zstd}
