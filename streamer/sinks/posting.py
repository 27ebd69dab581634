"""Signed posts, by the conventions of Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import time
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from streamer.errors import UsageError, one_line
from streamer.settings import Settings

STRUCTURED = "application/cloudevents+json"
PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
LONGEST_ASKED_S = 3600.0  # of a receiver's Retry-After
# 4xx that may pass: time-out, too early, too many requests.
PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


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


class Poster:
    """Posts to the address of the settings.

    Args:
        at_once: Posts that may be under way at the same time.

    Attributes:
        shown: The address, without what may be secret in it.

    Raises:
        UsageError: There is no address or no key, or they cannot be used.
    """

    def __init__(self, settings: Settings, at_once: int) -> None:
        if settings.webhook_url is None:
            raise UsageError(
                "a webhook needs STREAMER_WEBHOOK_URL, the address to post to, or STREAMER_WEBHOOK_URL_FILE"
            )
        self._url = settings.webhook_url.get_secret_value()
        self.shown = shown(self._url)
        self._key = key(None if settings.webhook_key is None else settings.webhook_key.get_secret_value())
        self._timeout_ms = settings.webhook_timeout_ms
        self._at_once = at_once

    async def open(self) -> None:
        """Begin; the event loop runs."""
        timeout = aiohttp.ClientTimeout(total=self._timeout_ms / 1000)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=self._at_once))

    async def close(self) -> None:
        """End; posts under way are given up."""
        await self._http.close()

    async def post(self, name: str, body: bytes) -> Answer:
        """Post a CloudEvent in structured mode.

        Args:
            name: Identifies it, in characters that a header may have.
        """
        headers = {"content-type": STRUCTURED, **signed(name, body, self._key, int(time()))}
        try:
            # No redirects: the address is what the operator wrote, and a post would become a get.
            async with self._http.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status, retry_after = answer.status, answer.headers.get("Retry-After")
        except TimeoutError:
            return Answer(f"no answer within {self._timeout_ms} ms")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(one_line(error).replace(self._url, self.shown))
        why = f"HTTP {status}"
        if status < HTTPStatus.OK or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
            return Answer(why, after_s=asked_s(retry_after))
        return Answer() if status < HTTPStatus.MULTIPLE_CHOICES else Answer(why, for_good=True)


def key(secret: str | None) -> bytes:
    """The bytes of a signing secret.

    Raises:
        UsageError: There is none, or it is not in base64, or too short or long; without the secret in its text.
    """
    fix = "make one with `openssl rand -base64 32` and give it to the receiver too"
    if secret is None:
        raise UsageError(f"a webhook is signed: set STREAMER_WEBHOOK_KEY or …_KEY_FILE; {fix}")
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if len(found) not in SECRET_BYTES:
        raise UsageError(f"setting STREAMER_WEBHOOK_KEY: must be 24 to 64 bytes in base64; {fix}")
    return found


def signed(name: str, body: bytes, key: bytes, now_s: int) -> dict[str, str]:
    """The headers that say who sends this: HMAC-SHA256 of name, time and body."""
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
