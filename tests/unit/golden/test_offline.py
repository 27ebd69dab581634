"""Windows of a recording: those of the whole log where the recording decides them, wherever it was cut out."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streamer.align.windows import Rules
from streamer.events import END_TYPE, KIND_NAMES, KINDS, TICK_TYPE, Event, EventType, Window, rfc3339
from streamer.golden.offline import Content, Identity, Offline, content, identity
from streamer.golden.recording import About, Recorded, Writer
from streamer.settings import Settings
from tests import logs

FOREVER_US = 1 << 52
AHEAD_MS = 720  # the random logs' clocks are no further ahead

seeds = st.integers(min_value=0, max_value=2**32)


def random_settings(rng: random.Random) -> Settings:
    rules = logs.rules(rng)
    return Settings.load(
        window_ms=rules.window_us // 1000,
        hop_ms=rules.hop_us // 1000,
        session_gap_ms=rng.choice([300, 1500, 4000]),
        max_ahead_ms=AHEAD_MS,
        sensors={
            name: {
                "disorder_ms": rng.choice([0, 0, 30]),
                "max_delay_ms": rng.choice([0, 20, 80, 300]),
                "idle_after_ms": rng.choice([50, 400, 2000, None]),  # the longer ones outlast the windows in doubt
            }
            | ({} if name in KIND_NAMES else {"kind": kind})
            for name, kind in {**{kind: kind for kind in KIND_NAMES}, "rear": "image", "cabin": "audio"}.items()
        },
    )


def on_the_wire(events: list[Event], settings: Settings) -> list[Recorded]:
    return [record_of(event, settings.sensor_set.names[event.sensor]) for event in events]


def record_of(event: Event, sensor: str) -> Recorded:
    kinds = {EventType.DATA: KINDS[event.row].ce_type, EventType.END: END_TYPE, EventType.TICK: TICK_TYPE}
    contents = ("image/jpeg", "audio/wav", "application/json", "application/json")
    payloads = (b"x", b"x", b'{"text": "x"}', b'{"channels": {"v": {"values": [1]}}, "rate_hz": 1000000}')
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event.identity[1] if event.identity else "1",
        "ce_source": "/",
        "ce_type": kinds[event.type],
        "ce_time": rfc3339(event.start_us),
        "ce_durationus": str(event.end_us - event.start_us),
        "content-type": contents[event.row],
        "ce_sensor": sensor,
    }
    record = event.record
    return Recorded(
        event.row,
        0,
        record.offset,
        record.log_time_us,
        record.key,
        payloads[event.row],
        tuple((name, value.encode()) for name, value in headers.items()),
    )


class Cut(NamedTuple):
    """What a recording of ``[start, end)`` gives."""

    windows: dict[Identity, Content]
    offline: Offline


def cut(
    settings: Settings, path: Path, records: list[Recorded], start_us: int, end_us: int, under_way: set[str]
) -> Cut:
    inside = [r for r in records if start_us <= r.log_time_us < end_us]
    first = tuple((sum(r.row == row and r.log_time_us < start_us for r in records),) for row in range(len(KINDS)))
    about = About(
        KIND_NAMES,
        settings.source_topics,
        1,
        first,
        (start_us if any(offset for (offset,) in first) else 0,),
    )
    with Writer(path, about, force=True) as writer:
        for record in inside:
            writer.write(record)
        writer.end(end_us)
    offline = Offline(settings, path, lambda session, partition: session in under_way)

    async def collect() -> dict[Identity, Content]:
        return {identity(window): content(window) async for window in offline.windows()}

    return Cut(asyncio.run(collect()), offline)


def truth(settings: Settings, events: list[Event]) -> list[Window]:
    outcomes = logs.run(Rules.from_settings(settings), events, FOREVER_US)
    return [outcome for outcome in outcomes if isinstance(outcome, Window)]


@given(seed=seeds)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_recording_decides_is_what_the_whole_log_gives(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path / "r.mcap")


def check(seed: int, path: Path) -> tuple[int, int]:
    """Returns how many windows the recording touches, and how many it decides."""
    rng = random.Random(seed)
    settings = random_settings(rng)
    events = logs.log(rng, rng.randint(40, 400), settings.sensor_set)
    windows = truth(settings, events)
    first_us, last_us = events[0].record.log_time_us, events[-1].record.log_time_us
    start_us, end_us = sorted((rng.randint(first_us, last_us + 1), rng.randint(first_us, last_us + 1_000_000)))
    if rng.random() < 0.2:
        start_us = 0
    under_way = {w.session for w in windows for row in w.events for e in row if e.record.log_time_us < start_us}
    found, offline = cut(settings, path, on_the_wire(events, settings), start_us, end_us, under_way)
    assert not offline.refused
    true = {identity(w): content(w) for w in windows}
    closed = {identity(w) for w in windows if w.closed_at.log_time_us <= end_us}
    touched = {
        identity(w) for w in windows for row in w.events for e in row if start_us <= e.record.log_time_us < end_us
    }
    for window in found.keys() | (closed & touched):
        if offline.certain(window) and window not in offline.open:
            assert found.get(window) == true.get(window), (seed, window)
    for window in touched - closed:
        assert window in offline.open or not offline.certain(window), (seed, window)
    decided = {window for window in found if offline.certain(window)}
    return len(closed & touched), len(decided)


def test_a_recording_of_the_whole_log_gives_all_of_it(tmp_path: Path) -> None:
    rng = random.Random(1)
    settings = random_settings(rng)
    events = logs.log(rng, 400, settings.sensor_set)
    found, offline = cut(settings, tmp_path / "r.mcap", on_the_wire(events, settings), 0, FOREVER_US, set())
    assert found == {identity(w): content(w) for w in truth(settings, events)}
    assert offline.open == set()
    assert offline.records == 400


def test_a_session_that_begins_within_the_recording_is_compared_from_its_first_record(tmp_path: Path) -> None:
    rng = random.Random(1)
    settings = random_settings(rng)
    events = logs.log(rng, 400, settings.sensor_set)
    start_us = events[200].record.log_time_us
    later = [e for e in events if e.session != "s0" or e.record.log_time_us >= start_us]
    others = {e.session for e in later} - {"s0"}
    found, offline = cut(
        settings,
        tmp_path / "r.mcap",
        on_the_wire(events, settings),
        start_us,
        FOREVER_US,
        others,
    )
    wanted = {identity(w): content(w) for w in truth(settings, later) if w.session == "s0"}
    assert {window: what for window, what in found.items() if window[0] == "s0"} == wanted
    assert all(offline.certain(window) for window in wanted)
