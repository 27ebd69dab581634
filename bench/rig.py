"""What benchmarks share: servers and programs on cores of their own, preloaded topics, figures with their spread.

    options = rig.parse(rig.parser(__doc__))          # --quick, --rounds, --device, --record, --out
    with rig.Rig(options.device) as bench:            # Kafka and Redis, pinned to the first core
        load = bench.preload(sessions=8, seconds=100) # simulated drives that end: every window of them closes
        for _ in rig.rounds(options):                 # interleave what is compared: ABAB, never AABB
            before.append(bench.worker(load, tree=old))  # `streamer worker`, pinned to the last core
            after.append(bench.worker(load))
    cost = [[run.cpu_ms_per_window for run in runs] for runs in (after, before)]
    rig.finish(rig.Report("trees", [rig.Figure("after ÷ before, CPU s a window", rig.ratios(*cost))]), options)

What reads a load gets its settings as ``STREAMER_…`` variables (``Settings.load()`` reads them: addresses, topics, a
consumer group and a key prefix that nothing used before), reads the topics from their beginning and puts one entry a
window into the stream ``Keys(settings.key_prefix).results(session)``. It is measured from the moment it is ready until
Redis holds all windows: wall time, and CPU seconds (user and system, of all its threads and children).

A figure is a :class:`Figure`: median and quartiles over rounds. Only ratios of two things that were measured side by
side say something on another day or machine; :func:`finish` compares them, not the absolute figures, with
``bench/history.jsonl``. Runs on Linux; elsewhere nothing is pinned, and the report says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.request import urlopen

import msgspec
import numpy as np
import psutil
import pynvml
import redis
from rich.console import Console

from streamer.broker import topics
from streamer.errors import Stop, StreamerError
from streamer.feeds import pace, simulate
from streamer.feeds.producer import Outgoing, Producer
from streamer.local import Stack, kafka
from streamer.local.process import free_port
from streamer.local.worker import environment
from streamer.settings import Settings
from streamer.store.results import Keys

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "bench" / "history.jsonl"
PAGE = ROOT / "docs" / "benchmarks.md"
DEVICE_PAGE = ROOT / "docs" / "benchmarks-cuda.md"
DEVICE_PAGE_HEAD = "# Benchmarks on CUDA\n\nAs in [benchmarks.md](benchmarks.md), with the model on a device.\n"
PARTITIONS = 4
POLL_S = 0.02
UTILIZATION_EVERY_S = 0.1
READY_WITHIN_S, DONE_WITHIN_S = 120.0, 300.0
IDLE_S = 5.0
LIBRARIES = ("torch", "faust-streaming", "aiokafka", "kafka-python", "redis", "numpy", "simplejpeg")
DRIVES = 4  # distinct ones; more sessions than that repeat them under other names, since drawing frames is slow

console = Console(stderr=True)


# figures


class Spread(msgspec.Struct, frozen=True):
    """Median and quartiles of the rounds."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; quartiles by linear interpolation."""
        low, median, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
        return cls(median, low, high, len(values))

    @property
    def width(self) -> float:
        """Interquartile range."""
        return self.high - self.low

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


class Figure(msgspec.Struct, frozen=True):
    """One measured quantity.

    Attributes:
        unit: Empty for a ratio; ratios alone are compared with the history.
        better: Which way an improvement goes.
        aim: What is wanted; None: the figure is there to be known.
    """

    name: str
    spread: Spread
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    aim: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the aim; None: there is none."""
        if self.aim is None:
            return None
        return self.spread.median <= self.aim if self.better == "lower" else self.spread.median >= self.aim


class Curve(msgspec.Struct, frozen=True):
    """A line in a plot.

    Attributes:
        points: (x, y).
    """

    name: str
    points: Sequence[tuple[float, float]]


class Plot(msgspec.Struct, frozen=True):
    """A picture beside the table, ``NAME.png``."""

    name: str
    x: str
    y: str
    curves: Sequence[Curve]
    x_scale: Literal["linear", "log"] = "linear"


class Report(msgspec.Struct, frozen=True):
    """What a benchmark found.

    Attributes:
        name: Of the benchmark, as in ``python -m bench.NAME``.
        notes: Sentences for the page: how much was run.
    """

    name: str
    figures: Sequence[Figure]
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()


def ratios(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Spread of the ratios of rounds that ran side by side."""
    return Spread.of([value / base for value, base in zip(values, reference, strict=True)])


def regression(now: Figure, before: Spread) -> str | None:
    """One line if a ratio has become worse than it was by more than its spread; None: it has not.

    The spread is the wider of the two interquartile ranges.
    """
    worse_by = now.spread.median - before.median
    if now.better == "higher":
        worse_by = -worse_by
    spread = max(now.spread.width, before.width)
    if worse_by <= spread:
        return None
    return (
        f"{now.name}: {now.spread.median:.3g}, was {before.median:.3g}, worse by more than the spread of {spread:.2g}"
    )


def table(figures: Sequence[Figure]) -> str:
    """Markdown: name, median and quartiles, aim."""
    rows = ["| | median (quartiles) | aim |", "|---|---|---|"]
    for figure in figures:
        sign = "≤" if figure.better == "lower" else "≥"
        missed = ", missed" if figure.reached is False else ""
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}{missed}"
        rows.append(f"| {figure.name} | {figure.spread}{' ' + figure.unit if figure.unit else ''} | {aim} |")
    return "\n".join(rows)


# the end of a benchmark


def parser(doc: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="less of everything: to see that it runs, not for figures")
    made.add_argument("--rounds", type=int, help=f"repetitions, interleaved ({rounds}; with --quick 1)")
    made.add_argument("--device", default="cpu", help="where the model runs, if one does: cpu, cuda, cuda:1 (cpu)")
    made.add_argument(
        "--record",
        action="store_true",
        help="add a line to bench/history.jsonl and write docs/benchmarks.md, or benchmarks-cuda.md",
    )
    made.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder for JSON, tables and plots")
    made.set_defaults(usual_rounds=rounds)
    return made


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options with the number of rounds filled in."""
    options = made.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 1 if options.quick else options.usual_rounds
    if options.rounds < 1:
        made.error(f"--rounds is 1 or more, not {options.rounds}")
    if options.device != "cpu" and not device_name(options.device):
        made.error(f"--device: PyTorch finds no {options.device} here")
    return options


def rounds(options: argparse.Namespace) -> range:
    """Numbers of the rounds."""
    return range(1, options.rounds + 1)


def run(main: Callable[[], None]) -> None:
    """A benchmark as a program: what goes wrong is one line and exit code 1."""
    try:
        main()
    except StreamerError as error:
        sys.exit(f"bench: {error}")


def finish(report: Report, options: argparse.Namespace) -> None:
    """Print the table, write JSON, Markdown and plots, compare with the history, and record if that is wanted."""
    line = _line(report, options)
    text = "\n".join([*report.notes, "", table(report.figures)]).strip()
    print(f"{report.name}\n\n{text}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{report.name}.json").write_text(json.dumps(line, indent=2, ensure_ascii=False) + "\n")
    (options.out / f"{report.name}.md").write_text(text + "\n")
    for plot in report.plots:
        _draw(plot, options.out / f"{plot.name}.png")
    for warning in regressions(report, _last_line(report.name, line)):
        print(f"REGRESSION {warning}")
    if options.record:
        _record(report, line, text)


def regressions(report: Report, before: Mapping[str, Any] | None) -> list[str]:
    """Of the ratios of a report against a line of the history."""
    known = before["figures"] if before is not None else {}
    return [
        warning
        for figure in report.figures
        if not figure.unit and figure.name in known
        if (warning := regression(figure, msgspec.convert(known[figure.name]["spread"], Spread))) is not None
    ]


def _line(report: Report, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "benchmark": report.name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m", f"bench.{report.name}", *sys.argv[1:]]),
        "quick": options.quick,
        "machine": machine(options.device),
        "versions": versions(),
        "notes": list(report.notes),
        "figures": {figure.name: msgspec.to_builtins(figure) for figure in report.figures},
        "plots": msgspec.to_builtins(report.plots),
    }


def _last_line(name: str, like: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest line of the history of this benchmark, of the same size on the same kind of machine."""
    if not HISTORY.exists():
        return None
    lines = [json.loads(text) for text in HISTORY.read_text().splitlines()]
    same = [e for e in lines if e["benchmark"] == name and all(e[key] == like[key] for key in ("quick", "machine"))]
    return same[-1] if same else None


def _record(report: Report, line: Mapping[str, Any], text: str) -> None:
    for plot in report.plots:
        picture = PAGE.parent / "benchmarks" / f"{plot.name}{'-cuda' if 'device' in line['machine'] else ''}.png"
        picture.parent.mkdir(exist_ok=True)
        _draw(plot, picture)
        text += f"\n\n![{plot.y} over {plot.x}](benchmarks/{picture.name})"
    where, what = line["machine"], line["versions"]
    on = f"{where['cores']} × {where['cpu']}, {where['pinned']}; " + ", ".join(f"{k} {v}" for k, v in what.items())
    if "device" in where:
        on = f"{where['device']}, {on}"
        page, old = DEVICE_PAGE, DEVICE_PAGE.read_text() if DEVICE_PAGE.exists() else DEVICE_PAGE_HEAD
        if _markers(report.name)[0] not in old:
            old += "\n".join(("", f"## {report.name}", "", *_markers(report.name), ""))
    else:
        page, old = PAGE, PAGE.read_text()
    page.write_text(between(old, report.name, f"`{line['command']}`, {line['at']}: {on}.\n\n{text}"))
    with HISTORY.open("a") as file:
        file.write(json.dumps({**line, "plots": []}, ensure_ascii=False) + "\n")


def between(page: str, name: str, text: str) -> str:
    """The page with other text between the markers of a benchmark.

    Raises:
        Stop: The page has no such markers.
    """
    begin, end = _markers(name)
    if begin not in page or end not in page:
        raise Stop(f"{PAGE} has no markers {begin} and {end} to write between")
    head, rest = page.split(begin, 1)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by the script -->", f"<!-- {name}: end -->"


def _draw(plot: Plot, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for curve in plot.curves:
        axes.plot(*zip(*curve.points, strict=True), marker="o", label=curve.name)
    axes.set(xlabel=plot.x, ylabel=plot.y, xscale=plot.x_scale)
    axes.set_ylim(0, 1.05 * max(y for curve in plot.curves for _, y in curve.points))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures depend on: CPU model, cores that this process may use, whether programs are pinned; a device."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line[:10] == "model name"]
        cpu = models[0] if models else cpu
    cores = _cores()
    return {
        "cpu": cpu,
        "cores": len(cores),
        "pinned": f"cores {cores[0]} and {cores[-1]}" if can_pin() else "not pinned",
    } | ({} if device == "cpu" else {"device": device_name(device)})


def device_name(device: str) -> str | None:
    """What the vendor calls a CUDA device; None: there is none of that name."""
    import torch

    try:
        return torch.cuda.get_device_name(device)
    except (AssertionError, RuntimeError, ValueError):  # PyTorch without CUDA, no driver or device, no device's name
        return None


def versions() -> dict[str, str]:
    """Of the code, Python, Kafka and the libraries that matter."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "streamer": commit.stdout.strip() or importlib.metadata.version("streamer"),
        "Python": platform.python_version(),
        "Kafka": kafka.VERSION,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


class Utilization:
    """The share of a block's time in which a CUDA device was busy, as NVML samples it.

    Attributes:
        mean: Of the samples, 0 to 1; None on a CPU, and before the end of the block.
    """

    def __init__(self, device: str) -> None:
        self.mean: float | None = None
        self._device = device
        self._end = threading.Event()
        self._percent: list[int] = []
        self._error: pynvml.NVMLError | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Utilization:
        if self._device != "cpu":
            import torch

            from streamer.model.predictor import device_uuid

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(device_uuid(torch.device(self._device)))
            self._thread = threading.Thread(target=self._sample, args=(handle,))
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            if self._error is not None:
                raise Stop(f"NVML does not tell how busy {self._device} is: {self._error}")
            self.mean = float(np.mean(self._percent)) / 100

    def _sample(self, handle: Any) -> None:
        try:
            while not self._percent or not self._end.wait(UTILIZATION_EVERY_S):
                self._percent.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except pynvml.NVMLError as error:
            self._error = error


# cores and processes


def can_pin() -> bool:
    """Whether this system lets a process choose its cores."""
    return hasattr(os, "sched_setaffinity")


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if can_pin() else list(range(os.cpu_count() or 1))


SERVERS_CORE, PROGRAM_CORE = _cores()[0], _cores()[-1]


def pin(pid: int, core: int) -> None:
    """Let all threads of a process run on one core alone; those that it starts later inherit that."""
    if can_pin():
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(task.name), {core})


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, which live."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def kill(processes: Iterable[psutil.Process]) -> None:
    """``kill -9`` for all of them."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # some end when their parent does
            process.kill()


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, its threads and its children."""
    spent = [process.cpu_times() for process in family(pid)]
    return float(sum(times.user + times.system for times in spent))


def idle_cores(pid: int) -> float:
    """Share of a core that a process takes while nothing comes, looked at for ``IDLE_S``."""
    began_s, spent_s = time.monotonic(), cpu_s(pid)
    time.sleep(IDLE_S)
    return (cpu_s(pid) - spent_s) / (time.monotonic() - began_s)


def peak_bytes(pid: int) -> int:
    """The most memory that a process had resident (``VmHWM``, proc_pid_status(5)); not on Linux: what it has now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return int(psutil.Process(pid).memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def one_thread(tree: Path = ROOT) -> dict[str, str]:
    """Variables that keep numeric libraries to one thread, and let a program find a working tree."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(tree)}


class Program:
    """A program on one core, with its log in a file; gone after the ``with`` block.

    Args:
        command: Its arguments.
        env: Added to the environment, without any ``STREAMER_…`` of this process.
        log: Overwritten.
        core: The last one, which nothing else of the rig uses, unless it belongs to the servers' side. None: any.
        cwd: Where it runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        core: int | None = PROGRAM_CORE,
        cwd: Path = ROOT,
    ) -> None:
        self.log = log
        # Bytecode is kept from one start for the next, as everywhere where nobody forbids it.
        left_out = ("STREAMER_", "PYTHONDONTWRITEBYTECODE")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=plain | one_thread() | dict(env), stdout=out, stderr=subprocess.STDOUT
            )
        if core is not None:
            pin(self.pid, core)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        # What it started is to be gone as well, before the next program is timed.
        started = family(self.pid)[1:] if self._process.poll() is None else []
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        kill(started)

    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Poll until something is so.

        Raises:
            Stop: The program has ended, or it is still not so after that many seconds; with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while not condition():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                why = f"ended with code {code}" if code is not None else f"took longer than {within_s:.0f} s"
                tail = "\n".join(self.text().splitlines()[-20:])
                raise Stop(f"waiting for {what}, the program {why}; the end of {self.log}:\n{tail}")
            time.sleep(POLL_S)

    def wait_end(self, within_s: float = DONE_WITHIN_S) -> str:
        """Wait until it has ended well; returns its log.

        Raises:
            Stop: It failed or took longer.
        """
        self.wait_for(lambda: self._process.poll() == 0, within_s, "its end")
        return self.text()


def says_ready(program: Program) -> bool:
    """A line ``ready`` in its log."""
    return "ready" in program.text().splitlines()


# servers and loads


class Load(msgspec.Struct, frozen=True):
    """What lies in preloaded topics.

    Attributes:
        settings: With its topics; group and key prefix are replaced for every run.
        drives: Sent drives, by the sessions' names.
        windows: Results that a reader of all of it owes.
        records, payload_bytes: What lies in the topics.
    """

    settings: Settings
    drives: Mapping[str, simulate.Drive]
    windows: int
    records: int
    payload_bytes: int

    def fresh(self) -> Settings:
        """Settings of a reader that begins at the topics' beginning and writes under keys of its own."""
        name = f"b{uuid.uuid4().hex[:8]}"
        return self.settings.model_copy(update={"group": name, "key_prefix": name})


class Run(msgspec.Struct, frozen=True):
    """What a program needed for the windows of a load, from ready to the last result.

    Attributes:
        peak_bytes: The most memory that it ever had resident; 0: nobody looked.
        device_busy: Share of the time in which the device ran; None: there is none.
    """

    windows: int
    wall_s: float
    cpu_s: float
    peak_bytes: int = 0
    device_busy: float | None = None

    @property
    def windows_per_s(self) -> float:
        return self.windows / self.wall_s

    @property
    def cpu_ms_per_window(self) -> float:
        return 1000 * self.cpu_s / self.windows


class Bare(Run, frozen=True, kw_only=True):
    """Decoding and inference alone.

    Attributes:
        predict_cpu_s: What the model needed of the CPU time.
    """

    predict_cpu_s: float


def described(run: Run) -> str:
    """For progress."""
    busy = "" if run.device_busy is None else f", device busy {run.device_busy:.0%}"
    return f"{run.windows_per_s:.0f} windows/s, {run.cpu_ms_per_window:.2f} ms CPU{busy}"


def busy(named: Mapping[str, Sequence[Run]]) -> list[Figure]:
    """How busy the device was in runs by their names; nothing on a CPU."""
    return [
        Figure(f"{name}, share of the time in which the device was busy", Spread.of(shares), better="higher")
        for name, runs in named.items()
        if (shares := [run.device_busy for run in runs if run.device_busy is not None])
    ]


def published(client: redis.Redis, settings: Settings, sessions: Sequence[str]) -> int:
    """Results in Redis now."""
    keys = Keys(settings.key_prefix)
    with client.pipeline(transaction=False) as pipe:
        for session in sessions:
            pipe.xlen(keys.results(session))
        return sum(pipe.execute())


class Rig:
    """A Kafka and a Redis of its own, pinned to the first core; this process too, which only waits.

    Args:
        device: Where models run.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self._folder.name)
        self.stack = Stack(self.folder, 8 << 20)

    def __enter__(self) -> Rig:
        console.log("starting Kafka and Redis")
        self._before = _cores()
        try:
            pin(os.getpid(), SERVERS_CORE)
            self.stack.__enter__()
        except BaseException:
            self._folder.cleanup()
            raise
        for daemon in (self.stack.kafka, self.stack.redis):
            if daemon.process is not None:
                pin(daemon.process.pid, SERVERS_CORE)
        self.redis = redis.Redis.from_url(self.stack.redis_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.redis.close()
        self.stack.stop()
        self._folder.cleanup()
        if can_pin():
            os.sched_setaffinity(0, self._before)

    def settings(self, **given: Any) -> Settings:
        """Settings for these servers, with topics, group and keys that nothing else has; the topics exist."""
        name = f"b{uuid.uuid4().hex[:8]}"
        values = {"partitions": PARTITIONS, "model": ROOT / "models" / "driving", "device": self.device, **given}
        own = {"topic_prefix": name, "group": name, "key_prefix": name}
        settings = Settings.load(**self.stack.addresses, **own, **values)
        topics.create(settings)
        return settings

    def preload(self, sessions: int, seconds: int, *, seed: int = 7, **given: Any) -> Load:
        """Topics full of simulated drives that have ended, so that every window of them closes.

        Args:
            sessions: Cars.
            seconds: Length of each drive, s; as many windows of 1 s.
            given: Settings.
        """
        settings = self.settings(**given)
        console.log(f"preloading {sessions} drives of {seconds} s")
        drives, stream = drives_of(sessions, seconds, seed)
        records = payload_bytes = 0

        def count(outgoing: Outgoing) -> None:
            nonlocal records, payload_bytes
            records += 1
            payload_bytes += len(outgoing.payload)

        with Producer(settings) as producer:
            pace.send(stream, producer, speed=0, on_sent=count)
        return Load(settings, drives, sessions * seconds, records, payload_bytes)

    def _to_the_end(self, load: Load, settings: Settings, programs: Sequence[Program]) -> list[Run]:
        """Wait until programs that are ready have published a load under the key prefix of the settings.

        Returns:
            One a program, each with the windows and the time of all, and its own CPU and memory.

        Raises:
            Stop: The first program ends, or not all windows come in time, or all came before the clock began.
        """
        sessions = list(load.drives)
        with Utilization(self.device) as busy:
            began_s, spent_s = time.monotonic(), [cpu_s(program.pid) for program in programs]
            before = published(self.redis, settings, sessions)  # between their being ready and our seeing it
            programs[0].wait_for(
                lambda: published(self.redis, settings, sessions) >= load.windows, DONE_WITHIN_S, "all windows"
            )
            wall_s = time.monotonic() - began_s
            if before >= load.windows:
                raise Stop(f"all {before} windows were published before they could be timed: it takes more of them")
            measured = [
                (cpu_s(program.pid) - spent, peak_bytes(program.pid))
                for program, spent in zip(programs, spent_s, strict=True)
            ]
        return [Run(load.windows - before, wall_s, cpu, peak, busy.mean) for cpu, peak in measured]

    @contextmanager
    def worker_processes(self, each: Sequence[Settings], tree: Path = ROOT) -> Iterator[list[tuple[Program, str]]]:
        """A ``streamer worker`` for each settings, all ready, with the addresses of their probes, for the block."""
        with ExitStack() as stack:
            started = []
            for number, settings in enumerate(each):
                address = f"http://127.0.0.1:{free_port()}"
                env = environment(settings) | one_thread(tree) | {"STREAMER_PORT": address.rsplit(":", 1)[1]}
                log = self.folder / f"worker-{number}.log"
                program = Program([sys.executable, "-m", "streamer", "worker"], env, log, cwd=tree)
                started.append((stack.enter_context(program), address))
            for program, address in started:
                program.wait_for(partial(answers, f"{address}/readyz"), READY_WITHIN_S, "ready")
            yield started

    @contextmanager
    def worker_process(self, settings: Settings, tree: Path = ROOT) -> Iterator[tuple[Program, str]]:
        """One of :meth:`worker_processes`."""
        with self.worker_processes([settings], tree) as [worker]:
            yield worker

    def together(self, load: Load, each: Sequence[Settings]) -> Sequence[Run]:
        """Let several workers read a load to its end, on one core, from the moment when all are ready.

        Args:
            each: Of a worker each; all have the key prefix of the first.

        Returns:
            One a worker: see :meth:`_to_the_end`.

        Raises:
            Stop: One fails, or they do not publish all windows in time.
        """
        with self.worker_processes(each) as workers:
            return self._to_the_end(load, each[0], [program for program, _ in workers])

    def worker(
        self,
        load: Load,
        settings: Settings | None = None,
        at_end: Callable[[str], None] = lambda address: None,
        tree: Path = ROOT,
    ) -> Run:
        """Let a ``streamer worker`` read a load to its end.

        Args:
            settings: Of the load, with changes (``load.fresh()`` and then ``model_copy``); None: as preloaded.
            at_end: Gets the address of its metrics before it is stopped.
            tree: Working tree of the worker.

        Raises:
            Stop: It fails, or does not publish all windows in time.
        """
        settings = load.fresh() if settings is None else settings
        with self.worker_process(settings, tree) as (program, address):
            [run] = self._to_the_end(load, settings, [program])
            at_end(address)
            return run


def drives_of(sessions: int, seconds: int, seed: int) -> tuple[dict[str, simulate.Drive], Iterator[Outgoing]]:
    """Drives by the sessions' names, and all their records in the order in which they are due.

    There are ``DRIVES`` distinct ones, which the sessions share: every session has its own records all the same.
    """
    start_us = pace.start_us(0, seconds * simulate.S_US, simulate.S_US)
    distinct = simulate.fleet(min(DRIVES, sessions), seconds, seed, start_us, "bench")
    names = [f"car-{number}" for number in range(sessions)]

    def stream() -> Iterator[Outgoing]:
        for outgoing in simulate.outgoing(distinct):
            first = int(outgoing.session.rsplit("-", 1)[1])
            for name in names[first :: len(distinct)]:
                yield msgspec.structs.replace(outgoing, session=name)

    return {name: distinct[number % len(distinct)] for number, name in enumerate(names)}, stream()


def metric(address: str, name: str) -> float:
    """Sum of all samples of a metric of a worker."""
    with urlopen(f"{address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def answers(url: str) -> bool:
    """Whether an HTTP server says 200 there."""
    try:
        with urlopen(url, timeout=2):
            return True
    except OSError:
        return False
