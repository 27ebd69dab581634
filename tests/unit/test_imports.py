"""What a program loads: an aligner, and the commands that run no model, start without PyTorch."""

import subprocess
import sys
from pathlib import Path

import pytest

from streamer.local.process import free_port

MODULES = (
    "streamer.worker.process",
    "streamer.worker.role_align",
    "streamer.golden.record",
    "streamer.feeds",
    "streamer.operate.sizing",
)
COMMANDS = (
    ("topics", "create"),
    ("status",),
    ("results", "--session", "car"),
    ("watch",),
    ("doctor",),
    ("record", "day.mcap", "--seconds", "1"),
    ("size", "--feeds", "1", "--fps", "10", "--frame-kb", "8"),
)
RUN = """
import sys
from streamer.cli.main import main
sys.argv = ["streamer", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print("loaded:", "torch" in sys.modules)
"""


def loaded_by(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )
    return done.stdout.rpartition("loaded: ")[2].strip() or done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_an_aligner_imports_no_pytorch(module: str) -> None:
    assert loaded_by(f"import sys, {module}; print('loaded:', 'torch' in sys.modules)") == "False"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_that_runs_no_model_imports_no_pytorch(command: tuple[str, ...], tmp_path: object) -> None:
    nobody = free_port()
    environment = {
        "STREAMER_KAFKA": f"127.0.0.1:{nobody}",
        "STREAMER_REDIS": f"redis://127.0.0.1:{nobody}/0",
        "STREAMER_ROLE": "align",
    }
    assert loaded_by(RUN, *command, **environment) == "False"


@pytest.mark.parametrize(
    ("command", "slow"), [("status", "kafka redis rich"), ("results --session car", "kafka opentelemetry.sdk")]
)
def test_a_quick_command_imports_only_the_clients_that_it_needs(command: str, slow: str) -> None:
    nobody = free_port()
    found = loaded_by(
        RUN.replace('"torch" in sys.modules', f"sorted(set(sys.modules) & set({slow.split()}))"),
        *command.split(),
        STREAMER_KAFKA=f"127.0.0.1:{nobody}",
        STREAMER_REDIS=f"redis://127.0.0.1:{nobody}/0",
    )
    assert found == "[]"


# libraries of recordings' formats
FORMATS = (
    "asammdf av can cantools capnp edfio google.protobuf mcap openpilot_logging praatio pysubs2 rosbags srt webvtt wfdb"
)
RECORDINGS = {
    "a.csv": "time_s,speed\n0,1\n1,2\n",
    "a.srt": "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "a.json": '{"text": "hi", "segments": [{"start": 0, "end": 1, "text": "hi"}]}',
    "a.log": "(0.000000) can0 123#6400000000000000 R\n",
    "a.dbc": 'VERSION ""\nBU_: A\nBO_ 291 Motion: 8 A\n SG_ Speed : 0|16@1+ (0.01,0) [0|0] "km/h" A\n',
    "a.hea": "a 1 50 4\na.dat 16 1(0)/mV 16 0 0 0 0 ECG\n",
    "a.dat": "12345678",
}


# python-can loads asammdf wherever it is installed
@pytest.mark.parametrize(
    ("name", "loads"),
    [
        ("", []),
        ("a.csv", []),
        ("a.srt", ["srt"]),
        ("a.json", []),
        ("a.log", ["asammdf", "can", "cantools"]),
        ("a.hea", ["wfdb"]),
    ],
)
def test_a_recording_loads_only_the_libraries_of_its_format(name: str, loads: list[str], tmp_path: Path) -> None:
    for file, content in RECORDINGS.items():
        (tmp_path / file).write_text(content)
    send = f"list(replay.open_all([Path({str(tmp_path / name)!r})]).outgoing('session', 10**12))" if name else "None"
    found = loaded_by(
        f"import sys; from pathlib import Path; from streamer.feeds import replay; {send}; "
        f"print('loaded:', sorted(set(sys.modules) & set({FORMATS.split()})))"
    )
    assert found == str(loads)
