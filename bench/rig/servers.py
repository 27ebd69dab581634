"""Servers, topics full of records, and workers that read them."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import redis

from bench.rig.figures import Figure, Spread
from bench.rig.host import PROGRAM_CORE, ROOT, SERVERS_CORE, Utilization, can_pin, own_cores, pin
from bench.rig.options import console
from bench.rig.programs import DONE_WITHIN_S, READY_WITHIN_S, cpu_s, one_thread, peak_bytes
from streamer.broker import topics
from streamer.errors import Stop
from streamer.feeds import pace, simulate
from streamer.feeds.producer import Outgoing, Producer
from streamer.local.program import Program
from streamer.local.stack import Stack
from streamer.local.worker import WorkerProcess
from streamer.settings import Settings
from streamer.store.results import Keys

PARTITIONS = 4
DRIVES = 4  # distinct ones; more sessions than that repeat them under other names, since drawing frames is slow


class Load(msgspec.Struct, frozen=True):
    """What preloaded topics hold.

    Attributes:
        settings: With its topics; group and key prefix are replaced for every run.
        drives: Sent drives, by the sessions' names.
        windows: Results that a reader of all of it must publish.
        records, payload_bytes: In the topics.
    """

    settings: Settings
    drives: Mapping[str, simulate.Drive]
    windows: int
    records: int
    payload_bytes: int

    def fresh(self) -> Settings:
        """Settings of a reader with an unused group and key prefix, which begins at the topics' beginning."""
        name = f"b{uuid.uuid4().hex[:8]}"
        return self.settings.model_copy(update={"group": name, "key_prefix": name})


class Run(msgspec.Struct, frozen=True):
    """What a program needed for the windows of a load, from ready to the last result.

    Attributes:
        peak_bytes: The most resident memory that it had; 0 if not measured.
        device_busy: Share of the time in which the device ran; ``None`` without a device.
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
    """How busy the device was in runs, by their names; empty on a CPU."""
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
    """Kafka and Redis, pinned to the first core with this process, which only waits.

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
        self._before = own_cores()
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
        """Settings for these servers, with unused names of topics, group and keys; the topics exist."""
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

    def to_the_end(self, load: Load, settings: Settings, programs: Sequence[Program]) -> list[Run]:
        """Wait until programs that are ready have published a load under the key prefix of the settings.

        Returns:
            One a program, each with the windows and the time of all, and its own CPU and memory.

        Raises:
            Stop: The first program ends, or not all windows come in time, or all came before the clock began.
        """
        sessions = list(load.drives)
        with Utilization(self.device) as busy:
            began_s, spent_s = time.monotonic(), [cpu_s(program) for program in programs]
            before = published(self.redis, settings, sessions)  # between their being ready and our seeing it
            programs[0].wait_for(
                lambda: published(self.redis, settings, sessions) >= load.windows, DONE_WITHIN_S, "publish all windows"
            )
            wall_s = time.monotonic() - began_s
            if before >= load.windows:
                raise Stop(f"all {before} windows were published before they could be timed: use a larger load")
            measured = [
                (cpu_s(program) - spent, peak_bytes(program.pid))
                for program, spent in zip(programs, spent_s, strict=True)
            ]
        return [Run(load.windows - before, wall_s, cpu, peak, busy.mean) for cpu, peak in measured]

    @contextmanager
    def worker_processes(self, each: Sequence[Settings], tree: Path = ROOT) -> Iterator[list[WorkerProcess]]:
        """A ``streamer worker`` for each settings, all on one core and ready, for the block."""
        with ExitStack() as stack:
            workers = []
            for number, settings in enumerate(each):
                process = WorkerProcess(
                    settings, self.folder / f"worker-{settings.role}-{number}.log", one_thread(tree), tree
                )
                workers.append(stack.enter_context(process))
                pin(process.pid, PROGRAM_CORE)
            for worker in workers:
                worker.wait_ready(READY_WITHIN_S)
            yield workers

    @contextmanager
    def worker_process(self, settings: Settings, tree: Path = ROOT) -> Iterator[WorkerProcess]:
        """One of :meth:`worker_processes`."""
        with self.worker_processes([settings], tree) as [worker]:
            yield worker

    def together(self, load: Load, each: Sequence[Settings]) -> Sequence[Run]:
        """Let several workers read a load to its end, on one core, from the moment when all are ready.

        Args:
            each: Of a worker each; all have the key prefix of the first.

        Returns:
            One a worker: see :meth:`to_the_end`.

        Raises:
            Stop: One fails, or they do not publish all windows in time.
        """
        with self.worker_processes(each) as workers:
            return self.to_the_end(load, each[0], workers)

    def worker(
        self,
        load: Load,
        settings: Settings | None = None,
        at_end: Callable[[WorkerProcess], None] = lambda worker: None,
        tree: Path = ROOT,
    ) -> Run:
        """Let a ``streamer worker`` read a load to its end.

        Args:
            settings: Of the load, with changes (``load.fresh()`` and then ``model_copy``); ``None`` as preloaded.
            at_end: Called before it is stopped.
            tree: Working tree of the worker.

        Raises:
            Stop: It fails, or does not publish all windows in time.
        """
        settings = load.fresh() if settings is None else settings
        with self.worker_process(settings, tree) as worker:
            [run] = self.to_the_end(load, settings, [worker])
            at_end(worker)
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
