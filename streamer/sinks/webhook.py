"""Results as signed posts, by the conventions of Standard Webhooks (https://www.standardwebhooks.com).

A session's results are posted one after the other, at least once each: ``webhook-id`` names the window, so that a
receiver knows a repetition. What the receiver refuses for good (4xx) goes to a stream of dead letters in Redis, with
the reason, and the session goes on. All else is tried again, with growing pauses or when ``Retry-After`` says: by
session, so that one that fails or is slow delays no other.
"""

from __future__ import annotations

import logging
from urllib.parse import quote

from streamer.backoff import Backoff
from streamer.result import Result
from streamer.sinks import events
from streamer.sinks.posting import Answer, Poster
from streamer.sinks.sink import Given, Sink
from streamer.store.readers import Cursor, Later, Page

LONGEST_PAUSE_S = 60.0

log = logging.getLogger(__name__)


class Webhook(Sink):
    """Posts results to one address."""

    service = "Webhook"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._poster = Poster(given.settings, self.at_once)
        self._failing: dict[str, tuple[Backoff, str]] = {}  # session -> its pauses, and why it failed last

    async def open(self) -> None:
        await self._poster.open()

    async def close(self) -> None:
        await self._poster.close()

    def degraded(self) -> list[str]:
        if not self._failing:
            return []
        _, why = next(iter(self._failing.values()))
        return [f"sessions that wait for {self._poster.shown}: {len(self._failing)}; {why}"]

    async def take(self, page: Page) -> int | Later | None:
        """Post the results of a page; the cursor follows each."""
        cursor = page.cursor
        for result in page.results:
            answer = await self._poster.post(quote(result.id, safe="/"), events.structured(result))
            if answer.for_good:
                await self._set_aside(result, answer.why)
            elif answer.why:
                return self._later(page.session, answer)
            else:
                self.given.metrics.sent.inc()
            after = Cursor(result.end_us)
            if not await self.places.move(page.session, cursor, after):
                return None
            cursor = after
            page.reached(result.end_us)
            self._goes_on(page.session)
        return cursor.end_us

    def _later(self, session: str, answer: Answer) -> Later:
        backoff, _ = self._failing.get(session, (Backoff(LONGEST_PAUSE_S), ""))
        if session not in self._failing:
            log.warning("%s does not take results of %s: %s; tried again", self._poster.shown, session, answer.why)
        self._failing[session] = backoff, answer.why
        self.given.metrics.waiting_sessions.set(len(self._failing))
        self.given.metrics.retries.labels("webhook").inc()
        return Later(max(backoff.next_s(), answer.after_s))

    def _goes_on(self, session: str) -> None:
        if self._failing.pop(session, None) is not None:
            log.info("%s takes results of %s again", self._poster.shown, session)
            self.given.metrics.waiting_sessions.set(len(self._failing))

    async def _set_aside(self, result: Result, why: str) -> None:
        """Before the cursor moves: a crash in between leaves the letter twice, and none is lost."""
        log.error("%s refuses %s for good: %s; it is in %s", self._poster.shown, result.id, why, self._letters)
        fields = {"id": result.id, "reason": why, "event": events.structured(result)}
        maxlen = self.given.settings.results_maxlen
        await self.given.client.xadd(self._letters, fields, maxlen=maxlen, approximate=True)
        self.given.metrics.failed.inc()

    @property
    def _letters(self) -> str:
        return self.given.keys.sink_deadletters(self.given.name)
