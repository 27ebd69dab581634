"""A sensor whose clock drifts is told from all else that makes events late, with simulated clocks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streamer.align.skew import FORGET_US, INTERVAL_US, MAX_SESSIONS, Skews, judge, left_s
from streamer.events import Drift, Event, EventType, Record
from streamer.observe.metrics import Metrics

S_US = 1_000_000
T0_US = 1_700_000_000 * S_US
RATES_HZ = {"image": 10.0, "audio": 4.0, "text": 0.2, "telemetry": 1.0}
MAX_DELAY_US = {"text": 2 * S_US}
JITTER_S = 0.05

Disturbance = Callable[[str, float, random.Random], tuple[float, float] | None]
"""Sensor, time in s -> what its way takes longer and what its clock is ahead, both in s; ``None``: it sends nothing."""


def undisturbed(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
    return 0.0, 0.0


class Alarm(NamedTuple):
    at_s: float
    drift: Drift


def skews(names: tuple[str, ...] = tuple(RATES_HZ)) -> Skews:
    delays = [MAX_DELAY_US.get(name, 200_000) for name in names]
    return Skews(names, delays, Metrics(CollectorRegistry()).skew)


def event(sensor: int, end_us: int, log_time_us: int, session: str = "car") -> Event:
    record = Record(0, 0, 0, log_time_us, None, b"", ())
    return Event(record, session, EventType.DATA, end_us, end_us, sensor=sensor)


def alarms(
    minutes: float,
    *,
    drifts_ppm: dict[str, float] | None = None,
    disturb: Disturbance = undisturbed,
    sensors: tuple[str, ...] = tuple(RATES_HZ),
    speed: float = 1.0,
    began_us: int = T0_US,
    seed: int = 1,
) -> list[Alarm]:
    """Every judgement in which a sensor drifts, of a session whose events take 5 to 55 ms to the broker."""
    chance, watch = random.Random(seed), skews(sensors)
    events = []
    for number, name in enumerate(sensors):
        at_s = chance.random() / RATES_HZ[name]
        while at_s < minutes * 60:
            way_s = 0.005 + JITTER_S * chance.random() + (0.3 + chance.expovariate(4) if name == "text" else 0.0)
            if (more := disturb(name, at_s, chance)) is not None:
                clock_s = at_s * speed - (drifts_ppm or {}).get(name, 0.0) * at_s / 1e6 + more[1]
                log_time_us = T0_US + round((at_s + way_s + more[0]) * 1000) * 1000
                events.append(event(number, began_us + round(clock_s * 1e6), log_time_us))
            at_s += 1 / RATES_HZ[name]
    events.sort(key=lambda one: one.position)
    found: list[Alarm] = []
    told: dict[str, tuple[Drift, ...]] = {}
    for one in events:
        watch.observe([one])
        now = dict(watch.drifts(one.position.log_time_us))
        if now != told:
            at_s = (one.position.log_time_us - T0_US) / 1e6
            told, found = now, [*found, *(Alarm(at_s, drift) for drift in now.get("car", ()))]
    return found


@pytest.mark.parametrize("ppm", [200.0, -200.0], ids=["slow", "fast"])
@pytest.mark.parametrize("sensor", ["image", "audio", "telemetry"])
def test_200_ppm_are_told_within_six_minutes_and_ten_before_windows_lose_members(sensor: str, ppm: float) -> None:
    found = alarms(8, drifts_ppm={sensor: ppm})
    assert {alarm.drift.sensor for alarm in found} == {sensor}
    first = found[0]
    assert first.at_s <= 360
    assert first.drift.ppm == pytest.approx(ppm, rel=0.3)
    assert first.drift.left_s > 600
    assert found[-1].drift.ppm == pytest.approx(ppm, rel=0.15)
    lost_at_s = [alarm.at_s + alarm.drift.left_s for alarm in found]  # 200 ms / 200 ppm = 1,000 s
    assert lost_at_s[-1] == pytest.approx(1000, rel=0.15)


@pytest.mark.parametrize("sensors", [("image", "audio"), ("audio", "image"), ("image", "text", "audio")])
def test_of_two_steady_sensors_it_is_the_one_that_moves_against_the_broker(sensors: tuple[str, ...]) -> None:
    found = alarms(6, drifts_ppm={"audio": 200.0}, sensors=sensors)
    assert {alarm.drift.sensor for alarm in found} == {"audio"}


def test_a_drift_of_100_ppm_is_told_and_one_of_20_is_not() -> None:
    found = alarms(12, drifts_ppm={"audio": 100.0, "telemetry": 20.0})
    assert {alarm.drift.sensor for alarm in found} == {"audio"}


def test_a_clock_that_all_sensors_share_may_drift() -> None:
    assert alarms(10, drifts_ppm=dict.fromkeys(RATES_HZ, 200.0)) == []


def test_a_clock_that_is_set_right_drifts_no_more() -> None:
    def corrected(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
        return 0.0, min(at_s, 480) * -200e-6 if sensor == "audio" else 0.0

    found = alarms(20, disturb=corrected)
    assert found
    assert found[-1].at_s < 480 + 300


@pytest.mark.parametrize("seed", range(5))
def test_jitter_is_no_drift(seed: int) -> None:
    assert alarms(20, seed=seed) == []


def backlog(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
    """Nothing goes out for two minutes, and later for five."""
    waits_s = [start + length - at_s for start, length in ((300, 120), (700, 300)) if start < at_s < start + length]
    return sum(waits_s), 0.0


def growing_queue(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
    return max(0.0, (at_s - 200) * 0.005), 0.0


def pauses(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float] | None:
    return None if (sensor == "audio" and 300 < at_s < 700) or (sensor == "image" and 400 < at_s < 420) else (0.0, 0.0)


def bursts(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
    return (3 * chance.random() if sensor == "image" and chance.random() < 0.3 else 0.0), 0.0


def late_minutes(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
    return (2.0 if sensor == "audio" and 500 < at_s < 560 else 0.0), 0.0


@pytest.mark.parametrize("disturb", [backlog, growing_queue, pauses, bursts, late_minutes])
@pytest.mark.parametrize("seed", range(2))
def test_what_makes_events_late_is_no_drift(disturb: Disturbance, seed: int) -> None:
    assert alarms(20, disturb=disturb, seed=seed) == []


@pytest.mark.parametrize("step_s", [0.02, 0.1, -0.1, 1.0, -5.0])
def test_a_clock_that_is_set_once_does_not_drift(step_s: float) -> None:
    def step(sensor: str, at_s: float, chance: random.Random) -> tuple[float, float]:
        return 0.0, step_s if sensor == "image" and at_s > 700 else 0.0

    assert alarms(20, disturb=step) == []


@pytest.mark.parametrize("speed", [0.5, 0.99, 1.0, 1.005, 4.0])
def test_a_recording_that_is_sent_again_does_not_drift(speed: float) -> None:
    assert alarms(12, speed=speed, began_us=T0_US - 10 * 365 * 86_400 * S_US) == []


def test_a_session_with_one_sensor_has_nothing_to_be_compared_with() -> None:
    assert alarms(8, drifts_ppm={"image": 200.0}, sensors=("image",)) == []


def test_a_session_that_is_silent_is_reported_no_more() -> None:
    watch = skews(("image", "audio"))
    for second in range(400):
        at_us = T0_US + second * S_US
        watch.observe([event(0, at_us, at_us), event(1, at_us - second * 200, at_us)])
    assert dict(watch.drifts(at_us))["car"][0].sensor == "audio"
    assert dict(watch.drifts(at_us + 3 * INTERVAL_US)) == {}


def test_silent_sessions_are_forgotten_and_more_than_so_many_are_not_watched() -> None:
    watch = skews()
    watch.observe(event(0, T0_US, T0_US, f"car-{number}") for number in range(MAX_SESSIONS + 50))
    assert watch.sessions == MAX_SESSIONS
    later_us = T0_US + FORGET_US + 2 * INTERVAL_US
    watch.observe([event(0, later_us, later_us, "car-0")])
    assert watch.sessions == 1


def test_control_records_and_what_decode_refused_have_no_skew() -> None:
    watch = skews()
    tick = Event(Record(0, 0, 0, T0_US, None, b"", ()), "", EventType.TICK, T0_US, T0_US)
    watch.observe([tick, object()])
    assert watch.sessions == 0


def test_no_window_is_lost_while_there_is_slack_on_the_side_that_waits() -> None:
    newest_us, max_delay_us = {0: 30_000, 1: 50_000, 2: 20_000}, [200_000, 400_000, 100_000]
    assert left_s(1, 100.0, newest_us, max_delay_us) == pytest.approx((400_000 - 30_000) / 100)
    assert left_s(2, -100.0, newest_us, max_delay_us) == pytest.approx((200_000 - 10_000) / 100)
    assert left_s(2, 100.0, {**newest_us, 2: 900_000}, max_delay_us) == 0.0


def test_too_few_intervals_are_not_judged() -> None:
    past = [(T0_US + number * INTERVAL_US, [0, 6000 * number]) for number in range(8)]
    assert judge(past[:7]) == {}
    assert judge(past) == {1: 200.0}


def test_the_skew_of_every_event_is_in_the_histogram_of_its_sensor() -> None:
    metrics = Metrics(CollectorRegistry())
    watch = Skews(("image", "audio"), [0, 0], metrics.skew)
    watch.observe(event(0, T0_US - skew_us, T0_US) for skew_us in (-2 * S_US, 50_000, 50_001, 10**15))
    text = generate_latest(metrics.registry).decode()
    assert [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith('streamer_skew_seconds_bucket{le="') and 'sensor="image"' in line
    ] == [*[1] * 5, 2, *[3] * 9, 4]
