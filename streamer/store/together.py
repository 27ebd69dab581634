"""Questions of many tasks, answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Hands the questions that are asked in one turn of the event loop to one call, which answers all of them.

    Of what a command costs a client of Redis, most is the way there and back, whatever it carries (``bench/sinks.py``).

    Args:
        answers: Returns an answer to each question, in their order. What it raises is raised to all who asked.
    """

    def __init__(self, answers: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._answers = answers
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, question: Q) -> A:
        """The answer to a question."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._asked.append((question, future))
        if len(self._asked) == 1:  # the task begins after all that can run now
            task = asyncio.create_task(self._answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _answer(self) -> None:
        asked, self._asked = self._asked, []
        try:
            answers = await self._answers([question for question, _ in asked])
        except Exception as error:  # noqa: BLE001 - raised to all who asked
            for _, future in asked:
                if not future.done():  # who asked was cancelled
                    future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
