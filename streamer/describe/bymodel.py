"""Descriptions by a language model, as far as budget and model allow; every other window is described from its outputs.

The model never holds up a session for long: it is asked about every n-th window and about changes, not while too many
windows wait, not for a while after it failed, and not beyond its tokens a minute. Why it was not asked, or gave nothing
that can be used, is in the description's note.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.describe import evidence, prompts
from streamer.describe.chat import Chat, NoAnswer, OverBudget
from streamer.describe.describer import Scene, Told, by_outputs
from streamer.describe.metrics import Metrics
from streamer.describe.sentences import changed
from streamer.model.wording import listed
from streamer.retrieval.contents import Records
from streamer.senses.faces import Faces
from streamer.settings import Settings

LONGEST = 768  # pixels of a frame's side
BEHIND = 30  # windows of a session that may wait while the model is asked about one
PAUSE_S = 30.0  # without a question after one that failed


class ByModel:
    """Describes windows by a language model.

    Args:
        threads: Where frames and telemetry are read and decoded.
        pause_s: See ``PAUSE_S``.

    Raises:
        UsageError: Faces are to be blurred, and the network that finds them is not here.
    """

    def __init__(
        self,
        settings: Settings,
        chat: Chat,
        records: Records,
        threads: ThreadPoolExecutor,
        metrics: Metrics,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._settings = settings
        self._chat = chat
        self._records = records
        self._threads = threads
        self._metrics = metrics
        self._pause_s = pause_s
        self._clock = clock
        self._down_until_s = 0.0
        self._down_because = ""
        self._faces = Faces(settings) if settings.describe_blur_faces else None
        self._one_face_finder = asyncio.Lock()

    async def __call__(self, scene: Scene) -> Told:
        """The description of a window.

        Raises:
            Unavailable: Kafka does not answer in time.
        """
        if not self._is_its_turn(scene):
            return await by_outputs(scene)
        reason, why = self._hindrance(scene)
        if reason:
            self._metrics.unasked.labels(reason).inc()
            return Told((await by_outputs(scene)).text, note=why)
        messages, missing = await self._question(scene)
        note = f"Kafka no longer has its {listed(missing)}" if missing else ""
        try:
            answer = await self._chat.ask(messages, prompts.Described, prompts.DESCRIPTION_TOKENS)
        except OverBudget:
            self._metrics.unasked.labels("budget").inc()
            return Told((await by_outputs(scene)).text, note="this minute's tokens are used up")
        except NoAnswer as error:
            self._down_until_s = self._clock() + max(self._pause_s, error.wait_s or 0.0)
            self._down_because = f"{self._chat.model} {error}"
            return Told((await by_outputs(scene)).text, note=self._down_because, asked=True)
        return Told(" ".join(answer.content.description.split()), answer.model, note, asked=True)

    def _is_its_turn(self, scene: Scene) -> bool:
        every = self._settings.describe_every
        if every and (scene.unasked is None or scene.unasked + 1 >= every):
            return True
        return self._settings.describe_changes and changed(scene.result, scene.before)

    def _hindrance(self, scene: Scene) -> tuple[str, str]:
        """Why the model is not asked: a label of the metric and a note; both empty if it is."""
        if scene.behind > BEHIND:
            return "behind", f"{self._chat.model} was not asked: {scene.behind} windows waited"
        if self._clock() < self._down_until_s:
            return "down", f"{self._chat.model} was not asked, after it failed: {self._down_because}"
        return "", ""

    async def _question(self, scene: Scene) -> tuple[list[dict[str, Any]], list[str]]:
        """The messages, and what of the window Kafka has deleted."""
        settings, loop = self._settings, asyncio.get_running_loop()
        seen = await loop.run_in_executor(
            self._threads,
            evidence.sights,
            self._records,
            scene.result,
            settings.describe_frames,
            LONGEST,
            settings.max_image_pixels,
        )
        measured = await loop.run_in_executor(self._threads, evidence.measured, self._records, scene.result)
        frames = await self._redacted(seen.frames)
        parts = {"frames": seen.gone, "words": scene.words.gone, "telemetry": measured.gone}
        missing = [name for name, gone in parts.items() if gone]
        return prompts.describing(scene.result, scene.words, measured, frames, missing, seen.cameras), missing

    async def _redacted(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        if self._faces is None:
            return list(frames)
        async with self._one_face_finder:
            return [(await asyncio.to_thread(self._faces.blurred, frame))[0] for frame in frames]
