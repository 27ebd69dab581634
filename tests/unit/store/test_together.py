"""Questions of many tasks that are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streamer.store.together import Together


class Answering:
    """Answers with the double, and keeps what it was asked at once."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.called = asyncio.Event()

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        self.calls.append([*questions])
        self.called.set()
        await asyncio.sleep(0)
        if 13 in questions:
            raise OSError("no answer")
        return [2 * question for question in questions]


async def test_what_is_asked_in_one_turn_is_one_call_and_each_gets_its_answer() -> None:
    answering = Answering()
    together = Together(answering)
    assert await asyncio.gather(*map(together, range(5))) == [0, 2, 4, 6, 8]
    assert await together(7) == 14
    assert answering.calls == [[0, 1, 2, 3, 4], [7]]


async def test_what_is_asked_while_a_call_is_under_way_is_the_next_call() -> None:
    answering = Answering()
    together = Together(answering)
    first = asyncio.create_task(together(1))
    await answering.called.wait()
    assert (await together(2), await first) == (4, 2)
    assert answering.calls == [[1], [2]]


async def test_an_error_is_raised_to_all_who_asked_and_the_next_call_is_a_new_one() -> None:
    together = Together(Answering())
    found = await asyncio.gather(together(1), together(13), return_exceptions=True)
    assert [str(one) for one in found] == ["no answer"] * 2
    assert await together(1) == 2


async def test_who_is_cancelled_takes_nothing_from_the_others() -> None:
    together = Together(Answering())
    asked = [asyncio.create_task(together(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    asked[0].cancel()
    assert await asked[1] == 4
    with pytest.raises(asyncio.CancelledError):
        await asked[0]
