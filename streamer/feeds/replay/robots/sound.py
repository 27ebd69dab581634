"""Sound in messages: ``foxglove.RawAudio``, and ``audio_common_msgs`` with the ``AudioInfo`` that describes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import S_US, Sound, check_sound, raw_sound
from streamer.feeds.replay.robots.fields import Tree, data, text, whole

RAW_AUDIO = "foxglove/RawAudio"
PCM = ("pcm-s16", "pcm-s16le")
SAMPLES = {"s16le": "<i2", "s16be": ">i2"}
SOUND_THAT = "sound that"  # begins what is said of rates and numbers of channels that cannot be sent
WAVE, MP3 = "wave", "mp3"


class Info(NamedTuple):
    """What ``audio_common_msgs/AudioInfo`` says of a topic's sound."""

    coding: str
    samples: str
    rate_hz: int
    channels: int


def info(tree: Tree) -> Info:
    """Read an ``audio_common_msgs/AudioInfo``.

    Raises:
        ValueError: It has no such fields.
    """
    coding, samples = text(tree, "coding_format").lower(), text(tree, "sample_format").lower()
    return Info(coding, samples, whole(tree, "sample_rate"), whole(tree, "channels"))


def made(kind: str, described: Info | None, first: Tree) -> _Raw | _Chunks | _Mp3:
    """What makes records of a topic's messages.

    Args:
        described: The topic's ``AudioInfo``; ``None`` if there is none.
        first: Its first message.

    Raises:
        UsageError: It cannot be sent: its encoding, rate or number of channels, or nothing says what they are. The
            message is what its messages are, for a note.
        ValueError: The message is broken.
    """
    if kind == RAW_AUDIO:
        check_form(first)
        return _Raw()
    if described is None:
        # MP3 describes itself; the type has no field for a rate
        if _is_mp3(_chunk(first)):
            return _Mp3()
        raise UsageError("sound of unknown rate, since there is no AudioInfo")
    if described.coding == MP3:
        return _Mp3()
    if described.coding != WAVE or described.samples not in SAMPLES:
        raise UsageError(f"{described.coding[:30]} {described.samples[:30]} sound")
    return _Chunks(described)


def check_form(tree: Tree) -> None:
    """Check the format of a ``foxglove.RawAudio``.

    Raises:
        UsageError: It is not 16-bit PCM.
        ValueError: The message is broken.
    """
    form = text(tree, "format")
    if form.lower() not in PCM:
        raise UsageError(f"{form[:60] or 'nameless'} sound, pcm-s16 is wanted")


def _is_mp3(chunk: bytes) -> bool:
    """Whether it begins with the 11 set bits of an MPEG audio frame, or with a tag."""
    return chunk[:3] == b"ID3" or (len(chunk) > 1 and chunk[0] == 0xFF and chunk[1] & 0xE0 == 0xE0)


def _chunk(tree: Tree) -> bytes:
    """The bytes of ``AudioData``, or of ``AudioDataStamped``, which has them in ``audio``."""
    return data(tree["audio"] if isinstance(tree.get("audio"), dict) else tree)


class _Raw:
    """``foxglove.RawAudio``: each message says how it is encoded; its time is that of its first sample."""

    def add(self, tree: Tree, time_us: int, stamped: bool) -> Iterator[Outgoing]:
        """The records of a message.

        Args:
            time_us: The message's time.
            stamped: Whether it is that of the first sample; else that at which the message was there.

        Raises:
            UsageError: It is not 16-bit PCM, or its rate or number of channels cannot be sent.
            ValueError: The message is broken.
        """
        check_form(tree)
        payload = data(tree)
        rate_hz, channels = whole(tree, "sample_rate"), whole(tree, "number_of_channels", 1)
        check_sound(SOUND_THAT, rate_hz, channels)
        if len(payload) < 2 * channels:
            raise ValueError("there is no sound in it")
        begin_us = time_us if stamped else time_us - len(payload) // (2 * channels) * S_US // rate_hz
        yield raw_sound(payload, max(0, begin_us), rate_hz, channels)

    def rest(self) -> Iterator[Outgoing]:
        return iter(())


class _Chunks:
    """``AudioData`` of 16-bit samples, whose rate is in the topic's ``AudioInfo``."""

    def __init__(self, described: Info) -> None:
        self._sound = Sound(SOUND_THAT, described.rate_hz, described.channels)
        self._described = described

    def add(self, tree: Tree, time_us: int, stamped: bool) -> Iterator[Outgoing]:
        channels, chunk = self._described.channels, _chunk(tree)
        whole_samples = len(chunk) // (2 * channels) * 2 * channels
        samples = np.frombuffer(chunk[:whole_samples], SAMPLES[self._described.samples]).astype(np.int16)
        yield from _added(self._sound, samples.reshape(-1, channels), time_us, stamped, self._described.rate_hz)

    def rest(self) -> Iterator[Outgoing]:
        return self._sound.rest()


class _Mp3:
    """``AudioData`` of MP3, whose frames need not begin where messages do."""

    def __init__(self) -> None:
        import av

        self._codec: Any = av.CodecContext.create("mp3float", "r")
        self._even: Any = None
        self._sound: Sound | None = None

    def add(self, tree: Tree, time_us: int, stamped: bool) -> Iterator[Outgoing]:
        yield from self._heard(self._codec.parse(_chunk(tree)), time_us, stamped)

    def rest(self) -> Iterator[Outgoing]:
        if self._sound is not None:
            yield from self._heard(self._codec.parse(), self._sound.end_us, stamped=True)
            yield from self._sound.rest()

    def _heard(self, packets: list[Any], time_us: int, stamped: bool) -> Iterator[Outgoing]:
        from av.error import FFmpegError

        from streamer.feeds.replay.media.container import why
        from streamer.feeds.replay.media.sound import Even

        pieces = []
        for packet in packets:
            try:
                found = self._codec.decode(packet)
            except FFmpegError as error:
                raise ValueError(why(error)) from None
            for heard in found:
                self._even = self._even or Even(heard)
                pieces.append(self._even(heard))
        if pieces:
            self._sound = self._sound or Sound(SOUND_THAT, self._even.rate_hz, self._even.channels)
            yield from _added(self._sound, np.concatenate(pieces), time_us, stamped, self._even.rate_hz)


def _added(sound: Sound, samples: NDArray[np.int16], time_us: int, stamped: bool, rate_hz: int) -> Iterator[Outgoing]:
    begin_us = time_us if stamped else time_us - len(samples) * S_US // rate_hz
    return sound.add(samples, max(0, begin_us))
