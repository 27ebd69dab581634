"""The search index: what is in it, what leaves it, and what is found."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from PIL import Image

from streamer.errors import ModelError, UsageError
from streamer.model.predictor import Network, Predictor
from streamer.result import Result
from streamer.retrieval import mirror, query, store
from streamer.retrieval.indexes import MAX_FILE_BYTES
from streamer.retrieval.search import check_space, hit, search
from streamer.retrieval.store import Covered, Store
from streamer.settings import Settings
from streamer.store.results import PAGE, Keys

S_US = 1_000_000
WIDTH = 16
MODEL = Path(__file__).parents[3] / "models/driving"
KEYS = Keys("streamer")


def vector(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    made = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return made / np.linalg.norm(made)


def result(session: str, second: int, *, seed: int | None = None, version: str = "1-a", **changed: Any) -> Result:
    values: dict[str, Any] = {
        "session": session,
        "start_us": (second - 1) * S_US,
        "end_us": second * S_US,
        "closed_by": "complete",
        "present": ("image",),
        "coverage": {},
        "members": {"streamer.frames": ((3, 7),)},
        "outputs": {"action": {"label": "brake", "score": 0.9}},
        "embedding": vector(second if seed is None else seed).astype("<f2").tobytes(),
        "model": "driving",
        "version": version,
        "status": "ok",
        "latencies_us": {},
    }
    return Result(**(values | changed))


class Streams:
    """Results streams in memory, asked as the mirror and a search ask Redis."""

    def __init__(self, *results: Result) -> None:
        self.of: dict[str, list[Result]] = {}
        self.reads = 0
        self.publish(*results)

    def publish(self, *results: Result) -> None:
        for one in results:
            self.of.setdefault(one.session, []).append(one)

    def forget(self, session: str) -> None:
        del self.of[session]

    def zrevrange(self, key: str, first: int, last: int) -> list[bytes]:
        assert key == KEYS.sessions
        return [name.encode() for name in self.of]

    def xrange(
        self,
        key: str,
        min: str = "-",  # noqa: A002 - redis-py's names
        max: str = "+",  # noqa: A002
        count: int | None = None,
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        low = 0 if min == "-" else int(min.split("-")[0])
        high = 1 << 60 if max == "+" else int(max.split("-")[0])
        found = [one for one in self._stream(key) if low <= one.end_us <= high][:count]
        self.reads += len(found)
        return [entry(one) for one in found]

    def xrevrange(self, key: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return [entry(one) for one in self._stream(key)[::-1][:count]]

    def _stream(self, key: str) -> list[Result]:
        return next((found for session, found in self.of.items() if KEYS.results(session) == key), [])

    def pipeline(self, transaction: bool) -> Streams:
        self.answers: list[Any] = []
        return Pipeline(self)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Pipeline(Streams):
    def __init__(self, streams: Streams) -> None:
        self.of, self.reads, self.waiting = streams.of, 0, list[Any]()

    def xrange(self, key: str, **span: Any) -> Any:  # type: ignore[override]
        self.waiting.append(super().xrange(key, **span))

    def execute(self) -> list[Any]:
        return self.waiting


def entry(one: Result) -> tuple[bytes, dict[bytes, bytes]]:
    return f"{one.end_us}-0".encode(), {name.encode(): value for name, value in one.to_fields().items()}


def update(streams: Streams, index: Store, **options: Any) -> mirror.Update:
    with index.writing():
        return mirror.update(streams, KEYS, index, **options)


def ends(index: Store, session: str, space: str = "driving 1-a") -> list[int]:
    found = index.search(space, vector(0), 10_000, session, exact=True)
    return sorted(one.end_us // S_US for one in found)


@pytest.fixture
def index(tmp_path: Path) -> Any:
    with Store(tmp_path / "index", "streamer", writable=True) as made:
        yield made


# what is in it


def test_an_update_reads_only_what_is_new(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 6)))
    assert update(streams, index).added == 5
    streams.publish(result("car-1", 6), result("car-2", 1))
    streams.reads = 0
    done = update(streams, index)
    assert (done.added, done.read) == (2, 2)
    assert streams.reads == 4  # the two new ones, and the oldest of each session
    assert ends(index, "car-1") == [1, 2, 3, 4, 5, 6]


def test_many_pages_are_read_to_the_end(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 2 * PAGE + 2)))
    assert update(streams, index).added == 2 * PAGE + 1
    assert update(streams, index).added == 0


def test_a_window_is_one_entry_however_often_it_comes(index: Store) -> None:
    once = [result("car-1", 1), result("car-1", 2)]
    assert index.add("car-1", once, Covered(0, S_US)) == 2
    assert index.add("car-1", once, Covered(0, 2 * S_US)) == 0
    assert ends(index, "car-1") == [1, 2]


def test_what_redis_has_trimmed_leaves_the_index(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 6)))
    update(streams, index)
    streams.of["car-1"] = streams.of["car-1"][3:]
    assert update(streams, index).dropped == 3
    assert ends(index, "car-1") == [4, 5]


def test_a_forgotten_session_leaves_the_index_with_its_vectors(index: Store, tmp_path: Path) -> None:
    secret = result("car-2", 77)
    streams = Streams(result("car-1", 1), secret)
    update(streams, index)
    streams.forget("car-2")
    assert update(streams, index).dropped == 1
    assert ends(index, "car-2") == []
    assert "car-2" not in index.covered()
    held = b"".join(path.read_bytes() for path in (tmp_path / "index").iterdir())
    assert secret.embedding not in held


def test_a_session_that_was_forgotten_and_published_again_is_read_again(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 6)))
    update(streams, index)
    streams.forget("car-1")
    streams.publish(result("car-1", 2, seed=500))
    update(streams, index)
    assert ends(index, "car-1") == [2]
    assert index.search("driving 1-a", vector(500), 1)[0].score == pytest.approx(1, abs=1e-3)


def test_one_session_can_be_updated_alone(index: Store) -> None:
    streams = Streams(result("car-1", 1), result("car-2", 1))
    update(streams, index, only=["car-2"])
    assert (ends(index, "car-1"), ends(index, "car-2")) == ([], [1])
    streams.forget("car-2")
    update(streams, index, only=["car-1"])
    assert ends(index, "car-2") == [1]  # not asked about


def test_older_windows_can_be_left_out_and_added_later(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 6)))
    update(streams, index, since_us=4 * S_US)
    assert ends(index, "car-1") == [4, 5]
    update(streams, index, since_us=2 * S_US)
    assert ends(index, "car-1") == [2, 3, 4, 5]
    streams.publish(result("car-1", 6))
    update(streams, index)
    assert ends(index, "car-1") == [1, 2, 3, 4, 5, 6]


def test_windows_on_which_the_model_failed_are_passed_over_once(index: Store) -> None:
    streams = Streams(result("car-1", 1, embedding=b"", outputs={}, status="failed"))
    assert (update(streams, index).added, update(streams, index).read) == (0, 0)


def test_following_adds_what_comes(index: Store) -> None:
    streams = Streams(result("car-1", 1))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        streams.publish(result("car-1", 1 + len(waits)))

    with index.writing():
        changes = mirror.follow(streams, KEYS, index, sleep=sleep)
        assert [next(changes).added for _ in range(3)] == [1, 1, 1]
    assert waits == [mirror.FOLLOW_S] * 2


# versions


def test_versions_of_a_model_are_kept_apart(index: Store) -> None:
    streams = Streams(result("car-1", 1), result("car-1", 2, version="1-b"))
    update(streams, index)
    assert index.sizes() == {"driving 1-b": 1, "driving 1-a": 1}
    assert [one.end_us for one in index.search("driving 1-a", vector(2), 10)] == [S_US]
    with pytest.raises(UsageError, match=r"the index holds .* and no window of driving 1-c, whose embeddings"):
        check_space(index, "driving 1-c", None)


def test_a_search_that_could_find_nothing_says_what_to_do(index: Store) -> None:
    with pytest.raises(UsageError, match=r"is empty; publish windows, then run `streamer index`"):
        check_space(index, "driving 1-a", None)
    update(Streams(result("car-1", 1)), index)
    with pytest.raises(UsageError, match=r"nothing of session 'car-9' is indexed"):
        check_space(index, "driving 1-a", "car-9")


# searching


def find(streams: Streams, index: Store, seed: int, limit: int = 3, session: str | None = None) -> list[str]:
    found = search(streams, KEYS, index, vector(seed), model="driving", version="1-a", limit=limit, session=session)
    return [one.id for one, _ in found]


def test_the_best_match_comes_first_with_its_result(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 50)), result("car-2", 60))
    update(streams, index)
    found = search(streams, KEYS, index, vector(7), model="driving", version="1-a", limit=3)
    assert found[0][0] == streams.of["car-1"][6]
    assert found[0][1] == pytest.approx(1, abs=1e-3)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert find(streams, index, 7, 5, "car-2") == [f"car-2/{60 * S_US}"]


def test_what_redis_no_longer_has_is_passed_over_before_the_index_knows(index: Store) -> None:
    streams = Streams(*(result("car-1", second) for second in range(1, 50)), *(result("car-2", n) for n in (60, 61)))
    update(streams, index)
    streams.forget("car-1")
    assert sorted(find(streams, index, 7, 2)) == [f"car-2/{n * S_US}" for n in (60, 61)]


def test_a_hit_names_the_offset_of_its_newest_frame() -> None:
    one = hit(result("car-1", 5), 0.5, Settings.load(partitions=1), description="It brakes.")
    assert msgspec.json.decode(msgspec.json.encode(one)) == {
        "session": "car-1",
        "start_us": 4 * S_US,
        "end_us": 5 * S_US,
        "time": "1970-01-01T00:00:04.000Z",
        "similarity": 0.5,
        "label": "brake",
        "score": 0.9,
        "frame": {"topic": "streamer.frames", "partition": 0, "offset": 7},
        "thumbnail": None,
        "description": "It brakes.",
    }
    assert hit(result("car-1", 5, members={}), 0.5, Settings.load()).frame is None


# graphs


@pytest.fixture
def small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LEAST_TAIL", 50)
    monkeypatch.setattr(store, "CHUNK", 64)


def filled(index: Store, count: int, session: str = "car-1") -> Streams:
    streams = Streams(*(result(session, second) for second in range(1, count + 1)))
    update(streams, index)
    index.refresh()
    return streams


def graphs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.usearch*"))


@pytest.mark.usefixtures("small_graphs")
def test_a_graph_finds_nearly_all_that_comparing_all_finds(index: Store, tmp_path: Path) -> None:
    streams = filled(index, 300)
    assert len(graphs(tmp_path / "index")) == 1
    streams.publish(*(result("car-2", second) for second in range(301, 320)))
    update(streams, index)  # these are in no graph yet
    found = wanted = 0
    for seed in range(0, 1000, 10):  # of a window in the graph, of one that is in none yet, of none at all
        exact = index.search("driving 1-a", vector(seed), 10, exact=True)
        by_graph = index.search("driving 1-a", vector(seed), 10)
        assert by_graph == sorted(by_graph, key=lambda one: -one.score)
        found += len(set(by_graph) & set(exact))
        wanted += len(exact)
    assert wanted == 1000
    assert found >= 950  # the graph is approximate, and threads build it in an order of their own


@pytest.mark.usefixtures("small_graphs")
def test_deleted_windows_are_not_found_by_an_old_graph(index: Store) -> None:
    streams = filled(index, 300)
    streams.of["car-1"] = streams.of["car-1"][250:]
    update(streams, index)
    found = index.search("driving 1-a", vector(3), 50)
    assert sorted(one.end_us // S_US for one in found) == list(range(251, 301))


@pytest.mark.usefixtures("small_graphs")
def test_a_graph_is_extended_and_the_old_file_goes(index: Store, tmp_path: Path) -> None:
    streams = filled(index, 200)
    [before] = graphs(tmp_path / "index")
    streams.publish(*(result("car-1", second) for second in range(201, 280)))
    streams.of["car-1"] = streams.of["car-1"][20:]
    update(streams, index)
    told: list[tuple[int, int]] = []
    index.refresh(lambda done, total: told.append((done, total)))
    [after] = graphs(tmp_path / "index")
    assert after != before
    assert told[-1] == (79, 79)  # only what is new
    assert index.search("driving 1-a", vector(270), 1)[0].end_us == 270 * S_US


@pytest.mark.usefixtures("small_graphs")
def test_forgetting_deletes_the_graph_that_holds_the_vectors(index: Store, tmp_path: Path) -> None:
    filled(index, 100)
    update(Streams(*(result("car-1", n) for n in range(1, 101)), result("car-2", 200)), index)
    index.forget("car-2")
    assert len(graphs(tmp_path / "index")) == 0
    assert index.search("driving 1-a", vector(5), 1)[0].end_us == 5 * S_US
    index.refresh()
    assert len(graphs(tmp_path / "index")) == 1


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("damage", ["truncated", "foreign", "gone"])
def test_a_graph_that_cannot_be_read_is_done_without(index: Store, tmp_path: Path, damage: str) -> None:
    filled(index, 100)
    [name] = graphs(tmp_path / "index")
    path = tmp_path / "index" / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:3000] if damage == "truncated" else b"hello" * 100)
    assert index.search("driving 1-a", vector(5), 1)[0].end_us == 5 * S_US


# dying and opening


DIES = """
import os, signal, sys
from pathlib import Path
from streamer.retrieval import store
from streamer.retrieval.store import Covered, Store

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

when, folder = sys.argv[1], Path(sys.argv[2])
index = Store(folder, "streamer", writable=True)
rows = [("driving 1-a", "car-1", second * 1_000_000, bytes([second]) * 32) for second in range(1, 60)]
with index._change():
    index._db.executemany("INSERT INTO windows (space, session, end_us, embedding) VALUES (?, ?, ?, ?)", rows)
    index._db.execute("INSERT INTO sessions VALUES ('car-1', 0, 59000000)")
    if when == "adding":
        die()
store.LEAST_TAIL = 10
store.os.fsync = die  # the graph's file is written, and not yet named
index.refresh()
"""


@pytest.mark.parametrize("when", ["adding", "building"])
def test_a_process_that_is_killed_in_mid_write_leaves_an_index_that_works(tmp_path: Path, when: str) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, when, str(tmp_path)], timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert len(graphs(tmp_path)) == (0 if when == "adding" else 1)
    with Store(tmp_path, "streamer", writable=True) as index:
        assert len(ends(index, "car-1")) == (0 if when == "adding" else 59)
        results = [result("car-1", second) for second in range(1, 60)]
        assert update(Streams(*results), index).added == (59 if when == "adding" else 0)
        index.refresh()
        assert graphs(tmp_path) == []  # what the dead one left is gone, and 59 windows need none
        assert len(index.search("driving 1-a", vector(5), 100)) == 59


def test_two_processes_do_not_extend_one_index(index: Store, tmp_path: Path) -> None:
    with (
        index.writing(),
        Store(tmp_path / "index", "streamer") as other,
        pytest.raises(UsageError, match="another `streamer index` is at work on"),
        other.writing(),
    ):
        pass


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no index in .*; run `streamer index`, or set STREAMER_INDEX"):
        Store(tmp_path, "streamer")


@pytest.mark.parametrize("content", [b"no database", b"no database " * 1000])
def test_a_broken_index_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "streamer.sqlite").write_bytes(content)
    with pytest.raises(UsageError, match=r"delete it and run `streamer index`"):
        Store(tmp_path, "streamer")


def test_the_index_of_another_version_of_streamer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path, "streamer", writable=True)._db.close()
    monkeypatch.setattr(store, "FORMAT", 2)
    with pytest.raises(UsageError, match="was not made by this version of streamer"):
        Store(tmp_path, "streamer", writable=True)


# queries


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(MODEL, "cpu")


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def sound(seconds: float, rate_hz: int = 16_000) -> bytes:
    file = io.BytesIO()
    samples = np.sin(np.arange(round(seconds * rate_hz)) / 7) * 0.5
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_each_kind_of_query_becomes_a_vector_of_length_one(predictor: Predictor) -> None:
    made = [
        query.text(predictor, "  ambulance   behind you "),
        *(query.image(predictor, picture(kind), "x") for kind in ("PNG", "JPEG", "WEBP")),
        query.audio(predictor, sound(0.3, 44_100), "x"),
        query.audio(predictor, sound(3.2), "x"),
    ]
    assert {one.shape for one in made} == {(128,)}
    assert [float(np.linalg.norm(one)) for one in made] == pytest.approx([1.0] * len(made), abs=1e-3)
    assert np.allclose(made[0], query.text(predictor, "ambulance behind you"))


def test_a_query_is_what_a_window_with_that_alone_would_be(predictor: Predictor) -> None:
    from streamer.model.sample import Phrase, Sample

    sample = Sample((False, False, True, False), (0.0, 0.0, 1.0, 0.0), text=(Phrase("lane is free", 1.0),))
    [own_D] = predictor.embed([sample], "text")
    assert np.allclose(query.text(predictor, "lane is free"), own_D, atol=1e-5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_a_turned_camera_took_is_searched_for_upright(predictor: Predictor, kind: str) -> None:
    upright = Image.open(io.BytesIO(picture())).resize((96, 160))
    note = Image.Exif()
    note[0x0112] = 6
    stored, same, untold = io.BytesIO(), io.BytesIO(), io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    upright.transpose(Image.Transpose.ROTATE_90).save(stored, kind, exif=note, **options)
    upright.transpose(Image.Transpose.ROTATE_90).save(untold, kind, **options)
    upright.save(same, kind, **options)
    one, other, wrong = (query.image(predictor, file.getvalue(), "x") for file in (stored, same, untold))
    assert float(one @ other) > 0.999
    assert float(one @ wrong) < float(one @ other)


def test_a_sound_whose_header_has_no_length_is_searched_for_whole(predictor: Predictor) -> None:
    whole = sound(2.5)
    streamed = whole[:4] + bytes(4) + whole[8:40] + bytes(4) + whole[44:]
    assert np.allclose(query.audio(predictor, streamed, "x"), query.audio(predictor, whole, "x"), atol=1e-6)


def test_a_picture_with_previews_behind_it_can_be_searched_for(predictor: Predictor) -> None:
    """Cameras write JPEG so (Multi-Picture Format), which Pillow gives a name of its own."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(
        file, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 9))], quality=95
    )
    assert query.image(predictor, file.getvalue(), "x").shape == (128,)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: query.text(p, "  "), "a query has 1 to 500 characters, not 0"),
        (lambda p: query.text(p, "x" * 501), "a query has 1 to 500 characters, not 501"),
        (lambda p: query.image(p, b"hello", "cat.png"), "cat.png is no picture that can be read"),
        (lambda p: query.image(p, picture("JPEG")[:700], "half.jpg"), "half.jpg"),
        (lambda p: query.image(p, bytes(MAX_FILE_BYTES + 1), "big.png"), "big.png has more than 16 MiB"),
        (lambda p: query.audio(p, b"hello", "x.wav"), "x.wav is no sound that can be read"),
        (lambda p: query.audio(p, sound(0), "x.wav"), "x.wav holds no sound; it must last at most 60 s"),
        (lambda p: query.audio(p, sound(61, 8000), "x.wav"), "x.wav is too long; it must last at most 60 s"),
    ],
)
def test_a_query_that_cannot_be_read_is_one_line(predictor: Predictor, ask: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        ask(predictor)
    assert "\n" not in str(refused.value)


def test_a_sound_too_short_for_the_model_to_hear_is_one_line(predictor: Predictor) -> None:
    with pytest.raises(ModelError, match="model driving can make nothing of the query: vectors of audio"):
        query.audio(predictor, sound(0.001), "click.wav")


def test_a_model_without_the_modality_says_which_it_has(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = msgspec.structs.replace(predictor.spec, inputs=msgspec.structs.replace(predictor.spec.inputs, audio=None))
    monkeypatch.setattr(predictor, "spec", spec)
    with pytest.raises(ModelError, match="model driving has no audio; it knows image, text, telemetry"):
        query.audio(predictor, sound(1), "x.wav")


def test_a_model_without_vectors_of_its_modalities_cannot_be_asked(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = Network._outputs
    monkeypatch.setattr(Network, "_outputs", lambda self, samples: outputs(self, samples)._replace(parts={}))
    with pytest.raises(ModelError, match="model driving has no vectors of text; it has none"):
        query.text(predictor, "lane is free")


@pytest.fixture(scope="module")
def surround() -> Predictor:
    return Predictor.load(MODEL.parent / "surround", "cpu")


def test_a_query_is_taken_as_content_of_the_sensor_that_it_names_else_of_the_first_of_its_kind(
    surround: Predictor,
) -> None:
    front, rear = (query.image(surround, picture(), "x", f"camera_{side}") for side in ("front", "rear"))
    assert np.allclose(query.vector(surround, "image", picture(), "x"), front)
    assert np.allclose(query.vector(surround, "image", picture(), "x", "camera_rear"), rear)
    assert not np.allclose(front, rear, atol=0.01)
    assert query.vector(surround, "audio", sound(1), "x", "cabin_mic").shape == front.shape


@pytest.mark.parametrize(
    ("kind", "content", "sensor", "message"),
    [
        ("image", picture(), "camera_left", "reads no image of a sensor camera_left; it has camera_front, camera_rear"),
        ("image", picture(), "roof_mic", "reads no image of a sensor roof_mic"),
        ("text", "siren", None, "has no text; it knows camera_front, camera_rear, roof_mic, cabin_mic, can, imu"),
    ],
)
def test_a_sensor_that_the_model_does_not_read_is_refused_with_those_that_it_reads(
    surround: Predictor, kind: str, content: Any, sensor: str | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        query.vector(surround, kind, content, "x", sensor)
