"""JPEG bytes -> pixels, by libjpeg-turbo: the whole picture or an error.

libjpeg decodes what it can and *warns* of the rest; what it did not find in the file becomes grey. So a warning is an
error here, with two exceptions, since cameras send such pictures and every pixel of them is there:

- The end marker is missing. It is appended, and the picture must then decode without a warning.
- Extra bytes stand in front of a marker. The restart markers must be complete and in order, and no stretch between
  them may be too short.

Segments and markers: ITU-T T.81, annex B (https://www.w3.org/Graphics/JPEG/itu-t81.pdf).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

SOF_SEQUENTIAL = (0xC0, 0xC1)  # one scan may hold all of the picture
EOI, SOS, DRI, APP1, COM = 0xD9, 0xDA, 0xDD, 0xE1, 0xFE
APPLICATION = (*range(0xE0, 0xF0), COM)
SOI = b"\xff\xd8"
EXIF = b"Exif\0\0"
END = re.compile(rb"\xff\xd9")
MARKER = re.compile(rb"\xff+([^\x00\xff])")  # in entropy-coded data FF 00 stands for a byte FF
EXTRA_BYTES = re.compile(r"\d+ extraneous bytes before marker")
# Inserted in front of markers to find missing data. Its bits are unlike the zeros that libjpeg assumes there.
FILLER = bytes(range(0xA1, 0xB1))
MAX_SEGMENTS = 1000  # looked at; a picture has about ten


class Segment(NamedTuple):
    """A marker segment; its content is ``[begin, end)``."""

    marker: int
    begin: int
    end: int


def segments(content: bytes) -> Iterator[Segment]:
    """The segments up to the header of the first scan, as far as there are any."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if content[at : at + 2] == b"\xff\xff":  # a fill byte
            at += 1
            continue
        if at + 4 > len(content) or content[at] != 0xFF:
            return
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        yield Segment(content[at + 1], at + 4, end)
        if content[at + 1] == SOS:
            return
        at = end


def trimmed(content: bytes) -> bytes:
    """The picture without a second start marker, which some webcams write and libjpeg refuses."""
    return content[len(SOI) :] if content.startswith(SOI * 2) else content


def exif(content: bytes) -> bytes:
    """The TIFF structure with the camera's notes; empty if there is none."""
    for marker, begin, end in segments(content):
        if marker == APP1 and content.startswith(EXIF, begin):
            return content[begin + len(EXIF) : end]
        if marker not in APPLICATION:  # the notes come before the tables, and each segment costs every frame time
            break
    return b""


def decode(content: bytes, colours: str, height: int, width: int) -> NDArray[np.uint8]:
    """Decode the picture, scaled in the DCT domain to the smallest size not below the wanted one.

    Args:
        colours: What simplejpeg knows: ``RGB``, or ``CMYK`` for pictures in these colours.

    Returns:
        uint8 [at least height, at least width, colours], or the picture's own size if that is smaller.

    Raises:
        ValueError: It does not decode, or not the whole of it.
    """

    def decoded(content: bytes, *, strict: bool = True) -> NDArray[np.uint8]:
        pixels_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content, colours, fastdct=True, min_height=height, min_width=width, strict=strict
        )
        return pixels_HWC

    try:
        return decoded(content)
    except ValueError as error:
        fault = error
    scan = _scan(content)
    if not END.search(content, scan):
        content = content.removesuffix(b"\xff") + bytes((0xFF, EOI))
        try:
            return decoded(content)
        except ValueError as error:
            fault = error
    if not EXTRA_BYTES.search(str(fault)):
        raise fault
    filled = _filled(content)
    if filled is not None:
        # What comes after the data of a stretch changes no pixel, unless data are missing.
        pixels_HWC = decoded(content, strict=False)
        if np.array_equal(pixels_HWC, decoded(filled, strict=False)):
            return pixels_HWC
    raise ValueError(f"{fault}, and parts of the picture are missing")


def _scan(content: bytes) -> int:
    """Where the data of the first scan begin; the end of the content if there is none."""
    return next((segment.end for segment in segments(content) if segment.marker == SOS), len(content))


def _filled(content: bytes) -> bytes | None:
    """The picture with more bytes in front of the marker after each stretch; ``None`` if a marker is missing."""
    stretches = _stretches(content)
    if stretches is None:
        return None
    start = _scan(content)
    ends = list(islice(MARKER.finditer(content, start), stretches))
    restarts = bytes(0xD0 + number % 8 for number in range(stretches - 1))
    if len(ends) < stretches or b"".join(end[1] for end in ends[:-1]) != restarts:
        return None
    borders = [start, *(end.start() for end in ends)]
    parts = (content[begin:end] for begin, end in pairwise(borders))
    return content[:start] + FILLER.join(parts) + FILLER + content[borders[-1] :]


def _stretches(content: bytes) -> int | None:
    """How many stretches of data the restart markers divide the scan into; ``None`` if one scan is not the picture."""
    interval, mcus = 0, None
    for marker, begin, end in segments(content):
        part = content[begin:end]
        if marker in SOF_SEQUENTIAL and len(part) >= 9:
            size = int.from_bytes(part[1:3]), int.from_bytes(part[3:5])
            samplings = [(byte & 15, byte >> 4) for byte in part[7::3]]  # vertical, horizontal
            # the data of one component alone come block by block
            mcu = [8 * max(axis) if len(samplings) > 1 else 8 for axis in zip(*samplings, strict=True)]
            components, mcus = part[5], prod(-(-pixels // step) for pixels, step in zip(size, mcu, strict=True))
        elif marker == DRI and len(part) == 2:
            interval = int.from_bytes(part)
        elif marker == SOS and part and mcus is not None and part[0] == components:
            return -(-mcus // interval) if interval else 1
    return None
