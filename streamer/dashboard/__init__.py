"""The live page: what each session sees, hears, says and decides, in a browser.

    Redis ─ results, by pub/sub and by range ─► live.py ─────────────┐
    Kafka ─ payloads of windows, by offset ───► retrieval/contents ──┼─► server.py ─► page.html, page/*.js, page.css
    Kafka ─ late and dead-letter topics ──────► faults.py ───────────┤
    Kafka ─ speech topic ─────────────────────► speech.py ───────────┤
    Redis ─ open alarms ──────────────────────► alarms.py ───────────┤
    an index of `streamer index`, the model ──► search.py ───────────┘

A result names the records of its window by offset, and a session's partition follows from its name. So the page needs
no storage: it reads frames, audio, transcripts and telemetry from Kafka when somebody looks at that session, until
Kafka's retention deletes them. New results come through one pub/sub subscription for all browsers; after a gap the page
reads Redis by range.
"""

from __future__ import annotations

from streamer.dashboard.server import Dashboard
from streamer.dashboard.serving import run, running

__all__ = ["Dashboard", "run", "running"]
