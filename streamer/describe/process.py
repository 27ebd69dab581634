"""The process of `streamer describe`: its signals, its port, its connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from streamer.clients import redis as redis_clients
from streamer.describe import evidence
from streamer.describe.bymodel import ByModel
from streamer.describe.chat import Chat
from streamer.describe.describer import Describer, Scene, Told, by_outputs
from streamer.describe.metrics import Metrics
from streamer.describe.sentences import sparse
from streamer.observe.health import Service
from streamer.retrieval.contents import Log, Records
from streamer.settings import Settings
from streamer.store import following
from streamer.store.descriptions import Description, Descriptions
from streamer.store.readers import Cursors, Reader
from streamer.store.results import Keys

THREADS = 2  # that read Kafka, each with a consumer


def run(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    since_us: int = 0,
    once: bool = False,
    on_description: Callable[[Description], object] = lambda description: None,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Describe until SIGTERM or Ctrl-C, or until everything is described.

    Args:
        only, since_us, once, on_description: As ``streamer.store.readers.Reader`` and ``Describer`` have them.
        say: Called with the port's address once it listens.

    Raises:
        UsageError: Kafka or Redis does not answer, or the port is taken.
        Stop: Redis refuses us.
    """
    following.prepare(settings)
    asyncio.run(_run(settings, only, since_us, once, on_description, say))


async def _run(
    settings: Settings,
    only: Sequence[str],
    since_us: int,
    once: bool,
    on_description: Callable[[Description], object],
    say: Callable[[str], object],
) -> None:
    metrics = Metrics()
    services = [Service(name, metrics.retries.labels(name.lower()).inc) for name in ("Kafka", "Redis")]
    async with AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        source = await asyncio.to_thread(Log, settings)
        stack.push_async_callback(asyncio.to_thread, source.close)
        threads = stack.enter_context(ThreadPoolExecutor(THREADS, "words"))  # left before the source is closed
        records = Records(settings, source)
        client = redis_clients.async_client(settings, socket_timeout=following.SOCKET_TIMEOUT_S)
        stack.push_async_callback(client.aclose)
        keys = Keys(settings.key_prefix)
        tell: Callable[[Scene], Awaitable[Told]] = by_outputs
        if settings.describe_url is not None:
            chat = await stack.enter_async_context(Chat(settings, metrics))
            tell = ByModel(settings, chat, records, threads, metrics)
        describer = Describer(
            Descriptions(client, keys, settings.results_maxlen),
            lambda results: loop.run_in_executor(threads, evidence.words, records, results),
            tell,
            metrics,
            on_description,
            sparse(settings),
        )
        cursors = Cursors(client, keys, keys.described)
        reader = Reader(
            client, keys, cursors, describer.take, redis=services[1], other=services[0], only=only, since_us=since_us
        )
        await following.follow(
            reader,
            services,
            metrics.registry,
            metrics.behind_seconds,
            host=settings.host,
            port=None if once else settings.describe_port,
            port_setting="STREAMER_DESCRIBE_PORT",
            say=lambda address: say(f"describing new windows; {address}"),
            once=once,
        )
