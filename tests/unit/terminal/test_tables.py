from __future__ import annotations

import msgspec

from streamer.broker.deadletters import DeadLetter
from streamer.retrieval.search import Frame, Hit
from streamer.terminal import tables
from tests.terminals import END_US, lines, result

LETTER = DeadLetter(
    reason="bad_json",
    detail="the body is not JSON",
    topic="streamer.telemetry",
    partition=3,
    offset=17,
    log_time_us=END_US,
    key="car-1",
    ce_id="1",
    ce_type="streamer.telemetry.v1",
    size_bytes=5,
)


def test_a_listing_has_a_row_for_each_result() -> None:
    assert len(lines(tables.listing([result(), result()]))) == 3


def test_a_window_in_words_is_listed_whole_in_80_columns() -> None:
    told = "two people and a car; engine; speed 13.9 m/s; says: turn left at the next crossing"
    shown = lines(tables.listing([result(outputs={"words": {"text": told}}), result()]))
    assert max(map(len, shown)) <= 80
    assert all(word in " ".join(shown) for word in told.split())


def test_dead_letters_are_listed_with_origin_reason_and_detail() -> None:
    assert lines(tables.letters([LETTER]))[1].split(maxsplit=3)[1:] == [
        "streamer.telemetry/3/17",
        "bad_json",
        "the body is not JSON",
    ]


def test_a_dead_letter_for_a_batch_has_the_offsets_that_it_stands_for() -> None:
    of_batch = msgspec.structs.replace(LETTER, reason="unreadable_batch", first_offset=11)
    assert lines(tables.letters([of_batch]))[1].split()[1:3] == ["streamer.telemetry/3/11-17", "unreadable_batch"]
    of_one = msgspec.structs.replace(of_batch, first_offset=17)
    assert lines(tables.letters([of_one]))[1].split()[1] == "streamer.telemetry/3/17"


def test_search_hits_fit_80_columns_with_the_whole_time_and_place(zone: str) -> None:
    found = [
        Hit(
            session="a-session-with-a-very-long-name",
            start_us=END_US - 1_000_000,
            end_us=END_US,
            time="2025-06-15T15:06:40.000Z",
            similarity=0.4321,
            label="emergency_stop_ahead",
            score=0.98,
            frame=Frame("streamer.frames", 11, 1_234_567),
        )
    ]
    head, row, caption = lines(tables.hits(found, 80))
    assert f"window {zone}" in head
    assert row.split() == [
        "0.432",
        *("2025-06-15", "15:06:40" if zone == "UTC" else "20:36:40"),
        "a-session-with-a-…",
        "emergency_stop_ah…",
        "0.98",
        "11/1234567",
    ]
    assert caption.strip() == "frame: partition/offset in streamer.frames"
    assert max(map(len, (head, row, caption))) <= 80


def test_a_frame_that_was_written_to_a_file_is_shown_as_the_file() -> None:
    found = [Hit("car", 0, 1, "", 0.5, "go", None, Frame("streamer.frames", 1, 2), thumbnail="frames/car-1.jpg")]
    shown = lines(tables.hits(found, 80))
    assert shown[1].endswith("frames/car-1.jpg")
    assert len(shown) == 2


def test_the_zone_of_the_times_is_in_the_heading(zone: str) -> None:
    assert lines(tables.listing([result()]))[0].startswith(f"window {zone} ")
    assert f"time {zone} " in lines(tables.letters([LETTER]))[0]
