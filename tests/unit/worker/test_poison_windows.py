"""What the pipeline does with windows that raise, and with those that are suspected of killing their process."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.errors import BadRecord, DeviceLost, Reason
from streamer.events import ClosedBy, Event, EventType, Position, Record, Window
from streamer.model.predictor import Prediction
from streamer.model.sample import Known, Sample
from streamer.observe.metrics import Metrics
from streamer.result import Result
from streamer.settings import Settings
from streamer.store.publish import Publication, Run
from streamer.worker.pipeline import MAX_ALONE, Pipeline

S = 1_000_000


class Owner:
    fingerprint, trim_below_us = "", 0

    def __init__(self, suspects: dict[int, int] | None = None, lost_until_us: int = 0) -> None:
        self.alive = True
        self.suspects = suspects or {}
        self.lost = lost_until_us
        self.done: list[Window] = []

    def window_done(self, window: Window) -> None:
        self.done.append(window)

    def first_death(self, position: Position) -> bool:
        raise AssertionError("no record is broken here")

    def suspicion(self, window: Window) -> int | None:
        return self.suspects.get(window.end_us)

    def lost_until_us(self, window: Window) -> int:
        return self.lost if window.start_us < self.lost else 0


class Redis:
    """In place of the publisher: the marks, and the results in order."""

    def __init__(self) -> None:
        self.marks: set[Run] = set()
        self.results: list[Result] = []
        self.lost_until_us: list[int] = []

    async def begin(self, runs: Sequence[Run]) -> None:
        await asyncio.sleep(0)
        self.marks |= set(runs)

    async def survived(self, run: Run) -> None:
        await asyncio.sleep(0)
        self.marks = {m for m in self.marks if (m.session, m.end_us) != (run.session, run.end_us)}

    async def withdraw(self, runs: Sequence[Run]) -> None:
        self.marks -= set(runs)

    async def publish(self, publications: Sequence[Publication]) -> list[bool]:
        await asyncio.sleep(0)
        for publication in publications:
            result = publication.result
            self.results.append(result)
            self.lost_until_us.append(publication.lost_until_us)
            self.marks = {m for m in self.marks if m.session != result.session or m.end_us > result.end_us}
        return [True] * len(publications)


class Model:
    """In place of the predictor: a window is its number, and the tests say what happens with which."""

    name, version = "toy", "1"

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.calls: list[list[int]] = []
        self.marks_seen: list[set[Run]] = []
        self.on_decode: Callable[[int], None] = lambda number: None
        self.on_predict: Callable[[list[int]], None] = lambda numbers: None
        self.on_check: Callable[[], None] = lambda: None

    def decode(self, window: Window, known: Known | None = None) -> tuple[Sample, list[Any]]:
        self.marks_seen.append(set(self.redis.marks))
        self.on_decode(window.end_us // S)
        return Sample(present=(True,) * 4, coverage=(float(window.end_us // S),) * 4), []

    def predict(self, samples: Sequence[Sample], *, keep: bool = False) -> list[Prediction]:
        numbers = [int(sample.coverage[0]) for sample in samples]
        self.calls.append(numbers)
        self.on_predict(numbers)
        return [Prediction({"number": {"value": number}}, np.zeros(2, np.float16)) for number in numbers]

    def usable(self, sample: Sample) -> bool:
        return True

    def check(self) -> None:
        self.on_check()


class Bench:
    def __init__(self, max_batch: int = 8) -> None:
        self.redis = Redis()
        self.model = Model(self.redis)
        self.metrics = Metrics(CollectorRegistry())
        self.letters: list[tuple[Event, BadRecord]] = []
        self.pipeline = Pipeline(
            Settings(max_batch=max_batch, max_wait_ms=1.0, decode_threads=1),
            self.model,  # type: ignore[arg-type]
            self.redis,  # type: ignore[arg-type]
            self.metrics,
            self._dead_letter,
            lambda: None,
        )

    async def _dead_letter(self, owner: Any, event: Event, error: BadRecord) -> None:
        self.letters.append((event, error))

    async def run(self, owner: Owner, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.pipeline.submit(owner, window(number))
        self.pipeline.close()
        await asyncio.wait_for(self.pipeline.run(), 10.0)

    def statuses(self) -> dict[int, str]:
        return {result.end_us // S: result.status for result in self.redis.results}

    def errors(self, name: str) -> float:
        return self.metrics.registry.get_sample_value("streamer_model_errors_total", {"error": name}) or 0.0


def window(number: int) -> Window:
    record = Record(0, 0, number, number * S, b"car", b"", ())
    event = Event(record, "car", EventType.DATA, number * S - S, number * S)
    closed_at = Position(number * S, 0, number)
    return Window("car", 0, number * S - S, number * S, ClosedBy.COMPLETE, closed_at, ((event,), (), (), ()), (0,) * 4)


async def test_windows_are_marked_before_they_are_run_and_unmarked_when_they_are_published() -> None:
    bench = Bench()
    await bench.run(Owner(), [1, 2])
    marks = {Run("car", 1 * S, 0), Run("car", 2 * S, 0)}
    assert bench.model.marks_seen == [marks, marks]
    assert bench.redis.marks == set()
    assert bench.statuses() == {1: "ok", 2: "ok"}


async def test_a_window_on_which_the_model_raises_fails_alone() -> None:
    bench = Bench()

    def broken(numbers: list[int]) -> None:
        if 3 in numbers:
            raise ValueError("three")

    bench.model.on_predict = broken
    owner = Owner()
    await bench.run(owner, [1, 2, 3, 4, 5])
    assert bench.statuses() == {1: "ok", 2: "ok", 3: "failed", 4: "ok", 5: "ok"}
    failed = bench.redis.results[2]
    assert (failed.outputs, failed.embedding) == ({}, b"")
    assert failed.members == {"streamer.frames": ((3, 3),)}
    assert len(owner.done) == 5
    assert bench.letters == []  # its records are accounted for by the result
    assert bench.errors("ValueError") == 1


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x"), SystemExit(3)])
async def test_a_window_whose_decoding_raises_fails_alone(error: BaseException) -> None:
    bench = Bench()

    def broken(number: int) -> None:
        if number == 2:
            raise error

    bench.model.on_decode = broken
    await bench.run(Owner(), [1, 2, 3])
    assert bench.statuses() == {1: "ok", 2: "failed", 3: "ok"}
    assert bench.model.calls == [[1, 3]]
    assert bench.redis.results[1].present == ()
    assert bench.errors(type(error).__name__) == 1


async def test_a_suspect_runs_alone_in_its_place() -> None:
    bench = Bench()
    await bench.run(Owner({2 * S: 0, 3 * S: 1}), [1, 2, 3, 4, 5])
    assert bench.model.calls == [[1], [2], [3], [4, 5]]
    # Alone in native code too: everything before had been through it. And it survived: nothing is left of suspicion.
    assert Run("car", 2 * S, 1) in bench.model.marks_seen[1]
    assert Run("car", 3 * S, 2) in bench.model.marks_seen[2]
    assert all(m.end_us != 2 * S for m in bench.model.marks_seen[2])
    assert [r.end_us // S for r in bench.redis.results] == [1, 2, 3, 4, 5]
    assert set(bench.statuses().values()) == {"ok"}


async def test_nothing_else_is_in_native_code_while_a_suspect_runs() -> None:
    bench = Bench(max_batch=1)
    inside: list[int] = []
    together: list[tuple[int, ...]] = []

    def decoding(number: int) -> None:
        inside.append(number)
        together.append(tuple(inside))

    def predicting(numbers: list[int]) -> None:
        together.append(tuple(inside))
        for number in numbers:
            inside.remove(number)

    bench.model.on_decode, bench.model.on_predict = decoding, predicting
    await bench.run(Owner({4 * S: 0}), range(1, 9))
    assert {numbers for numbers in together if 4 in numbers} == {(4,)}


async def test_a_window_that_has_killed_too_often_is_not_run_again() -> None:
    bench = Bench()
    await bench.run(Owner({2 * S: MAX_ALONE}), [1, 2, 3])
    assert bench.model.calls == [[1], [3]]
    assert bench.statuses() == {1: "ok", 2: "failed", 3: "ok"}
    [(event, error)] = bench.letters
    assert event.record.offset == 2
    assert error.reason is Reason.POISON
    assert "car/2000000" in error.detail
    assert bench.redis.results[1].present == ()


async def test_unfinished_windows_can_be_taken_back_without_blame() -> None:
    bench = Bench()
    running, owner, other = asyncio.Event(), Owner({1 * S: 2}), Owner()
    loop = asyncio.get_running_loop()
    release = asyncio.Event()

    async def hang(run: Run) -> None:
        running.set()
        await release.wait()

    bench.redis.survived = hang  # type: ignore[method-assign]
    bench.redis.marks = {Run("car", 1 * S, 0), Run("car", 1 * S, 2)}
    bench.pipeline.submit(owner, window(1))
    task = loop.create_task(bench.pipeline.run())
    await running.wait()
    assert Run("car", 1 * S, 3) in bench.redis.marks
    await bench.pipeline.withdraw([other])
    assert Run("car", 1 * S, 3) in bench.redis.marks
    await bench.pipeline.withdraw([owner])
    # Its own run does not count; what it is suspected of stays.
    assert bench.redis.marks == {Run("car", 1 * S, 0), Run("car", 1 * S, 2)}
    task.cancel()
    await asyncio.wait({task})


async def test_windows_that_may_lack_records_are_partial() -> None:
    bench = Bench()
    await bench.run(Owner(lost_until_us=2 * S), [1, 2, 3])
    assert bench.statuses() == {1: "partial", 2: "partial", 3: "ok"}
    assert bench.redis.lost_until_us == [2 * S, 2 * S, 0]


async def test_a_lost_device_ends_the_pipeline_instead_of_failing_every_window() -> None:
    bench = Bench()

    def broken(numbers: list[int]) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    def lost() -> None:
        raise DeviceLost("cuda:0 is lost to this process")

    bench.model.on_predict, bench.model.on_check = broken, lost
    with pytest.raises(DeviceLost):
        await bench.run(Owner(), [1, 2, 3])
    assert bench.redis.results == []
    assert len(bench.redis.marks) == 3  # they will be run alone


async def test_windows_of_a_dead_owner_make_room_and_are_not_published() -> None:
    bench = Bench()
    owner = Owner()
    owner.alive = False
    await bench.run(owner, [1, 2])
    assert (bench.pipeline.inflight_windows, bench.pipeline.inflight_bytes) == (0, 0)
    assert bench.redis.results == []
    assert bench.model.calls == []
