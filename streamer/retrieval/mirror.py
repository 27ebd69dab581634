"""Keeps an index equal to the results streams: adds new windows, drops those that Redis has deleted.

So the limit of the streams (setting ``results_maxlen``) bounds the index too, and a forgotten session leaves it at the
next update at the latest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec
import redis

from streamer.result import Result
from streamer.retrieval.store import Covered, Found
from streamer.store.results import PAGE, Keys, sessions

FOLLOW_S = 1.0  # between two updates
MOST_US = (1 << 53) - 1  # the last entry that a results stream can have


class Index(Protocol):
    """Where embeddings are kept and compared; :class:`streamer.retrieval.store.Store` documents each method."""

    @property
    def where(self) -> str: ...
    def covered(self) -> dict[str, Covered]: ...
    def sizes(self) -> dict[str, int]: ...
    def writing(self) -> AbstractContextManager[None]: ...
    def add(self, session: str, results: Sequence[Result], covered: Covered) -> int: ...
    def trim(self, session: str, before_us: int) -> int: ...
    def forget(self, session: str) -> int: ...
    def refresh(self, on_progress: Callable[[int, int], None] = ...) -> None: ...
    def search(
        self, space: str, vector_D: Any, count: int, session: str | None = None, exact: bool = False
    ) -> list[Found]: ...


class Update(msgspec.Struct, frozen=True):
    """What an update has done so far.

    Attributes:
        sessions: Sessions done, of ``of`` in all.
        read: Results read; those without an embedding are not indexed.
        added, dropped: Windows that entered and left the index.
    """

    sessions: int = 0
    of: int = 0
    read: int = 0
    added: int = 0
    dropped: int = 0


def update(
    client: redis.Redis,
    keys: Keys,
    index: Index,
    *,
    only: Sequence[str] = (),
    since_us: int = 0,
    on_progress: Callable[[Update], None] = lambda so_far: None,
) -> Update:
    """Bring the index up to date; the caller holds ``index.writing()``.

    Args:
        only: Update these sessions only; if empty, all, and sessions that Redis no longer has are dropped.
        since_us: Leave out windows that end earlier, unless they are indexed already.

    Raises:
        RedisError: Redis does not answer.
        UsageError: The index cannot be written.
    """
    covered = index.covered()
    names = list(only) or sessions(client, keys)
    done = Update(of=len(names))
    for gone in set(covered) - set(names) if not only else ():
        done = msgspec.structs.replace(done, dropped=done.dropped + index.forget(gone))
    for name in names:
        for change in _update_session(client, keys, index, name, covered.get(name), since_us):
            done = _sum(done, change)
            on_progress(done)
        done = _sum(done, Update(sessions=1))
        on_progress(done)
    return done


def follow(
    client: redis.Redis,
    keys: Keys,
    index: Index,
    *,
    only: Sequence[str] = (),
    since_us: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Update]:
    """Update every ``FOLLOW_S``, without end; the caller holds ``index.writing()``."""
    while True:
        yield update(client, keys, index, only=only, since_us=since_us)
        index.refresh()
        sleep(FOLLOW_S)


def _sum(one: Update, other: Update) -> Update:
    return Update(*map(sum, zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)))


def _update_session(
    client: redis.Redis, keys: Keys, index: Index, session: str, covered: Covered | None, since_us: int
) -> Iterator[Update]:
    oldest_us, newest_us = _span_us(client, keys, session)
    if oldest_us is None or newest_us is None:  # never published, or forgotten
        if covered is not None:
            yield Update(dropped=index.forget(session))
        return
    if covered is not None and newest_us < covered.upto_us:  # forgotten, then published again with older windows
        yield Update(dropped=index.forget(session))
        covered = None
    if covered is None:
        covered = Covered(since_us, since_us - 1)
    else:
        yield Update(dropped=index.trim(session, oldest_us))
        if since_us < covered.from_us:
            yield from _read(client, keys, index, session, covered, (since_us, covered.from_us - 1))
            covered = Covered(since_us, covered.upto_us)
            index.add(session, [], covered)  # noted only once all are indexed: after a crash they are read again
    yield from _read(client, keys, index, session, covered, (covered.upto_us + 1, MOST_US))


def _read(
    client: redis.Redis, keys: Keys, index: Index, session: str, covered: Covered, between_us: tuple[int, int]
) -> Iterator[Update]:
    """Index the results that end between two times, inclusive; each page is one change."""
    from_us, last_us = between_us
    while True:
        page = client.xrange(keys.results(session), min=f"{from_us}-0", max=f"{last_us}-0", count=PAGE)
        if page:
            found = [Result.from_fields(fields) for _, fields in page]
            from_us = found[-1].end_us + 1
            upto_us = max(covered.upto_us, found[-1].end_us)
            added = index.add(session, found, Covered(covered.from_us, upto_us))
            yield Update(read=len(found), added=added)
        if len(page) < PAGE:
            return


def _span_us(client: redis.Redis, keys: Keys, session: str) -> tuple[int | None, int | None]:
    """The ends of the oldest and the newest window in Redis."""
    stream = keys.results(session)
    ends = [client.xrange(stream, count=1), client.xrevrange(stream, count=1)]
    oldest, newest = (int(page[0][0].split(b"-")[0]) if page else None for page in ends)
    return oldest, newest
