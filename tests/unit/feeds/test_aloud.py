"""Drives that speak: their words are in their sound, in their place, and in nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT
from streamer.feeds import aloud
from streamer.feeds.producer import Outgoing
from streamer.feeds.simulate import Drive, Options
from streamer.feeds.sound import RATE_HZ

START_US = 1_750_000_000_000_000


def say(text: str) -> NDArray[np.float32]:
    """A tone of 50 ms a letter."""
    tone_S: NDArray[np.float32] = np.sin(np.arange(len(text) * RATE_HZ // 20) * 0.3).astype(np.float32)
    return tone_S


def sound(records: list[Outgoing]) -> NDArray[np.float64]:
    return np.concatenate([np.frombuffer(r.payload, ">i2") for r in records if r.row == AUDIO]) / 32_767.0


def test_what_is_said_fits_its_segment_and_one_sentence_follows_the_other() -> None:
    drive = Drive(7, "car", START_US, 60)
    spoken = aloud.lines(drive, say)
    assert len(spoken) > len(drive.course.segments)
    assert all(other.begin_s - one.end_s > 0.99 * aloud.PAUSE_S for one, other in pairwise(spoken))
    for line in spoken:
        (segment,) = (s for s in drive.course.segments if s.start_s <= line.begin_s < s.end_s)
        assert line.end_s <= segment.end_s
        assert line.text == line.text.strip().capitalize()


def test_the_voice_is_in_the_sound_where_it_is_said_and_all_else_is_as_it_was() -> None:
    drive = Drive(7, "car", START_US, 12)
    spoken = aloud.lines(drive, say)
    plain, mixed = list(drive.outgoing()), list(aloud.outgoing(drive, spoken))
    assert [r for r in mixed if r.row in (IMAGE, TELEMETRY)] == [r for r in plain if r.row in (IMAGE, TELEMETRY)]
    assert not any(record.row == TEXT for record in mixed)
    before_S, after_S = sound(plain), sound(mixed)
    assert len(before_S) == len(after_S)
    said_S = np.zeros(len(after_S), bool)
    for line in spoken:
        said_S[round(line.begin_s * RATE_HZ) : round(line.end_s * RATE_HZ)] = True
        middle = slice(round(line.begin_s * RATE_HZ) + 4000, round(line.end_s * RATE_HZ) - 4000)
        heard = np.corrcoef(after_S[middle], line.samples_S[4000 : 4000 + len(after_S[middle])])[0, 1]
        assert heard > 0.9
    quiet_S = (
        np.convolve(said_S, np.ones(2 * RATE_HZ // 5), mode="same") == 0
    )  # a chunk that is spoken in is turned down
    assert quiet_S.any()
    assert np.array_equal(before_S[quiet_S], after_S[quiet_S])


def test_of_two_microphones_one_hears_the_voice_so_that_nothing_is_recognised_twice() -> None:
    drive = Drive(7, "car", START_US, 6, Options(sensors=("camera_front", "cabin_mic", "roof_mic", "words")))
    plain, mixed = list(drive.outgoing()), list(aloud.outgoing(drive, aloud.lines(drive, say)))
    changed = {after.sensor for before, after in zip(_sounds(plain), _sounds(mixed), strict=True) if before != after}
    assert changed == {"cabin_mic"}


def _sounds(records: list[Outgoing]) -> list[Outgoing]:
    return [record for record in records if record.row == AUDIO]


def test_several_drives_come_in_the_order_in_which_they_are_due() -> None:
    drives = [Drive(seed, f"car-{seed}", START_US, 6) for seed in (1, 2)]
    spoken = {drive.session: aloud.lines(drive, say) for drive in drives}
    due_us = [record.due_us for record in aloud.merged(drives, spoken)]
    assert due_us == sorted(due_us)
    assert len(due_us) == sum(len(list(aloud.outgoing(drive, spoken[drive.session]))) for drive in drives)
