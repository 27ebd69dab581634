"""A bare aiohttp server that reads bodies and drops them: ``python -m bench.programs.drops PORT``."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def drop(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")


async def main(port: int) -> web.Application:
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", drop)])
    print(f"on {port}", flush=True)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(main(int(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
