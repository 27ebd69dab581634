"""The page's search: one at a time, in a thread, with a model that is loaded for the first search.

The model is that of the setting ``model``; when its files are replaced, the next search loads it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import redis

from streamer.errors import Unavailable, UsageError
from streamer.retrieval import indexes
from streamer.retrieval.search import Query, find
from streamer.settings import Settings
from streamer.store import results

if TYPE_CHECKING:  # importing it loads PyTorch, which most pages never need
    from streamer.model.predictor import Predictor
    from streamer.model.reload import State

MAX_WAITING = 8  # searches that run or wait


class Finder:
    """Finds windows for the page; for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "search")
        self._waiting = 0
        self._predictor: Predictor | None = None
        self._loaded: State | None = None

    async def available(self) -> bool:
        """Whether there is an index."""
        return await asyncio.to_thread(self._available)

    async def find(self, query: Query) -> bytes:
        """The windows most like the query, as JSON: a list of :class:`streamer.retrieval.search.Hit`.

        Raises:
            UsageError: The search is not possible, now or in this form; one line says why.
            ModelError: The model cannot be loaded, or does not know this kind.
            Unavailable: Redis does not answer, or too many searches wait.
        """
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many searches at once; try again")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._find, query)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)  # a search whose browser has gone still counts until it is done

    async def close(self) -> None:
        """Wait for the search that is running."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _done(self, future: asyncio.Future[bytes]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # marks it as retrieved, in case the browser has gone

    def _available(self) -> bool:
        try:
            with (
                results.connected(self._settings) as (client, keys),
                indexes.opened(self._settings, client, keys),
            ):
                return True
        except UsageError:
            return False

    def _find(self, query: Query) -> bytes:
        with _retried():
            return msgspec.json.encode(find(self._settings, query, self._model))

    def _model(self) -> Predictor:
        from streamer.model.predictor import Predictor
        from streamer.model.reload import state_of

        state = state_of(self._settings.model)
        if self._predictor is None or state != self._loaded:
            self._predictor = Predictor.load(self._settings.model, self._settings.device, self._settings)
            self._loaded = state
        return self._predictor


@contextmanager
def _retried() -> Iterator[None]:
    """A Redis that does not answer ends a command; the page only asks again later."""
    try:
        yield
    except UsageError as error:
        if isinstance(error.__context__, redis.RedisError):
            raise Unavailable("Redis does not answer") from None
        raise
