"""The process of ``streamer gateway``: what it connects, its signals, its endpoints, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

import uvloop

from streamer.broker import topics
from streamer.broker.sending import Sending
from streamer.gateway.intake import Intake
from streamer.gateway.metrics import GatewayMetrics
from streamer.gateway.outgoing import Outgoing
from streamer.gateway.quotas import Quotas, Room
from streamer.gateway.records import Records
from streamer.gateway.server import Gateway, tls_context
from streamer.gateway.tokens import Tokens
from streamer.observe import logs
from streamer.observe.endpoints import Endpoints
from streamer.settings import Settings

log = logging.getLogger(__name__)

GC_THRESHOLDS = (50_000, 20, 50)  # a record is some dozen objects, and few of them are in cycles
LOOK_S = 1.0  # between two looks at the file of tokens
STUCK_S = 2.0  # without an acknowledgement for this long while records wait, Kafka is said to be stuck


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Take events until SIGTERM or SIGINT.

    Args:
        say: Called with the gateway's address once it takes events.

    Raises:
        Stop: It cannot start, with the reason. Else the process ends here, with exit code 1 after a crash.
    """
    logs.begin(settings)
    crashed = uvloop.run(_Process(settings).serve(say))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(1 if crashed else 0)  # a broker that does not answer must not hold up the end


class _Process:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = GatewayMetrics()
        self._stop = asyncio.Event()
        self._broken = ""  # why nothing can be sent any more
        self._not_yet = "starting"  # why nothing is taken; empty while it is

    async def serve(self, say: Callable[[str], None]) -> bool:
        """Run until the end; whether it was a crash."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        tls_context(settings)  # before Kafka is asked
        self._tokens = tokens = Tokens(settings.gateway_tokens)
        partitions = await loop.run_in_executor(None, topics.check, settings)
        sending = Sending(settings, settings.gateway_ack_ms)
        await sending.start()
        room = Room(settings.gateway_inflight_bytes)
        records = Records(settings, partitions)
        self._outgoing = Outgoing(settings, sending, room, self._metrics, self._break)
        intake = Intake(records, self._outgoing, Quotas(settings), self._metrics)
        self._gateway = gateway = Gateway(settings, tokens, records, intake, room, self._metrics)
        endpoints = Endpoints(self._metrics.registry, self._not_ready, self._degraded, self._observe)
        await endpoints.start(settings.host, settings.gateway_metrics_port, "STREAMER_GATEWAY_METRICS_PORT")
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop.set)
        log.info("metrics and probes on http://%s:%d", settings.host, endpoints.port)
        try:
            await gateway.start()
            self._not_yet = ""
            gc.freeze()  # what the start has made lives as long as the process
            gc.set_threshold(*GC_THRESHOLDS)
            say(f"gateway: {gateway.scheme}://{_shown(settings.gateway_host)}:{gateway.port}")
            while not self._stop.is_set():
                tokens.refresh()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._stop.wait()
                except TimeoutError:
                    pass
            self._not_yet = "stopping"
            log.info("stopping: no more is taken, what has come is finished")
            await gateway.stop()
            if not await sending.stop(settings.stop_after_ms / 1000):
                log.warning("stopped before Kafka had everything: what it did not acknowledge was answered so")
        finally:
            await endpoints.stop()
        if self._broken:
            log.error("crashed: the producer has ended: %s", self._broken)
        log.info("stopped")
        return bool(self._broken)

    def _break(self, why: str) -> None:
        self._broken = why
        self._stop.set()

    def _not_ready(self) -> list[str]:
        return [self._not_yet] if self._not_yet else []

    def _degraded(self) -> list[str]:
        stuck_s = self._outgoing.stuck_s()
        reasons = [f"Kafka has acknowledged nothing for {stuck_s:.0f} s"] if stuck_s > STUCK_S else []
        return reasons + ([self._tokens.fault] if self._tokens.fault else [])

    def _observe(self) -> None:
        self._gateway.observe()
        self._metrics.ready.set(not self._not_yet)


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "localhost"  # means every address of this machine
    return f"[{host}]" if ":" in host else host
