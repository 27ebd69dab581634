"""Whether a sensor's clock drifts away from those of its session's other sensors. Observes; no window depends on it.

The *skew* of an event is its log time minus its end: what its clock is behind the broker's, plus the way that the event
took. Of the way only the shortest counts: for each sensor of a session, and each ``INTERVAL_US`` of log time, the
smallest skew is kept, ``KEPT`` of them. Each time that an interval of a session ends:

* What all sensors have in common is taken off (a queue that all of them wait in): the median over the sensors, each
  measured from its own median.
* What is left of each is fitted by a line: its slope by Theil and Sen, the median of the slopes between all pairs of
  points, which bursts and pauses do not turn; its error from the residuals.
* A drift is the slope against the median of the slopes that are known well; of two sensors, with the broker's clock as
  the third. It is reported if it is ``DRIFT_PPM`` or more, is known well, has moved the sensor by more than chance
  does, and is in the earlier half of the points as in the later one: a step is in neither.

A session whose sensors together run away from the broker's clock is not judged: it is a recording, sent slower or
faster than it happened, or a queue that grows or empties.

Pure code; times are microseconds, and slopes µs of skew in a second of log time, that is parts per million.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import median, median_low
from zlib import crc32

from streamer.events import DATA, Drift, Event
from streamer.observe.metrics import SKEW_BOUNDS_US
from streamer.observe.tally import Tally

INTERVAL_US = 30_000_000
KEPT = 16  # intervals: 8 minutes
LEAST = 8  # intervals with events of a sensor, before it is judged
DRIFT_PPM = 50.0  # cheap oscillators differ by 20 to 200
MOST_COMMON_PPM = 2_000.0  # a session that runs faster or slower than the broker's clock is not of now
LEAST_MOVED_US = 10_000.0  # Kafka's log time is in milliseconds, and the shortest way of a few events is not that short
MOST_ERROR_PPM = 25.0  # a slope is known well; others (words, say, which come when they like) are no reference
SIGMAS = 5.0
LEAST_HALF = 0.4  # of the drift, in each half of the points
QUARTILE_OF_NORMAL = (
    1.15  # three in four values of a normal distribution are that many standard deviations from its mean
)

FORGET_US = 600_000_000
MAX_SESSIONS = 4_096  # of a partition group: 20 MB with 12 sensors

NONE_US = 2**62  # no event in this interval


class Line:
    """A straight line through points, and how well it is known.

    Args:
        at_s: Where the points are, ascending.
        values_us: Their values.

    Attributes:
        ppm: Slope, by Theil and Sen: the median of the slopes between all pairs of points.
        span_s: Distance of the outer points.
        sigma_us: Standard deviation of the points around the line.
        error_ppm: Standard deviation of the slope.
    """

    def __init__(self, at_s: Sequence[float], values_us: Sequence[float]) -> None:
        self._at_s, self._values_us = at_s, values_us
        self.ppm = _slope(at_s, values_us)
        rest = [value - self.ppm * at for at, value in zip(at_s, values_us, strict=True)]
        middle = median(rest)
        far = sorted(abs(value - middle) for value in rest)
        self.sigma_us = far[len(far) * 3 // 4] / QUARTILE_OF_NORMAL
        self.span_s = at_s[-1] - at_s[0]
        self.error_ppm = self.sigma_us * (12 / len(rest)) ** 0.5 / self.span_s

    def halves_ppm(self) -> tuple[float, float]:
        """Slopes of the earlier and of the later points alone."""
        half = len(self._at_s) // 2
        return _slope(self._at_s[:half], self._values_us[:half]), _slope(self._at_s[half:], self._values_us[half:])


def _slope(at_s: Sequence[float], values_us: Sequence[float]) -> float:
    points = zip(at_s, values_us, strict=True)
    return median([(v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2)])


class _Session:
    """Smallest skews of a session's sensors: in the present interval, which ends at ``until_us``, and in past ones."""

    __slots__ = ("minima_us", "past", "until_us")

    def __init__(self, sensors: int) -> None:
        self.until_us = 0
        self.minima_us = [NONE_US] * sensors
        self.past: deque[tuple[int, array[int]]] = deque(maxlen=KEPT)  # (end of the interval, minima)


class Skews:
    """The skews of one partition group.

    Args:
        names: Of the sensors.
        max_delay_us: Of each sensor, see ``align.windows.Rules``.
        tally: Counts the skews.
    """

    def __init__(self, names: Sequence[str], max_delay_us: Sequence[int], tally: Tally) -> None:
        self._names = names
        self._max_delay_us = max_delay_us
        self._counts = [tally.row(name) for name in names]
        self._sessions: dict[str, _Session] = {}  # the one whose interval began last at the end
        self._drifts: dict[str, tuple[Drift, ...]] = {}

    @property
    def sessions(self) -> int:
        """How many are watched."""
        return len(self._sessions)

    def observe(self, items: Iterable[object]) -> None:
        """Take events in the order of the merged log; whatever is no event with data is passed over."""
        counts, sessions = self._counts, self._sessions
        for item in items:  # every event comes here
            if not isinstance(item, Event) or item.type is not DATA:
                continue
            log_time_us, sensor = item.position[0], item.sensor
            skew_us = log_time_us - item.end_us
            counts[sensor][bisect_left(SKEW_BOUNDS_US, skew_us)] += 1
            session = sessions.get(item.session)
            if session is None or log_time_us >= session.until_us:
                session = self._next_interval(item.session, log_time_us)
            minima_us = session.minima_us
            if skew_us < minima_us[sensor]:
                minima_us[sensor] = skew_us

    def drifts(self, clock_us: int) -> Iterator[tuple[str, tuple[Drift, ...]]]:
        """Sessions whose sensors drift, of those that were heard within the last two intervals before ``clock_us``."""
        for name, drifts in self._drifts.items():
            if self._sessions[name].until_us + INTERVAL_US >= clock_us:
                yield name, drifts

    def _next_interval(self, name: str, log_time_us: int) -> _Session:
        session = self._sessions.pop(name, None)
        if session is None:
            session = _Session(len(self._names))
        else:
            session.past.append((session.until_us, array("q", session.minima_us)))
            session.minima_us = [NONE_US] * len(self._names)
            while session.past and session.past[0][0] <= log_time_us - (KEPT + 1) * INTERVAL_US:
                session.past.popleft()
            self._judge(name, session)
        # Sessions end their intervals one by one: after a restart all of them begin at once.
        phase_us = crc32(name.encode()) % INTERVAL_US
        session.until_us = log_time_us + INTERVAL_US - (log_time_us - phase_us) % INTERVAL_US
        self._sessions[name] = session
        self._forget(log_time_us)
        return session

    def _judge(self, name: str, session: _Session) -> None:
        past = tuple(session.past)
        if found := judge(past):
            newest = latest_us(past)
            self._drifts[name] = tuple(
                Drift(
                    self._names[sensor],
                    round(ppm, 1),
                    round(behind_us(sensor, newest) / 1000, 1),
                    round(left_s(sensor, ppm, newest, self._max_delay_us), 1),
                )
                for sensor, ppm in found.items()
            )
        else:
            self._drifts.pop(name, None)

    def _forget(self, log_time_us: int) -> None:
        while True:
            oldest = next(iter(self._sessions))
            over = len(self._sessions) > MAX_SESSIONS
            if not over and self._sessions[oldest].until_us >= log_time_us - FORGET_US:
                return
            del self._sessions[oldest]
            self._drifts.pop(oldest, None)


Past = Sequence[tuple[int, Sequence[int]]]  # (end of an interval, smallest skew of each sensor in it)


def judge(past: Past) -> dict[int, float]:
    """Sensors that drift, with how much, ppm: above 0 if the clock is slow and its events seem later and later."""
    if len(past) < LEAST:
        return {}
    at_s = [(end_us - past[-1][0]) / 1e6 for end_us, _ in past]
    levels_us = {
        sensor: level
        for sensor in range(len(past[-1][1]))
        if len(level := _level_us(past, sensor)) >= LEAST and max(level) >= len(past) - 2
    }
    if len(levels_us) < 2:
        return {}
    found = (
        (number, [level[number] for level in levels_us.values() if number in level]) for number in range(len(past))
    )
    common_us = {number: median(values) for number, values in found if values}
    common = Line([at_s[number] for number in common_us], list(common_us.values()))
    if abs(common.ppm) > MOST_COMMON_PPM:
        return {}
    lines = {
        sensor: Line([at_s[number] for number in level], [level[number] - common_us[number] for number in level])
        for sensor, level in levels_us.items()
    }
    known = {sensor: line for sensor, line in lines.items() if line.error_ppm <= MOST_ERROR_PPM}
    if len(known) < 2:
        return {}
    slopes_ppm = [line.ppm for line in known.values()]
    if len(slopes_ppm) % 2 == 0:  # the broker's clock decides between two halves
        slopes_ppm.append(-common.ppm)
    reference_ppm = median(slopes_ppm)
    return {sensor: line.ppm - reference_ppm for sensor, line in known.items() if _is_drift(line, reference_ppm)}


def _is_drift(line: Line, reference_ppm: float) -> bool:
    ppm = line.ppm - reference_ppm
    moved_us = abs(ppm) * line.span_s
    if abs(ppm) < DRIFT_PPM or moved_us < max(LEAST_MOVED_US, SIGMAS * line.sigma_us):
        return False
    return all((half - reference_ppm) / ppm > LEAST_HALF for half in line.halves_ppm())


def _level_us(past: Past, sensor: int) -> dict[int, int]:
    """Number of an interval -> a sensor's smallest skew in it, from the median of all of them."""
    given = {number: minima[sensor] for number, (_, minima) in enumerate(past) if minima[sensor] < NONE_US}
    if not given:
        return {}
    middle_us = median_low(given.values())  # of whole numbers: a double has too few bits for years of skew
    return {number: value - middle_us for number, value in given.items()}


def latest_us(past: Past) -> dict[int, int]:
    """The newest smallest skew of each sensor that was heard in the last two intervals."""
    newest: dict[int, int] = {}
    for _, minima in past[-2:]:
        newest |= {sensor: value for sensor, value in enumerate(minima) if value < NONE_US}
    return newest


def behind_us(sensor: int, newest_us: Mapping[int, int]) -> float:
    """By how much a sensor's events come later than those of the others, by the times that they carry."""
    return newest_us[sensor] - median([value for other, value in newest_us.items() if other != sensor])


def left_s(sensor: int, ppm: float, newest_us: Mapping[int, int], max_delay_us: Sequence[int]) -> float:
    """How long until windows close without events that came the shortest way; 0: they do.

    A window is due when the first sensor has reached its end, and waits ``max_delay`` for another: for the one whose
    clock is slow, or for those that it has overtaken.
    """
    others = {other: value for other, value in newest_us.items() if other != sensor}
    if ppm > 0:
        slack_us = max_delay_us[sensor] - (newest_us[sensor] - min(others.values()))
    else:
        slack_us = min(max_delay_us[other] - (value - newest_us[sensor]) for other, value in others.items())
    return max(0.0, slack_us / abs(ppm))
