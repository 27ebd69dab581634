"""How the growth benchmark makes its feeds and fits its points; nothing is measured."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bench.growth import alone, feeds, fit, points
from bench.growth.feeds import Feed, Sent
from bench.programs.bare import aligned
from bench.rig import Run
from streamer.events import END_TYPE, IMAGE
from streamer.feeds import simulate
from streamer.operate.costs import Coefficients
from streamer.settings import Settings

START_US = 1_700_000_000 * simulate.S_US
TRUE = Coefficients(window=2, record=0.05, megabyte=1.5, frame=0.2, megabyte_decoded=8, model=1.2, model_second=0.4)


def test_a_session_repeats_its_drive_without_a_gap_or_a_number_twice() -> None:
    sent = list(feeds.stream(Feed(sessions=2, seconds=40, frame_hz=5), START_US))
    assert [record.due_us for record in sent] == sorted(record.due_us for record in sent)
    frames = [record for record in sent if record.row == IMAGE and record.session == "car-1"]
    assert [frame.time_us - START_US for frame in frames] == [number * 200_000 for number in range(200)]
    assert [frame.sequence for frame in frames] == list(range(200))
    assert frames[0].payload == frames[50].payload
    assert Counter(record.session for record in sent if record.ce_type == END_TYPE) == {"car-0": 1, "car-1": 1}


def test_a_thousand_sessions_share_few_drives_and_have_records_of_their_own() -> None:
    sent = list(feeds.stream(Feed(sessions=100, seconds=2, frame_hz=1), START_US))
    assert len({record.session for record in sent}) == 100
    pictures = {record.payload for record in sent if record.row == IMAGE}
    assert len(pictures) <= 2 * feeds.DISTINCT_S // 2


@pytest.mark.parametrize("frame_kb", [10, 200])
def test_frames_get_the_size_that_is_asked_for(frame_kb: int) -> None:
    sizes = {
        len(record.payload)
        for record in feeds.stream(Feed(1, 1, frame_hz=2, frame_kb=frame_kb), START_US)
        if record.row == IMAGE
    }
    assert all(abs(size / (frame_kb * 1000) - 1) <= feeds.NEAR for size in sizes)


@pytest.mark.parametrize("window_ms", [100, 500, 1000, 10_000])
def test_the_windows_of_a_feed_are_as_many_without_kafka(window_ms: int) -> None:
    feed = Feed(sessions=2, seconds=20, frame_hz=10)
    settings = Settings(partitions=1, window_ms=window_ms)
    found = list(aligned(settings, list(alone.records(feed))))
    assert len(found) == points.Config("", 0, feed, window_ms=window_ms).windows


def point(axis: str, seconds: int, frame_kb: int, decoded: int) -> points.Point:
    """What a program whose costs are ``TRUE`` would have been measured at."""
    config = points.Config("", 0, Feed(4, 40, frame_kb=frame_kb), window_ms=seconds * 1000, decoded=decoded)
    frames = 4 * 40 * 10
    sent = Sent((frames, 800, 60, 800), (frames * frame_kb * 1000, 5_000_000, 50_000, 250_000), 0)
    empty = points.Point(axis, config, (), sent, "")
    window = empty.window
    run = Run(config.windows, 1.0, TRUE.window_ms(window) * config.windows / 1000)
    bare_ms = TRUE.decode_ms(window) + TRUE.model_ms(window)
    return msgspec.structs.replace(empty, runs=(run,), bare_ms=bare_ms, predict_ms=TRUE.model_ms(window))


def test_the_fit_finds_the_costs_that_made_the_points() -> None:
    cases = [(1, 10, 2), (1, 200, 2), (1, 1000, 2), (4, 10, 2), (10, 10, 2), (1, 200, 8)]
    found = fit.coefficients([point("frames", *case) for case in cases])
    assert msgspec.structs.astuple(found) == pytest.approx(msgspec.structs.astuple(TRUE), rel=1e-6)


def test_no_coefficient_is_below_zero() -> None:
    assert fit.relative([(1, 1), (1, 2)], [2.0, 1.0]) == pytest.approx([1.2, 0.0])


def test_an_axis_that_was_not_measured_apart_is_not_fitted() -> None:
    lacking = msgspec.structs.replace(point("frames", 1, 10, 2), bare_ms=None)
    with pytest.raises(ValueError, match="without Kafka"):
        fit.coefficients([lacking])


def test_the_axes_owe_the_same_windows_in_however_many_sessions() -> None:
    assert len({config.windows for config in points.axes(quick=False)["sessions"]}) == 1
    for configs in points.axes(quick=False).values():
        for config in configs:
            assert config.feed.seconds * 1000 % config.window_ms == 0
