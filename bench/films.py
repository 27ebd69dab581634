"""What sending a film costs: ``streamer replay --speed 0`` of this tree beside that of another working tree.

    python -m bench.films --before ../before                 # ten minutes of 1080p30 with sound, made here
    python -m bench.films --before ../before --minutes 1

Commit 3f92e7f has no ``--rate``: it sends all pictures. For a fair comparison it also runs with a change that lets it
send the same ones: it decodes all, and encodes every third. The program has a core to itself, beside Kafka's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import msgspec
import numpy as np

from bench import rig
from bench.rig import Figure, Report, Rig, Spread
from streamer.clients import kafka as kafka_clients
from streamer.errors import Stop, UsageError
from streamer.local.program import without_settings
from streamer.local.worker import environment
from streamer.settings import MIB, Settings

WIDTH, HEIGHT, FRAME_HZ, RATE_HZ = 1920, 1080, 30, 10
SOUND_HZ, SCENE_S = 48_000, 8  # a scene is made once and repeated: a whole number of AAC frames
MINUTES, QUICK_MINUTES = 10.0, 0.5
SHORT = 4  # the short film is a quarter as long
AAC_FRAME = 1024  # samples
ADMIN_MS = 30_000
WALL, PEAK = 0.6, 1.1  # the aims
COMMAND = "import runpy; runpy.run_module('streamer', run_name='__main__')"
# of commit 3f92e7f: pictures that are not sent become empty, and empty ones are not sent
THINNED = f"""
from itertools import count
from streamer.feeds.replay import media
encode, frames, numbers = media.Jpeg.__call__, media._frames, count()
media.Jpeg.__call__ = lambda self, picture: b"" if next(numbers) % {FRAME_HZ // RATE_HZ} else encode(self, picture)
media._frames = lambda *given: (record for record in frames(*given) if record.payload)
"""


class Side(NamedTuple):
    """One of those that are compared.

    Attributes:
        before: Python to run before the command.
    """

    name: str
    tree: Path
    film: Path
    options: Sequence[str] = ()
    before: str = ""


class Sent(msgspec.Struct, frozen=True):
    """What sending a film took."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=3)
    parser.add_argument("--before", type=Path, required=True, help="working tree to compare with")
    parser.add_argument("--minutes", type=float, help=f"length of the film ({MINUTES:g}; with --quick {QUICK_MINUTES})")
    options = rig.parse(parser, arguments)
    if not (options.before / "streamer" / "__main__.py").is_file():
        raise UsageError(f"{options.before} is no working tree of this project")
    minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    with Rig(options.device) as bench:
        rig.console.log(f"making a film of {minutes:g} minutes")
        film = made(bench.folder / "film.mp4", round(minutes * 60))
        short = made(bench.folder / "short.mp4", round(minutes * 60 / SHORT))
        sides = sides_of(options.before.resolve(), film, short)
        found: dict[str, list[Sent]] = {side.name: [] for side in sides}
        for number in rig.rounds(options):
            for side in sides:
                run = sent(bench, side)
                found[side.name].append(run)
                what = f"{run.wall_s:.1f} s, CPU {run.cpu_s:.1f} s, {run.peak_bytes / MIB:.0f} MiB"
                rig.console.log(f"round {number}: {side.name}: {what}")
    note = f"A film of {minutes:g} minutes, {WIDTH} × {HEIGHT} at {FRAME_HZ} Hz with sound, on one core beside Kafka's."
    rig.finish(Report("films", figures(found), [note]), options)


def sides_of(before: Path, film: Path, short: Path) -> list[Side]:
    """What is compared; the tree before is thinned if it is one whose inside is known."""
    rate = ("--rate", str(RATE_HZ))
    sides = [Side("before", before, film), Side("at a rate", rig.ROOT, film, rate), Side("all", rig.ROOT, film)]
    if (before / "streamer" / "feeds" / "replay" / "media.py").is_file():
        sides.append(Side("before, thinned", before, film, before=THINNED))
    return [*sides, Side("short", rig.ROOT, short, rate)]


def made(path: Path, seconds: int) -> Path:
    """A film with sound, H.264 with B-frames and AAC, of a scene of a few seconds again and again."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 200, (HEIGHT // 40, WIDTH // 40, 3)).astype(np.uint8).repeat(40, 0).repeat(40, 1)
    scene = coarse + rng.integers(0, 24, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    count = FRAME_HZ * SCENE_S
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_HZ, options={"preset": "veryfast", "bf": "3", "g": "60"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.time_base = Fraction(1, FRAME_HZ)
        pictures = []
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(np.roll(scene, (number, 3 * number), (0, 1)), "rgb24")
            picture.pts = number
            pictures += video.encode(picture)
        pictures += video.encode()
        sound = container.add_stream("aac", rate=SOUND_HZ, layout="mono")
        tone = av.AudioFrame.from_ndarray(
            (np.sin(np.arange(SOUND_HZ * SCENE_S) / 9) * 9000).astype(np.int16)[None], "s16", "mono"
        )
        tone.sample_rate, tone.pts = SOUND_HZ, 0
        heard = [*sound.encode(tone), *sound.encode()][: SOUND_HZ * SCENE_S // AAC_FRAME]
        for again in range(-(-seconds // SCENE_S)):
            for packets, tick in ((pictures, Fraction(1, FRAME_HZ)), (heard, Fraction(1, SOUND_HZ))):
                for packet in packets:
                    copy = av.Packet(bytes(packet))
                    copy.stream, copy.time_base, copy.duration = packet.stream, tick, packet.duration
                    shift = int(again * SCENE_S / tick)
                    copy.pts, copy.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                    copy.is_keyframe = packet.is_keyframe
                    container.mux(copy)
    return path


def sent(bench: Rig, side: Side) -> Sent:
    """Send a film to topics that are deleted afterwards.

    Raises:
        Stop: The command failed.
    """
    settings = bench.settings()
    log = bench.folder / "replay.log"
    env: Mapping[str, str] = without_settings() | environment(settings) | rig.one_thread(side.tree)
    code = f"{side.before}\n{COMMAND}"
    own = side.tree / ".venv" / "bin" / "python"  # another commit may need other packages
    python = str(own) if own.is_file() else sys.executable
    command = [python, "-c", code, "replay", str(side.film), "--speed", "0", "--session", "a", *side.options]
    began_s = time.perf_counter()
    with log.open("w") as said, subprocess.Popen(command, cwd=side.tree, env=env, stdout=said, stderr=said) as process:
        rig.pin(process.pid, rig.PROGRAM_CORE)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    took_s = time.perf_counter() - began_s
    if process.returncode:
        raise Stop(f"replay of {side.tree} ended with code {process.returncode}: {log.read_text().strip()[-500:]}")
    emptied(settings)
    return Sent(took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def emptied(settings: Settings) -> None:
    """Delete the topics of a run: gigabytes."""
    with kafka_clients.admin(settings, ADMIN_MS) as admin:
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(settings.topic_prefix)])


def figures(found: Mapping[str, Sequence[Sent]]) -> list[Figure]:
    """Ratios first, then what they are of."""
    walls = {name: [run.wall_s for run in runs] for name, runs in found.items()}
    cpu = {name: [run.cpu_s for run in runs] for name, runs in found.items()}
    peaks = {name: [run.peak_bytes / MIB for run in runs] for name, runs in found.items()}
    rate = f"`--rate {RATE_HZ}`"
    shown = [
        Figure(
            f"{rate} ÷ before, which sends all pictures, wall",
            rig.ratios(walls["at a rate"], walls["before"]),
            aim=WALL,
        ),
        Figure(f"{rate} ÷ before, which sends all pictures, CPU", rig.ratios(cpu["at a rate"], cpu["before"])),
        Figure("all pictures ÷ before, wall", rig.ratios(walls["all"], walls["before"])),
        Figure(
            f"{rate}, peak memory ÷ of a film of a quarter", rig.ratios(peaks["at a rate"], peaks["short"]), aim=PEAK
        ),
    ]
    if "before, thinned" in walls:
        for what, took in (("CPU", cpu), ("wall", walls)):
            ratio = rig.ratios(took["at a rate"], took["before, thinned"])
            shown.insert(2, Figure(f"{rate} ÷ before, thinned to the same pictures, {what}", ratio))
    for name in found:
        shown.append(Figure(f"{name}, wall", Spread.of(walls[name]), "s"))
        shown.append(Figure(f"{name}, CPU", Spread.of(cpu[name]), "s"))
        shown.append(Figure(f"{name}, peak memory", Spread.of(peaks[name]), "MiB"))
    return shown


if __name__ == "__main__":
    rig.run(main)
