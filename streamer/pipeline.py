"""From closed windows to published results: batch -> decode payloads -> predict -> publish, each batch in its turn.

Payloads of one batch are decoded while the device works on the batch before it and Redis takes the one before that.
Every stage handles batches one after another, so results leave in the order in which windows closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns, time_ns
from typing import Protocol

import msgspec

from streamer.batch import Batcher
from streamer.errors import BadRecord
from streamer.events import MODALITY_NAMES, Event, Window
from streamer.infer import Prediction, Predictor, result_of
from streamer.metrics import Metrics
from streamer.publish import Publication, Publisher
from streamer.sample import Sample
from streamer.settings import Settings

Rejects = list[tuple[Event, BadRecord]]


class Owner(Protocol):
    """Whose window it is: a partition group, which dies when its partition is taken away."""

    alive: bool
    fingerprint: str
    trim_below_us: int

    def window_done(self, window: Window) -> None:
        """The window is published."""


class Job(msgspec.Struct):
    """A closed window on its way to Redis, with what the stages found and how long each took."""

    owner: Owner
    window: Window
    nbytes: int
    closed_us: int
    marked_ns: int
    status: str = "ok"
    sample: Sample | None = None
    rejects: Rejects = []
    prediction: Prediction | None = None
    latencies_us: dict[str, int] = {}

    def mark(self, stage: str, metrics: Metrics) -> None:
        """The job leaves a stage: note the time since it left the one before."""
        now_ns = perf_counter_ns()
        self.latencies_us[stage] = (now_ns - self.marked_ns) // 1000
        metrics.stage_seconds.labels(stage).observe((now_ns - self.marked_ns) / 1e9)
        self.marked_ns = now_ns


class Pipeline:
    """Runs windows through the model and publishes what it says.

    Args:
        dead_letter: Sends a member whose payload turned out to be broken to the dead-letter topic; returns when the
            broker has it.
        on_progress: Called after each batch that was published.
    """

    def __init__(
        self,
        settings: Settings,
        predictor: Predictor,
        publisher: Publisher,
        metrics: Metrics,
        dead_letter: Callable[[Owner, Event, BadRecord], Awaitable[None]],
        on_progress: Callable[[], None],
    ) -> None:
        self._topics = settings.source_topics
        self._predictor = predictor
        self._publisher = publisher
        self._metrics = metrics
        self._dead_letter = dead_letter
        self._on_progress = on_progress
        self._batcher: Batcher[Job] = Batcher(settings.max_batch, settings.max_wait_ms / 1000)
        self._decoded: asyncio.Queue[list[Job] | None] = asyncio.Queue(maxsize=1)
        self._predicted: asyncio.Queue[list[Job] | None] = asyncio.Queue(maxsize=2)
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._decode_threads = settings.decode_threads
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self.inflight_bytes = 0
        self.inflight_windows = 0

    def submit(self, owner: Owner, window: Window) -> None:
        """Take a closed window; counts against ``inflight_bytes`` until it is published."""
        nbytes = window.nbytes
        self.inflight_bytes += nbytes
        self.inflight_windows += 1
        closed_us = time_ns() // 1000
        job = Job(owner, window, nbytes, closed_us, perf_counter_ns(), latencies_us={})
        job.latencies_us["align"] = max(0, closed_us - _newest_log_time_us(window))
        self._metrics.stage_seconds.labels("align").observe(job.latencies_us["align"] / 1e6)
        self._batcher.put(job)

    def close(self) -> None:
        """No more windows: :meth:`run` returns once all that were submitted are published."""
        self._batcher.close()

    async def run(self) -> None:
        """Work until :meth:`close` and the last publication; an error in a stage ends all of them and is raised."""
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._decode_batches(), name="decode")
                stages.create_task(self._predict_batches(), name="predict")
                stages.create_task(self._publish_batches(), name="publish")
        finally:
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._device.shutdown(wait=False, cancel_futures=True)

    async def _decode_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._batcher.get():
            jobs = self._alive(batch)
            for job in jobs:
                job.mark("batch", self._metrics)
            shares = [jobs[i :: self._decode_threads] for i in range(self._decode_threads)]
            await asyncio.gather(*(loop.run_in_executor(self._decoders, self._decode, s) for s in shares if s))
            for job in jobs:
                job.mark("decode", self._metrics)
            await self._decoded.put(jobs)
        await self._decoded.put(None)

    def _decode(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.sample, job.rejects = self._predictor.decode(job.window)

    async def _predict_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while (jobs := await self._decoded.get()) is not None:
            jobs = self._alive(jobs)
            if jobs:
                self._metrics.batch_windows.observe(len(jobs))
                await loop.run_in_executor(self._device, self._predict, jobs)
                for job in jobs:
                    job.mark("infer", self._metrics)
            await self._predicted.put(jobs)
        await self._predicted.put(None)

    def _predict(self, jobs: Sequence[Job]) -> None:
        """Predict a batch; where the model raises, halve it until the windows that do it are alone."""
        try:
            predictions = self._predictor.predict([job.sample for job in jobs if job.sample is not None])
        except Exception as error:  # noqa: BLE001 - a model is the user's code and may raise anything
            if len(jobs) == 1:
                jobs[0].status = "failed"
                self._metrics.model_errors.labels(type(error).__name__).inc()
                return
            middle = len(jobs) // 2
            self._predict(jobs[:middle])
            self._predict(jobs[middle:])
        else:
            for job, prediction in zip(jobs, predictions, strict=True):
                job.prediction = prediction

    async def _publish_batches(self) -> None:
        while (jobs := await self._predicted.get()) is not None:
            jobs = self._alive(jobs)
            if not jobs:
                continue
            await asyncio.gather(*(self._dead_letter(job.owner, *reject) for job in jobs for reject in job.rejects))
            new = await self._publisher.publish([self._publication(job) for job in jobs])
            for job, was_new in zip(jobs, new, strict=True):
                job.mark("publish", self._metrics)
                self._observe(job, was_new)
                self._forget(job)
                if job.owner.alive:
                    job.owner.window_done(job.window)
            self._on_progress()

    def _alive(self, jobs: list[Job]) -> list[Job]:
        """Drop the windows of groups that are gone: who owns the partition now rebuilds them."""
        alive = []
        for job in jobs:
            if job.owner.alive:
                alive.append(job)
            else:
                self._forget(job)
        return alive

    def _forget(self, job: Job) -> None:
        self.inflight_bytes -= job.nbytes
        self.inflight_windows -= 1

    def _publication(self, job: Job) -> Publication:
        window, sample, prediction = job.window, job.sample, job.prediction
        if sample is None:
            raise RuntimeError(f"window {window.id} reached publication without having been decoded")
        job.latencies_us["total"] = max(0, time_ns() // 1000 - _newest_log_time_us(window))
        result = result_of(
            window,
            sample,
            prediction,
            topics=self._topics,
            model=self._predictor.name,
            version=self._predictor.version,
            status=job.status,
            latencies_us=job.latencies_us,
        )
        return Publication(result, window.closed_at, window.heard_us, job.owner.fingerprint, job.owner.trim_below_us)

    def _observe(self, job: Job, was_new: bool) -> None:
        self._metrics.published.labels(job.status if was_new else "duplicate").inc()
        if was_new and job.sample is not None:
            self._metrics.stage_seconds.labels("total").observe(job.latencies_us["total"] / 1e6)
            for name, share in zip(MODALITY_NAMES, job.sample.coverage, strict=True):
                self._metrics.coverage.labels(name).observe(share)


def _newest_log_time_us(window: Window) -> int:
    return max(event.record.log_time_us for events in window.events for event in events)
