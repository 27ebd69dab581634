"""What a check of ``streamer doctor`` reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec
from kafka.errors import KafkaError

from streamer.clients import kafka as kafka_clients
from streamer.errors import StreamerError
from streamer.settings import Settings

MOST_SKEW_S = 1.0  # by which clocks may differ where no result depends on them


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked.

    Attributes:
        check: What was checked: ``kafka``, ``topics``, ``redis`` …
        remedy: How to fix it; empty if it is ok.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """A finding that needs no remedy."""
    return Finding(check, Status.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """It works, with a disadvantage."""
    return Finding(check, Status.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """A worker would not start, or its results would be wrong."""
    return Finding(check, Status.FAIL, found, remedy)


def guarded(check: str, settings: Settings, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Run a check; an error it raises becomes its last finding, split at ``;`` into problem and remedy."""
    try:
        try:
            yield from look()
        except KafkaError as error:
            raise kafka_clients.refusal(settings, error) from None
    except StreamerError as error:
        found, _, remedy = str(error).partition("; ")
        yield fail(check, found, remedy)
