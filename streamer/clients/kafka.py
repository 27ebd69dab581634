"""Clients of Kafka, and what a command says if one cannot be made.

A client that cannot be made is a :class:`UsageError` of one line. The clients themselves say little more than "no
broker available", so the cause is looked for by hand: a closed port, TLS on one side only, a certificate that the
authority did not sign, a password. No message contains a password.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    AuthorizationError,
    KafkaConfigurationError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch

from streamer.clients import batches, codecs, tls
from streamer.errors import UsageError, one_line
from streamer.settings import Settings, host_and_port

TIMEOUT_MS = 10_000
LOOK_AFTER_MS = 2_000
JOIN_MS = 1_000  # a wait for other members of a group, after which the caller may do something else

Client = TypeVar("Client")
Asked = TypeVar("Asked")
Told = TypeVar("Told")


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """How Kafka's certificate is checked: always its chain and host name; ``None`` without TLS.

    Raises:
        UsageError: The authority's file cannot be read.
    """
    if not settings.kafka_tls:
        return None
    return tls.context("STREAMER_KAFKA_CA_FILE", settings.kafka_ca_file)


def kafka_options(settings: Settings) -> dict[str, Any]:
    """Address and identity, for any client of kafka-python or aiokafka.

    Raises:
        UsageError: The authority's file cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.brokers,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls_context(settings),
    }
    if settings.kafka_password is not None:
        options |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": _Unlogged(settings.kafka_password.get_secret_value()),
        }
    return options


class _Unlogged(str):
    """A password that stays out of the client's debug log, which prints the whole configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def consumer(settings: Settings, **options: Any) -> KafkaConsumer:
    """A consumer without a group, connected to a broker; it reads committed records, as the worker does.

    Args:
        options: For ``kafka.KafkaConsumer``.

    Raises:
        UsageError: No broker answers, or it refuses us; or the library of a codec is missing.
    """
    fixed = {
        "group_id": None,
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "bootstrap_timeout_ms": TIMEOUT_MS,
    }
    codecs.check()
    return _made(partial(_Consumer, batches.limit_bytes(settings)), settings, {**fixed, **options})


class _Consumer(KafkaConsumer):  # type: ignore[misc]  # kafka-python publishes no types
    """A consumer that reads our batches, for which there is no public way, and completes what it has begun.

    A poll of kafka-python that ends before its member has joined the group leaves the join to the next one, which
    begins anew if it has been completed between the two: brief polls may join for ever. And if a change of metadata
    began it and this member is the one that assigns, no poll completes it at all. So whoever has begun to join waits
    for it: without partitions there is nothing to read meanwhile. Shown by findings/kafka-python-joins-anew.sh and
    findings/kafka-python-forgets-a-rejoin.sh.
    """

    def __init__(self, batch_limit_bytes: int, **configs: object) -> None:
        super().__init__(**configs)
        self._fetcher.PartitionRecords = partial(_PartitionRecords, batches.Reading(batch_limit_bytes))

    def poll(self, *args: Any, **options: Any) -> Any:
        coordinator = self._coordinator
        if coordinator.rejoining:
            coordinator.request_rejoin()
            coordinator.ensure_active_group(timeout_ms=JOIN_MS)
        return super().poll(*args, **options)


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python publishes no types
    """An answer's records of a partition, from our batches."""

    def __init__(
        self,
        reading: batches.Reading,
        fetch_offset: int,
        tp: TopicPartition,
        records: MemoryRecords,
        *args: Any,
        **options: Any,
    ) -> None:
        budget = reading.budget()
        ours = batches.Batches(records._buffer, tuple(tp), fetch_offset, DefaultRecordBatch, reading, budget)
        super().__init__(fetch_offset, tp, ours, *args, **{**options, "check_crcs": False})  # they check them


def producer(settings: Settings, **options: Any) -> KafkaProducer:
    """A producer, connected to a broker.

    Args:
        options: For ``kafka.KafkaProducer``.

    Raises:
        UsageError: No broker answers, it refuses us, or an option is unknown.
    """
    return _made(KafkaProducer, settings, {"bootstrap_timeout_ms": TIMEOUT_MS, **options})


@contextmanager
def admin(settings: Settings, timeout_ms: int) -> Iterator[KafkaAdminClient]:
    """A client for administration.

    Raises:
        UsageError: No broker answers, or it refuses us or a request inside the ``with`` block.
    """
    times = {"bootstrap_timeout_ms": timeout_ms, "request_timeout_ms": timeout_ms}
    client = _made(_AdminClient, settings, times)
    try:
        yield client
    except KafkaError as error:
        raise refusal(settings, error) from None
    finally:
        client.close()


class _AdminClient(KafkaAdminClient):  # type: ignore[misc]  # kafka-python publishes no types
    """A client whose constructor leaves neither thread nor sockets behind when no broker answers."""

    def __init__(self, **configs: object) -> None:
        try:
            super().__init__(**configs)
        except BaseException:
            self._closed = False  # kafka-python sets it last, and close() does nothing before
            self.close()
            raise


def _made(make: Callable[..., Client], settings: Settings, options: dict[str, Any]) -> Client:
    """Make a client. An obstacle that can be found is reported early; else the client may use its whole time."""
    within_ms = options["bootstrap_timeout_ms"]
    first_ms = min(LOOK_AFTER_MS, within_ms)
    client = _tried(make, settings, {**options, "bootstrap_timeout_ms": first_ms})
    if client is None:
        for address in settings.brokers:
            if (obstacle := _obstacle(settings, address)) is not None:
                raise obstacle
        client = _tried(make, settings, {**options, "bootstrap_timeout_ms": within_ms - first_ms})
    if client is None:
        raise UsageError(
            f"no Kafka answers at {settings.kafka}; set STREAMER_KAFKA to where one does, or unset it and run "
            "`streamer up`"
        )
    return client


def _tried(make: Callable[..., Client], settings: Settings, options: dict[str, Any]) -> Client | None:
    all_options = {**kafka_options(settings), **options}
    try:
        return make(**all_options)
    # an unknown option, an unusable value, a malformed address
    except (ValueError, TypeError, AssertionError, RuntimeError, KafkaConfigurationError) as error:
        raise UsageError(f"Kafka client for {settings.kafka}: {one_line(error)}") from None
    except (KafkaError, OSError):
        return None


def patiently(call: Callable[[Asked], Told], argument: Asked) -> Told:
    """Repeat a call about a group until its coordinator exists, which a new broker makes for its first group."""
    deadline_s = monotonic() + TIMEOUT_MS / 1000
    while True:
        try:
            return call(argument)
        except KafkaError as error:
            if not error.retriable or monotonic() > deadline_s:
                raise
            sleep(0.1)


def refusal(settings: Settings, error: KafkaError) -> UsageError:
    """The error for a request that Kafka did not carry out."""
    if isinstance(error, SaslAuthenticationFailedError | UnsupportedSaslMechanismError):
        return _bad_password(settings, error)
    if isinstance(error, AuthorizationError):
        who = f"user {settings.kafka_user!r}" if settings.kafka_user else "an unnamed user"
        return UsageError(
            f"Kafka at {settings.kafka} does not let {who} do this ({one_line(error)}); "
            "SECURITY.md lists the ACLs needed"
        )
    return UsageError(f"Kafka at {settings.kafka}: {error}")


def _bad_password(settings: Settings, error: Exception) -> UsageError:
    return UsageError(
        f"Kafka at {settings.kafka} refuses user {settings.kafka_user!r} ({one_line(error)}); "
        "check STREAMER_KAFKA_USER, STREAMER_KAFKA_PASSWORD and STREAMER_KAFKA_SASL_MECHANISM"
    )


def no_topic(settings: Settings, topic: str) -> UsageError:
    """The error for a topic that does not exist, or that Kafka hides from this user."""
    hidden = f", or user {settings.kafka_user!r} may not see it" if settings.kafka_user else ""
    return UsageError(f"topic {topic} does not exist{hidden}; run `streamer topics create`")


def _obstacle(settings: Settings, address: str) -> UsageError | None:
    """Why a broker with an open port cannot be used; ``None`` if no cause is found or the port is closed."""
    try:
        host, number = host_and_port(address)
        with socket.create_connection((host, number), tls.PROBE_S):
            pass
    except (OSError, ValueError, OverflowError):
        return None
    context = tls_context(settings)
    failure = None if context is None else tls.handshake(host, number, context)
    if context is None and tls.speaks_tls(host, number):
        return UsageError(f"Kafka at {address} speaks TLS; set STREAMER_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL")
    if isinstance(failure, ssl.SSLCertVerificationError):
        return UsageError(
            f"the certificate of Kafka at {address} cannot be trusted ({failure.verify_message}); "
            "set STREAMER_KAFKA_CA_FILE to the authority that signed it, and STREAMER_KAFKA to a name in it"
        )
    if failure is not None:
        return UsageError(
            f"Kafka at {address} does not speak TLS ({one_line(failure)}); check STREAMER_KAFKA_SECURITY_PROTOCOL"
        )
    if settings.kafka_password is not None:
        return _refused_password(settings, host, number)
    return None


def _refused_password(settings: Settings, host: str, port: int) -> UsageError | None:
    """The error for a refused password. kafka-python retries it and never reports it, so aiokafka is asked."""
    from aiokafka.conn import create_conn
    from aiokafka.errors import AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

    options = kafka_options(settings)
    del options["bootstrap_servers"]

    async def connect() -> None:
        (await create_conn(host, port, request_timeout_ms=round(tls.PROBE_S * 1000), **options)).close()

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may run an event loop
            thread.submit(asyncio.run, connect()).result()
    except (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError) as error:
        return _bad_password(settings, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what stands in the way
        return UsageError(f"Kafka at {host}:{port} answers, but not to us: {one_line(error)}")
    return None
