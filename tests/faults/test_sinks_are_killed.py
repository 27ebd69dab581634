"""``streamer sink`` through kills at random moments, while results come: each is there, once where promised."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from streamer.broker import topics
from streamer.events import TOPIC_RESULTS
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.result import Result
from streamer.settings import Settings
from tests.faults.conftest import NewSettings
from tests.harness import ROOT, wait_for
from tests.parquets import asked
from tests.published import Publisher, result
from tests.receiver import KEY, Post, Receiver
from tests.topics import committed

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SESSIONS = tuple(f"car-{number}" for number in range(5))
EVERY_S = 0.1  # between the windows of a session
WITHIN_S = 120.0

Say = Callable[[object], None]


def make(session: str, number: int) -> Result:
    return result(session, 43_000 + number * 10, model="driving" if number % 100 < 60 else "vitals")


@contextmanager
def killed(settings: Settings, kind: str, log: Path, kills: int) -> Iterator[tuple[Publisher, Program]]:
    """A sink that is killed so often at random moments, and then runs on; what was published meanwhile."""
    rng = random.Random(20)
    command = [sys.executable, "-m", "streamer", "sink", kind, "--from", "beginning"]
    publisher = Publisher(settings, SESSIONS, make, EVERY_S)
    with Program(command, log, environment(settings), ROOT, f"streamer sink {kind}") as program:
        publisher.start()
        try:
            for number in range(kills):
                if number % 4 != 2:  # else in the middle of starting
                    wait_for(lambda: "waiting for results" in program.text(), 60, program.text)
                time.sleep(rng.uniform(0.0, 1.5))
                assert program.code is None, program.text()
                program.kill()
                program.start()
        finally:
            publisher.stop()
        yield publisher, program


def given(new_settings: NewSettings, **values: object) -> Settings:
    return new_settings(sink_port=0, **values)


def in_order(published: list[Result]) -> dict[str, list[str]]:
    return {session: [one.id for one in published if one.session == session] for session in SESSIONS}


def test_kafka_has_each_result_once(new_settings: NewSettings, tmp_path: Path, full: bool, say: Say) -> None:
    kills, settings = (20 if full else 2), given(new_settings)
    with killed(settings, "kafka", tmp_path / "sink.log", kills) as (publisher, program):
        wanted = in_order(publisher.published)
        name = topics.ensure(settings, TOPIC_RESULTS)

        def found() -> dict[str, list[str]]:
            told: dict[str, list[str]] = {session: [] for session in SESSIONS}
            for record in committed(settings, name):
                told[record.key.decode()].append(dict(record.headers)["ce_id"].decode())
            return told

        wait_for(lambda: sum(map(len, found().values())) >= len(publisher.published), WITHIN_S, program.text)
        time.sleep(1.0)  # what would come twice had time to
        assert found() == wanted
    say(f"{kills} kills: {len(publisher.published)} results are in Kafka once each, in order")


def test_a_webhook_gets_each_result_and_only_the_same_one_again(
    new_settings: NewSettings, tmp_path: Path, full: bool, say: Say
) -> None:
    kills, rng = (20 if full else 2), random.Random(3)

    async def answer(post: Post) -> web.Response:
        return web.Response(status=500 if rng.random() < 0.05 else 200)

    with Receiver(answer) as receiver:
        settings = given(new_settings, webhook_url=receiver.url, webhook_key=KEY)
        with killed(settings, "webhook", tmp_path / "sink.log", kills) as (publisher, program):
            wanted = in_order(publisher.published)
            done = [results[-1] for results in wanted.values()]
            wait_for(lambda: set(done) <= {post["id"] for _, post in receiver.accepted}, WITHIN_S, program.text)
    for session in SESSIONS:
        windows = receiver.windows(session)
        assert list(dict.fromkeys(windows)) == wanted[session]
        # A window is repeated at once or not at all: none comes after a later one.
        assert [one for one, before in zip(windows, ["", *windows], strict=False) if one != before] == wanted[session]
    assert all(name == post["id"] for name, post in receiver.accepted)
    again = Counter(post["id"] for _, post in receiver.accepted)
    twice = sum(count - 1 for count in again.values())
    assert twice <= kills * len(SESSIONS)
    say(f"{kills} kills: {len(publisher.published)} results were taken, {twice} of them twice under the same id")


def test_each_result_is_in_one_parquet_file(new_settings: NewSettings, tmp_path: Path, full: bool, say: Say) -> None:
    kills, folder = (20 if full else 2), tmp_path / "files"
    settings = given(new_settings, parquet_dir=folder, parquet_rows=60, parquet_every_ms=300)
    with killed(settings, "parquet", tmp_path / "sink.log", kills) as (publisher, program):

        def count() -> int:
            if not list(folder.rglob("*.parquet")):
                return 0
            ((found,),) = asked(f"select count(*) from '{folder}/**/*.parquet'")
            return int(found)

        wait_for(lambda: count() >= len(publisher.published), WITHIN_S, program.text)
        program.end()
        assert program.code == 0, program.text()
    query = f"select session, id from '{folder}/**/*.parquet' order by session, end_time"
    found = asked(query)
    assert {name: [i for session, i in found if session == name] for name in SESSIONS} == in_order(publisher.published)
    files = len(list(folder.rglob("*.parquet")))
    say(f"{kills} kills: {len(publisher.published)} results are once each in {files} Parquet files")
