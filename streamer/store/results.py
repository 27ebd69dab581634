"""The keys in Redis, and reading results back.

    {prefix}:{SESSION}:results    stream of results, entry id <window end in µs>-0
    {prefix}:{SESSION}:latest     hash: the newest result, final or early
    {prefix}:{SESSION}:state      hash: what alignment needs after a restart
    {prefix}:{SESSION}:closings   sorted set: where recent windows closed
    {prefix}:{SESSION}:inflight   sorted set: windows that are being run, see publish.Run
    {prefix}:{SESSION}:emitted    hash, as state: how far role align has come, where workers have roles
    {prefix}:{SESSION}:emitted_closings   as closings: where these windows closed
    {prefix}:{SESSION}:descriptions   stream: what each window shows in words, see descriptions.py
    {prefix}:{SESSION}:described  hash: how far `streamer describe` has come
    {prefix}:{SESSION}:spoken     hash: how far `streamer speak` has come
    {prefix}:{SESSION}:sink:NAME  hash: how far the sink of this name has come
    {prefix}:{SESSION}:rules      hash: how far `streamer rules` has come; its alarms beside it: see rules/alarms.py
    {prefix}:sinks                hash: name of a sink -> when it was first started
    {prefix}:sink:NAME:deadletters   stream: results that a receiver has refused
    {prefix}:groups               hash: partition groups that have committed, see publish.Publisher.open_group
    {prefix}:drifts               stream of reports of clocks that drift, see drifts.py
    {prefix}:workers:ROLE         stream: the newest sign of life of a worker of this role, see heartbeats.py
    {prefix}:sessions             sorted set of session names by the end of their newest window, µs
    {prefix}:results              pub/sub channel: each new result as JSON, final or early
    {prefix}:descriptions         pub/sub channel: each new description as JSON
    {prefix}:alarms               pub/sub channel: names of sessions whose open alarms have changed
    {prefix}:index:…              search, where Redis has vector sets: see retrieval/vectorsets.py

The session is percent-encoded, in literal braces: the hash tag by which Redis Cluster keeps a session's keys on one
node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import quote

import redis

from streamer.clients import redis as redis_clients
from streamer.result import Result
from streamer.settings import Settings

PAGE = 500  # results in one read
BLOCK_MS = 1000  # longest wait of one blocking read; shorter than the client's socket timeout of 5 s


class Keys:
    """Names of all keys in Redis, under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.sessions = f"{prefix}:sessions"
        self.groups = f"{prefix}:groups"
        self.drifts = f"{prefix}:drifts"
        self.channel = f"{prefix}:results"
        self.described_channel = f"{prefix}:descriptions"
        self.alarms_channel = f"{prefix}:alarms"
        self.sinks = f"{prefix}:sinks"
        self.index_covered = f"{prefix}:index:covered"
        self.index_spaces = f"{prefix}:index:spaces"

    def results(self, session: str) -> str:
        """Stream of a session's results."""
        return self._of(session, "results")

    def latest(self, session: str) -> str:
        """Hash with a session's newest result."""
        return self._of(session, "latest")

    def state(self, session: str) -> str:
        """Hash with what alignment needs after a restart."""
        return self._of(session, "state")

    def closings(self, session: str) -> str:
        """Sorted set of closings after the committed cut, by log time."""
        return self._of(session, "closings")

    def inflight(self, session: str) -> str:
        """Sorted set of the windows that are being run, by end."""
        return self._of(session, "inflight")

    def descriptions(self, session: str) -> str:
        """Stream of a session's descriptions."""
        return self._of(session, "descriptions")

    def described(self, session: str) -> str:
        """Hash with how far the session has been described."""
        return self._of(session, "described")

    def spoken(self, session: str) -> str:
        """Hash with how far the session's decisions have been said aloud."""
        return self._of(session, "spoken")

    def ruled(self, session: str) -> str:
        """Hash with how far rules have been applied to the session."""
        return self._of(session, "rules")

    def alarms(self, session: str) -> str:
        """Hash of the session's alarms that are not acknowledged."""
        return self._of(session, "alarms")

    def alarm_actions(self, session: str) -> str:
        """Hash of what is still to be done for the session's alarms."""
        return self._of(session, "alarm_actions")

    def alarm_log(self, session: str) -> str:
        """Stream of what happened to the session's alarms."""
        return self._of(session, "alarm_log")

    def sink(self, session: str, name: str) -> str:
        """Hash with how far a sink has come in a session."""
        return self._of(session, f"sink:{name}")

    def sink_deadletters(self, name: str) -> str:
        """Stream of the results that a sink's receiver has refused."""
        return f"{self._prefix}:sink:{name}:deadletters"

    def workers(self, role: str) -> str:
        """Stream of the newest sign of life of the workers of a role."""
        return f"{self._prefix}:workers:{role}"

    def indexed(self, session: str) -> str:
        """Sorted set of the windows in the search index of Redis, by end."""
        return self._of(session, "indexed")

    def index_space(self, space: str) -> str:
        """Vector set of the embeddings of one version of a model."""
        return f"{self._prefix}:index:in:{{{quote(space, safe='')}}}"

    def emitted(self, session: str) -> str:
        """Hash with what alignment needs after a restart, of role align."""
        return self._of(session, "emitted")

    def emitted_closings(self, session: str) -> str:
        """Sorted set of the closings that role align emitted after the committed cut, by log time."""
        return self._of(session, "emitted_closings")

    def _of(self, session: str, what: str) -> str:
        return f"{self._prefix}:{{{_quoted(session)}}}:{what}"


@lru_cache(maxsize=4096)
def _quoted(session: str) -> str:
    return quote(session, safe="")


@contextmanager
def connected(settings: Settings) -> Iterator[tuple[redis.Redis, Keys]]:
    """A connected client and the names of the keys; for commands, which give up where a worker waits.

    Raises:
        UsageError: Redis does not answer, now or while the context is open, or it refuses us.
    """
    client = redis_clients.client(settings)
    try:
        client.ping()
        yield client, Keys(settings.key_prefix)
    except redis.RedisError as error:
        raise redis_clients.refusal(settings, error) from None
    finally:
        client.close()


def sessions(client: redis.Redis, keys: Keys) -> list[str]:
    """All sessions that have results, the one with the newest window first."""
    return [name.decode() for name in client.zrevrange(keys.sessions, 0, -1)]


def results(
    client: redis.Redis, keys: Keys, session: str, since_us: int = 0, count: int | None = None
) -> Iterator[Result]:
    """A session's results in order.

    Args:
        since_us: Only windows that end at or after this time.
        count: At most this many; ``None`` for all.
    """
    start, left = f"{max(0, since_us)}-0", count
    while left is None or left > 0:
        page = client.xrange(keys.results(session), min=start, count=PAGE if left is None else min(PAGE, left))
        for _, fields in page:
            yield Result.from_fields(fields)
        if len(page) < PAGE:
            return
        start = f"({page[-1][0].decode()}"
        left = None if left is None else left - len(page)


def latest(client: redis.Redis, keys: Keys, session: str) -> Result | None:
    """A session's newest result; ``final`` says whether another one of its window follows."""
    fields = client.hgetall(keys.latest(session))
    return Result.from_fields(fields) if fields else None


def follow(client: redis.Redis, keys: Keys, only: Sequence[str] = ()) -> Iterator[Result | None]:
    """New results as they are published, without end; ``None`` about once a second while there are none.

    The stream of a session that exists is read from its present end, that of a later session from its beginning.
    No result is skipped, as could happen with pub/sub.

    Args:
        only: Only these sessions; empty for all.
    """
    places: dict[str, bytes] = {}
    for session in only or sessions(client, keys):
        newest = client.xrevrange(keys.results(session), count=1)
        places[keys.results(session)] = newest[0][0] if newest else b"0-0"
    while True:
        if not only:
            for session in sessions(client, keys):
                places.setdefault(keys.results(session), b"0-0")
        if not places:
            _wait_for_any(client, keys)
            yield None
            continue
        answer = client.xread(places, count=PAGE, block=BLOCK_MS)
        if not answer:
            yield None
        for stream, entries in answer:
            for entry, fields in entries:
                places[stream.decode()] = entry
                yield Result.from_fields(fields)


def listen(client: redis.Redis, keys: Keys, only: Sequence[str] = ()) -> Iterator[Result | None]:
    """New results, early ones too, without end; ``None`` about once a second while there are none.

    Results may be skipped while the connection is interrupted.

    Args:
        only: Only these sessions; empty for all.
    """
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(keys.channel)
        while True:
            message = channel.get_message(timeout=BLOCK_MS / 1000)
            if message is None:
                yield None
                continue
            try:
                result = Result.from_json(message["data"])
            except ValueError:
                continue  # anybody may write to a channel
            if not only or result.session in only:
                yield result


def _wait_for_any(client: redis.Redis, keys: Keys) -> None:
    with client.pubsub() as channel:
        channel.subscribe(keys.channel)
        channel.get_message(timeout=BLOCK_MS / 1000)  # the subscription itself
        channel.get_message(ignore_subscribe_messages=True, timeout=BLOCK_MS / 1000)


def forget(client: redis.Redis, keys: Keys, session: str) -> int:
    """Delete everything that Redis keeps of a session; returns the number of its results."""
    count = int(client.xlen(keys.results(session)))
    of_session = (keys.results, keys.latest, keys.state, keys.closings, keys.inflight, keys.emitted)
    of_readers = (keys.emitted_closings, keys.descriptions, keys.described, keys.spoken)
    of_rules = (keys.ruled, keys.alarms, keys.alarm_actions, keys.alarm_log)
    of_sinks = [keys.sink(session, name.decode()) for name in client.hkeys(keys.sinks)]
    client.delete(*(key(session) for key in (*of_session, *of_readers, *of_rules)), *of_sinks)
    client.zrem(keys.sessions, session)
    return count
