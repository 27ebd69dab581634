"""Sizes are arithmetic on costs; the costs in these tests are round numbers, but for those of the files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.errors import ModelError, UsageError
from streamer.operate import costs, sizing
from streamer.operate.costs import Coefficients, Costs, Others, Span
from streamer.operate.sizing import Demand, Line, Sending, Size
from streamer.settings import MIB, Settings

ROOT = Path(__file__).parents[3]
SETTINGS = Settings.model_construct()
WIDE = Span(0, 1e9)
COSTS = Costs(
    command="none",
    at="never",
    machine="nowhere",
    versions={"streamer": "0"},
    coefficients=Coefficients(
        window=2, record=0.1, megabyte=1, frame=0.5, megabyte_decoded=10, model=1, model_second=0.5
    ),
    fit_error=0,
    check=Span(1, 1),
    paced=2,
    paced_share=0.5,
    worker_mib=800,
    header_bytes=100,
    redis_bytes=3000,
    redis_stored_bytes=1000,
    usual_fps=10,
    usual_frame_kb=10,
    others=Others(10, 50_000),
    measured=dict.fromkeys(costs.MEASURED, WIDE),
)
DEMAND = Demand(feeds=100, fps=10, frame_kb=100, window_ms=1000)


def sized(**changed: float | None) -> Size:
    return sizing.size(msgspec.structs.replace(DEMAND, **changed), COSTS, SETTINGS)


def value(line: Line) -> float:
    assert line.value is not None
    return line.value


def test_the_cost_of_a_window_is_the_sum_of_its_parts() -> None:
    # 20 records of 1.05 MB, 2 frames of 0.2 MB decoded: (2 + 2 + 1.05) + (1 + 2) + (1 + 0.5) = 9.55, twice at pace
    assert sized().cpu_ms_per_window.value == pytest.approx(19.1)
    assert sized(model_cpu_ms=10).cpu_ms_per_window.value == pytest.approx(2 * (5.05 + 3 + 10))


def test_where_the_fit_fell_short_the_size_makes_up_for_it() -> None:
    short = msgspec.structs.replace(COSTS, check=Span(0.8, 1.1))
    assert sizing.size(DEMAND, short, SETTINGS).cpu_ms_per_window.value == pytest.approx(19.1 / 0.8)


def test_cores_workers_and_partitions_follow_from_the_cost() -> None:
    found = sized()
    assert found.windows_per_s.value == 100
    assert found.records_per_s.value == 2000
    assert found.cpu_cores.value == pytest.approx(1.91)
    assert (found.workers.value, found.partitions.value) == (3, 12)  # 1.91 cores at 70 % of a core each


def test_bandwidth_counts_headers_and_memory_counts_what_settings_allow() -> None:
    found = sized()
    assert found.kafka_in_mb_per_s.value == pytest.approx(105.2)  # 100 × (1.05 MB + 20 records of 100 bytes)
    assert found.redis_in_mb_per_s.value == pytest.approx(0.3)
    assert found.redis_memory_mib.value == pytest.approx(100 * 10_000 * 1000 / MIB)
    # 4 of 12 partitions: 4 topics × 4 × (4 + 8), open and unpublished windows 256 each
    assert found.memory_mib.value == pytest.approx(800 * sizing.MEMORY_MARGIN + 64 + 128 + 512)


def test_shorter_windows_than_the_distance_of_frames_decode_what_is_there() -> None:
    assert sizing.window_of(msgspec.structs.replace(DEMAND, window_ms=100), COSTS).frames_decoded == 1


@pytest.mark.parametrize("cores", [0.001, 0.7, 0.71, 3.3, 8.4, 8.5, 100.0, 340.0])
def test_workers_share_the_partitions_evenly_and_stay_below_their_share(cores: float) -> None:
    workers, partitions = sizing.shared(cores)
    assert partitions % workers == 0
    assert cores / workers <= sizing.BUSY + 1e-9


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("feeds", (1, 10, 100, 1000)),
        ("fps", (1, 5, 10, 60)),
        ("frame_kb", (1, 10, 100, 1000)),
        ("model_cpu_ms", (0, 1, 10, 100)),
        ("decoded", (0, 1, 2, 10)),
    ],
)
@pytest.mark.parametrize("load", [lambda: COSTS, costs.load], ids=["round numbers", "recorded"])
def test_more_of_anything_never_needs_less(name: str, values: tuple[float, ...], load: Callable[[], Costs]) -> None:
    demands = [msgspec.structs.replace(DEMAND, **{name: one}) for one in values]
    found = [sizing.size(demand, load(), SETTINGS) for demand in demands]
    for field in ("cpu_cores", "workers", "partitions", "kafka_in_mb_per_s", "records_per_s"):
        needs = [value(getattr(one, field)) for one in found]
        assert needs == sorted(needs), field


def test_longer_windows_never_need_more_cores() -> None:
    cores = [value(sized(window_ms=ms).cpu_cores) for ms in (100, 500, 1000, 5000)]
    assert cores == sorted(cores, reverse=True)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"feeds": 0}, "--feeds"),
        ({"fps": -1}, "--fps"),
        ({"fps": float("inf")}, "--fps"),
        ({"frame_kb": float("nan")}, "--frame-kb"),
        ({"frame_kb": 0}, "go together"),
        ({"window_ms": 1}, "--window-ms"),
        ({"model_cpu_ms": -1}, "--cpu-ms"),
        ({"model_gpu_ms": -1}, "--gpu-ms"),
        ({"frame_kb": 10_000}, "STREAMER_MAX_MESSAGE_BYTES"),
        ({"feeds": 10_000_000}, "split the feeds"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changed: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        sized(**changed)
    assert "\n" not in str(raised.value)


def test_what_was_not_measured_is_named() -> None:
    narrow = msgspec.structs.replace(COSTS, measured={**COSTS.measured, "frame_kb": Span(10, 50)})
    assert sizing.size(DEMAND, narrow, SETTINGS).warnings == ("frames: 100 KB, measured 10 to 50: extrapolated",)
    assert sizing.size(msgspec.structs.replace(DEMAND, frame_kb=54), narrow, SETTINGS).warnings == ()
    assert sized().warnings == ()


def test_gpus_are_unknown_until_their_time_is_given() -> None:
    assert sized().gpu_share.value is None
    assert sized(model_gpu_ms=5).gpu_share.value == pytest.approx(0.5)


def test_a_model_folder_tells_its_window_and_frames(tmp_path: Path) -> None:
    assert sizing.of_model(ROOT / "models" / "driving") == (1000, 2)
    assert sizing.of_model(ROOT / "models" / "surround") == (1000, 2)  # one of each of two cameras
    with pytest.raises(ModelError, match="is not a file"):
        sizing.of_model(tmp_path)
    (tmp_path / "model.toml").write_text("window_ms = 'long'\n[inputs]\n")
    with pytest.raises(ModelError, match="window_ms"):
        sizing.of_model(tmp_path)


def test_what_a_feed_sends_is_counted_by_sensor() -> None:
    given = [Sending.parse(text) for text in ("image:10:60:6", "image:5:200", "audio:5:6.4:2", "telemetry:10:1")]
    demand = Demand.of(100, given, 1000, decoded=4)
    assert demand.fps == 65
    assert demand.frame_kb == pytest.approx(4600 / 65)
    window = sizing.window_of(demand, COSTS)
    assert window.records == 65 + 20
    assert window.payload_mb == pytest.approx(4.6 + 0.064 + 0.01)
    assert window.frames_decoded == 4
    found = sizing.size(demand, COSTS, SETTINGS)
    assert [line.name for line in found.sensors] == ["image, MB/s", "image, MB/s", "audio, MB/s", "telemetry, MB/s"]
    assert [value(line) for line in found.sensors] == pytest.approx([360, 100, 6.4, 1])
    assert found.lines()[:4] == list(found.sensors)
    assert found.records_per_s.value == 8500


def test_feeds_without_cameras_have_a_size_too() -> None:
    demand = Demand.of(100, [Sending("audio", 5, 6.4)], 1000)
    assert sizing.window_of(demand, COSTS).frames_decoded == 0
    assert sizing.size(demand, COSTS, SETTINGS).records_per_s.value == 500


def test_where_open_windows_would_not_fit_the_setting_is_named() -> None:
    words = SETTINGS.sensors["text"].model_copy(update={"max_delay_ms": 9000})
    patient = SETTINGS.model_copy(update={"sensors": {**SETTINGS.sensors, "text": words}})
    demand = Demand.of(120, [Sending("image", 10, 100)], 1000)
    found = sizing.size(demand, COSTS, patient)
    own_bytes = 10 * (100_000 + 100 + sizing.OBJECT_BYTES)  # of a feed in a second
    assert found.open_mib.value == pytest.approx(120 / value(found.workers) * own_bytes * 10 / MIB)
    (warning,) = found.warnings
    assert "STREAMER_MAX_OPEN_BYTES is 268435456, set it to " in warning
    enough = patient.model_copy(update={"max_open_bytes": int(warning.split()[-1])})
    assert sizing.size(demand, COSTS, enough).warnings == ()
    assert sizing.size(demand, COSTS, SETTINGS).warnings == ()


@pytest.mark.parametrize("text", ["image", "image:10", "lidar:10:60", "image:0:60", "image:10:60:0", "image:1:2:3:4"])
def test_a_sensor_that_is_no_sensor_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"KIND:HZ:KB:COUNT .* e\.g\. image:10:60:6 for six cameras, not"):
        Sending.parse(text)


# the command and the pages


def test_the_command_prints_the_numbers_with_what_they_rest_on() -> None:
    arguments = ["size", "--feeds", "50", "--fps", "10", "--frame-kb", "40", "--model", str(ROOT / "models/driving")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "feeds ÷ --window-ms" in shown.output
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert found["windows_per_s"]["value"] == 50
    assert all(line["basis"] for line in found.values() if isinstance(line, dict))


@pytest.mark.parametrize("more", [[], ["--fps", "10"], ["--sensor", "image:1:2", "--fps", "10", "--frame-kb", "4"]])
def test_frames_or_sensors_must_be_given_and_not_both(more: list[str]) -> None:
    refused = CliRunner().invoke(app, ["size", "--feeds", "50", *more])
    assert isinstance(refused.exception, UsageError)
    assert "--fps and --frame-kb" in str(refused.exception)


def test_the_command_takes_each_sensor_of_a_feed() -> None:
    arguments = ["size", "--feeds", "50", "--sensor", "image:10:60:6", "--sensor", "audio:5:6.4:2", "--json"]
    found = json.loads(CliRunner().invoke(app, arguments).output)
    assert [line["value"] for line in found["sensors"]] == [pytest.approx(180), pytest.approx(3.2)]


def test_a_size_needs_no_pytorch() -> None:
    program = (
        "import sys; from streamer.cli.app import app\n"
        "app(['size', '--feeds', '5', '--fps', '10', '--frame-kb', '40'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True, timeout=60)


def test_the_table_of_the_manifests_page_is_what_the_command_says() -> None:
    page = (ROOT / "k8s" / "README.md").read_text("utf-8")
    found = re.search(r"<!-- size: written by the script -->\n(.*?)\n<!-- size: end -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == sizing.feeds_table(costs.load())
