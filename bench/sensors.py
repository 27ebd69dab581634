"""What more sensors cost: an event of 4 or of 12 of them, of 1 or of 1,000 sessions, and cameras that no model reads.

    python -m bench.sensors
    python -m bench.sensors --before ../before    # beside an older working tree, with the default sensors
    python -m bench.sensors --events              # without the part that needs Kafka

An event is decoded, merged and aligned in memory, by programs on one core that take turns
(``bench/programs/aligning.py``); frames and sounds are not opened there. Then workers read topics full of the records
of cars with one camera and with six, 50 KB a frame at 10 Hz, of which the model reads the first. What the other five
send are no pictures: a frame of theirs that is opened becomes a dead letter. CPU is user and system time, and memory
what a worker's resident memory gains from being ready to its peak, beside what its settings allow.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import rig
from bench.growth.feeds import Feed, drives, session_names, stream
from bench.rig import Figure, Report, Rig, Spread
from bench.rig.host import PROGRAM_CORE
from bench.rig.programs import peak_bytes
from streamer.errors import Stop, UsageError
from streamer.events import IMAGE, KIND_NAMES
from streamer.feeds import pace
from streamer.feeds.producer import Producer
from streamer.local.program import without_settings
from streamer.model import pictures
from streamer.model.spec import read_spec
from streamer.settings import MIB, Settings

PROGRAM = Path(__file__).parent / "programs" / "aligning.py"
EVENTS, QUICK_EVENTS = 60_000, 8_000
SESSIONS, MANY_SESSIONS = 16, 1_000
FLAT, NEAR = 1.1, 1.03  # 12 sensors beside 4, and this tree beside the older one
DEFAULT = tuple((name, name) for name in KIND_NAMES)
TWELVE = tuple((f"{name}_{number}", name) for name in KIND_NAMES for number in (1, 2, 3))

CARS, CAR_S, QUICK_CAR_S = 4, 30, 10
FRAME_KB, FRAME_HZ = 50, 10
DECODED = 50
OTHERS = tuple(f"camera_{number}" for number in range(1, 6))
LIMITS = {"fifo_bytes": MIB, "max_open_bytes": 64 * MIB, "max_inflight_bytes": 64 * MIB}


class Load(msgspec.Struct, frozen=True):
    """What a program aligns; ``named``: each record has ``ce_sensor``."""

    sensors: tuple[tuple[str, str], ...]
    sessions: int
    count: int
    named: bool = False


class Aligned(msgspec.Struct, frozen=True):
    """A turn of a program: µs of CPU an event."""

    decode_us: float
    all_us: float
    windows: int


class Side(NamedTuple):
    """A program that takes turns."""

    name: str
    tree: Path
    load: Load


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=9)
    parser.add_argument("--before", type=Path, help="working tree to compare with, with the default sensors")
    parser.add_argument("--events", action="store_true", help="only what needs no Kafka")
    options = rig.parse(parser, arguments)
    if options.before is not None and not (options.before / "streamer" / "__main__.py").is_file():
        raise UsageError(f"{options.before} is no working tree of this project")
    found = list(of_events(options.before, QUICK_EVENTS if options.quick else EVENTS, rig.rounds(options)))
    if not options.events:
        with Rig(options.device) as bench:
            found += of_cameras(bench, QUICK_CAR_S if options.quick else CAR_S, rig.rounds(options))
    rig.finish(Report("sensors", found, notes(options.before)), options)


# events


def of_events(before: Path | None, count: int, rounds: range) -> Iterator[Figure]:
    """What an event takes up to its window."""
    own = {
        "4 sensors": Load(DEFAULT, SESSIONS, count, named=True),
        "12 sensors": Load(TWELVE, SESSIONS, count, named=True),
    }
    both = {
        f"{sessions:,} session{'s'[: sessions > 1]}": Load(DEFAULT, sessions, count)
        for sessions in (1, SESSIONS, MANY_SESSIONS)
    }
    sides = [Side(name, rig.ROOT, load) for name, load in (own | both).items()]
    if before is not None:
        sides += [Side(f"before, {name}", before.resolve(), load) for name, load in both.items()]
    cost = turns(sides, rounds)

    def ratio(name: str, one: str, other: str, aim: float | None = None, part: str = "all_us") -> Figure:
        each = [[getattr(turn, part) for turn in cost[side]] for side in (one, other)]
        return Figure(name, rig.ratios(*each), aim=aim)

    first, *_, many = both
    yield ratio("12 sensors ÷ 4, CPU an event", "12 sensors", "4 sensors", FLAT)
    yield ratio(f"{many} ÷ 1, CPU an event", many, first)
    if before is not None:
        yield ratio(f"before, {many} ÷ 1, CPU an event", f"before, {many}", f"before, {first}")
        for name in both:
            yield ratio(f"now ÷ before, {name}, CPU an event", name, f"before, {name}")
            yield ratio(f"now ÷ before, {name}, decode alone", name, f"before, {name}", part="decode_us")
    for name, each in cost.items():
        yield Figure(f"{name}, CPU an event", Spread.of([turn.all_us for turn in each]), "µs")
        yield Figure(f"{name}, of it decode", Spread.of([turn.decode_us for turn in each]), "µs")


def turns(sides: Sequence[Side], rounds: range) -> dict[str, list[Aligned]]:
    """Let all sides take turns; a first one of each does not count."""
    found: dict[str, list[Aligned]] = {side.name: [] for side in sides}
    with ExitStack() as stack:
        asks = {side.name: stack.enter_context(program(side)) for side in sides}
        for number in (0, *rounds):
            for name, ask in asks.items():
                turn = ask()
                if number:
                    found[name].append(turn)
                    rig.console.log(f"round {number}: {name}: {turn.all_us:.1f} µs, decode {turn.decode_us:.1f} µs")
    return found


@contextmanager
def program(side: Side) -> Iterator[Callable[[], Aligned]]:
    """A program of a tree; what is given makes it take a turn."""
    sensors = {name: {"kind": kind} for name, kind in side.load.sensors if name != kind}
    unused = {kind: {"enabled": False} for kind in KIND_NAMES if (kind, kind) not in side.load.sensors}
    declared = {"STREAMER_SENSORS": json.dumps(sensors | unused)} if sensors else {}
    with subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM), msgspec.json.encode(side.load).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=without_settings() | rig.one_thread(side.tree) | declared,
        cwd=side.tree,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        rig.pin(process.pid, PROGRAM_CORE)
        source, target = process.stdout, process.stdin

        def answer() -> str:
            line = source.readline()
            if not line:
                raise Stop(f"the program that aligns {side.name} ended with code {process.wait()}")
            return line

        def ask() -> Aligned:
            target.write("\n")
            target.flush()
            return msgspec.json.decode(answer(), type=Aligned)

        answer()  # its records are made
        try:
            yield ask
        finally:
            target.close()
            process.kill()


# cameras


def of_cameras(bench: Rig, seconds: int, rounds: range) -> Iterator[Figure]:
    """What five cameras that no input names cost beside one that the model reads."""
    loads = {1: cameras(bench, 1, seconds), 6: cameras(bench, 6, seconds)}
    runs: dict[int, list[rig.Run]] = {count: [] for count in loads}
    gained: list[float] = []
    opened: list[float] = []
    for number in rounds:
        for count, load in loads.items():
            settings = load.fresh()
            with bench.worker_process(settings) as worker:
                ready_bytes = peak_bytes(worker.pid)
                [run] = bench.to_the_end(load, settings, [worker])
                if count > 1:
                    gained.append((run.peak_bytes - ready_bytes) / MIB)
                    opened.append(worker.metric("streamer_dead_letters_total"))
            runs[count].append(run)
            rig.console.log(f"round {number}: {count} cameras: {rig.described(run)}, {run.peak_bytes / MIB:.0f} MiB")
    allowed = sum(LIMITS.values()) + (len(KIND_NAMES) * rig.PARTITIONS - 1) * LIMITS["fifo_bytes"]
    extra_us = [
        1000 * (six.cpu_ms_per_window - one.cpu_ms_per_window) / (len(OTHERS) * FRAME_HZ)
        for six, one in zip(runs[6], runs[1], strict=True)
    ]
    decode_us = [decoding_us() for _ in rounds]
    yield Figure("a frame that no input names ÷ decoding one", rig.ratios(extra_us, decode_us))
    yield Figure("frames opened of cameras that no input names", Spread.of(opened), "frames", aim=0.0)
    ratio = rig.ratios(gained, [allowed / MIB] * len(gained))
    yield Figure("memory gained with six cameras ÷ what the settings allow", ratio, aim=1.0)
    yield Figure("a frame that no input names, CPU", Spread.of(extra_us), "µs")
    yield Figure("decoding a frame, CPU", Spread.of(decode_us), "µs")
    yield Figure("memory gained with six cameras", Spread.of(gained), "MiB")
    for count, each in runs.items():
        name = f"{count} camera{'s'[: count > 1]}, CPU a window"
        yield Figure(name, Spread.of([run.cpu_ms_per_window for run in each]), "ms")


def cameras(bench: Rig, count: int, seconds: int) -> rig.Load:
    """Topics full of cars with so many cameras."""
    feed = Feed(CARS, seconds, frame_hz=FRAME_HZ, frame_kb=FRAME_KB)
    others = OTHERS[: count - 1]
    settings = bench.settings(sensors={name: {"kind": "image"} for name in others}, **LIMITS)
    rig.console.log(f"preloading {CARS} cars with {count} cameras, {seconds} s")
    noise = bytes(FRAME_KB * 1000)
    records = size = 0
    start_us = pace.start_us(0, seconds * 1_000_000, settings.hop_us)
    with Producer(settings) as producer:
        for outgoing in pace.paced(stream(feed, start_us), lambda each: each.due_us, speed=0, flush=producer.flush):
            if outgoing.ce_type is not None:
                producer.flush()  # an end comes after everything that it ends
            sent = [outgoing]
            if outgoing.row == IMAGE and outgoing.ce_type is None:
                sent += [msgspec.structs.replace(outgoing, payload=noise, sensor=name) for name in others]
            for each in sent:
                producer.send(each)
                records, size = records + 1, size + len(each.payload)
    names = dict.fromkeys(session_names(feed))
    return rig.Load(settings, names, CARS * seconds, records, size)  # type: ignore[arg-type]  # of the drives the names


def decoding_us() -> float:
    """CPU to decode a frame of the first camera for models/driving."""
    [frame] = {record.payload for drive in drives(Feed(1, 1, FRAME_HZ, FRAME_KB)) for record in drive[:1]}
    inputs = read_spec(rig.ROOT / "models" / "driving").inputs.image
    assert inputs is not None
    began_s = time.process_time()
    for _ in range(DECODED):
        pictures.decode(frame, "image/jpeg", inputs.height, inputs.width, Settings.load().max_image_pixels)
    return 1e6 * (time.process_time() - began_s) / DECODED


def notes(before: Path | None) -> list[str]:
    """Which tree was compared with."""
    if before is None:
        return []
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=before, capture_output=True, text=True, check=False
    )
    return [f"*before* is commit {found.stdout.strip() or before.name}."]


if __name__ == "__main__":
    rig.run(main)
