"""``streamer capture`` of four cameras beside PyAV alone: decoding every picture, with a JPEG of each and without.

    python -m bench.capture --data ../shared/data

Four RTSP cameras of 1280 × 720 at 25 Hz show ten seconds of a drive again and again, H.264 at 3 Mbit/s, from a process
beside Kafka's. ``streamer capture --rate 10`` has the other core to itself. Two encoders: *IP camera*, each picture of
which refers to the one before, and *B-pictures* (up to three between two others), to some of which no other refers. CPU
of user and system while all four are there and what came at the start is done with, in turns; delay: from the time of a
picture until the broker has appended it. An IP camera sends a picture at once; an encoder of B-pictures holds them,
which is part of its delay here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.video.frame import PictureType
from kafka import TopicPartition

from bench import rig
from bench.programs.watching import DECODED
from bench.rig import Figure, Report, Rig, Spread
from streamer.clients import kafka as kafka_clients
from streamer.events import IMAGE
from streamer.local.worker import WorkerProcess
from streamer.settings import Settings

WIDTH, HEIGHT, HZ, RATE_HZ, CAMERAS = 1280, 720, 25, 10, 4
FILM_S, BITS_A_SECOND = 10, 3_000_000
WATCH_S, QUICK_S, SETTLE_S = 20.0, 6.0, 8.0
ENCODERS = {
    "IP camera": {"preset": "veryfast", "tune": "zerolatency", "g": "50"},
    "B-pictures": {"preset": "veryfast", "bf": "3", "g": "50"},
}
CORES_AIM, RATIO_AIM, DELAY_AIM_MS = 1.0, 0.5, 50.0


class Captured(NamedTuple):
    """What one run took: CPU seconds a second, and how long each picture was on its way, ms."""

    cores: float
    delays_ms: list[float]
    a_second: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=rig.ROOT.parent / "shared" / "data", help="folder of recordings")
    options = rig.parse(parser, arguments)
    seconds = QUICK_S if options.quick else WATCH_S
    figures: list[Figure] = []
    with Rig() as bench:
        for name, encoder in ENCODERS.items():
            film = made(options.data / "driving" / "solidWhiteRight.mp4", bench.folder / f"{name}.ts", encoder)
            command = [sys.executable, "-m", "bench.programs.rtsp", str(film), str(CAMERAS)]
            with rig.started(command, {}, bench.folder / "cameras.log", rig.SERVERS_CORE) as cameras:
                cameras.wait_for(lambda: rig.says_ready(cameras), rig.READY_WITHIN_S, "listen")
                addresses = [line for line in cameras.text().splitlines() if line.startswith("rtsp://")]
                ours: list[Captured] = []
                alone: list[float] = []
                decoded: list[float] = []
                for number in rig.rounds(options):
                    ours.append(captured(bench, addresses, seconds))
                    alone.append(watched(bench, addresses, seconds))
                    decoded.append(watched(bench, [DECODED, *addresses], seconds))
                    rig.console.log(f"round {number}, {name}: {ours[-1].cores:.2f} cores, PyAV {alone[-1]:.2f}")
            figures += figures_of(name, ours, alone, decoded)
    rig.finish(Report("capture", figures), options)


def figures_of(name: str, ours: Sequence[Captured], alone: Sequence[float], decoded: Sequence[float]) -> list[Figure]:
    """What is reported of one kind of camera."""
    cores = [run.cores for run in ours]
    delays_ms = [delay for run in ours for delay in run.delays_ms]
    return [
        Figure(f"{name}: capture ÷ decoding and encoding all, CPU", rig.ratios(cores, alone), aim=RATIO_AIM),
        Figure(f"{name}: decoding all ÷ decoding and encoding all, CPU", rig.ratios(decoded, alone)),
        Figure(f"{name}: cores for {CAMERAS} cameras", Spread.of(cores), aim=CORES_AIM),
        Figure(f"{name}: pictures a second of each", Spread.of([run.a_second for run in ours])),
        Figure(f"{name}: delay", Spread.of(delays_ms), "ms", aim=DELAY_AIM_MS),
    ]


def made(source: Path, path: Path, encoder: dict[str, str]) -> Path:
    """Ten seconds of a drive as an encoder writes them, from a key frame on."""
    with av.open(str(source)) as read, av.open(str(path), "w", format="mpegts") as container:
        stream: Any = container.add_stream("libx264", rate=HZ, options=encoder)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BITS_A_SECOND
        for number, picture in zip(range(FILM_S * HZ), read.decode(video=0), strict=False):
            shown = picture.reformat(WIDTH, HEIGHT, "yuv420p")
            shown.pts, shown.time_base = number, Fraction(1, HZ)
            shown.pict_type = PictureType.NONE  # else the encoder would repeat the choices of the film's
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return path


def captured(bench: Rig, addresses: Sequence[str], seconds: float) -> Captured:
    """Capture all cameras for a while, into topics that are deleted afterwards."""
    names = [f"camera_{number}" for number in range(1, CAMERAS + 1)]
    settings = bench.settings(sensors={name: {"kind": "image"} for name in names})
    pairs = [part for number, name in enumerate(names, 1) for part in ("--as", f"{number}={name}")]
    arguments = [*addresses, "--session", "bench", "--rate", str(RATE_HZ), *pairs]
    log = bench.folder / "capture.log"
    with WorkerProcess(settings, log, rig.one_thread(), rig.ROOT, "capture", arguments) as process:
        rig.pin(process.pid, rig.PROGRAM_CORE)
        process.wait_ready(rig.READY_WITHIN_S)
        process.wait_for(
            lambda: process.metric("streamer_capture_connected") == CAMERAS, rig.READY_WITHIN_S, "see all cameras"
        )
        time.sleep(SETTLE_S)
        begun_s, spent_s = time.time(), rig.cpu_s(process)
        time.sleep(seconds)
        took_s, spent_s = time.time() - begun_s, rig.cpu_s(process) - spent_s
    found = delays_ms(settings, begun_s, begun_s + took_s)
    with kafka_clients.admin(settings, kafka_clients.TIMEOUT_MS) as admin:
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(settings.topic_prefix)])
    return Captured(spent_s / took_s, found, len(found) / took_s / CAMERAS)


def delays_ms(settings: Settings, begin_s: float, end_s: float) -> list[float]:
    """From the time of each picture of a stretch until the broker appended it."""
    topic, found = settings.source_topics[IMAGE], list[float]()
    consumer = kafka_clients.consumer(settings)
    try:
        tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(tps)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(tps)
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for batch in consumer.poll(timeout_ms=200).values():
                for one in batch:
                    taken_s = datetime.fromisoformat(dict(one.headers)["ce_time"].decode()).timestamp()
                    if begin_s <= taken_s < end_s:
                        found.append(one.timestamp - taken_s * 1000)
        return found
    finally:
        consumer.close()


def watched(bench: Rig, arguments: Sequence[str], seconds: float) -> float:
    """Cores that PyAV alone needs to decode every picture and make a JPEG of each, as the program is told."""
    command = [sys.executable, "-m", "bench.programs.watching", *arguments]
    with rig.started(command, {}, bench.folder / "watching.log") as program:
        program.wait_for(lambda: rig.says_ready(program), rig.READY_WITHIN_S, "begin")
        time.sleep(SETTLE_S)
        begun_s, spent_s = time.time(), rig.cpu_s(program)
        time.sleep(seconds)
        return (rig.cpu_s(program) - spent_s) / (time.time() - begun_s)


if __name__ == "__main__":
    rig.run(main)
