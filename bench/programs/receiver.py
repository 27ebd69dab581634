"""A receiver of webhooks that takes everything, for ``bench.sinks``. Prints its address."""

from __future__ import annotations

import asyncio

from aiohttp import web


async def take(request: web.Request) -> web.Response:
    """Read it, and say that it is taken."""
    await request.read()
    return web.Response(status=204)


async def main() -> None:
    """Serve until killed."""
    app = web.Application()
    app.add_routes([web.post("/", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
