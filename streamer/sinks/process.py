"""The process of `streamer sink`: its signals, its port, its connections."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from redis.exceptions import RedisError

from streamer.clients import redis as redis_clients
from streamer.errors import UsageError
from streamer.events import rfc3339
from streamer.observe.health import Service
from streamer.settings import Settings
from streamer.sinks import registry
from streamer.sinks.metrics import Metrics
from streamer.sinks.sink import Given, Sink
from streamer.store import following
from streamer.store.readers import Cursors, Later, Page, Reader
from streamer.store.results import Keys

NAME = r"[A-Za-z0-9_-]{1,60}"


def run(
    settings: Settings,
    kind: str,
    *,
    name: str | None = None,
    only: Sequence[str] = (),
    since_us: int | None = None,
    once: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Take results to a sink until SIGTERM or Ctrl-C, or until everything is there.

    Args:
        kind: Name of the sink among the entry points.
        name: Of its cursors; ``None``: as the kind.
        only: Only these sessions; empty for all.
        since_us: In sessions in which the sink was never, begin with the windows that end at or after this time;
            ``None``: with those that are published after the sink's first start.
        once: End as soon as every result that Redis has is there.
        say: Called once it listens, with a line for people.

    Raises:
        UsageError: There is no such sink, it is not set up, a server does not answer, or the port is taken.
        Stop: Redis or the sink's own server refuses us.
    """
    made = registry.find(kind)
    name = kind if name is None else name
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r} is no name of a sink: 1 to 60 letters, digits, _ and - are")
    following.prepare(settings)
    asyncio.run(serve(settings, made, name, only=only, since_us=since_us, once=once, say=say))


async def serve(
    settings: Settings,
    make: type[Sink],
    name: str,
    *,
    only: Sequence[str] = (),
    since_us: int | None = None,
    once: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Take results to a sink of this class; otherwise as :func:`run`."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        client = redis_clients.async_client(settings, socket_timeout=following.SOCKET_TIMEOUT_S)
        stack.push_async_callback(client.aclose)
        keys = Keys(settings.key_prefix)
        cursors = Cursors(client, keys, lambda session: keys.sink(session, name))
        sink = make(Given(settings, name, client, keys, cursors, metrics))
        await sink.open()
        stack.push_async_callback(sink.close)
        redis, other = (Service(n, metrics.retries.labels(n.lower()).inc) for n in ("Redis", sink.service))

        async def take(page: Page) -> int | Later | None:
            if page.missed:
                metrics.overtaken.inc()
                metrics.overtaken_seconds.inc(page.missed_us / 1e6)
            metrics.read.inc(len(page.results))
            return await sink.take(page)

        reader = Reader(
            client,
            keys,
            sink.places,
            take,
            redis=redis,
            other=other,
            only=only,
            since_us=since_us or 0,
            at_once=sink.at_once,
        )
        try:
            # Sessions that begin while the sink is away are new ones too: only the first start passes over anything.
            if not await client.hexists(keys.sinks, name):
                if since_us is None:
                    await reader.skip()
                await client.hset(keys.sinks, name, rfc3339(time.time_ns() // 1000))
        except RedisError as error:
            raise redis_clients.refusal(settings, error) from None
        await following.follow(
            reader,
            (redis, other),
            metrics.registry,
            metrics.behind_seconds,
            host=settings.host,
            port=None if once else settings.sink_port,
            port_setting="STREAMER_SINK_PORT",
            say=lambda address: say(f"sink {name}: waiting for results; {address}"),
            once=once,
            degraded=sink.degraded,
        )
