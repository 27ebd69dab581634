"""Separate servers, which the suite may stop, kill and pause, and the lines that show what was verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.broker import topics as topic_admin
from streamer.local.stack import Stack
from streamer.settings import Settings
from tests.faults import rig
from tests.faults.rig import FULL, MAX_MESSAGE_BYTES

LINES = pytest.StashKey[list[str]]()

NewSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether scenarios run at length: ``STREAMER_TEST_FAULTS=full``."""
    return FULL


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("faults"), MAX_MESSAGE_BYTES) as servers:
        yield servers


@pytest.fixture
def healthy(stack: Stack) -> Iterator[Stack]:
    """The servers, both running before and after a scenario whatever it did to them."""
    _repair(stack)
    yield stack
    _repair(stack)


def _repair(stack: Stack) -> None:
    for daemon in (stack.kafka, stack.redis):
        daemon.resume()
    stack.start_redis()
    stack.start_kafka()


@pytest.fixture
def new_settings(healthy: Stack, model_folder: Path) -> NewSettings:
    """Makes settings with unused names for topics, keys and group; the topics exist."""

    def make(**given: Any) -> Settings:
        settings = rig.new_settings(**healthy.addresses, model=model_folder, **given)
        topic_admin.create(settings)
        return settings

    return make


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Adds a line to the report at the end of the run: what a scenario did and found."""
    lines = request.config.stash.setdefault(LINES, [])
    name = request.node.name

    def add(line: object) -> None:
        lines.append(f"{name}: {line}")
        print(line)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("faults: what was verified")
        for line in lines:
            terminalreporter.write_line(line)
