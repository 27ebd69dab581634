"""Utterances are a function of the log: whoever starts again at a committed cut cuts them to the sample as before."""

from __future__ import annotations

import random
from typing import NamedTuple, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.senses.voice import VoiceNetwork
from streamer.transcribe.partition import MAX_METADATA_BYTES, Cut, Key, Partition, Utterance
from streamer.transcribe.utterances import Place, Rules

S_US = 1_000_000
T0_US = 1_700_000_000 * S_US
RULES = Rules.of(silence_ms=400, longest_ms=12_000)
HOLE_US, GAP_US = 400_000, 2 * S_US
RATES_HZ = (8_000, 16_000, 44_100)
KEYS = (Key("car", "audio"), Key("car", "radio"), Key("van", "audio"))


class Ears:
    """In place of the network: hears what is loud, and what was loud just before."""

    def run(
        self, input_1S: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        loudness = min(1.0, float(np.abs(input_1S).mean()) * 4)
        memory = 0.6 * float(state.flat[0]) + 0.4 * loudness
        return np.array([[max(loudness * 0.9, memory)]], np.float32), np.full_like(state, memory)


NETWORK = cast(VoiceNetwork, Ears())


class Chunk(NamedTuple):
    """A record: sound of a key, or the end of its session."""

    key: Key
    log_time_us: int
    start_us: int
    rate_hz: int
    samples_S: NDArray[np.float32] | None


class Said(NamedTuple):
    """All that makes an utterance's record."""

    key: Key
    begin: Place
    times_us: tuple[int, int, int]
    sound: bytes


def said(utterance: Utterance) -> Said:
    speech = utterance.speech
    times_us = (speech.start_us, speech.voice_start_us, speech.voice_end_us)
    return Said(utterance.key, speech.begin, times_us, speech.samples_S.tobytes())


def partition(cut: Cut | None = None) -> Partition:
    return Partition(0, NETWORK, RULES, HOLE_US, GAP_US, cut)


def take(into: Partition, offset: int, chunk: Chunk) -> list[Utterance]:
    found = into.begin(offset, chunk.log_time_us)
    if chunk.samples_S is None:
        return found + into.end(chunk.key.session, offset)
    if into.needs(chunk.key, offset):
        duration_us = len(chunk.samples_S) * S_US // chunk.rate_hz
        found += into.hear(chunk.key, offset, chunk.start_us, chunk.rate_hz, chunk.samples_S, duration_us)
    return found


def spoken(rng: np.random.Generator, seconds: float, rate_hz: int) -> NDArray[np.float32]:
    """Noise that is loud for a while, then quiet for a while."""
    parts, count = list[NDArray[np.float32]](), 0
    while count < seconds * rate_hz:
        length = round(rate_hz * rng.choice([0.05, 0.3, 0.6, 1.5, 4.0, 14.0], p=[0.1, 0.3, 0.25, 0.2, 0.1, 0.05]))
        parts.append((rng.uniform(-1, 1, length) * rng.choice([0.0, 0.02, 0.9])).astype(np.float32))
        count += length
    return np.concatenate(parts)[: round(seconds * rate_hz)]


def chunks_of(key: Key, rng: np.random.Generator, seconds: float) -> list[Chunk]:
    """A device's records, with its faults: an unsteady clock, holes, repetitions, pauses, another rate, ends."""
    found, at_us, rate_hz = list[Chunk](), T0_US + int(rng.integers(0, S_US)), int(rng.choice(RATES_HZ))
    sound, position = spoken(rng, seconds, rate_hz), 0
    pause_us = 0
    while position < len(sound):
        length = round(rate_hz * rng.choice([0.02, 0.1, 0.5, 1.0]))
        samples_S = sound[position : position + length]
        start_us = at_us + position * S_US // rate_hz + pause_us
        jittered_us = start_us + int(rng.integers(-40_000, 40_000))
        log_time_us = (start_us + len(samples_S) * S_US // rate_hz) // 1000 * 1000
        fault = rng.random()
        if fault > 0.03:  # else it is lost
            found.append(Chunk(key, log_time_us, jittered_us, rate_hz, samples_S))
        if 0.03 < fault < 0.07:
            found.append(found[-1]._replace(log_time_us=log_time_us + 1000))
        if 0.07 < fault < 0.09 and len(found) > 5:
            found.append(found[-4]._replace(log_time_us=log_time_us))
        if 0.09 < fault < 0.10:
            pause_us += int(rng.choice([200_000, 3 * S_US, 8 * S_US]))
        if 0.10 < fault < 0.11:
            found.append(Chunk(key, log_time_us, 0, 0, None))
        position += length
    return found


def recorded_log(seed: int, seconds: float = 15.0) -> list[Chunk]:
    rng = np.random.default_rng(seed)
    chunks = [chunk for key in KEYS for chunk in chunks_of(key, rng, seconds)]
    return sorted(chunks, key=lambda chunk: chunk.log_time_us)


def straight(log: list[Chunk]) -> list[Said]:
    whole = partition()
    return [said(utterance) for offset, chunk in enumerate(log) for utterance in take(whole, offset, chunk)]


@pytest.mark.parametrize("seed", range(12))
def test_a_restart_at_any_moment_finds_the_same_utterances(seed: int) -> None:
    log = recorded_log(seed)
    expected = straight(log)
    assert expected
    assert len({(one.key, one.begin) for one in expected}) == len(expected)
    choose = random.Random(seed)
    committed, live, found = Cut(0, 0, {}), partition(), list[Said]()
    under_way: list[Utterance] = []
    offset = restarts = 0
    while offset < len(log):
        new = take(live, offset, log[offset])
        under_way += new
        offset += 1
        while under_way and choose.random() < 0.3:
            done = under_way.pop(choose.choice([0, 0, 0, -1]))
            found.append(said(done))
            live.finish(done)
        if choose.random() < 0.2:
            cut = live.cut()
            assert cut.offset >= committed.offset
            metadata = cut.metadata()
            assert metadata is not None
            committed = Cut.read(cut.offset, metadata)
            assert committed == cut
        if choose.random() < 0.03:
            found += [said(one) for one in under_way if choose.random() < 0.5]  # said, and not known to be
            under_way, live, offset = [], partition(committed), committed.offset
            restarts += 1
    found += [said(one) for one in under_way]
    assert restarts
    assert set(found) == set(expected)


def test_a_process_that_has_finished_everything_goes_on_at_the_end_of_the_log() -> None:
    log = recorded_log(1)
    whole = partition()
    for offset, chunk in enumerate(log):
        for utterance in take(whole, offset, chunk):
            whole.finish(utterance)
    for utterance in whole.silence(log[-1].log_time_us + 10 * S_US, len(log)):
        whole.finish(utterance)
    assert whole.sounds == 0
    assert whole.cut() == Cut(len(log), log[-1].log_time_us + 10 * S_US, {})


def sound(seconds: float, loud: bool, rate_hz: int = 16_000) -> NDArray[np.float32]:
    rng = np.random.default_rng(round(seconds * 1000))
    return (rng.uniform(-1, 1, round(seconds * rate_hz)) * (0.9 if loud else 0.0)).astype(np.float32)


def hear(
    into: Partition, offset: int, start_s: float, samples_S: NDArray[np.float32], key: Key = KEYS[0]
) -> list[Said]:
    start_us = T0_US + round(start_s * S_US)
    end_us = start_us + len(samples_S) * S_US // 16_000
    return [said(one) for one in take(into, offset, Chunk(key, end_us, start_us, 16_000, samples_S))]


def spans_s(found: list[Said]) -> list[tuple[float, float]]:
    return [(round((s.times_us[1] - T0_US) / S_US, 1), round((s.times_us[2] - T0_US) / S_US, 1)) for s in found]


def test_an_utterance_ends_with_its_silence_and_has_the_time_of_the_voice() -> None:
    into = partition()
    assert hear(into, 0, 0.0, sound(1.0, loud=False)) == []
    assert hear(into, 1, 1.0, sound(2.0, loud=True)) == []
    assert hear(into, 2, 3.0, sound(0.3, loud=False)) == []
    assert spans_s(hear(into, 3, 3.3, sound(0.6, loud=False))) == [(1.0, 3.1)]


def test_an_utterance_without_a_pause_is_cut_at_its_longest() -> None:
    into = partition()
    found = [one for second in range(30) for one in hear(into, second, second, sound(1.0, loud=True))]
    assert len(found) == 2
    (first, second) = spans_s(found)
    assert 9.0 <= first[1] <= 12.0
    assert second[0] == first[1]


def test_chunks_whose_times_jitter_are_one_sound_and_a_small_hole_is_silence() -> None:
    into = partition()
    assert hear(into, 0, 0.0, sound(1.0, loud=True)) == []
    assert hear(into, 1, 1.06, sound(1.0, loud=True)) == []
    assert hear(into, 2, 2.30, sound(1.0, loud=True)) == []  # a hole of 240 ms
    (found,) = hear(into, 3, 3.3, sound(1.0, loud=False))
    assert spans_s([found]) == [(0.0, 3.4)]
    assert len(found.sound) / 4 / 16_000 == pytest.approx(3.0 + 0.24 + 0.3, abs=0.1)


def test_a_hole_ends_an_utterance() -> None:
    into = partition()
    assert hear(into, 0, 0.0, sound(1.0, loud=True)) == []
    assert spans_s(hear(into, 1, 1.6, sound(1.0, loud=True))) == [(0.0, 1.0)]
    assert into.chunks == {"heard": 2}


def test_a_chunk_that_was_heard_already_is_counted_and_heard_no_more() -> None:
    into = partition()
    hear(into, 0, 0.0, sound(1.0, loud=True))
    hear(into, 1, 1.0, sound(1.0, loud=True))
    assert hear(into, 2, 0.0, sound(1.0, loud=True)) == []
    hear(into, 3, 1.5, sound(1.0, loud=True))  # its first half is known
    (found,) = hear(into, 4, 2.5, sound(1.0, loud=False))
    assert spans_s([found]) == [(0.0, 2.6)]
    assert into.chunks == {"heard": 4, "late": 1}


def test_an_end_record_ends_all_sounds_of_its_session_and_no_other() -> None:
    into = partition()
    for offset, key in enumerate(KEYS):
        hear(into, offset, 0.0, sound(1.0, loud=True), key)
    ended = take(into, 3, Chunk(KEYS[0], T0_US + S_US, 0, 0, None))
    assert [utterance.key for utterance in ended] == [KEYS[0], KEYS[1]]
    assert into.sounds == 1


def test_a_silent_sound_ends_when_log_time_has_passed_its_length_and_the_gap() -> None:
    into = partition()
    hear(into, 0, 0.0, sound(1.0, loud=True))
    assert into.soonest_us == T0_US + 4 * S_US
    assert into.silence(T0_US + 4 * S_US - 1, 1) == []
    (found,) = into.silence(T0_US + 4 * S_US, 1)
    assert spans_s([said(found)]) == [(0.0, 1.0)]
    assert into.soonest_us is None


def test_a_click_is_no_utterance() -> None:
    into = partition()
    assert hear(into, 0, 0.0, sound(0.03, loud=True)) == []
    assert hear(into, 1, 0.03, sound(2.0, loud=False)) == []
    assert into.cut().offset == 1


def test_memory_of_a_silent_microphone_stays_small_and_its_commit_near() -> None:
    into = partition()
    for second in range(60):
        hear(into, second, second, sound(1.0, loud=False))
        assert second + 1 - into.cut().offset <= 4


def test_a_cut_of_very_many_sounds_is_not_committed() -> None:
    begins = {number.to_bytes(6): Place(number, 123_456) for number in range(150)}
    metadata = Cut(0, T0_US, begins).metadata()
    assert metadata is not None
    assert len(metadata) <= MAX_METADATA_BYTES
    assert Cut(0, T0_US, begins | {number.to_bytes(6): Place(number, 9) for number in range(500)}).metadata() is None


def test_the_metadata_of_another_program_is_an_offset_alone() -> None:
    assert Cut.read(7, "") == Cut.read(7, "log_time_us=5") == Cut(7, 0, {})
