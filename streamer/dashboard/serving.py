"""The page's server with all its sources: as a command, or in a thread."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from streamer.clients import redis as redis_clients
from streamer.dashboard import alarms
from streamer.dashboard.faults import Faults, Watch
from streamer.dashboard.live import Live
from streamer.dashboard.search import Finder
from streamer.dashboard.server import Dashboard, check_access
from streamer.dashboard.speech import Listener, Spoken
from streamer.retrieval.contents import Log, Windows
from streamer.settings import Settings
from streamer.speak.sentences import Utterance
from streamer.store import results
from streamer.store.results import Keys


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Args:
        say: Called with the page's address once it can be opened.

    Raises:
        UsageError: Kafka or Redis does not answer, the address is taken, or the token is too short.
    """

    async def serve() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with _served(settings) as dashboard:
            say(f"live page: {dashboard.url}")
            await stop.wait()

    asyncio.run(serve())


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Serve the page in a thread while the context is open; gives its address.

    Raises:
        UsageError: As :func:`run`.
    """
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with _served(settings) as dashboard:
                started.set_result((dashboard.url, lambda: loop.call_soon_threadsafe(stop.set)))
                await stop.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="dashboard", daemon=True)
    thread.start()
    try:
        url, stop = started.result()
        try:
            yield url
        finally:
            stop()
    finally:
        thread.join()


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Dashboard]:
    """The page with its sources, connected and listening."""
    check_access(settings)
    await asyncio.to_thread(_check_redis, settings)
    loop = asyncio.get_running_loop()
    live: Live | None = None

    def changed(faults: Faults) -> None:
        if live is not None:
            loop.call_soon_threadsafe(live.note, "faults", faults)

    def said(utterance: Utterance) -> None:
        if live is not None:
            loop.call_soon_threadsafe(live.say, utterance)

    def alarmed(shown: alarms.Shown) -> None:
        if live is not None:
            loop.call_soon_threadsafe(live.note, "alarms", shown)

    async with AsyncExitStack() as stack:
        windows = Windows(settings, await asyncio.to_thread(Log, settings))
        stack.push_async_callback(windows.close)
        watch = await asyncio.to_thread(Watch, settings, changed)
        stack.push_async_callback(asyncio.to_thread, watch.close)
        spoken = Spoken()
        listener = await asyncio.to_thread(Listener, settings, spoken, said)
        stack.push_async_callback(asyncio.to_thread, listener.close)
        alarm_watch = alarms.Watch(settings, alarmed)
        stack.push_async_callback(asyncio.to_thread, alarm_watch.close)
        client = redis_clients.async_client(
            settings, socket_timeout=redis_clients.TIMEOUT_S, health_check_interval=redis_clients.TIMEOUT_S
        )
        stack.push_async_callback(client.aclose)
        live = Live(client, Keys(settings.key_prefix), lambda: watch.seen)
        finder = Finder(settings)
        stack.push_async_callback(finder.close)
        dashboard = Dashboard(settings, live, windows, finder, spoken, alarm_watch)
        await dashboard.start()
        stack.push_async_callback(dashboard.stop)
        watch.start()
        listener.start()
        alarm_watch.start()
        tasks = [asyncio.create_task(live.follow()), asyncio.create_task(live.watch_workers())]
        try:
            yield dashboard
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _check_redis(settings: Settings) -> None:
    with results.connected(settings):
        pass  # raises UsageError if Redis does not answer
