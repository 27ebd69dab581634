"""Records go in: ``simulate`` and ``replay``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import console, emit, load_settings, say
from streamer.errors import UsageError, extra

if TYPE_CHECKING:
    from streamer.events import Sensor
    from streamer.settings import Settings


def simulate(
    sessions: Annotated[int, typer.Option(min=1, help="Cars that drive at the same time.")] = 4,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each drive, s.")] = 60,
    speed: Annotated[float, typer.Option(min=0, help="1: real time; 0: as fast as possible.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the drives; the same seed gives the same bytes.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the true events to this file, a JSON object a line.")
    ] = None,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Send each record up to this much later, at random.")] = 0.0,
    drop: Annotated[float, typer.Option(min=0, max=1, help="Share of records that are never sent.")] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of records that are sent late.")] = 0.0,
    late_ms: Annotated[float, typer.Option(min=0, help="How late these records are.")] = 5000.0,
    sensors: Annotated[
        str | None,
        typer.Option(
            metavar="surround|all|NAME,…",
            help="The cars' sensors: two cameras and microphones, CAN and IMU; all eleven; or by name. Default: those "
            "that the settings declare.",
        ),
    ] = None,
    dies: Annotated[
        str | None, typer.Option(metavar="SENSOR:SECOND", help="The sensor stops at this second, e.g. audio:20.")
    ] = None,
) -> None:
    """Send simulated drives to Kafka, with faults on demand.

    Camera frames, sound, transcripts (late, as speech recognition is) and telemetry of cars. With --sensors all:
    camera_front, camera_front_left, camera_front_right, camera_rear, camera_rear_left, camera_rear_right, roof_mic,
    cabin_mic, words, can and imu. Each run has sessions with new names.
    """
    import secrets

    from streamer.feeds import simulate
    from streamer.terminal.bars import Sending

    settings = load_settings()
    options = simulate.Options(
        sensors=simulate.sensors_of(settings, sensors),
        jitter_ms=jitter_ms,
        drop=drop,
        late=late,
        late_ms=late_ms,
        dies=None if dies is None else _death(dies),
    )
    left_out = set() if sensors else set(settings.sensor_set.names) - set(options.sensors)
    if left_out:
        say(f"the simulated cars do not have {', '.join(sorted(left_out))}")
    name = secrets.token_hex(2)
    with Sending(console(), seconds * 1_000_000) as bar:
        count = simulate.run(
            settings,
            sessions=sessions,
            seconds=seconds,
            speed=speed,
            seed=seed,
            name=name,
            truth=truth,
            options=options,
            on_sent=bar.sent,
        )
    say(f"sent {count} records of the sessions sim-{name}-0 to sim-{name}-{sessions - 1}")


def replay(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files or folders: together the parts of one session.")
    ],
    speed: Annotated[
        float, typer.Option(min=0, help="1: as recorded, 2: twice as fast; 0: as fast as possible.")
    ] = 1.0,
    session: Annotated[str | None, typer.Option(help="The session's name; default: a new one each run.")] = None,
    stream: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Send track (MCAP, bag: topic) N, not the default one of its kind; can be repeated.",
        ),
    ] = None,
    topic_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="TOPIC=SENSOR|CHANNEL=NAME",
            help="Send a topic, or a track of a film, as a sensor, or a telemetry channel by another name; can be "
            "repeated.",
        ),
    ] = None,
    sent_as: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="PATH=SENSOR",
            help="Send what a file has of the sensor's kind as that sensor; can be repeated.",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most so many pictures a second; default: all.")
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Where in the recording to begin, s.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="How much of it to send, s; default: to its end.")
    ] = None,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Keep the times of the recording; default: as if it began now.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; print what would be sent, a line of JSON a record.")
    ] = False,
) -> None:
    """Send recordings to Kafka.

    Films and sound (whatever FFmpeg reads); words (subtitles, JSON of recognisers, CTM, TextGrid); tables (.csv, .tsv);
    bags of ROS and MCAP; logs of CAN buses with their .dbc, of openpilot and of GoPros; EDF and WFDB. What becomes of
    each is in docs/recordings.md. All PATHs together are one session and begin together, e.g. a film and the car's log;
    logs with times of the same clock keep their distance, and files whose names differ in a number follow each other.
    Signals of a ward have the names that the model of the settings takes: the best ECG lead is sent as ecg.
    A recording of `streamer record` is sent as it was: the same sessions, partitions, order and gaps.
    """
    with extra("feeds", "replaying"):
        from streamer.feeds import replay
        from streamer.golden import recording
    from streamer.terminal.bars import Sending

    if any(recording.is_recording(path) for path in paths):
        if (
            len(paths) > 1
            or session is not None
            or stream
            or topic_map
            or sent_as
            or rate
            or start
            or duration
            or dry_run
        ):
            raise UsageError(
                "a recording of `streamer record` is sent alone and as it was: no option but --speed and --keep-times"
            )
        _send_again(load_settings(), paths[0], speed, keep_times)
        return
    settings = load_settings()
    sensors, names = _mapped(topic_map or (), settings)
    files = _files(sent_as or (), paths, settings)
    taken = _taken(settings.model)
    recorded = replay.open_all(
        paths,
        replay.Options(streams=tuple(stream or ()), sensors=sensors, files=files, names=names, taken=taken),
        replay.Stretch(
            _us(start, "--start"), None if duration is None else _us(duration, "--duration"), _finite(rate, "--rate")
        ),
    )
    if dry_run:
        for line in replay.lines(settings, recorded):
            emit(line)
        _say_all(recorded.notes)
        return
    name = session if session is not None else replay.new_session()
    with Sending(console(), recorded.length_us) as bar:
        count = replay.run(settings, recorded, speed=speed, session=name, keep_times=keep_times, on_sent=bar.sent)
    _say_all(recorded.notes)
    say(f"sent {count} records of the session {name}")


def _us(seconds: float, option: str) -> int:
    return round((_finite(seconds, option) or 0) * 1e6)


def _finite(number: float | None, option: str) -> float | None:
    """The value of an option, of which ``float`` takes more than there can be."""
    if number is not None and not math.isfinite(number):
        raise UsageError(f"{option} takes a number, not {number}")
    return number


def _say_all(notes: Iterable[str]) -> None:
    for note in notes:
        say(note)


def _mapped(pairs: Iterable[str], settings: Settings) -> tuple[dict[str, Sensor], dict[str, str]]:
    """``TOPIC=SENSOR`` of each topic, and ``CHANNEL=NAME`` of each telemetry channel."""
    sensors: dict[str, Sensor] = {}
    names: dict[str, str] = {}
    known = settings.sensor_set
    for pair in pairs:
        of, _, to = pair.rpartition("=")
        if not of or not to:
            raise UsageError(f"--map takes TOPIC={'|'.join(known.names)} or CHANNEL=NAME, not {pair!r}")
        if to in known.numbers:
            sensors[of] = known.all[known.numbers[to]]
        else:
            names[of] = to
    return sensors, names


def _files(pairs: Iterable[str], paths: Iterable[Path], settings: Settings) -> dict[Path, tuple[Sensor, ...]]:
    """``PATH=SENSOR`` of each file; it may be called by its name alone."""
    found: dict[Path, tuple[Sensor, ...]] = {}
    known = settings.sensor_set
    for pair in pairs:
        of, _, to = pair.rpartition("=")
        if not of or not to:
            raise UsageError(f"--as takes PATH=SENSOR, not {pair!r}")
        if to not in known.numbers:
            raise UsageError(
                f"--as {pair}: there is no sensor {to}, only {', '.join(known.names)}; declare it: "
                f"STREAMER_SENSORS__{to.upper()}__KIND=image (docs/sensors.md)"
            )
        fit = [path for path in paths if str(path) == of] or [path for path in paths if path.name == of]
        if len(fit) != 1:
            raise UsageError(f"--as {pair}: {of} is {'several' if fit else 'none'} of the recordings that are given")
        found[fit[0]] = (*found.get(fit[0], ()), known.all[known.numbers[to]])
    return found


def _taken(model: Path) -> tuple[str, ...]:
    """Telemetry channels that the model takes; none if it is not on this machine, which need not be a worker's."""
    from streamer.model.spec import SPEC_FILE, read_spec

    telemetry = read_spec(model).inputs.telemetry if (model / SPEC_FILE).is_file() else None
    return telemetry.channels if telemetry is not None else ()


def _send_again(settings: Settings, path: Path, speed: float, keep_times: bool) -> None:
    from streamer.golden import recording
    from streamer.golden.again import send_again
    from streamer.terminal.bars import Sending

    first_us, last_us = recording.span_us(path) or (0, 0)
    with Sending(console(), last_us - first_us) as bar:
        count = send_again(settings, path, speed, keep_times=keep_times, on_sent=bar.sent_again)
    say(f"sent {count} records of {path} again")


def _death(text: str) -> tuple[str, float]:
    """``audio:20`` -> the sensor and the second."""
    name, _, second = text.rpartition(":")
    try:
        return name, _finite(float(second), "--dies") or 0.0
    except ValueError:
        raise UsageError(f"--dies takes SENSOR:SECOND, e.g. audio:20, not {text!r}") from None
