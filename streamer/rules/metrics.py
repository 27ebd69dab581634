"""Every Prometheus metric of `streamer rules`."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class Metrics:
    """The metrics of one process; tests give each its own registry.

    Args:
        rules: Their names, so that their series begin at 0.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, rules: Iterable[str] = ()) -> None:
        self.registry = registry
        self.alarms = Counter("streamer_alarms_total", "Alarms raised, by rule", ["rule"], registry=registry)
        self.windows = Counter("streamer_rules_windows_total", "Windows to which rules were applied", registry=registry)
        self.unknown = Gauge(
            "streamer_rules_unknown_windows",
            "Windows since the start in which a rule was neither true nor false since something was missing",
            ["rule"],
            registry=registry,
        )
        self.actions = Counter(
            "streamer_alarm_actions_total",
            "Actions of alarms by outcome; all but done and refused are repeated",
            ["action", "outcome"],
            registry=registry,
        )
        self.behind_seconds = Gauge(
            "streamer_rules_behind_seconds",
            "Event time by which the rules trail the newest result of a session, the furthest of all",
            registry=registry,
        )
        self.overtaken = Counter(
            "streamer_rules_overtaken_total",
            "Stretches of a session whose results may have been trimmed before rules saw them",
            registry=registry,
        )
        self.retries = Counter(
            "streamer_retries_total", "Calls repeated because a service did not answer", ["service"], registry=registry
        )
        for name in rules:
            self.alarms.labels(name)
        self.retries.labels("redis")
