"""Pictures in messages: encoded ones as they are, raw ones as JPEG, and video that has a picture in each message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.feeds.replay.part import JPEG_QUALITY, S_US
from streamer.feeds.replay.robots.fields import Tree, data, text, whole
from streamer.model.pictures import media_type

# encodings of sensor_msgs/Image (its header image_encodings.hpp) and foxglove.RawImage that libjpeg takes as they are:
# -> its name for them, bytes a pixel
PACKED = {
    "rgb8": ("RGB", 3), "bgr8": ("BGR", 3), "8UC3": ("BGR", 3), "rgba8": ("RGBX", 4), "bgra8": ("BGRX", 4),
    "8UC4": ("BGRX", 4), "mono8": ("GRAY", 1), "8UC1": ("GRAY", 1),
}  # fmt: skip
# those that FFmpeg converts -> its name for them, bytes a pixel
CONVERTED = {
    "yuv422": ("uyvy422", 2), "uyvy": ("uyvy422", 2), "yuv422_yuy2": ("yuyv422", 2), "yuyv": ("yuyv422", 2),
    "bayer_rggb8": ("bayer_rggb8", 1), "bayer_bggr8": ("bayer_bggr8", 1),
    "bayer_gbrg8": ("bayer_gbrg8", 1), "bayer_grbg8": ("bayer_grbg8", 1),
}  # fmt: skip
# 16 bits a sample: the upper eight are sent. 16UC1 is not among them: it is a distance in mm, not brightness
DEEP = {
    "rgb16": "rgb8", "bgr16": "bgr8", "rgba16": "rgba8", "bgra16": "bgra8", "mono16": "mono8",
    "bayer_rggb16": "bayer_rggb8", "bayer_bggr16": "bayer_bggr8",
    "bayer_gbrg16": "bayer_gbrg8", "bayer_grbg16": "bayer_grbg8",
}  # fmt: skip
DECODERS = {"264": "h264", "265": "hevc", "hevc": "hevc", "vp9": "vp9", "av1": "libdav1d"}
NAL_UNIT = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)  # of H.264 and H.265: start code and first byte of the header
KEYS_H264 = (5, 7)  # types of NAL units: key frame, parameters (ITU-T H.264, table 7-1)
KEYS_H265 = (*range(16, 22), 32, 33)  # likewise (ITU-T H.265, table 7-1)


def encoded(tree: Tree) -> tuple[bytes, str]:
    """The picture of a ``CompressedImage`` and its media type; its field ``format`` often says something else.

    Raises:
        ValueError: The message is broken.
        UsageError: It is no JPEG, PNG or WebP.
    """
    picture = data(tree)
    kind = media_type(picture)
    if kind is None:
        if not picture:
            raise ValueError("there is no picture in it")
        raise UsageError(f"{text(tree, 'format')[:60] or 'nameless'} pictures")
    return picture, kind


def raw(tree: Tree) -> bytes:
    """A JPEG of a ``sensor_msgs/Image`` or ``foxglove.RawImage``.

    Raises:
        ValueError: The message is broken.
        UsageError: It is encoded in a way that cannot be shown, such as distances.
    """
    plain, deep = check_raw(tree)
    colours, samples = PACKED.get(plain) or CONVERTED[plain]
    pixels = _pixels(tree, samples, deep)
    if plain in CONVERTED:
        pixels, colours = _converted(pixels, colours), "RGB"
    grey = colours == "GRAY"
    made: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), JPEG_QUALITY, colorspace=colours, colorsubsampling="Gray" if grey else "420"
    )
    return made


def check_raw(tree: Tree) -> tuple[str, bool]:
    """The encoding of a raw image as if it had 8 bits a sample, and whether it has 16.

    Raises:
        ValueError: The message is broken.
        UsageError: It is encoded in a way that cannot be shown, such as distances.
    """
    encoding = text(tree, "encoding")
    plain = DEEP.get(encoding, encoding)
    if plain not in PACKED and plain not in CONVERTED:
        raise UsageError(f"{encoding[:60] or 'nameless'} images")
    return plain, encoding in DEEP


def decoder(tree: Tree) -> str:
    """FFmpeg's name of the decoder for a message of video.

    Raises:
        ValueError: The message is broken.
        UsageError: No decoder is known for its format.
    """
    name = text(tree, "format" if "format" in tree else "encoding")
    found = next((codec for part, codec in DECODERS.items() if part in name.lower()), None)
    if found is None:
        raise UsageError(f"{name[:60] or 'nameless'} video")
    return found


def _pixels(tree: Tree, samples: int, deep: bool) -> NDArray[np.uint8]:
    """Samples [H, W, C] of 8 bits; rows may be padded."""
    width, height = whole(tree, "width"), whole(tree, "height")
    wide = width * samples * (2 if deep else 1)  # bytes
    step = whole(tree, "step", 0) or wide
    values = np.frombuffer(data(tree), np.uint8)
    if width <= 0 or height <= 0 or step < wide or len(values) < step * (height - 1) + wide:
        raise ValueError(f"{len(values)} bytes are no image of {width} × {height} pixels, {step} bytes a row")
    if len(values) < step * height:  # the last row may be without padding
        values = np.pad(values, (0, step * height - len(values)))
    rows = values[: step * height].reshape(height, step)[:, :wide]
    if deep:
        rows = rows[:, 0 if tree.get("is_bigendian") else 1 :: 2]
    return rows.reshape(height, width, samples)


def _converted(pixels: NDArray[np.uint8], form: str) -> NDArray[np.uint8]:
    import av

    height, width = pixels.shape[:2]
    frame = av.VideoFrame(width, height, form)
    plane = frame.planes[0]
    rows = np.zeros((height, plane.line_size), np.uint8)
    rows[:, : pixels[0].size] = pixels.reshape(height, -1)
    try:
        plane.update(rows.tobytes())
        rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except av.error.FFmpegError as error:
        raise ValueError(f"image of {width} × {height} pixels: {error.strerror}") from None
    return rgb


class Shown(NamedTuple):
    """A decoded picture: its time, and what makes a JPEG of it."""

    time_us: int
    encode: Callable[[], bytes]


class Video:
    """Decodes a topic of ``foxglove.CompressedVideo`` or ``ffmpeg_image_transport_msgs/FFMPEGPacket``.

    Attributes:
        before_key: Messages before the first key frame; nothing can be made of them.
    """

    def __init__(self) -> None:
        from streamer.feeds.replay.media.jpeg import Jpeg

        self._encode = Jpeg()
        self._codec: Any = None
        self.before_key = 0

    def add(self, tree: Tree, time_us: int) -> Iterator[Shown]:
        """Pictures that are complete now.

        Raises:
            ValueError: The message is broken.
            UsageError: No decoder is known for its format.
        """
        import av

        name, coded = decoder(tree), data(tree)
        if self._codec is None:
            if not _begins(name, coded):
                self.before_key += 1
                return
            self._codec = av.CodecContext.create(name, "r")
        packet = av.Packet(coded)
        packet.pts, packet.time_base = time_us, Fraction(1, S_US)
        yield from self._decoded(packet)

    def rest(self) -> Iterator[Shown]:
        """Pictures that the decoder still holds at the end."""
        if self._codec is not None:
            yield from self._decoded(None)

    def _decoded(self, packet: Any) -> Iterator[Shown]:
        from av.error import FFmpegError

        from streamer.feeds.replay.media.container import why

        try:
            pictures = self._codec.decode(packet)
        except FFmpegError as error:
            raise ValueError(why(error)) from None
        for picture in pictures:
            if picture.pts is not None:
                yield Shown(picture.pts, partial(self._encode, picture))


def _begins(decoder: str, coded: bytes) -> bool:
    """Whether a decoder can begin here: at a key frame, or at parameters for the frames that follow.

    The other decoders refuse frames that lack their key frame.
    """
    if decoder == "h264":
        return any(found[1][0] & 31 in KEYS_H264 for found in NAL_UNIT.finditer(coded))
    if decoder == "hevc":
        return any((found[1][0] >> 1) & 63 in KEYS_H265 for found in NAL_UNIT.finditer(coded))
    return True
