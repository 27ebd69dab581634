"""An index in a folder: SQLite holds what is indexed, a graph beside it makes the search fast.

    {prefix}.sqlite                  every indexed window with its embedding, and how far each session has been read
    {prefix}-{space}-{key}.usearch   HNSW graph (Malkov & Yashunin 2018) of the vectors up to this key

SQLite is the truth: each change is one transaction. A graph is only a faster way to the same vectors: windows after its
last key are compared one by one, deleted windows that it still holds are skipped, and without a graph all are compared.
SQLite names a graph only once its file is complete, so a reader never opens an incomplete one.

Embeddings of two versions of a model cannot be compared: each version has its own space, and a search looks in one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.result import Result

FORMAT = 1  # of the tables
BUSY_S = 10.0  # longest wait for a change by another process
CHUNK = 10_000  # vectors compared at once
LEAST_TAIL, TAIL_SHARE = 2_000, 0.1  # more windows than this after the graph's last extend it
MOST_DEAD = 0.3  # a graph with a larger share of deleted windows is rebuilt
MARGIN = 2  # a graph is asked for this many times the windows wanted: some may be deleted
EXPANSION = 128  # candidates that a search in the graph keeps; bench/retrieval.py measures the recall

TABLES = """
CREATE TABLE windows (
  key INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: a graph may still hold the key of a deleted window
  space TEXT NOT NULL,
  session TEXT NOT NULL,
  end_us INTEGER NOT NULL,
  embedding BLOB NOT NULL,                -- float16, little-endian, length 1
  UNIQUE (session, end_us)
);
CREATE INDEX by_space ON windows (space, key);
CREATE TABLE sessions (session TEXT PRIMARY KEY, from_us INTEGER NOT NULL, upto_us INTEGER NOT NULL);
CREATE TABLE graphs (space TEXT PRIMARY KEY, file TEXT NOT NULL, upto_key INTEGER NOT NULL);
"""


class Found(NamedTuple):
    """A window with its cosine similarity to the query, -1 to 1."""

    session: str
    end_us: int
    score: float


class Covered(NamedTuple):
    """Results of a session whose window ends in ``[from_us, upto_us]`` have been read."""

    from_us: int
    upto_us: int


def space_of(model: str, version: str) -> str:
    """Name of the space in which embeddings of this model can be compared."""
    return f"{model} {version}"


class Store:
    """The index in a folder.

    Args:
        writable: Create the index if there is none.

    Raises:
        UsageError: There is no index, it cannot be opened, or another version of streamer made it.
    """

    def __init__(self, folder: Path, prefix: str, writable: bool = False) -> None:
        self._folder = folder
        self._prefix = prefix
        self._path = folder / f"{prefix}.sqlite"
        try:
            if writable:
                _new_graph(1)  # a missing library is reported now, not with the first graph
                folder.mkdir(parents=True, exist_ok=True)
            elif not self.exists(folder, prefix):
                raise UsageError(f"there is no index in {folder}; run `streamer index`, or set STREAMER_INDEX")
            self._db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
            self._db.execute("PRAGMA synchronous = NORMAL")  # a power cut may undo the last changes, each as a whole
            self._db.execute("PRAGMA secure_delete = ON")  # forgotten vectors are overwritten
            self._make_tables(writable)
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from None

    @staticmethod
    def exists(folder: Path, prefix: str) -> bool:
        """Whether there is an index."""
        return (folder / f"{prefix}.sqlite").is_file()

    def _make_tables(self, writable: bool) -> None:
        with self._change():
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0 and writable:
                for statement in TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
            elif version != FORMAT:
                raise UsageError(
                    f"{self._path} was not made by this version of streamer; delete it and run `streamer index`"
                )

    def _broken(self, error: Exception) -> UsageError:
        return UsageError(f"index {self._path}: {error}; if it is broken, delete it and run `streamer index` again")

    @property
    def where(self) -> str:
        """The folder, for messages."""
        return str(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction.

        Raises:
            UsageError: The file cannot be read or written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _rows(self, query: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    # what is indexed

    def covered(self) -> dict[str, Covered]:
        """How far each session has been read."""
        return {session: Covered(*span) for session, *span in self._rows("SELECT * FROM sessions")}

    def sizes(self) -> dict[str, int]:
        """Space -> windows in it."""
        return dict(self._rows("SELECT space, count(*) FROM windows GROUP BY space ORDER BY max(key) DESC"))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to extend the index, which one process has at a time.

        Raises:
            UsageError: Another process holds it.
        """
        with self._path.with_suffix(".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"another `streamer index` is at work on {self._folder}") from None
            yield

    def add(self, session: str, results: Sequence[Result], covered: Covered) -> int:
        """Index the results that have an embedding, and note how far the session has now been read.

        Returns:
            The number of new windows.
        """
        rows = [
            (space_of(result.model, result.version), session, result.end_us, result.embedding)
            for result in results
            if result.embedding
        ]
        with self._change():
            insert = "INSERT OR IGNORE INTO windows (space, session, end_us, embedding) VALUES (?, ?, ?, ?)"
            added = self._db.executemany(insert, rows).rowcount if rows else 0
            self._db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", (session, *covered))
        return added

    def trim(self, session: str, before_us: int) -> int:
        """Drop a session's windows that end before this time; returns their number."""
        where = "WHERE session = ? AND end_us < ?"
        if not self._rows(f"SELECT 1 FROM windows {where} LIMIT 1", session, before_us):
            return 0
        with self._change():
            return self._db.execute(f"DELETE FROM windows {where}", (session, before_us)).rowcount

    def forget(self, session: str) -> int:
        """Drop a session, with the graphs that hold its vectors; returns the number of its windows."""
        with self._change():
            spaces = "SELECT space FROM windows WHERE session = ?"
            files = self._db.execute(f"SELECT file FROM graphs WHERE space IN ({spaces})", (session,)).fetchall()
            self._db.execute(f"DELETE FROM graphs WHERE space IN ({spaces})", (session,))
            count = self._db.execute("DELETE FROM windows WHERE session = ?", (session,)).rowcount
            self._db.execute("DELETE FROM sessions WHERE session = ?", (session,))
        for (file,) in files:
            (self._folder / file).unlink(missing_ok=True)
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)")  # the write-ahead log holds the vectors too
        return count

    # graphs

    def refresh(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Build or extend the graphs that need it; drop those of spaces that are empty.

        Args:
            on_progress: Called with the number of vectors added, and of how many.
        """
        sizes = self.sizes()
        for space, size in sizes.items():
            file, upto = self._graph(space)
            [(tail,)] = self._rows("SELECT count(*) FROM windows WHERE space = ? AND key > ?", space, upto)
            if tail > max(LEAST_TAIL, TAIL_SHARE * size):
                self._extend(space, file, upto, tail, on_progress)
        with self._change():
            for (space,) in self._db.execute("SELECT space FROM graphs").fetchall():
                if space not in sizes:
                    self._db.execute("DELETE FROM graphs WHERE space = ?", (space,))
        named = {file for (file,) in self._rows("SELECT file FROM graphs")}
        for path in self._folder.glob(f"{self._prefix}-*.usearch*"):
            if path.name not in named:
                path.unlink(missing_ok=True)  # replaced, or left by a process that died

    def _graph(self, space: str) -> tuple[str | None, int]:
        rows = self._rows("SELECT file, upto_key FROM graphs WHERE space = ?", space)
        return rows[0] if rows else (None, 0)

    def _extend(
        self, space: str, file: str | None, upto: int, tail: int, on_progress: Callable[[int, int], None]
    ) -> None:
        graph = None if file is None else self._without_dead(space, _open_graph(self._folder / file))
        if graph is None:
            upto = 0
            [(tail,)] = self._rows("SELECT count(*) FROM windows WHERE space = ?", space)
        done = 0
        for key_N, vector_ND in self._vectors("space = ? AND key > ?", space, upto):
            graph = _new_graph(vector_ND.shape[1]) if graph is None else graph
            graph.add(key_N.astype(np.uint64), vector_ND)
            upto, done = int(key_N[-1]), done + len(key_N)
            on_progress(done, max(done, tail))
        if graph is not None:
            self._name_graph(space, graph, upto)

    def _without_dead(self, space: str, graph: Any) -> Any:
        """A graph without the deleted windows; ``None`` if it should be rebuilt."""
        if graph is None:
            return None
        keys_N = np.array([key for (key,) in self._rows("SELECT key FROM windows WHERE space = ?", space)], np.uint64)
        dead_M = np.setdiff1d(np.asarray(graph.keys), keys_N)
        if len(dead_M) > MOST_DEAD * len(graph):
            return None
        if len(dead_M):
            graph.remove(dead_M)
        return graph

    def _name_graph(self, space: str, graph: Any, upto: int) -> None:
        name = f"{self._prefix}-{hashlib.sha256(space.encode()).hexdigest()[:12]}-{upto}.usearch"
        beside = self._folder / f"{name}.new"
        try:
            graph.save(str(beside))
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.replace(self._folder / name)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"cannot write {beside}: {error}") from None
        with self._change():
            count = self._db.execute("SELECT count(*) FROM windows WHERE space = ? AND key <= ?", (space, upto))
            if count.fetchone()[0] == len(graph):  # else a session was forgotten meanwhile, which this graph holds
                self._db.execute("INSERT OR REPLACE INTO graphs VALUES (?, ?, ?)", (space, name, upto))

    def _vectors(self, where: str, *values: object) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Keys and vectors [N, D] of windows in the order of their keys, at most CHUNK at a time."""
        try:
            cursor = self._db.cursor().execute(f"SELECT key, embedding FROM windows WHERE {where} ORDER BY key", values)
            while rows := cursor.fetchmany(CHUNK):
                vectors = np.frombuffer(b"".join(blob for _, blob in rows), "<f2").reshape(len(rows), -1)
                yield np.array([key for key, _ in rows], np.int64), vectors
        except sqlite3.Error as error:
            raise self._broken(error) from None

    # search

    def search(
        self, space: str, vector_D: NDArray[np.float32], count: int, session: str | None = None, exact: bool = False
    ) -> list[Found]:
        """The windows whose embeddings are most like a vector of length 1, best match first.

        Args:
            session: Search this session only; its windows are compared one by one.
            exact: Compare with every window, not through the graph.
        """
        best: list[tuple[float, int]] = []
        values: list[object]
        where, values = "space = ? AND session = ?", [space, session]
        if session is None:
            upto, best = (0, best) if exact else self._by_graph(space, vector_D, count)
            where, values = "space = ? AND key > ?", [space, upto]
        for key_N, vector_ND in self._vectors(where, *values):
            best = _merged(best, key_N, vector_ND.astype(np.float32) @ vector_D, count)
        return self._named(best)

    def _by_graph(self, space: str, vector_D: NDArray[np.float32], count: int) -> tuple[int, list[tuple[float, int]]]:
        """The last key of the graph and its best matches; 0 and an empty list if there is no graph."""
        file, upto = self._graph(space)
        graph = None if file is None else _open_graph(self._folder / file, view=True)
        if graph is None:
            return 0, []
        asked, best = MARGIN * count, list[tuple[float, int]]()
        while asked <= CHUNK:
            found = graph.search(vector_D, min(asked, len(graph)))
            keys = np.asarray(found.keys).astype(np.int64).tolist()
            alive = f"space = ? AND key IN ({','.join('?' * len(keys))})"
            for alive_M, vector_MD in self._vectors(alive, space, *keys):
                best = _merged(best, alive_M, vector_MD.astype(np.float32) @ vector_D, count)
            if len(best) >= count or asked >= len(graph):
                return upto, best
            asked *= 2 * MARGIN
        return 0, []  # nearly all of it has been deleted

    def _named(self, best: Sequence[tuple[float, int]]) -> list[Found]:
        marks = ",".join("?" * len(best))
        keys = [key for _, key in best]
        named = {
            key: (session, end_us)
            for key, session, end_us in self._rows(
                f"SELECT key, session, end_us FROM windows WHERE key IN ({marks})", *keys
            )
        }
        return [Found(*named[key], score) for score, key in best if key in named]


def _merged(
    best: list[tuple[float, int]], key_N: NDArray[np.int64], score_N: NDArray[np.float32], count: int
) -> list[tuple[float, int]]:
    top_M = np.argpartition(-score_N, count)[:count] if len(score_N) > count else np.arange(len(score_N))
    more = [(float(score_N[row]), int(key_N[row])) for row in top_M]
    return sorted([*best, *more], key=lambda pair: (-pair[0], pair[1]))[:count]


def _new_graph(dimensions: int) -> Any:
    try:
        from usearch.index import Index
    except ModuleNotFoundError:
        raise UsageError("searching needs usearch: pip install 'streamer-multimodal[search]'") from None
    return Index(ndim=dimensions, metric="cos", dtype="f16", expansion_search=EXPANSION)


def _open_graph(path: Path, view: bool = False) -> Any:
    """A graph from its file; ``None`` if there is none or it cannot be read: a search works without.

    Args:
        view: Leave the graph on the disk, for searching only.
    """
    graph = _new_graph(1)  # loading sets the real number of dimensions
    with suppress(OSError, RuntimeError):
        if path.is_file():
            (graph.view if view else graph.load)(str(path))
            return graph
    return None
