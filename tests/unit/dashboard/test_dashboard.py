"""The live page's server, over HTTP, with Redis and Kafka replaced at their seams."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec
import numpy as np
import pytest
from kafka.partitioner.default import murmur2
from PIL import Image
from redis.exceptions import ConnectionError as RedisDown

from streamer.dashboard import alarms as alarms_module
from streamer.dashboard import live as live_module
from streamer.dashboard.alarms import Acknowledgement, Shown, Watch
from streamer.dashboard.live import MAX_CLIENTS, MAX_HELD, MAX_SESSIONS, Client, Live
from streamer.dashboard.search import MAX_WAITING, Finder
from streamer.dashboard.server import SCRIPTS, Dashboard, _content
from streamer.dashboard.speech import MAX_HELD as MAX_SPOKEN_HELD
from streamer.dashboard.speech import MAX_HELD_BYTES, Spoken
from streamer.errors import Unavailable, UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, KINDS, TELEMETRY, TEXT, Drift, Record, rfc3339
from streamer.result import Result
from streamer.retrieval import contents as windows_module
from streamer.retrieval.contents import BANDS, Gone, Ranges, Windows
from streamer.retrieval.search import Query
from streamer.rules.alarm import Alarm
from streamer.rules.alarms import Open
from streamer.settings import Settings
from streamer.speak.sentences import Severity, Utterance
from streamer.store.descriptions import Description
from streamer.store.results import Keys

S_US = 1_000_000
START_US = 1_750_000_000 * S_US
END_US = START_US + S_US
TOKEN = "a long enough ünguessable; token"
PARTITIONS = 3
SAMPLES_HZ = 8000


def result(session: str = "car-1", end_us: int = END_US, **changed: Any) -> Result:
    values: dict[str, Any] = {
        "session": session,
        "start_us": end_us - S_US,
        "end_us": end_us,
        "closed_by": "complete",
        "present": KIND_NAMES,
        "coverage": dict.fromkeys(KIND_NAMES, 1.0),
        "members": {f"streamer.{m.topic}": ((0, 9),) for m in KINDS},
        "outputs": {"action": {"label": "brake", "score": 0.9, "scores": {"brake": 0.9, "hold": 0.1}}},
        "embedding": b"\0\0",
        "model": "driving",
        "version": "1",
        "status": "ok",
        "latencies_us": {"total": 1000},
    }
    return Result(**values | changed)


def record(
    row: int, payload: bytes, content_type: str, session: str = "car-1", time_us: int = START_US, sensor: str = ""
) -> Record:
    partition = (murmur2(session.encode()) & 0x7FFFFFFF) % PARTITIONS
    headers = {
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "/test",
        "ce_type": KINDS[row].ce_type,
        "ce_time": rfc3339(time_us),
        "content-type": content_type,
        **({"ce_sensor": sensor} if sensor else {}),
    }
    return Record(
        row, partition, 0, END_US, session.encode(), payload, tuple((k, v.encode()) for k, v in headers.items())
    )


class MemorySource:
    """The source topics as lists of records; every read is counted, or fails."""

    partitions = PARTITIONS

    def __init__(self, *records: Record) -> None:
        self.records = records
        self.reads = 0
        self.fails: Exception | None = None

    def read(self, row: int, partition: int, ranges: Ranges) -> list[Record]:
        self.reads += 1
        if self.fails is not None:
            raise self.fails
        return [one for one in self.records if (one.row, one.partition) == (row, partition)]

    def close(self) -> None:
        pass


class MemoryRedis:
    """As much of redis.asyncio as the page uses."""

    def __init__(self, *results: Result) -> None:
        self.results = results
        self.down = False
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.drifts: list[tuple[str, tuple[Drift, ...]]] = []
        self.workers: dict[str, list[bytes]] = {}

    async def time(self) -> tuple[int, int]:
        return 1_750_000_000, 0

    def _found(self, key: str, least: str, most: str = "9" * 20) -> list[tuple[bytes, dict[bytes, bytes]]]:
        if self.down:
            raise RedisDown("gone")
        low, high = int(least.partition("-")[0]), int(most.partition("-")[0])
        keys = Keys("streamer")
        return [
            (f"{one.end_us}-0".encode(), {name.encode(): value for name, value in one.to_fields().items()})
            for one in self.results
            if keys.results(one.session) == key and low <= one.end_us <= high
        ]

    async def xrange(self, key: str, min: str, max: str = "+") -> Any:  # noqa: A002 - redis-py's names
        if key == "streamer:drifts":
            entries = [(name, msgspec.json.encode(found)) for name, found in self.drifts]
            return [(b"1-0", {b"session": name.encode(), b"drifts": text}) for name, text in entries]
        return self._found(key, min, max)

    async def xrevrange(self, key: str, min: str = "0-0", max: str = "9" * 20, count: int = 1) -> Any:  # noqa: A002
        if key.startswith("streamer:workers:"):
            return [(entry, {}) for entry in self.workers.get(key.removeprefix("streamer:workers:"), [])]
        return self._found(key, min, max)[::-1][:count]

    async def zrevrange(self, key: str, first: int, last: int) -> list[bytes]:
        if self.down:
            raise RedisDown("gone")
        return list(dict.fromkeys(one.session.encode() for one in self.results))

    @asynccontextmanager
    async def pipeline(self, transaction: bool) -> AsyncIterator[MemoryPipeline]:
        yield MemoryPipeline(self)

    @asynccontextmanager
    async def pubsub(self) -> AsyncIterator[MemoryRedis]:
        yield self

    async def subscribe(self, *channels: str) -> None:
        if self.down:
            raise RedisDown("gone")

    async def get_message(self, ignore_subscribe_messages: bool, timeout: float) -> dict[str, bytes]:  # noqa: ASYNC109 - redis-py's name
        message = await self.messages.get()
        channel = b"streamer:descriptions" if b'"text":"' in message else b"streamer:results"
        return {"channel": channel, "data": message}


class MemoryPipeline:
    def __init__(self, redis: MemoryRedis) -> None:
        self._redis = redis
        self._answers: list[Any] = []

    def hgetall(self, key: str) -> None:
        found = self._redis._found(key.removesuffix("latest") + "results", "0-0")
        self._answers.append(found[-1][1] if found else {})

    def object(self, what: str, key: str) -> None:
        self._answers.append(42)

    async def execute(self, raise_on_error: bool) -> list[Any]:
        return self._answers


class MemoryFinder(Finder):
    """Notes what is looked for and finds nothing, or fails."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.fails: Exception | None = None

    async def available(self) -> bool:
        return True

    async def find(self, query: Query) -> bytes:
        if self.fails is not None:
            raise self.fails
        self.asked.append(query)
        return b"[]"


class MemoryAlarms(Watch):
    """Notes what is acknowledged: the newest alarm ended at END_US."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, lambda shown: None)
        self.acknowledged: list[Acknowledgement] = []
        self.fails: Exception | None = None

    def acknowledge(self, what: Acknowledgement) -> bool:
        if self.fails is not None:
            raise self.fails
        self.acknowledged.append(what)
        return what.end_us == END_US


class Page(NamedTuple):
    """A running page and what it stands on."""

    get: Callable[..., Any]
    post: Callable[..., Any]
    finder: MemoryFinder
    redis: MemoryRedis
    source: MemorySource
    live: Live
    dashboard: Dashboard
    spoken: Spoken
    alarms: MemoryAlarms


Start = Callable[..., Awaitable[Page]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts the page; everything is stopped after the test."""
    undo: list[Callable[[], Awaitable[None]]] = []

    async def go(records: Sequence[Record] = (), results: Sequence[Result] = (result(),), **settings: Any) -> Page:
        given = Settings.load(dashboard_port=0, **settings)
        memory, source = MemoryRedis(*results), MemorySource(*records)
        windows = Windows(given, source)
        live = Live(memory, Keys("streamer"), dict)
        finder = MemoryFinder()
        spoken = Spoken()
        alarms = MemoryAlarms(given)
        dashboard = Dashboard(given, live, windows, finder, spoken, alarms)
        await dashboard.start()
        follow = asyncio.create_task(live.follow())
        session = aiohttp.ClientSession(
            f"http://127.0.0.1:{dashboard.port}", cookie_jar=aiohttp.CookieJar(unsafe=True), auto_decompress=False
        )

        async def stop() -> None:
            follow.cancel()
            await asyncio.wait([follow])
            await session.close()
            await dashboard.stop()
            await windows.close()

        undo.append(stop)
        return Page(session.get, session.post, finder, memory, source, live, dashboard, spoken, alarms)

    yield go
    for stop in undo:
        await stop()


async def status(page: Page, path: str, **options: Any) -> int:
    async with page.get(path, allow_redirects=False, **options) as answer:
        return int(answer.status)


# who may look


async def test_every_answer_forbids_foreign_content_and_keeps_nothing(start: Start) -> None:
    page = await start()
    for path in ("/", "/page/main.js", "/api/sessions", "/api/frame", "/nonsense"):
        async with page.get(path) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"


def test_the_page_holds_no_inline_script_or_style_and_nothing_from_elsewhere() -> None:
    for name in ("page.html", "login.html"):
        text = _content(name).decode()
        assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|https?://", text) == []
    for name in SCRIPTS:
        script = _content(f"page/{name}").decode()
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", script) == []


async def test_without_a_token_only_local_names_are_answered(start: Start) -> None:
    page = await start()
    for name in ("localhost", "127.0.0.1:8080", "[::1]:8080"):
        assert await status(page, "/", headers={"Host": name}) == 200
    for name in ("evil.example", "localhost.evil.example", "10.0.0.1", "[", ""):
        assert await status(page, "/api/sessions", headers={"Host": name}) == 403


async def test_a_token_opens_the_page_once_and_then_a_cookie_does(start: Start) -> None:
    page = await start(dashboard_token=TOKEN)
    async with page.get("/") as answer:
        assert answer.status == 401
        assert "<form" in await answer.text()
    assert await status(page, "/page.css") == 200
    for path in ("/page/main.js", "/api/sessions", "/events", "/api/sessions?token=" + TOKEN):
        assert await status(page, path) == 401
    assert await status(page, "/", params={"token": TOKEN[:-1]}) == 401
    async with page.get("/", params={"token": TOKEN}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert await status(page, "/api/sessions", headers={"Host": "page.example"}) == 200
    assert await status(page, "/", params={"token": TOKEN}) == 303  # out of the address bar again
    assert await status(page, "/", cookies={"streamer_dashboard": "forged"}) == 401


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dashboard_token": "short"}, "needs 16 characters or more"),
    ],
)
async def test_what_would_leave_the_page_open_is_refused_in_one_line(
    settings: dict[str, str], said: str, start: Start
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        await start(**settings)
    assert "\n" not in str(refused.value)


async def test_beyond_loopback_a_missing_token_is_made_and_shown_with_the_address(start: Start) -> None:
    page = await start(dashboard_host="0.0.0.0")
    address, _, token = page.dashboard.url.partition("?token=")
    assert address == f"http://localhost:{page.dashboard.port}/"
    assert len(token) >= 32
    assert await status(page, "/api/sessions") == 401
    assert await status(page, "/", params={"token": token}) == 303
    again = await start(dashboard_host="0.0.0.0")
    assert not again.dashboard.url.endswith(token)


async def test_a_given_token_is_not_shown(start: Start) -> None:
    page = await start(dashboard_token=TOKEN, dashboard_host="0.0.0.0")
    assert TOKEN not in page.dashboard.url


async def test_nothing_but_a_search_and_an_acknowledgement_can_be_posted(start: Start) -> None:
    page = await start()
    async with aiohttp.request("POST", f"http://127.0.0.1:{page.dashboard.port}/api/sessions") as answer:
        assert answer.status == 405


async def test_an_address_that_is_taken_is_one_line(start: Start) -> None:
    page = await start()
    settings = Settings.load(dashboard_port=page.dashboard.port)
    windows = Windows(settings, page.source)
    with pytest.raises(UsageError, match="set STREAMER_DASHBOARD_PORT"):
        await Dashboard(settings, page.live, windows, page.finder, Spoken(), page.alarms).start()


# what is answered


async def test_sessions_are_listed_with_their_newest_result_and_its_age(start: Start) -> None:
    page = await start(results=[result("..", END_US), result("..", END_US + S_US, status="failed", outputs={})])
    async with page.get("/api/sessions") as answer:
        (one,) = (await answer.json())["sessions"]
    assert (one["session"], one["end_us"], one["status"], one["label"]) == ("..", END_US + S_US, "failed", "failed")
    assert (one["score"], one["age_s"]) == (None, 42.0)


async def test_results_are_the_newest_since_a_time_oldest_first(start: Start) -> None:
    page = await start(results=[result("räume/7", END_US + i * S_US) for i in range(5)])
    query = {"session": "räume/7", "since": END_US + S_US, "limit": 3}
    async with page.get("/api/results", params=query) as answer:
        assert [one["end_us"] - END_US for one in await answer.json()] == [2 * S_US, 3 * S_US, 4 * S_US]


@pytest.mark.parametrize(
    "path",
    [
        "/api/results",
        "/api/results?session=" + "x" * 129,
        "/api/results?session=a&since=-1",
        "/api/results?session=a&since=²",
        "/api/results?session=a&until=x",
        "/api/search",
        "/api/search?q=" + "x" * 501,
        "/api/search?q=x&session=" + "x" * 129,
        "/api/frame?session=a&end_us=99999999999999999999",
    ],
)
async def test_a_question_that_makes_no_sense_is_400_with_one_line(path: str, start: Start) -> None:
    page = await start()
    async with page.get(path) as answer:
        assert answer.status == 400
        assert "must" in (await answer.json())["error"]


async def test_results_end_at_a_time_where_one_is_given(start: Start) -> None:
    page = await start(results=[result("car-1", END_US + i * S_US) for i in range(5)])
    async with page.get("/api/results", params={"session": "car-1", "until": END_US + S_US}) as answer:
        assert [one["end_us"] - END_US for one in await answer.json()] == [0, S_US]


# alarms

SEEN = {"session": "räume/7", "rule": "brake", "by": "Ada", "end_us": END_US}


async def test_an_alarm_is_acknowledged_as_it_was_seen(start: Start) -> None:
    page = await start()
    origin = {"Origin": f"http://127.0.0.1:{page.dashboard.port}"}
    async with page.post("/api/alarms/acknowledge", json=SEEN, headers=origin) as answer:
        assert answer.status == 200
    async with page.post("/api/alarms/acknowledge", json=SEEN | {"end_us": END_US - S_US}) as answer:
        assert answer.status == 409
        assert "raised again" in (await answer.json())["error"]
    assert [one.by for one in page.alarms.acknowledged] == ["Ada", "Ada"]
    page.alarms.fails = Unavailable("Redis refuses us: no permissions; SECURITY.md lists the rights")
    async with page.post("/api/alarms/acknowledge", json=SEEN) as answer:
        assert answer.status == 503
        assert "SECURITY.md" in (await answer.json())["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (json.dumps(SEEN), {"Content-Type": "text/plain"}, 415),  # which a foreign site may send
        (json.dumps(SEEN), {"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        (json.dumps(SEEN), {"Content-Type": "application/json", "Host": "evil.example"}, 403),
        (json.dumps(SEEN | {"by": " "}), {"Content-Type": "application/json"}, 400),
        (json.dumps(SEEN | {"by": "x" * 81}), {"Content-Type": "application/json"}, 400),
        (json.dumps(SEEN | {"more": 1}), {"Content-Type": "application/json"}, 400),
        ("[", {"Content-Type": "application/json"}, 400),
        (json.dumps(SEEN) + " " * 4096, {"Content-Type": "application/json"}, 413),
    ],
)
async def test_an_acknowledgement_that_a_foreign_site_could_send_or_is_none_is_refused(
    body: str, headers: dict[str, str], status: int, start: Start
) -> None:
    page = await start()
    async with page.post("/api/alarms/acknowledge", data=body.encode(), headers=headers) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]
    assert page.alarms.acknowledged == []


async def test_with_a_token_only_who_has_it_acknowledges(start: Start) -> None:
    page = await start(dashboard_token=TOKEN)
    async with page.post("/api/alarms/acknowledge", json=SEEN) as answer:
        assert answer.status == 401
    assert await status(page, "/api/alarms/log") == 401
    assert page.alarms.acknowledged == []


async def test_a_new_browser_gets_the_open_alarms_first(start: Start) -> None:
    page = await start()
    page.alarms.shown = Shown(True, [SEEN], {"alarm": 1})
    async with page.get("/events") as answer:
        news = json.loads((await answer.content.readline()).removeprefix(b"data: "))
    assert news["alarms"] == {"ruled": True, "open": [SEEN], "counts": {"alarm": 1}, "readable": True}


def test_open_alarms_are_the_most_severe_first_and_no_more_than_browsers_can_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms_module, "MAX_SHOWN", 3)
    told: list[Shown] = []
    watch = Watch(Settings.load(), told.append)
    given = [("notice", 9), ("alarm", 1), ("warning", 5), ("alarm", 2), ("warning", 7)]
    watch._add(
        [Open(Alarm(f"r{at}", how, "car", 0, at * S_US, "text"), 1, at * S_US) for how, at in given], ruled=False
    )
    (shown,) = told
    assert [one["rule"] for one in shown.open] == ["r2", "r1", "r7"]
    assert (shown.ruled, shown.counts) == (True, {"alarm": 2, "warning": 2, "notice": 1})


# search


async def test_words_pictures_and_sounds_can_be_looked_for(start: Start) -> None:
    page = await start()
    async with page.get("/api/search", params={"q": "siren & co", "limit": 5000, "session": "räume/7"}) as answer:
        assert (answer.status, await answer.json()) == (200, [])
    for content_type in ("image/png", "audio/x-wav"):
        async with page.post("/api/search", data=b"bytes", headers={"Content-Type": content_type}) as answer:
            assert (answer.status, await answer.json()) == (200, [])
    assert page.finder.asked == [
        Query("text", "siren & co", 100, "räume/7"),
        Query("image", b"bytes", 12, None),
        Query("audio", b"bytes", 12, None),
    ]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x", {"Content-Type": "text/plain"}, 415),
        (b"x", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        (b"x", {"Content-Type": "image/png", "Origin": "http://evil.example"}, 403),
        (bytes((16 << 20) + 1), {"Content-Type": "image/png"}, 413),
        (b"", {"Content-Type": "image/png"}, 400),
    ],
)
async def test_what_a_foreign_site_could_send_or_is_no_file_is_refused(
    body: bytes, headers: dict[str, str], status: int, start: Start
) -> None:
    page = await start()
    async with page.post("/api/search", data=io.BytesIO(body), headers=headers) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]
    assert page.finder.asked == []


async def test_a_file_that_does_not_say_its_length_is_refused_where_it_grows_too_large(start: Start) -> None:
    page = await start()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield bytes(1 << 20)

    async with page.post("/api/search", data=chunks(), headers={"Content-Type": "image/png"}) as answer:
        assert answer.status == 413
    assert page.finder.asked == []


async def test_the_page_itself_may_search_by_a_file(start: Start) -> None:
    page = await start()
    origin = f"http://127.0.0.1:{page.dashboard.port}"
    async with page.post("/api/search", data=b"x", headers={"Content-Type": "image/png", "Origin": origin}) as answer:
        assert answer.status == 200


async def test_a_search_needs_the_token_too(start: Start) -> None:
    page = await start(dashboard_token=TOKEN)
    assert await status(page, "/api/search?q=x") == 401
    async with page.post("/api/search", data=b"x", headers={"Content-Type": "image/png"}) as answer:
        assert answer.status == 401
    assert page.finder.asked == []


async def test_a_search_that_cannot_be_carried_out_says_why(start: Start) -> None:
    page = await start()
    for fault, expected in ((UsageError("no index"), 400), (Unavailable("too many"), 503)):
        page.finder.fails = fault
        async with page.get("/api/search", params={"q": "x"}) as answer:
            assert (answer.status, await answer.json()) == (expected, {"error": str(fault)})


async def test_a_search_without_redis_can_be_tried_again() -> None:
    finder = Finder(Settings.load(redis="redis://127.0.0.1:1/0"))
    assert await finder.available() is False
    with pytest.raises(Unavailable, match="Redis does not answer"):
        await finder.find(Query("text", "x", 1, None))
    await finder.close()


async def test_searches_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def find(self: Finder, query: Query) -> bytes:
        assert go.wait(10)
        return b"[]"

    monkeypatch.setattr(Finder, "_find", find)
    finder = Finder(Settings.load())
    query = Query("text", "x", 1, None)
    waiting = [asyncio.create_task(finder.find(query)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # a browser that goes away takes no search from the others
    with pytest.raises(Unavailable, match="too many searches"):
        await finder.find(query)
    go.set()
    assert await asyncio.gather(*waiting[1:]) == [b"[]"] * (MAX_WAITING - 1)
    assert await finder.find(query) == b"[]"
    await finder.close()


WINDOW = {"session": "car-1", "end_us": END_US}


async def test_a_frame_comes_as_it_was_sent(start: Start) -> None:
    page = await start([record(IMAGE, b"webp", "image/webp")])
    async with page.get("/api/frame", params=WINDOW) as answer:
        assert (answer.content_type, await answer.read()) == ("image/webp", b"webp")


SENSORS = {
    "camera_front": {"kind": "image"},
    "camera_rear": {"kind": "image"},
    "cabin_mic": {"kind": "audio"},
    "image": {"enabled": False},
}


async def test_the_page_is_told_the_kind_of_each_sensor_and_of_those_that_old_windows_may_have(start: Start) -> None:
    page = await start(sensors=SENSORS)
    async with page.get("/api/sessions") as answer:
        sensors = (await answer.json())["sensors"]
    assert [(one["name"], one["kind"]) for one in sensors] == [
        ("camera_front", "image"),
        ("camera_rear", "image"),
        ("audio", "audio"),
        ("cabin_mic", "audio"),
        ("text", "text"),
        ("telemetry", "telemetry"),
        ("image", "image"),
    ]


async def test_a_frame_is_that_of_the_camera_that_is_asked_for(start: Start) -> None:
    there = ("camera_front", "camera_rear")
    window = result(present=there, coverage=dict.fromkeys((*there, "cabin_mic"), 1.0))
    frames = [record(IMAGE, name.encode(), "image/jpeg", sensor=name) for name in there]
    page = await start(frames, [window], sensors=SENSORS)
    for sensor, expected in [*((name, name) for name in there), (None, "camera_front")]:
        async with page.get("/api/frame", params={**WINDOW, **({"sensor": sensor} if sensor else {})}) as answer:
            assert (answer.status, await answer.read()) == (200, expected.encode())
    for absent in ("image", "cabin_mic", "nonsense"):
        assert await status(page, "/api/frame", params={**WINDOW, "sensor": absent}) == 404


async def test_a_window_of_a_camera_that_was_disabled_since_still_shows_it(start: Start) -> None:
    window = result(present=("image",), coverage={"image": 1.0})
    page = await start([record(IMAGE, b"jpeg", "image/jpeg")], [window], sensors=SENSORS)
    async with page.get("/api/frame", params={**WINDOW, "sensor": "image"}) as answer:
        assert (answer.status, await answer.read()) == (200, b"jpeg")


@pytest.mark.parametrize(("kind", "turned"), [("JPEG", False), ("PNG", False), ("WEBP", True)])
async def test_a_frame_is_turned_only_where_browsers_do_not_do_it(kind: str, turned: bool, start: Start) -> None:
    note = Image.Exif()
    note[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (200, 100, 0)).save(file, kind, exif=note)
    media_type = f"image/{kind.lower()}"
    page = await start([record(IMAGE, file.getvalue(), media_type)])
    async with page.get("/api/frame", params=WINDOW) as answer:
        assert answer.content_type == media_type
        content = await answer.read()
    shown = Image.open(io.BytesIO(content))
    assert (content == file.getvalue()) is not turned
    assert shown.size == ((64, 96) if turned else (96, 64))
    assert shown.getexif().get(0x0112) == (None if turned else 6)


@pytest.mark.parametrize(
    ("records", "results", "fails", "code"),
    [
        ([], [], None, 404),
        ([], [result(members={})], None, 404),
        ([], [result()], None, 404),
        ([], [result()], Gone("not in Kafka any more"), 404),
        ([], [result()], Unavailable("Kafka does not answer"), 503),
        ([record(IMAGE, b"<script>", "text/html")], [result()], None, 404),
        ([record(IMAGE, b"jpeg", "image/jpeg", session="car-4")], [result()], None, 404),
    ],
    ids=["no window", "no frame in it", "deleted", "expired", "kafka away", "no image", "another session's"],
)
async def test_a_frame_that_is_not_there_is_an_error_with_a_reason(
    records: list[Record], results: list[Result], fails: Exception | None, code: int, start: Start
) -> None:
    page = await start(records, results)
    page.source.fails = fails
    async with page.get("/api/frame", params=WINDOW) as answer:
        assert answer.status == code
        assert (await answer.json())["error"]


async def test_without_redis_every_question_is_503(start: Start) -> None:
    page = await start()
    page.redis.down = True
    for path in ("/api/sessions", "/api/results?session=car-1", "/api/frame?session=car-1&end_us=1"):
        assert await status(page, path) == 503


def tone(frequency_hz: float, seconds: float) -> bytes:
    phases = 2 * np.pi * frequency_hz * np.arange(int(seconds * SAMPLES_HZ)) / SAMPLES_HZ
    return (np.sin(phases) * 16384).astype(">i2").tobytes()


async def test_a_window_shows_its_sound_words_and_telemetry_cut_to_its_span(start: Start) -> None:
    words = {"text": "<script>alert(1)</script>", "start": 0.0, "end": 1.5}
    block = {"channels": {"speed": {"unit": "m/s", "values": [1.0, 2.0, 3.0, 4.0]}}, "rate_hz": 2.0}
    page = await start(
        [
            record(AUDIO, tone(1000, 0.5), f"audio/L16;rate={SAMPLES_HZ};channels=1", time_us=START_US + S_US // 2),
            record(AUDIO, b"RIFF nonsense", "audio/wav"),
            record(TEXT, json.dumps(words).encode(), "application/json", time_us=START_US - S_US // 2),
            record(TELEMETRY, json.dumps(block).encode(), "application/json", time_us=START_US - S_US // 2),
        ]
    )
    async with page.get("/api/window", params=WINDOW) as answer:
        content = await answer.json()
    said = {"sensor": "text", "start_us": START_US - S_US // 2, "end_us": END_US, "text": words["text"]}
    assert content["transcripts"] == [said]
    assert content["telemetry"]["telemetry"]["speed"]["values"] == [2.0, 3.0]
    assert content["telemetry"]["telemetry"]["speed"]["times_us"] == [START_US, START_US + S_US // 2]
    assert content["gone"] == []
    sound = content["audio"]["audio"]
    assert sound["peak_dbfs"] == pytest.approx(-6.0, abs=0.1)
    levels = np.frombuffer(base64.b64decode(sound["levels"]), np.uint8).reshape(sound["columns"], BANDS)
    silent, heard = levels[: sound["columns"] // 2 - 2], levels[sound["columns"] // 2 + 2 :]
    assert silent.max() == 0
    edges_hz = np.geomspace(windows_module.LOWEST_HZ, SAMPLES_HZ / 2, BANDS + 1)
    loudest = np.unique(heard[:-2].argmax(axis=1))
    assert all(edges_hz[band] * 0.9 <= 1000 <= edges_hz[band + 1] * 1.1 for band in loudest)


async def test_what_has_expired_is_named_and_the_rest_is_shown(start: Start) -> None:
    page = await start([record(TEXT, b'{"text": "hello", "end": 1}', "application/json")])
    async with page.get("/api/window", params=WINDOW) as answer:
        content = await answer.json()
    assert content["gone"] == ["audio", "telemetry"]
    assert [one["text"] for one in content["transcripts"]] == ["hello"]


async def test_browsers_that_ask_for_the_same_share_one_read(start: Start) -> None:
    page = await start([record(IMAGE, b"jpeg", "image/jpeg")])
    codes = await asyncio.gather(*(status(page, "/api/frame", params=WINDOW) for _ in range(5)))
    assert await status(page, "/api/frame", params=WINDOW) == 200
    assert (codes, page.source.reads) == ([200] * 5, 1)


async def test_the_cache_of_payloads_has_a_size(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "CACHE_BYTES", 250)
    page = await start([record(IMAGE, b"x" * 100, "image/jpeg")], [result(end_us=END_US + i * S_US) for i in range(4)])
    for i in (0, 1, 2, 2, 1, 0):
        assert await status(page, "/api/frame", params={**WINDOW, "end_us": END_US + i * S_US}) == 200
    assert page.source.reads == 4  # the first was pushed out by the third


# what is new


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


async def test_a_new_result_reaches_a_browser_and_whole_only_where_it_is_looked_at(start: Start) -> None:
    page = await start()
    async with page.get("/events", params={"session": "car-1"}) as answer:
        assert answer.content_type == "text/event-stream"
        news = events(answer)
        assert (await anext(news))["redis"] is True
        for message in (b"no json", b"[]", b'{"session": "car-1"}', result("car-2").to_json(), result().to_json()):
            page.redis.messages.put_nowait(message)
        seen: list[dict[str, Any]] = []
        while not any(one["results"] for one in seen):
            seen.append(await asyncio.wait_for(anext(news), 5))
    assert {s["session"] for one in seen for s in one["sessions"]} == {"car-1", "car-2"}
    assert [r["session"] for one in seen for r in one["results"]] == ["car-1"]


async def test_the_newest_description_reaches_the_browsers_that_show_its_session(start: Start) -> None:
    page = await start()
    async with page.get("/events", params={"session": "car-1"}) as answer:
        news = events(answer)
        await anext(news)
        for session, end_us in (("car-2", END_US), ("car-1", END_US), ("car-1", END_US + S_US)):
            told = Description(session, end_us - S_US, end_us, f"until {end_us}", "outputs")
            page.redis.messages.put_nowait(told.to_json())
        page.redis.messages.put_nowait(b'{"text": 5}')  # anybody may write to a channel
        seen: dict[str, Any] = {}
        while seen.get("end_us") != END_US + S_US:
            seen = (await asyncio.wait_for(anext(news), 5)).get("description", seen)
    assert (seen["session"], seen["text"]) == ("car-1", f"until {END_US + S_US}")
    async with page.get("/api/description", params={"session": "car-1"}) as answer:
        assert await answer.json() is None
    assert await status(page, "/api/description?session=car-1&until=x") == 400


async def test_stopping_ends_the_streams(start: Start) -> None:
    page = await start()
    async with page.get("/events") as answer:
        news = events(answer)
        await anext(news)
        await asyncio.wait_for(page.dashboard.stop(), 5)
        async for _ in news:
            pass  # it ends


def utterance(end_us: int = END_US, severity: Severity = Severity.NOTICE) -> Utterance:
    return Utterance("car-1", end_us, "Brake.", severity)


async def test_what_is_said_aloud_reaches_the_browsers_that_show_its_session_with_its_sound(start: Start) -> None:
    page = await start()
    page.spoken.hold(utterance(), b"RIFF")
    async with page.get("/events", params={"session": "car-1"}) as answer, page.get("/events") as other:
        news, elsewhere = events(answer), events(other)
        (newest,) = (await anext(news))["spoken"]
        assert newest == {
            "id": f"car-1/streamer.speech.v1/{END_US}",
            "session": "car-1",
            "end_us": END_US,
            "text": "Brake.",
            "severity": "notice",
        }
        assert "spoken" not in await anext(elsewhere)
        page.live.say(utterance(END_US + S_US, Severity.ALARM))
        page.live.say(utterance(END_US + 2 * S_US))
        assert [one["severity"] for one in (await anext(news))["spoken"]] == ["alarm", "notice"]
    alarm = msgspec.structs.replace(utterance(), rule="hazard")  # of the same window
    page.spoken.hold(alarm, b"RIFF2")
    for one, sound in ((utterance(), b"RIFF"), (alarm, b"RIFF2")):
        async with page.get("/api/speech", params={"id": one.id}) as answer:
            assert (answer.content_type, await answer.read()) == ("audio/wav", sound)
    assert await status(page, "/api/speech", params={"id": utterance(END_US + S_US).id}) == 404
    assert await status(await start(dashboard_token=TOKEN), "/api/speech", params={"id": alarm.id}) == 401


def test_only_the_newest_sentences_are_held() -> None:
    spoken = Spoken()
    for i in range(2 * MAX_SPOKEN_HELD):
        spoken.hold(utterance(END_US + i), b"x")
    assert spoken.sound(utterance(END_US).id) is None
    assert spoken.sound(utterance(END_US + 2 * MAX_SPOKEN_HELD - 1).id) == b"x"
    newest = utterance(END_US + S_US)
    for _ in range(3):  # Kafka may have one more than once
        spoken.hold(newest, bytes(MAX_HELD_BYTES))
    assert spoken.newest("car-1") is newest
    assert spoken.sound(utterance(END_US + 2 * MAX_SPOKEN_HELD - 1).id) is None
    spoken.hold(Utterance("car-2", END_US, "Hold.", Severity.NOTICE), b"x")
    assert spoken.newest("car-1") is None


async def test_an_early_result_is_sent_beside_the_results_and_the_newest_one_alone() -> None:
    client = Client("car-1")
    for n in range(2):
        client.first(result("car-1", END_US + n * S_US, final=False))
    client.first(result("another", END_US, final=False))
    message = json.loads(await client.take(1.0) or b"")
    assert (message["first"]["end_us"], message["first"]["final"]) == (END_US + S_US, False)
    assert message["results"] == message["sessions"] == []


async def test_a_browser_that_takes_nothing_costs_no_more_than_its_place() -> None:
    slow = Client("car-1")
    for i in range(20 * MAX_HELD):
        slow.result(result("car-1", END_US + i * S_US))
        slow.result(result(f"other-{i}", END_US + i * S_US))
        slow.note("faults", i)
    message = await slow.take(1)
    assert message is not None
    news = json.loads(message)
    assert len(news["results"]) == MAX_HELD
    assert news["results"][-1]["end_us"] == END_US + (20 * MAX_HELD - 1) * S_US
    assert len(news["sessions"]) == MAX_SESSIONS
    assert (news["gap"], news["faults"]) == (True, 20 * MAX_HELD - 1)
    assert await slow.take(0.01) is None


async def test_browsers_beyond_the_limit_are_refused_until_one_leaves(start: Start) -> None:
    page = await start()
    clients = [page.live.join(None) for _ in range(MAX_CLIENTS)]
    assert await status(page, "/events") == 503
    assert clients[0] is not None
    page.live.leave(clients[0])
    assert page.live.join(None) is not None


async def test_when_redis_comes_back_browsers_are_told_to_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "BACKOFF_S", 0.01)
    memory = MemoryRedis()
    memory.down = True
    live = Live(memory, Keys("streamer"), dict)
    client = live.join(None)
    assert client is not None
    follow = asyncio.create_task(live.follow())
    told: list[Any] = []
    while not told or told[-1]["redis"]:
        told.append(msgspec.json.decode(await client.take(5) or b"{}"))
    memory.down = False
    back = msgspec.json.decode(await client.take(5) or b"{}")
    assert (back["redis"], back["gap"]) == (True, True)
    follow.cancel()
    await asyncio.wait([follow])


async def test_the_sensors_of_a_session_whose_clocks_drift_are_told_as_last_reported(start: Start) -> None:
    page = await start()
    page.redis.drifts = [("car-1", (Drift("imu", 190.0, 30.0, 700.0),)), ("car-1", (Drift("imu", 200.5, 31.0, 690.0),))]
    async with page.get("/api/drifts?session=car-1") as answer:
        assert await answer.json() == [{"sensor": "imu", "ppm": 200.5, "behind_ms": 31.0, "left_s": 690.0}]
    async with page.get("/api/drifts?session=car-2") as answer:
        assert await answer.json() == []
    assert await status(page, "/api/drifts") == 400


async def test_browsers_are_told_when_workers_stop_to_answer_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "WORKERS_EVERY_S", 0.01)
    memory = MemoryRedis()
    live = Live(memory, Keys("streamer"), dict)
    client = live.join(None)
    assert client is not None

    async def told() -> Any:
        while "workers" not in (news := msgspec.json.decode(await client.take(5) or b"{}")):
            pass
        return news["workers"]

    assert (await told())["answers"] is True
    memory.workers = {"align": [b"1749999999000-0"], "infer": [b"1749999900000-0"]}
    watch = asyncio.create_task(live.watch_workers())
    assert await told() == {"answers": False, "role": "infer", "since_us": 1_749_999_900_000_000}
    late = live.join(None)
    assert late is not None
    assert msgspec.json.decode(await late.take(5) or b"{}")["workers"]["role"] == "infer"
    memory.workers["infer"] = [b"1749999999000-0"]
    assert (await told())["answers"] is True
    watch.cancel()
    await asyncio.wait([watch])
