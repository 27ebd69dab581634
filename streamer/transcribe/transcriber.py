"""The loop: records of the audio topic in, transcripts out, and the commit behind what Kafka has acknowledged.

    Kafka ─ poll ─► Partition (decode, voice activity, utterances) ─► Hearing (a thread) ─► producer ─► Kafka
                        ◄────────────── acknowledged: the cut moves, and is committed ──────────────────┘

One thread polls, decodes and listens; the recogniser has another, so that a rebalance never waits for it. While
``MAX_WAITING_S`` of speech wait for the recogniser, all partitions are paused: nothing is dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event as Flag
from time import monotonic, time_ns
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError

from streamer.align.decode import Decoder
from streamer.clients import kafka as kafka_clients
from streamer.errors import BadRecord, Stalled
from streamer.events import AUDIO, KINDS, TEXT, Event, EventType, Record
from streamer.model import payloads
from streamer.observe import tracing
from streamer.observe.health import Service
from streamer.senses.speech import Recogniser
from streamer.senses.voice import VoiceNetwork
from streamer.settings import MIB, Settings
from streamer.transcribe.commits import Commits
from streamer.transcribe.hearing import Hearing
from streamer.transcribe.metrics import TranscribeMetrics
from streamer.transcribe.outgoing import Outgoing
from streamer.transcribe.partition import Cut, Key, Partition, Utterance
from streamer.transcribe.utterances import Rules

POLL_MS = 200  # records are returned as they come
POLL_RECORDS = 32
FETCH_MAX_BYTES = 4 * MIB
MAX_WAITING_S = 30.0  # of speech
ASK_EVERY_S = 0.5  # whether a silent partition is at its end
ANSWER_MS = 5_000  # longest wait for an answer in the loop
UNACKNOWLEDGED_S = 5.0  # after which Kafka counts as away

log = logging.getLogger(__name__)


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python publishes no types
    """Notes what the group's coordinator says; called in the client's thread, read in ours."""

    def __init__(self) -> None:
        self.news: SimpleQueue[tuple[bool, list[TopicPartition]]] = SimpleQueue()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Partitions are another's."""
        self.news.put((False, list(revoked)))

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Partitions are ours."""
        self.news.put((True, list(assigned)))


class Transcriber:
    """A process's work, see the module's text.

    Args:
        partitions: Of the audio topic and of the transcripts topic.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        network: VoiceNetwork,
        recogniser: Recogniser,
        metrics: TranscribeMetrics,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._network = network
        self._topic = settings.topic(KINDS[AUDIO].topic)
        self._decoder = Decoder(settings, partitions)
        self._sensors = settings.sensor_set.names
        self._rules = Rules.of(settings.transcribe_silence_ms, settings.transcribe_longest_ms)
        self._kafka = Service("Kafka")
        self._stop = Flag()
        self._failure: BaseException | None = None
        self._partitions: dict[int, Partition] = {}
        self._records: deque[Record] = deque()
        self._joined = False
        self._ask_at_s = 0.0
        self._admin: KafkaAdminClient = None
        self._listener = Assignments()
        self._consumer = kafka_clients.consumer(
            settings,
            group_id=f"{settings.group}-transcribe",
            auto_offset_reset="earliest",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            max_poll_interval_ms=600_000,
            group_instance_id=settings.instance_id,
            fetch_max_bytes=FETCH_MAX_BYTES,
            max_partition_fetch_bytes=max(MIB, settings.max_message_bytes + (64 << 10)),
        )
        self._commits = Commits(self._consumer, self._topic, self._kafka, self.fail)
        self._outgoing = Outgoing(settings, settings.topic(KINDS[TEXT].topic), recogniser.version, metrics, self.fail)
        self._hearing = Hearing(recogniser, metrics, self._outgoing.say, self.fail)

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Something that must not happen: end the process, so that its supervisor starts it again from the commit."""
        if self._failure is None:
            self._failure = error
        self._stop.set()

    def run(self) -> None:
        """Work until :meth:`stop`, in a thread that may wait.

        Raises:
            Exception: What ended it; a Stop if that says how to fix it.
        """
        self._consumer.subscribe([self._topic], listener=self._listener)
        log.info("ready: group %r, topic %s", f"{self._settings.group}-transcribe", self._topic)
        try:
            while not self._stop.is_set():
                self._turn()
            self._hearing.stop(self._settings.stop_after_ms / 1000)
            if self._failure is None:
                self._outgoing.flush(ANSWER_MS / 1000)
                self._finish_done()
                self._commits.commit(self._cuts(), ANSWER_MS)
        except KafkaError as error:
            raise kafka_clients.refusal(self._settings, error) from error
        finally:
            self._consumer.close(autocommit=False, timeout_ms=ANSWER_MS)
            self._outgoing.close()
        if self._failure is not None:
            raise self._failure

    # one turn

    def _turn(self) -> None:
        self._pause(bool(self._records) or self._hearing.waiting_s > MAX_WAITING_S)
        polled = self._consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        self._rebalance()
        for tp, messages in polled.items():
            if tp.partition in self._partitions:
                self._records += (_record(message) for message in messages)
        while self._records and self._hearing.waiting_s <= MAX_WAITING_S and not self._stop.is_set():
            self._take(self._records.popleft())
        self._finish_done()
        if monotonic() >= self._ask_at_s:
            self._end_silent()
        if self._commits.due:
            self._commits.commit(self._cuts())
        self._watch()

    def _pause(self, hold: bool) -> None:
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        if hold and paused != assigned:
            self._consumer.pause(*assigned)
        elif not hold and paused:
            self._consumer.resume(*paused)
        self._metrics.held.set(hold)

    def _rebalance(self) -> None:
        while not self._listener.news.empty():
            ours, tps = self._listener.news.get()
            numbers = {tp.partition for tp in tps}
            for number in numbers:
                if (partition := self._partitions.pop(number, None)) is not None:
                    partition.alive = False
                self._commits.forget(number)
            self._records = deque(record for record in self._records if record.partition not in numbers)
            if ours:
                for tp in tps:
                    self._partitions[tp.partition] = self._new_partition(tp)
                self._joined = True

    def _new_partition(self, tp: TopicPartition) -> Partition:
        """A partition as of its commit; the consumer is put there, whatever it has read meanwhile."""
        committed = self._consumer.committed(tp, metadata=True)
        cut = None
        if committed is not None:
            cut = Cut.read(committed.offset, committed.metadata or "")
            self._consumer.seek(tp, cut.offset)
        settings = self._settings
        hole_us, gap_us = settings.transcribe_silence_ms * 1000, settings.transcribe_gap_ms * 1000
        return Partition(tp.partition, self._network, self._rules, hole_us, gap_us, cut)

    def _take(self, record: Record) -> None:
        partition = self._partitions[record.partition]
        if record.offset < partition.next_offset:
            return  # from before the consumer was put back
        found = partition.begin(record.offset, record.log_time_us)
        try:
            event = self._decoder.decode(record)
            if event.type is EventType.END:
                found += partition.end(event.session, record.offset)
            elif event.type is EventType.DATA:
                found += self._hear(partition, event)
            if event.type is not EventType.DATA:
                partition.chunks["control"] += 1
        except BadRecord as error:
            # The worker reads the same record, and makes the one dead letter of it.
            log.warning("partition %d offset %d cannot be heard: %s", record.partition, record.offset, error)
            self._metrics.bad_chunks.labels(str(error.reason)).inc()
            partition.chunks["bad"] += 1
        for utterance in found:
            self._hearing.put(utterance)

    def _hear(self, partition: Partition, event: Event) -> list[Utterance]:
        headers, offset = dict(event.record.headers), event.record.offset
        key = Key(event.session, self._sensors[event.sensor])
        if not partition.needs(key, offset):
            partition.chunks["replayed"] += 1
            return []
        sound = payloads.audio(event, event.start_us, event.end_us)
        self._metrics.sound_seconds.inc(len(sound.samples_S) / sound.rate_hz)
        span_us = event.end_us - event.start_us
        trace = headers.get(tracing.HEADER)
        return partition.hear(key, offset, event.start_us, sound.rate_hz, sound.samples_S, span_us, trace)

    # words and offsets out

    def _finish_done(self) -> None:
        for utterance in self._outgoing.done():
            utterance.partition.finish(utterance)

    def _cuts(self) -> Iterator[tuple[int, Cut]]:
        waiting = {record.partition for record in self._records}
        for number, partition in self._partitions.items():
            if number not in waiting:
                position = self._consumer.position(TopicPartition(self._topic, number), timeout_ms=ANSWER_MS)
                if position is None:
                    continue  # it is not known yet where reading begins
                partition.next_offset = max(partition.next_offset, position)  # markers of transactions
            yield number, partition.cut()

    # silence

    def _end_silent(self) -> None:
        """End the sounds that have been silent for too long in a partition of which nothing more has come.

        Log time has come as far as the question for the partition's end, if nothing lies behind what we have read.
        Records of open transactions do, so it waits for them.
        """
        self._ask_at_s = monotonic() + ASK_EVERY_S
        asked_us = time_ns() // 1000 - self._settings.merge_slack_ms * 1000
        over = [
            TopicPartition(self._topic, number)
            for number, partition in self._partitions.items()
            if partition.soonest_us is not None and partition.soonest_us <= asked_us
        ]
        if not over or self._records:
            return
        try:
            ends = self._ends(over)
            for tp in over:
                if ends[tp] == self._consumer.position(tp, timeout_ms=ANSWER_MS):
                    partition = self._partitions[tp.partition]
                    for utterance in partition.silence(asked_us, ends[tp]):
                        self._hearing.put(utterance)
        except KafkaError as error:
            self._kafka.away(error)

    def _ends(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self._admin is None:
            self._admin = KafkaAdminClient(**kafka_clients.kafka_options(self._settings))
        found = self._admin.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.LATEST), timeout_ms=ANSWER_MS)
        return {tp: place.offset for tp, place in found.items()}

    # health

    def _watch(self) -> None:
        stall_s = self._settings.stall_after_ms / 1000
        if self._hearing.overdue_s > stall_s:
            self.fail(Stalled(f"the recogniser does not finish an utterance that is due since {stall_s:.0f} s"))
        if (waited_s := self._outgoing.waited_s()) > UNACKNOWLEDGED_S:
            self._kafka.away(TimeoutError(f"a transcript has waited {waited_s:.0f} s for its acknowledgement"))
        self._metrics.lag_records.set(sum(map(self._lag, self._partitions)))
        for partition in self._partitions.values():
            for outcome, count in partition.chunks.items():
                self._metrics.chunks.labels(outcome).inc(count)
            partition.chunks.clear()

    def not_ready(self) -> list[str]:
        """Why no words can be heard and sent now; empty when they can."""
        if self._stop.is_set():
            return ["it is stopping"]
        if not self._joined:
            return ["it has not joined its group"]
        return [] if self._kafka.error is None else [self._kafka.error]

    def degraded(self) -> list[str]:
        """What does not work as it should, although words come."""
        waiting_s = self._hearing.waiting_s
        behind = f"the recogniser is behind: {waiting_s:.0f} s of speech wait, nothing is read"
        return [behind] if waiting_s > MAX_WAITING_S else []

    def observe(self) -> None:
        """Bring the gauges up to date."""
        metrics = self._metrics
        metrics.waiting_seconds.set(self._hearing.waiting_s)
        metrics.sounds.set(sum(partition.sounds for partition in list(self._partitions.values())))
        metrics.ready.set(not self.not_ready())

    def _lag(self, number: int) -> int:
        highwater: int | None = self._consumer.highwater(TopicPartition(self._topic, number))
        return 0 if highwater is None else max(0, highwater - self._partitions[number].next_offset)


def _record(message: Any) -> Record:
    headers = tuple((name, value) for name, value in message.headers)
    return Record(
        AUDIO,
        message.partition,
        message.offset,
        message.timestamp * 1000,
        message.key,
        message.value or b"",
        headers,
    )
