"""A kind that comes from outside works throughout. Run by ``tests/unit/kinds/test_kind_of_yours.py``, with this folder
on ``PYTHONPATH``: the table of kinds is made when a process starts.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from streamer.align.decode import Decoder
from streamer.align.windows import Aligner, Rules
from streamer.errors import BadRecord, Reason
from streamer.events import DEFAULT_SENSORS, KIND_NAMES, KINDS, Record, Window, rfc3339
from streamer.golden.offline import Offline
from streamer.golden.recording import About, Recorded, Writer
from streamer.model import frames, repository
from streamer.model.collate import collate
from streamer.model.forms import archive, exported
from streamer.model.predictor import Predictor, result_of
from streamer.model.sample import Limits, cut
from streamer.model.spec import check_sensors, read_spec
from streamer.settings import Settings
from streamer.training.data import open_data
from streamer.training.fit import fit
from streamer.training.recipe import Recipe
from streamer.worker import handover
from tests.datasets import manifest

S_US = 1_000_000
T0_US = 1_760_000_000 * S_US
LIDAR = KIND_NAMES.index("lidar")
CONTENT_TYPE = KINDS[LIDAR].content_types[0]
BEAMS = 6
PARTS = ("train", "validation", "test")
SETTINGS = Settings.load(sensors={"lidar_roof": {"kind": "lidar", "offset_ms": 5}})
NUMBER = SETTINGS.sensor_set.numbers["lidar_roof"]


def scan(metres: float) -> bytes:
    return np.full(BEAMS, metres, "<f4").tobytes()


def record(at_us: int, value: bytes, offset: int, sensor: str | None = "lidar_roof", beams: int = BEAMS) -> Record:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(offset),
        "ce_source": "/car",
        "ce_type": KINDS[LIDAR].ce_type,
        "ce_time": rfc3339(at_us),
        "content-type": f"{CONTENT_TYPE};beams={beams}",
        **({} if sensor is None else {"ce_sensor": sensor}),
    }
    pairs = tuple((name, text.encode()) for name, text in headers.items())
    return Record(LIDAR, 0, offset, at_us + 10_000, b"car", value, pairs)


def windows(values: list[bytes]) -> list[Window]:
    """The windows of scans a quarter of a second apart, decoded and aligned as by a worker."""
    decoder, aligner = Decoder(SETTINGS, 1), Aligner(Rules.from_settings(SETTINGS), 0)
    aligner.restore("car", None)
    events = [decoder.decode(record(T0_US + n * S_US // 4, value, n)) for n, value in enumerate(values)]
    outcomes = [outcome for event in events for outcome in aligner.on_event(event)]
    outcomes += aligner.tick(T0_US + 60 * S_US)
    return [outcome for outcome in outcomes if isinstance(outcome, Window)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained on rows with scans: near ones are a wall."""
    folder = tmp_path_factory.mktemp("near")
    shutil.copy(Path(__file__).parent / "near" / "model.toml", folder)
    data = open_data(rows(folder), read_spec(folder), settings=SETTINGS)
    recipe = Recipe(epochs=8, batch=8, seed=1, patience=8)
    quiet = Console(file=io.StringIO())
    module, tokenizer, _ = fit(folder, read_spec(folder), data.training, data.validation, recipe, quiet)
    repository.write(folder, module, tokenizer, {})
    return folder


def rows(folder: Path) -> Path:
    lines = []
    for n in range(40):
        name, wall = f"{n}.f32", n % 2 == 1
        (folder / name).write_bytes(scan((1.0 if wall else 9.0) + n / 100))
        split = "validation" if n > 33 else "train"
        lines.append({"lidar_roof": [name], "label": "wall" if wall else "free", "split": split})
    return manifest(folder, lines)


def test_the_kind_has_a_topic_below_ours_and_no_sensor_unless_one_is_declared() -> None:
    assert KIND_NAMES == ("image", "audio", "text", "telemetry", "lidar")
    assert SETTINGS.source_topics[LIDAR] == "streamer.scans"
    assert Settings().sensor_set == DEFAULT_SENSORS
    assert DEFAULT_SENSORS.names == KIND_NAMES[:4]
    assert SETTINGS.sensor_set.rows[NUMBER] == LIDAR


def test_its_records_are_decoded_by_its_rules() -> None:
    decoder = Decoder(SETTINGS, 1)
    event = decoder.decode(record(T0_US, scan(3), 0))
    assert (event.row, event.sensor, event.start_us, event.end_us) == (LIDAR, NUMBER, T0_US + 5_000, T0_US + 5_000)
    assert decoder.decode(record(T0_US, scan(3), 0, sensor=None)).sensor == NUMBER
    with pytest.raises(BadRecord, match="24 bytes are no 7 distances") as caught:
        decoder.decode(record(T0_US, scan(3), 0, beams=7))
    assert caught.value.reason is Reason.BAD_PAYLOAD
    with pytest.raises(BadRecord, match="no sensor of kind lidar is declared"):
        Decoder(Settings(), 1).decode(record(T0_US, scan(3), 0, sensor=None))


def test_its_scans_go_through_windows_and_roles_to_the_model_which_has_learned_of_them(folder: Path) -> None:
    predictor = Predictor.load(folder, "cpu", SETTINGS)
    check_sensors(predictor.spec, SETTINGS.sensor_set)
    near, far = windows([scan(1.2)] * 4 + [scan(9.2)] * 4)
    outputs = []
    for window in (near, far):
        flags = frames.opened(window, predictor.spec.inputs)
        assert flags[NUMBER] == (False, False, True, True)  # the newest two of four
        value = handover.encode(window, flags, closed_us=0, fingerprint="", trim_below_us=0, lost_until_us=0)
        carrier = Record(0, 0, 0, 0, b"car", value, handover.headers(window))
        sample, rejects = predictor.decode(handover.decode(carrier)[0])
        assert rejects == []
        (prediction,) = predictor.predict([sample])
        topics = SETTINGS.source_topics
        result = result_of(window, sample, prediction, topics=topics, model=predictor.name, version=predictor.version)
        assert result.present == ("lidar_roof",)
        assert result.coverage["lidar_roof"] == 1.0
        assert [*result.members] == ["streamer.scans"]
        outputs.append(result.outputs["ahead"]["label"])
        assert predictor.embed([sample], "lidar_roof").shape == (1, 32)
    assert outputs == ["wall", "free"]


def test_a_broken_scan_is_rejected_and_the_window_goes_on_without_it(folder: Path) -> None:
    spec = read_spec(folder)
    (window,) = windows([scan(1), scan(float("nan")), scan(2)])
    sample, rejects = cut(window, spec.inputs, Limits())
    assert [event.record.offset for event, _ in rejects] == [1]
    assert sample.of("lidar_roof").arrays["lidar_TC"][:, 0].tolist() == [2, 0]
    assert sample.nbytes > 0


def test_an_exported_graph_takes_it_and_says_the_same(folder: Path) -> None:
    model = repository.read(folder)
    assert "lidar_roof__lidar_BTC" in archive.names_of(model.spec.inputs)
    graph = exported.Exported(exported.traced(model))
    samples = [cut(window, model.spec.inputs, Limits())[0] for window in windows([scan(1.2)] * 4 + [scan(9.2)] * 4)]
    inputs = collate(samples, model.spec.inputs, None)
    with torch.inference_mode():
        wanted, found = model.module(inputs), graph(inputs)
    torch.testing.assert_close(found.logits["ahead"], wanted.logits["ahead"])


@pytest.mark.parametrize("kinds", [KIND_NAMES[:LIDAR], KIND_NAMES])
async def test_recordings_are_run_again_with_scans_and_from_before_there_were_any(
    kinds: tuple[str, ...], tmp_path: Path
) -> None:
    count = len(kinds)
    about = About(kinds, SETTINGS.source_topics[:count], 1, ((0,),) * count, (0,))
    with Writer(tmp_path / "day.mcap", about) as writer:
        for n in range(4 if count > LIDAR else 0):
            sent = record(T0_US + n * S_US // 4, scan(2), n)
            writer.write(Recorded(LIDAR, 0, n, sent.log_time_us, b"car", sent.value, sent.headers))
        writer.end(T0_US + 60 * S_US)
    again = Offline(SETTINGS, tmp_path / "day.mcap", lambda session, partition: False)
    found = [[len(events) for events in window.events] async for window in again.windows()]
    assert found == ([[0, 0, 0, 0, 4]] if count > LIDAR else [])


def test_rows_without_a_usable_scan_are_bad_rows(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.f32").write_bytes(scan(1)[:-4])
    spec = read_spec(folder)
    lines: list[dict[str, object]] = [{"lidar_roof": ["short.f32"]}, {"lidar_roof": "short.f32"}]
    good = [{"telemetry": {"rate_hz": 10, "speed": [n]}, "split": part} for n, part in enumerate(PARTS)]
    data = open_data(manifest(tmp_path, [*lines, *good]), spec, refuse_bad=False, settings=SETTINGS)
    reasons = [bad.reason for bad in data.bad]
    assert reasons == [
        f"lidar_roof: is no scan of {BEAMS} finite distances",
        "Expected `array`, got `str` - at `$.lidar_roof`",
    ]
