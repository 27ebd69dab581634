"""What README says is held to the code. tests/integration/test_readme_steps.py runs its steps."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streamer.align.decode import Decoder
from streamer.cli.app import app
from streamer.events import Event, Record
from streamer.sensors import DEFAULTS, SensorSettings
from streamer.settings import Settings

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MEASURED = {  # what README calls a figure -> what the page of benchmarks calls it
    "log time to closed window": "merge",
    "closed window to publishing": "delivery",
    "`streamer up` to ready worker": "from `streamer up` to a ready worker",
    "speed ÷ decoding + model alone": "worker ÷ bare, windows a second",
    "the same with a ResNet-50": "worker ÷ bare, timm:resnet50, windows a second",
    "speed ÷ plain aiokafka program": "streamer ÷ aiokafka, steady, windows/s",
    "speed ÷ Quix Streams, steady": "streamer ÷ Quix Streams, steady, windows/s",
    "speed ÷ Bytewax, steady": "streamer ÷ Bytewax, steady, windows/s",
    "speed ÷ Flink (PyFlink), steady": "streamer ÷ Flink, steady, windows/s",
}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_its_first_commands_are_targets_of_the_makefile() -> None:
    named = re.findall(r"^(make [^#]+?) *#", README, re.MULTILINE)
    assert named == ["make demo", 'make demo ARGS="--film FILE"', "make test"]
    programs = ("streamer demo", "streamer demo --film FILE", "pytest tests/integration tests/faults")
    for command, program in zip(named, programs, strict=True):
        line = [*shlex.split(command), "--dry-run", "--no-print-directory"]  # the tests may run under a make
        planned = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        assert planned.stdout.rstrip().endswith(program)


def test_its_figures_are_those_of_the_page_of_benchmarks() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    table = README[README.index("## Measured") :].partition("\n\n- ")[0]
    said = dict(re.findall(r"^\| (.+?) \| ([\d.]+)(?: m?s)? \|", table, re.MULTILINE))
    assert said.keys() == MEASURED.keys()
    for name, figure in said.items():
        [median] = set(re.findall(rf"^\| {re.escape(MEASURED[name])} \| ([\d.]+)", benchmarks, re.MULTILINE))
        decimals = len(figure.partition(".")[2])
        assert float(figure) == round(float(median), decimals)
    [killed] = re.findall(
        r"^\| streamer \| (\d) \| ([\d.]+) \(.*?\| (\d+) \| (\d+) \| 0 \| 0 \| 0 \|$", benchmarks, re.MULTILINE
    )
    assert killed == ("4", "4.46", "220", "220")
    assert re.search(r"four `kill -9` .* none of 220 windows, and\nwas back after 4\.5 s", README, re.DOTALL)


def test_a_snippet_that_finds_no_kafka_ends_in_one_line_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    [sending] = [text for text in PYTHON if "Producer" in text]
    done = subprocess.run(
        [sys.executable, "-c", sending],
        cwd=tmp_path,
        env=os.environ | {"STREAMER_KAFKA": "127.0.0.1:1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("streamer.errors.UsageError: no Kafka answers at 127.0.0.1:1")
    assert "`streamer up`" in last


def test_the_commands_that_it_names_exist() -> None:
    listed = CliRunner().invoke(app, ["--help"]).output.partition("Commands:")[2]
    known = {line.split()[0] for line in listed.splitlines() if line.strip()}
    named = set(re.findall(r"(?:^|`)streamer ([a-z]+)", README, re.MULTILINE))
    assert {"up", "watch", "replay"} <= named <= known


def test_the_settings_that_it_names_exist_and_have_the_defaults_that_it_says() -> None:
    names = set(re.findall(r"STREAMER_([A-Z_]*[A-Z])", README))
    flat = {name.upper() for name in Settings.model_fields}
    nested = {f"SENSORS__{sensor}__{name}".upper() for sensor in DEFAULTS for name in SensorSettings.model_fields}
    assert names - flat - nested == set()
    for name, said in re.findall(r"^\| `STREAMER_([A-Z_]+)` \| (\d+) \|", README, re.MULTILINE):
        assert Settings.model_fields[name.lower()].default == int(said)


def test_the_files_that_it_links_to_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_of_the_wire_contract_sends_what_the_decoder_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []

    class Recorder:
        def __init__(self, bootstrap_servers: str) -> None:
            self.flushed = False

        def send(self, topic: str, **record: Any) -> None:
            sent.append((topic, record))

        def flush(self) -> None:
            self.flushed = True

    client = types.ModuleType("kafka")
    client.KafkaProducer = Recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kafka", client)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    contract = (ROOT / "schemas" / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", contract, re.DOTALL)
    exec(example, {})

    settings = Settings.load()
    decoder = Decoder(settings, partitions=1)
    events = [decoder.decode(record(settings, topic, fields)) for topic, fields in sent]
    assert [topic for topic, _ in sent] == ["streamer.frames", "streamer.telemetry"]
    assert [event.session for event in events] == ["cab-7", "cab-7"]
    assert lengths_us(events) == [0, 150_000]


def record(settings: Settings, topic: str, fields: dict[str, Any]) -> Record:
    now_us = 1 << 60
    return Record(
        row=settings.source_topics.index(topic),
        partition=0,
        offset=0,
        log_time_us=now_us,
        key=fields["key"],
        value=fields["value"],
        headers=tuple(fields["headers"]),
    )


def lengths_us(events: list[Event]) -> list[int]:
    return [event.end_us - event.start_us for event in events]
