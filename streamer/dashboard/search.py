"""The page's search: one at a time, in a thread, with a model that is loaded for the first of them.

The model is the one of the setting ``model``; when its files are replaced, the next search loads it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import redis

from streamer import retrieval
from streamer.errors import Unavailable, UsageError
from streamer.retrieval.mirror import Index
from streamer.settings import Settings
from streamer.store import results
from streamer.store.results import Keys

if TYPE_CHECKING:  # it takes PyTorch along, which most pages never need
    from streamer.model.predictor import Predictor
    from streamer.model.reload import State

MAX_WAITING = 8  # searches that are under way or wait


class Query(msgspec.Struct, frozen=True):
    """What is looked for: words, or a file of sound or a picture.

    Attributes:
        kind: ``text``, ``image`` or ``audio``.
        session: In this session alone; None: in all.
    """

    kind: str
    content: str | bytes
    limit: int
    session: str | None


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
            UsageError: It cannot be searched, now or like this; one line says why.
            ModelError: The model cannot be loaded, or does not know this modality.
            Unavailable: Too many searches wait.
        """
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many searches at once; try again")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._find, query)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)  # one that nobody waits for any more still counts until it is done

    async def close(self) -> None:
        """Wait for the search that is under way."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _done(self, future: asyncio.Future[bytes]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # seen, if the browser has gone

    @contextmanager
    def _opened(self) -> Iterator[tuple[redis.Redis, Keys, Index]]:
        try:
            with (
                results.connected(self._settings) as (client, keys),
                retrieval.opened(self._settings, client, keys) as index,
            ):
                yield client, keys, index
        except UsageError as error:
            if isinstance(error.__context__, redis.RedisError):  # a command would give up, a page may be asked again
                raise Unavailable("Redis does not answer") from None
            raise

    def _available(self) -> bool:
        try:
            with self._opened():
                return True
        except (UsageError, Unavailable):
            return False

    def _find(self, query: Query) -> bytes:
        from streamer.retrieval import query as queries
        from streamer.retrieval.search import hit, search

        with self._opened() as (client, keys, index):
            predictor = self._model()
            if isinstance(query.content, str):
                vector = queries.text(predictor, query.content)
            else:
                read = queries.image if query.kind == "image" else queries.audio
                vector = read(predictor, query.content, "the file")
            found = search(
                client,
                keys,
                index,
                vector,
                model=predictor.name,
                version=predictor.version,
                limit=query.limit,
                session=query.session,
            )
        return msgspec.json.encode([hit(result, similarity, self._settings) for result, similarity in found])

    def _model(self) -> Predictor:
        from streamer.model.predictor import Predictor
        from streamer.model.reload import state_of

        state = state_of(self._settings.model)
        if self._predictor is None or state != self._loaded:
            self._predictor = Predictor.load(self._settings.model, self._settings.device, self._settings)
            self._loaded = state
        return self._predictor
