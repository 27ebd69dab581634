"""Faust's transport with our consumer, and what else its app is given."""

from __future__ import annotations

from collections.abc import Mapping

import faust
from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from yarl import URL

from streamer.broker import internals
from streamer.broker.consumer import Consumer, logger
from streamer.clients import kafka as kafka_clients
from streamer.settings import Settings


class NoTables(TableManager):  # type: ignore[misc]
    """Faust's manager of tables, for an app that declares none and so has nothing to wait for at its start.

    Topics need no wait either: agents have declared theirs when ``AgentManager.on_start`` returns, which is earlier.
    """

    logger = logger  # else its starts and stops appear in the worker's log

    async def on_start(self) -> None:
        """As in Faust, without the second of sleep."""
        await internals.start_tables(self)


def credentials(settings: Settings) -> Credentials | None:
    """The credentials of Faust's consumer and producer; ``None`` without user, password and encryption."""
    context = kafka_clients.tls_context(settings)
    if settings.kafka_password is not None:
        return SASLCredentials(
            username=settings.kafka_user,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.kafka_sasl_mechanism,
        )
    return None if context is None else SSLCredentials(context)


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with the changed consumer.

    Args:
        rows: Topic -> row of its records.
        batch_limit_bytes: Most that a record batch may unpack to.
    """

    Consumer = Consumer

    def __init__(self, brokers: list[URL], app: faust.App, rows: Mapping[str, int], batch_limit_bytes: int) -> None:
        super().__init__(brokers, app)
        self.rows = rows
        self.batch_limit_bytes = batch_limit_bytes
