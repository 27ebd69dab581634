"""Traces from a producer's record through a worker, on a real Kafka and a real Redis."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from streamer.feeds import Producer
from streamer.settings import Settings
from tests.collector import collector
from tests.harness import S_US, running_worker, wait_for

pytestmark = pytest.mark.integration


def test_a_window_in_redis_has_a_trace_that_links_what_the_producer_sent(topics: Settings, tmp_path: Path) -> None:
    with collector() as (endpoint, spans):
        settings = topics.model_copy(update={"trace_endpoint": endpoint, "trace_ratio": 1.0})
        with running_worker(topics, tmp_path / "log", trace_endpoint=endpoint, trace_ratio=1.0) as worker:
            start_us = (int(time.time()) - 3) * S_US
            with Producer(settings) as producer:
                producer.telemetry("car", {"speed": [1.0] * 10}, rate_hz=10, time_us=start_us)
                producer.telemetry("car", {"speed": [1.0] * 10}, rate_hz=10, time_us=start_us + S_US)
                producer.end("car")
            sent = {(span.trace_id, span.span_id) for span in spans if span.name.startswith("send ")}
            assert len(sent) == 3
            wait_for(lambda: worker.metric("streamer_results_total", status="ok") == 2, 30.0)
            wait_for(lambda: worker.metric("streamer_consumer_lag_records") == 0, 10.0)
            worker.stop()
        windows = [span for span in spans if span.name == "window"]
        linked = [{(link.trace_id, link.span_id) for link in span.links} for span in windows]
        assert [len(links) for links in linked] == [1, 1]
        assert linked[0] | linked[1] < sent
        for window in windows:
            stages = {span.name for span in spans if span.parent_span_id == window.span_id}
            early = {each.key: each.value.bool_value for each in window.attributes}["streamer.window.run_early"]
            assert stages >= {"align", "publish"} | (set() if early else {"decode", "infer"})
