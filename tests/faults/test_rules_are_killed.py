"""``streamer rules run``, twice at once, through kills at random moments while results come: each alarm comes once.

Two processes apply the rules, and whichever is first moves the cursor of a session. So what a rule remembers of the
windows before goes from one to the other all the time, also where none is killed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

import pytest
import redis
from aiohttp import web

from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.result import Result
from streamer.rules import alarms
from streamer.rules.actions import ACTIONS, LOOK_S, TOPIC_ALARMS
from streamer.rules.engine import Engine, Memory
from streamer.rules.table import read
from streamer.settings import Settings
from streamer.store.results import Keys
from tests.faults.conftest import NewSettings
from tests.harness import ROOT, read_topic, wait_for
from tests.published import Publisher, publish, result
from tests.receiver import KEY, Post, Receiver

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SESSIONS = tuple(f"car-{number}" for number in range(5))
EVERY_S = 0.1  # between the windows of a session
WITHIN_S = 120.0
RULES = """
[rules.brake]
when = "action.label == 'brake'"
of = [3, 5]
again_after_s = 20
severity = "alarm"
say = "Brake: {action}."
actions = ["webhook", "kafka"]

[rules.held]
when = "action.label == 'hold'"
of = [6, 8]
actions = ["kafka"]

[rules.changed]
when = "action.label != before.action.label"
severity = "notice"
"""

Say = Callable[[object], None]


def make(session: str, number: int) -> Result:
    """Windows that decide the same for a while, and flicker."""
    stretch = random.Random(f"{session} {number // 7}").choice(["brake", "hold", "proceed"])
    flickers = random.Random(f"{session} {number}").random() < 0.2
    return result(session, number, "proceed" if flickers else stretch)


@contextmanager
def two(settings: Settings, folder: Path) -> Iterator[list[Program]]:
    command = [sys.executable, "-m", "streamer", "rules", "run", "--all"]
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Program(command, folder / f"rules-{name}.log", environment(settings), ROOT, f"streamer rules {name}")
            )
            for name in ("a", "b")
        ]


def ready(program: Program) -> None:
    wait_for(lambda: "3 rules" in program.text(), 60, program.text)


def expected(settings: Settings, published: list[Result], session: str) -> list[str]:
    """Ids of the alarms of one uninterrupted run over a session."""
    engine, memory = Engine(read(settings.rules, list(ACTIONS))), Memory()
    return [alarm.id for one in published if one.session == session for alarm in engine.see(one, memory)]


def test_each_alarm_is_raised_once_and_its_actions_are_done(
    new_settings: NewSettings, tmp_path: Path, full: bool, say: Say
) -> None:
    kills, rng, broken = (20 if full else 2), random.Random(20), random.Random(3)
    (tmp_path / "rules.toml").write_text(RULES, "utf-8")

    async def answer(post: Post) -> web.Response:
        return web.Response(status=500 if broken.random() < 0.05 else 200)

    with Receiver(answer) as receiver:
        settings = new_settings(rules=tmp_path / "rules.toml", rules_port=0, webhook_url=receiver.url, webhook_key=KEY)
        keys = Keys(settings.key_prefix)
        publisher = Publisher(settings, SESSIONS, make, EVERY_S)
        with two(settings, tmp_path) as programs, redis.Redis.from_url(settings.redis) as client:
            publisher.start()
            try:
                for number in range(kills):
                    struck = programs if number % 5 == 4 else [rng.choice(programs)]  # at times both at once
                    if number % 4 != 2:  # else in the middle of starting
                        for program in struck:
                            ready(program)
                    time.sleep(rng.uniform(0.0, 1.5))
                    for program in struck:
                        assert program.code is None, program.text()
                        program.kill()
                    for program in struck:
                        program.start()
            finally:
                publisher.stop()
            newest_us = publisher.published[-1].end_us

            def log() -> str:
                return "\n".join(program.text() for program in programs)

            def behind() -> bool:
                return any(
                    client.hget(keys.ruled(session), "end_us") != str(newest_us).encode()
                    or client.exists(keys.alarm_actions(session))
                    for session in SESSIONS
                )

            wait_for(lambda: not behind(), WITHIN_S, log)
            logs = {session: list(alarms.history(client, keys, session)) for session in SESSIONS}
            opened = {(one.alarm.session, one.alarm.rule): one for one in alarms.opened(client, keys)}
            wanted = {session: expected(settings, publisher.published, session) for session in SESSIONS}
            every = {name for names in wanted.values() for name in names}
            braking = {name for name in every if "/brake/" in name}
            for session, entries in logs.items():
                assert [one.alarm.id for one in entries if one.alarm is not None] == wanted[session]
                for rule, of in groupby(sorted(wanted[session], key=of_rule), of_rule):
                    assert opened[session, rule].count == len(list(of))
                done = Counter((one.what, one.rule) for one in entries)
                for action, rule in (("webhook", "brake"), ("kafka", "brake"), ("kafka", "held")):
                    assert done[action, rule] == sum(of_rule(name) == rule for name in wanted[session])
            records = [json.loads(one.value) for one in read_topic(settings, settings.topic(TOPIC_ALARMS))]
            assert {one["id"] for one in records} == {name for name in every if "/changed/" not in name}
            posts = list(receiver.accepted)
            assert {name for name, _ in posts} == braking
            for name, post in posts:
                assert (post["id"], post) == (name, dict(posts)[name])
            if full:
                taken_over(settings, receiver, client, keys, programs, publisher.published)
    say(
        f"{kills} kills of two processes: {len(publisher.published)} windows raised {len(every)} alarms once each; "
        f"{len(posts) - len(braking)} of {len(braking)} posts and {len(records) - len({one['id'] for one in records})} "
        f"of {len(records)} records were repeated under the same id"
    )


def of_rule(name: str) -> str:
    return name.split("/")[1]


def taken_over(
    settings: Settings,
    receiver: Receiver,
    client: redis.Redis,
    keys: Keys,
    programs: list[Program],
    published: list[Result],
) -> None:
    """What a process has left that is killed and never starts again, another one does."""

    async def refuse(post: Post) -> web.Response:
        return web.Response(status=500)

    async def take(post: Post) -> web.Response:
        return web.Response(status=204)

    receiver.answer = refuse
    first = len(published) // len(SESSIONS) + 40
    late = [result(s, first + i, "proceed" if i < 5 else "brake") for i in range(8) for s in SESSIONS]
    publish(settings, late)
    left = {f"{session}/brake/{late[-1].end_us}" for session in SESSIONS}
    wait_for(lambda: left <= {name for name, _ in receiver.asked}, WITHIN_S, programs[0].text)
    programs[0].kill()  # whatever it was that it tried
    receiver.answer = take
    wait_for(
        lambda: not any(client.exists(keys.alarm_actions(session)) for session in SESSIONS),
        2 * LOOK_S + WITHIN_S,
        programs[1].text,
    )
    assert left <= {name for name, _ in receiver.accepted}
