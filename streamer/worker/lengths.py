"""Audio payloads that are not as long as their ``ce_durationus`` says: counted, and reported at a bounded rate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from streamer.model.sample import Mismatch
from streamer.observe.metrics import Metrics

LOG_EVERY_S = 60.0

log = logging.getLogger(__name__)


class Lengths:
    """Counts mismatches, and logs one of them at most every LOG_EVERY_S.

    Args:
        topic: The audio topic.
        now_s: A clock that never steps back.
    """

    def __init__(self, metrics: Metrics, topic: str, now_s: Callable[[], float] = monotonic) -> None:
        self._metrics = metrics
        self._topic = topic
        self._now_s = now_s
        self._logged_s: float | None = None
        self._unlogged = 0

    def note(self, session: str, mismatches: Sequence[Mismatch]) -> None:
        """Count the mismatches of a published window."""
        for mismatch in mismatches:
            self._metrics.audio_lengths.labels("short" if mismatch.surplus_us < 0 else "long").inc()
            self._log(session, mismatch)

    def _log(self, session: str, mismatch: Mismatch) -> None:
        now_s = self._now_s()
        if self._logged_s is not None and now_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        log.warning(
            "audio of session %r: %s partition %d offset %d holds %.3f s %s than its ce_durationus of %.3f s%s",
            session,
            self._topic,
            mismatch.partition,
            mismatch.offset,
            abs(mismatch.surplus_us) / 1e6,
            "less" if mismatch.surplus_us < 0 else "more",
            mismatch.said_us / 1e6,
            f"; {self._unlogged} like it since the last such line" if self._unlogged else "",
        )
        self._logged_s, self._unlogged = now_s, 0
