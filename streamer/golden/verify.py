"""Golden replay: a recording goes through alignment and the model again, and is compared with known results.

The stages are the worker's (``offline`` for decode, merge and align, ``model.predictor`` for the rest); only Kafka and
Redis are left out. The reference is a file of results, one JSON object a line as written by ``streamer results
--json``, ``streamer watch --json`` and ``verify --save``, or the live Redis.

Which windows are compared:

* A session was *under way* when the recording began if a window of it in the reference has a member from before the
  recording. Of such a session only those windows are compared that do not depend on what is missing (see ``offline``):
  with the default settings from about 6 s after the recording's start. The others are counted as ``unsure``.
* Every other session began with the recording and is compared from its first record on. A reference that begins later
  than the recording therefore lacks windows: start ``watch --json`` first, then ``record``.
* A window that was still open at the recording's end, or that has members from after it, is counted as ``open`` and not
  compared.

Late events, repeated ones and refused records are counted, not compared: their effect shows in the windows.

Batches are filled in the order in which windows close; those of a worker depend on the load. A model's floats depend a
little on the other windows of the batch (1e-6 and less on a CPU; more with bfloat16 on a GPU), and on the device:
``tolerance`` allows for that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

import msgspec
import redis

from streamer.errors import UsageError
from streamer.events import Window
from streamer.golden.compare import Difference, differences, extra, missing
from streamer.golden.offline import Identity, Offline
from streamer.model.predictor import Predictor, predict_each, result_of
from streamer.result import Result
from streamer.settings import Settings
from streamer.store import results
from streamer.store.results import Keys


class Reference(Protocol):
    """Known results."""

    def of(self, session: str) -> dict[int, Result]:
        """A session's results by the end of their windows, µs."""

    def sessions(self) -> set[str]:
        """All sessions of the results; empty where other sessions do not matter."""


class FileReference:
    """Results in a file, a JSON object a line.

    Raises:
        UsageError: The file cannot be read, or a line is no result.
    """

    def __init__(self, path: Path) -> None:
        self._results: dict[str, dict[int, Result]] = {}
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        result = _parsed(path, number, line)
                        self._results.setdefault(result.session, {})[result.end_us] = result
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None

    def of(self, session: str) -> dict[int, Result]:
        return self._results.get(session, {})

    def sessions(self) -> set[str]:
        return set(self._results)


class RedisReference:
    """The live results, as far as Redis keeps them; each session is read once, when it is first asked for."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._results: dict[str, dict[int, Result]] = {}

    def of(self, session: str) -> dict[int, Result]:
        if session not in self._results:
            found = results.results(self._client, self._keys, session)
            self._results[session] = {result.end_us: result for result in found}
        return self._results[session]

    def sessions(self) -> set[str]:
        return set()  # other sessions in Redis have nothing to do with the recording


def _parsed(path: Path, number: int, line: bytes) -> Result:
    try:
        fields = msgspec.json.decode(line)
        # only lines of --save have the embedding
        return msgspec.convert({"embedding": "", **fields}, Result)
    except (msgspec.DecodeError, TypeError) as error:
        raise UsageError(f"{path} line {number} is no result: {error}") from None


class Summary(msgspec.Struct):
    """The outcome of a comparison.

    Attributes:
        windows: Windows of the recording.
        compared: Windows of recording or reference that were compared.
        same: Those of them without any difference.
        unsure: Windows that depend on what was before the recording.
        open: Windows that depend on what came after it.
        kinds: Kind of difference -> windows that have it.
        late, repeated: Events that came late; records that repeated an event.
        refused, broken: Records that decode refused, and payloads that could not be opened, by reason.
        elsewhere: Sessions of the reference that the recording does not have.
        models: Name and version of the models of the reference, and of the model that was run.
    """

    records: int = 0
    sessions: int = 0
    windows: int = 0
    compared: int = 0
    same: int = 0
    unsure: int = 0
    open: int = 0
    kinds: dict[str, int] = {}
    late: int = 0
    repeated: int = 0
    refused: dict[str, int] = {}
    broken: dict[str, int] = {}
    elsewhere: int = 0
    models: dict[str, list[str]] = {}
    cut_off: bool = False


class Report(msgspec.Struct):
    """The summary and every difference, ordered by session and window."""

    summary: Summary
    differences: list[Difference]


def run(
    settings: Settings,
    recording: Path,
    reference: Reference | None,
    *,
    tolerance: float,
    save: IO[bytes] | None = None,
    on_progress: Callable[[int], None] = lambda windows: None,
) -> Report:
    """Replay a recording through the settings' model and compare the results.

    Args:
        reference: ``None`` to compare nothing, for ``save``.
        tolerance: Of scores and embeddings, see ``compare``.
        save: Where to write the results of the recording, a JSON object a line.
        on_progress: Called with the number of windows done, batch by batch.

    Raises:
        UsageError: The recording cannot be read, or reference and recording have nothing in common.
        ModelError: The model cannot be loaded.
    """
    return asyncio.run(_Verification(settings, recording, reference, tolerance, save).run(on_progress))


class _Verification:
    def __init__(
        self,
        settings: Settings,
        recording: Path,
        reference: Reference | None,
        tolerance: float,
        save: IO[bytes] | None,
    ) -> None:
        self._settings = settings
        self._reference = reference
        self._tolerance = tolerance
        self._save = save
        self._offline = Offline(settings, recording, self._under_way)
        self._topics = self._offline.about.topics
        self._predictor = Predictor.load(settings.model, device=settings.device, settings=settings)
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="verify")
        self._models: set[tuple[str, str]] = set()  # of the reference
        self._found: dict[Identity, list[Difference]] = {}  # of each window that the recording gives
        self._broken: dict[tuple[int, int, int], str] = {}  # row, partition, offset -> reason

    async def run(self, on_progress: Callable[[int], None]) -> Report:
        batch: list[Window] = []
        with self._threads:
            async for window in self._offline.windows():
                batch.append(window)
                if len(batch) == self._settings.max_batch:
                    self._take(batch)
                    batch = []
                    on_progress(len(self._found))
            self._take(batch)
        on_progress(len(self._found))
        return self._report()

    # results

    def _take(self, batch: Sequence[Window]) -> None:
        """Run a batch and compare its results."""
        decoded = list(self._threads.map(self._predictor.decode, batch))
        samples = [sample for sample, _ in decoded if self._predictor.usable(sample)]
        predictions = iter(self._threads.submit(predict_each, self._predictor, samples).result())
        for window, (sample, rejects) in zip(batch, decoded, strict=True):
            usable = self._predictor.usable(sample)
            found = next(predictions) if usable else None
            prediction = None if isinstance(found, BaseException) else found
            for event, error in rejects:
                record = event.record
                self._broken[record.row, record.partition, record.offset] = str(error.reason)
            result = result_of(
                window,
                sample,
                prediction,
                topics=self._topics,
                model=self._predictor.name,
                version=self._predictor.version,
                status="ok" if prediction is not None else "failed" if usable else "empty",
            )
            if self._save is not None:
                self._save.write(result.to_json(embedding=True) + b"\n")
            self._found[window.session, window.end_us] = self._compared(result)

    def _compared(self, result: Result) -> list[Difference]:
        if self._reference is None:
            return []
        expected = self._reference.of(result.session).get(result.end_us)
        if expected is None:
            return [extra(result)]
        self._models.add((expected.model, expected.version))
        if expected.start_us != result.start_us:
            return [missing(expected), extra(result)]  # windows of another length
        return list(differences(expected, result, self._tolerance))

    # which windows count

    def _under_way(self, session: str, partition: int) -> bool:
        if self._reference is None:
            return False
        begins = [offsets[partition] for offsets in self._offline.about.first_offsets]
        return any(
            first < begins[row]
            for result in self._reference.of(session).values()
            for row, first, _ in self._members(result)
        )

    def _reaches_beyond(self, result: Result, partition: int) -> bool:
        nexts = [offsets[partition] for offsets in self._offline.next_offsets]
        return any(last >= nexts[row] for row, _, last in self._members(result))

    def _reaches_into(self, result: Result, partition: int) -> bool:
        """Whether a result has members in the recording: a long session has thousands of earlier windows."""
        begins = [offsets[partition] for offsets in self._offline.about.first_offsets]
        return any(last >= begins[row] for row, _, last in self._members(result))

    def _members(self, result: Result) -> Iterator[tuple[int, int, int]]:
        """Row, first and last offset of each range of members."""
        for topic, ranges in result.members.items():
            if topic not in self._topics:
                raise UsageError(
                    f"the reference has results of topic {topic}, the recording has {', '.join(self._topics)}"
                )
            for first, last in ranges:
                yield self._topics.index(topic), first, last

    # the report

    def _report(self) -> Report:
        offline = self._offline
        summary = Summary(
            records=offline.records,
            sessions=len(offline.sessions),
            windows=len(self._found),
            late=offline.late,
            repeated=offline.repeated,
            refused=dict(offline.refused),
            broken=dict(Counter(self._broken.values())),
            models={
                "reference": sorted(f"{name} {version}" for name, version in self._models),
                "run": [f"{self._predictor.name} {self._predictor.version}"],
            },
            cut_off=offline.about.end_us is None,
        )
        if self._reference is None:
            return Report(summary, [])
        judged = {window: found for window, found in self._found.items() if offline.certain(window)}
        summary.unsure = len(self._found) - len(judged)
        judged |= self._missing(self._reference, summary)
        if not judged:
            raise UsageError(
                "there is nothing to compare: recording and reference have no window in common that is independent of "
                "what came before the recording"
            )
        summary.compared = len(judged)
        summary.same = sum(not found for found in judged.values())
        kinds = Counter(kind for found in judged.values() for kind in {difference.kind for difference in found})
        summary.kinds = dict(kinds)
        summary.elsewhere = len(self._reference.sessions() - offline.sessions.keys())
        return Report(summary, [difference for _, found in sorted(judged.items()) for difference in found])

    def _missing(self, reference: Reference, summary: Summary) -> dict[Identity, list[Difference]]:
        """Windows of the reference that did not come out, although the recording has all that they need."""
        offline = self._offline
        absent: dict[Identity, list[Difference]] = {}
        for session, partition in offline.sessions.items():
            for end_us, expected in reference.of(session).items():
                window = session, end_us
                if window in self._found:
                    continue
                if window in offline.open or self._reaches_beyond(expected, partition):
                    summary.open += 1
                elif offline.certain(window):
                    absent[window] = [missing(expected)]
                else:
                    summary.unsure += self._reaches_into(expected, partition)
        return absent


# for people and scripts


def as_json(report: Report) -> Iterator[bytes]:
    """A line for each difference, then one with the summary."""
    for difference in report.differences:
        yield msgspec.json.encode(difference)
    yield msgspec.json.encode({"summary": report.summary})
