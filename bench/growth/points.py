"""What is varied, and what came of it: configurations and points."""

from __future__ import annotations

import msgspec

from bench import rig
from bench.growth.feeds import Feed, Sent
from bench.rig import Run, Spread
from streamer.events import IMAGE
from streamer.operate.costs import Window
from streamer.settings import MIB


class Config(msgspec.Struct, frozen=True):
    """What is run.

    Attributes:
        name: In tables: the value that the axis varies.
        x: The same as a number.
        decoded: Frames that the model asks for.
    """

    name: str
    x: float
    feed: Feed
    partitions: int = rig.PARTITIONS
    workers: int = 1
    window_ms: int = 1000
    decoded: int = 2

    @property
    def windows(self) -> int:
        """Results that a reader of all of it must publish."""
        return self.feed.sessions * self.feed.seconds * 1000 // self.window_ms


class Paced(msgspec.Struct, frozen=True):
    """A load in real time.

    Attributes:
        share: Of the windows a second at saturation.
        cpu_ms: Of a window, ms, what the worker does when idle included.
        behind_ms: How far the load was behind its schedule, p99; ``None`` if it was not kept.
        redis_bytes, stored_bytes: Of a result: sent to Redis, and taken there.
    """

    share: float
    windows_per_s: float
    cpu_ms: float
    saturated_ms: float
    latency_ms: tuple[float, float]
    idle_cores: float
    redis_bytes: float
    stored_bytes: float
    behind_ms: float | None = None


class Point(msgspec.Struct, frozen=True):
    """What came of a configuration.

    Attributes:
        runs: One a round.
        bare_ms, predict_ms: CPU of a window without Kafka and Redis, and of the model alone; ``None`` if not measured.
        at: When.
    """

    axis: str
    config: Config
    runs: tuple[Run, ...]
    sent: Sent
    at: str
    bare_ms: float | None = None
    predict_ms: float | None = None
    paced: tuple[Paced, ...] = ()

    @property
    def cpu_ms(self) -> Spread:
        return Spread.of([run.cpu_ms_per_window for run in self.runs])

    @property
    def peak_mib(self) -> float:
        return max(run.peak_bytes for run in self.runs) / MIB

    @property
    def window(self) -> Window:
        """The mean one."""
        share, frame_bytes = 1 / self.config.windows, self.sent.bytes[IMAGE] / self.sent.records[IMAGE]
        decoded = min(self.config.decoded, self.sent.records[IMAGE] * share)
        return Window(
            records=sum(self.sent.records) * share,
            payload_mb=sum(self.sent.bytes) * share / 1e6,
            frames_decoded=decoded,
            decoded_mb=decoded * frame_bytes / 1e6,
            seconds=self.config.window_ms / 1000,
        )


def axes(quick: bool) -> dict[str, list[Config]]:
    """What is varied, and what beside it."""
    usual = Feed(8, 10) if quick else Feed(16, 40)
    sessions = ((1, 80), (40, 2)) if quick else ((1, 1000), (50, 20), (1000, 1))
    frames: tuple[tuple[int, Feed], ...] = ((10, Feed(8, 5)), (100, Feed(8, 5)))
    windows: tuple[tuple[int, Feed], ...] = ((500, Feed(8, 5)), (2000, Feed(8, 10)))
    if not quick:
        frames = ((200, Feed(8, 10)), (1000, Feed(4, 10)))
        windows = ((100, Feed(16, 4)), (1000, Feed(16, 20)), (10_000, Feed(16, 40)))
    large = Feed(8, 5, frame_kb=100) if quick else Feed(8, 10, frame_kb=200)
    return {
        "windows": [Config(f"{ms / 1000:g} s", ms / 1000, feed, window_ms=ms) for ms, feed in windows],
        "frames": [Config(f"{kb:,} KB", kb, msgspec.structs.replace(feed, frame_kb=kb)) for kb, feed in frames],
        "sessions": [Config(f"{n:,}", n, Feed(n, s)) for n, s in sessions],
        "partitions": [
            Config(str(n), n, Feed(8, 10) if quick else Feed(64, 20), partitions=n)
            for n in ((1, 8) if quick else (1, 8, 64))
        ],
        "workers": [
            Config(str(n), n, Feed(8, 40) if quick else Feed(32, 60), partitions=8, workers=n)
            for n in ((1, 2) if quick else (1, 2, 4))
        ],
        "decoded": [Config(str(n), n, large, decoded=n) for n in (8,)],
        "pace": [Config("as simulated", 1, usual)],
        "check": [
            Config("5 frames a second of 100 KB, 2 s", 1, Feed(8, 20, 5, 100), window_ms=2000),
            Config("20 frames a second of 30 KB, 0.5 s", 2, Feed(8, 20, 20, 30), window_ms=500),
        ][: 1 if quick else 2],
    }
