"""What alarms set off, with Redis and the actions replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisDown

from streamer.errors import Unavailable
from streamer.rules import actions as actions_module
from streamer.rules.actions import Action, Doing
from streamer.rules.alarm import Alarm
from streamer.rules.metrics import Metrics
from streamer.settings import Settings

OURS, LEFT = (Alarm("brake", "alarm", session, 0, 1, "Brake.") for session in ("ours", "left"))


class Ringing(Action):
    """Rings for an alarm once it is let."""

    def __init__(self) -> None:
        super().__init__(Settings.load())
        self.rung: list[Alarm] = []
        self.let = asyncio.Event()
        self.fails = 0

    async def do(self, alarm: Alarm) -> str:
        self.rung.append(alarm)
        await self.let.wait()
        if self.fails:
            self.fails -= 1
            raise Unavailable("the bell is broken")
        return "done"


class MemoryAlarms:
    """What is to be done; the first look fails."""

    def __init__(self, *todo: Alarm) -> None:
        self.todo = list(todo)
        self.looks = 0

    async def undone(self) -> list[tuple[str, Alarm]]:
        self.looks += 1
        if self.looks == 1:
            raise RedisDown("gone")
        return [("bell", alarm) for alarm in self.todo]

    async def done(self, action: str, alarm: Alarm, note: str) -> bool:
        self.todo.remove(alarm)
        return True


def doing(bell: Action, alarms: Any) -> Doing:
    return Doing({"bell": bell}, alarms, Metrics(CollectorRegistry()))


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0)


async def test_what_nobody_has_done_by_the_second_look_is_done_here_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions_module, "LOOK_S", 0)
    bell, alarms = Ringing(), MemoryAlarms(OURS, LEFT)
    does = doing(bell, alarms)
    does.begin([("bell", OURS), ("siren", OURS)])  # the siren is not in the rules any more
    look = asyncio.create_task(does.look())
    await until(lambda: alarms.looks == 2)
    assert bell.rung == [OURS]
    await until(lambda: alarms.looks == 10)
    assert bell.rung == [OURS, LEFT]
    bell.let.set()
    await until(lambda: not alarms.todo)
    look.cancel()
    assert bell.rung == [OURS, LEFT]


async def test_an_action_that_fails_is_tried_again_and_told_of_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions_module, "LONGEST_PAUSE_S", 0.0)
    bell, alarms = Ringing(), MemoryAlarms(OURS)
    bell.fails = 2
    does = doing(bell, alarms)
    does.begin([("bell", OURS)])
    await until(lambda: bell.rung)
    assert does.degraded() == []
    bell.let.set()
    await until(lambda: does.degraded() == ["bell: the bell is broken"])
    await until(lambda: not alarms.todo)
    await until(lambda: does.degraded() == [])
    assert bell.rung == [OURS] * 3
