from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from streamer.result import Result

END_US = 1_750_000_001_000_000


def result(session: str = "car-1", **changed: Any) -> Result:
    values: dict[str, Any] = {
        "session": session,
        "start_us": END_US - 1_000_000,
        "end_us": END_US,
        "closed_by": "deadline",
        "present": ("image", "audio"),
        "coverage": {"image": 1.0, "audio": 0.83, "text": 0.0, "telemetry": 0.0},
        "members": {},
        "outputs": {"action": {"label": "emergency_stop", "score": 0.9812}},
        "embedding": b"",
        "model": "driving",
        "version": "1-00000000",
        "status": "ok",
        "latencies_us": {"total": 1_234_567},
    }
    return Result(**values | changed)


def lines(what: Any, width: int = 80, height: int = 25) -> list[str]:
    console = Console(file=(told := io.StringIO()), width=width, height=height, color_system=None)
    console.print(what)
    return told.getvalue().splitlines()
