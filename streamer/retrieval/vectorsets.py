"""An index in Redis itself, where it has vector sets (Redis 8): every host that reaches Redis can search it.

    {prefix}:index:covered             hash: session -> how far its results have been read
    {prefix}:index:spaces              set of the spaces
    {prefix}:index:in:{SPACE}          vector set of a space; an element is a window's id, with its session as attribute
    {prefix}:{SESSION}:indexed         sorted set of what is indexed of a session, by the window's end

Redis compares by an HNSW graph of vectors with 8 bits a number. Several processes may index at once: each change is
idempotent. An element is noted with its session before it is added and until it is removed, so a process that dies
leaves no element that later updates do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self
from urllib.parse import quote

import numpy as np
import redis
from numpy.typing import NDArray

from streamer.result import Result
from streamer.retrieval.store import EXPANSION, Covered, Found, space_of
from streamer.store.results import PAGE, Keys


def has_vector_sets(client: redis.Redis, keys: Keys) -> bool:
    """Whether this Redis has the commands, and this user may use them.

    Raises:
        RedisError: Redis does not answer.
    """
    try:
        client.vset().vcard(keys.index_space("probe"))
    except redis.exceptions.NoPermissionError:
        return False
    except redis.ResponseError as error:
        if "unknown command" in str(error).lower():
            return False
        raise
    return True


class VectorSets:
    """The index in Redis; every method raises ``RedisError`` if Redis does not answer."""

    where = "Redis"

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass  # the client is not ours to close

    def exists(self) -> bool:
        """Whether anything was ever indexed."""
        return bool(self._client.exists(self._keys.index_covered))

    def covered(self) -> dict[str, Covered]:
        """How far each session has been read."""
        found = self._client.hgetall(self._keys.index_covered)
        return {name.decode(): Covered(*map(int, span.split(b","))) for name, span in found.items()}

    def sizes(self) -> dict[str, int]:
        """Space -> windows in it."""
        counts = {space: int(self._client.vset().vcard(self._keys.index_space(space))) for space in self._spaces()}
        return {space: count for space, count in counts.items() if count}

    def _spaces(self) -> list[str]:
        return sorted(name.decode() for name in self._client.smembers(self._keys.index_spaces))

    def writing(self) -> AbstractContextManager[None]:
        """No lock is needed: each change is idempotent."""
        return nullcontext()

    def add(self, session: str, results: Sequence[Result], covered: Covered) -> int:
        """Index the results that have an embedding, and note how far the session has now been read.

        Returns:
            The number of new windows.
        """
        attributes = {"session": quote(session, safe="")}  # the filter language knows no escapes
        with_vectors = [(space_of(r.model, r.version), r) for r in results if r.embedding]
        with self._client.pipeline(transaction=False) as pipe:
            for space, result in with_vectors:
                pipe.sadd(self._keys.index_spaces, space)
                pipe.zadd(self._keys.indexed(session), {f"{result.end_us} {space}": result.end_us})
            pipe.execute()
            for space, result in with_vectors:
                vector = np.frombuffer(result.embedding, "<f2").astype("<f4").tobytes()
                pipe.vset().vadd(self._keys.index_space(space), vector, result.id, attributes=attributes)
            answers = pipe.execute()
        self._client.hset(self._keys.index_covered, session, ",".join(map(str, covered)))
        return sum(map(int, answers))

    def trim(self, session: str, before_us: int) -> int:
        """Drop a session's windows that end before this time; returns their number."""
        count = 0
        while marks := self._client.zrange(
            self._keys.indexed(session), "-inf", f"({before_us}", byscore=True, offset=0, num=PAGE
        ):
            with self._client.pipeline(transaction=False) as pipe:
                for mark in marks:
                    end_us, _, space = mark.decode().partition(" ")
                    pipe.vset().vrem(self._keys.index_space(space), f"{session}/{end_us}")
                pipe.execute()
            self._client.zrem(self._keys.indexed(session), *marks)
            count += len(marks)
        return count

    def forget(self, session: str) -> int:
        """Drop a session; returns the number of its windows."""
        count = self.trim(session, 1 << 53)
        self._client.hdel(self._keys.index_covered, session)
        return count

    def refresh(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Forget the names of empty spaces; Redis maintains its graphs itself."""
        for space in set(self._spaces()) - set(self.sizes()):
            self._client.srem(self._keys.index_spaces, space)

    def search(
        self, space: str, vector_D: NDArray[np.float32], count: int, session: str | None = None, exact: bool = False
    ) -> list[Found]:
        """The windows whose embeddings are most like a vector of length 1, best match first.

        Args:
            session: Search this session only.
            exact: Compare with every window, not through the graph.
        """
        answer = self._client.vset().vsim(
            self._keys.index_space(space),
            vector_D.astype("<f4").tobytes(),
            with_scores=True,
            count=count,
            ef=max(EXPANSION, count),
            filter=None if session is None else f'.session == "{quote(session, safe="")}"',
            # a filter sees only the neighbours that the graph visits, and would miss most of a rare session
            truth=exact or session is not None,
        )
        found = []
        for element, score in answer.items():
            name, _, end_us = element.decode().rpartition("/")
            found.append(Found(name, int(end_us), 2 * float(score) - 1))  # VSIM returns (1 + cosine) / 2
        return found
