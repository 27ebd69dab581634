"""Every step of README as it is written there, in its order, on the ports that README names.

A line whose comment has "until Ctrl-C" runs in a terminal until the end, which then sends Ctrl-C; every other line must
end by itself with exit code 0. `streamer down` comes last, since the sections after it need the servers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import redis

from streamer.local.process import is_free
from tests.harness import ROOT, wait_for

pytestmark = pytest.mark.integration

README = (ROOT / "README.md").read_text("utf-8")
PORTS = {"Kafka": 9092, "Redis": 6379, "live page": 8080, "worker": 9100, "camera": 8554, "capture": 9104}
LONGEST_S = 180.0
READY = {"streamer worker": "http://localhost:9100/readyz", "streamer dashboard": "http://localhost:8080/"}
SHOWN = {  # what a step must show, by its beginning
    "streamer watch --json": '"action"',
    "streamer watch  ": "sim-",
    "streamer results": "window ",
    "streamer search": "frame: partition/offset",  # stands below what was found
    "streamer doctor": "ok",
    "redis-cli HMGET": '"action"',
    "redis-cli SUBSCRIBE": "latencies_us",
    "import json": "'label'",
}


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, command: str, folder: Path, env: dict[str, str]) -> None:
        self._screen, inside = os.openpty()
        self.output = ""
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=env,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            preexec_fn=lambda: os.login_tty(0),
        )
        os.close(inside)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the end of a terminal is an error on Linux
            while part := os.read(self._screen, 1 << 16):
                self.output += part.decode(errors="replace")

    def interrupt(self) -> int:
        """Press Ctrl-C; returns the exit code."""
        os.write(self._screen, b"\x03")
        code = self.process.wait(30)
        self._reader.join()
        os.close(self._screen)
        return code


class Reader:
    """Somebody who follows README in a fresh clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminals: dict[str, Terminal] = {}
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
        self._env["COLUMNS"] = "120"

    def do(self, step: str) -> None:
        """Run a step; a program that runs until Ctrl-C is ready when this returns."""
        if "until Ctrl-C" in step:
            if step.partition("#")[0].rstrip().endswith("streamer worker"):
                self.interrupt("streamer worker")  # as README says
            self.terminals[step] = Terminal(_active(step), self.folder, self._env)
            for url in [url for name, url in READY.items() if name in step]:
                wait_for(partial(_answers, url), 60.0)
            return
        done = subprocess.run(
            ["bash", "-c", _active(step)],
            cwd=self.folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        _check(step, done.stdout)

    def interrupt(self, name: str = "") -> None:
        """End the programs of this name with Ctrl-C; each must have run until then."""
        for step in [step for step in self.terminals if name in step]:
            terminal = self.terminals.pop(step)
            assert terminal.process.poll() is None, f"{step} has ended: {terminal.output}"
            assert terminal.interrupt() in (0, 130, -2), f"{step}: {terminal.output}"
            assert "Traceback" not in terminal.output, terminal.output
            _check(step, terminal.output)


def _active(step: str) -> str:
    python = step.startswith(("import ", "from "))
    return "source .venv/bin/activate\n" + (f"python - <<'END'\n{step}END" if python else step)


def _check(step: str, output: str) -> None:
    for beginning, shown in SHOWN.items():
        if step.startswith(beginning):
            assert shown in output, output


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def steps() -> list[str]:
    """Commands, one a line, and Python snippets, in README's order; not `make`, which test_readme.py looks at."""
    found = []
    for language, text in re.findall(r"```(shell|python)\n(.*?)```", README, re.DOTALL):
        lines = [text] if language == "python" else text.replace("\\\n", "").splitlines()
        found += [line for line in lines if not line.startswith("make ")]
    return sorted(found, key=lambda step: step == "streamer down")


def missing_tool(step: str) -> str | None:
    """A program besides streamer and the shell that the step needs and this machine lacks."""
    needed = re.findall(r"\b(kcat|jq|redis-cli)\b", step)
    return next((tool for tool in needed if shutil.which(tool) is None), None)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A folder like a clone, with the video that a step names."""
    if taken := [f"{name}'s {port}" for name, port in PORTS.items() if not is_free(port)]:
        pytest.skip(f"ports that README names are taken: {', '.join(taken)}")
    if not (Path(sys.prefix) / "bin" / "activate").exists():
        pytest.skip("README's steps run in a virtual environment")
    clone = tmp_path / "streamer"
    clone.mkdir()
    for name in ("docs", "models", "schemas"):
        (clone / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", clone / "examples")  # a model is trained there
    (clone / ".venv").symlink_to(sys.prefix)
    film(clone / "recording.mp4")
    follower = Reader(clone)
    yield follower
    for terminal in follower.terminals.values():
        os.killpg(terminal.process.pid, signal.SIGKILL)
        terminal.process.wait(10)
    follower.do("streamer down")


def film(path: Path) -> None:
    """Two seconds of grey."""
    with av.open(path, "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for _ in range(20):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((90, 160, 3), 128, np.uint8))))
        file.mux(stream.encode())


def test_every_step_works_as_it_is_written(reader: Reader, subtests: pytest.Subtests) -> None:
    written = steps()
    assert len(written) > 30
    for step in written[:-1]:
        with subtests.test(step.splitlines()[0]):
            if tool := missing_tool(step):
                pytest.skip(f"{tool} is not installed")
            reader.do(step)
        if "examples/camera.py" in step:
            wait_for(lambda: bool(latest("door")), 30.0)
        if "producer.end" in step:
            wait_for(lambda: latest("cab-7").get(b"final") == b"true", 30.0)  # `streamer results` has no early ones
    assert latest("door")[b"present"] == b"image"
    if missing_tool("kcat") is None:
        assert latest("cab-8")[b"present"] == b"image"
    reader.interrupt()
    assert written[-1] == "streamer down"
    reader.do("streamer down")
    assert all(map(is_free, PORTS.values()))


def latest(session: str) -> dict[bytes, bytes]:
    with redis.Redis() as client:
        return dict(client.hgetall(f"streamer:{{{session}}}:latest"))
