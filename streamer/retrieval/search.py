"""One search, for the command and for the page: a query -> the windows most like it, each with its result in Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import redis
from numpy.typing import NDArray

from streamer.align.decode import home_partition
from streamer.errors import UsageError
from streamer.events import IMAGE, KIND_NAMES, rfc3339
from streamer.result import Result, decision
from streamer.retrieval import indexes
from streamer.retrieval.mirror import Index
from streamer.retrieval.store import Found, space_of
from streamer.retrieval.thumbnails import save
from streamer.settings import Settings
from streamer.store import descriptions, results
from streamer.store.results import Keys

if TYPE_CHECKING:  # importing it loads PyTorch, which the page needs only once somebody searches
    from streamer.model.predictor import Predictor


class Query(msgspec.Struct, frozen=True):
    """What to look for: words, a picture or a sound.

    Attributes:
        kind: ``text``, ``image`` or ``audio``.
        content: The words, or the bytes of the file.
        session: Search this session only; ``None``: all sessions.
        name: Of the file, for messages.
        sensor: Of the model: whose content the query is for it; ``None``: its first of this kind.
    """

    kind: str
    content: str | bytes
    limit: int
    session: str | None
    name: str = "the file"
    sensor: str | None = None


class Frame(msgspec.Struct, frozen=True):
    """Where Kafka has the window's newest frame, of whichever camera."""

    topic: str
    partition: int
    offset: int


class Hit(msgspec.Struct, frozen=True):
    """A window that was found.

    Attributes:
        time: When it begins, RFC 3339 in UTC.
        similarity: Cosine of its embedding and the query's vector, -1 to 1.
        label, score: What the model decided, see :func:`streamer.result.decision`.
        frame: ``None`` if the window has no frame.
        thumbnail: The file that the frame was written to.
        description: What `streamer describe` says of the window; ``None`` if nothing.
    """

    session: str
    start_us: int
    end_us: int
    time: str
    similarity: float
    label: str
    score: float | None
    frame: Frame | None
    thumbnail: str | None = None
    description: str | None = None


def find(settings: Settings, query: Query, load: Callable[[], Predictor], thumbnails: Path | None = None) -> list[Hit]:
    """The windows most like a query, best match first.

    Args:
        load: Gives the model; called only if there is an index.
        thumbnails: A folder to write the windows' newest frames to: of the query's sensor where that is a camera, else
            of the first that a window has.

    Raises:
        UsageError: There is no index, Redis does not answer, or the query cannot be read.
        ModelError: The model cannot be loaded, or does not know this kind or sensor.
        Unavailable: Kafka does not give the frames in time.
    """
    with results.connected(settings) as (client, keys), indexes.opened(settings, client, keys) as index:
        predictor = load()
        from streamer.retrieval.query import vector  # like the model, it loads PyTorch

        found = search(
            client,
            keys,
            index,
            vector(predictor, query.kind, query.content, query.name, query.sensor),
            model=predictor.name,
            version=predictor.version,
            limit=query.limit,
            session=query.session,
        )
        told = descriptions.of_windows(client, keys, [(result.session, result.end_us) for result, _ in found])
    files: Sequence[Path | None] = [None] * len(found)
    if thumbnails is not None:
        camera = query.sensor if query.kind == KIND_NAMES[IMAGE] else None
        files = save(settings, [result for result, _ in found], thumbnails, camera)
    return [
        hit(result, score, settings, file, description)
        for (result, score), file, description in zip(found, files, told, strict=True)
    ]


def search(
    client: redis.Redis,
    keys: Keys,
    index: Index,
    vector_D: NDArray[np.float32],
    *,
    model: str,
    version: str,
    limit: int,
    session: str | None = None,
) -> list[tuple[Result, float]]:
    """The results of the windows most like a vector, with their similarity, best match first.

    Windows that were trimmed or forgotten since they were indexed are skipped.

    Args:
        model, version: Of the model that made the vector: only windows of the same version can be compared.
        session: Search this session only.

    Raises:
        UsageError: The index has no window that could be compared.
    """
    space = space_of(model, version)
    check_space(index, space, session)
    count = limit
    while True:
        found = index.search(space, vector_D, count, session)
        hits = _still_there(client, keys, found)
        if len(hits) >= limit or len(found) < count:
            return hits[:limit]
        count *= 4


def check_space(index: Index, space: str, session: str | None) -> None:
    """Refuse a search that could find nothing.

    Raises:
        UsageError: Names what is indexed, and how to fix it.
    """
    sizes = index.sizes()
    if not sizes:
        raise UsageError(f"the index in {index.where} is empty; publish windows, then run `streamer index`")
    if space not in sizes:
        held = ", ".join(f"{count} windows of {name}" for name, count in sizes.items())
        raise UsageError(
            f"the index holds {held}, and no window of {space}, whose embeddings cannot be compared with those; run "
            "`streamer index`, or set STREAMER_MODEL to that model"
        )
    if session is not None and session not in index.covered():
        raise UsageError(f"nothing of session {session!r} is indexed; run `streamer index --session {session}`")


def _still_there(client: redis.Redis, keys: Keys, found: Sequence[Found]) -> list[tuple[Result, float]]:
    with client.pipeline(transaction=False) as pipe:
        for one in found:
            pipe.xrange(keys.results(one.session), min=f"{one.end_us}-0", max=f"{one.end_us}-0")
        pages: list[Any] = pipe.execute()
    return [(Result.from_fields(page[0][1]), one.score) for one, page in zip(found, pages, strict=True) if page]


def hit(
    result: Result,
    similarity: float,
    settings: Settings,
    thumbnail: Path | None = None,
    description: str | None = None,
) -> Hit:
    """A found window as the command and the page show it."""
    label, score = decision(result)
    topic = settings.source_topics[IMAGE]
    offsets = result.members.get(topic, ())
    partition = home_partition(result.session.encode(), settings.partitions)
    return Hit(
        session=result.session,
        start_us=result.start_us,
        end_us=result.end_us,
        time=rfc3339(result.start_us, "milliseconds"),
        similarity=round(similarity, 4),
        label=label,
        score=score,
        frame=Frame(topic, partition, offsets[-1][1]) if offsets else None,
        thumbnail=None if thumbnail is None else str(thumbnail),
        description=description,
    )
