"""Simulated drives: camera frames, sound, transcripts and telemetry of a car, with what was really going on.

Deterministic: the same seed gives the same bytes. ``scenario`` has the facts of a drive; ``scene``, ``sound`` and
``script`` how they look, sound and read. Segments change faster than a real car could: a drive is condensed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Channel, Telemetry
from streamer.feeds import pace, scenario, script
from streamer.feeds.producer import JSON, Outgoing, Producer, end_record
from streamer.feeds.scenario import LABELS, Segment
from streamer.feeds.scene import Scene
from streamer.feeds.sound import RATE_HZ, Heard, Microphone, l16
from streamer.settings import Settings

S_US = 1_000_000
FRAME_DELAY_US = 10_000  # from exposure to the encoded frame
CHUNK_S = 0.2  # of audio
BLOCK_SAMPLES, TELEMETRY_HZ = 10, 50
SPEED_SETTLES_S = 0.25  # time constant of a change of speed
MIME_L16 = f"audio/L16;rate={RATE_HZ};channels=1"


class Options(msgspec.Struct, frozen=True):
    """How a feed misbehaves, and its frame rate. All off by default.

    Attributes:
        jitter_ms: Largest random delay of a record; records come out of order if it exceeds the time between them.
        drop: Share of records that are never sent.
        late: Share of records that are sent ``late_ms`` later.
        dies: (modality number, second): this modality stops at that second.
    """

    frame_hz: int = 10
    jitter_ms: float = 0.0
    drop: float = 0.0
    late: float = 0.0
    late_ms: float = 5000.0
    dies: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        for name in ("drop", "late"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a share between 0 and 1, not {getattr(self, name)}")
        if self.frame_hz < 1 or S_US % self.frame_hz:
            raise UsageError(f"frame_hz must divide a second into whole microseconds, not {self.frame_hz}")
        if self.jitter_ms < 0 or self.late_ms < 0:
            raise UsageError("jitter_ms and late_ms must not be negative")


class Truth(msgspec.Struct, frozen=True):
    """What was going on in ``[start_us, end_us)`` of a session."""

    session: str
    start_us: int
    end_us: int
    label: str
    siren: bool
    obstacle: bool
    fast: bool


class Drive:
    """One simulated drive.

    Args:
        start_us: Event time of its first frame, on a window border.
        seconds: Its length.
    """

    def __init__(
        self,
        seed: int,
        session: str,
        start_us: int,
        seconds: int,
        options: Options = Options(),  # noqa: B008 - frozen
    ) -> None:
        self.seed = seed
        self.session = session
        self.start_us = start_us
        self.seconds = seconds
        self.options = options
        self.light = int(np.random.default_rng((seed, 2)).integers(len(scenario.LIGHTS)))
        self.segments: Sequence[Segment] = tuple(scenario.segments(np.random.default_rng((seed, 0)), seconds))

    @property
    def end_us(self) -> int:
        """End of the drive in event time."""
        return self.start_us + self.seconds * S_US

    def truth(self) -> list[Truth]:
        """What was going on, segment by segment."""
        return [
            Truth(
                self.session,
                self.start_us + s.start_s * S_US,
                self.start_us + s.end_s * S_US,
                s.label,
                s.siren,
                s.obstacle,
                s.fast,
            )
            for s in self.segments
        ]

    def outgoing(self) -> Iterator[Outgoing]:
        """All records of the drive in the order in which they are due, the end record last."""
        ideal = heapq.merge(self._frames(), self._audio(), self._speech(), self._telemetry(), key=_due)
        last_us = self.end_us
        for record in self._misbehave(ideal):
            last_us = max(last_us, record.due_us)
            yield record
        yield end_record(self.session, self.end_us, last_us)

    # what the sensors see

    def _speeds_mps(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Speed at each telemetry sample [seconds * TELEMETRY_HZ]."""
        target = np.concatenate([np.full((s.end_s - s.start_s) * TELEMETRY_HZ, s.speed_mps) for s in self.segments])
        share = 1 / (SPEED_SETTLES_S * TELEMETRY_HZ)
        speeds, speed = np.empty_like(target), target[0]
        for i, wanted in enumerate(target):
            speed += (wanted - speed) * share
            speeds[i] = speed
        return speeds

    def _frames(self) -> Iterator[Outgoing]:
        scene = Scene(self.seed, self.light)
        distance_m = np.concatenate([[0.0], np.cumsum(self._speeds_mps()) / TELEMETRY_HZ])
        step_us = S_US // self.options.frame_hz
        index = 0
        for number, segment in enumerate(self.segments):
            rng = np.random.default_rng((self.seed, 20, number))
            ahead_m, closing_mps = rng.uniform(11, 17), rng.uniform(0.1, 0.8)
            for tick in range((segment.end_s - segment.start_s) * self.options.frame_hz):
                after_us = segment.start_s * S_US + tick * step_us
                away_m = float(ahead_m - closing_mps * tick * step_us / S_US)
                obstacle = (segment.thing, away_m) if segment.obstacle else None
                travelled_m = float(distance_m[after_us * TELEMETRY_HZ // S_US])
                picture = scene.frame(after_us // 100_000, travelled_m, segment.curvature, obstacle)
                at_us = self.start_us + after_us
                yield Outgoing(
                    IMAGE, self.session, at_us, picture, "image/jpeg", at_us + FRAME_DELAY_US, sequence=index
                )
                index += 1

    def _audio(self) -> Iterator[Outgoing]:
        microphone, speeds = Microphone(self.seed), self._speeds_mps()
        rain = scenario.LIGHTS[self.light] == "rain"
        size, chunk_us = int(CHUNK_S * RATE_HZ), int(CHUNK_S * S_US)
        index = 0
        for segment in self.segments:
            for second in range(segment.start_s, segment.end_s):
                speed_mps = float(speeds[second * TELEMETRY_HZ : (second + 1) * TELEMETRY_HZ].mean())
                siren = segment.vehicle if segment.siren else None
                samples = microphone.second(Heard(speed_mps, siren, segment.roadside, rain))
                for begin in range(0, RATE_HZ, size):
                    at_us = self.start_us + index * chunk_us
                    chunk = l16(samples[begin : begin + size])
                    yield Outgoing(AUDIO, self.session, at_us, chunk, MIME_L16, at_us + chunk_us, sequence=index)
                    index += 1

    def _speech(self) -> Iterator[Outgoing]:
        spoken: list[Outgoing] = []
        for number, segment in enumerate(self.segments):
            rng = np.random.default_rng((self.seed, 30, number))
            for second, transcript, there_s in script.utterances(rng, segment, self.light):
                at_us = self.start_us + (segment.start_s + second) * S_US
                payload = msgspec.json.encode(transcript)
                due_us = at_us + round(there_s * S_US)
                spoken.append(Outgoing(TEXT, self.session, at_us, payload, JSON, due_us, sequence=len(spoken)))
        return iter(sorted(spoken, key=_due))

    def _telemetry(self) -> Iterator[Outgoing]:
        rng = np.random.default_rng((self.seed, 40))
        speeds = self._speeds_mps()
        accelerations = np.clip(np.gradient(speeds) * TELEMETRY_HZ, -9, 9)
        bends = np.concatenate([np.full((s.end_s - s.start_s) * TELEMETRY_HZ, s.curvature) for s in self.segments])
        block_us = BLOCK_SAMPLES * S_US // TELEMETRY_HZ
        for index, begin in enumerate(range(0, len(speeds), BLOCK_SAMPLES)):
            part = slice(begin, begin + BLOCK_SAMPLES)
            noise = rng.standard_normal((3, BLOCK_SAMPLES))
            body = Telemetry(
                {
                    "speed": _channel(np.maximum(speeds[part] + 0.3 * noise[0], 0), "m/s"),
                    "steering_angle": _channel(bends[part] * 12 + 1.5 * noise[1], "deg"),
                    "accel_x": _channel(accelerations[part] + 0.25 * noise[2], "m/s^2"),
                },
                rate_hz=TELEMETRY_HZ,
            )
            at_us = self.start_us + index * block_us
            yield Outgoing(
                TELEMETRY, self.session, at_us, msgspec.json.encode(body), JSON, at_us + block_us, sequence=index
            )

    # how they misbehave

    def _misbehave(self, ideal: Iterable[Outgoing]) -> Iterator[Outgoing]:
        options = self.options
        rng = np.random.default_rng((self.seed, 50))
        waiting: list[tuple[int, int, Outgoing]] = []  # (due, tie-break, record): delays only ever postpone
        for number, record in enumerate(ideal):
            dropped, is_late, jitter = rng.random(3)
            if dropped < options.drop or self._is_dead(record):
                continue
            delay_ms = jitter * options.jitter_ms + (options.late_ms if is_late < options.late else 0.0)
            due_us = record.due_us + round(delay_ms * 1000)
            while waiting and waiting[0][0] <= record.due_us:
                yield heapq.heappop(waiting)[2]
            heapq.heappush(waiting, (due_us, number, msgspec.structs.replace(record, due_us=due_us)))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _is_dead(self, record: Outgoing) -> bool:
        dies = self.options.dies
        return dies is not None and record.row == dies[0] and record.time_us >= self.start_us + dies[1] * S_US


def _due(record: Outgoing) -> int:
    return record.due_us


def _channel(values: np.ndarray[tuple[int], np.dtype[np.float64]], unit: str) -> Channel:
    return Channel(tuple(round(float(value), 3) for value in values), unit)


def fleet(
    sessions: int,
    seconds: int,
    seed: int,
    start_us: int,
    run: str,
    options: Options = Options(),  # noqa: B008
) -> list[Drive]:
    """Drives of several cars.

    Args:
        run: Part of the sessions' names. Reusing the name of a run with later times would make all records late.
    """
    return [
        Drive(seed * 1000 + number, f"sim-{run}-{number}", start_us, seconds, options) for number in range(sessions)
    ]


def outgoing(drives: Sequence[Drive]) -> Iterator[Outgoing]:
    """The records of several drives in the order in which they are due."""
    return heapq.merge(*(drive.outgoing() for drive in drives), key=_due)


def label_of(truths: Iterable[Truth], start_us: int, end_us: int) -> str | None:
    """The label that covers most of a window; ``None`` where no truth is known."""
    best, most_us = None, 0
    for truth in truths:
        shared_us = min(end_us, truth.end_us) - max(start_us, truth.start_us)
        if shared_us > most_us:
            best, most_us = truth.label, shared_us
    return best


def write_truth(path: Path, truths: Iterable[Truth]) -> None:
    """One JSON object a line."""
    path.write_bytes(b"".join(msgspec.json.encode(truth) + b"\n" for truth in truths))


def read_truth(path: Path) -> list[Truth]:
    """Read back what :func:`write_truth` wrote.

    Raises:
        UsageError: It is not such a file; the message has the number of the wrong line.
    """
    truths = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            truths.append(msgspec.json.decode(line, type=Truth))
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} line {number} is no truth: {error}") from None
    return truths


def run(
    settings: Settings,
    *,
    sessions: int,
    seconds: int,
    speed: float,
    seed: int,
    name: str,
    truth: Path | None = None,
    options: Options = Options(),  # noqa: B008
    on_sent: Callable[[Outgoing], None] | None = None,
) -> int:
    """Send simulated drives to Kafka; returns the number of records sent.

    Args:
        speed: 1: real time; 0: as fast as possible (``pace.start_us`` then chooses the event times).
        name: Part of the sessions' names.
        truth: Where to write what was going on.
    """
    start_us = pace.start_us(speed, seconds * S_US, settings.hop_us)
    drives = fleet(sessions, seconds, seed, start_us, name, options)
    if truth is not None:
        write_truth(truth, (interval for drive in drives for interval in drive.truth()))
    with Producer(settings) as producer:
        return pace.send(outgoing(drives), producer, speed=speed, on_sent=on_sent)


__all__ = ["LABELS", "Drive", "Options", "Truth", "fleet", "label_of", "outgoing", "read_truth", "run", "write_truth"]
