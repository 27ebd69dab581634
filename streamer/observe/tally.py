"""A histogram that is filled by plain additions, for what happens with every event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """A histogram by one label. ``prometheus_client``'s own takes a lock and some microseconds for each value.

    Its user counts in :meth:`row`, on the thread on which the metrics are scraped.

    Args:
        bounds_us: Largest values of the buckets, µs, ascending; one more bucket is for what is above.
    """

    def __init__(self, name: str, text: str, label: str, bounds_us: Sequence[int]) -> None:
        self.name, self.text, self.label = name, text, label
        self._bounds = [*(str(bound_us / 1e6) for bound_us in bounds_us), "+Inf"]
        self._rows: dict[str, list[int]] = {}

    def row(self, value: str) -> list[int]:
        """How many values each bucket has under this value of the label."""
        return self._rows.setdefault(value, [0] * len(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The present values, in seconds."""
        family = HistogramMetricFamily(self.name, self.text, labels=[self.label])
        for value, counts in self._rows.items():
            buckets = list(zip(self._bounds, accumulate(counts), strict=True))
            family.add_metric([value], buckets, None)  # OpenMetrics knows no sum where values may be negative
        yield family
