"""Results as Parquet files by day and model, each result in one file.

    DIR/day=2026-11-30/model=driving/NAME-0000000042-FIRST-LAST.parquet

A file is written under a hidden name, synced, and renamed; then the cursors of its sessions move. Its footer has these
cursors, before and after it, and its name a number that rises. So a start needs only the newest file to know what a
killed predecessor had not noted. FIRST and LAST are the ends of its first and last window, µs.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from redis.exceptions import RedisError

from streamer.errors import Unavailable, UsageError
from streamer.result import Result, decision
from streamer.sinks.sink import Given, Sink
from streamer.store.readers import Cursor, Page

CURSORS = b"streamer.cursors"  # in the footer: session -> [end_us before the file, end_us after it]

_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("session", pa.string(), nullable=False),
        pa.field("start_time", _TIME, nullable=False),
        pa.field("end_time", _TIME, nullable=False),
        pa.field("closed_by", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("outputs", pa.string(), nullable=False),  # JSON: models differ, the columns do not
        pa.field("present", pa.list_(pa.string()), nullable=False),
        pa.field("coverage", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("novelty", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("latencies_us", pa.map_(pa.string(), pa.int64()), nullable=False),
        pa.field("members", pa.string(), nullable=False),  # JSON
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What the results of a file have in common."""

    day: str
    model: str

    @classmethod
    def of(cls, result: Result) -> Kind:
        """By the window's end, UTC."""
        return cls(datetime.fromtimestamp(result.end_us / 1e6, UTC).date().isoformat(), result.model)


class Batch:
    """Results on their way to a file, and the cursors of their sessions before and after them."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.cursors: dict[str, tuple[Cursor, Cursor]] = {}
        self.since_s = monotonic()

    def add(self, before: Cursor, result: Result) -> None:
        """Take a session's next result."""
        begin, _ = self.cursors.get(result.session, (before, before))
        self.cursors[result.session] = begin, Cursor(result.end_us)
        self.results.append(result)


class ParquetSink(Sink):
    """Writes files. The results of a session that wait for one are all of one kind, so that files follow each other."""

    service = "Files"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.places = self
        self._dir = given.settings.parquet_dir
        self._rows = given.settings.parquet_rows
        self._every_s = given.settings.parquet_every_ms / 1000
        self._batches: dict[Kind, Batch] = {}
        self._kinds: dict[str, Kind] = {}  # of the results of a session that wait
        self._ahead: dict[str, Cursor] = {}  # cursors behind what waits, and behind files that are not yet noted
        self._unnoted: dict[str, tuple[Cursor, Cursor]] = {}  # sessions in files that Redis does not know of
        self._turn = asyncio.Lock()
        self._failure: str | None = None
        self._number = 0

    async def open(self) -> None:
        try:
            newest = await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise UsageError(f"cannot write to {self._dir}: {error.strerror}; set STREAMER_PARQUET_DIR") from None
        self._unnoted = await asyncio.to_thread(cursors_of, newest) if newest is not None else {}
        await self._note()
        self._timer = asyncio.create_task(self._write_in_time())

    async def close(self) -> None:
        """Write what waits.

        Raises:
            Unavailable: It cannot be written; the next process reads it again.
        """
        self._timer.cancel()
        with suppress(asyncio.CancelledError):
            await self._timer
        async with self._turn:
            for kind in list(self._batches):
                await self._write(kind)
        os.close(self._lock)

    def degraded(self) -> list[str]:
        return [] if self._failure is None else [self._failure]

    async def read(self, session: str) -> Cursor:
        """Where the sink is, with what waits."""
        return self._ahead.get(session) or await self.given.cursors.read(session)

    async def move(self, session: str, before: Cursor, after: Cursor) -> bool:
        """Pass over results; see :class:`streamer.store.readers.Places`."""
        return await self.given.cursors.move(session, before, after)

    async def take(self, page: Page) -> int | None:
        """Hold the results of a page for a file.

        Raises:
            Unavailable: A file cannot be written.
            RedisError, OSError: Redis does not answer.
        """
        cursor = page.cursor
        async with self._turn:
            for result in page.results:
                kind = Kind.of(result)
                if self._kinds.setdefault(page.session, kind) != kind:
                    await self._write(self._kinds[page.session])
                    self._kinds[page.session] = kind
                self._batches.setdefault(kind, Batch()).add(cursor, result)
                self._ahead[page.session] = cursor = Cursor(result.end_us)
                if self._held() >= self._rows:
                    await self._write(max(self._batches, key=lambda one: len(self._batches[one].results)))
            self.given.metrics.held.set(self._held())
        return cursor.end_us

    def _held(self) -> int:
        return sum(len(batch.results) for batch in self._batches.values())

    async def _write_in_time(self) -> None:
        while True:
            await asyncio.sleep(self._every_s / 4)
            async with self._turn:
                old_s = monotonic() - self._every_s
                try:
                    await self._note()
                    for kind in [kind for kind, batch in self._batches.items() if batch.since_s <= old_s]:
                        await self._write(kind)
                except (Unavailable, RedisError, OSError) as error:
                    self._fails(str(error))
            self.given.metrics.held.set(self._held())

    def _fails(self, why: str) -> None:
        if self._failure is None:
            log.warning("%s; tried again", why)
        self._failure = why

    async def _write(self, kind: Kind) -> None:
        """Write the file of a kind, then move the cursors.

        Raises:
            Unavailable: It cannot be written; its results still wait.
            RedisError, OSError: Redis does not answer; the cursors are moved later.
        """
        await self._note()  # a file whose cursors are not noted must be the newest one
        batch = self._batches[kind]
        try:
            await asyncio.to_thread(self._write_file, kind, batch)
        except OSError as error:
            self._fails(f"cannot write to {self._dir}: {error.strerror}")
            raise Unavailable(str(self._failure)) from error
        self._failure = None
        del self._batches[kind]
        self._unnoted = batch.cursors
        self._kinds = {session: of for session, of in self._kinds.items() if of != kind}
        self.given.metrics.sent.inc(len(batch.results))
        await self._note()

    async def _note(self) -> None:
        """Move the cursors behind the newest file; again is no harm."""
        unnoted = list(self._unnoted.items())
        for at in range(0, len(unnoted), self.at_once):
            some = unnoted[at : at + self.at_once]
            await asyncio.gather(*(self.given.cursors.move(session, *cursors) for session, cursors in some))
            for session, (_, after) in some:
                del self._unnoted[session]
                if self._ahead.get(session) == after:
                    del self._ahead[session]

    # in a thread

    def _prepare(self) -> Path | None:
        """Clear away what a predecessor left unfinished; returns the newest file."""
        self._dir.mkdir(parents=True, exist_ok=True)
        name = self.given.name
        self._lock = os.open(self._dir / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another sink of the name {name} writes to {self._dir}; stop it, or give this one another --name"
            ) from None
        for draft in self._dir.glob(f".{name}-*.draft"):
            draft.unlink()
        pattern = re.compile(rf"{re.escape(name)}-(\d{{10}})-(-?\d+)-(-?\d+)\.parquet")
        numbered = [(match[1], path) for path in self._dir.glob("*/*/*") if (match := pattern.fullmatch(path.name))]
        if not numbered:
            return None
        number, newest = max(numbered)
        self._number = int(number)
        return newest

    def _write_file(self, kind: Kind, batch: Batch) -> None:
        folder = self._dir / f"day={kind.day}" / f"model={quote(kind.model, safe='')}"
        folder.mkdir(parents=True, exist_ok=True)
        first, last = (pick(result.end_us for result in batch.results) for pick in (min, max))
        name = f"{self.given.name}-{self._number + 1:010d}-{first}-{last}.parquet"
        draft = self._dir / f".{name}.draft"
        with draft.open("wb") as file:
            pq.write_table(table(batch), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / name)
        for changed in (folder, folder.parent, self._dir):
            sync(changed)
        self._number += 1


def table(batch: Batch) -> pa.Table:
    """The rows of a file, with the cursors in its metadata."""
    rows = [row(result) for result in batch.results]
    cursors = {session: (before.end_us, after.end_us) for session, (before, after) in batch.cursors.items()}
    schema = SCHEMA.with_metadata({CURSORS: msgspec.json.encode(cursors)})
    return pa.Table.from_pylist(rows, schema)


def row(result: Result) -> dict[str, Any]:
    """A result as a row of ``SCHEMA``."""
    decided, score = decision(result)
    return {
        "id": result.id,
        "session": result.session,
        "start_time": result.start_us,
        "end_time": result.end_us,
        "closed_by": result.closed_by,
        "status": result.status,
        "decision": decided,
        "score": score,
        "outputs": msgspec.json.encode(result.outputs).decode(),
        "present": result.present,
        "coverage": list(result.coverage.items()),
        "novelty": list(result.novelty.items()),
        "latencies_us": list(result.latencies_us.items()),
        "members": msgspec.json.encode(result.members).decode(),
        "embedding": np.frombuffer(result.embedding, "<f2").astype(np.float32),
        "model": result.model,
        "version": result.version,
    }


def cursors_of(path: Path) -> dict[str, tuple[Cursor, Cursor]]:
    """The cursors of a file's sessions, before and after it.

    Raises:
        UsageError: It is not a file of ours.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        found = msgspec.json.decode(metadata[CURSORS], type=dict[str, tuple[int | None, int]])
    except (OSError, KeyError, pa.ArrowException, msgspec.DecodeError) as error:
        raise UsageError(f"{path} is not as `streamer sink parquet` wrote it ({error}); move it elsewhere") from None
    return {session: (Cursor(before), Cursor(after)) for session, (before, after) in found.items()}


def sync(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
