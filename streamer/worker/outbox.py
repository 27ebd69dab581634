"""The end of role align: closed windows go to the windows topic, and Redis records which ones.

    submit ─► batch ─► Kafka, window by window of a session ─► Redis (emissions) ─► the group's ledger

A session's next window is sent when the broker has acknowledged the one before. Otherwise a newer window could overtake
one whose send is repeated, and role infer would take the older one for a duplicate. Open windows that are to be run
early go in batches of their own, while no closed one waits, and are not recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import perf_counter_ns, time_ns

import msgspec

from streamer.errors import BadRecord, Reason
from streamer.events import ClosedBy, Event, Window
from streamer.model import frames
from streamer.model.spec import InputSpec
from streamer.observe.metrics import Metrics
from streamer.store.emissions import Emission, Emissions
from streamer.worker import handover
from streamer.worker.batch import Batcher
from streamer.worker.ports import Owner

MAX_BATCH = 256  # windows in one round trip to Redis

log = logging.getLogger(__name__)


class _Parcel(msgspec.Struct, frozen=True, eq=False):
    owner: Owner
    window: Window
    nbytes: int
    closed_us: int
    marked_ns: int
    lost_until_us: int

    @property
    def key(self) -> tuple[str, int]:
        """Session and end of the window."""
        return self.window.session, self.window.end_us


class Outbox:
    """Takes windows as :class:`streamer.worker.pipeline.Pipeline` does.

    Args:
        inputs: The model's inputs; the payloads that it opens are sent.
        max_bytes: Of a record's value; a larger window is sent without payloads.
        send: Sends key, value and headers to the windows topic; returns when the broker has it.
        refuse: Sends a member to the dead-letter topic; returns when the broker has it.
        on_progress: Called after each batch.
    """

    def __init__(
        self,
        inputs: InputSpec,
        max_bytes: int,
        emissions: Emissions,
        metrics: Metrics,
        send: Callable[[bytes, bytes, handover.Headers], Awaitable[None]],
        refuse: Callable[[Owner, Event, BadRecord], Awaitable[None]],
        on_progress: Callable[[], None],
    ) -> None:
        self._inputs = inputs
        self._max_bytes = max_bytes
        self._emissions = emissions
        self._metrics = metrics
        self._send = send
        self._refuse = refuse
        self._on_progress = on_progress
        self._batcher: Batcher[_Parcel] = Batcher(MAX_BATCH, 0.0)
        self._early: dict[tuple[str, int], _Parcel] = {}
        self.inflight_windows = 0
        self.inflight_bytes = 0

    @property
    def ahead(self) -> bool:
        """Never: what limits it is ``inflight_bytes``."""
        return False

    def submit(self, owner: Owner, window: Window, closed_us: int | None = None) -> None:
        """See :class:`streamer.worker.ports.Sink`."""
        lost_until_us = owner.lost_until_us(window)
        now_us = time_ns() // 1000
        parcel = _Parcel(owner, window, window.nbytes, closed_us or now_us, perf_counter_ns(), lost_until_us)
        early = self._early.pop(parcel.key, None)
        if early is not None and self._batcher.drop(early):
            self._metrics.early.labels("dropped").inc()
        self.inflight_windows += 1
        self.inflight_bytes += parcel.nbytes
        self._batcher.put(parcel)

    def submit_early(self, owner: Owner, window: Window) -> None:
        """Send an open window, if it is still open when there is time; its payloads are those of the open windows."""
        if not any(window.of(name) for name in self._inputs.all):
            return
        parcel = _Parcel(owner, window, window.nbytes, time_ns() // 1000, perf_counter_ns(), 0)
        self._early[parcel.key] = parcel
        self._batcher.put_early(parcel)

    def close(self) -> None:
        """No more windows: :meth:`run` returns once all that were submitted are recorded."""
        self._batcher.close()

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        """Forget early windows of dead owners. No payload is opened here, so no window is ever marked in flight."""
        for parcel in [parcel for parcel in self._early.values() if not parcel.owner.alive]:
            self._batcher.drop(parcel)
            del self._early[parcel.key]

    async def run(self) -> None:
        """Work until :meth:`close` and the last emission.

        Raises:
            Stop: Redis refuses us.
        """
        while batch := await self._batcher.get():
            if batch[0].window.closed_by is ClosedBy.OPEN:
                await asyncio.gather(*map(self._send_early, batch))
                continue
            by_session: dict[str, list[_Parcel]] = {}
            for parcel in batch:
                by_session.setdefault(parcel.window.session, []).append(parcel)
            await asyncio.gather(*map(self._emit_in_turn, by_session.values()))
            emitted = [parcel for parcel in batch if parcel.owner.alive]
            if emitted:
                await self._emissions.record([self._emission(parcel) for parcel in emitted])
            for parcel in batch:
                self.inflight_windows -= 1
                self.inflight_bytes -= parcel.nbytes
                if parcel.owner.alive:
                    parcel.owner.window_done(parcel.window)
                    seconds = (perf_counter_ns() - parcel.marked_ns) / 1e9
                    self._metrics.stage("emit").observe(seconds)
            self._on_progress()

    async def _send_early(self, parcel: _Parcel) -> None:
        """An open window; not one that is too large with its payloads, since nothing is fetched for an early run."""
        if self._early.get(parcel.key) is parcel:
            del self._early[parcel.key]
        window = parcel.window
        value = self._encode(parcel, window, frames.opened(window, self._inputs)) if parcel.owner.alive else b""
        if 0 < len(value) <= self._max_bytes:
            self._metrics.window_records.labels("early").inc()
            await self._send(window.session.encode(), value, handover.headers(window))

    async def _emit_in_turn(self, parcels: Sequence[_Parcel]) -> None:
        """Windows of one session."""
        for parcel in parcels:
            if parcel.owner.alive:  # else the partition's new owner makes it again
                window = parcel.window
                value = self._encoded(parcel)
                if len(value) > self._max_bytes + handover.MARGIN_BYTES:
                    value = await self._emptied(parcel)
                await self._send(window.session.encode(), value, handover.headers(window))

    def _encoded(self, parcel: _Parcel) -> bytes:
        window = parcel.window
        value = self._encode(parcel, window, frames.opened(window, self._inputs))
        if len(value) <= self._max_bytes:
            self._metrics.window_records.labels("whole").inc()
            return value
        self._metrics.window_records.labels("bare").inc()
        return self._encode(parcel, window, [[False] * len(events) for events in window.events])

    async def _emptied(self, parcel: _Parcel) -> bytes:
        """Too many members for one record even by reference: they become dead letters, the session goes on."""
        window = parcel.window
        members = [event for events in window.events for event in events]
        error = BadRecord(
            Reason.TOO_LARGE,
            f"window {window.id} has {len(members)} records, more than a record of the windows topic can list",
        )
        for event in members:
            await self._refuse(parcel.owner, event, error)
        nothing: tuple[tuple[()], ...] = ((),) * len(window.events)
        return self._encode(parcel, msgspec.structs.replace(window, events=nothing), nothing)

    def _encode(self, parcel: _Parcel, window: Window, travels: Sequence[Sequence[bool]]) -> bytes:
        return handover.encode(
            window,
            travels,
            closed_us=parcel.closed_us,
            fingerprint=parcel.owner.fingerprint,
            trim_below_us=parcel.owner.trim_below_us,
            lost_until_us=parcel.lost_until_us,
        )

    def _emission(self, parcel: _Parcel) -> Emission:
        owner = parcel.owner
        return Emission(parcel.window, owner.fingerprint, owner.trim_below_us, parcel.lost_until_us)
