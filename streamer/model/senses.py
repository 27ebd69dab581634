"""``[senses]`` of a ``model.toml``: a model of ready senses instead of a network of one's own. Imports no PyTorch.

Each table switches a sense on; a sense that is not named is not loaded and costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streamer.events import DEFAULT_SENSORS
from streamer.kinds.bodies import Share
from streamer.sensors import WORDING, is_name

if TYPE_CHECKING:  # their modules import PyTorch
    import numpy as np
    from numpy.typing import NDArray

    from streamer.model.sample import Sample


class Sensed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses.sensors]``: the sensors that senses take, by kind; an empty list: none.

    Attributes:
        image: All their frames are looked at; the one with the most of a label counts, whichever camera took it.
        audio: Each is listened to; the highest score of a tag counts.
        text: What is said by all of them belongs to the window's words.
        telemetry: The first that has values of a channel counts.
    """

    image: tuple[str, ...] = ("image",)
    audio: tuple[str, ...] = ("audio",)
    text: tuple[str, ...] = ("text",)
    telemetry: tuple[str, ...] = ("telemetry",)

    def frames(self, sample: Sample) -> list[NDArray[np.uint8]]:
        """The frames of a window, each [H, W, 3]."""
        return [frame for name in self.image for frame in sample.of(name).frames]

    def sounds(self, sample: Sample) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """The sound of each microphone in a window [S], and where it was heard [S]."""
        heard = [(part.audio_S, part.audio_mask_S) for name in self.audio for part in [sample.of(name)]]
        return [(audio_S, mask_S) for audio_S, mask_S in heard if audio_S is not None and mask_S is not None]

    def phrases(self, sample: Sample) -> list[str]:
        """What is said in a window."""
        return [phrase.text for name in self.text for phrase in sample.of(name).text]

    def problem(self) -> str | None:
        """What is wrong with it, in one line; ``None`` if nothing is."""
        seen: set[str] = set()
        for kind, names in msgspec.structs.asdict(self).items():
            for name in names:
                if not is_name(name):
                    return f"senses.sensors.{kind}: a sensor's name has {WORDING}, which {name[:50]!r} has not"
                if name in seen or (name in DEFAULT_SENSORS.numbers and name != kind):
                    return f"senses.sensors.{kind} names {name}, which is another one"
                seen.add(name)
        return None


class Objects(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses.objects]``: what is in the pictures, and how many.

    Attributes:
        labels: Those of COCO that are looked for, in the order of the outputs.
        threshold: Least score of an object that counts.
        thresholds: Label -> its own threshold.
        frames: Frames of a window that are looked at, evenly spread; the one with the most of a label counts.
    """

    labels: tuple[str, ...]
    threshold: Share = 0.5
    thresholds: dict[str, Share] = {}
    frames: int = 1


class Sounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses.sounds]``: events in the sound.

    Attributes:
        tags: Tag -> the classes of AudioSet that it stands for; the one with the highest score counts.
        threshold: Least score of a tag that is reported.
        thresholds: Tag -> its own threshold.
    """

    tags: dict[str, tuple[str, ...]]
    threshold: Share = 0.3
    thresholds: dict[str, Share] = {}


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses.numbers.NAME]``: the mean of a telemetry channel over the window.

    Attributes:
        unit: Of the channel's values, as its producers send them.
    """

    channel: str
    unit: str = ""


class Learned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses.learned.NAME]``: one of the user's labels, learned from few windows by ``streamer learn``.

    Attributes:
        senses: What it is judged by, some of ``FEATURES``.
    """

    labels: tuple[str, ...]
    senses: tuple[str, ...] = ("pictures", "sounds", "words")


class Sentences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses.sentences]``: the window's words as a vector, which makes it searchable."""


class Senses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[senses]``. What is said in a window belongs to its words in any case: that needs no network."""

    sensors: Sensed = Sensed()
    objects: Objects | None = None
    sounds: Sounds | None = None
    numbers: dict[str, Measured] = {}
    sentences: Sentences | None = None
    learned: dict[str, Learned] = {}

    def judged_by(self, feature: str) -> bool:
        """Whether a learned output is judged by one of ``FEATURES``."""
        return any(feature in learned.senses for learned in self.learned.values())

    def problem(self) -> str | None:
        """What is wrong with it, in one line; ``None`` if nothing is."""
        if (wrong := self.sensors.problem() or self._without_sensor()) is not None:
            return wrong
        if self.objects is not None and self.objects.frames < 1:
            return f"senses.objects.frames = {self.objects.frames} must be above 0"
        if taken := next((name for name in self.numbers if name in OUTPUTS), None):
            return f"senses.numbers.{taken}: the name is that of an output of another sense"
        if taken := next((name for name in self.learned if name in OUTPUTS or name in self.numbers), None):
            return f"senses.learned.{taken}: the name is that of another output"
        for name, learned in self.learned.items():
            if len(learned.labels) < 2 or len(set(learned.labels)) < len(learned.labels):
                return f"senses.learned.{name}.labels needs two or more different labels"
            if not learned.senses or not set(learned.senses) <= set(FEATURES):
                return f"senses.learned.{name}.senses are some of {', '.join(FEATURES)}"
        tagged: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {}
        if self.objects is not None:
            tagged["objects"] = self.objects.labels, self.objects.thresholds
        if self.sounds is not None:
            tagged["sounds"] = tuple(self.sounds.tags), self.sounds.thresholds
        for name, (labels, thresholds) in tagged.items():
            if not labels or len(set(labels)) < len(labels):
                return f"senses.{name} needs one or more different labels"
            if unknown := next((label for label in thresholds if label not in labels), None):
                return f"senses.{name}.thresholds has {unknown!r}, which is none of its labels"
        return None

    def _without_sensor(self) -> str | None:
        """What is asked for of which no sensor is named."""
        pictures, sounds = self.judged_by("pictures"), self.judged_by("sounds")
        needed = {
            "image": "senses.objects" if self.objects is not None else "senses.learned" if pictures else "",
            "audio": "senses.sounds" if self.sounds is not None else "senses.learned" if sounds else "",
            "text": "senses.learned" if self.judged_by("words") else "",
            "telemetry": "senses.numbers" if self.numbers else "",
        }
        for kind, table in needed.items():
            if table and not getattr(self.sensors, kind):
                return f"{table} needs a sensor of kind {kind}, and senses.sensors.{kind} is empty"
        return None


WORDS, OBJECTS, PEOPLE, SOUNDS = OUTPUTS = ("words", "objects", "people", "sounds")
FEATURES = ("pictures", "sounds", "words")  # of frozen senses, that outputs are learned on
PERSON = "person"  # the label that ``people`` counts
