"""Rules tried on a recording or a file of results: nothing is written, and no action is done."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from streamer.golden import recording, verify
from streamer.model.spec import PLACEHOLDER
from streamer.result import Result
from streamer.rules.alarm import Alarm
from streamer.rules.engine import Engine, Memory
from streamer.rules.table import Rule
from streamer.settings import Settings


class Trial(msgspec.Struct, frozen=True):
    """What rules would do.

    Attributes:
        windows: To which they were applied.
        unknown: Rule -> number of windows in which it was neither true nor false, and the last reason.
        outputs: Names of all outputs that the results have.
    """

    windows: int
    alarms: list[Alarm]
    unknown: dict[str, tuple[int, str]]
    outputs: list[str]

    def unsaid(self, rule: Rule) -> list[str]:
        """The outputs that the rule's ``say`` names, and no result has."""
        return [name for name in PLACEHOLDER.findall(rule.say) if name not in self.outputs]


def run(
    settings: Settings, rules: Mapping[str, Rule], path: Path, on_progress: Callable[[int], None] = lambda windows: None
) -> Trial:
    """Apply rules to a recording, which goes through alignment and the model, or to results, a JSON object a line.

    Raises:
        UsageError: The file cannot be read.
        ModelError: The model cannot be loaded.
    """
    engine = Engine(rules)
    sessions = _results(settings, path, on_progress)
    alarms: list[Alarm] = []
    for results in sessions.values():
        memory = Memory()
        for _, result in sorted(results.items()):
            alarms += engine.see(result, memory)
    alarms.sort(key=lambda alarm: (alarm.end_us, alarm.session))
    outputs = {name: None for results in sessions.values() for result in results.values() for name in result.outputs}
    return Trial(sum(map(len, sessions.values())), alarms, engine.unknown, list(outputs))


def _results(settings: Settings, path: Path, on_progress: Callable[[int], None]) -> dict[str, dict[int, Result]]:
    """Session -> end of a window -> its result."""
    with tempfile.TemporaryDirectory() as folder:
        if path.exists() and recording.is_recording(path):
            saved = Path(folder) / "results.ndjson"
            with saved.open("wb") as out:
                verify.run(settings, path, None, tolerance=0.0, save=out, on_progress=on_progress)
            path = saved
        reference = verify.FileReference(path)
    return {session: reference.of(session) for session in reference.sessions()}
