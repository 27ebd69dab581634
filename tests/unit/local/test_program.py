"""A child process for as long as a context is open."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from streamer.errors import Stop
from streamer.local.program import Program

STARTS_ANOTHER = """
import signal, subprocess, sys
other = "import signal; print('here', flush=True); signal.pause()"
subprocess.Popen([sys.executable, "-c", other], stdout=open(sys.argv[1], "w"))
signal.pause()
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_program_has_started_ends_with_it(killed: bool, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Program(python(STARTS_ANOTHER, str(fifo)), tmp_path / "log") as program:
        alive = fifo.open()
        assert alive.readline() == "here\n"
        if killed:
            program.kill()
    with alive:
        assert alive.read() == ""  # nobody holds the other end any more


def test_a_program_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        Program(python("print('why'); exit(3)"), tmp_path / "log", name="the reader") as program,
        pytest.raises(Stop, match=r"^the reader ended with code 3; the end of \S+/log:\nwhy$"),
    ):
        program.wait_end(30)


def test_a_program_that_takes_too_long_is_reported_with_what_it_should_do(tmp_path: Path) -> None:
    with (
        Program(python("import time; time.sleep(60)"), tmp_path / "log") as program,
        pytest.raises(Stop, match=r"^the program took longer than 0 s to be ready; the end of "),
    ):
        program.wait_for(lambda: False, 0.1, lambda: "be ready")


def test_a_program_that_is_started_again_adds_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "folder" / "log"
    for _ in range(2):
        with Program(python("print('here')"), log) as program:
            program.wait_end(30)
            program.start()
            assert program.wait_end(30) == "here\n"
        assert log.read_text() == "here\nhere\n"


def test_settings_of_this_process_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_GROUP", "ours")
    monkeypatch.setenv("KEPT", "yes")
    shown = (
        "import os; print({n: v for n, v in os.environ.items() if n in ('KEPT', 'STREAMER_GROUP', 'STREAMER_PORT')})"
    )
    with Program(python(shown), tmp_path / "log", {"STREAMER_PORT": "1"}) as program:
        assert program.wait_end(30) == "{'KEPT': 'yes', 'STREAMER_PORT': '1'}\n"
