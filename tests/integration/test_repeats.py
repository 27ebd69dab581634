"""The same event twice, by source and id: one event while its window is open, live, after a kill and in a replay."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from streamer.golden import record as recorder
from streamer.golden import verify
from streamer.settings import Settings
from streamer.store import results as stored
from tests.faults import verifier
from tests.faults.rig import wait_until_committed
from tests.harness import S_US, end, results, running_worker, second, send, wait_for

pytestmark = pytest.mark.integration

SECONDS = 6


def test_events_that_are_sent_twice_are_in_their_windows_once(topics: Settings, tmp_path: Path) -> None:
    start_us = (int(time.time()) - SECONDS) * S_US
    sent = Counter[str]()
    with running_worker(topics, tmp_path / "worker.log") as worker:
        for number in range(SECONDS):
            records = second(topics, "car", start_us + number * S_US)
            send(topics, records)
            if number == SECONDS // 2:
                worker.kill()  # after the first copy, before the second: it is rebuilt from what is not committed
                worker.restart()
            send(topics, records[1:])
            sent.update(r.topic for r in records)
        send(topics, [end(topics, "car", start_us + SECONDS * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "car")) == SECONDS, 60.0, worker.text)
        wait_until_committed(topics, 60.0, worker.text)
        summary = verifier.verify(verifier.read(topics), verifier.Rules.of(topics))
        members = Counter[str]()
        for result in results(topics.redis, topics, "car"):
            for topic, ranges in json.loads(result["members"]).items():
                members[topic] += sum(last - first + 1 for first, last in ranges)
        assert members == sent
        assert summary.repeated + summary.late == sent.total() - SECONDS
        assert summary.repeated > SECONDS
        assert worker.metric("streamer_events_total", outcome="repeated") > 0
    path = tmp_path / "log.mcap"
    recorder.record(topics, path, recorder.Stretch(since_us=0))
    with stored.connected(topics) as (client, keys):
        report = verify.run(topics, path, verify.RedisReference(client, keys), tolerance=1e-3)
    assert report.differences == []
    assert report.summary.same == SECONDS
    assert report.summary.repeated == summary.repeated
