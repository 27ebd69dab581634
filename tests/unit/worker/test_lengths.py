"""Audio that is not as long as it says: counted each time, logged at a bounded rate."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from streamer.model.sample import Mismatch
from streamer.observe.metrics import Metrics
from streamer.worker.lengths import LOG_EVERY_S, Lengths

SHORT = Mismatch(3, 17, 1, 1_000_000, -500_000)
LONG = Mismatch(0, 2, 1, 1_000_000, 20_000)


def test_each_mismatch_is_counted_and_one_a_minute_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "streamer.worker.lengths")
    metrics, clock = Metrics(CollectorRegistry()), [1000.0]
    lengths = Lengths(metrics, "streamer.audio", lambda: clock[0])

    def count(kind: str) -> float | None:
        return metrics.registry.get_sample_value("streamer_audio_length_mismatches_total", {"kind": kind})

    assert (count("short"), count("long")) == (0, 0)
    lengths.note("car", [])
    lengths.note("car", [SHORT, LONG])
    for clock[0] in (1000.0 + LOG_EVERY_S / 2, 999.9 + LOG_EVERY_S):
        lengths.note("car", [SHORT])
    assert caplog.messages == [
        "audio of session 'car': streamer.audio partition 3 offset 17 holds 0.500 s less than its ce_durationus "
        "of 1.000 s"
    ]
    clock[0] = 1000.0 + LOG_EVERY_S
    lengths.note("bus", [LONG])
    assert caplog.messages[1:] == [
        "audio of session 'bus': streamer.audio partition 0 offset 2 holds 0.020 s more than its ce_durationus "
        "of 1.000 s; 3 like it since the last such line"
    ]
    assert (count("short"), count("long")) == (3, 2)
