"""`streamer rules` on a real Redis and a real Kafka, with a receiver of webhooks."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from streamer import dashboard
from streamer.cli.app import app
from streamer.golden import recording
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.result import Result
from streamer.rules import alarms
from streamer.rules.actions import ACTIONS, TOPIC_ALARMS
from streamer.rules.engine import Engine, Memory
from streamer.rules.table import read
from streamer.settings import Settings
from streamer.store.results import Keys, connected, forget
from tests.conftest import PAGE_TIMEOUT_MS
from tests.harness import ROOT, S_US, read_topic, second, send, wait_for
from tests.published import publish, result
from tests.receiver import KEY, Receiver

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

pytestmark = pytest.mark.integration

expect = sync_api.expect
expect.set_options(timeout=PAGE_TIMEOUT_MS)

RULES = """
[rules.brake]
when = "action.label == 'brake'"
of = [2, 3]
again_after_s = 5
severity = "alarm"
say = "Brake: {action}."
actions = ["webhook", "kafka"]

[rules.changed]
when = "action.label != before.action.label"
severity = "notice"
"""
SESSIONS = ("car-1", "Straße 7/€")
WITHIN_S = 60.0


def drive(session: str, count: int, first: int = 0, seed: int = 7) -> list[Result]:
    rng = random.Random(f"{session}{seed}{first}")
    return [result(session, first + i, rng.choice(["brake", "brake", "proceed"])) for i in range(count)]


@contextmanager
def ruling(settings: Settings, log: Path) -> Iterator[Program]:
    command = [sys.executable, "-m", "streamer", "rules", "run", "--all"]
    with Program(command, log, environment(settings), ROOT, "streamer rules") as program:
        yield program


def given(settings: Settings, tmp_path: Path, text: str, **more: object) -> Settings:
    (tmp_path / "rules.toml").write_text(text, "utf-8")
    values = settings.model_dump(exclude_unset=True)
    return Settings.load(**values | {"rules": tmp_path / "rules.toml", "rules_port": 0} | more)


def expected(settings: Settings, results: list[Result]) -> list[str]:
    """Ids of the alarms of one uninterrupted run."""
    engine, memory = Engine(read(settings.rules, list(ACTIONS))), Memory()
    return [alarm.id for one in results for alarm in engine.see(one, memory)]


def test_alarms_survive_a_kill_each_once_and_their_actions_are_done(
    topics: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, drives = random.Random(5), {session: drive(session, 120) for session in SESSIONS}
    with Receiver() as receiver, redis.Redis.from_url(topics.redis) as client:
        settings = given(topics, tmp_path, RULES, webhook_url=receiver.url, webhook_key=KEY)
        keys = Keys(settings.key_prefix)
        with ruling(settings, tmp_path / "rules.log") as program:
            for part in range(2):  # many kills: tests/faults/test_rules_are_killed.py
                if part:
                    time.sleep(rng.uniform(0.0, 0.5))
                    program.kill()
                    program.start()
                wait_for(lambda: "2 rules" in program.text(), WITHIN_S, program.text)
                publish(settings, [one for d in drives.values() for one in d[part * 60 : part * 60 + 60]])

            def logged(session: str, what: str) -> list[alarms.Entry]:
                return [entry for entry in alarms.history(client, keys, session) if entry.what == what]

            def behind() -> bool:
                return any(
                    client.hget(keys.ruled(session), "end_us") != str(d[-1].end_us).encode()
                    or client.exists(keys.alarm_actions(session))
                    for session, d in drives.items()
                )

            wait_for(lambda: not behind(), WITHIN_S, program.text)
            program.end()
            assert program.code == 0, program.text()
        for session, results in drives.items():
            wanted = expected(settings, results)
            told = [entry.alarm.id for entry in logged(session, "raised") if entry.alarm is not None]
            assert told == wanted
            acted = {name for name in wanted if "/brake/" in name}
            assert len(acted) > 5
            assert {name for name, post in receiver.accepted if post["data"]["session"] == session} == acted
            for action in ("webhook", "kafka"):
                assert len(logged(session, action)) == len(acted)
        records = [json.loads(record.value) for record in read_topic(settings, settings.topic(TOPIC_ALARMS))]
        assert {one["id"] for one in records} == {name for name, _ in receiver.accepted}

        # people
        def opened() -> set[tuple[str, str]]:
            return {(one.alarm.session, one.alarm.rule) for one in alarms.opened(client, keys)}

        assert opened() == {(session, rule) for session in SESSIONS for rule in ("brake", "changed")}
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)
        listed = CliRunner().invoke(app, ["rules", "alarms", "--session", SESSIONS[1]])
        assert "Brake: brake. (" in listed.output
        done = CliRunner().invoke(app, ["rules", "ack", SESSIONS[1], "brake", "--by", "ada", "--note", "seen"])
        assert done.exit_code == 0, done.output
        assert CliRunner().invoke(app, ["rules", "ack", SESSIONS[1], "brake"]).exit_code == 1
        assert (SESSIONS[1], "brake") not in {
            (one.alarm.session, one.alarm.rule) for one in alarms.opened(client, keys)
        }
        shown = CliRunner().invoke(app, ["rules", "log", SESSIONS[1]])
        assert "brake acknowledged by ada: seen" in shown.output
        forget(client, keys, SESSIONS[1])
        assert not list(client.scan_iter(f"{settings.key_prefix}:{{{'Stra%C3%9Fe%207%2F%E2%82%AC'}}}:*"))


def test_an_alarm_keeps_a_clip_of_its_session_on_which_rules_can_be_tried(
    topics: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[rules.brake]\nwhen = \"action.label == 'brake'\"\nactions = ['clip']\n"
    clips = tmp_path / "clips"
    settings = given(topics, tmp_path, text, rules_clips=clips, rules_clip_after_ms=500)
    end_us = (time.time_ns() // 1000 // S_US + 2) * S_US  # records come at once: before it, by the broker's clock
    for session in ("car", "other"):
        for ago in (4, 3, 2, 1):
            send(settings, second(settings, session, end_us - ago * S_US))
    with ruling(settings, tmp_path / "rules.log") as program:
        publish(settings, [result("car", 0, "brake", start_us=end_us - S_US, end_us=end_us)])
        wait_for(lambda: list(clips.glob("*.mcap")) != [], WITHIN_S, program.text)
    (path,) = clips.iterdir()
    assert {record.key for record in recording.read(path)} == {b"car"}
    (tmp_path / "rules.toml").write_text("[rules.any]\nwhen = 'action.score >= 0.0'\n", "utf-8")
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    tried = CliRunner().invoke(app, ["rules", "test", str(path)])
    assert tried.exit_code == 0, tried.output
    assert tried.stdout.splitlines()[0].endswith(" car warning any: any")


def test_rules_are_tried_on_results_in_a_file_and_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [one for session in SESSIONS for one in drive(session, 60)]
    (tmp_path / "rules.toml").write_text(RULES + '[rules.typo]\nwhen = "actoin.brake"\n', "utf-8")
    (tmp_path / "golden.ndjson").write_bytes(b"\n".join(one.to_json() for one in results))
    monkeypatch.chdir(tmp_path)  # no Kafka, no Redis, no webhook are configured
    tried = CliRunner().invoke(app, ["rules", "test", "golden.ndjson", "--json"])
    assert tried.exit_code == 0, tried.output
    found = [json.loads(line)["id"] for line in tried.stdout.splitlines()]
    settings = Settings.load()
    wanted = [name for s in SESSIONS for name in expected(settings, [one for one in results if one.session == s])]
    assert sorted(found) == sorted(wanted)
    assert f"{len(wanted)} alarms in 120 windows" in tried.stderr
    assert "typo: neither true nor false in 120 of 120 windows" in tried.stderr


def test_an_alarm_comes_to_the_live_page_and_is_acknowledged_there_under_a_name(
    topics: Settings, tmp_path: Path, page: Any
) -> None:
    settings = given(topics, tmp_path, RULES, dashboard_port=0, webhook_url="http://127.0.0.1:9", webhook_key=KEY)
    rows = page.locator("#alarms-open tr")
    hostile = "<img src=x onerror=alert(1)>"
    with dashboard.running(settings) as url, connected(settings) as (client, keys):
        publish(settings, [result("car-1", 0, "proceed")])
        page.goto(url)
        page.locator("#sessions .name").wait_for()
        expect(page.locator("#alarms")).to_be_hidden()  # rules have never run
        with ruling(settings, tmp_path / "rules.log") as program:
            wait_for(lambda: "2 rules" in program.text(), WITHIN_S, program.text)
            publish(settings, [result("car-1", number, "brake") for number in (1, 2)])
            expect(rows).to_have_count(2)
            publish(settings, [result(hostile, number, label) for number, label in enumerate(("proceed", "brake"))])
            expect(rows).to_have_count(3)
        expect(page.locator("#alarms-state")).to_have_text("1 alarm, 2 notices open")
        expect(rows.first.locator(".alarm-severity")).to_have_text("alarm")
        expect(rows.first.locator(".alarm-text")).to_contain_text("Brake: brake.")
        assert page.locator("#alarms img").count() == 0

        rows.first.get_by_role("button").click()
        page.get_by_label("Your name").fill("Ada")
        page.locator("#alarms-name-save").click()
        expect(rows).to_have_count(2)
        page.get_by_role("button", name=f"Acknowledge changed of {hostile}").click()  # not asked again
        expect(rows).to_have_count(1)
        expect(page.locator("#alarms-state")).to_have_text("1 notice open")
        page.get_by_role("button", name="Log").click()
        log = page.locator("#alarms-log li")
        expect(log.first).to_contain_text(f"{hostile}: changed acknowledged by Ada")
        expect(page.locator("#alarms-log")).to_contain_text("car-1: brake acknowledged by Ada")
        expect(page.locator("#alarms-log")).to_contain_text("car-1: brake raised: Brake: brake.")
        assert [(one.what, one.rule, one.by) for one in alarms.history(client, keys, hostile)] == [
            ("raised", "changed", ""),
            ("acknowledged", "changed", "Ada"),
        ]

        alarms.acknowledge(client, keys, "car-1", "changed", "bob", maxlen=100)  # elsewhere
        expect(page.locator("#alarms-state")).to_have_text("none open")
        expect(log.first).to_contain_text("car-1: changed acknowledged by bob")
