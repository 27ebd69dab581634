"""Traces as a collector gets them: a window's stages, with links to the records in it."""

from __future__ import annotations

import sys

import pytest

from streamer.errors import UsageError
from streamer.events import ClosedBy, Event, EventType, Position, Record, Window
from streamer.observe import tracing
from streamer.observe.tracing import Tracer
from streamer.settings import Settings
from tests.collector import collector

LATENCIES_US = {"merge": 5, "align": 9, "batch": 20_000, "decode": 3_000, "infer": 7_000, "publish": 1_000, "total": 1}
CLOSED_US = 2_000_000


def window(*headers: tuple[str, bytes | None], session: str = "car") -> Window:
    record = Record(0, 0, 0, 1_000_000, session.encode(), b"", headers)  # type: ignore[arg-type]
    event = Event(record, session, EventType.DATA, 0, 0)
    closed_at = Position(CLOSED_US, 0, 0)
    return Window(session, 0, 0, 1_000_000, ClosedBy.COMPLETE, closed_at, ((event,), (), (), ()), (0,) * 4)


def test_a_window_is_a_trace_of_its_stages_that_links_its_members() -> None:
    with collector() as (endpoint, spans):
        tracer = Tracer(endpoint, 1.0, "test")
        sent = tracer.sending("streamer.frames", "car")
        assert sent is not None
        header = tracing.traceparent(sent)
        sent.end()
        tracer.window(window((tracing.HEADER, header)), "ok", CLOSED_US, LATENCIES_US, run_early=True)
        tracer.close()
        found = {span.name: span for span in spans}
    whole, sending = found["window"], found["send streamer.frames"]
    assert [(link.trace_id, link.span_id) for link in whole.links] == [(sending.trace_id, sending.span_id)]
    assert whole.trace_id != sending.trace_id
    stages = ["align", *(stage for stage in tracing.STAGES if stage in LATENCIES_US)]
    assert all(found[name].parent_span_id == whole.span_id for name in stages)
    spent_us = [(found[name].end_time_unix_nano - found[name].start_time_unix_nano) // 1000 for name in stages]
    assert spent_us == [1_000_000, 20_000, 3_000, 7_000, 1_000]
    assert whole.start_time_unix_nano == 1_000_000_000
    assert whole.end_time_unix_nano == found["publish"].end_time_unix_nano == (CLOSED_US + 31_000) * 1000
    attributes = {attribute.key: attribute.value for attribute in whole.attributes}
    assert attributes["streamer.window.id"].string_value == "car/1000000"
    assert attributes["streamer.window.run_early"].bool_value is True


@pytest.mark.parametrize(
    "value",
    [None, b"", b"nonsense", b"00-%s-%s-01" % (b"0" * 32, b"1" * 16), b"00-%s-%s-01" % (b"A" * 32, b"1" * 16)],
)
def test_a_malformed_header_links_nothing_and_harms_nothing(value: bytes | None) -> None:
    with collector() as (endpoint, spans):
        tracer = Tracer(endpoint, 1.0, "test")
        tracer.window(window((tracing.HEADER, value)), "ok", CLOSED_US, LATENCIES_US, run_early=True)
        tracer.close()
        (whole,) = [span for span in spans if span.name == "window"]
    assert list(whole.links) == []


def test_whole_sessions_are_chosen_and_about_as_many_as_asked_for() -> None:
    tracer, other = Tracer("http://127.0.0.1:1/", 0.25, "one"), Tracer("http://127.0.0.1:1/", 0.25, "another")
    sessions = [f"car-{number}" for number in range(1000)]
    chosen = [session for session in sessions if tracer.chosen(session)]
    assert chosen == [session for session in sessions if other.chosen(session)]
    assert 200 < len(chosen) < 300
    refused = next(session for session in sessions if session not in chosen)
    assert tracer.sending("topic", refused) is None
    tracer.close()
    other.close()


def test_all_and_none_are_exact() -> None:
    for ratio, expected in ((1.0, True), (0.0, False)):
        tracer = Tracer("http://127.0.0.1:1/", ratio, "test")
        assert {tracer.chosen(f"car-{number}") for number in range(1000)} == {expected}
        tracer.close()


def test_tracing_is_off_by_default_and_needs_nothing_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing.tracer(Settings.load(), "test") is None
    with pytest.raises(UsageError, match=r"pip install 'streamer-multimodal\[trace\]'"):
        tracing.tracer(Settings.load(trace_endpoint="http://127.0.0.1:1/"), "test")
