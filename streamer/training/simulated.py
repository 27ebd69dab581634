"""Examples from simulated drives.

Each drive's records go through the decoder and the aligner that serve, in the order and with the log times at which
they would be sent. So training sees windows as they come: late transcripts are missing, dropped frames too.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import torch
from rich.console import Console

from streamer.align import decode, windows
from streamer.errors import ModelError
from streamer.events import Record, Window
from streamer.feeds import producer, simulate
from streamer.feeds.producer import Outgoing
from streamer.feeds.scenario import BEHIND, LABELS, OCCUPANTS
from streamer.model.sample import Limits, cut
from streamer.model.spec import ImageInput, ModelSpec, with_sensors
from streamer.settings import Settings
from streamer.terminal.progress import track
from streamer.training import dataset
from streamer.training.dataset import Example

# Part of the name under which a drive's examples are kept. Raise it when the same inputs give other examples: after a
# change to the simulator, the decoder, alignment, the cut of samples or the format of the files, but not after one that
# leaves the examples as they are. tests/unit/training/test_simulated.py fails where it should have been raised.
VERSION = 1
FIRST_HELD_OUT_SEED = 1_000_000  # training draws its seeds below, evaluation from here on
START_US = 1_750_000_000_000_000
END_OF_TIME_US = 1 << 62
# The outputs that the simulator knows the truth of.
OUTPUTS: dict[str, tuple[str, ...]] = {"action": LABELS, "behind": BEHIND, "occupants": OCCUPANTS}


def examples(
    seeds: Sequence[int], seconds: int, spec: ModelSpec, cache: Path, console: Console, *, sparse: bool = False
) -> list[Example]:
    """All windows of the drives with these seeds; each drive is cut once and then kept in ``cache``.

    Args:
        sparse: The camera takes only as many frames as the model looks at, since drawing them is most of the work.

    Raises:
        ModelError: The model has outputs that the simulator knows no truth for.
    """
    for name, output in spec.outputs.items():
        if name not in OUTPUTS or set(output.labels) != set(OUTPUTS[name]):
            known = "; ".join(f"{output!r} with the labels {', '.join(labels)}" for output, labels in OUTPUTS.items())
            raise ModelError(f"simulated drives do not teach the output {name!r} as it is; they teach {known}")
    frame_hz = _looked_at_hz(spec) if sparse else simulate.Options().frame_hz
    key = _key(spec, seconds, frame_hz)
    paths = {seed: cache / f"drive-{seed}-{key}.npz" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not path.is_file()]
    if missing:
        workers = min(os.cpu_count() or 1, len(missing))
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            made = [pool.submit(_make, seed, seconds, spec, paths[seed], frame_hz) for seed in missing]
            for future in track(made, "simulating drives", console):
                future.result()
    return [example for path in paths.values() for example in dataset.load(path)]


def _looked_at_hz(spec: ModelSpec) -> int:
    """The lowest frame rate that gives each window all the frames that the model wants; at most the camera's own."""
    usual = simulate.Options().frame_hz
    wanted = max((one.frames * 1000 for one in spec.inputs.all.values() if isinstance(one, ImageInput)), default=0)
    return next((hz for hz in range(1, usual) if not simulate.S_US % hz and hz * spec.window_ms >= wanted), usual)


def _key(spec: ModelSpec, seconds: int, frame_hz: int) -> str:
    """Changes with what examples are made of: ``VERSION``, the model's inputs, the drive, the rules of alignment."""
    settings = settings_of(spec)
    rules, limits = windows.Rules.from_settings(settings), Limits.of(settings)
    options = _options(spec, frame_hz)
    facts = msgspec.json.encode((VERSION, spec.inputs, seconds, options, rules, limits))
    return hashlib.sha256(facts).hexdigest()[:12]


def settings_of(spec: ModelSpec) -> Settings:
    """The defaults, with the sensors that drives send and no others, whatever the environment of this machine says."""
    settings = with_sensors(spec, Settings.model_construct(window_ms=spec.window_ms))
    sent = _options(spec, 1).sensors
    sensors = {name: one.model_copy(update={"enabled": name in sent}) for name, one in settings.sensors.items()}
    return settings.model_copy(update={"sensors": sensors})


def _options(spec: ModelSpec, frame_hz: int) -> simulate.Options:
    """A drive that sends what the model reads; if it reads no other sensors than the default ones, all of these."""
    if not spec.inputs.more:
        return simulate.Options(frame_hz=frame_hz)
    return simulate.Options(frame_hz=frame_hz, sensors=tuple(spec.inputs.all))


def _make(seed: int, seconds: int, spec: ModelSpec, path: Path, frame_hz: int) -> None:
    dataset.save(path, list(drive_examples(seed, seconds, spec, frame_hz)))


def drive_examples(
    seed: int, seconds: int, spec: ModelSpec, frame_hz: int = simulate.Options().frame_hz
) -> Iterator[Example]:
    """The windows of one drive, in order, as they would close in a live run.

    Args:
        frame_hz: Frames a second of the camera.
    """
    drive = simulate.Drive(seed, f"drive-{seed}", START_US, seconds, _options(spec, frame_hz))
    settings = settings_of(spec)
    truth = drive.truth()
    for window in aligned(logged(drive.outgoing()), settings):
        cut_out, rejects = cut(window, spec.inputs, Limits.of(settings))
        if rejects:
            raise rejects[0][1]
        known = simulate.truth_of(truth, window.start_us, window.end_us)
        if known is not None:
            yield Example(cut_out, {name: label for name, label in known.outputs.items() if name in spec.outputs})


def logged(sent: Iterable[Outgoing]) -> Iterator[Record]:
    """Records of one partition's log; the log time of each is when it is due."""
    offsets: Counter[int] = Counter()
    for outgoing in sent:
        yield Record(
            row=outgoing.row,
            partition=0,
            offset=offsets[outgoing.row],
            log_time_us=outgoing.due_us,
            key=outgoing.session.encode(),
            value=outgoing.payload,
            headers=tuple(producer.headers(outgoing)),
        )
        offsets[outgoing.row] += 1


def aligned(records: Iterable[Record], settings: Settings, partition: int = 0, partitions: int = 1) -> Iterator[Window]:
    """The windows of one partition.

    Args:
        records: In the order of the merge, none of them broken, of sessions without earlier state.
    """
    decoder = decode.Decoder(settings, partitions)
    aligner = windows.Aligner(windows.Rules.from_settings(settings), partition)
    for record in records:
        event = decoder.decode(record)
        yield from windows.windows_of(aligner.tick(record.log_time_us))
        if not aligner.knows(event.session):
            aligner.restore(event.session, None)
        yield from windows.windows_of(aligner.on_event(event))
    yield from windows.windows_of(aligner.tick(END_OF_TIME_US))
