"""The search index of the settings: a folder, or Redis itself where it has vector sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from streamer.errors import UsageError
from streamer.retrieval.mirror import Index
from streamer.retrieval.store import Store
from streamer.retrieval.vectorsets import VectorSets, has_vector_sets
from streamer.settings import Settings
from streamer.store.results import Keys

MAX_TEXT = 500  # characters of a query
MAX_FILE_BYTES = 16 << 20  # of a picture or a sound to look for
MAX_HITS = 100  # of one search


@contextmanager
def opened(settings: Settings, client: redis.Redis, keys: Keys, writable: bool = False) -> Iterator[Index]:
    """The index of these settings: in Redis where it has vector sets, else in the folder ``index``.

    Args:
        writable: Create the index if there is none.

    Raises:
        UsageError: There is no index, or it cannot be opened.
        RedisError: Redis does not answer.
    """
    if has_vector_sets(client, keys):
        index = VectorSets(client, keys)
        if not writable and not index.exists():
            raise UsageError("there is no index in Redis; run `streamer index`")
        yield index
    else:
        with Store(settings.index, settings.key_prefix, writable) as store:
            yield store


def forget(settings: Settings, client: redis.Redis, keys: Keys, session: str) -> int:
    """Drop a session from the index, if there is one; returns the number of its windows.

    Raises:
        UsageError: The index cannot be written.
        RedisError: Redis does not answer.
    """
    if not has_vector_sets(client, keys) and not Store.exists(settings.index, settings.key_prefix):
        return 0
    with opened(settings, client, keys, writable=True) as index:
        return index.forget(session)
