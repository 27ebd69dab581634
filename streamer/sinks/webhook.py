"""Results as signed posts, by the conventions of Standard Webhooks (https://www.standardwebhooks.com).

A session's results are posted one after the other, at least once each: ``webhook-id`` names the window, so that a
receiver knows a repetition. What the receiver refuses for good (4xx) goes to a stream of dead letters in Redis, with
the reason, and the session goes on. All else is tried again, with growing pauses or when ``Retry-After`` says: by
session, so that one that fails or is slow delays no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import time
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import aiohttp

from streamer.backoff import Backoff
from streamer.errors import UsageError, one_line
from streamer.result import Result
from streamer.sinks import events
from streamer.sinks.sink import Given, Sink
from streamer.store.readers import Cursor, Later, Page

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
LONGEST_PAUSE_S = 60.0
LONGEST_ASKED_S = 3600.0  # of a receiver's Retry-After
# 4xx that may pass: time-out, too early, too many requests.
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What became of a post.

    Attributes:
        why: It was not taken; empty if it was.
        for_good: It never will be.
        after_s: When the receiver wants to be asked again.
    """

    why: str = ""
    for_good: bool = False
    after_s: float = 0.0


class Webhook(Sink):
    """Posts results to one address."""

    service = "Webhook"
    at_once = 64  # a session whose post is not answered holds one for webhook_timeout_ms

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        url, secret = given.settings.webhook_url, given.settings.webhook_key
        if url is None:
            raise UsageError("sink webhook needs STREAMER_WEBHOOK_URL, the address to post to, or …_URL_FILE")
        self._url = url.get_secret_value()
        self._shown = shown(self._url)
        self._key = key(None if secret is None else secret.get_secret_value())
        self._failing: dict[str, tuple[Backoff, str]] = {}  # session -> its pauses, and why it failed last

    async def open(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self.given.settings.webhook_timeout_ms / 1000)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=self.at_once))

    async def close(self) -> None:
        await self._http.close()

    def degraded(self) -> list[str]:
        if not self._failing:
            return []
        _, why = next(iter(self._failing.values()))
        return [f"{len(self._failing)} sessions wait for {self._shown}: {why}"]

    async def take(self, page: Page) -> int | Later | None:
        """Post the results of a page; the cursor follows each."""
        cursor = page.cursor
        for result in page.results:
            answer = await self._post(result)
            if answer.for_good:
                await self._set_aside(result, answer.why)
            elif answer.why:
                return self._later(page.session, answer)
            else:
                self.given.metrics.results.labels("sent").inc()
            after = Cursor(result.end_us)
            if not await self.places.move(page.session, cursor, after):
                return None
            cursor = after
            page.reached(result.end_us)
            self._goes_on(page.session)
        return cursor.end_us

    async def _post(self, result: Result) -> Answer:
        body = events.structured(result)
        headers = {"content-type": events.STRUCTURED, **signed(result, body, self._key, int(time()))}
        try:
            # No redirects: the address is what the operator wrote, and a post would become a get.
            async with self._http.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status, retry_after = answer.status, answer.headers.get("Retry-After")
        except TimeoutError:
            return Answer(f"no answer within {self.given.settings.webhook_timeout_ms} ms")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(one_line(error).replace(self._url, self._shown))
        why = f"HTTP {status}"
        if status < HTTPStatus.OK or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
            return Answer(why, after_s=asked_s(retry_after))
        return Answer() if status < HTTPStatus.MULTIPLE_CHOICES else Answer(why, for_good=True)

    def _later(self, session: str, answer: Answer) -> Later:
        backoff, _ = self._failing.get(session, (Backoff(LONGEST_PAUSE_S), ""))
        if session not in self._failing:
            log.warning("%s does not take results of %s: %s; tried again", self._shown, session, answer.why)
        self._failing[session] = backoff, answer.why
        self.given.metrics.waiting_sessions.set(len(self._failing))
        self.given.metrics.retries.labels("webhook").inc()
        return Later(max(backoff.next_s(), answer.after_s))

    def _goes_on(self, session: str) -> None:
        if self._failing.pop(session, None) is not None:
            log.info("%s takes results of %s again", self._shown, session)
            self.given.metrics.waiting_sessions.set(len(self._failing))

    async def _set_aside(self, result: Result, why: str) -> None:
        """Before the cursor moves: a crash in between leaves the letter twice, and none is lost."""
        log.error("%s refuses %s for good: %s; it is in %s", self._shown, result.id, why, self._letters)
        fields = {"id": result.id, "reason": why, "event": events.structured(result)}
        maxlen = self.given.settings.results_maxlen
        await self.given.client.xadd(self._letters, fields, maxlen=maxlen, approximate=True)
        self.given.metrics.results.labels("failed").inc()

    @property
    def _letters(self) -> str:
        return self.given.keys.sink_deadletters(self.given.name)


def key(secret: str | None) -> bytes:
    """The bytes of a signing secret.

    Raises:
        UsageError: There is none, or it is not in base64, or too short or long; without the secret in its text.
    """
    fix = "make one with `openssl rand -base64 32` and give it to the receiver too"
    if secret is None:
        raise UsageError(f"sink webhook signs its posts: set STREAMER_WEBHOOK_KEY or …_KEY_FILE; {fix}")
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if len(found) not in SECRET_BYTES:
        raise UsageError(f"setting STREAMER_WEBHOOK_KEY: must be 24 to 64 bytes in base64; {fix}")
    return found


def signed(result: Result, body: bytes, key: bytes, now_s: int) -> dict[str, str]:
    """The headers that say who sends this: HMAC-SHA256 of id, time and body."""
    name = quote(result.id, safe="/")
    mac = hmac.new(key, f"{name}.{now_s}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def asked_s(retry_after: str | None) -> float:
    """Seconds of a ``Retry-After``, which has a number or a date (RFC 9110, 10.2.3); 0 if there is none."""
    if retry_after is None:
        return 0.0
    try:
        after_s = (
            float(retry_after) if retry_after.isdigit() else parsedate_to_datetime(retry_after).timestamp() - time()
        )
    except ValueError:
        return 0.0
    return min(max(0.0, after_s), LONGEST_ASKED_S)


def shown(url: str) -> str:
    """An address without what may be secret in it: path, query, user and password.

    Raises:
        UsageError: It is none of HTTP.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("setting STREAMER_WEBHOOK_URL: must be an address such as https://example.org/results")
    return f"{parts.scheme}://{parts.hostname}{port}"
