"""What decoding and the model cost of a feed, without any Kafka: ``python -m bench.growth.alone FEED``.

FEED is a ``bench.growth.feeds.Feed`` as JSON. Its records are aligned in memory, each logged when it is due, and
measured as ``bench.programs.bare`` does. Prints one line of JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec

from bench.growth.feeds import Feed, stream
from bench.programs.bare import aligned, measure
from streamer.events import Record
from streamer.settings import Settings
from streamer.training.simulated import logged

START_US = 1_700_000_000_000_000  # on the border of a window of any length that divides 1,000 s


def main() -> None:
    """Make the records, align, measure."""
    settings = Settings.load(partitions=1)
    feed = msgspec.json.decode(sys.argv[1], type=Feed)
    print(msgspec.json.encode(measure(settings, list(aligned(settings, list(records(feed)))))).decode(), flush=True)


def records(feed: Feed) -> Iterator[Record]:
    """The feed as one partition's log, in the order of the merge."""
    return logged(sorted(stream(feed, START_US), key=lambda outgoing: (outgoing.due_us, outgoing.row)))


if __name__ == "__main__":
    main()
