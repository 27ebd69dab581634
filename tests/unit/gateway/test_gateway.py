"""The gateway over HTTP and WebSocket, with Kafka replaced at its seam by futures that the test ends."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import yaml
from cloudevents.core.bindings import http as sdk
from cloudevents.core.v1.event import CloudEvent
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from streamer.align.decode import Decoder, home_partition, time_us
from streamer.broker.sending import Fault, Place, Told, Unsent
from streamer.cli.app import app
from streamer.errors import UsageError
from streamer.events import EPOCH, KINDS, Record, rfc3339
from streamer.gateway import tokens
from streamer.gateway.cloudevents import framed
from streamer.gateway.connection import HAS_SHORT_WAY, Connection
from streamer.gateway.intake import Intake
from streamer.gateway.metrics import STATUSES, GatewayMetrics
from streamer.gateway.outgoing import Outgoing
from streamer.gateway.problems import Answer, Problem
from streamer.gateway.quotas import BURST_S, Bucket, Quotas, Room
from streamer.gateway.records import Records
from streamer.gateway.server import PAGE, Gateway, tls_context
from streamer.gateway.stream import BEARER, PROTOCOL
from streamer.gateway.tokens import Tokens
from streamer.observe.pages import page_file
from streamer.settings import Settings

OPENAPI = yaml.safe_load((Path(__file__).parents[3] / "schemas" / "gateway.yaml").read_text("utf-8"))
NOW_US = 1_767_225_600_000_000  # 2026-01-01
PARTITIONS = 12
SESSION = "cab 7/ä"  # needs percent-encoding
PATH = "/v1/sessions/cab%207%2F%C3%A4"
JPEG = b"\xff\xd8\xff\xe0 jpeg"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENSORS = {"camera_rear": {"kind": "image"}, "audio": {"offset_ms": 30}}


class Memory:
    """A sender whose records have their outcome at once, or as the test says."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, bytes, bytes, dict[str, bytes]]] = []
        self.told: list[Told] = []
        self.answers = True
        self.outcome: Unsent | None = None  # of all, instead of a place
        self.come = asyncio.Event()

    async def until(self, count: int) -> None:
        """Wait for as many records."""
        while len(self.told) < count:
            self.come.clear()
            await self.come.wait()

    def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]], told: Told
    ) -> None:
        assert len(dict(headers)) == len(headers)
        self.sent.append((topic, partition, key, value, dict(headers)))
        self.told.append(told)
        self.come.set()
        if self.answers:
            told(self.outcome or Place(partition, len(self.sent) - 1))


class Rig:
    """A gateway that listens, a client of it with a token, and what it has sent."""

    def __init__(self, settings: Settings, token: str) -> None:
        self.settings = settings
        self.token = token
        self.kafka = Memory()
        self.metrics = GatewayMetrics(CollectorRegistry())
        self.broken: list[str] = []
        self.room = Room(settings.gateway_inflight_bytes)
        records = Records(settings, PARTITIONS, lambda: NOW_US)
        self.outgoing = Outgoing(settings, self.kafka, self.room, self.metrics, self.broken.append)
        self.clock_s = 0.0
        quotas = Quotas(settings, lambda: self.clock_s)
        intake = Intake(records, self.outgoing, quotas, self.metrics)
        self.gateway = Gateway(settings, Tokens(settings.gateway_tokens), records, intake, self.room, self.metrics)
        self.http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
        """Status, document and headers of the answer; underscores of names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"Authorization": f"Bearer {self.token}"} | named
        async with self.http.post(f"{self.url}{path}", data=body, headers=given) as answer:
            document = await answer.json(content_type=None)
            assert answer.content_type == ("application/json" if answer.ok else "application/problem+json")
            if isinstance(document, dict):
                self.described("place" if answer.ok else "problem", document)
            if not answer.ok:
                assert document["status"] == answer.status
                assert "\n" not in document["detail"]
            return answer.status, document, answer.headers

    def described(self, name: str, document: dict[str, Any]) -> None:
        """Hold an answer to ``schemas/gateway.yaml``."""
        jsonschema.validate(document, OPENAPI["components"]["schemas"][name])

    def count(self, sensor: str, outcome: str) -> float:
        labels = {"sensor": sensor, "outcome": outcome}
        return self.metrics.registry.get_sample_value("streamer_gateway_records_total", labels) or 0.0

    def event(self, at: int = -1) -> Any:
        """A record as a worker reads it, and its headers."""
        topic, partition, key, value, headers = self.kafka.sent[at]
        row = self.settings.source_topics.index(topic)
        record = Record(row, partition, 0, NOW_US, key, value, tuple(headers.items()))
        return Decoder(self.settings, PARTITIONS).decode(record), headers


Making = Callable[..., Any]


@pytest.fixture
def rig(tmp_path: Path) -> Making:
    @asynccontextmanager
    async def make(*sessions: str, **given: Any) -> AsyncIterator[Rig]:
        path = tmp_path / "tokens.toml"
        token = tokens.make(path, sessions or (SESSION,))
        settings = Settings.load(sensors=SENSORS, gateway_port=0, gateway_tokens=path, stop_after_ms=300, **given)
        made = Rig(settings, token)
        await made.gateway.start()
        try:
            async with aiohttp.ClientSession() as made.http:
                yield made
        finally:
            await made.gateway.stop()

    return make


# what is sent


async def test_a_plain_body_becomes_a_record_of_its_sensor(rig: Making) -> None:
    async with rig() as one:
        status, answer, _ = await one.post(
            f"{PATH}/camera_rear?time=2025-12-31T23:59:59.5Z", JPEG, Content_Type="image/jpeg", traceparent=TRACE
        )
        event, headers = one.event()
        home = home_partition(SESSION.encode(), PARTITIONS)
        topic = "streamer.frames"
        assert (status, answer) == (
            200,
            {"id": headers["ce_id"].decode(), "topic": topic, "partition": home, "offset": 0},
        )
        assert one.kafka.sent[0][:4] == (topic, home, SESSION.encode(), JPEG)
        assert (event.session, event.start_us) == (SESSION, NOW_US - 500_000)
        assert one.settings.sensor_set.names[event.sensor] == "camera_rear"
        assert headers["ce_timesource"] == b"device"
        assert headers["traceparent"] == TRACE.encode()
        assert headers["ce_source"] == b"/sessions/cab%207%2F%C3%A4/camera_rear"
        assert one.count("camera_rear", "acknowledged") == 1
        assert one.room.used_bytes == 0


async def test_what_says_no_time_ends_as_it_arrives_and_a_sensors_offset_still_counts(rig: Making) -> None:
    async with rig() as one:
        await one.post(f"{PATH}/audio", bytes(3200), Content_Type="audio/L16;rate=16000")
        event, headers = one.event()
        assert headers["ce_timesource"] == b"arrival"
        assert time_us(headers["ce_time"].decode()) == NOW_US - 100_000
        assert event.end_us == NOW_US + 30_000
        words = json.dumps({"text": "mind the van", "start": 0.5, "end": 1.5})
        await one.post(f"{PATH}/text", words, Content_Type="application/json")
        event, _ = one.event()
        assert (event.start_us, event.end_us) == (NOW_US - 1_000_000, NOW_US)
        await one.post(f"{PATH}/image", JPEG, Content_Type="image/jpeg")
        assert one.event()[0].start_us == NOW_US


def cloud_event(payload: bytes = JPEG, **attributes: Any) -> CloudEvent:
    given = {
        "id": "1 ü%",
        "source": "/devices/cab-7",
        "type": KINDS[0].ce_type,
        "specversion": "1.0",
        "time": EPOCH + timedelta(microseconds=NOW_US - 1_000),
        "datacontenttype": "image/jpeg",
        "partitionkey": SESSION,
        "sensor": "camera_rear",
        "traceparent": TRACE,
        **attributes,
    }
    return CloudEvent({name: value for name, value in given.items() if value is not None}, payload)


@pytest.mark.parametrize("bind", [sdk.to_binary_event, sdk.to_structured_event])
async def test_the_cloudevents_sdk_can_send(bind: Callable[[CloudEvent], Any], rig: Making) -> None:
    async with rig() as one:
        message = bind(cloud_event())
        status, answer, _ = await one.post("/v1/events", message.body, **message.headers)
        assert (status, answer["id"]) == (200, "1 ü%")
        event, headers = one.event()
        assert (event.session, event.record.value, event.start_us) == (SESSION, JPEG, NOW_US - 1_000)
        assert headers["ce_source"] == b"/devices/cab-7"
        assert headers["content-type"] == b"image/jpeg"
        assert headers["traceparent"] == TRACE.encode()
        assert {"ce_partitionkey", "ce_traceparent", "ce_datacontenttype"}.isdisjoint(headers)


def as_json(**changed: Any) -> dict[str, Any]:
    document = {
        "id": "7",
        "source": "/devices/cab-7",
        "type": KINDS[0].ce_type,
        "specversion": "1.0",
        "datacontenttype": "image/jpeg",
        "data_base64": base64.b64encode(JPEG).decode(),
        **changed,
    }
    return {name: value for name, value in document.items() if value is not None}


BLOCK = {"channels": {"speed": {"values": [1.5, 2.5]}}, "rate_hz": 20}
BATCH = "application/cloudevents-batch+json"
EVENT = "application/cloudevents+json; charset=utf-8"


async def test_data_in_json_arrive_as_they_are_and_attributes_of_all_types_become_text(rig: Making) -> None:
    async with rig() as one:
        document = as_json(type=KINDS[3].ce_type, data=BLOCK, sequence=41, urgent=True, gone=None)
        del document["data_base64"], document["datacontenttype"]
        body = json.dumps({**document, "nothing": None}, separators=(", ", ":"))
        status, _, _ = await one.post("/v1/events", body, Content_Type=EVENT)
        assert status == 200
        event, headers = one.event()
        assert event.record.value.decode() in body  # to the byte
        assert (event.sequence, headers["ce_urgent"], headers["content-type"]) == (41, b"true", b"application/json")
        assert "ce_nothing" not in headers


async def test_a_batch_is_answered_event_by_event_and_one_wrong_event_lets_none_pass(rig: Making) -> None:
    async with rig() as one:
        events = [as_json(id=str(number)) for number in range(3)]
        status, answers, _ = await one.post("/v1/events", json.dumps(events), Content_Type=BATCH)
        assert (status, [answer["id"] for answer in answers]) == (200, ["0", "1", "2"])
        events[1]["sensor"] = "nose"
        status, problem, _ = await one.post("/v1/events", json.dumps(events), Content_Type=BATCH)
        assert (status, problem["index"], problem["id"], problem["reason"]) == (422, 1, "1", "unknown_sensor")
        assert "camera_rear" in problem["sensors"]
        assert len(one.kafka.sent) == 3
        assert (await one.post("/v1/events", "[]", Content_Type=BATCH))[:2] == (200, [])


async def test_the_end_of_a_session_can_be_sent(rig: Making) -> None:
    async with rig() as one:
        status, _, _ = await one.post("/v1/events", b"", ce_id="9", ce_source="/x", ce_type="streamer.end.v1",
                                      ce_specversion="1.0")  # fmt: skip
        assert status == 200
        assert one.kafka.sent[0][0] == "streamer.telemetry"
        assert one.event()[0].type == 1


# what is refused


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        (f"{PATH}/nose", JPEG, {"Content_Type": "image/jpeg"}, 404, "image, camera_rear, audio, text, telemetry"),
        (f"{PATH}/image", JPEG, {"Content_Type": "image/tiff"}, 415, "image/tiff"),
        (f"{PATH}/image", b"", {"Content_Type": "image/jpeg"}, 422, "empty"),
        (f"{PATH}/image?when=now", JPEG, {"Content_Type": "image/jpeg"}, 400, "when"),
        (f"{PATH}/image?time=now", JPEG, {"Content_Type": "image/jpeg"}, 422, "RFC 3339"),
        (f"{PATH}/image?time=2026-01-01T00:01:00Z", JPEG, {"Content_Type": "image/jpeg"}, 422, "clock"),
        (f"{PATH}/image", JPEG, {"Content_Type": "image/jpeg", "Content_Encoding": "gzip"}, 415, "compressed"),
        (f"{PATH}/image", JPEG, {"Content_Type": "image/jpeg", "ce_id": "%ff"}, 400, "UTF-8"),
        (f"{PATH}/image", JPEG, {"Content_Type": "image/jpeg", "ce_sub_ject": "x"}, 400, "small letters and digits"),
        ("/v1/sessions/other/image", JPEG, {"Content_Type": "image/jpeg"}, 403, "other"),
        ("/v1/events", JPEG, {"Content_Type": "image/jpeg"}, 400, "'id'"),
        ("/v1/events", "{", {"Content_Type": EVENT}, 400, "JSON"),
        ("/v1/events", "[]", {"Content_Type": EVENT}, 400, "JSON"),
        ("/v1/events", "[1]", {"Content_Type": BATCH}, 400, "JSON"),
        ("/v1/events", json.dumps(as_json(data="x")), {"Content_Type": EVENT}, 400, "not both"),
        ("/v1/events", json.dumps(as_json(data_base64="?")), {"Content_Type": EVENT}, 400, "base64"),
        ("/v1/events", json.dumps(as_json(where={})), {"Content_Type": EVENT}, 400, "where"),
        ("/v1/events", json.dumps(as_json(specversion="0.3")), {"Content_Type": EVENT}, 422, "1.0"),
        ("/v1/events", json.dumps(as_json(type="streamer.tick.v1")), {"Content_Type": EVENT}, 422, "streamer.end.v1"),
        ("/v1/events", json.dumps(as_json(partitionkey="cab-8")), {"Content_Type": EVENT}, 403, "cab-8"),
        ("/v1/events", json.dumps(as_json(timesource="!")), {"Content_Type": EVENT}, 400, "timesource"),
        ("/v1/events", json.dumps([as_json()] * 4), {"Content_Type": BATCH}, 413, "3 events"),
        ("/v1/events", bytes(70_000), {"Content_Type": "image/jpeg"}, 413, "65536"),
        ("/v1/nothing", b"", {}, 404, "Not Found"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_in_one_line_and_counted(
    path: str, body: Any, headers: dict[str, str], status: int, said: str, rig: Making
) -> None:
    async with rig(gateway_batch_records=3, gateway_body_bytes=65_536) as one:
        found, problem, _ = await one.post(path, body, **headers)
        assert (found, one.kafka.sent) == (status, [])
        assert said in problem["detail"]
        assert one.metrics.problems.labels(status)._value.get() == 1
        assert one.room.used_bytes == 0


async def test_a_body_of_unknown_length_is_read_to_the_limit_and_no_further(rig: Making) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)

    async with rig(gateway_body_bytes=65_536) as one:
        status, _, _ = await one.post(f"{PATH}/image", endless(), Content_Type="image/jpeg")
        assert (status, one.room.used_bytes) == (413, 0)


async def test_a_body_that_does_not_come_is_not_waited_for(rig: Making) -> None:
    async with rig(gateway_body_ms=100) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(
            f"POST {PATH}/image HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.token}\r\n"
            "Content-Length: 1000\r\n\r\nhalf".encode()
        )
        assert b"408" in await reader.readline()
        writer.close()
        silent, other = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        other.write(b"POST /v1/ev")  # nor is a request
        assert await silent.read() == b""
        other.close()
        assert one.room.used_bytes == 0


async def test_a_connection_beyond_the_most_is_told_to_come_later(rig: Making) -> None:
    async with rig(gateway_connections=1) as one:
        _, first = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        await asyncio.sleep(0)
        reader, second = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in answer
        first.close()
        second.close()


# the short way of connection.py


def request(one: Rig, path: str = f"{PATH}/image", body: bytes = JPEG, *more: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {one.token}",
        "Content-Type: image/jpeg",
        *more,
    ]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """The next answer on a connection: its status, header and document."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


def test_aiohttp_has_what_the_short_way_needs() -> None:
    assert HAS_SHORT_WAY


@pytest.mark.parametrize("path", [f"{PATH}/image", f"{PATH}/nose", f"{PATH}/image?when=now"])
async def test_the_answer_is_the_same_whichever_way_a_request_goes(
    path: str, rig: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    async with rig() as one:
        taken, ways = Connection._answer, []

        def counted(self: Connection, answer: Answer) -> None:
            ways.append(answer.status)
            taken(self, answer)

        monkeypatch.setattr(Connection, "_answer", counted)
        reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        whole = request(one, path, JPEG, "ce-id: 7", "traceparent: " + TRACE)
        for parts in ([whole], [whole[:-3], whole[-3:]]):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
            found.append(await answered(reader))
        writer.close()
    assert len(ways) == 1
    (status, headers, document), (other_status, other_headers, other_document) = found
    for changing in (headers, other_headers):
        changing.pop("date")
    if status == 200:
        assert (document.pop("offset"), other_document.pop("offset")) == (0, 1)
        assert one.kafka.sent[0] == one.kafka.sent[1]
        assert one.count("image", "acknowledged") == 2
    assert (status, headers, document) == (other_status, other_headers, other_document)
    assert one.room.used_bytes == 0


async def test_requests_that_come_before_the_answer_are_answered_in_their_order(rig: Making) -> None:
    async with rig() as one:
        one.kafka.answers = False
        reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(request(one, f"{PATH}/image", JPEG, "ce-id: first"))
        await one.kafka.until(1)
        writer.write(
            request(one, f"{PATH}/image", JPEG, "ce-id: second") + b"GET /v1/clock HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        await asyncio.sleep(0.05)
        assert len(one.kafka.told) == 1
        one.kafka.told[0](Place(0, 0))
        assert (await answered(reader))[2]["id"] == "first"
        await one.kafka.until(2)
        one.kafka.told[1](Place(0, 1))
        assert (await answered(reader))[2]["id"] == "second"
        assert (await answered(reader))[2]["time_us"] > NOW_US
        writer.close()


async def test_a_stop_answers_a_request_that_waits_for_kafka_and_closes(rig: Making) -> None:
    async with rig() as one:
        one.kafka.answers = False
        reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(request(one))
        await one.kafka.until(1)
        stopping = asyncio.create_task(one.gateway.stop())
        await asyncio.sleep(0.05)
        one.kafka.told[0](Place(0, 0))
        status, headers, _ = await answered(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""
        await asyncio.wait_for(stopping, 5)
        writer.close()


async def test_a_device_that_leaves_before_its_answer_leaves_nothing_behind(rig: Making) -> None:
    async with rig() as one:
        one.kafka.answers = False
        _, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(request(one))
        await one.kafka.until(1)
        writer.close()
        await writer.wait_closed()
        async with one.http.get(f"{one.url}/v1/clock"):  # by then it is known here
            pass
        one.kafka.told[0](Place(0, 0))
        assert one.room.used_bytes == 0
        assert one.count("image", "acknowledged") == 1


async def test_a_connection_without_requests_is_closed_only_while_none_is_at_kafka(rig: Making) -> None:
    async with rig(gateway_body_ms=100, gateway_ack_ms=5_000) as one:
        one.kafka.answers = False
        reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(request(one))
        await one.kafka.until(1)
        await asyncio.sleep(0.25)
        one.kafka.told[0](Place(0, 0))
        assert (await answered(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_request_on_which_the_gateway_fails_is_answered(rig: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as one:
        monkeypatch.setattr(one.gateway._intake, "send", lambda *given: 1 / 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(request(one))
        assert (await answered(reader))[0] == 500
        assert one.room.used_bytes == 0
        writer.close()


# who may send


async def test_only_a_token_of_the_file_opens_and_a_changed_file_holds_at_once(rig: Making) -> None:
    async with rig() as one:
        number = one.token.partition("_")[0]
        needed, unknown = "a token is needed: Authorization: Bearer TOKEN", tokens.UNKNOWN
        for given, detail in (
            ("", needed),
            ("Bearer ", needed),
            (f"Basic {one.token}", needed),
            ("Bearer x", unknown),
            (f"Bearer {number}", unknown),  # a known id tells no more than an unknown one
            (f"Bearer {one.token}x", unknown),
        ):
            status, document, headers = await one.post(f"{PATH}/image", JPEG, Authorization=given)
            assert (status, document["detail"]) == (401, detail)
            assert headers["WWW-Authenticate"] == 'Bearer realm="streamer"'
        found = one.gateway._tokens
        other = tokens.make(one.settings.gateway_tokens, ("b", "c"))
        found.refresh()
        known = found.find(other)
        assert known is not None
        assert known.sessions == ("b", "c")
        one.settings.gateway_tokens.write_text("[[token]]\n")
        found.refresh()
        assert "sessions" in found.fault or "id" in found.fault
        assert found.find(one.token) is not None  # a broken file locks nobody out
        one.settings.gateway_tokens.write_text("")
        found.refresh()
        assert (found.fault, found.find(one.token)) == ("", None)


async def test_a_token_of_several_sessions_must_say_which(rig: Making) -> None:
    async with rig("a", "b") as one:
        status, problem, _ = await one.post("/v1/events", json.dumps(as_json()), Content_Type=EVENT)
        assert (status, problem["sessions"]) == (400, ["a", "b"])
        assert (await one.post("/v1/events", json.dumps(as_json(partitionkey="b")), Content_Type=EVENT))[0] == 200
        assert one.event()[0].session == "b"


def test_the_file_has_no_secret_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.toml"
    made = tokens.make(path, ("x", "ä"))
    assert made.partition("_")[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["tokens.toml"]
    with pytest.raises(UsageError, match="bytes of text"):
        tokens.make(path, ("x" * 129,))
    with pytest.raises(UsageError, match="streamer gateway token"):
        Tokens(tmp_path / "none")


def test_beyond_this_machine_it_wants_tls(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="GATEWAY_CERT_FILE"):
        tls_context(Settings.load(gateway_host="0.0.0.0"))
    assert tls_context(Settings.load(gateway_host="0.0.0.0", gateway_plain=True)) is None
    (tmp_path / "x").write_text("x")
    with pytest.raises(UsageError, match="PEM"):
        tls_context(Settings.load(gateway_cert_file=tmp_path / "x", gateway_key_file=tmp_path / "x"))
    with pytest.raises(UsageError, match="need each other"):
        Settings.load(gateway_cert_file=tmp_path / "x")


# how much


async def test_a_token_that_sends_too_much_waits_as_long_as_it_is_told(rig: Making) -> None:
    async with rig(gateway_records_a_second=2) as one:

        async def send() -> tuple[int, Any, Any]:
            found: tuple[int, Any, Any] = await one.post(f"{PATH}/image", JPEG, Content_Type="image/jpeg")
            return found

        for _ in range(int(2 * BURST_S) + 1):  # the last one is a debt
            assert (await send())[0] == 200
        status, problem, headers = await send()
        assert (status, headers["Retry-After"]) == (429, "1")
        assert problem["retry_after_s"] == 1
        one.clock_s += 1.0
        assert (await send())[0] == 200
        assert one.count("none", "quota") == 1


def test_a_debt_is_paid_at_the_rate() -> None:
    now_s = [0.0]
    bucket = Bucket(100.0, lambda: now_s[0])
    bucket.charge(1000.0)  # a body larger than any burst
    assert bucket.wait_s() == pytest.approx(8.0)
    now_s[0] = 8.0 + 1e-9
    assert bucket.wait_s() == 0.0
    now_s[0] = 1e9
    bucket.charge(100.0 * BURST_S)
    assert math.isclose(bucket.wait_s(), 0.0)  # a pause saves up a burst, not more


# Kafka


async def test_no_answer_comes_before_kafka_has_the_record(rig: Making) -> None:
    async with rig() as one:
        one.kafka.answers = False
        asked = asyncio.create_task(one.post(f"{PATH}/image", JPEG, Content_Type="image/jpeg"))
        await one.kafka.until(1)
        await asyncio.sleep(0.05)
        assert not asked.done()
        assert one.room.used_bytes > len(JPEG)
        one.kafka.told[0](Place(3, 17))
        status, answer, _ = await asked
        assert (status, answer["partition"], answer["offset"]) == (200, 3, 17)


async def test_a_stuck_kafka_fills_the_room_and_no_more(rig: Making) -> None:
    async with rig(gateway_inflight_bytes=1 << 20, gateway_ack_ms=100) as one:
        one.kafka.answers = False
        picture = bytes(300_000)
        answers = [await one.post(f"{PATH}/image", picture, Content_Type="image/jpeg") for _ in range(5)]
        assert {status for status, _, _ in answers} == {503}
        assert all(headers["Retry-After"] == "2" for _, _, headers in answers)
        assert len(one.kafka.sent) == 3
        assert one.room.used_bytes <= 1 << 20
        for told in one.kafka.told:  # it comes back
            told(Place(0, 0))
        one.kafka.answers = True
        assert (await one.post(f"{PATH}/image", picture, Content_Type="image/jpeg"))[0] == 200
        assert one.room.used_bytes == 0
        assert one.count("image", "acknowledged") == 4  # those that were answered 503 too: they are sent again


@pytest.mark.parametrize(
    ("fault", "status", "is_broken"),
    [(Fault.AWAY, 503, False), (Fault.TOO_LARGE, 413, False), (Fault.BROKEN, 503, True)],
)
async def test_what_kafka_refuses_is_no_success(fault: Fault, status: int, is_broken: bool, rig: Making) -> None:
    async with rig() as one:
        one.kafka.outcome = Unsent(fault, "why")
        assert (await one.post(f"{PATH}/image", JPEG, Content_Type="image/jpeg"))[0] == status
        one.kafka.answers = False
        asked = asyncio.create_task(one.post(f"{PATH}/image", JPEG, Content_Type="image/jpeg"))
        await one.kafka.until(2)
        one.kafka.told[1](one.kafka.outcome)
        assert (await asked)[0] == status
        assert bool(one.broken) is is_broken
        assert one.room.used_bytes == 0


async def test_a_batch_of_which_kafka_has_a_part_says_which(rig: Making) -> None:
    async with rig(gateway_ack_ms=200) as one:
        one.kafka.answers = False
        body = json.dumps([as_json(id=str(number)) for number in range(3)])
        asked = asyncio.create_task(one.post("/v1/events", body, Content_Type=BATCH))
        await one.kafka.until(3)
        one.kafka.told[1](Place(0, 0))
        status, problem, _ = await asked
        assert (status, problem["accepted"]) == (503, ["1"])


# WebSocket


@asynccontextmanager
async def stream(one: Rig, **given: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with one.http.ws_connect(
        f"{one.url}/v1/stream", protocols=(PROTOCOL, f"{BEARER}{one.token}"), **given
    ) as socket:
        yield socket


def frame(payload: bytes, **attributes: Any) -> bytes:
    head = as_json(data_base64=None, **attributes)
    return len(raw := json.dumps(head).encode()).to_bytes(4, "big") + raw + payload


async def test_each_message_is_answered_by_its_id(rig: Making) -> None:
    async with rig() as one, stream(one) as socket:
        assert socket.protocol == PROTOCOL
        await socket.send_str(json.dumps(as_json(id="a")))
        await socket.send_bytes(frame(JPEG, id="b", sensor="camera_rear"))
        await socket.send_str("{")
        await socket.send_bytes(b"\xff\xff\xff\xff")
        await socket.send_bytes(frame(JPEG, id="c", sensor="nose"))
        answers = {answer["message"]: answer for answer in [await socket.receive_json(timeout=5) for _ in range(5)]}
        assert [answers[number]["status"] for number in range(5)] == [200, 200, 400, 400, 422]
        assert [answers[number].get("id") for number in (0, 1, 4)] == ["a", "b", "c"]
        assert [value for _, _, _, value, _ in one.kafka.sent] == [JPEG, JPEG]
        assert "camera_rear" in answers[4]["detail"]
        assert one.room.used_bytes == 0


async def test_a_stop_answers_what_was_taken_and_says_why_it_closes(rig: Making) -> None:
    async with rig() as one, stream(one) as socket:
        one.kafka.answers = False
        await socket.send_bytes(frame(JPEG, id="a"))
        await one.kafka.until(1)
        stopping = asyncio.create_task(one.gateway.stop())
        await asyncio.sleep(0.05)
        one.kafka.told[0](Place(0, 0))
        assert (await socket.receive_json(timeout=5))["status"] == 200
        assert (await socket.receive(timeout=5)).data == aiohttp.WSCloseCode.GOING_AWAY
        await stopping


async def test_a_message_that_is_too_large_ends_the_connection_with_the_code_for_that(rig: Making) -> None:
    async with rig(gateway_message_bytes=1024) as one, stream(one) as socket:
        await socket.send_bytes(frame(bytes(2000)))
        message = await socket.receive(timeout=5)
        assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_token_that_is_revoked_ends_what_a_stream_may_send(rig: Making) -> None:
    async with rig() as one, stream(one) as socket:
        one.settings.gateway_tokens.write_text("")
        one.gateway._tokens.refresh()
        await socket.send_bytes(frame(JPEG))
        answer = await socket.receive_json(timeout=5)
        assert (answer["status"], answer["detail"]) == (401, tokens.UNKNOWN)
        assert one.kafka.sent == []


async def test_without_a_token_there_is_no_stream(rig: Making) -> None:
    async with rig() as one:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await one.http.ws_connect(f"{one.url}/v1/stream", protocols=(PROTOCOL, f"{BEARER}x"))
        assert refused.value.status == 401
        status, _, _ = await one.post("/v1/stream", b"")
        assert status == 405


def test_no_bytes_of_a_frame_raise_anything_but_a_problem() -> None:
    for message in (b"", b"\0\0\0\0", b"\0\0\0\x02{}", b"\0\0\0\x02[]", b"\0\0\0\x01\xff", frame(b"")[:-3]):
        with suppress(Problem):
            assert framed(message).payload == b""


async def test_a_device_can_ask_what_it_may_send_and_what_time_it_is(rig: Making) -> None:
    async with rig() as one:
        headers = {"Authorization": f"bearer {one.token}"}
        async with one.http.get(f"{one.url}/v1/device", headers=headers) as answer:
            found = await answer.json()
        assert found["sessions"] == [SESSION]
        assert {"name": "camera_rear", "kind": "image"} in found["sensors"]
        assert found["limits"]["records_a_second"] == 500
        async with one.http.get(f"{one.url}/v1/clock") as answer:
            assert (await answer.json())["time_us"] > NOW_US
    assert rfc3339(NOW_US) == "2026-01-01T00:00:00.000000Z"


async def test_the_page_is_open_and_allows_no_foreign_script(rig: Making) -> None:
    async with rig() as one:
        for path in ("/send", "/send.js", "/send.css", "/microphone.js"):
            async with one.http.get(f"{one.url}{path}") as answer:
                assert answer.status == 200
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert one.token not in await answer.text()


def test_the_colours_of_all_pages_are_in_one_place() -> None:
    for package, name in (("streamer.gateway", "send.css"), ("streamer.dashboard", "page.css")):
        style = page_file(package, name).decode()
        colours = set(re.findall(r"(--[\w-]+): #", style))
        assert set(re.findall(r"var\((--[\w-]+)\)", style)) <= colours | {"--mono", "--columns", "--severe"}
        assert not re.search("--[\\w-]+: #", (files(package) / name).read_text("utf-8"))


def test_a_link_for_a_phone_has_the_token_in_its_fragment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_GATEWAY_TOKENS", str(tmp_path / "tokens.toml"))
    link = ["gateway", "token", "--session", "phone", "--link"]
    done = CliRunner().invoke(app, [*link, "https://192.168.1.10:8443/"])
    address, _, token = done.stdout.strip().partition("#")
    assert address == "https://192.168.1.10:8443/send"
    assert Tokens(tmp_path / "tokens.toml").find(token) is not None
    code = [line for line in done.stderr.splitlines() if "█" in line]
    assert max(map(len, code)) <= 80
    assert len(code) > 15
    wrong = CliRunner().invoke(app, [*link, "192.168.1.10"])
    assert isinstance(wrong.exception, UsageError)


async def test_the_addresses_are_those_that_are_described(rig: Making) -> None:
    described = {(method.upper(), path) for path, methods in OPENAPI["paths"].items() for method in methods}
    async with rig() as one:
        assert one.gateway._runner is not None
        routes = one.gateway._runner.app.router.routes()
        served = {
            (route.method, route.resource.canonical)
            for route in routes
            if route.resource is not None and route.method != "HEAD" and route.resource.canonical not in PAGE
        }
    assert served == described
    answers = OPENAPI["paths"]["/v1/events"]["post"]["responses"]
    assert {int(status) for status in answers} == {200, *STATUSES}
    types = {kind.ce_type for kind in KINDS} | {"streamer.end.v1"}
    assert set(OPENAPI["components"]["schemas"]["event"]["properties"]["type"]["enum"]) == types
