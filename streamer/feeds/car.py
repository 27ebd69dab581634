"""The simulated car's sensors: what each makes of a drive.

    image, audio, text, telemetry      the default sensors: a camera ahead, a microphone on the roof, what its radio and
                                       its navigation say, the CAN bus
    camera_front … camera_rear_right   six cameras all round, each with its name in its pictures
    roof_mic, cabin_mic                what sounds outside; what the occupants say, and little of outside
    words, can, imu                    as text; as telemetry; acceleration in three axes and yaw rate, measured apart

A drive sends any of them. ``scene``, ``sound`` and ``script`` say how what happens looks, sounds and reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Channel, Telemetry
from streamer.feeds import scenario, script
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.scenario import Segment
from streamer.feeds.scene import Scene
from streamer.feeds.sound import RATE_HZ, CabinMicrophone, Heard, Microphone, l16

S_US = 1_000_000
FRAME_DELAY_US = 10_000  # from exposure to the encoded frame
CHUNK_S = 0.2  # of audio
BLOCK_S = 0.2  # of telemetry
CAN_HZ, IMU_HZ = 50, 100
SPEED_SETTLES_S = 0.25  # time constant of a change of speed
CURVATURE_PER_M = 0.007  # of the sharpest bend that is drawn
GRAVITY = 9.81  # m/s²
MIME_L16 = f"audio/L16;rate={RATE_HZ};channels=1"

Floats = NDArray[np.float64]


class Course(msgspec.Struct, frozen=True):
    """A drive as its sensors see it.

    Attributes:
        start_us: Event time of its first frame.
        light: An index of ``scenario.LIGHTS``.
        frame_hz: Frames a second of every camera.
    """

    seed: int
    session: str
    start_us: int
    light: int
    segments: Sequence[Segment]
    frame_hz: int

    def speeds_mps(self) -> Floats:
        """Speed at each sample of the CAN bus [seconds * CAN_HZ]."""
        target = np.concatenate([np.full((s.end_s - s.start_s) * CAN_HZ, s.speed_mps) for s in self.segments])
        share = 1 / (SPEED_SETTLES_S * CAN_HZ)
        speeds, speed = np.empty_like(target), target[0]
        for i, wanted in enumerate(target):
            speed += (wanted - speed) * share
            speeds[i] = speed
        return speeds

    def curvatures(self, rate_hz: int) -> Floats:
        """Of the road, -1 to 1, at each sample [seconds * rate_hz]."""
        return np.concatenate([np.full((s.end_s - s.start_s) * rate_hz, s.curvature) for s in self.segments])


class Sensor(NamedTuple):
    """A sensor of the car.

    Attributes:
        row: Number of its kind.
        sense: What it makes of a drive: its records, in the order in which they are due.
    """

    row: int
    sense: Callable[[Course], Iterator[Outgoing]]


def _camera(yaw_deg: int, name: str, course: Course) -> Iterator[Outgoing]:
    scene = Scene(course.seed, course.light, yaw_deg, name)
    distance_m = np.concatenate([[0.0], np.cumsum(course.speeds_mps()) / CAN_HZ])
    step_us = S_US // course.frame_hz
    index = 0
    for number, segment in enumerate(course.segments):
        ahead, behind = (
            np.random.default_rng((course.seed, 20, number)),
            np.random.default_rng((course.seed, 21, number)),
        )
        ahead_m, closing_mps = ahead.uniform(11, 17), ahead.uniform(0.1, 0.8)
        behind_m, gaining_mps = behind.uniform(9, 17), behind.uniform(-0.4, 0.6)
        which = segment.vehicle if scenario.BEHIND[segment.behind] == "emergency_vehicle" else segment.thing
        for tick in range((segment.end_s - segment.start_s) * course.frame_hz):
            after_us = segment.start_s * S_US + tick * step_us
            obstacle_m = float(ahead_m - closing_mps * tick * step_us / S_US)
            follower_m = float(behind_m - gaining_mps * tick * step_us / S_US)
            picture = scene.frame(
                after_us // 100_000,
                float(distance_m[after_us * CAN_HZ // S_US]),
                segment.curvature,
                (segment.thing, obstacle_m) if segment.obstacle else None,
                (segment.behind, which, follower_m) if segment.behind else None,
            )
            at_us = course.start_us + after_us
            due_us = at_us + FRAME_DELAY_US
            yield Outgoing(IMAGE, course.session, at_us, picture, "image/jpeg", due_us, sequence=index)
            index += 1


def _roof_mic(course: Course) -> Iterator[Outgoing]:
    microphone = Microphone(course.seed)
    return _chunks(course, lambda _, heard: microphone.second(heard))


def _cabin_mic(course: Course) -> Iterator[Outgoing]:
    microphone = CabinMicrophone(course.seed, Microphone(course.seed))
    return _chunks(course, lambda segment, heard: microphone.second(heard, segment.occupants))


def _chunks(course: Course, second_of: Callable[[Segment, Heard], NDArray[np.int16]]) -> Iterator[Outgoing]:
    """A microphone's records; it is asked for one second after the other."""
    speeds = course.speeds_mps()
    rain = scenario.LIGHTS[course.light] == "rain"
    size, chunk_us = int(CHUNK_S * RATE_HZ), int(CHUNK_S * S_US)
    index = 0
    for segment in course.segments:
        siren = segment.vehicle if segment.siren else None
        for second in range(segment.start_s, segment.end_s):
            speed_mps = float(speeds[second * CAN_HZ : (second + 1) * CAN_HZ].mean())
            samples = second_of(segment, Heard(speed_mps, siren, segment.roadside, rain))
            for begin in range(0, RATE_HZ, size):
                at_us = course.start_us + index * chunk_us
                chunk = l16(samples[begin : begin + size])
                yield Outgoing(AUDIO, course.session, at_us, chunk, MIME_L16, at_us + chunk_us, sequence=index)
                index += 1


def _words(course: Course) -> Iterator[Outgoing]:
    spoken: list[Outgoing] = []
    for number, segment in enumerate(course.segments):
        rng = np.random.default_rng((course.seed, 30, number))
        for second, transcript, there_s in script.utterances(rng, segment, course.light):
            at_us = course.start_us + (segment.start_s + second) * S_US
            payload = msgspec.json.encode(transcript)
            due_us = at_us + round(there_s * S_US)
            spoken.append(Outgoing(TEXT, course.session, at_us, payload, JSON, due_us, sequence=len(spoken)))
    return iter(sorted(spoken, key=lambda record: record.due_us))


def _can(course: Course) -> Iterator[Outgoing]:
    speeds, size = course.speeds_mps(), round(BLOCK_S * CAN_HZ)
    accelerations, bends = _accelerations(speeds), course.curvatures(CAN_HZ)
    rng = np.random.default_rng((course.seed, 40))
    for begin in range(0, len(speeds), size):
        part = slice(begin, begin + size)
        noise = rng.standard_normal((3, size))
        channels = {
            "speed": _channel(np.maximum(speeds[part] + 0.3 * noise[0], 0), "m/s"),
            "steering_angle": _channel(bends[part] * 12 + 1.5 * noise[1], "deg"),
            "accel_x": _channel(accelerations[part] + 0.25 * noise[2], "m/s^2"),
        }
        yield _block(course, begin // size, channels, CAN_HZ)


def _imu(course: Course) -> Iterator[Outgoing]:
    """Axes as in ISO 8855: x ahead, y to the left, z up, yaw to the left; the road shakes a fast car more."""
    speeds, accelerations = course.speeds_mps(), _accelerations(course.speeds_mps())
    times_s = np.arange(len(speeds) * IMU_HZ // CAN_HZ) / IMU_HZ
    speeds, accelerations = (np.interp(times_s, times_s[:: IMU_HZ // CAN_HZ], a) for a in (speeds, accelerations))
    yaw_rps = -speeds * CURVATURE_PER_M * course.curvatures(IMU_HZ)
    rng = np.random.default_rng((course.seed, 41))
    shaking = rng.standard_normal((4, len(speeds))) * (0.05 + 0.03 * speeds)
    bias = rng.normal(0, 0.05, 3)  # of this instrument
    channels = {
        "accel_x": (accelerations + 0.6 * shaking[0] + bias[0], "m/s^2"),
        "accel_y": (yaw_rps * speeds + 0.6 * shaking[1] + bias[1], "m/s^2"),
        "accel_z": (GRAVITY + shaking[2] + bias[2], "m/s^2"),
        "yaw_rate": (np.degrees(yaw_rps) + 2.0 * shaking[3], "deg/s"),
    }
    size = round(BLOCK_S * IMU_HZ)
    for begin in range(0, len(speeds), size):
        block = {name: _channel(values[begin : begin + size], unit) for name, (values, unit) in channels.items()}
        yield _block(course, begin // size, block, IMU_HZ)


def _accelerations(speeds_mps: Floats) -> Floats:
    """Along the road, m/s², at each sample of the CAN bus."""
    return np.clip(np.gradient(speeds_mps) * CAN_HZ, -9, 9)


def _block(course: Course, index: int, channels: dict[str, Channel], rate_hz: int) -> Outgoing:
    block_us = round(BLOCK_S * S_US)
    at_us = course.start_us + index * block_us
    payload = msgspec.json.encode(Telemetry(channels, rate_hz=rate_hz))
    return Outgoing(TELEMETRY, course.session, at_us, payload, JSON, at_us + block_us, sequence=index)


def _channel(values: Floats, unit: str) -> Channel:
    return Channel(tuple(round(float(value), 3) for value in values), unit)


YAWS_DEG = {
    "camera_front": 0,
    "camera_front_right": 60,
    "camera_rear_right": 120,
    "camera_rear": 180,
    "camera_rear_left": 240,
    "camera_front_left": 300,
}
SENSORS: dict[str, Sensor] = {
    "image": Sensor(IMAGE, partial(_camera, 0, "")),
    "audio": Sensor(AUDIO, _roof_mic),
    "text": Sensor(TEXT, _words),
    "telemetry": Sensor(TELEMETRY, _can),
    **{name: Sensor(IMAGE, partial(_camera, yaw_deg, name)) for name, yaw_deg in YAWS_DEG.items()},
    "roof_mic": Sensor(AUDIO, _roof_mic),
    "cabin_mic": Sensor(AUDIO, _cabin_mic),
    "words": Sensor(TEXT, _words),
    "can": Sensor(TELEMETRY, _can),
    "imu": Sensor(TELEMETRY, _imu),
}
DEFAULT = ("image", "audio", "text", "telemetry")
# name -> sensors that are sent together
SETS: dict[str, tuple[str, ...]] = {
    "surround": ("camera_front", "camera_rear", "roof_mic", "cabin_mic", "can", "imu"),
    "all": (*YAWS_DEG, "roof_mic", "cabin_mic", "words", "can", "imu"),
}
