"""Which topics of a log of messages are a session's pictures, sound, words and telemetry; a note names the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, TELEMETRY, TEXT, Sensor
from streamer.feeds.replay.part import Options
from streamer.feeds.replay.robots import pictures, sound
from streamer.feeds.replay.robots.fields import Tree
from streamer.feeds.replay.robots.sound import Info

Decode = Callable[[bytes], dict[str, Any]]

PICTURES = ("sensor_msgs/CompressedImage", "foxglove/CompressedImage")
IMAGES = ("sensor_msgs/Image", "foxglove/RawImage")
VIDEO = ("foxglove/CompressedVideo", "ffmpeg_image_transport_msgs/FFMPEGPacket")
SOUND = (sound.RAW_AUDIO, "audio_common_msgs/AudioData", "audio_common_msgs/AudioDataStamped")
SOUND_INFO = "audio_common_msgs/AudioInfo"
STRING = "std_msgs/String"
ROWS = {**dict.fromkeys((*PICTURES, *IMAGES, *VIDEO), IMAGE), **dict.fromkeys(SOUND, AUDIO), STRING: TEXT}
NAMES = {IMAGE: "pictures", AUDIO: "sound", TEXT: "words"}
# of several topics of std_msgs/String the words are the first one with such a name, else the first that is no URDF
SPEECH = re.compile(r"speech|asr|stt|transcript|recogni|utterance|text|words|said", re.IGNORECASE)
ROBOT = re.compile(r"robot_description|urdf|srdf", re.IGNORECASE)
PEEKED = 2000  # messages at a recording's begin among which the first ones of most topics are


class Topic(NamedTuple):
    """What is known of a topic before its messages are read.

    Attributes:
        number: What ``--stream`` calls it by.
        kind: Name of its type, see ``canonical``; empty if the recording has none.
        encoding: How its messages are serialised, in words for the user.
        messages: How many there are; ``None`` if the recording does not say.
        decode: ``None`` if its messages cannot be read;
        why: says why, in words that follow its name.
    """

    number: int
    name: str
    kind: str
    encoding: str
    messages: int | None
    decode: Decode | None
    why: str = ""


class Message(NamedTuple):
    """A message as the recorder received it."""

    number: int  # of its topic
    log_us: int
    data: bytes


class Source(Protocol):
    """A recording of messages.

    Attributes:
        start_us, end_us: Log times of the first and last message.
        indexed: Whether the messages of one topic can be read without reading all.
    """

    @property
    def path(self) -> Path: ...
    @property
    def topics(self) -> Mapping[int, Topic]: ...
    @property
    def start_us(self) -> int: ...
    @property
    def end_us(self) -> int: ...
    @property
    def indexed(self) -> bool: ...

    def messages(self, wanted: Collection[int], begin_us: int, notes: list[str]) -> Iterator[Message]:
        """Messages of some topics from a log time on, in order of their log time; a broken file ends with a note."""
        ...


class First(NamedTuple):
    """A topic's first message that can be read."""

    log_us: int
    tree: Tree


class Plan(NamedTuple):
    """What will be sent.

    Attributes:
        rows: Number of a topic -> kind that it is sent as.
        firsts: Number of a topic -> its first message.
        sounds: Number of a topic -> what describes its sound, where that is not in its messages.
        sensors: Number of a topic -> sensor that the user wants it sent as.
    """

    rows: Mapping[int, int]
    firsts: Mapping[int, First]
    sounds: Mapping[int, Info]
    sensors: Mapping[int, Sensor]


def canonical(kind: str) -> str:
    """A type by one name: ``sensor_msgs/Image`` for ROS 1 and 2, ``foxglove/RawImage`` in all of its encodings."""
    parts = [part for part in re.split(r"/|::", kind) if part not in ("msg", "dds_")]
    name = "/".join(parts).rstrip("_")
    return re.sub(r"^foxglove(?:_msgs/|\.)", "foxglove/", name)


def plan(source: Source, options: Options, notes: list[str]) -> Plan:
    """Choose topics; those that are not sent are noted.

    Raises:
        UsageError: ``--stream`` or ``--map`` name what is not there or cannot be, or nothing can be sent.
    """
    readable = _readable(source, notes)
    firsts = _firsts(source, readable)
    for number in [n for n in readable if n not in firsts and not source.topics[n].messages]:
        notes.append(f"{source.path}: {source.topics[number].name} has no messages")
        readable.remove(number)
    choice = _Choice(source, options, firsts, readable, notes)
    rows, sensors = choice.rows()
    if not rows:
        raise UsageError(f"{source.path} has no topic that can be sent: {'; '.join(notes)}")
    infos = {n: choice.described(source.topics[n]) for n, row in rows.items() if row == AUDIO}
    return Plan(
        rows,
        {n: first for n, first in firsts.items() if n in rows},
        {n: info for n, info in infos.items() if info is not None},
        sensors,
    )


def _readable(source: Source, notes: list[str]) -> list[int]:
    numbers = []
    for number, topic in source.topics.items():
        if topic.messages == 0:
            notes.append(f"{source.path}: {topic.name} has no messages")
        elif topic.decode is None:
            notes.append(f"{source.path}: {topic.name} is left out, {topic.why}")
        else:
            numbers.append(number)
    return numbers


def _firsts(source: Source, numbers: Sequence[int]) -> dict[int, First]:
    found: dict[int, First] = {}
    left = set(numbers)
    ignored: list[str] = []  # what is broken is noted when it is sent

    def look(wanted: set[int], most: int | None) -> None:
        if not wanted:
            return
        for count, message in enumerate(source.messages(wanted, source.start_us, ignored)):
            if message.number in left:
                decode = source.topics[message.number].decode
                assert decode is not None
                try:
                    found[message.number] = First(message.log_us, decode(message.data))
                except ValueError:
                    continue
                left.remove(message.number)
            if not left & wanted or count == most:
                return

    look(set(left), PEEKED)
    if source.indexed:
        for number in sorted(left):
            look({number}, PEEKED)
    else:
        look(set(left), None)
    return found


class _Choice:
    """The choice of topics for each kind."""

    def __init__(
        self,
        source: Source,
        options: Options,
        firsts: Mapping[int, First],
        readable: Sequence[int],
        notes: list[str],
    ) -> None:
        self._source, self._options, self._firsts, self._notes = source, options, firsts, notes
        self._readable = readable

    def rows(self) -> tuple[dict[int, int], dict[int, Sensor]]:
        """``rows`` and ``sensors`` of the plan."""
        able = {n: self._able(n) for n in self._readable}
        rows = {n: there[0] for n, there in able.items() if there}
        mapped = self._mapped(able)
        self._check_streams(rows)
        for row, name in NAMES.items():
            candidates = sorted((n for n, is_row in rows.items() if is_row == row and n not in mapped), key=self._rank)
            chosen = [n for n, sensor in mapped.items() if sensor.row == row]
            if len({mapped[n].name for n in chosen}) < len(chosen):
                topics = " and ".join(self._source.topics[n].name for n in chosen)
                raise UsageError(f"{self._source.path}: {topics} cannot be one sensor; choose one, or declare another")
            if chosen:
                self._leave_out(candidates, row, rows)
                continue
            chosen = [n for n in candidates if n in self._options.streams] or candidates[:1]
            if len(chosen) > 1:
                topics = " and ".join(self._source.topics[n].name for n in chosen[:2])
                raise UsageError(f"{self._source.path}: {topics} are both {name}; choose one")
            self._leave_out([n for n in candidates if n not in chosen], row, rows)
        rows.update({n: sensor.row for n, sensor in mapped.items()})
        if any(sensor.row == TELEMETRY for sensor in mapped.values()):
            for number in [n for n, row in rows.items() if row == TELEMETRY and n not in mapped]:
                del rows[number]
                topic = self._source.topics[number].name
                self._notes.append(f"{self._source.path}: {topic} is left out, --map names other telemetry")
        return rows, mapped

    def _leave_out(self, numbers: Sequence[int], row: int, rows: dict[int, int]) -> None:
        for number in numbers:
            del rows[number]
            topic = self._source.topics[number].name
            self._notes.append(
                f"{self._source.path}: {topic} is left out, a sensor has one topic of {NAMES[row]}; --stream {number} "
                f"or --map {topic}={KIND_NAMES[row]} sends it instead, =SENSOR as that of another sensor"
            )

    def _rank(self, number: int) -> tuple[int, int]:
        topic = self._source.topics[number]
        if topic.kind == STRING and ROBOT.search(topic.name):
            return 2, number
        return int(topic.kind == STRING and not SPEECH.search(topic.name)), number

    def _able(self, number: int) -> list[int]:
        """What a topic can be, what it is without ``--map`` first; nothing, with a note, if it is of no use."""
        topic, first = self._source.topics[number], self._firsts.get(number)
        row = ROWS.get(topic.kind)
        if first is None:
            return [TELEMETRY if row is None else row]
        try:
            if row == IMAGE:
                _check_picture(topic.kind, first.tree)
            elif row == AUDIO:
                sound.made(topic.kind, self.described(topic), first.tree)
        except UsageError as error:
            self._notes.append(f"{self._source.path}: {topic.name} is left out, its messages are {error}")
            return []
        except ValueError:  # a broken message is counted when it is read
            pass
        if row is None:
            return [TEXT, TELEMETRY] if isinstance(first.tree.get("text"), str) else [TELEMETRY]
        return [row]

    def described(self, topic: Topic) -> Info | None:
        """The ``AudioInfo`` of a topic of sound: that beside it, else the only one."""
        infos = [n for n in self._readable if self._source.topics[n].kind == SOUND_INFO and n in self._firsts]
        folder = topic.name.rpartition("/")[0]
        beside = [n for n in infos if self._source.topics[n].name.rpartition("/")[0] == folder]
        for number in beside or (infos if len(infos) == 1 else ()):
            return sound.info(self._firsts[number].tree)
        return None

    def _mapped(self, able: Mapping[int, Sequence[int]]) -> dict[int, Sensor]:
        mapped = {}
        for name, sensor in self._options.sensors.items():
            there = [n for n, topic in self._source.topics.items() if topic.name == name]  # or in another file
            fit = [n for n in there if sensor.row in able.get(n, ())]
            if there and not fit:
                kinds = ", ".join(self._source.topics[n].kind or self._source.topics[n].encoding for n in there)
                raise UsageError(f"{self._source.path}: {name} ({kinds}) cannot be {sensor.name}")
            mapped.update(dict.fromkeys(fit, sensor))
        return mapped

    def _check_streams(self, rows: Mapping[int, int]) -> None:
        there = {n: self._source.topics[n].name for n, row in rows.items() if row in NAMES}
        for number in self._options.streams:
            if number not in there:
                listed = ", ".join(f"{n} {name}" for n, name in there.items())
                raise UsageError(
                    f"{self._source.path}: topic {number} has no pictures, sound or words; these have: "
                    f"{listed or 'none'}"
                )


def _check_picture(kind: str, tree: Tree) -> None:
    if kind in PICTURES:
        pictures.encoded(tree)
    elif kind in VIDEO:
        pictures.decoder(tree)
    elif kind in IMAGES:
        pictures.check_raw(tree)
