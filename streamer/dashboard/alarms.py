"""The open alarms of `streamer rules`, kept for all browsers, and who acknowledges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Annotated

import msgspec
import redis
from redis.client import PubSub

from streamer.dashboard.reading import Reader
from streamer.errors import Unavailable, UsageError
from streamer.events import MAX_SESSION_BYTES
from streamer.rules import alarms
from streamer.rules.alarms import Entry, Open
from streamer.settings import Settings
from streamer.speak.sentences import Severity
from streamer.store.results import Keys, connected

MAX_SHOWN = 200  # open alarms that browsers get
MAX_NAME = 80  # characters of who acknowledges
LOOK_S = 30.0  # between two looks at all sessions: forgetting one says nothing
QUIET_S = 0.5


class Shown(msgspec.Struct, frozen=True):
    """What browsers get.

    Attributes:
        ruled: Whether rules have ever run.
        open: The most severe first, then the newest; with the fields of :meth:`streamer.rules.alarms.Open.fields`.
        counts: Severity -> how many are open, also those that are not among these.
        readable: Whether Redis tells; else what it told before is shown.
    """

    ruled: bool = False
    open: list[dict[str, object]] = []
    counts: dict[str, int] = {}
    readable: bool = True


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser sends.

    Attributes:
        by: Who acknowledges it, as entered there.
        end_us: End of the window of the newest alarm that was shown.
    """

    session: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SESSION_BYTES)]
    rule: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME, pattern=r"\S")]
    end_us: int


class Watch(Reader):
    """Keeps the open alarms in its own thread.

    Args:
        on_change: Called in that thread after each change.

    Attributes:
        shown: What is open; replaced, never modified.
    """

    def __init__(self, settings: Settings, on_change: Callable[[Shown], None]) -> None:
        super().__init__("alarms", "open alarms")
        self._settings = settings
        self._on_change = on_change
        self._open: dict[str, list[Open]] = {}
        self.shown = Shown()

    def step(self) -> None:
        with connected(self._settings) as (client, keys), client.pubsub() as channel:
            channel.subscribe(keys.alarms_channel)
            while not self.stop_asked.is_set():
                self._look(client, keys, channel)

    def failed(self) -> None:
        self._show(msgspec.structs.replace(self.shown, readable=False))

    def acknowledge(self, what: Acknowledgement) -> bool:
        """Acknowledge an alarm; ``False``: it is not open any more, or was raised again after it was seen.

        Raises:
            Unavailable: Redis does not answer, or refuses us.
        """
        maxlen = self._settings.results_maxlen
        with self._connected() as (client, keys):
            return alarms.acknowledge(
                client, keys, what.session, what.rule, what.by.strip(), maxlen=maxlen, seen_us=what.end_us
            )

    def newest(self, count: int) -> list[Entry]:
        """What happened last to alarms, the newest first.

        Raises:
            Unavailable: Redis does not answer, or refuses us.
        """
        with self._connected() as (client, keys):
            return alarms.newest(client, keys, count)

    @contextmanager
    def _connected(self) -> Iterator[tuple[redis.Redis, Keys]]:
        try:
            with connected(self._settings) as found:
                yield found
        except UsageError as error:
            raise Unavailable(str(error)) from None

    def _look(self, client: redis.Redis, keys: Keys, channel: PubSub) -> None:
        """Read all, then what changes, for a while."""
        self._open = {}
        self._add(alarms.opened(client, keys), ruled=b"rules" in client.hgetall(keys.sinks))
        self.trouble.over()
        until_s = monotonic() + LOOK_S
        while monotonic() < until_s and not self.stop_asked.is_set():
            if names := set(_named(channel)):
                for name in names:
                    self._open.pop(name, None)
                self._add(alarms.opened(client, keys, names), ruled=True)

    def _add(self, found: list[Open], ruled: bool) -> None:
        for one in found:
            self._open.setdefault(one.alarm.session, []).append(one)
        every = sorted((one for of in self._open.values() for one in of), key=_place)
        counts = {severity.name.lower(): 0 for severity in reversed(Severity)}
        for one in every:
            counts[one.alarm.severity] += 1
        self._show(Shown(ruled or bool(every), [one.fields() for one in every[:MAX_SHOWN]], counts))

    def _show(self, shown: Shown) -> None:
        if shown != self.shown:
            self.shown = shown
            self._on_change(shown)


def _named(channel: PubSub) -> Iterator[str]:
    """The sessions that messages name, after a wait for the first."""
    message = channel.get_message(timeout=QUIET_S)
    while message is not None:
        if message["type"] == "message":
            yield message["data"].decode("utf-8", "replace")
        message = channel.get_message(timeout=0)


def _place(one: Open) -> tuple[int, int, str, str]:
    alarm = one.alarm
    return -Severity[alarm.severity.upper()], -alarm.end_us, alarm.session, alarm.rule
