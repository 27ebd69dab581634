"""The live page: what each session sees, hears, says and decides, in a browser.

    Redis ─ results, by pub/sub and by range ─► live.py ────┐
    Kafka ─ payloads of windows, by offset ───► windows.py ─┼─► server.py ─► page.html, page.js, page.css
    Kafka ─ late and dead-letter topics ──────► faults.py ──┤
    an index of `streamer index`, the model ──► search.py ──┘

A result names the records of its window as offsets, and a session's partition follows from its name. So the page needs
no storage of its own: frames, audio, transcripts and telemetry are read from Kafka by offset when somebody looks at
that session, and are gone when Kafka's retention has passed. New results come through the pub/sub channel, one
subscription for all browsers; after any gap the page reads Redis again by range.
"""

from __future__ import annotations

from streamer.dashboard.server import Dashboard, run, running

__all__ = ["Dashboard", "run", "running"]
