"""``streamer gateway`` on a real Kafka: each way in, and what an acknowledgement is worth if the process is killed."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from streamer.align.decode import Decoder
from streamer.events import AUDIO, IMAGE, KINDS, TELEMETRY, TEXT, Record
from streamer.settings import Settings
from tests.faults.rig import FULL
from tests.gateways import GatewayProcess
from tests.harness import READY_WITHIN_S, jpeg, read_topic
from tests.secure import Authority

pytestmark = pytest.mark.integration

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WORDS = {"text": "continue straight", "end": 1.0}
BLOCK = {"channels": {"speed": {"unit": "m/s", "values": [10.0, 10.5]}}, "rate_hz": 20}
KILLS = 20 if FULL else 2
RETRY_S = 0.05


def cloud_event(row: int, number: str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": number, "source": "/device", "type": KINDS[row].ce_type, **more}


def framed(event: dict[str, Any], payload: bytes) -> bytes:
    head = json.dumps(event).encode()
    return len(head).to_bytes(4, "big") + head + payload


async def every_way(gateway: GatewayProcess, session: str, context: ssl.SSLContext) -> list[dict[str, Any]]:
    """Send an event in each way; what was answered of each."""
    found = []
    headers = {"Authorization": f"Bearer {gateway.token}"}
    pcm = bytes(3200)
    async with aiohttp.ClientSession(gateway.url, headers=headers, connector=connector(context)) as http:

        async def post(path: str, body: bytes, **given: str) -> Any:
            named = {name.replace("_", "-"): text for name, text in given.items()}
            async with http.post(path, data=body, headers=named) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        found.append(await post(f"/v1/sessions/{session}/image", jpeg(), Content_Type="image/jpeg", traceparent=TRACE))
        head = {f"ce_{name}": text for name, text in cloud_event(AUDIO, "binary").items()}
        found.append(await post("/v1/events", pcm, Content_Type="audio/L16;rate=16000", **head))
        one = json.dumps(cloud_event(TEXT, "structured", data=WORDS)).encode()
        found.append(await post("/v1/events", one, Content_Type="application/cloudevents+json"))
        batch = [
            cloud_event(TELEMETRY, "batch", data=BLOCK),
            cloud_event(IMAGE, "picture", datacontenttype="image/jpeg", data_base64=base64.b64encode(jpeg(1)).decode()),
        ]
        body = json.dumps(batch).encode()
        found += await post("/v1/events", body, Content_Type="application/cloudevents-batch+json")
        async with http.ws_connect("/v1/stream") as socket:
            await socket.send_str(json.dumps(cloud_event(TELEMETRY, "text", data=BLOCK)))
            await socket.send_bytes(framed(cloud_event(IMAGE, "bytes", datacontenttype="image/jpeg"), jpeg(2)))
            found += [await socket.receive_json(timeout=20) for _ in range(2)]
    return found


def connector(context: ssl.SSLContext) -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(ssl=context)


def test_each_way_in_is_acknowledged_with_the_place_of_the_record(topics: Settings, tmp_path: Path) -> None:
    authority = Authority.new(tmp_path / "authority")
    certified = {"gateway_cert_file": authority.certificate, "gateway_key_file": authority.key}
    context = ssl.create_default_context(cafile=str(authority.ca))
    with GatewayProcess(topics, tmp_path, "cab-7", **certified) as gateway:
        gateway.wait_ready(READY_WITHIN_S)
        answers = asyncio.run(every_way(gateway, "cab-7", context))
        assert gateway.metric("streamer_gateway_records_total", outcome="acknowledged") == 7
        gateway.stop()
    places = {}
    decoder = Decoder(topics, topics.partitions)
    for row, topic in enumerate(topics.source_topics):
        for one in read_topic(topics, topic):
            places[topic, one.partition, one.offset] = dict(one.headers)["ce_id"].decode()
            kept = Record(row, one.partition, one.offset, one.timestamp * 1000, one.key, one.value, tuple(one.headers))
            assert decoder.decode(kept).session == "cab-7"  # a worker takes it
    answered = {(answer["topic"], answer["partition"], answer["offset"]): answer["id"] for answer in answers}
    assert answered == places
    assert {"binary", "structured", "batch", "picture", "text", "bytes"} < set(places.values())
    frames = read_topic(topics, topics.source_topics[IMAGE])
    assert TRACE.encode() in [dict(frame.headers).get("traceparent") for frame in frames]
    assert {frame.value for frame in frames} == {jpeg(), jpeg(1), jpeg(2)}


class Place(NamedTuple):
    partition: int
    offset: int


class Device:
    """Sends frames, each until it is acknowledged, whatever becomes of the gateway."""

    def __init__(self, gateway: GatewayProcess, session: str) -> None:
        self.gateway = gateway
        self.session = session
        self.acknowledged: dict[str, Place] = {}
        self.wanted = True

    async def by_requests(self) -> None:
        """One request after the other."""
        headers = {"Authorization": f"Bearer {self.gateway.token}", "Content-Type": "image/jpeg"}
        async with aiohttp.ClientSession(self.gateway.url, headers=headers) as http:
            while self.wanted:
                number = f"{self.session}/{len(self.acknowledged)}"
                try:
                    path = f"/v1/sessions/{self.session}/image"
                    async with http.post(path, data=number.encode(), headers={"ce-id": number}) as answer:
                        if answer.status == 200:
                            self.note(await answer.json())
                except aiohttp.ClientError:
                    await asyncio.sleep(RETRY_S)

    async def by_stream(self) -> None:
        """Many messages at a time; those that were not answered when it broke off are sent again."""
        headers = {"Authorization": f"Bearer {self.gateway.token}"}
        while self.wanted:
            try:
                async with (
                    aiohttp.ClientSession(self.gateway.url, headers=headers) as http,
                    http.ws_connect("/v1/stream") as socket,
                ):
                    while self.wanted:
                        first = len(self.acknowledged)
                        for number in range(first, first + 20):
                            name = f"{self.session}/{number}"
                            event = cloud_event(IMAGE, name, datacontenttype="image/jpeg", partitionkey=self.session)
                            await socket.send_bytes(framed(event, name.encode()))
                        for _ in range(20):
                            answer = await socket.receive_json(timeout=30)
                            if answer["status"] == 200:
                                self.note(answer)
            except (aiohttp.ClientError, TypeError):  # TypeError: the message is that it is closed
                await asyncio.sleep(RETRY_S)

    def note(self, answer: dict[str, Any]) -> None:
        self.acknowledged[answer["id"]] = Place(answer["partition"], answer["offset"])


async def kills(gateway: GatewayProcess, devices: list[Device], chance: random.Random) -> None:
    """Kill it at random moments while the devices send, and start it again."""
    sending = [asyncio.create_task(devices[0].by_requests()), asyncio.create_task(devices[1].by_stream())]
    for _ in range(KILLS):
        before = [len(device.acknowledged) for device in devices]
        deadline = time.monotonic() + 30
        while any(len(device.acknowledged) <= was for device, was in zip(devices, before, strict=True)):
            assert time.monotonic() < deadline, gateway.text()
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.random())
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.restart)
    for device in devices:
        device.wanted = False
    await asyncio.gather(*sending)


def test_whatever_was_acknowledged_is_in_kafka_although_the_gateway_was_killed(
    topics: Settings, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    with GatewayProcess(topics, tmp_path, "one", "two", gateway_records_a_second=100_000) as gateway:
        gateway.wait_ready(READY_WITHIN_S)
        devices = [Device(gateway, "one"), Device(gateway, "two")]
        asyncio.run(kills(gateway, devices, random.Random(seed)))
        gateway.stop()
    frames = read_topic(topics, topics.source_topics[IMAGE])
    places = {Place(one.partition, one.offset): dict(one.headers)["ce_id"].decode() for one in frames}
    for device in devices:
        assert len(device.acknowledged) >= KILLS
        lost = {number for number, place in device.acknowledged.items() if places.get(place) != number}
        assert not lost, f"seed {seed}: {sorted(lost)[:5]} of {len(device.acknowledged)}"
    acknowledged = sum(len(device.acknowledged) for device in devices)
    print(f"{KILLS} kills: {acknowledged} records acknowledged, all in Kafka; {len(frames) - acknowledged} more sent")
