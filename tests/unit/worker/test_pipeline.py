"""The way from closed windows to results, with a model and a Redis that do as the test says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.errors import BadRecord, LeftBehind, Reason, Stop
from streamer.events import ClosedBy, Event, EventType, Position, Record, Window
from streamer.model.predictor import Prediction
from streamer.model.sample import Known, Mismatch, Phrase, Sample, members
from streamer.observe.metrics import Metrics
from streamer.result import Result
from streamer.settings import Settings
from streamer.store.publish import Publication, Run
from streamer.worker.pipeline import BATCHES_AHEAD, Pipeline, Rejects

S_US = 1_000_000
WITHIN_S = 10.0  # a test that hangs fails


@dataclass
class Group:
    """Owns windows, as a partition group does."""

    alive: bool = True
    fingerprint: str = "rules"
    trim_below_us: int = 77
    done: list[int] = field(default_factory=list)

    def first_death(self, position: Position) -> bool:
        raise AssertionError("no record is broken here")

    def suspicion(self, window: Window) -> int | None:
        return None

    def lost_until_us(self, window: Window) -> int:
        return 0

    def window_done(self, window: Window) -> None:
        self.done.append(number(window))


def window(n: int, payload: bytes = b"payload") -> Window:
    """The n-th window of its session, with a frame and two records of audio."""
    records = [
        Record(row, 0, offset, n * S_US, b"s", payload, ()) for row, offset in ((0, n), (1, 2 * n), (1, 2 * n + 1))
    ]
    frame, *audio = [Event(r, "s", EventType.DATA, n * S_US, n * S_US + 500_000) for r in records]
    events = ((frame,), tuple(audio), (), ())
    return Window("s", 0, n * S_US, (n + 1) * S_US, ClosedBy.COMPLETE, Position(n, 1, 2), events, (n, n, 0, 0))


def as_it_stood(n: int) -> Window:
    whole = window(n)
    events = (whole.events[0], whole.events[1][:1], (), ())
    return msgspec.structs.replace(
        whole, events=events, closed_by=ClosedBy.OPEN, closed_at=Position(n, -1, -1), due_us=time.time_ns() // 1000
    )


def number(window: Window) -> int:
    return window.start_us // S_US


class Model:
    """Stands for the predictor: a sample's text is its window's number."""

    name, version = "fake", "7"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.known: list[Known | None] = []
        self.poison: set[int] = set()
        self.useless: set[int] = set()
        self.broken: dict[int, Rejects] = {}
        self.mismatches: dict[int, Mismatch] = {}
        self.on_decode: Callable[[int], None] = lambda n: None
        self.on_predict: Callable[[list[int]], None] = lambda batch: None

    def decode(self, window: Window, known: Known | None = None) -> tuple[Sample, Rejects]:
        n = number(window)
        self.known.append(known)
        self.on_decode(n)
        sample = Sample(
            (True, True, False, False),
            (0.5, 1.0, 0.0, 0.0),
            text=(Phrase(str(n), 1.0),),
            mismatches=(self.mismatches[n],) if n in self.mismatches else (),
        )
        return sample, self.broken.get(n, [])

    def usable(self, sample: Sample) -> bool:
        return int(sample.text[0].text) not in self.useless

    def predict(self, samples: list[Sample], *, keep: bool = False) -> list[Prediction]:
        batch = [int(sample.text[0].text) for sample in samples]
        self.batches.append(batch)
        self.on_predict(batch)
        if self.poison & set(batch):
            raise ZeroDivisionError("poison")
        return [Prediction({"n": {"value": n}}, np.array([n], np.float16)) for n in batch]

    def check(self) -> None:
        """The device is fine."""


class Redis:
    """Stands for the publisher."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.known: set[int] = set()
        self.shown: list[Result] = []
        self.on_publish: Callable[[], Any] = lambda: None

    async def publish(self, publications: list[Publication]) -> list[bool]:
        answer = self.on_publish()
        if answer is not None:
            await answer
        self.published += publications
        return [p.result.end_us // S_US - 1 not in self.known for p in publications]

    async def show(self, results: list[Result]) -> list[bool]:
        self.shown += results
        return [True] * len(results)

    async def begin(self, runs: list[Run]) -> None:
        """Which windows are run is the concern of other tests."""

    @property
    def numbers(self) -> list[int]:
        return [p.result.start_us // S_US for p in self.published]

    @property
    def statuses(self) -> list[str]:
        return [p.result.status for p in self.published]


class Bench:
    """A pipeline between the two."""

    def __init__(self, **settings: Any) -> None:
        self.model, self.redis, self.group = Model(), Redis(), Group()
        self.metrics = Metrics(CollectorRegistry())
        self.letters: list[tuple[Any, Event, BadRecord]] = []
        self.progress = 0
        options = {"max_batch": 4, "max_wait_ms": 0.0, "decode_threads": 2} | settings
        self.pipeline = Pipeline(
            Settings.load(**options),
            self.model,  # type: ignore[arg-type]
            self.redis,  # type: ignore[arg-type]
            self.metrics,
            self._letter,
            self._on_progress,
            self._refetch,
        )
        self.refetched: list[int] = []

    async def _letter(self, owner: Any, event: Event, error: BadRecord) -> None:
        self.letters.append((owner, event, error))

    async def _refetch(self, window: Window) -> Window:
        self.refetched.append(number(window))
        events = tuple(
            tuple(msgspec.structs.replace(e, left_behind=False, record=filled(e.record)) for e in row)
            for row in window.events
        )
        return msgspec.structs.replace(window, events=events)

    def _on_progress(self) -> None:
        self.progress += 1

    def submit(self, *numbers: int, owner: Group | None = None) -> None:
        for n in numbers:
            self.pipeline.submit(owner or self.group, window(n))

    def submit_early(self, n: int, owner: Group | None = None) -> None:
        """The n-th window as it stands before its last record of audio."""
        self.pipeline.submit_early(owner or self.group, as_it_stood(n))

    async def drain(self) -> None:
        self.pipeline.close()
        await asyncio.wait_for(self.pipeline.run(), WITHIN_S)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(bench.pipeline.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=WITHIN_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)


async def test_results_leave_in_the_order_in_which_windows_closed() -> None:
    bench = Bench()
    second_is_decoded = threading.Event()

    def first_last(n: int) -> None:
        if n == 0:
            assert second_is_decoded.wait(WITHIN_S)  # the second is decoded by another thread meanwhile
        elif n == 1:
            second_is_decoded.set()

    bench.model.on_decode = first_last
    bench.submit(*range(10))
    await bench.drain()
    assert bench.redis.numbers == list(range(10))
    assert bench.model.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert bench.group.done == list(range(10))
    assert bench.progress == 3


async def test_payloads_of_the_next_batch_are_decoded_while_the_model_works() -> None:
    bench = Bench()
    next_is_decoded = threading.Event()
    overlapped = []

    def decoded(n: int) -> None:
        if n == 4:
            next_is_decoded.set()

    bench.model.on_decode = decoded
    bench.model.on_predict = lambda batch: overlapped.append(next_is_decoded.wait(WITHIN_S))
    bench.submit(*range(8))
    await bench.drain()
    assert overlapped == [True, True]


async def test_a_batch_ends_with_the_model_that_it_began_with() -> None:
    bench = Bench()
    old, new = bench.model, Model()
    new.version = "8"

    def swapped(n: int) -> None:
        if n == 5:  # in the middle of the second batch
            bench.pipeline.swap(new)  # type: ignore[arg-type]

    old.on_decode = swapped
    bench.submit(*range(12))
    await bench.drain()
    assert old.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert new.batches == [[8, 9, 10, 11]]
    assert [p.result.version for p in bench.redis.published] == ["7"] * 8 + ["8"] * 4


async def test_a_result_says_all_that_is_known_of_its_window() -> None:
    bench = Bench()
    bench.submit(5)
    await bench.drain()
    (publication,) = bench.redis.published
    result = publication.result
    assert (result.session, result.start_us, result.end_us, result.closed_by) == ("s", 5 * S_US, 6 * S_US, "complete")
    assert result.present == ("image", "audio")
    assert result.coverage == {"image": 0.5, "audio": 1.0, "text": 0.0, "telemetry": 0.0}
    assert result.members == {"streamer.frames": ((5, 5),), "streamer.audio": ((10, 11),)}
    assert result.outputs == {"n": {"value": 5}}
    assert result.embedding == np.array([5], np.float16).tobytes()
    assert (result.model, result.version, result.status) == ("fake", "7", "ok")
    assert {"merge", "align", "batch", "decode", "infer", "total"} <= set(result.latencies_us)
    assert all(value >= 0 for value in result.latencies_us.values())
    assert publication.closed_at == Position(5, 1, 2)
    assert publication.heard_us == (5, 5, 0, 0)
    assert (publication.fingerprint, publication.trim_below_us) == ("rules", 77)


def filled(record: Record) -> Record:
    return msgspec.structs.replace(record, value=b"x" * 1000)


def bare(n: int) -> Window:
    """The n-th window, whose payloads were left behind."""
    whole = window(n, b"")
    events = tuple(tuple(msgspec.structs.replace(e, left_behind=True) for e in row) for row in whole.events)
    return msgspec.structs.replace(whole, events=events)


async def test_payloads_that_were_left_behind_are_fetched_where_they_are_needed_and_count_as_in_flight() -> None:
    bench = Bench()
    decoded: list[int] = []
    held: list[int] = []

    def opened(window: Window, known: Known | None = None) -> tuple[Sample, Rejects]:
        n = number(window)
        decoded.append(n)
        if n in (1, 2) and window.events[0][0].left_behind:
            raise LeftBehind("needed")
        return Sample((True, True, False, False), (0.5, 1.0, 0.0, 0.0), text=(Phrase(str(n), 1.0),)), []

    bench.model.decode = opened  # type: ignore[method-assign]
    bench.model.on_predict = lambda batch: held.append(bench.pipeline.inflight_bytes)
    for n in range(4):
        bench.pipeline.submit(bench.group, bare(n))
    before = bench.pipeline.inflight_bytes
    await bench.drain()
    assert bench.refetched == [1, 2]
    assert sorted(decoded) == [0, 1, 1, 2, 2, 3]
    assert bench.redis.numbers == [0, 1, 2, 3]
    assert bench.redis.statuses == ["ok"] * 4
    assert held == [before + 2 * 3 * 1000]
    assert bench.pipeline.inflight_bytes == 0
    assert bench.metric("streamer_refetched_windows_total") == 2


async def test_a_window_that_another_process_closed_tells_how_long_it_was_on_its_way() -> None:
    bench = Bench()
    closed_us = time.time_ns() // 1000 - 2 * S_US
    bench.pipeline.submit(bench.group, window(0), closed_us)
    await bench.drain()
    latencies_us = bench.redis.published[0].result.latencies_us
    assert 2 * S_US <= latencies_us["handover"] < 20 * S_US
    assert latencies_us["merge"] == closed_us  # the window's log times are some microseconds after 1970


@pytest.mark.parametrize("poison", [{0}, {7}, {3, 4}, {2, 5, 6}, set(range(8))])
async def test_the_windows_on_which_the_model_raises_fail_alone(poison: set[int]) -> None:
    bench = Bench(max_batch=8)
    bench.model.poison = poison
    bench.submit(*range(8))
    await bench.drain()
    assert bench.redis.numbers == list(range(8))
    assert bench.redis.statuses == ["failed" if n in poison else "ok" for n in range(8)]
    for n, publication in enumerate(bench.redis.published):
        assert publication.result.outputs == ({} if n in poison else {"n": {"value": n}})
        assert (publication.result.embedding == b"") == (n in poison)
        assert publication.result.coverage["image"] == 0.5  # what was there is told all the same
    assert bench.metric("streamer_model_errors_total", error="ZeroDivisionError") == len(poison)
    assert bench.metric("streamer_results_total", status="failed") == len(poison)
    assert bench.group.done == list(range(8))


async def test_a_batch_without_poison_is_one_call() -> None:
    bench = Bench(max_batch=8)
    bench.submit(*range(8))
    await bench.drain()
    assert bench.model.batches == [list(range(8))]


async def test_halving_calls_the_model_on_each_good_window_once_after_its_failed_batches() -> None:
    bench = Bench(max_batch=8)
    bench.model.poison = {5}
    bench.submit(*range(8))
    await bench.drain()
    assert bench.model.batches == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]


async def test_windows_of_a_group_that_is_gone_are_dropped() -> None:
    bench, gone = Bench(), Group(alive=False)
    decoded: list[int] = []
    bench.model.on_decode = decoded.append
    bench.submit(0, owner=gone)
    bench.submit(1)
    bench.submit(2, owner=gone)
    await bench.drain()
    assert bench.redis.numbers == [1]
    assert bench.model.batches == [[1]]
    assert decoded == [1]
    assert gone.done == []
    assert (bench.pipeline.inflight_windows, bench.pipeline.inflight_bytes) == (0, 0)


async def test_a_group_that_goes_while_its_windows_are_decoded_has_none_predicted() -> None:
    bench, going = Bench(), Group()
    bench.model.on_decode = lambda n: setattr(going, "alive", False)
    bench.submit(0, owner=going)
    bench.submit(1)
    await bench.drain()
    assert bench.model.batches == [[1]]
    assert bench.redis.numbers == [1]
    assert bench.pipeline.inflight_windows == 0


async def test_a_group_that_goes_while_the_model_works_has_nothing_published() -> None:
    bench, going = Bench(), Group()
    bench.model.on_predict = lambda batch: setattr(going, "alive", False)
    bench.submit(0, owner=going)
    await bench.drain()
    assert bench.redis.published == []
    assert bench.pipeline.inflight_windows == 0


async def test_a_group_that_goes_while_redis_answers_is_not_told() -> None:
    """The window is in Redis and its new owner will find it there; the old group's ledger is nobody's any more."""
    bench, going = Bench(), Group()
    bench.redis.on_publish = lambda: setattr(going, "alive", False)
    bench.submit(0, owner=going)
    await bench.drain()
    assert bench.redis.numbers == [0]
    assert going.done == []
    assert bench.pipeline.inflight_windows == 0


async def test_windows_count_as_in_flight_until_they_are_published() -> None:
    bench, redis_answers = Bench(), asyncio.Event()
    bench.redis.on_publish = redis_answers.wait
    bench.submit(0, 1)
    nbytes = window(0).nbytes + window(1).nbytes
    assert (bench.pipeline.inflight_windows, bench.pipeline.inflight_bytes) == (2, nbytes)
    async with running(bench):
        await until(lambda: bool(bench.model.batches))
        assert (bench.pipeline.inflight_windows, bench.pipeline.inflight_bytes) == (2, nbytes)
        assert bench.progress == 0
        redis_answers.set()
        await until(lambda: bench.progress == 1)
    assert (bench.pipeline.inflight_windows, bench.pipeline.inflight_bytes) == (0, 0)
    assert bench.group.done == [0, 1]


async def test_broken_members_are_dead_lettered_before_their_window_is_published() -> None:
    bench = Bench()
    at_publication: list[int] = []
    frame, sound = window(1).events[0][0], window(2).events[1][0]
    bench.model.broken = {
        1: [(frame, BadRecord(Reason.IMAGE_BOMB, "large"))],
        2: [(sound, BadRecord(Reason.BAD_PAYLOAD, "odd")), (frame, BadRecord(Reason.BAD_PAYLOAD, "even"))],
    }
    bench.redis.on_publish = lambda: at_publication.append(len(bench.letters))
    bench.submit(0, 1, 2)
    await bench.drain()
    assert at_publication == [3]
    assert [(event, error.reason) for _, event, error in bench.letters] == [
        (frame, Reason.IMAGE_BOMB),
        (sound, Reason.BAD_PAYLOAD),
        (frame, Reason.BAD_PAYLOAD),
    ]
    assert all(owner is bench.group for owner, _, _ in bench.letters)
    assert bench.redis.statuses == ["ok"] * 3


async def test_a_window_that_redis_had_already_is_done_and_counted_as_a_duplicate() -> None:
    bench = Bench()
    bench.redis.known = {1}
    bench.submit(0, 1, 2)
    await bench.drain()
    assert bench.group.done == [0, 1, 2]
    assert bench.metric("streamer_results_total", status="duplicate") == 1
    assert bench.metric("streamer_results_total", status="ok") == 2
    assert bench.metric("streamer_coverage_ratio_count", sensor="audio") == 2


async def test_closing_drains_what_was_submitted_while_it_ran() -> None:
    bench = Bench(max_wait_ms=60_000.0)  # nobody waits for more windows once there can be none
    async with running(bench) as task:
        bench.submit(0, 1, 2, 3)
        await until(lambda: bench.progress == 1)
        bench.submit(4, 5)
        bench.pipeline.close()
        await asyncio.wait_for(task, WITHIN_S)
    assert bench.redis.numbers == list(range(6))


async def test_closing_without_windows_ends_it() -> None:
    bench = Bench()
    await bench.drain()
    assert bench.progress == 0


def boom(*_: object) -> None:
    raise Stop("fix it")


@pytest.mark.parametrize("stage", ["publish", "dead_letter", "progress"])
async def test_an_error_in_a_stage_ends_all_and_is_raised(stage: str) -> None:
    bench = Bench()
    bench.submit(*range(20))
    match stage:
        case "publish":
            bench.redis.on_publish = boom
        case "dead_letter":
            bench.model.broken = {0: [(window(0).events[0][0], BadRecord(Reason.BAD_PAYLOAD, ""))]}
            bench.pipeline._dead_letter = boom  # type: ignore[assignment]
        case "progress":
            bench.pipeline._on_progress = boom
    with pytest.raises(Stop, match="fix it"):  # although nobody closed it
        await asyncio.wait_for(bench.pipeline.run(), WITHIN_S)
    assert bench.group.done in ([], [0, 1, 2, 3])


async def test_a_model_that_raises_does_not_end_the_pipeline() -> None:
    bench = Bench(max_batch=1)
    bench.model.poison = {0, 1, 2}
    bench.submit(0, 1, 2, 3)
    await bench.drain()
    assert bench.redis.statuses == ["failed", "failed", "failed", "ok"]


async def test_audio_that_is_not_as_long_as_it_says_is_counted_once_though_its_window_comes_twice() -> None:
    bench = Bench()
    bench.model.mismatches = {n: Mismatch(0, n, 1, S_US, -1 - n) for n in range(3)}
    bench.redis.known = {1}  # published before a restart
    bench.submit(*range(4))
    await bench.drain()
    assert bench.metric("streamer_audio_length_mismatches_total", kind="short") == 2


async def test_a_window_with_nothing_that_the_model_takes_is_not_run() -> None:
    bench = Bench()
    bench.model.useless = {1}
    bench.submit(0, 1, 2)
    await bench.drain()
    assert bench.redis.statuses == ["ok", "empty", "ok"]
    assert bench.model.batches == [[0, 2]]
    empty = bench.redis.published[1].result
    assert (empty.outputs, empty.embedding, empty.present) == ({}, b"", ("image", "audio"))
    assert bench.metric("streamer_results_total", status="empty") == 1
    assert bench.group.done == [0, 1, 2]


async def test_it_is_ahead_while_more_batches_wait_than_it_will_soon_decode() -> None:
    bench = Bench(max_batch=2)
    decoding, go_on = threading.Event(), threading.Event()

    def wait(n: int) -> None:
        decoding.set()
        assert go_on.wait(WITHIN_S)

    bench.model.on_decode = wait
    async with running(bench):
        bench.submit(0, 1)
        await until(decoding.is_set)
        bench.submit(*range(2, 1 + 2 * BATCHES_AHEAD))
        assert not bench.pipeline.ahead
        bench.submit(1 + 2 * BATCHES_AHEAD)
        assert bench.pipeline.ahead
        go_on.set()
        await until(lambda: not bench.pipeline.inflight_windows)
        assert not bench.pipeline.ahead


async def test_outputs_in_doubt_and_strange_sensors_are_counted_once_a_published_window() -> None:
    bench = Bench()
    bench.redis.known = {2}  # published by a worker that died

    def predict(samples: list[Sample], *, keep: bool = False) -> list[Prediction]:
        outputs = {"action": {"label": "go", "unsure": True}, "speed": {"value": 1.0}}
        return [Prediction(outputs, np.zeros(1, np.float16), {"image": 1.01, "audio": 1.0}) for _ in samples]

    bench.model.predict = predict  # type: ignore[method-assign]
    bench.submit(0, 1, 2)
    await bench.drain()
    assert bench.metric("streamer_unsure_outputs_total", model="fake", output="action") == 2
    assert bench.metric("streamer_unsure_outputs_total", model="fake", output="speed") == 0
    assert bench.metric("streamer_strange_windows_total", sensor="image") == 2
    assert bench.metric("streamer_strange_windows_total", sensor="audio") == 0


# early runs


async def until_idle(bench: Bench) -> None:
    async with running(bench):
        await until(lambda: not bench.pipeline._early and not bench.pipeline.inflight_windows)


async def test_an_early_run_is_shown_and_holds_nothing() -> None:
    bench = Bench()
    async with running(bench):
        bench.submit_early(0)
        assert (bench.pipeline.inflight_windows, bench.pipeline.inflight_bytes) == (0, 0)
        await until(lambda: bool(bench.redis.shown))
    (result,) = bench.redis.shown
    assert (result.final, result.closed_by, result.status, result.outputs) == (False, "open", "ok", {"n": {"value": 0}})
    assert result.members == {"streamer.frames": ((0, 0),), "streamer.audio": ((0, 0),)}
    assert bench.redis.published == []
    assert bench.group.done == []
    assert bench.metric("streamer_first_result_seconds_count") == 1


async def test_the_final_result_of_more_records_is_another_run() -> None:
    bench = Bench()
    async with running(bench):
        bench.submit_early(0)
        await until(lambda: bool(bench.redis.shown))
        bench.submit(0)
        await until(lambda: bool(bench.group.done))
    assert bench.model.batches == [[0], [0]]
    assert [p.result.final for p in bench.redis.published] == [True]
    assert bench.metric("streamer_early_runs_total", outcome="again") == 1


async def test_the_final_run_is_told_what_the_early_one_has_found_while_there_is_room() -> None:
    told: list[Known | None] = []
    bench = Bench(max_inflight_bytes=1 << 20)
    telling = bench.model.decode
    content = np.zeros((600, 1000), np.bool_)  # there is room for one, not for two

    def decode(window: Window, known: Known | None = None) -> tuple[Sample, Rejects]:
        if window.closed_by is not ClosedBy.OPEN:
            told.append(known)
        sample, rejects = telling(window)
        return msgspec.structs.replace(sample, audio_mask_S=content), rejects

    bench.model.decode = decode  # type: ignore[method-assign]
    async with running(bench):
        for n in range(3):
            bench.submit_early(n)
            await until(lambda shown=n + 1: len(bench.redis.shown) == shown)  # type: ignore[misc]
            if n == 1:
                bench.submit(0)  # makes room
                await until(lambda: 0 in bench.group.done)
        bench.submit(1, 2)
        await until(lambda: len(bench.group.done) == 3)
    assert [one is not None for one in told] == [True, False, True]
    assert told[0] is not None
    assert told[0].sample.audio_mask_S is content
    assert told[0].members == members(as_it_stood(0))


async def test_the_final_result_of_the_same_records_takes_over_the_early_prediction_and_its_dead_letters() -> None:
    bench, plain = Bench(), Bench()
    whole, broken = window(0), BadRecord(Reason.BAD_PAYLOAD, "no sound")
    for one in (bench, plain):
        one.model.broken = {0: [(whole.events[1][0], broken)]}
    async with running(bench):
        bench.pipeline.submit_early(bench.group, msgspec.structs.replace(whole, closed_by=ClosedBy.OPEN))
        await until(lambda: bool(bench.redis.shown))
        assert bench.letters == []
        bench.pipeline.submit(bench.group, whole)
        await until(lambda: bool(bench.group.done))
    plain.submit(0)
    await plain.drain()
    assert bench.model.batches == [[0]]
    results = [b.redis.published[0].result for b in (bench, plain)]
    taken_over, run = (msgspec.structs.replace(result, latencies_us={}).to_json(embedding=True) for result in results)
    assert taken_over == run
    assert (
        [letter[1:] for letter in bench.letters]
        == [letter[1:] for letter in plain.letters]
        == [(whole.events[1][0], broken)]
    )
    assert bench.metric("streamer_early_runs_total", outcome="reused") == 1


async def test_another_model_runs_the_window_again() -> None:
    bench, new = Bench(), Model()
    async with running(bench):
        bench.pipeline.submit_early(bench.group, msgspec.structs.replace(window(0), closed_by=ClosedBy.OPEN))
        await until(lambda: bool(bench.redis.shown))
        bench.pipeline.swap(new)  # type: ignore[arg-type]
        bench.submit(0)
        await until(lambda: bool(bench.group.done))
    assert new.batches == [[0]]
    assert new.known == [None]


async def test_closed_windows_go_first_and_an_early_run_of_one_that_closes_is_dropped() -> None:
    bench = Bench(max_batch=2)
    for n in range(4):
        bench.submit_early(n)
    bench.submit(9, 0, 3)  # the first and the fourth close before anything ran
    await until_idle(bench)
    assert bench.model.batches == [[9, 0], [3], [1, 2]]
    assert [r.start_us // S_US for r in bench.redis.shown] == [1, 2]
    assert bench.metric("streamer_early_runs_total", outcome="dropped") == 2


async def test_a_closed_window_waits_for_one_batch_of_early_runs_at_most() -> None:
    bench = Bench(max_batch=1)
    loop = asyncio.get_running_loop()

    def closes(batch: list[int]) -> None:
        if batch == [0]:
            loop.call_soon_threadsafe(bench.submit, 9)

    bench.model.on_predict = closes
    for n in range(4):
        bench.submit_early(n)
    await until_idle(bench)
    assert bench.model.batches == [[0], [9], [1], [2], [3]]


async def test_early_runs_have_their_turn_between_closed_windows() -> None:
    bench = Bench(max_batch=1)
    bench.submit_early(0)
    bench.submit(1)
    await until_idle(bench)
    assert bench.model.batches == [[1], [0]]


async def test_an_early_run_that_fails_shows_nothing_and_the_final_one_is_as_ever() -> None:
    bench = Bench()
    bench.model.poison = {0}
    async with running(bench):
        bench.submit_early(0)
        await until(lambda: bench.metric("streamer_early_runs_total", outcome="failed") == 1)
        bench.model.poison = set()
        bench.submit(0)
        await until(lambda: bool(bench.group.done))
    assert bench.redis.shown == []
    assert bench.redis.statuses == ["ok"]
    assert bench.metric("streamer_model_errors_total", error="ZeroDivisionError") == 0


async def test_early_runs_wait_in_bounded_memory() -> None:
    nbytes = as_it_stood(0).nbytes
    payload = bytes(1 << 19)
    bench = Bench(max_inflight_bytes=1 << 20)
    assert nbytes < 1 << 19
    for n in range(3):
        bench.pipeline.submit_early(bench.group, msgspec.structs.replace(window(n, payload), closed_by=ClosedBy.OPEN))
    assert bench.metric("streamer_early_runs_total", outcome="dropped") == 3  # three records of half a MiB each
    for n in range(3):
        bench.submit_early(n)
    await until_idle(bench)
    assert bench.model.batches == [[0, 1, 2]]


async def test_early_runs_of_a_group_that_is_gone_are_forgotten() -> None:
    bench, gone = Bench(), Group()
    async with running(bench):
        bench.submit_early(0, gone)
        await until(lambda: bool(bench.redis.shown))
        gone.alive = False
        await bench.pipeline.withdraw([gone])
        bench.pipeline.submit(bench.group, as_it_stood(0))  # its new owner's, here again
        await until(lambda: bool(bench.group.done))
    assert bench.model.batches == [[0], [0]]


async def test_a_decision_that_changed_is_counted() -> None:
    bench = Bench()
    said = iter([{"a": {"label": "go"}, "n": {"value": 1.0}}, {"a": {"label": "stop"}, "n": {"value": 2.0}}])

    def predict(samples: list[Sample], *, keep: bool = False) -> list[Prediction]:
        return [Prediction(next(said), np.zeros(1, np.float16))]

    bench.model.predict = predict  # type: ignore[method-assign]
    async with running(bench):
        bench.submit_early(0)
        await until(lambda: bool(bench.redis.shown))
        bench.submit(0)
        await until(lambda: bool(bench.group.done))
    assert bench.metric("streamer_early_changes_total", output="a") == 1
    assert bench.metric("streamer_early_changes_total", output="n") == 0
