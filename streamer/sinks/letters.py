"""What the receiver of a webhook has refused for good: listed, and posted again once the cause is fixed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import msgspec
import redis

from streamer.errors import UsageError
from streamer.settings import Settings
from streamer.sinks.posting import Poster
from streamer.store import results
from streamer.store.results import Keys

PAGE = 500


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A refused result as ``streamer deadletters --sink NAME --json`` shows it.

    Attributes:
        id: Of the window.
        reason: Why it was refused, such as ``HTTP 400``.
        refused_us: When, by the clock of Redis, µs since the epoch.
        event: The CloudEvent that was posted.
    """

    id: str
    reason: str
    refused_us: int
    event: msgspec.Raw


class Again(msgspec.Struct):
    """What became of letters that were posted again: taken, or refused for good again."""

    sent: int = 0
    refused: int = 0


def read(settings: Settings, name: str, reason: str | None = None) -> Iterator[Letter]:
    """The letters of a sink, the oldest first.

    Args:
        name: Of the sink.
        reason: Only those with this one.

    Raises:
        UsageError: Redis does not answer, or no sink of this name was ever started.
    """
    with results.connected(settings) as (client, keys):
        for _, letter in _entries(client, keys, name, reason):
            yield letter


def requeue(settings: Settings, name: str, reason: str | None = None) -> Again:
    """Post the letters again, with their ids and in their order; what is taken is a letter no longer.

    Raises:
        UsageError: As :func:`read`; there is no address or key; or the receiver does not answer: what it has not taken
            waits for the next call.
    """
    with results.connected(settings) as (client, keys):
        return asyncio.run(_requeue(settings, client, keys, name, reason))


async def _requeue(settings: Settings, client: redis.Redis, keys: Keys, name: str, reason: str | None) -> Again:
    poster, again = Poster(settings, 1), Again()
    await poster.open()
    try:
        for entry, letter in _entries(client, keys, name, reason):
            answer = await poster.post(quote(letter.id, safe="/"), bytes(letter.event))
            if answer.for_good:
                again.refused += 1
            elif answer.why:
                raise UsageError(
                    f"{poster.shown} does not take {letter.id}: {answer.why}; {again.sent} were taken, the others wait "
                    "for another call"
                )
            else:
                client.xdel(keys.sink_deadletters(name), entry)
                again.sent += 1
    finally:
        await poster.close()
    return again


def _entries(client: redis.Redis, keys: Keys, name: str, reason: str | None) -> Iterator[tuple[bytes, Letter]]:
    """The letters that are there now, with the ids of their entries."""
    if not client.hexists(keys.sinks, name):
        raise UsageError(
            f"no sink {name!r} was ever started here; --sink takes the --name of a `streamer sink webhook`"
        )
    stream, last = keys.sink_deadletters(name), b"-"
    newest = client.xrevrange(stream, count=1)
    while page := client.xrange(stream, last, newest[0][0], count=PAGE) if newest else []:
        for entry, fields in page:
            why = fields[b"reason"].decode()
            if reason in (None, why):
                refused_us = int(entry.partition(b"-")[0]) * 1000
                event = msgspec.Raw(fields[b"event"])
                yield entry, Letter(id=fields[b"id"].decode(), reason=why, refused_us=refused_us, event=event)
        last = b"(" + page[-1][0]
