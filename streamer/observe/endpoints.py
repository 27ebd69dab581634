"""HTTP endpoints of a worker: /metrics for Prometheus, /healthz and /readyz for probes."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streamer.errors import UsageError


class Endpoints:
    """A small web server on one port.

    Args:
        registry: What /metrics shows.
        degraded: Returns what does not work although it can; /readyz answers 200 and names it.
        not_ready: Returns why the worker cannot take work now; empty when it can. /readyz answers 503 with the reasons.
        before_scrape: Called before each /metrics, to bring gauges up to date.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        not_ready: Callable[[], list[str]],
        degraded: Callable[[], list[str]],
        before_scrape: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._not_ready = not_ready
        self._degraded = degraded
        self._before_scrape = before_scrape
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int, setting: str = "STREAMER_PORT") -> None:
        """Listen; ``port`` 0 takes a free one: see ``self.port``.

        Args:
            setting: What the port is set by, for the message if it is taken.

        Raises:
            UsageError: The address cannot be bound.
        """
        app = web.Application()
        app.add_routes(
            [web.get("/metrics", self._metrics), web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise UsageError(
                f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to a free port, or 0 for any"
            ) from None
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        self._before_scrape()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = self._not_ready()
        found = {"ready": not reasons, "reasons": reasons, "degraded": self._degraded()}
        return web.json_response(found, status=503 if reasons else 200)
