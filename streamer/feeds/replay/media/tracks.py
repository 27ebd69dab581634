"""Reading the tracks of a film: packets with times from the film's start, and what they hold.

Each track is read through a separate file handle, and the readers are merged by due time: memory stays bounded
whatever the interleaving and length of the file, at the price of reading the container once per track.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from av.error import FFmpegError, InvalidDataError

from streamer.errors import UsageError
from streamer.feeds.replay.media.container import SUBTITLE, VIDEO, demuxed, opened, why
from streamer.feeds.replay.media.timeline import LONGEST_PACKET_US, Timeline, trusted
from streamer.feeds.replay.part import S_US, Part

ROLL_US = S_US  # decoders of sound need some of what comes before
CUT_US = S_US // 2  # a film that ends so much before its stated end was cut off


@dataclass
class Tracks:
    """Reads tracks of an open film, and notes what is wrong with them.

    Attributes:
        part: Where the notes go.
        reached_us: Where the packets read so far end.
    """

    part: Part
    timeline: Timeline
    reached_us: int = 0

    def packets(self, index: int, begin_us: int = 0) -> Iterator[Any]:
        """Packets of a track, their times shifted where the clock of the film jumps.

        Args:
            begin_us: Packets before it may be left out.
        """
        with opened(self.part.path) as container:
            stream = container.streams[index]
            if stream.type == VIDEO:
                stream.thread_type = "AUTO"
            begin_us -= ROLL_US
            if begin_us > 0 and self.timeline.seekable and stream.type != SUBTITLE:
                ticks = (begin_us + self.timeline.origin_us) / S_US / stream.time_base
                container.seek(int(ticks), stream=stream)
            shifts = list(self.timeline.shifts.get(index, ()))
            number, shift = 0, 0
            cut: Any = None  # a picture that is not whole: of no use, and an error for its decoder, if it is the last
            try:
                for packet in demuxed(container, stream):
                    if packet.size:
                        while shifts and shifts[0][0] <= number:
                            shift = round(shifts.pop(0)[1] / S_US / stream.time_base)
                        number += 1
                        self._shift(packet, shift)
                        if cut is not None:
                            yield cut
                        cut = packet if packet.is_corrupt and stream.type == VIDEO else None
                    if packet is not cut:
                        yield packet
            except FFmpegError as error:
                self.note(f"track {index} could not be read to its end: {why(error)}")
            if cut is not None:
                self.note(f"the file is cut off: the last picture of track {index} is not whole, and was left out")

    def _shift(self, packet: Any, shift: int) -> None:
        trusted(packet)
        if packet.pts is not None:
            packet.pts += shift
            length_us = int((packet.duration or 0) * packet.time_base * S_US)
            end_us = self.at_us(packet.pts, packet.time_base) + (length_us if length_us < LONGEST_PACKET_US else 0)
            self.reached_us = max(self.reached_us, end_us)
        if packet.dts is not None:
            packet.dts += shift

    def at_us(self, ticks: int, time_base: Any) -> int:
        """Time from the film's start."""
        return self.timeline.at_us(ticks, time_base)

    def decoded(self, index: int, packets: Iterable[Any]) -> Iterator[Any]:
        """What packets of a track hold. Broken ones are skipped, as players do.

        Raises:
            UsageError: None of them could be decoded.
        """
        good = broken = 0
        for packet in packets:
            try:
                found = packet.decode()
            except InvalidDataError:
                broken += 1
                continue
            except FFmpegError as error:
                if not good:
                    raise UsageError(f"{self.part.path}: track {index} cannot be decoded: {why(error)}") from None
                self.note(f"track {index} could not be decoded to its end: {why(error)}")
                break
            good += len(found)
            yield from found
        if broken and not good:
            raise UsageError(
                f"{self.part.path}: track {index} is broken: nothing of it can be decoded; choose another --stream"
            )
        if broken:
            self.note(f"{broken} broken packets of track {index} were left out")

    def note(self, said: str) -> None:
        """Add a note on the film, once."""
        note = f"{self.part.path}: {said}"
        if note not in self.part.notes:
            self.part.notes.append(note)

    def end(self) -> None:
        """Note that the film ended early, if it did. Call it when all tracks were read."""
        if self.reached_us < self.timeline.stated_us - CUT_US:
            reached_s, length_s = self.reached_us / S_US, self.timeline.stated_us / S_US
            self.note(f"the file is cut off: it ends after {reached_s:.1f} s of {length_s:.1f} s")
