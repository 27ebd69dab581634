"""What requests and messages have in common: their token's quota, the checks of events, Kafka's acknowledgement."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from streamer.gateway.cloudevents import Given
from streamer.gateway.metrics import QUOTA, REFUSED, UNAVAILABLE, GatewayMetrics
from streamer.gateway.outgoing import Outgoing, Sent
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import Quotas
from streamer.gateway.records import NO_SENSOR, Records
from streamer.gateway.tokens import Token

Trace = tuple[tuple[str, bytes], ...]


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
            Problem: One of them is refused, and none is sent.
        """
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
        return await self._outgoing.send(records)

    async def acknowledged(self, sent: Sent) -> list[dict[str, Any]]:
        """Wait for Kafka; what the answer says of each record: its id, and where it is.

        Raises:
            Problem: 503: Kafka does not have all of them.
        """
        places = await self._outgoing.acknowledged(sent)
        self._metrics.ack_seconds.observe(monotonic() - sent.since_s)
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
