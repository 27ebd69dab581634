"""Sound files whose header has no length or a wrong one: bytes -> files that libsndfile reads whole.

Who writes a file as a stream cannot go back to its header. WAV then has a length of 0 or FFFFFFFF, RF64 an empty ds64,
FLAC a total of 0; a radio's Ogg is several streams one behind the other, and one that was left has no last page.

Formats: RIFF WAVE (https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html), RF64 (EBU Tech 3306), FLAC
(RFC 9639), Ogg (RFC 3533).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

LONG_RIFF = (b"RF64", b"BW64")  # their chunk ds64 has the lengths
UNKNOWN = b"\xff" * 4  # a length in RIFF: to the end of the file
FLAC_TOTAL = slice(18, 26)  # STREAMINFO's 64 bits that end with the 36 of the total
CAPTURE = b"OggS"
PAGE = struct.Struct("<4xxB8xII4xB")  # of its header: flags, serial, number, number of segments
CHECKSUM = slice(22, 26)  # of a page
FLAGS = 5  # of a page
FIRST, LAST = 2, 4  # flags
POLYNOMIAL = 0x04C11DB7
MAX_CHUNKS = 1000  # looked at
MAX_LINKS, MAX_PAGES = 1000, 100_000


def parts(content: bytes) -> list[bytes]:
    """The file as one or several that follow each other, whose headers say nothing wrong of their length.

    Other formats, and what is too broken to be understood here, come back as they are.

    Raises:
        ValueError: See :func:`links`.
    """
    if content.startswith((b"RIFF", *LONG_RIFF)) and content[8:12] == b"WAVE":
        return [_wav(content)]
    if content.startswith(b"fLaC"):
        bits = int.from_bytes(content[FLAC_TOTAL])
        return [content[: FLAC_TOTAL.start] + (bits >> 36 << 36).to_bytes(8) + content[FLAC_TOTAL.stop :]]
    return links(content)


def links(content: bytes) -> list[bytes]:
    """The streams of a chained Ogg, each with a marked last page; any other file as it is.

    Without that mark libsndfile does not read Opus to its end.

    Raises:
        ValueError: A page is missing, so that what follows would be heard too early; or there are too many.
    """
    found: list[list[_Page]] = []
    for count, page in enumerate(_pages(content)):
        if count == MAX_PAGES or len(found) > MAX_LINKS:
            raise ValueError(f"Ogg has more than {MAX_PAGES} pages or {MAX_LINKS} streams one behind the other")
        opens = bool(page.flags & FIRST)
        if not found or (opens and not found[-1][-1].flags & FIRST):
            found.append([])
        found[-1].append(page)
    return [_link(content, pages) for pages in found] or [content]


def _wav(content: bytes) -> bytes:
    """The format and the samples alone. These go on to the end, unless chunks follow them."""
    kept: list[bytes] = []
    sizes = b""
    at = 12
    for _ in range(MAX_CHUNKS):
        begin = at + 8
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : begin], "little")
        if name == b"data":
            if content.startswith(LONG_RIFF) and content[at + 4 : begin] == UNKNOWN and len(sizes) >= 16:
                size = int.from_bytes(sizes[8:16], "little")
            end = begin + size if _are_chunks(content, begin + size) else len(content)
            return b"RIFF" + UNKNOWN + b"WAVE" + b"".join(kept) + b"data" + UNKNOWN + content[begin:end]
        if name == b"ds64":
            sizes = content[begin : begin + size]
        elif name in (b"fmt ", b"fact"):
            kept.append(content[at : begin + size + size % 2])
        at = _next_chunk(content, begin + size)
    return content


def _next_chunk(content: bytes, end: int) -> int:
    """Chunks begin at even places, but some writers forget the byte that an odd length needs."""
    forgotten = _is_name(content[end : end + 4])
    return end if forgotten else end + end % 2


def _are_chunks(content: bytes, at: int) -> bool:
    """Whether a chain of chunks leads from here to the end, with at least one."""
    for count in range(MAX_CHUNKS):
        if at >= len(content):
            return count > 0
        if not _is_name(content[at : at + 4]):
            return False
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        at += at % 2
    return False


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


class _Page(NamedTuple):
    """A page of an Ogg file; it is at ``[begin, end)``."""

    begin: int
    end: int
    flags: int
    serial: int
    number: int


def _pages(content: bytes) -> Iterator[_Page]:
    """The whole pages; what stands between them is passed over."""
    at = 0 if content.startswith(CAPTURE) else -1
    while 0 <= at <= len(content) - PAGE.size:
        flags, serial, number, count = PAGE.unpack_from(content, at)
        begin = at + PAGE.size
        end = begin + count + sum(content[begin : begin + count])
        if end <= len(content):
            yield _Page(at, end, flags, serial, number)
        at = content.find(CAPTURE, end)


def _link(content: bytes, pages: list[_Page]) -> bytes:
    expected: dict[int, int] = {}
    for page in pages:
        if page.number != expected.get(page.serial, page.number):
            raise ValueError(f"Ogg page {page.number} comes where page {expected[page.serial]} should be")
        expected[page.serial] = page.number + 1 & 0xFFFFFFFF
    last = pages[-1]
    if last.flags & LAST:
        return content[pages[0].begin : last.end]
    page_ = bytearray(content[last.begin : last.end])
    page_[FLAGS] |= LAST
    page_[CHECKSUM] = bytes(4)
    page_[CHECKSUM] = _checksum(page_).to_bytes(4, "little")
    return content[pages[0].begin : last.begin] + page_


def _checksum(page: bytearray) -> int:
    """RFC 3533, section 6: not the reflected CRC-32 of zlib."""
    value, table = 0, _checksums()
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
    return value


@cache
def _checksums() -> list[int]:
    """Of the pages of one byte."""
    table = []
    for value in range(0, 1 << 32, 1 << 24):
        for _ in range(8):
            value = (value << 1 ^ (POLYNOMIAL if value & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(value)
    return table
