"""The page's web server: who has access, and what each address answers.

    /                                         the page; /?token=… opens it once, then a cookie does
    /page/NAME.js                             its scripts, modules that import each other; the first is main.js
    /api/sessions                             all sessions with their newest results, and settings that the page needs:
                                              the sensors with their kinds, disabled ones last; this server's time; the
                                              ranks of severities
    /api/results?session=S&since=US&limit=N   results of a session that end at or after US, oldest first; &until=US
    /api/frame?session=S&end_us=US            newest frame of the window, as it was sent; WebP upright; of its first
                                              camera or of &sensor=NAME
    /api/window?session=S&end_us=US           spectrogram, transcripts and telemetry of the window
    /api/description?session=S&until=US       newest description of a window that ends at or before US; null: none
    /api/drifts?session=S                     sensors whose clocks drift away from the session's others; []: none
    /api/speech?id=ID                         what was said aloud, by its id: audio/wav
    /api/alarms/acknowledge                   POST: somebody has seen an open alarm, see alarms.Acknowledgement
    /api/alarms/log?limit=N                   what happened last to alarms, in all sessions, newest first
    /api/search?q=WORDS&limit=N               windows most like these words, in all sessions or in &session=S; by POST
                                              those most like the body, a file of image/… or audio/…
    /events?session=S                         server-sent events: what is new, in all sessions and in S

Sessions are in the query, since browsers rewrite a path with ``..``, which is a valid session name. Errors are JSON
with one line, ``{"error": …}``: 400 for a bad request, 401 without the token, 404 for data that no longer exist, 413
for a file that is too large, 503 for a server that does not answer now.

All requests are GET but the search by a file and the acknowledgement, which alone changes anything. A foreign site can
send neither: their content types need a CORS permission that is never given, and their Origin is checked. So no other
site can do harm through a visitor's cookie. On loopback no token is needed, but the name that the browser asked for
must be local too: a foreign name that resolves to 127.0.0.1 would let its site read the page (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from time import time_ns
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from redis.exceptions import RedisError

from streamer.dashboard.alarms import Acknowledgement, Watch
from streamer.dashboard.live import Client, Live
from streamer.dashboard.search import Finder
from streamer.dashboard.severity import AT_LEAST
from streamer.dashboard.speech import Spoken
from streamer.errors import Stop, Unavailable, UsageError, one_line
from streamer.events import MAX_SESSION_BYTES
from streamer.observe.pages import page_file
from streamer.result import Result
from streamer.retrieval.contents import Gone, Windows
from streamer.retrieval.indexes import MAX_FILE_BYTES, MAX_HITS, MAX_TEXT
from streamer.retrieval.search import Query
from streamer.settings import Settings
from streamer.speak import records

COOKIE = "streamer_dashboard"
COOKIE_S = 30 * 24 * 3600
MIN_TOKEN = 16  # characters
MAX_RESULTS = 1000  # in one answer
LOG_LIMIT, MAX_LOG = 100, 1000  # lines of the log of alarms
MAX_ACKNOWLEDGEMENT_BYTES = 4096
SEARCH_LIMIT = 12  # windows in the answer to a search
MOST_US = 2**53
UPDATE_S = 0.2  # shortest time between two events to one browser
BEAT_S = 10.0  # between two signs of life on a quiet stream
SEND_S = 30.0  # a browser that reads nothing for this long has gone
SHUTDOWN_S = 1.0
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # pictures of people must not be left on a visitor's disk
}
SCRIPTS = sorted(one.name for one in (files("streamer.dashboard") / "page").iterdir())  # modules of each other
FILES = {
    "/": ("page.html", "text/html"),
    **{f"/page/{name}": (f"page/{name}", "text/javascript") for name in SCRIPTS},
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
OPEN = {"/page.css", "/icon.svg"}  # used by the form that asks for the token

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dashboard:
    """The page on one port.

    Args:
        settings: Where to listen, and the token.
        live, windows, finder, spoken, alarms: The sources of the data; not closed here.
    """

    def __init__(
        self, settings: Settings, live: Live, windows: Windows, finder: Finder, spoken: Spoken, alarms: Watch
    ) -> None:
        check_access(settings)
        self._settings = settings
        self._names = settings.sensor_set.names
        self._live = live
        self._windows = windows
        self._finder = finder
        self._spoken = spoken
        self._alarms = alarms
        self._token = _token(settings)
        self._made_token: str | None = None  # shown in the log only
        if self._token is None and not _is_loopback(settings.dashboard_host):
            self._token = self._made_token = secrets.token_urlsafe(24)
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The page's address, with the token if the server made it: then only the log shows it."""
        host = self._settings.dashboard_host
        if host in ("0.0.0.0", "::"):
            host = "localhost"  # means every address of this machine, which browsers refuse to open
        token = f"?token={self._made_token}" if self._made_token is not None else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{token}"

    async def start(self) -> None:
        """Listen; with port 0 on a free one, which ``port`` and ``url`` then name.

        Raises:
            UsageError: The address is taken, or is not an address of this machine.
        """
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_FILE_BYTES)
        app.on_shutdown.append(self._shut)
        app.add_routes([web.get(path, self._file) for path in FILES])
        app.add_routes(
            [
                web.get("/api/sessions", self._sessions),
                web.get("/api/results", self._results),
                web.get("/api/description", self._description),
                web.get("/api/drifts", self._drifts),
                web.get("/api/frame", self._frame),
                web.get("/api/window", self._window),
                web.get("/api/speech", self._said),
                web.get("/api/search", self._search),
                web.post("/api/search", self._search_by_file),
                web.get("/api/alarms/log", self._alarm_log),
                web.post("/api/alarms/acknowledge", self._acknowledge),
                web.get("/events", self._events),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
        await self._runner.setup()
        host, port = self._settings.dashboard_host, self._settings.dashboard_port
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise UsageError(
                f"cannot listen on {host}:{port} ({error.strerror}); set STREAMER_DASHBOARD_PORT to a free port, "
                "or 0 for any"
            ) from None
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and all streams."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _shut(self, app: web.Application) -> None:
        self._live.close()

    # access

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = self._refusal(request) or await handler(request)
        except web.HTTPException as error:
            response = _error(error.status, error.reason)
        except Gone as error:
            response = _error(404, str(error))
        except Unavailable as error:
            response = _error(503, str(error))
        except Stop as error:
            response = _error(400, str(error))
        except (RedisError, OSError):
            response = _error(503, "Redis does not answer")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._token is None:
            return None if _is_loopback(_host(request)) else _error(403, "open the page by a local name: localhost")
        if request.path in OPEN or self._is_known(request):
            return None
        given = request.query.get("token")
        if request.path == "/" and given is not None and _same(given, self._token):
            answer = web.Response(status=303, headers={"Location": "/"})
            answer.set_cookie(
                COOKIE, _pass(self._token), max_age=COOKIE_S, httponly=True, samesite="Strict", secure=request.secure
            )
            return answer
        if request.path == "/":
            return web.Response(status=401, body=_content("login.html"), content_type="text/html", charset="utf-8")
        return _error(401, "the token is needed: open /?token=…")

    def _is_known(self, request: web.Request) -> bool:
        return self._token is not None and _same(request.cookies.get(COOKIE, ""), _pass(self._token))

    # answers

    async def _file(self, request: web.Request) -> web.Response:
        if "token" in request.query:  # known already: remove it from the address bar
            return web.Response(status=303, headers={"Location": "/"})
        name, content_type = FILES[request.path]
        return web.Response(body=_content(name), content_type=content_type, charset="utf-8")

    async def _sessions(self, request: web.Request) -> web.Response:
        settings = self._settings
        # A disabled one is not expected, but windows of before may have it.
        disabled = [name for name, one in settings.sensors.items() if not one.enabled]
        return _json(
            {
                "sessions": await self._live.sessions(),
                "sensors": [{"name": name, "kind": settings.sensors[name].kind} for name in (*self._names, *disabled)],
                "search": await self._finder.available(),
                "gap_s": settings.session_gap_ms / 1000,
                "now_us": time_ns() // 1000,
                "severities": AT_LEAST,
            }
        )

    async def _results(self, request: web.Request) -> web.Response:
        limit = min(_number(request, "limit", MAX_RESULTS), MAX_RESULTS) or 1
        since_us, until_us = _number(request, "since", 0), _number(request, "until", MOST_US - 1)
        found = await self._live.results(_session(request), since_us, until_us, limit)
        return _json([msgspec.Raw(raw) for raw in found])

    async def _description(self, request: web.Request) -> web.Response:
        found = await self._live.description(_session(request), _number(request, "until", MOST_US - 1))
        return web.Response(body=b"null" if found is None else found.to_json(), content_type="application/json")

    async def _drifts(self, request: web.Request) -> web.Response:
        return _json(await self._live.drifts(_session(request)))

    async def _frame(self, request: web.Request) -> web.Response:
        frame = await self._windows.frame(await self._result(request), request.query.get("sensor"))
        return web.Response(body=frame.content, content_type=frame.media_type)

    async def _window(self, request: web.Request) -> web.Response:
        content = await self._windows.content(await self._result(request))
        return web.Response(body=content, content_type="application/json")

    async def _said(self, request: web.Request) -> web.Response:
        sound = self._spoken.sound(request.query.get("id", ""))
        if sound is None:
            raise Gone("no such thing was said, or it is too old")
        return web.Response(body=sound, content_type=records.CONTENT_TYPE)

    async def _search(self, request: web.Request) -> web.Response:
        words = request.query.get("q", "")
        if not 0 < len(words) <= MAX_TEXT:
            raise web.HTTPBadRequest(reason=f"q must have 1 to {MAX_TEXT} characters")
        return await self._found(request, "text", words)

    async def _search_by_file(self, request: web.Request) -> web.Response:
        if _is_foreign(request):
            return _error(403, "a search must come from the page itself")
        kind = request.content_type.partition("/")[0]
        if kind not in ("image", "audio"):
            return _error(415, "the body must be a file of image/… or audio/…")
        if (request.content_length or 0) > MAX_FILE_BYTES:
            return _error(413, f"the file has more than {MAX_FILE_BYTES >> 20} MiB")
        content = await request.read()
        if not content:
            return _error(400, "the body must be a file, not empty")
        return await self._found(request, kind, content)

    async def _found(self, request: web.Request, kind: str, content: str | bytes) -> web.Response:
        limit = min(_number(request, "limit", SEARCH_LIMIT), MAX_HITS) or 1
        session = _session(request) if request.query.get("session") else None
        found = await self._finder.find(Query(kind, content, limit, session))
        return web.Response(body=found, content_type="application/json")

    async def _acknowledge(self, request: web.Request) -> web.Response:
        if _is_foreign(request):
            return _error(403, "an acknowledgement must come from the page itself")
        if request.content_type != "application/json":
            return _error(415, "the body must be application/json")
        if (request.content_length or MAX_ACKNOWLEDGEMENT_BYTES + 1) > MAX_ACKNOWLEDGEMENT_BYTES:
            return _error(413, f"the body must have 1 to {MAX_ACKNOWLEDGEMENT_BYTES} bytes")
        try:
            what = msgspec.json.decode(await request.read(), type=Acknowledgement)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _error(400, f"the body must be an acknowledgement: {one_line(error)}")
        if not await asyncio.to_thread(self._alarms.acknowledge, what):
            return _error(409, f"{what.rule} of {what.session} was acknowledged by somebody else, or raised again")
        return _json({})

    async def _alarm_log(self, request: web.Request) -> web.Response:
        limit = min(_number(request, "limit", LOG_LIMIT), MAX_LOG) or 1
        return _json(await asyncio.to_thread(self._alarms.newest, limit))

    async def _result(self, request: web.Request) -> Result:
        result = await self._live.result(_session(request), _number(request, "end_us", 0))
        if result is None:
            raise Gone("no such window in Redis")
        return result

    async def _events(self, request: web.Request) -> web.StreamResponse:
        session = _session(request) if request.query.get("session") else None
        client = self._live.join(session, None if session is None else self._spoken.newest(session))
        if client is None:
            return _error(503, "too many browsers look at this page")
        client.note("alarms", self._alarms.shown)
        try:
            response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
            await response.prepare(request)
            await self._stream(client, response)
        except (TimeoutError, ConnectionError):
            pass  # the browser has gone, or reads nothing
        finally:
            self._live.leave(client)
        return response

    async def _stream(self, client: Client, response: web.StreamResponse) -> None:
        """Write what is new; write() waits for a slow browser, while ``client`` merges what comes."""
        while not client.closed:
            message = await client.take(BEAT_S)
            async with asyncio.timeout(SEND_S):
                await response.write(b": still here\n\n" if message is None else b"data: " + message + b"\n\n")
            await asyncio.sleep(UPDATE_S)


def check_access(settings: Settings) -> None:
    """Refuse a token that is too short.

    Raises:
        UsageError: With how to make one.
    """
    token = _token(settings)
    if token is not None and len(token) < MIN_TOKEN:
        raise UsageError(f"STREAMER_DASHBOARD_TOKEN needs {MIN_TOKEN} characters or more; try `openssl rand -hex 16`")


def _token(settings: Settings) -> str | None:
    return None if settings.dashboard_token is None else settings.dashboard_token.get_secret_value()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(request: web.Request) -> str:
    """The name in the Host header, without the port."""
    try:
        return urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return ""


def _pass(token: str) -> str:
    """The cookie's value: proves the token without containing it, in characters that a cookie may have."""
    return hmac.new(token.encode(), COOKIE.encode(), hashlib.sha256).hexdigest()


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())


def _is_foreign(request: web.Request) -> bool:
    """Whether another site's page sends this; programs name no origin."""
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.host


def _session(request: web.Request) -> str:
    session = request.query.get("session", "")
    if not 0 < len(session.encode("utf-8", "replace")) <= MAX_SESSION_BYTES:
        raise web.HTTPBadRequest(reason=f"session must have 1 to {MAX_SESSION_BYTES} bytes")
    return session


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) < MOST_US):
        raise web.HTTPBadRequest(reason=f"{name} must be a whole number")
    return int(text)


def _content(name: str) -> bytes:
    return page_file("streamer.dashboard", name)


def _json(what: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(what), content_type="application/json")


def _error(status: int, line: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": line}), content_type="application/json")
