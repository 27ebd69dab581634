"""The process of `streamer rules`: its signals, its port, its connections."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec
from redis.exceptions import RedisError

from streamer.clients import redis as redis_clients
from streamer.events import rfc3339
from streamer.observe.health import Service
from streamer.rules import table
from streamer.rules.actions import ACTIONS, Doing
from streamer.rules.alarm import Alarm
from streamer.rules.alarms import Alarms
from streamer.rules.engine import NONE_BEFORE, Engine, Memory
from streamer.rules.metrics import Metrics
from streamer.rules.table import Rule
from streamer.settings import Settings
from streamer.store import following
from streamer.store.readers import Cursor, Cursors, Page, Reader
from streamer.store.results import Keys

SINK = "rules"  # its name among the sinks
UNKNOWN_WINDOWS = 10  # a rule that was unknown in all of the first so many is told of

log = logging.getLogger(__name__)


class Ruler:
    """Applies the rules to pages of results.

    Args:
        on_alarm: Called with each alarm once it is noted.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        alarms: Alarms,
        doing: Doing,
        metrics: Metrics,
        on_alarm: Callable[[Alarm], object] = lambda alarm: None,
    ) -> None:
        self._rules = rules
        self.engine = Engine(rules)
        self._alarms = alarms
        self._doing = doing
        self._metrics = metrics
        self._on_alarm = on_alarm
        self._told: set[str] = set()  # rules

    async def take(self, page: Page) -> int | None:
        """Raise what a page raises; see :class:`streamer.store.readers.Reader`.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        if page.missed:
            self._metrics.overtaken.inc()
        memory = msgspec.json.decode(page.cursor.state, type=Memory) if page.cursor.state else Memory()
        raised = [alarm for result in page.results for alarm in self.engine.see(result, memory)]
        self._tell()
        after = Cursor(page.results[-1].end_us, msgspec.json.encode(memory))
        steps = [(alarm, self._rules[alarm.rule].actions) for alarm in raised]
        if not await self._alarms.step(page.session, page.cursor, after, steps):
            return None
        self._metrics.windows.inc(len(page.results))
        for alarm, actions in steps:
            self._metrics.alarms.labels(alarm.rule).inc()
            self._on_alarm(alarm)
            self._doing.begin((action, alarm) for action in actions)
        return after.end_us

    def _tell(self) -> None:
        """Warn, once for each rule, that it was unknown in every window: most likely its expression is wrong."""
        windows = self.engine.windows
        if windows < UNKNOWN_WINDOWS:
            return
        for name, (count, why) in self.engine.unknown.items():
            if count == windows and why != NONE_BEFORE and name not in self._told:
                self._told.add(name)
                log.warning("rule %s: neither true nor false in its first %d windows: %s", name, windows, why)

    def observe(self) -> None:
        """Bring the gauges up to date."""
        for name, (count, _) in self.engine.unknown.items():
            self._metrics.unknown.labels(name).set(count)


def run(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    since_us: int | None = None,
    on_alarm: Callable[[Alarm], object] = lambda alarm: None,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Apply the rules until SIGTERM or Ctrl-C.

    Args:
        only, since_us: As :func:`streamer.sinks.process.run` has them.
        on_alarm: Called with each alarm once it is noted.
        say: Called once it listens, with a line for people.

    Raises:
        UsageError: The rules cannot be used, an action is not set up, a server does not answer, or the port is taken.
        Stop: Redis refuses us.
    """
    rules = table.read(settings.rules, list(ACTIONS))
    following.prepare(settings)
    asyncio.run(_run(settings, rules, only, since_us, on_alarm, say))


async def _run(
    settings: Settings,
    rules: Mapping[str, Rule],
    only: Sequence[str],
    since_us: int | None,
    on_alarm: Callable[[Alarm], object],
    say: Callable[[str], object],
) -> None:
    metrics = Metrics(rules=rules)
    async with AsyncExitStack() as stack:
        client = redis_clients.async_client(settings, socket_timeout=following.SOCKET_TIMEOUT_S)
        stack.push_async_callback(client.aclose)
        keys = Keys(settings.key_prefix)
        actions = {name: ACTIONS[name](settings) for rule in rules.values() for name in rule.actions}
        for action in actions.values():
            await action.open()
            stack.push_async_callback(action.close)
        alarms = Alarms(client, keys, settings.results_maxlen)
        doing = Doing(actions, alarms, metrics)
        stack.push_async_callback(doing.end)
        ruler = Ruler(rules, alarms, doing, metrics, on_alarm)
        redis = Service("Redis", metrics.retries.labels("redis").inc)
        cursors = Cursors(client, keys, keys.ruled)
        reader = Reader(
            client, keys, cursors, ruler.take, redis=redis, other=Service("Rules"), only=only, since_us=since_us or 0
        )
        look = asyncio.create_task(doing.look())
        stack.callback(look.cancel)
        try:
            if not await client.hexists(keys.sinks, SINK):  # as for the other sinks
                if since_us is None:
                    await reader.skip()
                await client.hset(keys.sinks, SINK, rfc3339(time.time_ns() // 1000))
            doing.begin(await alarms.undone())
        except RedisError as error:
            raise redis_clients.refusal(settings, error) from None
        await following.follow(
            reader,
            (redis,),
            metrics.registry,
            metrics.behind_seconds,
            host=settings.host,
            port=settings.rules_port,
            port_setting="STREAMER_RULES_PORT",
            say=lambda address: say(f"{len(rules)} rule{'s' * (len(rules) != 1)}; {address}"),
            degraded=doing.degraded,
            observe=ruler.observe,
        )
