"""A language model behind an OpenAI-compatible address that answers as a test tells it, and notes what it is asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from aiohttp import web

Answer = Callable[["LanguageModel", web.Request], Any]


def completion(content: str | None, tokens: int | None = 10) -> dict[str, Any]:
    """A chat completion; without ``usage`` if ``tokens`` is None."""
    said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    return said | ({"usage": {"prompt_tokens": tokens, "completion_tokens": tokens}} if tokens is not None else {})


def described(text: str = "A car brakes.") -> web.Response:
    return web.json_response(completion(json.dumps({"description": text})))


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(600)
    raise AssertionError("nobody waits that long")


async def cuts_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        for _ in range(1000):
            await response.write(b"x" * 65536)
    except ConnectionError:
        pass  # the reader has had enough
    return response


FAILURES: dict[str, Callable[[web.Request], Any]] = {
    "a server error": lambda request: web.Response(status=500, text="out of memory"),
    "too many requests": lambda request: web.Response(status=429, headers={"Retry-After": "0"}),
    "an unreadable Retry-After": lambda request: web.Response(status=503, headers={"Retry-After": "soon"}),
    "a wrong key": lambda request: web.Response(status=401, text="no"),
    "a redirect": lambda request: web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}),
    "silence": hangs,
    "a cut connection": cuts_off,
    "a flood": floods,
    "no JSON": lambda request: web.Response(text="<html>hello</html>"),
    "JSON that is no completion": lambda request: web.json_response({"error": "no"}),
    "no choices": lambda request: web.json_response({"choices": []}),
    "a completion without text": lambda request: web.json_response(completion(None)),
    "text that is no JSON": lambda request: web.json_response(completion("A car brakes.")),
    "another shape": lambda request: web.json_response(completion('{"summary": "A car brakes."}')),
    "an empty description": lambda request: web.json_response(completion('{"description": ""}')),
    "an endless description": lambda request: web.json_response(completion(json.dumps({"description": "x" * 5000}))),
    "bytes that are no text": lambda request: web.Response(body=b"\xff\xfe\x00", content_type="application/json"),
}


class LanguageModel:
    """The server.

    Attributes:
        questions: What was asked, with the headers.
        answers: What to answer next; the last one stays.
    """

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Callable[[web.Request], Any]] = [lambda request: described()]
        self.url = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.questions.append(await request.json())
        self.headers.append(dict(request.headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        made = answer(request)
        response: web.StreamResponse = await made if asyncio.iscoroutine(made) else made
        return response

    async def serve(self, started: Future[Callable[[], object]]) -> None:
        """Until the function that ``started`` gets is called."""
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([web.post("/v1/chat/completions", self._answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        await runner.cleanup()


@contextmanager
def running() -> Iterator[LanguageModel]:
    """The server, in a thread."""
    model, started = LanguageModel(), Future[Callable[[], object]]()
    thread = threading.Thread(target=lambda: asyncio.run(model.serve(started)), daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield model
    finally:
        stop()
        thread.join()
