"""How much of what was said was heard."""

from __future__ import annotations

import pytest

from streamer.demo.listening import compared, patient
from streamer.settings import Settings


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("Make way for fire engine.", "make way for fire engine", 0),
        ("Lane is free.", "", 3),
        ("Radio check fine, jackhammer", "Radio check find Jack hammer", 3),
        ("a b c", "x a b c", 1),
    ],
)
def test_errors_are_words_that_are_wrong_missing_or_too_many(said: str, heard: str, errors: int) -> None:
    assert compared([said], [heard]).errors == errors


def test_drives_are_compared_one_by_one() -> None:
    found = compared(["a b", "c d"], ["c d", "a b"])
    assert (found.said_words, found.errors, found.error_rate) == (4, 4, 1.0)
    assert compared([], []).error_rate == 0.0


def test_windows_wait_for_the_sensor_that_takes_the_transcripts_whatever_it_is_called() -> None:
    settings = Settings.load(sensors={"words": {"kind": "text"}, "text": {"enabled": False}})
    longest_ms = patient(settings).longest_delay_ms
    assert patient(settings).sensors["words"].max_delay_ms == longest_ms > settings.longest_delay_ms == 2000
