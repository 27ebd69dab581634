"""The words of windows: read together where their records lie near, alone where Kafka has deleted some."""

from __future__ import annotations

import json

import pytest

from streamer.describe.evidence import MAX_GAP, Words, measured, sights, words
from streamer.events import IMAGE, TELEMETRY, TEXT, Record
from streamer.result import Result
from streamer.retrieval.contents import Gone, Ranges, Records
from streamer.settings import Settings
from tests import kept
from tests.harness import jpeg

S_US = 1_000_000
BEGIN_US = 1_767_225_600_000_000
SETTINGS = Settings()


class Log:
    """A partition of words in memory: second n of the session is the record at offset ``step × n``."""

    partitions = 1

    def __init__(self, step: int = 1, first: int = 0) -> None:
        self.step, self.first = step, first
        self.reads: list[Ranges] = []

    def read(self, row: int, partition: int, ranges: Ranges) -> list[Record]:
        assert row == TEXT
        self.reads.append(ranges)
        if ranges[0][0] < self.first:
            raise Gone("not in Kafka any more")
        offsets = sorted({offset for first, last in ranges for offset in range(first, last + 1)})
        return [record(offset, offset // self.step) for offset in offsets]

    def close(self) -> None:
        pass


def record(offset: int, second: int) -> Record:
    words = [{"text": f"in{second}", "start": 0.2, "end": 0.4}, {"text": f"after{second}", "start": 1.2, "end": 1.4}]
    body = {"text": f"in{second} after{second}", "start": 0.0, "end": 1.5, "words": words}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(offset),
        "ce_source": "/test",
        "ce_type": "streamer.transcript.v1",
        "ce_time": f"2026-01-01T00:00:{second:02}Z",
        "content-type": "application/json",
    }
    pairs = tuple((name, value.encode()) for name, value in headers.items())
    return Record(TEXT, 0, offset, BEGIN_US + second * S_US, b"car", json.dumps(body).encode(), pairs)


def window(second: int, *offsets: int) -> Result:
    members = {SETTINGS.source_topics[TEXT]: tuple((offset, offset) for offset in offsets)} if offsets else {}
    start_us = BEGIN_US + second * S_US
    return Result("car", start_us, start_us + S_US, "complete", (), {}, members, {}, b"", "m", "1", "ok", {})


def read(log: Log, *windows: Result) -> list[Words]:
    return words(Records(SETTINGS, log), windows)


def test_words_belong_to_the_window_in_which_they_are_spoken_and_one_read_serves_all() -> None:
    log = Log()
    found = read(log, window(0, 0), window(1, 0, 1), window(2), window(3, 3))
    assert found == [Words(("in0",)), Words(("after0", "in1")), Words(), Words(("in3",))]
    assert len(log.reads) == 1


def test_records_far_from_each_other_are_read_apart() -> None:
    log = Log(step=2 * MAX_GAP)
    found = read(log, window(0, 0), window(1), window(2, 4 * MAX_GAP))
    assert found == [Words(("in0",)), Words(), Words(("in2",))]
    assert len(log.reads) == 2


def test_of_windows_whose_words_kafka_has_deleted_in_part_each_has_what_is_left() -> None:
    log = Log(first=2)
    assert read(log, window(0, 0), window(1, 1), window(2, 2)) == [Words(gone=True), Words(gone=True), Words(("in2",))]


def test_windows_without_words_read_nothing() -> None:
    log = Log()
    assert read(log, window(0), window(1)) == [Words(), Words()]
    assert log.reads == []


@pytest.mark.parametrize("windows", [0, 1])
def test_no_windows_have_no_words(windows: int) -> None:
    assert read(Log(), *[window(0)] * windows) == [Words()] * windows


CAR = Settings.load(sensors={"rear": {"kind": "image"}, "imu": {"kind": "telemetry"}})


def of_car(log: kept.Log, *present: str) -> Result:
    return kept.window(log, present, CAR.sensor_set.names)


def test_of_several_cameras_the_newest_frame_of_each_is_shown_and_of_one_some_spread_evenly() -> None:
    pictures = [(IMAGE, name, jpeg(place), "image/jpeg") for place, name in enumerate(["rear", None, "rear", None])]
    both = kept.Log(*pictures)
    seen = sights(Records(CAR, both), of_car(both, "image", "rear"), 4, 64, 10_000)
    assert (len(seen.frames), seen.cameras, seen.gone) == (2, ("image", "rear"), False)
    assert sights(Records(CAR, both), of_car(both, "image", "rear"), 1, 64, 10_000).cameras == ("image",)
    one = kept.Log(*[picture for picture in pictures if picture[1] == "rear"] * 4)
    assert sights(Records(CAR, one), of_car(one, "rear"), 3, 64, 10_000).cameras == ("rear",) * 3
    assert sights(Records(CAR, one), of_car(one, "rear"), 0, 64, 10_000).cameras == ()


def test_channels_that_several_sensors_have_are_told_apart() -> None:
    def block(*channels: str) -> bytes:
        return json.dumps({"channels": {name: {"values": [1.0]} for name in channels}, "rate_hz": 10.0}).encode()

    log = kept.Log(
        (TELEMETRY, None, block("speed", "temperature"), "application/json"),
        (TELEMETRY, "imu", block("yaw", "temperature"), "application/json"),
    )
    found = measured(Records(CAR, log), of_car(log, "telemetry", "imu"))
    assert sorted(found.channels) == ["imu.temperature", "speed", "telemetry.temperature", "yaw"]
