"""The form of a process that reads results: its log, its port, its signals.

Of :class:`streamer.store.readers.Reader` such a process is the part around it: `streamer describe`, `speak`, `sink`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

from prometheus_client import CollectorRegistry, Gauge

from streamer.observe import logs
from streamer.observe.endpoints import Endpoints
from streamer.observe.health import Service
from streamer.settings import Settings
from streamer.store import results
from streamer.store.readers import Reader

SOCKET_TIMEOUT_S = 10.0


def prepare(settings: Settings) -> None:
    """Begin the log, and see that Redis is there.

    Raises:
        UsageError: Redis does not answer.
    """
    logs.begin(settings)
    with results.connected(settings):
        pass


async def follow(
    reader: Reader,
    services: Sequence[Service],
    registry: CollectorRegistry,
    behind_seconds: Gauge,
    *,
    host: str,
    port: int | None,
    port_setting: str,
    say: Callable[[str], object],
    once: bool = False,
    degraded: Callable[[], list[str]] = list,
    observe: Callable[[], object] = lambda: None,
) -> None:
    """Read until SIGTERM or Ctrl-C, or until everything is read, with /metrics and probes on a port.

    Args:
        services: What it needs; it is not ready while one does not answer.
        port: ``None``: none is opened.
        port_setting: What the port is set by, for the message if it is taken.
        say: Called with the address of the metrics once the port is open.
        degraded: Returns what does not work although it can.
        observe: Called before each scrape.

    Raises:
        UsageError: The port is taken.
        Stop: Redis refuses us.
    """

    def before_scrape() -> None:
        behind_seconds.set(reader.behind_s)
        observe()

    endpoints = Endpoints(
        registry,
        not_ready=lambda: [service.error for service in services if service.error is not None],
        degraded=degraded,
        before_scrape=before_scrape,
    )
    async with AsyncExitStack() as stack:
        if port is not None:
            await endpoints.start(host, port, port_setting)
            stack.push_async_callback(endpoints.stop)
            say(f"metrics on http://{host}:{endpoints.port}/metrics")
        task = asyncio.ensure_future(reader.run(once))
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
        with suppress(asyncio.CancelledError):  # asked to stop: the next process goes on where this one was
            await task
