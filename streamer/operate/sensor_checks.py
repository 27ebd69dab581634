"""What ``streamer doctor`` says of sensors: which are declared and never seen, and which send undeclared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice

import redis
from kafka.errors import AuthorizationError

from streamer.broker import deadletters
from streamer.broker.deadletters import DeadLetter
from streamer.clients import redis as redis_clients
from streamer.errors import Reason, UsageError
from streamer.operate.findings import Finding, ok, warn
from streamer.result import Result
from streamer.settings import Settings
from streamer.store.results import Keys, sessions

SESSIONS, WINDOWS = 20, 20  # the newest sessions, and their newest windows, that are looked at
LETTERS = 5  # the newest of each partition


def seen(settings: Settings) -> Iterator[Finding]:
    """Whether every declared sensor was in some of the newest windows in Redis.

    Raises:
        UsageError: Redis does not answer.
    """
    client, keys = redis_clients.client(settings, socket_timeout=redis_clients.TIMEOUT_S), Keys(settings.key_prefix)
    try:
        newest = islice(sessions(client, keys), SESSIONS)
        pages = [client.xrevrange(keys.results(session), count=WINDOWS) for session in newest]
    except redis.exceptions.NoPermissionError as error:
        yield warn("sensors", f"this user may not read results: {error}", "run the doctor as a user who may (viewer)")
        return
    except redis.RedisError as error:
        raise redis_clients.refusal(settings, error) from None
    finally:
        client.close()
    yield from absent(settings, [Result.from_fields(fields) for page in pages for _, fields in page])


def absent(settings: Settings, newest: Collection[Result]) -> Iterator[Finding]:
    """The sensors that were in none of these windows."""
    names = settings.sensor_set.names
    there = {name for result in newest for name in result.present}
    since = [result for result in newest if set(names) <= result.coverage.keys()]  # since they were all declared
    if not since:
        yield ok("sensors", f"declared are {', '.join(names)}; there are no windows with them yet")
        return
    missing = [name for name in names if name not in there]
    for name in missing:
        rules = settings.sensors[name]
        waits = f"each waits {rules.max_delay_ms} ms for it" if rules.idle_after_ms is None else "each lacks it"
        yield warn(
            "sensors",
            f"{name} was in none of the newest {len(since)} windows: {waits}",
            f"does its device send, with ce_sensor {name}? If there is none: STREAMER_SENSORS__{name.upper()}__ENABLED="
            "false",
        )
    if len(missing) < len(names):
        others = ", ".join(name for name in names if name not in missing)
        yield ok("sensors", f"the newest {len(since)} windows have {others}")


def unknown(settings: Settings) -> Iterator[Finding]:
    """Whether records of sensors that are not declared are among the newest dead letters.

    Raises:
        UsageError: Kafka does not answer.
    """
    try:
        letters = [*deadletters.newest(settings, LETTERS)]
    except UsageError as error:
        if isinstance(error.__context__, AuthorizationError):
            yield warn("sensors", "this user may not read dead letters", "run the doctor as a user who may (viewer)")
            return
        raise
    yield from undeclared(settings, letters)


def undeclared(settings: Settings, letters: Collection[DeadLetter]) -> Iterator[Finding]:
    """Letters whose sensor the settings still do not know, by topic and name."""
    sensors, topics = settings.sensor_set, settings.source_topics
    counts: Counter[tuple[str, str | None]] = Counter()
    for letter in letters:
        if letter.reason == Reason.UNKNOWN_SENSOR and letter.topic in topics:
            row = topics.index(letter.topic)
            name = letter.ce_sensor
            number = sensors.unnamed(row) if name is None else sensors.numbers.get(name)
            if number is None or sensors.rows[number] != row:
                counts[letter.topic, name] += 1
    for (topic, name), count in counts.most_common():
        whose = "no sensor" if name is None else f"the sensor {name[:80]!r}, which is not declared there"
        yield warn(
            "sensors",
            f"{count} of the newest {len(letters)} dead letters are records on {topic} of {whose}",
            "declare it, or send another ce_sensor (docs/sensors.md); then `streamer deadletters --requeue --reason "
            "unknown_sensor`",
        )
