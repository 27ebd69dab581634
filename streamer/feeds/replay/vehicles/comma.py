"""A segment of the comma2k19 data set: a folder of NumPy arrays, and the camera's film (github.com/commaai/comma2k19).

Each log is a folder with an array ``t`` of times since the device was booted, in seconds, and an array ``value`` with a
row for each. Its columns become channels, ``wheel_speed.front_left``, with the units of the data set's description; the
poses of the camera likewise. The pictures of ``video.hevc`` have the times of ``global_pose/frame_times``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError, extra, one_line
from streamer.events import IMAGE, TELEMETRY
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import S_US, Options, Part, Thinned, due, frame
from streamer.feeds.replay.slices import timed

LOGS, POSES, FILM, FRAME_TIMES = "processed_log", "global_pose", "video.hevc", "frame_times"
GPS_EPOCH = datetime(1980, 1, 6, tzinfo=UTC)
GPS_AHEAD = timedelta(seconds=18)  # of UTC, since 2017; the data set is of 2018
WIDEST = 64  # columns: more are no measurements of one time

Columns = tuple[tuple[str, str], ...]  # name and unit


def _axes(unit: str, *names: str) -> Columns:
    return tuple((name, unit) for name in names)


BODY = ("forward", "right", "down")
FIX: Columns = (
    ("latitude", "deg"), ("longitude", "deg"), ("speed", "m/s"), ("utc_timestamp", ""), ("altitude", "m"),
    ("bearing", "deg"),
)  # fmt: skip
WHEELS = _axes("m/s", "front_left", "front_right", "rear_left", "rear_right")
# folder of a log, or array of poses -> its columns, as the data set's description and its example have them
KNOWN: dict[str, Columns] = {
    "speed": (("", "m/s"),),
    "car_speed": (("", "m/s"),),
    "steering_angle": (("", "deg"),),
    "wheel_speed": WHEELS,
    "wheel_speeds": WHEELS,
    "accelerometer": _axes("m/s^2", *BODY),
    "acceleration": _axes("m/s^2", *BODY),
    "gyro": _axes("rad/s", *BODY),
    "gyro_uncalibrated": _axes("rad/s", *BODY),
    "gyro_bias": _axes("rad/s", *BODY),
    "magnetic": _axes("T", *BODY),
    "magnetic_uncalibrated": _axes("T", *BODY),
    "live_gnss_qcom": FIX,
    "live_gnss_ublox": FIX,
    "frame_positions": _axes("m", "x", "y", "z"),
    "frame_velocities": _axes("m/s", "x", "y", "z"),
    "frame_orientations": _axes("", "w", "x", "y", "z"),
    "frame_gps_times": (("week", ""), ("time_of_week", "s")),
}
# logs with several rows for one time
SEVERAL = {
    "radar": "a row for each object that the radar follows",
    "raw_gnss_qcom": "a row for each satellite",
    "raw_gnss_ublox": "a row for each satellite",
    "raw_can": "a row for each frame",
}


class Log(NamedTuple):
    """Arrays of one log.

    Attributes:
        t_s: Since boot [N].
        values_NC: A row for each time.
    """

    names: Sequence[str]
    units: Sequence[str]
    t_s: NDArray[np.float64]
    values_NC: NDArray[Any]


class Film(NamedTuple):
    """The camera's film: pictures without times, and their times since boot [F]."""

    path: Path
    times_s: NDArray[np.float64]


def part(path: Path, options: Options) -> Part:
    """Open a segment's folder.

    Raises:
        UsageError: Its arrays are broken, or there are none.
    """
    notes: list[str] = []
    logs = list(_logs(path, notes))
    film = _film(path, notes)
    times_s = [log.t_s for log in logs] + ([film.times_s] if film is not None else [])
    if not times_s:
        raise UsageError(f"{path} has no log in {LOGS}, like CAN/speed/t and CAN/speed/value")
    begin_s, end_s = min(float(some.min()) for some in times_s), max(float(some.max()) for some in times_s)
    sends = ({TELEMETRY} if logs else set()) | ({IMAGE} if film is not None else set())

    def records(begin_us: int) -> Iterator[Outgoing]:
        streams = [_blocks(log, begin_s, begin_us) for log in logs]
        if film is not None:
            streams.append(_pictures(film, begin_s, begin_us, options.rate_hz, notes))
        return heapq.merge(*streams, key=due)

    return Part(
        path,
        round((end_s - begin_s) * S_US),
        records,
        frozenset(sends),
        clock_us=round(begin_s * S_US),
        utc_us=_utc_us(path, begin_s),
        channels=frozenset(name for log in logs for name in log.names),
        notes=notes,
    )


def _film(path: Path, notes: list[str]) -> Film | None:
    film, times = path / FILM, path / POSES / FRAME_TIMES
    if not film.is_file():
        return None
    times_s = np.asarray(_array(times), np.float64) if times.is_file() else np.empty(0)
    if not times_s.size:
        notes.append(f"{film} is left out, since there are no {POSES}/{FRAME_TIMES} for its pictures")
        return None
    return Film(film, times_s)


def _logs(path: Path, notes: list[str]) -> Iterator[Log]:
    folders = sorted(found.parent for found in (path / LOGS).glob("*/*/t"))
    names = [folder.name for folder in folders]
    for folder in folders:
        name = folder.name if names.count(folder.name) == 1 else f"{folder.parent.name}.{folder.name}"
        if folder.name in SEVERAL:
            notes.append(f"{folder} is left out: it has {SEVERAL[folder.name]}")
        elif not (folder / "value").is_file():
            notes.append(f"{folder} is left out: it has no array called value")
        else:
            yield from _log(folder, name, _array(folder / "t"), _array(folder / "value"), notes)
    times = path / POSES / FRAME_TIMES
    for poses in sorted((path / POSES).glob("frame_*")) if times.is_file() else ():
        if poses.name != FRAME_TIMES:
            yield from _log(poses, poses.name, _array(times), _array(poses), notes)


def _log(where: Path, name: str, t_s: NDArray[Any], values: NDArray[Any], notes: list[str]) -> Iterator[Log]:
    values_NC = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    if t_s.dtype.kind not in "fiu" or values_NC.dtype.kind not in "fiub" or values_NC.shape[1] > WIDEST:
        notes.append(f"{where} is left out: it holds no numbers, or no single ones")
        return
    if len(t_s) != len(values_NC):
        notes.append(f"{where} has {len(values_NC)} rows and {len(t_s)} times: what has none of the other is left out")
    rows = min(len(t_s), len(values_NC))
    if not rows:
        return
    width = values_NC.shape[1]
    columns = KNOWN.get(where.name, ())
    if len(columns) != width:
        columns = tuple((f"{column}" if width > 1 else "", "") for column in range(width))
    names = [f"{name}.{column}" if column else name for column, _ in columns]
    yield Log(names, [unit for _, unit in columns], t_s[:rows], values_NC[:rows])


def _array(path: Path) -> NDArray[Any]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from None
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path} is no NumPy array, or broken: {one_line(error)}") from None
    if not isinstance(found, np.ndarray):
        raise UsageError(f"{path} is no NumPy array")
    return found


def _utc_us(path: Path, begin_s: float) -> int | None:
    """When the segment began, by the GPS times of the camera's poses."""
    gps, times = path / POSES / "frame_gps_times", path / POSES / FRAME_TIMES
    if not (gps.is_file() and times.is_file()):
        return None
    weeks_NC, times_s = _array(gps), _array(times)
    if weeks_NC.ndim != 2 or weeks_NC.shape[1] != 2 or not len(weeks_NC) or not len(times_s):
        return None
    week, second = (float(value) for value in weeks_NC[0])
    moment = GPS_EPOCH + timedelta(weeks=week, seconds=second + begin_s - float(times_s[0])) - GPS_AHEAD
    return round(moment.timestamp() * S_US)


def _blocks(log: Log, begin_s: float, begin_us: int) -> Iterator[Outgoing]:
    times_us = np.rint((log.t_s - begin_s) * S_US).astype(np.int64)
    wanted = times_us >= begin_us
    values_NC = np.asarray(log.values_NC[wanted], np.float64)
    yield from timed(times_us[wanted], values_NC, log.names, log.units)


def _pictures(film: Film, begin_s: float, begin_us: int, rate_hz: float | None, notes: list[str]) -> Iterator[Outgoing]:
    with extra("feeds", f"reading {film.path}"):
        import av

        from streamer.feeds.replay.media.jpeg import Jpeg
    jpeg, thinned, count = Jpeg(), Thinned(rate_hz), 0
    try:
        with av.open(str(film.path), format="hevc") as container:
            for picture in container.decode(video=0):
                if count < len(film.times_s):
                    time_us = round((float(film.times_s[count]) - begin_s) * S_US)
                    if time_us >= begin_us and thinned.keeps(time_us):
                        yield frame(jpeg(picture), time_us)
                count += 1
    except av.FFmpegError as error:
        notes.append(f"{film.path} could not be read to its end: {one_line(error)}")
    if count != len(film.times_s):
        notes.append(
            f"{film.path} has {count} pictures and {len(film.times_s)} times: what has none of the other is left out"
        )
