"""From closed windows to published results: batch -> decode payloads -> predict -> publish, batch by batch.

Payloads of one batch are decoded while the device works on the batch before it and Redis takes the one before that.
Every stage handles batches one after another, so results leave in the order in which windows closed.

Native code may kill the process, so windows are marked in Redis before they reach it (in-flight markers). Windows that
were marked when a process died are *suspects*: each is run alone, and one that has killed ``MAX_ALONE`` processes
that way is not run again. A window on which decoding or the model raises fails alone, however large its batch. Why:
docs/decisions/0003-poison-windows.md.

Early runs of open windows go the same way in batches of their own, one at a time and only while no closed window is
ready. Nothing is kept of them beyond this process: a window's final result takes over the prediction of its early run
if both hold the same records, else it is as if there had been none. Why: docs/decisions/0022-first-results.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from time import perf_counter_ns, time_ns

import msgspec

from streamer.errors import BadRecord, LeftBehind, Reason
from streamer.events import AUDIO, Event, Window
from streamer.model.predictor import Prediction, Predictor, predict_each, result_of
from streamer.model.sample import Sample
from streamer.observe.metrics import Metrics
from streamer.observe.tracing import Tracer
from streamer.result import Result
from streamer.settings import Settings
from streamer.store.publish import Publication, Publisher, Run
from streamer.worker.batch import Batcher
from streamer.worker.first import First, changed
from streamer.worker.lengths import Lengths
from streamer.worker.ports import Owner

BATCHES_AHEAD = 4  # that may wait for the decoders; the stages have as many more
MAX_ALONE = 3  # processes that a window may kill while it runs alone

log = logging.getLogger(__name__)

Rejects = list[tuple[Event, BadRecord]]


class Job(msgspec.Struct, eq=False):
    """A window in flight, with what the stages found and how long each took.

    Attributes:
        early: It has not closed.
        first: What its early run has found, if it had one.
        predictor: Cuts and predicts it; the same for a whole batch, even if another model is loaded meanwhile.
        suspicion: See :meth:`Owner.suspicion`.
        run: Its in-flight marker in Redis, from before decoding until it is published.
        judged: It has been through the model, or never will be.
    """

    owner: Owner
    window: Window
    predictor: Predictor
    nbytes: int
    closed_us: int
    marked_ns: int
    suspicion: int | None = None
    lost_until_us: int = 0
    run: Run | None = None
    judged: bool = False
    status: str = "ok"
    sample: Sample | None = None
    rejects: Rejects = []
    prediction: Prediction | None = None
    latencies_us: dict[str, int] = {}
    early: bool = False
    first: First | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Session and end of the window."""
        return self.window.session, self.window.end_us

    def mark(self, stage: str, metrics: Metrics) -> None:
        """The job leaves a stage: record the time since it left the previous one."""
        now_ns = perf_counter_ns()
        self.latencies_us[stage] = (now_ns - self.marked_ns) // 1000
        if not self.early:
            metrics.stage(stage).observe((now_ns - self.marked_ns) / 1e9)
        self.marked_ns = now_ns


class Pipeline:
    """Runs windows through the model and publishes the results.

    Args:
        dead_letter: Sends a member whose payload turned out to be broken to the dead-letter topic; returns when the
            broker has it.
        on_progress: Called after each batch that was published, or dropped because its partitions were revoked.
        refetch: Fetches payloads that were left behind in the source topics (role infer).
        tracer: Traces each published window; ``None`` for no traces.
    """

    def __init__(
        self,
        settings: Settings,
        predictor: Predictor,
        publisher: Publisher,
        metrics: Metrics,
        dead_letter: Callable[[Owner, Event, BadRecord], Awaitable[None]],
        on_progress: Callable[[], None],
        refetch: Callable[[Window], Awaitable[Window]] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._topics = settings.source_topics
        self._predictor = predictor
        self._publisher = publisher
        self._metrics = metrics
        self._dead_letter = dead_letter
        self._on_progress = on_progress
        self._refetch = refetch
        self._tracer = tracer
        self._lengths = Lengths(metrics, settings.source_topics[AUDIO])
        self._batcher: Batcher[Job] = Batcher(settings.max_batch, settings.max_wait_ms / 1000)
        self._decoded: asyncio.Queue[list[Job] | None] = asyncio.Queue(maxsize=1)
        self._predicted: asyncio.Queue[list[Job] | None] = asyncio.Queue(maxsize=2)
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._decode_threads = settings.decode_threads
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._told: set[str] = set()
        self._jobs: dict[int, Job] = {}  # by identity: submitted and not yet published
        self.inflight_bytes = 0
        self._early: dict[tuple[str, int], Job] = {}  # early runs that wait or are under way
        self._firsts: dict[tuple[str, int], First] = {}  # of windows that have not closed
        self._max_early_bytes = settings.max_inflight_bytes
        self._early_bytes = 0
        self._first_bytes = 0

    @property
    def inflight_windows(self) -> int:
        """Windows that were submitted and are not yet published."""
        return len(self._jobs)

    @property
    def ahead(self) -> bool:
        """Whether enough batches wait."""
        return len(self._batcher) >= BATCHES_AHEAD * self._batcher.max_batch

    def submit(self, owner: Owner, window: Window, closed_us: int | None = None) -> None:
        """Take a closed window; counts against ``inflight_bytes`` until it is published.

        Args:
            closed_us: When another process closed it; None: now, here.
        """
        nbytes = window.nbytes
        self.inflight_bytes += nbytes
        now_us = time_ns() // 1000
        if closed_us is None:
            closed_us = now_us
        suspicion = owner.suspicion(window)
        job = Job(owner, window, self._predictor, nbytes, closed_us, perf_counter_ns(), suspicion, latencies_us={})
        self._jobs[id(job)] = job
        early = self._early.pop(job.key, None)
        if early is not None and self._batcher.drop(early):
            self._metrics.early.labels("dropped").inc()
            self._forget(early)
        job.lost_until_us = owner.lost_until_us(window)
        if job.lost_until_us:
            job.status = "partial"
        for stage, since_us in (("merge", window.closed_at.log_time_us), ("align", _newest_log_time_us(window))):
            job.latencies_us[stage] = max(0, closed_us - since_us)
            self._metrics.stage(stage).observe(job.latencies_us[stage] / 1e6)
        if closed_us != now_us:
            job.latencies_us["handover"] = max(0, now_us - closed_us)
            self._metrics.stage("handover").observe(job.latencies_us["handover"] / 1e6)
        self._batcher.put(job)

    def submit_early(self, owner: Owner, window: Window) -> None:
        """Run an open window as it stands, if it is still open when there is time.

        The bytes of those that wait are bounded, since in role infer nothing else holds their payloads.
        """
        nbytes = window.nbytes
        if self._early_bytes + nbytes > self._max_early_bytes:
            self._metrics.early.labels("dropped").inc()
            return
        now_us = time_ns() // 1000
        job = Job(owner, window, self._predictor, nbytes, now_us, perf_counter_ns(), latencies_us={}, early=True)
        self._early_bytes += nbytes
        self._early[job.key] = job
        self._batcher.put_early(job)

    def swap(self, predictor: Predictor) -> None:
        """Serve another model from the next batch on; a batch that has begun keeps its model."""
        self._predictor = predictor

    def close(self) -> None:
        """No more windows: :meth:`run` returns once all that were submitted are published."""
        self._batcher.close()

    async def run(self) -> None:
        """Work until :meth:`close` and the last publication; an error in one stage ends all and is raised.

        Raises:
            DeviceLost: The device must be opened by a new process.
            Stop: Redis refuses us.
        """
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._decode_batches(), name="decode")
                stages.create_task(self._predict_batches(), name="predict")
                stages.create_task(self._publish_batches(), name="publish")
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the first has ended the others
        finally:
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._device.shutdown(wait=False, cancel_futures=True)

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        """Take back the in-flight markers of unfinished windows: this process does not die of them.

        Args:
            owners: Only windows of these; ``None`` for all.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        for job in [job for job in self._early.values() if not job.owner.alive and self._batcher.drop(job)]:
            self._forget(job)
        for key in [key for key, first in self._firsts.items() if not first.owner.alive]:
            self._take_first(key)
        runs = [
            job.run
            for job in self._jobs.values()
            if job.run is not None and (owners is None or any(job.owner is owner for owner in owners))
        ]
        if runs:
            await self._publisher.withdraw(runs)

    async def _decode_batches(self) -> None:
        while batch := await self._batcher.get():
            predictor = self._predictor
            for job in batch:
                job.mark("batch", self._metrics)
                job.predictor = predictor
            if batch[0].early:
                jobs = self._alive(batch)
                await self._decode_in_threads(jobs)
                for job in jobs:
                    job.mark("decode", self._metrics)
                await self._decoded.put(jobs)
                await self._decoded.join()  # one such batch is all that a closed window ever waits for
                continue
            for job in batch:
                job.first = self._take_first(job.key)
            for part in _parts(batch):
                jobs = self._alive(part)
                if jobs and jobs[0].suspicion is not None:
                    await self._run_alone(jobs[0], jobs[0].suspicion)
                elif fresh := [job for job in jobs if not self._taken_over(job)]:
                    await self._begin(fresh, 0)
                    await self._decode_all(fresh)
                await self._decoded.put(jobs)
        await self._decoded.put(None)

    def _keep_first(self, job: Job, sample: Sample, prediction: Prediction) -> None:
        """Keep what an early run has found until its window closes; of the payloads what there is room for."""
        self._take_first(job.key)
        room = self._max_early_bytes - self._first_bytes
        first = First.of(job.owner, job.window, job.predictor, sample, job.rejects, prediction, room)
        job.first = self._firsts[job.key] = first
        self._first_bytes += first.nbytes

    def _take_first(self, key: tuple[str, int]) -> First | None:
        first = self._firsts.pop(key, None)
        self._first_bytes -= first.nbytes if first is not None else 0
        return first

    def _taken_over(self, job: Job) -> bool:
        """Take over what the window's early run has found, if another run would find the same."""
        first = job.first
        if first is None or not first.holds(job.window, job.predictor):
            return False
        job.sample, job.rejects = first.found.sample, first.found.rejects
        job.prediction, job.judged = first.prediction, True
        return True

    async def _run_alone(self, job: Job, before: int) -> None:
        """Decode and predict a suspect that has been run alone ``before`` times, unless that was too often."""
        if before >= MAX_ALONE:
            await self._make_whole([job])  # so that its dead letters carry their payloads
            self._condemn(job)
            return
        await self._decoded.join()  # earlier windows have left native code, and this stage admits none meanwhile
        run = await self._begin([job], before + 1)
        await self._decode_all([job])
        await self._predict_all([job])
        # Now, not with the publication: a kill while Redis or the next stage is slow must not count against the window.
        await self._publisher.survived(run)
        job.run = None

    def _condemn(self, job: Job) -> None:
        detail = f"window {job.window.id} killed {MAX_ALONE} processes that ran nothing else"
        log.error("%s: its records go to the dead-letter topic", detail)
        job.status, job.judged = "failed", True
        job.rejects = [(event, BadRecord(Reason.POISON, detail)) for events in job.window.events for event in events]

    async def _begin(self, jobs: Sequence[Job], number: int) -> Run:
        """Mark windows in Redis before they can kill the process."""
        runs = [Run(job.window.session, job.window.end_us, number) for job in jobs]
        for job, run in zip(jobs, runs, strict=True):
            job.run = run
        await self._publisher.begin(runs)
        return runs[0]

    async def _decode_all(self, jobs: Sequence[Job]) -> None:
        await self._decode_in_threads(jobs)
        if lacking := [job for job in jobs if job.sample is None and not job.judged]:
            await self._make_whole(lacking)
            await self._decode_in_threads(lacking)
        for job in jobs:
            job.mark("decode", self._metrics)

    async def _decode_in_threads(self, jobs: Sequence[Job]) -> None:
        loop = asyncio.get_running_loop()
        shares = [jobs[i :: self._decode_threads] for i in range(self._decode_threads)]
        await asyncio.gather(*(loop.run_in_executor(self._decoders, self._decode, s) for s in shares if s))

    async def _make_whole(self, jobs: Sequence[Job]) -> None:
        """Fetch the payloads that were left behind."""
        for job in jobs:
            if self._refetch is not None and any(event.left_behind for events in job.window.events for event in events):
                self._metrics.refetched.inc()
                job.window = await self._refetch(job.window)
                nbytes = job.window.nbytes
                self.inflight_bytes += nbytes - job.nbytes
                job.nbytes = nbytes

    def _decode(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                known = job.first.known(job.predictor) if job.first is not None else None
                job.sample, job.rejects = job.predictor.decode(job.window, known)
                if not job.predictor.usable(job.sample):
                    job.judged = True
                    job.status = "empty" if job.status == "ok" else job.status
            except LeftBehind:
                job.judged = job.early  # without a sample yet: see _decode_all. An early run fetches nothing
            except BaseException as error:  # noqa: BLE001 - a bug, a MemoryError, a panic in Rust
                self._fail(job, "decoding", error)

    async def _predict_batches(self) -> None:
        while (jobs := await self._decoded.get()) is not None:
            jobs = self._alive(jobs)
            await self._predict_all(jobs)
            for job in jobs:
                if job.early and job.owner.alive and job.sample is not None and job.prediction is not None:
                    self._keep_first(job, job.sample, job.prediction)
            self._decoded.task_done()
            await self._predicted.put(jobs)
        await self._predicted.put(None)

    async def _predict_all(self, batch: Sequence[Job]) -> None:
        jobs = [job for job in batch if not job.judged]
        if not jobs:
            return
        self._metrics.batch_windows.observe(len(jobs))
        await asyncio.get_running_loop().run_in_executor(self._device, self._predict, jobs)
        for job in jobs:
            job.judged = True
            job.mark("infer", self._metrics)

    def _predict(self, jobs: Sequence[Job]) -> None:
        samples = [job.sample for job in jobs if job.sample is not None]
        for job, found in zip(jobs, predict_each(jobs[0].predictor, samples, keep=jobs[0].early), strict=True):
            if isinstance(found, BaseException):
                self._fail(job, "the model", found)
            else:
                job.prediction = found

    def _fail(self, job: Job, what: str, error: BaseException) -> None:
        """Publish the window without outputs. Its records count as done: nothing shows which of them caused it."""
        job.status, job.judged = "failed", True
        if job.early:
            self._metrics.early.labels("failed").inc()
            return  # the final run will tell
        kind = type(error).__name__
        self._metrics.model_errors.labels(kind).inc()
        # The traceback once: a broken model would log it thousands of times.
        log.error(
            "window %s failed: %s raised %r", job.window.id, what, error, exc_info=None if kind in self._told else error
        )
        self._told.add(kind)

    async def _publish_batches(self) -> None:
        while (jobs := await self._predicted.get()) is not None:
            jobs = self._alive(jobs)
            if jobs and jobs[0].early:
                await self._show(jobs)
                continue
            await asyncio.gather(*(self._dead_letter(job.owner, *reject) for job in jobs for reject in job.rejects))
            new = await self._publisher.publish([self._publication(job) for job in jobs])
            for job, was_new in zip(jobs, new, strict=True):
                job.mark("publish", self._metrics)
                self._observe(job, was_new)
                if self._tracer is not None:
                    run_early = job.first is not None and job.prediction is job.first.prediction
                    self._tracer.window(job.window, job.status, job.closed_us, job.latencies_us, run_early=run_early)
                self._forget(job)
                if job.owner.alive:
                    job.owner.window_done(job.window)
            self._on_progress()

    async def _show(self, jobs: Sequence[Job]) -> None:
        """Publish what early runs have found, for now."""
        found = [job for job in jobs if job.prediction is not None]
        shown = await self._publisher.show([self._result(job) for job in found]) if found else []
        for job, is_newest in zip(found, shown, strict=True):
            if job.first is not None and is_newest:
                job.first.shown = True
                self._metrics.first_result.observe(_since(job.window.due_us))
        for job in jobs:
            self._forget(job)

    def _alive(self, jobs: list[Job]) -> list[Job]:
        """Drop windows of revoked partitions: the new owner rebuilds them."""
        alive = []
        for job in jobs:
            if job.owner.alive:
                alive.append(job)
            else:
                self._forget(job)
        return alive

    def _forget(self, job: Job) -> None:
        if job.early:
            self._early_bytes -= job.nbytes
            if self._early.get(job.key) is job:
                del self._early[job.key]
            return
        self.inflight_bytes -= job.nbytes
        del self._jobs[id(job)]

    def _result(self, job: Job) -> Result:
        window, prediction = job.window, job.prediction
        sample = job.sample if job.sample is not None else Sample.empty(window.sensors)
        job.latencies_us["total"] = max(0, time_ns() // 1000 - _newest_log_time_us(window))
        return result_of(
            window,
            sample,
            prediction,
            topics=self._topics,
            model=job.predictor.name,
            version=job.predictor.version,
            status=job.status,
            latencies_us=job.latencies_us,
        )

    def _publication(self, job: Job) -> Publication:
        window, owner = job.window, job.owner
        return Publication(
            self._result(job),
            window.closed_at,
            window.heard_us,
            owner.fingerprint,
            owner.trim_below_us,
            job.lost_until_us,
        )

    def _observe(self, job: Job, was_new: bool) -> None:
        self._metrics.published.labels(job.status if was_new else "duplicate").inc()
        if was_new and job.sample is not None:
            self._metrics.stage("total").observe(job.latencies_us["total"] / 1e6)
            for name, share in zip(job.window.sensors.names, job.sample.coverage, strict=True):
                self._metrics.covered(name).observe(share)
            self._lengths.note(job.window.session, job.sample.mismatches)
        if was_new and job.prediction is not None:
            self._observe_doubt(job.predictor.name, job.prediction)
        first = job.first
        if was_new and job.window.due_us and (first is None or not first.shown):
            self._metrics.first_result.observe(_since(job.window.due_us))
        if first is None:
            return
        again = job.prediction is not first.prediction
        self._metrics.early.labels("again" if again else "reused").inc()
        if again and job.prediction is not None:
            for output in changed(first.prediction.outputs, job.prediction.outputs):
                self._metrics.early_changes.labels(output).inc()

    def _observe_doubt(self, model: str, prediction: Prediction) -> None:
        for name, output in prediction.outputs.items():
            if output.get("unsure"):
                self._metrics.unsure.labels(model, name).inc()
        for sensor, far in prediction.novelty.items():
            if far > 1:
                self._metrics.strange.labels(sensor).inc()


def _parts(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in order, each suspect in a part of its own."""
    for suspected, group in groupby(jobs, key=lambda job: job.suspicion is not None):
        if suspected:
            for job in group:
                yield [job]
        else:
            yield list(group)


def _newest_log_time_us(window: Window) -> int:
    """Newest log time of its records; that of its closing if it has none left, see ``outbox``."""
    times_us = (event.record.log_time_us for events in window.events for event in events)
    return max(times_us, default=window.closed_at.log_time_us)


def _since(log_time_us: int) -> float:
    """Seconds since a log time, by this machine's clock."""
    return max(0.0, time_ns() / 1e9 - log_time_us / 1e6)
