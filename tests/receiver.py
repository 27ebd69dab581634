"""A receiver of webhooks, in a thread of its own: it answers as it is told, and keeps what it has accepted."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()

Post = dict[str, Any]
Answer = Callable[[Post], Awaitable[web.Response]]


async def accept(post: Post) -> web.Response:
    """Answer that it is taken."""
    return web.Response(status=204)


class Receiver:
    """Serves while its context is open.

    Args:
        answer: What a post is answered; one that is signed wrongly is answered 401 without asking.

    Attributes:
        accepted: ``webhook-id`` and event of each post that was answered 2xx, in their order.
        asked: The same of all posts.
    """

    def __init__(self, answer: Answer = accept) -> None:
        self.answer = answer
        self.accepted: list[tuple[str, Post]] = []
        self.asked: list[tuple[str, Post]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.add_routes([web.post("/hook", self._take)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(KEY).verify(body, dict(request.headers))  # an error is answered 500
        post = json.loads(body)
        name = request.headers["webhook-id"]
        self.asked.append((name, post))
        answer = await self.answer(post)
        if answer.status < 300:
            self.accepted.append((name, post))
        return answer

    def windows(self, session: str) -> list[str]:
        """Ids of a session's windows that were accepted."""
        return [post["id"] for _, post in list(self.accepted) if post["subject"] == session]
