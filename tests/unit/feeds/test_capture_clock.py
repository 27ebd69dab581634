"""The time of what a source sends: by its clock where that is believed, else by arrival; never back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streamer.events import TimeSource
from streamer.feeds.capture.clock import SLEW, Ascending, Clock, Stamp

S_US, MS_US = 1_000_000, 1_000
NOW_US = 1_767_225_600 * S_US
FRAME_US = 40 * MS_US


def clock(most_off_us: int = 2 * S_US) -> Clock:
    return Clock(TimeSource.RTCP, most_off_us)


def test_a_reported_time_is_taken_as_it_is() -> None:
    stamp = clock().stamp(5, NOW_US - 100 * MS_US, NOW_US)
    assert stamp == Stamp(NOW_US - 100 * MS_US, TimeSource.RTCP)


def test_a_clock_that_is_too_far_off_is_not_believed_in_either_direction() -> None:
    for off_us in (-3 * S_US, 3 * S_US, NOW_US):
        stamp = clock().stamp(5, NOW_US - off_us, NOW_US)
        assert stamp == Stamp(NOW_US, TimeSource.ARRIVAL)


def test_a_clock_that_is_set_while_it_runs_is_believed_from_then_on() -> None:
    ours = clock()
    assert ours.stamp(0, NOW_US - 90 * S_US, NOW_US).source is TimeSource.ARRIVAL
    assert ours.stamp(FRAME_US, NOW_US + FRAME_US - MS_US, NOW_US + FRAME_US).source is TimeSource.RTCP


def test_a_hiccup_of_the_network_does_not_put_a_good_clock_in_doubt() -> None:
    ours = clock(most_off_us=S_US)
    ours.stamp(0, NOW_US - 10 * MS_US, NOW_US)
    late = ours.stamp(FRAME_US, NOW_US + FRAME_US, NOW_US + 3 * S_US)
    assert late == Stamp(NOW_US + FRAME_US, TimeSource.RTCP)


def test_without_reports_the_quickest_packets_tell_the_offset() -> None:
    ours, rng = clock(), random.Random(3)
    off = []
    for number in range(500):
        taken_us = number * FRAME_US
        jitter_us = rng.choice([0, 0, rng.randrange(80 * MS_US)])
        stamp = ours.stamp(taken_us, None, NOW_US + taken_us + jitter_us)
        assert stamp.source is TimeSource.ARRIVAL
        off.append(stamp.time_us - NOW_US - taken_us)
    assert max(off[50:]) <= 2 * MS_US
    assert min(off) >= 0


def test_what_came_while_the_source_was_opened_does_not_make_the_times_late() -> None:
    ours = clock()
    burst = [(number * FRAME_US, NOW_US) for number in range(25)]  # a second of pictures, all at once
    for media_us, arrival_us in burst:
        ours.see(media_us, None, arrival_us)
    times_us = [ours.stamp(media_us, None, arrival_us).time_us for media_us, arrival_us in burst]
    assert times_us[-1] == NOW_US
    assert times_us[0] == NOW_US - 24 * FRAME_US


def test_a_source_whose_clock_runs_fast_is_followed_without_jumps() -> None:
    ours, before_us, fast = clock(), None, 1.0005
    for number in range(25 * 600):
        arrival_us = NOW_US + number * FRAME_US
        time_us = ours.stamp(round(number * FRAME_US * fast), None, arrival_us).time_us
        assert abs(time_us - arrival_us) < 10 * MS_US
        if before_us is not None:
            assert abs(time_us - before_us - FRAME_US) <= (SLEW + 0.001) * FRAME_US
        before_us = time_us


def test_media_times_that_begin_anew_are_anchored_anew() -> None:
    ours = clock()
    for number in range(100):
        ours.stamp(number * FRAME_US, None, NOW_US + number * FRAME_US)
    after_us = NOW_US + 100 * FRAME_US
    assert ours.stamp(77 * S_US, None, after_us).time_us == after_us
    assert ours.stamp(0, None, after_us + FRAME_US).time_us == after_us + FRAME_US


def test_a_stall_of_the_network_moves_no_picture_that_was_taken_in_it() -> None:
    ours = clock()
    for number in range(200):
        taken_us = NOW_US + number * FRAME_US
        arrival_us = max(taken_us, NOW_US + 5 * S_US) if number >= 50 else taken_us
        assert ours.stamp(number * FRAME_US, None, arrival_us).time_us == taken_us


def test_without_time_stamps_the_time_is_that_of_arrival() -> None:
    assert clock().stamp(None, None, NOW_US) == Stamp(NOW_US, TimeSource.ARRIVAL)


stamps = st.builds(Stamp, st.integers(0, 1000), st.sampled_from(TimeSource))


@given(st.lists(stamps))
def test_times_of_a_sensor_ascend_and_keep_the_clock_that_told_them(given_stamps: list[Stamp]) -> None:
    ascending, newest = Ascending(), None
    for stamp in given_stamps:
        told = ascending.next(stamp)
        assert newest is None or told.time_us > newest.time_us
        if newest is None or stamp.time_us > newest.time_us:
            assert told == stamp
        else:
            assert told == Stamp(newest.time_us + 1, newest.source)
        newest = told
