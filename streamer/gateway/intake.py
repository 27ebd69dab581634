"""What requests and messages have in common: their token's quota, the checks of events, Kafka's acknowledgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

import msgspec

from streamer.gateway.cloudevents import Given
from streamer.gateway.metrics import QUOTA, REFUSED, UNAVAILABLE, GatewayMetrics
from streamer.gateway.outgoing import Outgoing, Sent
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import Quotas
from streamer.gateway.records import NO_SENSOR, Records
from streamer.gateway.tokens import Token

Trace = tuple[tuple[str, bytes], ...]


class Stored(msgspec.Struct, frozen=True):
    """A record that Kafka has, and where."""

    id: str
    topic: str
    partition: int
    offset: int


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

    def send(
        self, given: Sequence[Given], nbytes: int, token: Token, trace: Trace, over: Callable[[Sent], None]
    ) -> None:
        """Check all events, then send all.

        Args:
            nbytes: Of the request that they came in.
            over: Called once Kafka has all of them, or not in time: :meth:`stored` says which.

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
        self._outgoing.send(records, over)

    def stored(self, sent: Sent) -> list[Stored]:
        """What the answer says of each record.

        Raises:
            Problem: 503: Kafka does not have all of them.
        """
        places = self._outgoing.places(sent)
        self._metrics.ack_seconds.observe(monotonic() - sent.since_s)
        return [
            Stored(record.id, record.topic, place.partition, place.offset)
            for record, place in zip(sent.records, places, strict=True)
        ]

    def note(self, problem: Problem) -> None:
        """Count an answer that is no success, and the event of which it speaks if that was not counted yet."""
        self._metrics.problems.labels(problem.status).inc()
        if "accepted" not in problem.members:
            outcome = {429: QUOTA, 503: UNAVAILABLE}.get(problem.status, REFUSED)
            self._metrics.records.labels(problem.members.get("sensor", NO_SENSOR), outcome).inc()
