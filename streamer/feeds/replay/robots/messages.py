"""Logs of messages (MCAP, bags of ROS 1 and 2): each message becomes a frame, sound, words or telemetry by its type.

    sensor_msgs/CompressedImage, foxglove.CompressedImage     frames, as they are: JPEG, PNG, WebP
    sensor_msgs/Image, foxglove.RawImage                      frames, as JPEG; 16 bits a sample are cut to the upper 8
    foxglove.CompressedVideo, ffmpeg_image_transport_msgs     frames, decoded, as JPEG: H.264, H.265, VP9, AV1
    foxglove.RawAudio, audio_common_msgs/AudioData(Stamped)   sound: 16-bit PCM, MP3
    std_msgs/String, any object with a ``text``               words; ``start``, ``end``, ``words`` as in a transcript
    any other                                                 its numbers as telemetry, ``imu.angular_velocity.x``

**Time.** A message has the time that its sender stamped it with (``fields.stamp_us``) if that is within
``SAME_CLOCK_US`` of its log time, which is when the recorder received it. All others have their log time: those without
a stamp, and those whose stamps come from another clock, such as a simulation's.

**Topics.** One topic of pictures is sent, one of sound and one of words: the first of each that can be, unless the user
chooses others, or names sensors for several (``topics.plan``). All others are telemetry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from streamer.errors import BadRecord, UsageError, one_line
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Transcript
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.replay.part import (
    NO_SESSION,
    S_US,
    SLICE_US,
    Options,
    Part,
    Reorder,
    Thinned,
    frame,
    header,
)
from streamer.feeds.replay.robots import pictures, sound, topics
from streamer.feeds.replay.robots.fields import Tree, measurements, stamp_us
from streamer.feeds.replay.robots.topics import First, Message, Plan, Source, Topic
from streamer.feeds.replay.slices import table, timed
from streamer.kinds.text import parse_transcript

SAME_CLOCK_US = 60 * S_US  # a stamp further than this from the message's log time is of another clock
NOT_WORDS = ("<", "{", "[")  # how XML and JSON begin, which strings often hold
FINER = 4  # so many times more pictures are kept than asked for, see _Reading
LISTED = 5  # fields that a note names


def part(source: Source, options: Options, notes: list[str]) -> Part:
    """Open a log of messages.

    Args:
        notes: What was noted of the file itself.

    Raises:
        UsageError: The options name what is not there or cannot be, or nothing can be sent.
    """
    plan = topics.plan(source, options, notes)
    sent = {number: source.topics[number] for number in plan.rows}
    origin_us = min([source.start_us, *(_begin_us(sent[number], plan, first) for number, first in plan.firsts.items())])
    prefixes = Prefixes(source)
    named = (
        _named(sent[number], prefixes, first.tree, set())
        for number, first in plan.firsts.items()
        if plan.rows[number] == TELEMETRY
    )
    made = Part(
        source.path,
        source.end_us - origin_us,
        lambda begin_us: _Reading(made, source, plan, options, origin_us).records(begin_us),
        sends=frozenset(row for number, row in plan.rows.items() if number not in plan.sensors),
        named=frozenset(plan.sensors.values()),
        clock_us=origin_us,
        utc_us=origin_us if origin_us > S_US * 10**9 else None,  # else a clock that counts from boot
        late_us=SAME_CLOCK_US,
        tracks=len(source.topics),
        topics=frozenset(topic.name for topic in source.topics.values()),
        channels=frozenset(name for names in named for name in names),
        notes=notes,
    )
    return made


def _begin_us(topic: Topic, plan: Plan, first: First) -> int:
    """When a topic's first message begins: before it was logged, if it is sound or words."""
    row = plan.rows[topic.number]
    begin_us, stamped = _time_us(first.tree, first.log_us)
    try:
        if row == AUDIO:
            heard = sound.made(topic.kind, plan.sounds.get(topic.number), first.tree)
            for record in (*heard.add(first.tree, begin_us, stamped), *heard.rest()):
                return record.time_us
        if row == TEXT:
            said = _said(topic, first.tree)
            return begin_us if said is None else begin_us + parse_transcript(said)[1].start_us
    except (ValueError, BadRecord, UsageError):  # a broken message is counted when it is sent
        pass
    return begin_us


def _time_us(tree: Tree, log_us: int) -> tuple[int, bool]:
    """A message's time, and whether it is its sender's."""
    own_us = stamp_us(tree)
    stamped = own_us is not None and abs(own_us - log_us) <= SAME_CLOCK_US
    return (own_us if stamped and own_us is not None else log_us), stamped


class Prefixes:
    """What the channels of topics begin with: the topic's name; where two would be alike, with its number."""

    def __init__(self, source: Source) -> None:
        plain = {number: _dotted(topic.name) for number, topic in source.topics.items()}
        often = Counter(plain.values())
        self._prefixes = {n: name if often[name] == 1 else f"{name}.{n}".strip(".") for n, name in plain.items()}

    def __getitem__(self, number: int) -> str:
        return self._prefixes[number]


def _dotted(topic: str) -> str:
    return topic.strip("/").replace("/", ".")


def _named(topic: Topic, prefixes: Prefixes, tree: Tree, left_out: set[str]) -> dict[str, float]:
    found = measurements(topic.kind, tree, left_out)
    prefix = prefixes[topic.number]
    return {".".join(filter(None, (prefix, name))) or "value": value for name, value in found.items()}


def _said(topic: Topic, tree: Tree) -> bytes | None:
    """The transcript in a message; ``None`` if it is silent.

    Raises:
        ValueError: It holds no words.
    """
    if topic.kind == topics.STRING:
        text = str(tree.get("data", ""))
        if text.lstrip().startswith(NOT_WORDS):
            raise ValueError("XML or JSON, not words")
        said = Transcript(text)
    else:
        try:
            said = msgspec.convert(tree, Transcript, strict=False)
        except msgspec.ValidationError:  # other fields with the same names
            said = Transcript(tree["text"])
    return msgspec.json.encode(said) if said.text.strip() else None


class _Slice:
    """Numbers of a topic that were logged within one slice of time."""

    def __init__(self, begin_us: int) -> None:
        self.begin_us = begin_us  # log time
        self.rows: dict[int, dict[str, float]] = {}  # time -> name -> value

    def blocks(self) -> Iterator[Outgoing]:
        times_us, names, values_NC = table(self.rows)  # their stamps may lie further apart than their log times
        return timed(np.array(times_us, np.int64), values_NC, names, [""] * len(names))


class _Findings:
    """What a pass over a file finds, for notes at its end."""

    def __init__(self) -> None:
        self.left_out: dict[str, list[Any]] = {}  # topic and what is wrong -> number of messages, the first's detail
        self.fields: dict[str, set[str]] = {}  # topic -> lists that are no channels
        self.other_clock: Counter[str] = Counter()
        self.early: Counter[str] = Counter()
        self.fewer: dict[str, int] = {}  # topic -> number of messages by the file's index
        self.seen: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    def leave_out(self, topic: Topic, what: str, detail: str = "") -> None:
        self.left_out.setdefault(f"{topic.name} are {what}", [0, detail])[0] += 1

    def missing(self, source: Source, plan: Plan) -> None:
        """Note, after a whole pass, of which topics a file had fewer messages than it says."""
        for number in plan.rows:
            topic = source.topics[number]
            if topic.messages is not None and self.seen[topic.name] < topic.messages:
                self.fewer[topic.name] = topic.messages

    def notes(self) -> Iterator[str]:
        for topic, count in self.fewer.items():
            yield f"{topic}: {self.seen[topic]} of its {count} messages could be found"
        for what, (count, detail) in self.left_out.items():
            yield f"{count} messages were left out: those of {what}{f' ({detail})' if detail else ''}"
        for topic, fields in self.fields.items():
            named = ", ".join(sorted(fields)[:LISTED]) + (", …" if len(fields) > LISTED else "")
            yield f"{topic}: left out are {named}: covariances, bytes and long lists are no channels"
        for topic, count in self.other_clock.items():
            yield f"{topic}: the stamps of {count} messages are of another clock, they have their log times"
        for topic, count in self.early.items():
            yield f"{topic}: {count} messages are stamped before the recording began, they are moved to its begin"
        for topic in self.seen:
            if not self.sent[topic] and not any(what.startswith(f"{topic} are ") for what in self.left_out):
                yield f"{topic} is left out, there is nothing in its messages that can be sent"


class _Reading:
    """One pass over a file."""

    def __init__(self, made: Part, source: Source, plan: Plan, options: Options, origin_us: int) -> None:
        self._made, self._source, self._plan, self._origin_us = made, source, plan, origin_us
        # finer than asked: the session's slots begin elsewhere than this part's, and each must get a picture
        finer_hz = None if options.rate_hz is None else FINER * options.rate_hz
        self._thinned = {number: Thinned(finer_hz) for number in plan.rows}
        self._waiting = Reorder()
        self._floor_us = 0  # no record that is due before may still come
        self._slices: dict[int, _Slice] = {}
        self._prefixes = Prefixes(source)
        self._findings = _Findings()
        self._videos = {
            n: pictures.Video()
            for n, row in plan.rows.items()
            if row == IMAGE and source.topics[n].kind in topics.VIDEO
        }
        self._sounds: dict[int, Any] = {}
        self._names = {n: header(sensor) for n, sensor in plan.sensors.items()}

    def records(self, begin_us: int) -> Iterator[Outgoing]:
        # a decoder must see a video from its key frame on, which only reading from the start is sure to meet
        log_us = 0 if self._videos else max(0, begin_us - SAME_CLOCK_US)
        found = self._source.messages(self._plan.rows, log_us + self._origin_us, self._made.notes)
        now_us = 0
        for message in found:
            now_us = max(now_us, message.log_us - self._origin_us)  # an unordered file is sent in its own order
            self._close_slices(now_us)
            yield from self._waiting.until(now_us)
            self._floor_us = now_us
            self._take(message, begin_us)
        self._end(begin_us)
        if log_us == 0:
            self._findings.missing(self._source, self._plan)
        self._note()
        yield from self._waiting.rest()

    def _take(self, message: Message, begin_us: int) -> None:
        topic = self._source.topics[message.number]
        self._findings.seen[topic.name] += 1
        assert topic.decode is not None
        try:
            tree = topic.decode(message.data)
            time_us, stamped = self._when(topic, tree, message.log_us)
            self._send(topic, tree, time_us, stamped, begin_us)
        except UsageError as error:
            self._findings.leave_out(topic, str(error))
        except (ValueError, BadRecord) as error:
            self._findings.leave_out(topic, "broken", one_line(error))

    def _when(self, topic: Topic, tree: Tree, log_us: int) -> tuple[int, bool]:
        time_us, stamped = _time_us(tree, log_us)
        if not stamped and stamp_us(tree) is not None:
            self._findings.other_clock[topic.name] += 1
        if time_us < self._origin_us:
            self._findings.early[topic.name] += 1
        return max(0, time_us - self._origin_us), stamped

    def _send(self, topic: Topic, tree: Tree, time_us: int, stamped: bool, begin_us: int) -> None:
        row = self._plan.rows[topic.number]
        if row == IMAGE:
            self._picture(topic, tree, time_us, begin_us)
        elif row == AUDIO:
            number = topic.number
            if number not in self._sounds:
                self._sounds[number] = sound.made(topic.kind, self._plan.sounds.get(number), tree)
            for record in self._sounds[number].add(tree, time_us, stamped):
                self._push(topic, record)
        elif row == TEXT and (topic.kind == topics.STRING or isinstance(tree.get("text"), str)):
            self._words(topic, tree, time_us)
        else:
            self._numbers(topic, tree, time_us)

    def _push(self, topic: Topic, record: Outgoing) -> None:
        self._findings.sent[topic.name] += 1
        sensor = self._names.get(topic.number)
        self._waiting.push(msgspec.structs.replace(record, due_us=max(record.due_us, self._floor_us), sensor=sensor))

    def _picture(self, topic: Topic, tree: Tree, time_us: int, begin_us: int) -> None:
        if topic.kind in topics.PICTURES:
            picture, content_type = pictures.encoded(tree)
            self._push(topic, frame(picture, time_us, content_type))
        elif topic.kind in topics.IMAGES:
            if time_us >= begin_us and self._thinned[topic.number].keeps(time_us):
                self._push(topic, frame(pictures.raw(tree), time_us))
        elif topic.number in self._videos:
            self._show(topic, self._videos[topic.number].add(tree, time_us), begin_us)

    def _show(self, topic: Topic, shown: Iterable[pictures.Shown], begin_us: int) -> None:
        for time_us, encode in shown:
            if time_us >= begin_us and self._thinned[topic.number].keeps(time_us):
                self._push(topic, frame(encode(), time_us))

    def _words(self, topic: Topic, tree: Tree, time_us: int) -> None:
        payload = _said(topic, tree)
        if payload is None:
            return
        span = parse_transcript(payload)[1]
        due_us = max(time_us, time_us + span.start_us + span.length_us)
        self._push(topic, Outgoing(TEXT, NO_SESSION, time_us, payload, JSON, due_us))

    def _numbers(self, topic: Topic, tree: Tree, time_us: int) -> None:
        left_out: set[str] = set()
        named = _named(topic, self._prefixes, tree, left_out)
        if left_out:
            self._findings.fields.setdefault(topic.name, set()).update(left_out)
        if named:
            held = self._slices.setdefault(topic.number, _Slice(self._floor_us))
            held.rows.setdefault(time_us, {}).update(named)

    def _close_slices(self, now_us: int | None) -> None:
        for number, held in list(self._slices.items()):
            if now_us is None or now_us >= held.begin_us + SLICE_US:
                del self._slices[number]
                for block in held.blocks():
                    self._push(self._source.topics[number], block)

    def _end(self, begin_us: int) -> None:
        """Send what is still held, and note what was left out."""
        self._close_slices(None)
        for number in self._plan.rows:
            topic = self._source.topics[number]
            try:
                if (video := self._videos.get(number)) is not None:
                    for _ in range(video.before_key):
                        self._findings.leave_out(topic, "before the first key frame")
                    self._show(topic, video.rest(), begin_us)
                if (heard := self._sounds.get(number)) is not None:
                    for record in heard.rest():
                        self._push(topic, record)
            except ValueError as error:
                self._findings.leave_out(topic, "broken", one_line(error))

    def _note(self) -> None:
        self._made.notes += (f"{self._made.path}: {said}" for said in self._findings.notes())
