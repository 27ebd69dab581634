"""Picture files -> pixels of the model's size, upright.

Cameras write what their sensor sees and note in the EXIF *orientation* how it must be turned; models see every picture
as people do. JPEG, PNG (chunk eXIf) and WebP can hold the note. Values: EXIF 2.32 (CIPA DC-008), section 4.6.4.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import BadRecord, Reason
from streamer.model import jpeg

PILLOW_FORMATS = {"image/png": "PNG", "image/webp": "WEBP"}
ORIENTATION, SHORT = 0x0112, 3  # tag and its type in TIFF
UPRIGHT, SIDEWAYS = 1, (5, 6, 7, 8)  # values of the tag; sideways ones swap height and width
WEBP_QUALITY = 90


def media_type(content: bytes) -> str | None:
    """The media type by the first bytes, since names are unreliable: ImageNet has a PNG called .JPEG."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def decode(content: bytes, media_type: str, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a picture to RGB of exactly ``height`` × ``width``, upright; the aspect ratio is not kept.

    Returns:
        uint8 [height, width, 3].

    Raises:
        BadRecord: IMAGE_BOMB if the header says more than ``max_pixels``.
        ValueError, OSError, SyntaxError, MemoryError: It does not decode, or not the whole of it.
    """
    if media_type == "image/jpeg":
        content = jpeg.trimmed(content)
        turned = _orientation(jpeg.exif(content))
        if turned in SIDEWAYS:
            height, width = width, height
        frame_HW3 = _jpeg(content, height, width, max_pixels)
    else:
        frame_HW3, turned = _pillow(content, media_type, max_pixels)
        if turned in SIDEWAYS:
            height, width = width, height
    if frame_HW3.shape[:2] != (height, width):
        frame_HW3 = np.asarray(Image.fromarray(frame_HW3).resize((width, height), Image.Resampling.BOX))
    return _upright(frame_HW3, turned)


def fitted(content: bytes, media_type: str, longest: int, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a picture to RGB, upright, with its aspect ratio and no side longer than ``longest`` pixels.

    Returns:
        uint8 [H, W, 3].

    Raises:
        BadRecord, ValueError, OSError, SyntaxError, MemoryError: As :func:`decode`.
    """
    if media_type == "image/jpeg":
        trimmed = jpeg.trimmed(content)
        rows, columns, _, _ = simplejpeg.decode_jpeg_header(trimmed)
        if _orientation(jpeg.exif(trimmed)) in SIDEWAYS:
            rows, columns = columns, rows
        return decode(content, media_type, *_fitting(rows, columns, longest), max_pixels)
    stored_HW3, turned = _pillow(content, media_type, max_pixels)
    frame_HW3 = _upright(stored_HW3, turned)
    height, width = _fitting(frame_HW3.shape[0], frame_HW3.shape[1], longest)
    return np.asarray(Image.fromarray(frame_HW3).resize((width, height), Image.Resampling.BOX))


def _fitting(rows: int, columns: int, longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(rows, columns))
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def for_browser(content: bytes, media_type: str, max_pixels: int) -> bytes:
    """A picture that browsers show upright: as it is, except that Chromium ignores the orientation of WebP.

    Returns:
        The content, or a WebP that is turned and notes no orientation.
    """
    if media_type != "image/webp":
        return content
    try:
        frame_HW3, turned = _pillow(content, media_type, max_pixels)
    except (BadRecord, Image.DecompressionBombError, ValueError, OSError, SyntaxError, MemoryError):
        return content  # the browser may know more of it
    if turned == UPRIGHT:
        return content
    buffer = io.BytesIO()
    Image.fromarray(_upright(frame_HW3, turned)).save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()


def _jpeg(content: bytes, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
    rows, columns, colours, _ = simplejpeg.decode_jpeg_header(content)
    _check_pixels(rows, columns, max_pixels)
    if colours in ("RGB", "YCbCr", "Gray"):
        return jpeg.decode(content, "RGB", height, width)
    inverted_HW4 = jpeg.decode(content, "CMYK", height, width)  # Adobe's convention, which all writers follow
    return np.asarray(Image.fromarray(255 - inverted_HW4, "CMYK").convert("RGB"))


def _pillow(content: bytes, media_type: str, max_pixels: int) -> tuple[NDArray[np.uint8], int]:
    """Pixels [H, W, 3] as they are stored, and their orientation."""
    with Image.open(io.BytesIO(content), formats=[PILLOW_FORMATS[media_type]]) as opened:
        _check_pixels(opened.height, opened.width, max_pixels)
        if opened.mode.startswith("I"):  # 16-bit grey: convert() would make every value above 255 white
            grey = Image.fromarray((np.asarray(opened, np.uint16) >> 8).astype(np.uint8))
            frame_HW3 = np.asarray(grey.convert("RGB"))
        else:
            frame_HW3 = np.asarray(opened.convert("RGB"))
        note: bytes = opened.info.get("exif", b"")  # only now: the chunk eXIf may stand behind the pixels
    return frame_HW3, _orientation(note.removeprefix(jpeg.EXIF))


def _check_pixels(rows: int, columns: int, max_pixels: int) -> None:
    if rows * columns > max_pixels:
        raise BadRecord(Reason.IMAGE_BOMB, f"{columns} × {rows} pixels, more than {max_pixels}")


def _orientation(tiff: bytes) -> int:
    """The orientation that the first directory of a TIFF structure notes; UPRIGHT without one that is valid.

    Pillow would read the whole directory, and warn of faults in tags that nobody asked for.
    """
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return UPRIGHT

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "big" if tiff.startswith(b"M") else "little")

    directory = number(4, 4)
    for at in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(tiff) - 9), 12):
        if number(at, 2) == ORIENTATION:
            value = number(at + 8, 2)
            return value if number(at + 2, 2) == SHORT and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def _upright(frame_HW3: NDArray[np.uint8], turned: int) -> NDArray[np.uint8]:
    """Undo what the orientation says: 2-4 mirrored or turned by half, 5-8 also sideways."""
    if turned in SIDEWAYS:
        frame_HW3 = frame_HW3.swapaxes(0, 1)
    if turned in (3, 4, 7, 8):
        frame_HW3 = frame_HW3[::-1]
    if turned in (2, 3, 6, 7):
        frame_HW3 = frame_HW3[:, ::-1]
    return np.ascontiguousarray(frame_HW3)
