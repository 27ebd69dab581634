from __future__ import annotations

import time
from collections.abc import Iterator

import pytest


@pytest.fixture(params=["UTC0", "XST-5:30"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The zone of this machine, as headings name it."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield "UTC" if request.param == "UTC0" else "+05:30"
    monkeypatch.undo()
    time.tzset()
