"""Offsets on their way to Kafka: the cut of each partition, with what a restart must know beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import AuthorizationError, CommitFailedError, RebalanceInProgressError, SaslAuthenticationFailedError
from kafka.structs import OffsetAndMetadata

from streamer.observe.health import Service
from streamer.transcribe.partition import Cut

EVERY_S = 0.25
AGAIN_S = 2.0  # also without news: it shows whether Kafka answers

log = logging.getLogger(__name__)

Commit = tuple[int, str]  # offset and metadata


class Commits:
    """Commits cuts that have moved, one request at a time.

    Args:
        kafka: Learns whether it answers.
        on_refused: Called if Kafka does not let us.
    """

    def __init__(
        self, consumer: KafkaConsumer, topic: str, kafka: Service, on_refused: Callable[[BaseException], None]
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._kafka = kafka
        self._on_refused = on_refused
        self._known: dict[int, Commit] = {}
        self._under_way = False
        self._next_s = self._again_s = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return not self._under_way and monotonic() >= self._next_s

    def forget(self, number: int) -> None:
        """The partition was given away."""
        self._known.pop(number, None)

    def commit(self, cuts: Iterable[tuple[int, Cut]], within_ms: int | None = None) -> None:
        """Commit what has moved since the last commit, or everything now and then.

        Args:
            cuts: Of each partition.
            within_ms: Wait for the answer, this long.

        Raises:
            KafkaError: It did not come; only with ``within_ms``.
        """
        self._next_s = monotonic() + EVERY_S
        again = monotonic() >= self._again_s
        moved = {}
        for number, cut in cuts:
            metadata = cut.metadata()
            if metadata is None:
                log.warning("partition %d has %d sounds, too many for a commit", number, len(cut.begins))
            elif again or self._known.get(number) != (cut.offset, metadata):
                moved[TopicPartition(self._topic, number)] = OffsetAndMetadata(cut.offset, metadata, -1)
        if not moved:
            return
        self._again_s = monotonic() + AGAIN_S
        if within_ms is not None:
            self._consumer.commit(moved, timeout_ms=within_ms)
            return
        self._under_way = True
        self._consumer.commit_async(moved, callback=self._answered)

    def _answered(self, moved: dict[TopicPartition, OffsetAndMetadata], answer: Any) -> None:
        """Kafka has answered (called in the client's thread)."""
        self._under_way = False
        if isinstance(answer, CommitFailedError | RebalanceInProgressError):
            log.info("a commit came too late for a rebalance: the next owner hears again what it would have covered")
        elif isinstance(answer, AuthorizationError | SaslAuthenticationFailedError):
            self._on_refused(answer)
        elif isinstance(answer, Exception):
            self._kafka.away(answer)
        else:
            self._kafka.answers()
            self._known |= {tp.partition: (place.offset, place.metadata) for tp, place in moved.items()}
