"""What a record batch unpacks to, and that unpacking stops at the limit."""

import gzip
import importlib
import tracemalloc
from collections.abc import Callable
from struct import pack
from typing import Any

import cramjam
import lz4.frame
import pytest
import zstandard
from kafka import codec as kafka_python

from streamer.clients import codecs
from streamer.errors import UsageError

GZIP, SNAPPY, LZ4, ZSTD = codecs.NAMES
PLAIN = b"".join(b"%d: a word, and another one\n" % number for number in range(20_000))  # 600 KB
LIMIT_BYTES = 100_000
BOMB_BYTES = 8 << 20  # of zeros
# The largest window of any level, 128 MiB; the size is not said, as where a producer compresses while it writes.
WIDEST = zstandard.ZstdCompressionParameters.from_level(1, window_log=27, write_content_size=False)


def raw_snappy(plain: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(plain))


PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (GZIP, gzip.compress),
    "gzip, two members": (GZIP, lambda plain: gzip.compress(plain[:999]) + gzip.compress(plain[999:])),
    "snappy": (SNAPPY, raw_snappy),
    "snappy, as snappy-java": (SNAPPY, kafka_python.snappy_encode),
    "lz4": (LZ4, kafka_python.lz4_encode),
    "lz4, linked blocks": (LZ4, lambda plain: bytes(lz4.frame.compress(plain, block_linked=True))),
    "lz4, two frames": (LZ4, lambda plain: bytes(lz4.frame.compress(plain[:999]) + lz4.frame.compress(plain[999:]))),
    "zstd": (ZSTD, kafka_python.zstd_encode),
    "zstd, size not said": (
        ZSTD,
        lambda plain: zstandard.ZstdCompressor(compression_params=WIDEST).compress(plain),
    ),
    "zstd, two frames": (
        ZSTD,
        lambda plain: kafka_python.zstd_encode(plain[:999]) + kafka_python.zstd_encode(plain[999:]),
    ),
}
every_form = pytest.mark.parametrize("form", PACKERS)


def unpack(codec: int, packed: bytes, limit_bytes: int = 1 << 20) -> bytes:
    return codecs.unpack(codec, memoryview(packed), limit_bytes)


@every_form
@pytest.mark.parametrize("plain", [PLAIN, b"x", bytes(range(256)) * 300], ids=["text", "a byte", "bytes"])
def test_each_codec_gives_back_what_was_packed(form: str, plain: bytes) -> None:
    codec, pack_ = PACKERS[form]
    assert unpack(codec, pack_(plain)) == plain


@every_form
def test_a_batch_may_unpack_to_the_limit_and_not_to_a_byte_more(form: str) -> None:
    codec, pack_ = PACKERS[form]
    assert unpack(codec, pack_(PLAIN), len(PLAIN)) == PLAIN
    with pytest.raises(ValueError, match=f"^{codecs.NAMES[codec]}: it unpacks to more than {len(PLAIN) - 1} bytes$"):
        unpack(codec, pack_(PLAIN), len(PLAIN) - 1)


@every_form
def test_unpacking_stops_at_the_limit(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, pack_ = PACKERS[form]
    packed = pack_(bytes(BOMB_BYTES))
    name = codecs.NAMES[codec]
    unpacked: list[int] = []
    stock = codecs.READERS[name]

    def counting(packed: memoryview, limit_bytes: int) -> codecs.Read:
        read = stock(packed, limit_bytes)

        def counted(most_bytes: int) -> bytes:
            portion = read(most_bytes)
            unpacked.append(len(portion))
            return portion

        return counted

    monkeypatch.setitem(codecs.READERS, name, counting)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 100000 bytes"):
            unpack(codec, packed, LIMIT_BYTES)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(unpacked) <= LIMIT_BYTES + 1
    # Portions and what the decompressor has not looked at, which is at most the batch itself.
    assert peak_bytes < 3 * LIMIT_BYTES + 2 * len(packed)


def test_a_snappy_block_is_not_unpacked_to_see_that_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(block: Any) -> Any:
        raise AssertionError(f"{len(block)} bytes unpacked")

    packed = raw_snappy(bytes(BOMB_BYTES))
    monkeypatch.setattr(cramjam.snappy, "decompress_raw", unwanted)
    with pytest.raises(ValueError, match="more than 100000 bytes"):
        unpack(SNAPPY, packed, LIMIT_BYTES)


@every_form
@pytest.mark.parametrize("damage", ["cut", "other bytes", "empty"])
def test_what_is_not_of_its_codec_is_an_error_of_one_line(form: str, damage: str) -> None:
    codec, pack_ = PACKERS[form]
    packed = pack_(PLAIN)
    broken = {"cut": packed[: len(packed) // 2], "other bytes": b"\xff" * 1000, "empty": b""}[damage]
    if form.startswith("zstd") and damage != "other bytes":
        assert len(unpack(codec, broken)) < len(PLAIN)  # its records then end too early
        return
    with pytest.raises(ValueError, match=f"^{codecs.NAMES[codec]}: [^\n]+$"):
        unpack(codec, broken)


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_that_kafka_does_not_have_yet_is_named(codec: int) -> None:
    with pytest.raises(ValueError, match=f"^codec {codec} is unknown$"):
        unpack(codec, b"packed")


def test_the_version_in_a_snappy_java_header_is_not_looked_at() -> None:
    packed = kafka_python.snappy_encode(PLAIN)
    assert packed[8:16] == pack(">ii", 1, 1)
    assert unpack(SNAPPY, packed[:8] + pack("<ii", 1, 1) + packed[16:]) == PLAIN


@pytest.mark.parametrize(("codec", "package"), [("snappy", "cramjam"), ("lz4", "lz4"), ("zstd", "zstandard")])
def test_a_missing_library_is_one_line_that_says_how_to_get_it(
    codec: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codecs.check()

    def without(name: str) -> None:
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {package!r}")

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UsageError) as refused:
        codecs.check()
    assert str(refused.value) == (
        f"record batches compressed with {codec} cannot be read: No module named {package!r}; "
        f"run `pip install {package}`"
    )
