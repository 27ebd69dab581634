"""`streamer rules`: what it says where there is nothing, and of what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.rules import alarms
from streamer.store import results
from tests.published import result


def tried(folder: Path, monkeypatch: pytest.MonkeyPatch, rules: str, windows: int, file: str = "results.ndjson") -> str:
    """What `rules test` says to people of results with the output ``action``."""
    (folder / "rules.toml").write_text(rules, "utf-8")
    (folder / "results.ndjson").write_bytes(b"".join(result("car", n).to_json() + b"\n" for n in range(windows)))
    monkeypatch.setenv("STREAMER_RULES", str(folder / "rules.toml"))
    ran = CliRunner().invoke(app, ["rules", "test", str(folder / file)])
    return ran.stderr + str(ran.exception or "")


def test_one_alarm_and_one_window_are_in_the_singular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tried(tmp_path, monkeypatch, "[rules.any]\nwhen = 'action.score > 0'", 1)
    assert said.splitlines()[-1] == "1 alarm in 1 window"
    said = tried(tmp_path, monkeypatch, "[rules.none]\nwhen = 'action.score > 2'", 2)
    assert said.splitlines()[-1] == "0 alarms in 2 windows"


def test_a_name_in_say_that_no_result_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tried(tmp_path, monkeypatch, "[rules.any]\nwhen = 'true'\nsay = '{action} at {speed}'", 2)
    assert "any: {speed} in `say` has no value; the results have: action\n" in said
    assert "{action}" not in said


def test_rules_are_checked_before_the_file_and_the_file_before_anything_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tried(tmp_path, monkeypatch, "[rules.any]\nwhn = 'true'", 1, "none.mcap")
    assert "rule any has no field 'whn'" in said
    assert "none.mcap" not in said
    said = tried(tmp_path, monkeypatch, "[rules.any]\nwhen = 'true'", 1, "none.mcap")
    assert "No such file" in said
    assert "verifying" not in said


@pytest.mark.parametrize(("asked", "said"), [(["alarms"], "no open alarms\n"), (["log", "car"], "nothing yet\n")])
def test_where_there_is_nothing_people_are_told_and_programs_get_nothing(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], said: str
) -> None:
    @contextmanager
    def connected(settings: object) -> Iterator[tuple[None, None]]:
        yield None, None

    monkeypatch.setattr(results, "connected", connected)
    monkeypatch.setattr(alarms, "opened", lambda *args: [])
    monkeypatch.setattr(alarms, "history", lambda *args: iter(()))
    ran = CliRunner().invoke(app, ["rules", *asked])
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "", said)
    ran = CliRunner().invoke(app, ["rules", *asked, "--json"])
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "", "")
