"""A partition group asked for memory: its oldest window closes, and what comes later for it is late."""

from __future__ import annotations

from bench.programs.align_only import Forgetting
from streamer.align.decode import Decoder
from streamer.align.group import PartitionGroup
from streamer.align.windows import Late, Rules
from streamer.events import ClosedBy, Record, Window
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from tests import logs
from tests.harness import S_US, jpeg, record

START_US = 1_760_000_000 * S_US
SETTINGS = Settings.load(partitions=1)


def frame(offset: int, at_us: int) -> Record:
    sent = record(SETTINGS, 0, "car", at_us, jpeg(), "image/jpeg")
    return Record(0, 0, offset, START_US + offset * 1000, sent.key, sent.value, tuple(sent.headers))


async def test_its_oldest_window_closes_and_later_events_of_it_are_late() -> None:
    group = PartitionGroup(
        0,
        Decoder(SETTINGS, 1),
        Rules.from_settings(SETTINGS),
        1 << 20,
        Metrics(),
        name="streamer:0",
        committed=False,
        max_ahead_us=SETTINGS.max_ahead_ms * 1000,
    )
    for row in (1, 2, 3):
        group.merge.advance(row, START_US + S_US)
    for offset, at_us in enumerate((START_US - 1500_000, START_US - 500_000)):
        group.receive(frame(offset, at_us))
    leaving, _ = await group.advance(Forgetting(), 10)
    assert leaving == []
    held = group.aligner.open_bytes
    (window,) = group.relieve()
    assert isinstance(window, Window)
    assert (window.closed_by, window.end_us) == (ClosedBy.MEMORY, START_US - S_US)
    assert window.closed_at == group.merge.released
    assert group.aligner.open_bytes == held // 2
    assert group.releasable() == {}
    group.window_done(window)
    assert logs.next_offsets(group.releasable()) == {0: 1}
    group.receive(frame(2, START_US - 1400_000))
    (late,), _ = await group.advance(Forgetting(), 10)
    assert isinstance(late, Late)
