"""The sound of a film, on the film's clock.

A sound card has its own clock: what it calls 48,000 samples a second may be 47,900 by the clock of the film.
Samples follow each other without a gap as long as they are where their times say; where they drift away, they are
stretched or squeezed to stay with the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media.container import opened
from streamer.feeds.replay.media.tracks import Tracks
from streamer.feeds.replay.part import MAX_GAP_US, S_US, Sound

Samples = NDArray[np.int16]

LOOSE_US = 40_000  # sound may be so far from its time, since time stamps are rounded and jitter
MOST_STRETCH = 8  # at most an eighth of a piece is added or taken away
NOTED_US = 100_000  # sound that was moved by less in all is not worth a note


def sound(tracks: Tracks, index: int, begin_us: int) -> Iterator[Outgoing]:
    """The sound of a track in chunks that tile.

    Args:
        begin_us: Sound before it may be left out.
    """
    even: Even | None = None
    stated_end_us = _stated_end_us(tracks, index)
    for heard, last in _marked(tracks.decoded(index, tracks.packets(index, begin_us))):
        if even is None:
            even = Even(heard)
            chunks = Sound(f"{tracks.part.path}: track {index}", even.rate_hz, even.channels)
            steady = Steady(even.rate_hz)
        time_us = chunks.end_us if heard.pts is None else tracks.at_us(heard.pts, heard.time_base)
        samples = even(heard)
        if last and stated_end_us is not None:  # encoders pad the last frame
            left = round((stated_end_us - time_us) * even.rate_hz / S_US)
            samples = samples[:left] if left > 0 else samples
        samples, time_us = steady.fit(samples, time_us, chunks.end_us if steady.begun else None)
        yield from chunks.add(samples, time_us)
    if even is not None:
        yield from chunks.rest()
        for note in steady.notes(index):
            tracks.note(note)


def _marked(frames: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Frames, and whether each is the last."""
    before = None
    for heard in frames:
        if before is not None:
            yield before, False
        before = heard
    if before is not None:
        yield before, True


def _stated_end_us(tracks: Tracks, index: int) -> int | None:
    """Where a track ends according to its header; ``None`` for containers that do not state it to the sample."""
    with opened(tracks.part.path) as container:
        stream = container.streams[index]
        if stream.duration is None or "mp4" not in container.format.name:
            return None
        return tracks.at_us((stream.start_time or 0) + stream.duration, stream.time_base)


class Even:
    """Converts decoded sound to 16 bits, interleaved, at the rate and with the channels of its first frame."""

    def __init__(self, first: Any) -> None:
        # the decoder knows better than the container: HE-AAC doubles the rate
        self.rate_hz: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self._layout = first.layout
        self._form: object = None

    def __call__(self, heard: Any) -> Samples:
        """Samples [S, channels]."""
        form = (heard.format.name, heard.sample_rate, heard.layout.name)
        if form != self._form:  # broadcasts change from stereo to surround within a track
            self._form = form
            self._resampler = av.AudioResampler(format="s16", layout=self._layout, rate=self.rate_hz)
        frames = [frame.to_ndarray().reshape(-1, self.channels) for frame in self._resampler.resample(heard)]
        return np.concatenate(frames).astype(np.int16) if frames else np.empty((0, self.channels), np.int16)


class Steady:
    """Keeps the samples of a track where their times say, within ``LOOSE_US``."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self.begun = False
        self._heard = 0  # samples
        self._added = 0
        self._early = 0
        self._twice = 0

    def fit(self, samples: Samples, time_us: int, end_us: int | None) -> tuple[Samples, int]:
        """Samples [S, channels] to be sent next, and the time of the first.

        Args:
            time_us: When the first was recorded, from the start of the film.
            end_us: Where the samples before them end; ``None`` if they are the first.
        """
        if time_us < 0:
            early = min(len(samples), -(time_us * self._rate_hz // S_US))
            samples, time_us = samples[early:], max(0, time_us + early * S_US // self._rate_hz)
            self._early += early
        self._heard += len(samples)
        self.begun = self.begun or len(samples) > 0
        if end_us is None:
            return samples, time_us
        late_us = time_us - end_us
        if late_us < -MAX_GAP_US - LOOSE_US:
            twice = min(len(samples), -late_us * self._rate_hz // S_US)
            self._twice += twice
            return samples[twice:], end_us
        if abs(late_us) > LOOSE_US and late_us <= MAX_GAP_US:
            loose_us = LOOSE_US if late_us > 0 else -LOOSE_US
            most = len(samples) // MOST_STRETCH
            change = max(-most, min(most, (late_us - loose_us) * self._rate_hz // S_US))
            self._added += change
            samples = stretched(samples, len(samples) + change)
        return samples, time_us

    def notes(self, index: int) -> Iterator[str]:
        """What was changed."""
        if abs(self._added) * S_US >= NOTED_US * self._rate_hz:
            percent, speed = 100 * abs(self._added) / self._heard, "slow" if self._added > 0 else "fast"
            yield f"the sound of track {index} runs {percent:.1f} % {speed} against the film, and was fitted to it"
        for count, which in ((self._early, "before the start of the film"), (self._twice, "at times that had sound")):
            if count:
                yield f"{count / self._rate_hz:.2f} s of sound of track {index} {which} were left out"


def stretched(samples: Samples, count: int) -> Samples:
    """So many samples [count, channels] that sound like the given ones, by linear interpolation."""
    if count == len(samples):
        return samples
    places = (np.arange(count) + 0.5) * len(samples) / count - 0.5
    given = np.arange(len(samples))
    return np.stack([np.interp(places, given, channel) for channel in samples.T], axis=1).round().astype(np.int16)
