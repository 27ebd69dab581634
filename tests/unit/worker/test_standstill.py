"""What is said of partitions that stand still: once when it begins, once when it ends."""

from __future__ import annotations

import logging

import pytest
from faust.types import TP

from streamer.worker.standstill import AFTER_US, Held, Standstill

S_US = 1_000_000
NOW_US = 1_700_000_000 * S_US
FRAMES, AUDIO, TEXT = TP("frames", 0), TP("audio", 0), TP("audio", 1)


def leader(tp: TP) -> str | None:
    return {FRAMES: "broker 2 at b:9092", AUDIO: "broker 2 at b:9092"}.get(tp)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "streamer.worker.standstill")
    return caplog


def test_what_moves_is_not_spoken_of(said: pytest.LogCaptureFixture) -> None:
    standstill = Standstill(leader)
    for second in range(60):
        standstill.look({FRAMES: NOW_US + second * S_US - AFTER_US}, NOW_US + second * S_US)
    assert said.messages == []
    assert standstill.reason is None


def test_one_line_names_the_broker_and_the_partitions_and_since_when(said: pytest.LogCaptureFixture) -> None:
    standstill = Standstill(leader)
    for second in range(30):
        now_us = NOW_US + second * S_US
        standstill.look({FRAMES: NOW_US, AUDIO: NOW_US, TEXT: now_us}, now_us)
    (line,) = said.messages
    assert line.startswith("broker 2 at b:9092 does not answer: 2 of 3 partitions stand still since 20")
    assert line.endswith(": audio 0, frames 0")
    assert standstill.reason == "2 of 3 partitions stand still: Kafka does not answer for them"


def test_the_end_is_said_with_how_long_it_took(said: pytest.LogCaptureFixture) -> None:
    standstill = Standstill(leader)
    standstill.look({FRAMES: NOW_US, TEXT: NOW_US + 9 * S_US}, NOW_US + 9 * S_US)
    standstill.look({FRAMES: NOW_US + 11 * S_US, TEXT: NOW_US + 11 * S_US}, NOW_US + 12 * S_US)
    standstill.look({FRAMES: NOW_US + 12 * S_US, TEXT: NOW_US + 12 * S_US}, NOW_US + 13 * S_US)
    assert said.messages[1:] == ["Kafka answers again for frames 0, after 12 s"]
    assert standstill.reason is None


def test_where_nothing_moves_kafka_is_away(said: pytest.LogCaptureFixture) -> None:
    standstill = Standstill(leader)
    for second in range(9):
        standstill.look({FRAMES: None, AUDIO: None}, NOW_US + second * S_US)
    (line,) = said.messages
    assert line.startswith("Kafka does not answer: 2 of 2 partitions stand still since 20")


def test_a_partition_without_a_leader_is_named_as_such(said: pytest.LogCaptureFixture) -> None:
    Standstill(leader).look({TEXT: NOW_US, FRAMES: NOW_US + 9 * S_US}, NOW_US + 9 * S_US)
    (line,) = said.messages
    assert line.startswith("a partition has no leader")


def test_a_partition_that_was_taken_away_is_no_longer_spoken_of(said: pytest.LogCaptureFixture) -> None:
    standstill = Standstill(leader)
    standstill.look({FRAMES: NOW_US, TEXT: NOW_US + 9 * S_US}, NOW_US + 9 * S_US)
    standstill.look({TEXT: NOW_US + 10 * S_US}, NOW_US + 10 * S_US)
    assert len(said.messages) == 1
    assert standstill.reason is None


def test_a_transaction_that_stays_open_is_reported_once_and_so_is_its_end(said: pytest.LogCaptureFixture) -> None:
    held = Held()
    for second in range(9):
        held.look({FRAMES: 7, AUDIO: 3}, NOW_US + second * S_US)
    assert held.reason == "an open transaction holds audio 0, frames 0"
    held.look({AUDIO: 3}, NOW_US + 9 * S_US)
    held.look({}, NOW_US + 12 * S_US)
    first, second_line, last = said.messages
    assert first.startswith("an open transaction holds audio 0, frames 0: windows that wait for it close after")
    assert second_line == "a transaction has ended after 9 s, it held frames 0"
    assert last == "a transaction has ended after 12 s, it held audio 0"
    assert held.reason is None


def test_transactions_that_end_in_time_are_not_spoken_of(said: pytest.LogCaptureFixture) -> None:
    held = Held()
    for second in range(60):
        held.look({FRAMES: second}, NOW_US + second * S_US)
    assert said.messages == []
    assert held.reason is None
