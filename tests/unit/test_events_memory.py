"""What an event costs in memory, by estimate and in truth."""

import subprocess
import sys

import pytest

# In a process of its own, whose memory nothing else fills. 20,000 blocks of telemetry, and as many small frames.
MEASURE = """
import gc, sys, time
import psutil
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from streamer.align.decode import Decoder
from streamer.events import Record
from streamer.feeds import pace, simulate
from streamer.feeds.producer import headers
from streamer.settings import Settings

row, count = int(sys.argv[1]), 20_000
drives = simulate.fleet(1, 10, 7, pace.start_us(0, 10_000_000, 1_000_000), "car")
sent = [outgoing for outgoing in simulate.outgoing(drives) if outgoing.row == row]
builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
log_time_ms = int(time.time() * 1000) + 3_600_000
for number in range(count):
    one = sent[number % len(sent)]
    builder.append(number, log_time_ms, one.session.encode(), one.payload[:2000], headers(one))
batch = MemoryRecords(bytes(builder.build())).next_batch()
decoder = Decoder(Settings(partitions=1), 1)
gc.collect()
before = psutil.Process().memory_info().rss
events = [
    decoder.decode(Record(row, 0, r.offset, r.timestamp * 1000, r.key, r.value, tuple(r.headers))) for r in batch
]
taken = psutil.Process().memory_info().rss - before
print(sum(event.nbytes for event in events) / taken)
"""


@pytest.mark.parametrize("row", [0, 3], ids=["frames of 2 KB", "telemetry"])
def test_small_events_cost_about_what_they_are_reckoned_at(row: int) -> None:
    command = [sys.executable, "-c", MEASURE, str(row)]
    share = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.7 < share < 1.4
