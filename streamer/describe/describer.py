"""Describes each window of all sessions once, in the order of its session.

Where it is in a session, and what the next description needs of those before it, lie in Redis beside the descriptions
and move in the same atomic call (``store/descriptions.py``). So a restart goes on where the last process was, whenever
that was killed. Nothing waits for it: what the results streams no longer have when it comes is noted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from streamer.describe.evidence import Words
from streamer.describe.metrics import Metrics
from streamer.describe.sentences import SPARSE, Before, sentences
from streamer.result import Result
from streamer.store.descriptions import Description, Descriptions
from streamer.store.readers import Page

OUTPUTS = "outputs"  # who made a description that no model wrote


class Scene(msgspec.Struct, frozen=True):
    """All that is known of a window when it is to be described.

    Attributes:
        before: What the windows before have shown.
        unasked: Windows since a model was last asked about one of this session; ``None``: never.
        behind: Results of the session that wait already.
        silent: Sensors whose silence says nothing.
    """

    result: Result
    words: Words
    before: Before
    unasked: int | None = None
    behind: int = 0
    silent: frozenset[str] = SPARSE


class Told(msgspec.Struct, frozen=True):
    """What was made of a scene; fields as in :class:`streamer.store.descriptions.Description`.

    Attributes:
        asked: A model was asked, whether or not it answered.
    """

    text: str
    by: str = OUTPUTS
    note: str = ""
    asked: bool = False


class State(msgspec.Struct, frozen=True):
    """What is kept between the windows of a session."""

    before: Before = Before()
    unasked: int | None = None


async def by_outputs(scene: Scene) -> Told:
    """The deterministic description."""
    return Told(sentences(scene.result, scene.words, scene.before, scene.silent))


class Describer:
    """Describes the windows of all sessions, each session's in their order.

    Args:
        words: Reads what was said in consecutive windows of a session.
        tell: Makes the description of a window.
        on_description: Called with each new description.
        silent: Sensors whose silence says nothing.
    """

    def __init__(
        self,
        descriptions: Descriptions,
        words: Callable[[Sequence[Result]], Awaitable[list[Words]]],
        tell: Callable[[Scene], Awaitable[Told]],
        metrics: Metrics,
        on_description: Callable[[Description], object] = lambda description: None,
        silent: frozenset[str] = SPARSE,
    ) -> None:
        self._descriptions = descriptions
        self._words = words
        self._tell = tell
        self._metrics = metrics
        self._on_description = on_description
        self._silent = silent

    async def take(self, page: Page) -> int | None:
        """Describe the windows of a page; see :class:`streamer.store.readers.Reader`.

        Raises:
            Unavailable: Kafka does not answer in time.
            RedisError, OSError: Redis does not answer.
        """
        if page.missed:
            self._metrics.overtaken.inc()
        said = await self._words(page.results)
        cursor, note = page.cursor, page.missed
        state = msgspec.json.decode(cursor.state, type=State) if cursor.state else State()
        for index, (result, words) in enumerate(zip(page.results, said, strict=True)):
            behind = len(page.results) - index - 1
            told = await self._tell(Scene(result, words, state.before, state.unasked, behind, self._silent))
            notes = "; ".join(filter(None, (note, told.note)))
            description = Description(page.session, result.start_us, result.end_us, told.text, told.by, notes)
            unasked = 0 if told.asked else None if state.unasked is None else state.unasked + 1
            state = State(state.before.after(result), unasked)
            moved = await self._descriptions.add(cursor, description, msgspec.json.encode(state))
            if moved is None:  # another process was first, or the session was forgotten
                return None
            cursor, note = moved, ""
            page.reached(result.end_us)
            self._metrics.descriptions.labels(OUTPUTS if told.by == OUTPUTS else "model").inc()
            self._on_description(description)
        return cursor.end_us
