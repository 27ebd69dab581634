"""What requests and messages have in common: their token's quota, the checks of events, Kafka's acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

from streamer.broker.sending import Place
from streamer.gateway.cloudevents import Given
from streamer.gateway.metrics import QUOTA, REFUSED, UNAVAILABLE, GatewayMetrics
from streamer.gateway.outgoing import Outgoing
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import Quotas
from streamer.gateway.records import NO_SENSOR, Ready, Records
from streamer.gateway.tokens import Token

Trace = tuple[tuple[str, bytes], ...]


class Sent(NamedTuple):
    """Records of one request that were put behind others, and since when they wait."""

    records: list[Ready]
    futures: list[asyncio.Future[Place]]
    since_s: float


class Intake:
    """Takes events of a token.

    Args:
        outgoing: Sends the records that ``records`` makes of them.
    """

    def __init__(self, records: Records, outgoing: Outgoing, quotas: Quotas, metrics: GatewayMetrics) -> None:
        self._records = records
        self._outgoing = outgoing
        self._quotas = quotas
        self._metrics = metrics

    def check(self, token: Token) -> None:
        """Refuse a token that has used up its quota, before anything is read.

        Raises:
            Problem: 429.
        """
        self._quotas.check(token.id)

    async def send(self, given: Sequence[Given], nbytes: int, token: Token, trace: Trace = ()) -> Sent:
        """Check all events, then send all.

        Args:
            nbytes: Of the request that they came in.

        Raises:
            Problem: One of them is refused, and none is sent; or Kafka does not take them now.
        """
        since_s = perf_counter()
        self._quotas.charge(token.id, nbytes, len(given))
        records = []
        for index, one in enumerate(given):
            try:
                records.append(self._records.ready(one, token, trace))
            except Problem as problem:
                problem.members["id"] = one.attributes.get("id")
                if len(given) > 1:
                    problem.members["index"] = index
                raise
        futures: list[asyncio.Future[Place]] = []
        for record in records:
            try:
                futures.append(await self._outgoing.send(record))
            except Problem as problem:
                accepted = await self._accepted(records, futures)
                problem.members["accepted"] = accepted
                raise
        return Sent(records, futures, since_s)

    async def acknowledged(self, sent: Sent) -> list[dict[str, Any]]:
        """Wait for Kafka; what the answer says of each record: its id, and where it is.

        Raises:
            Problem: 503: Kafka does not have all of them.
        """
        places = await self._outgoing.acknowledged(sent.records, sent.futures)
        self._metrics.ack_seconds.observe(perf_counter() - sent.since_s)
        return [
            {"id": record.id, "topic": record.topic, "partition": place.partition, "offset": place.offset}
            for record, place in zip(sent.records, places, strict=True)
        ]

    def note(self, problem: Problem) -> None:
        """Count an answer that is no success, and the event of which it speaks if that was not counted yet."""
        self._metrics.problems.labels(problem.status).inc()
        if "accepted" not in problem.members:
            outcome = {429: QUOTA, 503: UNAVAILABLE}.get(problem.status, REFUSED)
            self._metrics.records.labels(problem.members.get("sensor", NO_SENSOR), outcome).inc()

    async def _accepted(self, records: list[Ready], futures: list[asyncio.Future[Place]]) -> list[str]:
        """Ids of the records that Kafka has, of those that were sent before one could not be."""
        if not futures:
            return []
        try:
            await self._outgoing.acknowledged(records[: len(futures)], futures)
        except Problem as problem:
            accepted: list[str] = problem.members["accepted"]
            return accepted
        return [record.id for record in records[: len(futures)]]
