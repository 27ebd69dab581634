"""``streamer gateway`` beside a bare aiohttp server that drops the same bodies, and its memory under a stuck broker.

    python -m bench.gateway

*Records a second of a core*: records ÷ CPU seconds (user and system, of all threads) of the server, which is pinned to
one core; bodies of 20 KB, on 32 connections that each wait for their answer, in turns. The gateway has checked each
record, and Kafka has acknowledged it, before it answers; the bare server answers at once. *WebSocket*: the same
payloads as messages, up to 16 on their way on each connection. *Stuck*: the broker is stopped (SIGSTOP) and the load
goes on, of 600 connections: resident memory over the time; the room is full and all connections are there long before
half of it is over.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import aiohttp
import psutil

from bench import rig
from bench.rig import Figure, Report, Rig, Spread
from streamer.gateway import tokens
from streamer.local.process import free_port
from streamer.local.program import Program
from streamer.local.worker import WorkerProcess
from streamer.settings import MIB, Settings

BODY_BYTES = 20_000
CONNECTIONS, ON_THEIR_WAY = 32, 16
RECORDS, WARM_UP = 20_000, 2_000
STUCK_S = 120.0
LOOKS = 6  # at the memory in that time
AIM = 0.8
FLAT = 1.02
SESSIONS = tuple(f"device-{number}" for number in range(CONNECTIONS))


class Served(NamedTuple):
    """A server that is measured."""

    program: Program
    port: int
    token: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    options = rig.parse(rig.parser(__doc__, rounds=5), arguments)
    records = RECORDS // 10 if options.quick else RECORDS
    ways: dict[str, list[float]] = {"bare": [], "requests": [], "WebSocket": []}
    with Rig() as bench:
        settings = bench.settings(gateway_records_a_second=10**9, gateway_bytes_a_second=10**12)
        for number in rig.rounds(options):
            with bare(bench) as server:
                ways["bare"].append(rate(server, by_requests, records))
            with gateway(bench, settings) as server:
                ways["requests"].append(rate(server, by_requests, records))
                ways["WebSocket"].append(rate(server, by_messages, records))
            shown = ", ".join(f"{name} {rates[-1]:.0f}" for name, rates in ways.items())
            rig.console.log(f"round {number}: records a second of a core: {shown}")
        resident = stuck(bench, settings, STUCK_S / 10 if options.quick else STUCK_S)
    figures = [
        Figure(f"{way} ÷ a bare server, records a second of a core", rig.ratios(ways[way], ways["bare"]), aim=aim,
               better="higher")
        for way, aim in (("requests", AIM), ("WebSocket", AIM))
    ]  # fmt: skip
    figures += [
        Figure(f"{way}, records a second of a core", Spread.of(rates), "1/s", "higher") for way, rates in ways.items()
    ]
    shown_bytes = [found / MIB for found in resident.values()]
    figures += [
        Figure(
            "resident, the broker stuck: at the end ÷ half-way",
            Spread.of([shown_bytes[-1] / shown_bytes[LOOKS // 2]]),
            aim=FLAT,
        ),
        *(
            Figure(f"resident after {seconds:.0f} s of a stuck broker", Spread.of([found]), "MiB")
            for seconds, found in zip(resident, shown_bytes, strict=True)
        ),
    ]
    rig.finish(Report("gateway", figures, [f"bodies of {BODY_BYTES} bytes, {CONNECTIONS} connections"]), options)


class _Serving:
    """A server for the time of a ``with`` block."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def __enter__(self) -> Served:
        self.served.program.__enter__()
        return self.served

    def __exit__(self, *error: object) -> None:
        self.served.program.kill()


def bare(bench: Rig) -> _Serving:
    port = free_port()
    program = rig.started([sys.executable, "-m", "bench.programs.drops", str(port)], {}, bench.folder / "bare.log")
    program.wait_for(lambda: f"on {port}" in program.text(), rig.READY_WITHIN_S, "listen")
    time.sleep(0.5)
    return _Serving(Served(program, port, "none"))


def gateway(bench: Rig, settings: Settings) -> _Serving:
    path = bench.folder / "tokens.toml"
    path.unlink(missing_ok=True)
    token, port = tokens.make(path, SESSIONS), free_port()
    given = {"gateway_port": port, "gateway_tokens": path}
    log = bench.folder / "gateway.log"
    program = WorkerProcess(settings.model_copy(update=given), log, rig.one_thread(), rig.ROOT, command="gateway")
    rig.pin(program.pid, rig.PROGRAM_CORE)
    program.wait_ready(rig.READY_WITHIN_S)
    return _Serving(Served(program, port, token))


Sending = Callable[[Served, str, int], Awaitable[None]]


def rate(server: Served, sending: Sending, records: int) -> float:
    """Records ÷ CPU seconds of the server, warmed up."""
    asyncio.run(sent(server, sending, WARM_UP))
    before_s = rig.cpu_s(server.program)
    asyncio.run(sent(server, sending, records))
    return records / (rig.cpu_s(server.program) - before_s)


async def sent(server: Served, sending: Sending, records: int) -> None:
    await asyncio.gather(*(sending(server, session, records // CONNECTIONS) for session in SESSIONS))


async def by_requests(server: Served, session: str, count: int) -> None:
    """By hand, since a client library would take more of the other core than the server of this one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request = (
        f"POST /v1/sessions/{session}/image HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    ).encode() + bytes(BODY_BYTES)
    for _ in range(count):
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r")[0]))
    writer.close()


async def by_messages(server: Served, session: str, count: int) -> None:
    """Messages in the binary form, a window of them on their way."""
    headers = {"Authorization": f"Bearer {server.token}"}
    url = f"http://127.0.0.1:{server.port}/v1/stream"
    async with aiohttp.ClientSession(headers=headers) as http, http.ws_connect(url, compress=0) as socket:
        for number in range(count + ON_THEIR_WAY):
            if number < count:
                head = json.dumps(
                    {"specversion": "1.0", "id": str(number), "source": "/bench", "type": "streamer.frame.v1",
                     "partitionkey": session, "datacontenttype": "image/jpeg"}
                ).encode()  # fmt: skip
                await socket.send_bytes(len(head).to_bytes(4, "big") + head + bytes(BODY_BYTES))
            if number >= ON_THEIR_WAY:
                answer = await socket.receive_json()
                if answer["status"] != 200:
                    raise RuntimeError(str(answer))


def stuck(bench: Rig, settings: Settings, seconds: float) -> dict[float, int]:
    """Resident bytes by the seconds for which Kafka has not answered and devices have gone on; first at none."""

    found: dict[float, int] = {}

    async def looks(server: Served) -> None:
        process, since_s = psutil.Process(server.program.pid), time.monotonic()
        for number in range(LOOKS + 1):
            await asyncio.sleep(since_s + seconds * number / LOOKS - time.monotonic())
            found[seconds * number / LOOKS] = process.memory_info().rss

    async def pressed(server: Served, until_s: float) -> None:
        async def press(session: str) -> None:
            headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "image/jpeg"}
            async with aiohttp.ClientSession(headers=headers) as http:
                while time.monotonic() < until_s:
                    url = f"http://127.0.0.1:{server.port}/v1/sessions/{session}/image"
                    async with http.post(url, data=bytes(BODY_BYTES)) as answer:
                        if answer.status not in (200, 503):
                            raise RuntimeError(str(answer.status))
                        await answer.read()

        # more at a time than the room has places for
        await asyncio.gather(looks(server), *(press(SESSIONS[number % CONNECTIONS]) for number in range(600)))

    given = settings.model_copy(update={"gateway_inflight_bytes": 8 * MIB, "gateway_ack_ms": 2000})
    with gateway(bench, given) as server:
        asyncio.run(sent(server, by_requests, WARM_UP))
        bench.stack.kafka.pause()
        try:
            asyncio.run(pressed(server, time.monotonic() + seconds))
        finally:
            bench.stack.kafka.resume()
    return found


if __name__ == "__main__":
    rig.run(main)
