"""Pictures as cameras send them: whole or refused, and upright wherever they are opened."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from streamer.errors import BadRecord
from streamer.model import jpeg, pictures

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
HEIGHT, WIDTH = 240, 320
PIXELS = 2_000_000
ORIENTATION = 0x0112
END = b"\xff\xd9"
Pixels = NDArray[np.uint8]


def patches(mode: str = "RGB") -> Image.Image:
    """Squares of 16 × 16 pixels in random colours: a stretch of data that is missing or out of place is seen."""
    colours = np.random.default_rng(0).integers(0, 255, (HEIGHT // 16, WIDTH // 16, 3))
    return Image.fromarray(np.kron(colours, np.ones((16, 16, 1))).astype(np.uint8)).convert(mode)


def encoded(picture: Image.Image, media_type: str = "image/jpeg", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, FORMATS[media_type], **options)
    return buffer.getvalue()


def decoded(content: bytes, height: int = HEIGHT, width: int = WIDTH, media_type: str = "image/jpeg") -> Pixels:
    return pictures.decode(content, media_type, height, width, PIXELS)


def off(one: Pixels, other: Any) -> int:
    return int(np.abs(one.astype(int) - np.asarray(other)).max())


def without(content: bytes, *markers: int) -> bytes:
    """The picture without the segments that these markers open."""
    for marker, begin, end in reversed(list(jpeg.segments(content))):
        if marker in markers:
            content = content[: begin - 4] + content[end:]
    return content


def before(content: bytes, marker: bytes, extra: bytes) -> bytes:
    at = content.index(marker)
    return content[:at] + extra + content[at:]


PLAIN = encoded(patches())
ROWS = encoded(patches(), restart_marker_rows=1)  # each of 15 rows ends with a restart marker but the last
AVI1 = b"\xff\xd8\xff\xe0\0\x10AVI1" + bytes(10)  # as MJPEG cameras write it in place of JFIF
WHOLE: dict[str, tuple[bytes, bytes]] = {  # as it is sent, and a picture with the same pixels
    "16 bytes in front of a restart marker": (before(ROWS, b"\xff\xd3", bytes(16)), ROWS),
    "1 to 5 bytes in front of several": (
        before(before(before(ROWS, b"\xff\xd1", b"\x5a"), b"\xff\xd4", b"12345"), b"\xff\xd5", b"\xa5\x01"),
        ROWS,
    ),
    "bytes in front of the end": (before(PLAIN, END, b"\x12\x34\x56"), PLAIN),
    "a comment in front of the end": (before(PLAIN, END, b"\x12\x34\xff\xfe\0\x06abcd"), PLAIN),
    "restart markers after the picture": (before(PLAIN, END, b"\x11\xff\xd0\x22\x22\xff\xd1"), PLAIN),
    "no end": (PLAIN[:-2], PLAIN),
    "half an end": (PLAIN[:-1], PLAIN),
    "no end but a buffer of zeros": (PLAIN[:-2] + bytes(3000), PLAIN),
    "no end, and bytes in front of a restart marker": (before(ROWS, b"\xff\xd3", bytes(16))[:-2], ROWS),
    "zeros after the end": (PLAIN + bytes(3000), PLAIN),
    "another picture after the end": (PLAIN + ROWS, PLAIN),
    "MJPEG without Huffman tables": (AVI1 + without(PLAIN, 0xE0, 0xC4)[2:], PLAIN),
    "two starts": (b"\xff\xd8" + PLAIN, PLAIN),
    "a fill byte": (before(PLAIN, b"\xff\xdb", b"\xff"), PLAIN),
    "grey with bytes in front of a restart marker": (
        before(encoded(patches("L"), restart_marker_rows=1), b"\xff\xd2", b"1234"),
        encoded(patches("L")),
    ),
    "4:4:4 with short stretches": (
        before(encoded(patches(), subsampling=0, restart_marker_blocks=7), b"\xff\xd6", b"1234"),
        encoded(patches(), subsampling=0),
    ),
    "four colours with bytes in front of a restart marker": (
        before(encoded(patches("CMYK"), restart_marker_rows=1), b"\xff\xd2", b"1234"),
        encoded(patches("CMYK")),
    ),
    "four colours without an end": (encoded(patches("CMYK"))[:-2], encoded(patches("CMYK"))),
    "progressive without an end": (encoded(patches(), progressive=True)[:-2], encoded(patches(), progressive=True)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_picture_of_which_every_pixel_is_there_is_decoded(name: str) -> None:
    sent, same = WHOLE[name]
    assert off(decoded(sent), simplejpeg.decode_jpeg(same, "RGB", fastdct=True)) <= 1
    assert off(decoded(sent, 60, 80), decoded(same, 60, 80)) == 0  # scaled while it is decoded


FOURTH, FIFTH, SIXTH = (ROWS.index(bytes((0xFF, 0xD0 + number))) for number in (3, 4, 5))
LACKING: dict[str, bytes] = {
    "half": PLAIN[: len(PLAIN) // 2],
    "half, with an end": PLAIN[: len(PLAIN) // 2] + END,
    "the last byte of the data": PLAIN[:-3],
    "the last byte of the data, with an end": PLAIN[:-3] + END,
    "half of a progressive one": encoded(patches(), progressive=True)[:1500],
    "half of one in four colours": encoded(patches("CMYK"))[:1500] + END,
    "a row": ROWS[:FOURTH] + ROWS[FIFTH:],
    "a restart marker": ROWS[:FOURTH] + ROWS[FOURTH + 2 :],
    "the right restart marker": ROWS[: FOURTH + 1] + b"\xd4" + ROWS[FOURTH + 2 :],
    "the last rows": ROWS[:SIXTH] + b"\1\2\3" + END,
    "the end of a row, with bytes in front of another": (
        ROWS[:FOURTH] + bytes(16) + ROWS[FOURTH : SIXTH - 20] + ROWS[SIXTH:]
    ),
    "the end, the last data, and bytes in front of a row": before(ROWS, b"\xff\xd3", bytes(16))[:-6],
}


@pytest.mark.parametrize("name", LACKING)
def test_a_picture_that_lacks_a_part_is_refused(name: str) -> None:
    """libjpeg would make the missing part grey, or put what follows into another place."""
    assert off(simplejpeg.decode_jpeg(LACKING[name], "RGB", strict=False), patches()) > 100
    with pytest.raises(ValueError, match=r"Corrupt JPEG data|Premature end"):
        decoded(LACKING[name])


def test_a_picture_that_libjpeg_cannot_decode_is_refused() -> None:
    at = PLAIN.index(b"\xff\xc0")
    twelve_bits = PLAIN[:at] + b"\xff\xc1\0\x11\x0c" + PLAIN[at + 5 :]
    with pytest.raises(ValueError, match="Unsupported JPEG data precision 12"):
        decoded(twelve_bits)


@given(st.binary(max_size=60), st.integers(0, len(ROWS)), st.integers(0, 80))
def test_a_damaged_picture_is_decoded_or_refused_and_nothing_else(junk: bytes, at: int, lost: int) -> None:
    with suppress(ValueError, BadRecord):
        assert decoded(ROWS[:at] + junk + ROWS[at + lost :], 30, 40).shape == (30, 40, 3)


# upright


def scene(height: int = 96, width: int = 64) -> Image.Image:
    """Left half black, right half grey, a white bar top left: unlike itself however it is turned."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 120
    pixels[: height // 6, : width // 3] = 255
    return Image.fromarray(pixels)


# EXIF 2.32, section 4.6.4: how a camera stores an upright scene that it notes so
STORED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda upright: upright,
    2: lambda upright: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: lambda upright: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),  # Pillow turns to the left
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}


def turned(orientation: int, media_type: str = "image/jpeg", size: tuple[int, int] = (96, 64)) -> bytes:
    """The scene as a camera that was held so writes it."""
    note = Image.Exif()
    note[0x010F] = "a maker"
    note[ORIENTATION] = orientation
    options = {"lossless": True} if media_type == "image/webp" else {"quality": 95}
    return encoded(STORED[orientation](scene(*size)), media_type, exif=note, **options)


@pytest.mark.parametrize("media_type", FORMATS)
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_seen_upright(media_type: str, orientation: int) -> None:
    content = turned(orientation, media_type)
    stored = Image.open(io.BytesIO(content))
    assert stored.size == ((96, 64) if orientation >= 5 else (64, 96))  # the note is there, the pixels are not turned
    assert off(decoded(content, 96, 64, media_type), scene()) <= 12
    assert (
        off(decoded(content, 96, 64, media_type), ImageOps.exif_transpose(stored).convert("RGB")) <= 8
    )  # a faster DCT


@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_that_is_scaled_while_it_is_decoded_is_seen_upright(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    decode = simplejpeg.decode_jpeg

    def noted(content: bytes, colours: str, *, min_height: int, min_width: int, **options: Any) -> Any:
        asked.append((min_height, min_width))
        return decode(content, colours, min_height=min_height, min_width=min_width, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noted)
    content = turned(orientation, size=(1920, 640))
    found = decoded(content, 240, 80)
    assert asked == [(80, 240) if orientation >= 5 else (240, 80)]
    assert off(found[:36, :24], 255) <= 12
    assert off(found[44:, 2:38], 0) <= 12
    assert off(found[:, 44:], 120) <= 12


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    content = turned(1).replace(
        b"\x01\x12\0\x03\0\0\0\x01\0\x01", b"\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2)
    )
    assert Image.open(io.BytesIO(content)).getexif()[ORIENTATION] == orientation
    assert off(decoded(content, 96, 64), scene()) <= 12


def test_both_orders_of_bytes_are_read() -> None:
    note = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    content = encoded(STORED[6](scene()), exif=note, quality=95)
    assert off(decoded(content, 96, 64), scene()) <= 12


def test_the_note_may_stand_behind_other_segments() -> None:
    content = turned(6)
    assert off(decoded(content[:2] + b"\xff\xe2\0\x06ICC_\xff\xfe\0\x04hi" + content[2:], 96, 64), scene()) <= 12


def test_the_note_of_a_png_may_stand_behind_its_pixels() -> None:
    content = turned(6, "image/png")
    chunk = re.search(rb"(?s)....eXIf.*?(?=....IDAT)", content)
    assert chunk is not None
    moved = content.replace(chunk[0], b"")
    moved = before(moved, b"\0\0\0\0IEND", chunk[0])
    assert off(decoded(moved, 96, 64, "image/png"), scene()) == 0


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*"]))
@example(b"", b"MM\0*")
@example(b"\0\0\0\x08\xff\xff" + bytes(70), b"MM\0*")
def test_a_broken_note_turns_nothing_and_harms_nothing(rest: bytes, order: bytes) -> None:
    assert 1 <= pictures._orientation(order + rest) <= 8
    content = encoded(scene(), exif=b"Exif\0\0" + order + rest)
    assert decoded(content, 96, 64).shape == (96, 64, 3)


# for people


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_what_a_browser_turns_by_itself_is_sent_as_it_is(media_type: str) -> None:
    content = turned(6, media_type)
    assert pictures.for_browser(content, media_type, PIXELS) is content


def test_a_webp_is_turned_for_browsers_since_chromium_does_not() -> None:
    shown = Image.open(io.BytesIO(pictures.for_browser(turned(6, "image/webp"), "image/webp", PIXELS)))
    assert (shown.format, shown.size, shown.getexif().get(ORIENTATION)) == ("WEBP", (64, 96), None)
    assert off(np.asarray(shown.convert("RGB")), scene()) <= 40  # compressed again
    upright = turned(1, "image/webp")
    assert pictures.for_browser(upright, "image/webp", PIXELS) is upright


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WEBPVP8X", turned(6, "image/webp")[:100]])
def test_a_webp_that_cannot_be_turned_is_left_to_the_browser(content: bytes) -> None:
    assert pictures.for_browser(content, "image/webp", PIXELS) is content
    whole = turned(6, "image/webp")
    assert pictures.for_browser(whole, "image/webp", max_pixels=100) is whole
