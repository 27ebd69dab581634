"""What alignment remembers of a session: its open windows, and how far it has come. Rules: see ``windows``."""

from __future__ import annotations

from streamer.events import Event, Position

NEVER_US = 1 << 62


class OpenWindow:
    """A window that may still get members.

    Attributes:
        due_us: Log time from which it only waits for what is missing; ``NEVER_US`` before.
        early_us: Log time of its early run; ``NEVER_US`` if it is not due, or gets none.
        events, identities: Members, and the names of those that have one, by sensor.
        first: Position of the record that opened it.
        nbytes: Of the events whose newest window this is.
    """

    __slots__ = ("due_us", "early_us", "end_us", "events", "first", "identities", "nbytes")

    def __init__(self, end_us: int, sensors: int, first: Position) -> None:
        self.end_us = end_us
        self.due_us = self.early_us = NEVER_US
        self.events: list[list[Event]] = [[] for _ in range(sensors)]
        self.identities: list[set[tuple[str, str]]] = [set() for _ in range(sensors)]
        self.first = first
        self.nbytes = 0

    def join(self, event: Event) -> bool:
        """Add an event; returns whether it was not there yet."""
        sensor, identity = event.sensor, event.identity
        if identity is not None:
            if identity in self.identities[sensor]:
                return False
            self.identities[sensor].add(identity)
        self.events[sensor].append(event)
        return True


class Session:
    """A session with events.

    Attributes:
        reached_us: The largest frontier.
        floor_us: No window starts before this: after a change of the window settings.
        windows: Ascending.
        early: Those that have an early run before them, in its order.
        scheduled_us: Its earliest entry in the heap of closings and early runs.
    """

    __slots__ = (
        "closed_end_us",
        "early",
        "end_record",
        "floor_us",
        "frontier_us",
        "heard_us",
        "reached_us",
        "scheduled_us",
        "windows",
    )

    def __init__(self, heard_us: list[int], closed_end_us: int, floor_us: int) -> None:
        self.heard_us = heard_us
        self.frontier_us = [-NEVER_US] * len(heard_us)
        self.reached_us = -NEVER_US
        self.closed_end_us = closed_end_us
        self.floor_us = floor_us
        self.windows: list[OpenWindow] = []
        self.early: list[OpenWindow] = []
        self.end_record: Event | None = None
        self.scheduled_us = NEVER_US
