"""What the README tells a newcomer to type or to copy is held to the code."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streamer.align.decode import Decoder
from streamer.cli.app import app
from streamer.events import Event, Record
from streamer.settings import DEFAULT_MODALITIES, ModalitySettings, Settings

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_are_python() -> None:
    for number, example in enumerate(PYTHON):
        compile(example, f"README example {number}", "exec")


def test_the_commands_that_it_names_exist() -> None:
    listed = CliRunner().invoke(app, ["--help"]).output.partition("Commands:")[2]
    known = {line.split()[0] for line in listed.splitlines() if line.strip()}
    named = set(re.findall(r"(?:^|`)streamer ([a-z]+)", README, re.MULTILINE))
    assert {"up", "watch", "replay"} <= named <= known


def test_the_settings_that_it_names_exist_and_have_the_defaults_that_it_says() -> None:
    names = set(re.findall(r"STREAMER_([A-Z_]*[A-Z])", README))
    flat = {name.upper() for name in Settings.model_fields}
    nested = {
        f"MODALITIES__{modality}__{name}".upper()
        for modality in DEFAULT_MODALITIES
        for name in ModalitySettings.model_fields
    }
    assert names - flat - nested == set()
    for name, said in re.findall(r"^\| `STREAMER_([A-Z_]+)` \| (\d+) \|", README, re.MULTILINE):
        assert Settings.model_fields[name.lower()].default == int(said)


def test_the_files_that_it_links_to_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_for_any_kafka_client_sends_what_the_decoder_takes(
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
    Path("frame.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    (example,) = [text for text in PYTHON if "KafkaProducer" in text]
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
