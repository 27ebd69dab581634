"""The command line as its users meet it: exit codes, and what is printed where."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.cli.commands import COMMANDS, help_text
from streamer.cli.main import main
from streamer.local.process import free_port

HEAVY = ("typer", "torch", "av", "faust", "kafka", "redis", "rich", "pydantic")


class Done(NamedTuple):
    code: object
    out: str
    err: str

    @property
    def line(self) -> str:
        """What a command that failed said: one line on stderr."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line


Streamer = Callable[..., Done]


@pytest.fixture
def streamer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Streamer:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["streamer", *arguments])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            main()
        return Done(left.value.code, *capfd.readouterr())

    return run


def nobody() -> str:
    """An address where nothing listens."""
    return f"127.0.0.1:{free_port()}"


def test_the_help_names_every_command_and_each_fits_80_columns() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    listed = {line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed >= set(COMMANDS)
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_help_is_the_same_with_and_without_typer(arguments: list[str], streamer: Streamer) -> None:
    assert streamer(*arguments) == (0, help_text(), "")
    assert CliRunner().invoke(app, arguments).output.strip() == help_text().strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_begins_with_its_line_in_the_table(command: str) -> None:
    assert f"\n\n  {COMMANDS[command].summary}\n" in CliRunner().invoke(app, [command, "--help"]).output


def test_every_command_of_a_module_is_in_the_table() -> None:
    for name in {entry.module for entry in COMMANDS.values()}:
        module = importlib.import_module(f"streamer.cli.{name}")
        found = {
            name
            for name, value in vars(module).items()
            if isinstance(value, types.FunctionType) and value.__module__ == module.__name__ and name[0] != "_"
        }
        assert {command.partition("_")[0] for command in found} <= set(COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, "topics create"])
def test_every_command_and_every_option_is_explained(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    options = [line.split() for line in done.output.splitlines() if line.startswith("  --")]
    assert options
    assert [words[0] for words in options if len(words) < 2] == []


def test_without_a_command_the_help_is_shown() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0
    assert "First steps" in done.output


def test_help_imports_nothing_that_loads_slowly(tmp_path: Path) -> None:
    code = f"import sys, streamer.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_printed(streamer: Streamer) -> None:
    assert streamer("--version").out.startswith("streamer 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch", "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["topics"], "Missing command"),
        (["results"], "Missing option '--session'"),
        (["results", "--session", "x", "--since", "yesterday"], "Invalid value for '--since'"),
        (["simulate", "--drop", "2"], "Invalid value for '--drop'"),
        (["replay"], "Missing argument 'PATH...'"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line_and_code_2(
    arguments: list[str], said: str, streamer: Streamer
) -> None:
    done = streamer(*arguments)
    assert done.code == 2
    line = done.line
    assert line.startswith("streamer: ")
    assert said in line
    assert "--help`" in line


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["settings"], {"STREAMER_PORT": "many"}, "STREAMER_PORT"),
        (["settings"], {"STREAMER_CONFIG": "no.toml"}, "no.toml"),
        (["settings"], {"STREAMER_SENSORS__SMELL__MAX_DELAY_MS": "1"}, "smell: give its kind"),
        (["simulate", "--dies", "smell:3"], {}, "'smell' cannot stop: this drive sends image, audio, text, telemetry"),
        (["simulate", "--dies", "audio"], {}, "--dies takes SENSOR:SECOND"),
        (["simulate", "--sensors", "lidar"], {}, "the simulated car has no sensor 'lidar'"),
        (["simulate", "--sensors", "can,imu"], {}, "the settings do not declare can, imu; this does"),
        (["deadletters", "--reason", "nonsense"], {}, "no reason 'nonsense'"),
        (["record", "x.mcap", "--all", "--seconds", "3"], {}, "--all records everything"),
        (["verify", "x.mcap"], {}, "give --against RESULTS"),
        (["verify", "x.mcap", "--against", "no.ndjson"], {}, "cannot read no.ndjson: No such file"),
        (["train", "no-model"], {}, "no-model/model.toml is not a file"),
        (["dashboard"], {"STREAMER_DASHBOARD_TOKEN": "short"}, "needs 16 characters or more"),
        (["replay", "no.mp4"], {}, "no.mp4 does not exist"),
        (["replay", "no.mp4", "--start", "inf"], {}, "--start takes a number, not inf"),
        (["replay", "no.mp4", "--duration", "inf"], {}, "--duration takes a number, not inf"),
        (["replay", "no.mp4", "--rate", "inf"], {}, "--rate takes a number, not inf"),
        (["search"], {}, "give one of QUERY, --image FILE and --audio FILE"),
        (["search", "siren", "--image", "x.png"], {}, "give one of QUERY, --image FILE and --audio FILE"),
    ],
)
def test_what_cannot_be_carried_out_is_one_line_and_code_1(
    arguments: list[str], environment: dict[str, str], said: str, streamer: Streamer
) -> None:
    done = streamer(*arguments, **environment)
    assert done.code == 1
    line = done.line
    assert line.startswith("streamer: ")
    assert said in line


@pytest.mark.parametrize(
    "command", ["watch", "watch --json", "results --session x", "forget x", "index", "search x", "dashboard"]
)
def test_without_servers_a_command_says_how_to_get_them(command: str, streamer: Streamer) -> None:
    done = streamer(*command.split(), STREAMER_REDIS=f"redis://me:secret@{nobody()}/0")
    assert done.code == 1
    assert "set STREAMER_REDIS to where one answers, or unset it and run `streamer up`" in done.line
    assert "secret" not in done.line


def test_a_worker_does_not_start_without_the_library_of_a_codec(tmp_path: Path) -> None:
    code = "import sys; sys.modules['zstandard'] = None; from streamer.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "worker", "--role", "align"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "streamer: record batches compressed with zstd cannot be read: "
        "import of zstandard halted, None in sys.modules; run `pip install zstandard`\n"
    )


def test_without_what_an_extra_installs_a_command_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['psutil'] = None; from streamer.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "status"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr
        == "streamer: running servers on this machine needs psutil: pip install 'streamer-multimodal[local]'\n"
    )


def test_settings_are_printed_as_toml(streamer: Streamer) -> None:
    done = streamer("settings", STREAMER_WINDOW_MS="2500")
    assert tomllib.loads(done.out)["window_ms"] == 2500


def test_an_interrupted_command_leaves_silently_with_code_130(tmp_path: Path) -> None:
    # the listener takes connections and says nothing, so that the command waits for ever
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        child = subprocess.Popen(
            [sys.executable, "-m", "streamer", "watch"],
            cwd=tmp_path,
            env=os.environ | {"STREAMER_REDIS": f"redis://{address}/0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = server.accept()
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        connection.close()
    assert (child.returncode, out, err) == (130, b"", b"")
