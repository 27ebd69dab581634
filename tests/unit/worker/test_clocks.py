"""What a worker tells of drifting clocks: gauges, and reports in Redis."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from streamer.events import Drift
from streamer.observe.metrics import Metrics
from streamer.worker.clocks import Clocks


def group(clock_us: int, **found: tuple[Drift, ...]) -> Any:
    def drifts(asked_us: int) -> list[tuple[str, tuple[Drift, ...]]]:
        assert asked_us == clock_us
        return list(found.items())

    return SimpleNamespace(alive=True, clock_us=clock_us, skews=SimpleNamespace(drifts=drifts))


def test_gauges_sum_up_all_groups_that_live() -> None:
    metrics = Metrics(CollectorRegistry())
    clocks = Clocks(("image", "audio", "imu"), metrics)
    one = group(5, a=(Drift("imu", -210.0, -40.0, 300.0),))
    other = group(7, b=(Drift("imu", 90.0, 12.0, 900.0), Drift("audio", 55.0, 3.0, 2000.0)))
    clocks.watch(one)
    clocks.watch(other)

    def gauges() -> dict[str, tuple[float | None, float | None]]:
        value = metrics.registry.get_sample_value
        return {
            name: (
                value("streamer_clock_drift_ppm", {"sensor": name}),
                value("streamer_drifting_sessions", {"sensor": name}),
            )
            for name in ("image", "audio", "imu")
        }

    assert set(clocks.look()) == {"a", "b"}
    assert gauges() == {"image": (0, 0), "audio": (55.0, 1), "imu": (210.0, 2)}
    one.alive = False
    assert set(clocks.look()) == {"b"}
    assert gauges()["imu"] == (90.0, 1)
