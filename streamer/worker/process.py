"""The process of a worker: its memory, its signals, its connection to Redis, and how it ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
from time import monotonic

import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions
import uvloop

from streamer.broker import topics
from streamer.clients import codecs
from streamer.clients import redis as redis_clients
from streamer.observe import logs
from streamer.settings import Settings
from streamer.store import heartbeats
from streamer.store.results import Keys
from streamer.worker import roles
from streamer.worker.worker import Worker

GC_THRESHOLDS = (50_000, 20, 50)  # a record is a dozen objects: 700, the default, is a look every 60 records
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt(3)
KEPT_BYTES = 128 << 20  # of free memory at the heap's end that are not given back to the kernel
MAPPED_FROM_BYTES = 32 << 20  # larger blocks are mapped one by one; the most that glibc takes
REDIS_START_S = 10.0


def run(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Raises:
        Stop: It cannot start or go on, with the reason. Else the process ends here, with exit code 1 after a crash.
    """
    logs.begin(settings)
    share_one_heap()
    uvloop.install()  # not uvloop.run alone: Faust's fetch thread makes its own loop by the policy
    crashed = uvloop.run(_main(settings))
    # Not by returning: a crashed fetcher, or a model that does not finish a window, leaves a thread behind for which
    # the interpreter would wait.
    logging.shutdown()
    os._exit(1 if crashed else 0)


async def _main(settings: Settings) -> bool:
    loop = asyncio.get_running_loop()
    codecs.check()
    partitions = await loop.run_in_executor(None, topics.check_for_worker, settings)
    client = await _connect(settings)
    worker = Worker(settings, await loop.run_in_executor(None, roles.load, settings, partitions, client))
    spare_the_collector()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, worker.stop)
    signs = heartbeats.beat(client, Keys(settings.key_prefix), settings.role, worker.not_ready)
    beating = asyncio.create_task(signs, name="heartbeats")
    try:
        return await worker.run()
    finally:
        beating.cancel()
        await client.aclose()


async def _connect(settings: Settings) -> redis.asyncio.Redis:
    """A client that answers.

    Raises:
        UsageError: Nothing answers at the address, or it refuses us.
    """
    client = redis_clients.async_client(
        settings,
        socket_timeout=10.0,
        health_check_interval=15,
        # Publisher repeats calls itself, visibly; the client's own retries would hide an outage from readiness.
        retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
    )
    deadline = monotonic() + REDIS_START_S
    while True:
        try:
            await client.ping()
        except (redis.exceptions.RedisError, OSError) as error:
            refused = isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError)
            if refused or monotonic() > deadline:
                await client.aclose()
                raise redis_clients.refusal(settings, error) from None
            await asyncio.sleep(0.2)
        else:
            return client


def spare_the_collector() -> None:
    """Take what the start has made out of the garbage collector's walks: it lives as long as the process.

    Without this a full collection walks over all of PyTorch while nothing else runs. Reference counts free records,
    windows and tensors as before; cycles among later objects are still found, only less often. ``streamer worker``
    turns the collector off while it imports; a last collection, 0.3 s, is skipped as well: only 9,000 of 260,000
    objects are garbage.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def share_one_heap() -> None:
    """One heap for all threads, so that memory that one has freed serves another.

    glibc gives each thread its own heap. Payloads are made in the consumer's thread and freed in others, tensors come
    and go in the device's, and each heap keeps what it once needed. What the tensors of a batch have needed is kept for
    the next batch: else it goes back to the kernel, which clears each page again. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
