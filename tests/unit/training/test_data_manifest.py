"""Manifests: every line is an example cut as in serving, or a bad row with its number and reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KINDS, ClosedBy, Event, EventType, Position, Record, Window
from streamer.model import payloads, sample
from streamer.model.sample import Limits
from streamer.model.spec import AudioInput, ImageInput, InputSpec, Output, TelemetryInput, TextInput
from streamer.settings import Settings
from streamer.training.data import BadRow, Data, open_data
from streamer.training.data.manifest import parsed
from streamer.training.data.rows import RowError
from streamer.training.dataset import Example
from tests.datasets import ALL_INPUTS, manifest, picture, sound, spec
from tests.small_nets import there

SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "manifest.json").read_text())
OTHERS = [{"text": f"filler {n}", "split": part} for n, part in enumerate(("validation", "test", "train"))]


def opened(folder: Path, *lines: dict[str, Any] | str, outputs: dict[str, Output] | None = None) -> Data:
    """A manifest's data; lines that name no part are for training, and the last of these is filler."""
    own = spec() if outputs is None else spec(outputs)
    return open_data(manifest(folder, [*lines, *OTHERS]), own, refuse_bad=False)


def first(folder: Path, line: dict[str, Any], outputs: dict[str, Output] | None = None) -> Example:
    data = opened(folder, line, outputs=outputs)
    assert data.bad == ()
    return data.training[0]


def fault(folder: Path, line: dict[str, Any] | str, outputs: dict[str, Output] | None = None) -> str:
    """Why the first line is bad."""
    (bad,) = opened(folder, line, outputs=outputs).bad
    assert bad.where == "manifest.jsonl line 1"
    return bad.reason


# what a good line becomes


def test_a_line_with_everything_is_an_example_of_all_modalities(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", shade=77)
    sound(tmp_path / "1.wav")
    example = first(
        tmp_path,
        {
            "image": "a/1.png",
            "audio": "1.wav",
            "text": "go on",
            "telemetry": {"rate_hz": 10, "speed": [1, 2, 3, 4, 5]},
            "label": "dog",
        },
    )
    assert example.labels == {"animal": "dog"}
    assert example.sample.present == (True,) * 4
    assert example.sample.image_FHW3 is not None
    assert (example.sample.image_FHW3 == 77).all()
    assert example.sample.audio_S is not None
    assert example.sample.audio_S == pytest.approx(0.5, abs=1e-3)
    assert [phrase.text for phrase in example.sample.text] == ["go on"]
    assert example.sample.telemetry_CT is not None
    assert example.sample.telemetry_CT.tolist() == [[1, 2, 3, 4, 5]]


def test_what_is_absent_is_absent(tmp_path: Path) -> None:
    example = first(tmp_path, {"text": "only words"})
    assert example.sample.present == (False, False, True, False)
    assert example.labels == {}


def test_image_and_audio_are_what_serving_makes_of_the_same_bytes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 255, (90, 120, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    (tmp_path / "1.jpg").write_bytes(buffer.getvalue())
    sound(tmp_path / "1.wav", rate_hz=11_025)
    example = first(tmp_path, {"image": "1.jpg", "audio": "1.wav"})

    def event(row: int, start_us: int, end_us: int, name: str, kind: str) -> Event:
        record = Record(row, 0, 0, 0, b"s", (tmp_path / name).read_bytes(), ())
        return Event(record, "s", EventType.DATA, start_us, end_us, kind)

    events: list[tuple[Event, ...]] = [() for _ in KINDS]
    events[IMAGE] = (event(IMAGE, 9_250_000, 9_250_000, "1.jpg", "image/jpeg"),)
    events[AUDIO] = (event(AUDIO, 9_000_000, 9_500_000, "1.wav", "audio/wav"),)
    served = Window("s", 0, 9_000_000, 9_500_000, ClosedBy.COMPLETE, Position(0, 0, 0), tuple(events), (0,) * 4)
    wanted, rejects = sample.cut(served, ALL_INPUTS, Limits())
    assert not rejects
    np.testing.assert_array_equal(there(example.sample.image_FHW3), there(wanted.image_FHW3))
    np.testing.assert_array_equal(there(example.sample.audio_S), there(wanted.audio_S))
    np.testing.assert_array_equal(there(example.sample.audio_mask_S), there(wanted.audio_mask_S))


def test_several_images_are_frames_in_their_order_and_spread_evenly(tmp_path: Path) -> None:
    names = [picture(tmp_path / f"{shade}.png", shade).name for shade in (10, 20, 30, 40, 50, 60)]
    inputs = InputSpec(image=ImageInput(frames=2, height=4, width=4), text=TextInput(max_tokens=4))
    data = open_data(manifest(tmp_path, [{"image": names}, *OTHERS]), spec(inputs=inputs))
    frames = data.training[0].sample.image_FHW3
    assert frames is not None
    assert frames[:, 0, 0, 0].tolist() == [20, 50]


def test_long_audio_is_cut_off_and_short_audio_masked(tmp_path: Path) -> None:
    sound(tmp_path / "long.wav", seconds=3)
    sound(tmp_path / "short.wav", seconds=0.2)
    data = opened(tmp_path, {"audio": "long.wav"}, {"audio": "short.wav"})
    long, short = data.training[0].sample, data.training[1].sample
    assert long.audio_mask_S is not None
    assert short.audio_mask_S is not None
    assert len(long.audio_mask_S) == 2000
    assert long.audio_mask_S.all()
    assert short.audio_mask_S.tolist() == [True] * 800 + [False] * 1200


def test_a_window_may_begin_later_in_audio_and_telemetry(tmp_path: Path) -> None:
    samples = np.repeat(np.arange(3), 4000).astype("<i2") * 8192
    sound(tmp_path / "steps.wav", seconds=3)
    header = (tmp_path / "steps.wav").read_bytes()[:44]
    (tmp_path / "steps.wav").write_bytes(header + samples.tobytes())
    line = {"audio": "steps.wav", "telemetry": {"rate_hz": 10, "speed": [*range(30)]}, "start_s": 2.0}
    example = first(tmp_path, line)
    assert example.sample.audio_S is not None
    assert example.sample.audio_S == pytest.approx(0.5)
    assert example.sample.telemetry_CT is not None
    assert example.sample.telemetry_CT.tolist() == [[20, 21, 22, 23, 24]]


def test_telemetry_may_be_a_table(tmp_path: Path) -> None:
    rows = "".join(f"{n / 10},{n * 2}\n" for n in range(5))
    (tmp_path / "speed.csv").write_text(f"time_s,speed [m/s]\n{rows}")
    example = first(tmp_path, {"telemetry": "speed.csv"})
    assert example.sample.telemetry_CT is not None
    assert example.sample.telemetry_CT.tolist() == [[0, 2, 4, 6, 8]]


def test_a_table_of_a_manifest_is_read_as_replay_reads_it(tmp_path: Path) -> None:
    rows = "".join(f"{n * 100};{n},5;gps\n" for n in range(5))
    (tmp_path / "speed.csv").write_text(f"Time (ms);speed (m/s);provider\n{rows}")
    example = first(tmp_path, {"telemetry": "speed.csv"})
    assert example.sample.telemetry_CT is not None
    assert example.sample.telemetry_CT.tolist() == [[0.5, 1.5, 2.5, 3.5, 4.5]]


def test_a_table_whose_times_have_no_unit_is_a_bad_row_that_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "speed.csv").write_text("timestamp,speed\n20326716,1\n20338716,2\n")
    reason = fault(tmp_path, {"telemetry": "speed.csv"})
    assert reason.startswith("speed.csv line 2: the times in column 'timestamp' have no unit")
    assert "timestamp_us" in reason


OUTPUT_KINDS = {
    "animal": Output(("cat", "dog")),
    "noises": Output(("bark", "growl", "purr"), kind="tags"),
    "weight": Output(kind="number", unit="kg"),
}


def test_labels_of_each_kind(tmp_path: Path) -> None:
    given = {"animal": "cat", "noises": ["purr", "bark"], "weight": 4}
    example = first(tmp_path, {"text": "x", "labels": given}, OUTPUT_KINDS)
    assert example.labels == {"animal": "cat", "noises": ("bark", "purr"), "weight": 4.0}
    nothing = first(tmp_path, {"text": "x", "labels": {"noises": []}}, OUTPUT_KINDS)
    assert nothing.labels == {"noises": ()}


def test_real_spoken_digits_are_read_and_no_speaker_is_in_two_parts(data: Path, tmp_path: Path) -> None:
    (tmp_path / "fsdd").symlink_to(data / "fsdd")
    names = sorted(path.name for path in (data / "fsdd").glob("*.wav"))  # digit_speaker_take.wav
    lines = [
        {
            "audio": f"fsdd/{name}",
            "label": name[0],
            "group": name.split("_")[1],
            "split": "test" if "george" in name else "val" if "_9" in name else "train",
        }
        for name in names
    ]
    digits = {"digit": Output(tuple("0123456789"))}
    with pytest.raises(UsageError, match=r"group 'jackson' is in training \(manifest.jsonl line \d+\) already"):
        open_data(manifest(tmp_path, lines), spec(digits))
    for line in lines:
        del line["group"]
    found = open_data(manifest(tmp_path, lines), spec(digits))
    assert len(found.training) + len(found.validation) + len(found.test) == len(names)
    example = found.test[0]
    assert example.labels == {"digit": "0"}
    assert example.sample.audio_S is not None
    assert np.abs(example.sample.audio_S).max() > 0.05  # somebody speaks


# sensors of other names

SURROUND = InputSpec(
    image=ImageInput(frames=1, height=4, width=4),
    more={
        "camera_rear": ImageInput(frames=1, height=4, width=4, share="image"),
        "cabin_mic": AudioInput(rate_hz=4000),
        "words": TextInput(max_tokens=4),
        "imu": TelemetryInput(channels=("turn",), rate_hz=10),
    },
)


def test_columns_are_called_like_sensors(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", shade=10)
    picture(tmp_path / "2.png", shade=200)
    sound(tmp_path / "1.wav")
    line = {
        "image": "1.png",
        "camera_rear": "2.png",
        "cabin_mic": "1.wav",
        "words": "go on",
        "imu": {"rate_hz": 10, "turn": [1, 2, 3, 4, 5]},
        "label": "dog",
    }
    data = open_data(manifest(tmp_path, [line, *OTHERS]), spec(inputs=SURROUND), refuse_bad=False)
    seen = data.training[0].sample
    here = [name for name, present in zip(seen.sensors.names, seen.present, strict=True) if present]
    assert here == ["image", "camera_rear", "cabin_mic", "words", "imu"]
    assert there(seen.image_FHW3)[0, 0, 0, 0] == 10
    assert there(seen.of("camera_rear").image_FHW3)[0, 0, 0, 0] == 200
    assert there(seen.of("cabin_mic").audio_S) == pytest.approx(0.5, abs=1e-3)
    assert there(seen.of("imu").telemetry_CT).tolist() == [[1, 2, 3, 4, 5]]
    assert list(data.training.texts()) == ["go on", "filler 2"]  # text is what the model's only sensor of words said


def test_a_sensor_that_only_the_settings_declare_is_no_unknown_field_and_is_not_opened(tmp_path: Path) -> None:
    declared = Settings(sensors={"roof_mic": {"kind": "audio"}})
    path = manifest(tmp_path, [{"text": "x", "roof_mic": "missing.wav"}, *OTHERS])
    assert open_data(path, spec(), settings=declared).bad == ()
    assert "unknown field `roof_mic`" in fault(tmp_path, {"text": "x", "roof_mic": "missing.wav"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"camera_rear": "no.png"}, "camera_rear: no.png cannot be read"),
        ({"camera_rear": 3}, "got `int` - at `$.camera_rear`"),
        ({"cabin_mic": ["a.wav", "b.wav"]}, "Expected `str`, got `array` - at `$.cabin_mic`"),
        ({"camera_rear": "../1.png"}, "camera_rear: path '../1.png' leaves the manifest's folder"),
        ({"imu": {"turn": [1]}}, "imu: telemetry needs a number rate_hz"),
        ({"imu": {"rate_hz": 10, "other": [1]}}, "imu has none of the model's channels turn"),
        ({"label": "cat"}, "has none of what the model takes: image, camera_rear, cabin_mic, words, imu"),
    ],
)
def test_a_bad_column_of_a_sensor_is_named(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    data = open_data(manifest(tmp_path, [line, *OTHERS]), spec(inputs=SURROUND), refuse_bad=False)
    assert reason in data.bad[0].reason


# what is wrong with a bad one


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"image": "no.jpg"}, "no.jpg cannot be read: No such file or directory"),
        ({"image": "words.txt"}, "the image is neither JPEG, PNG nor WebP"),
        ({"image": "half.jpg"}, "image: image/jpeg does not decode"),
        ({"audio": "words.txt"}, "audio: audio/wav does not decode"),
        ({"text": "x", "label": "cow"}, "'cow' is no label of animal; known: cat, dog"),
        ({"text": "x", "label": 3}, "animal is one label in quotes, not 3"),
        ({"text": "x", "label": ["cat"]}, "animal is one label in quotes, not ['cat']"),
        ({"text": "x", "labels": {"size": "big"}}, "'size' is no output of the model; it has animal"),
        ({"text": "x", "label": "cat", "labels": {"animal": "cat"}}, "has both label and labels"),
        ({"text": "x", "split": "holdout"}, "Invalid enum value 'holdout'"),
        ({"text": "x", "lable": "cat"}, "unknown field `lable`, and no sensor is called so; sensors are image, audio"),
        ({"label": "cat"}, "has none of what the model takes: image, audio, text, telemetry"),
        ({"image": "../1.jpg"}, "leaves the manifest's folder"),
        ({"image": "/1.jpg"}, "leaves the manifest's folder"),
        ({"image": "a\0.jpg"}, "leaves the manifest's folder"),
        ({"telemetry": {"speed": [1]}}, "telemetry needs a number rate_hz"),
        ({"telemetry": {"rate_hz": 10, "speed": 1}}, "telemetry channel 'speed' is a list of values"),
        ({"telemetry": {"rate_hz": 10, "speed": [1, 2], "x": [1]}}, "channels must be equally long"),
        ({"telemetry": {"rate_hz": -10, "speed": [1, 2]}}, "Expected `float` > 0.0"),
        ({"telemetry": {"rate_hz": 10, "height": [1, 2]}}, "telemetry has none of the model's channels speed"),
        ({"telemetry": "words.txt"}, "words.txt has no column of times"),
        ({"audio": "a.wav", "start_s": 1e12}, "start_s is 1000000000000.0"),
        ('{"text": "x"', "Input data was truncated"),
        ('{"text": "\\ud800"}', "Input data was truncated"),
        ("[1]", "Expected `object`, got `array`"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, line: dict[str, Any] | str, reason: str) -> None:
    (tmp_path / "words.txt").write_text("no picture and no sound\n")
    whole = picture(tmp_path / "1.jpg", size=(200, 200), kind="JPEG").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    assert reason in fault(tmp_path, line)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"noises": "bark"}, "noises is a list of tags, not 'bark'"),
        ({"noises": ["bark", "moo"]}, "'moo' is no label of noises"),
        ({"weight": "heavy"}, "weight is a number, not 'heavy'"),
        ({"weight": ["4"]}, "weight is a number, not ['4']"),
    ],
)
def test_a_label_of_another_kind_than_its_output_is_refused(
    tmp_path: Path, labels: dict[str, Any], reason: str
) -> None:
    assert reason in fault(tmp_path, {"text": "x", "labels": labels}, OUTPUT_KINDS)


def test_one_label_is_refused_where_the_model_has_several_outputs(tmp_path: Path) -> None:
    assert "animal, noises, weight: give labels by output" in fault(
        tmp_path, {"text": "x", "label": "cat"}, OUTPUT_KINDS
    )


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.training.data.rows.MAX_FILE_BYTES", 1000)
    sound(tmp_path / "1.wav")
    assert "1.wav is larger than" in fault(tmp_path, {"audio": "1.wav"})


def test_an_image_bomb_is_refused_by_the_limit_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "1.png", size=(100, 100))
    monkeypatch.setattr("streamer.training.data.opening.Limits.of", lambda settings: Limits(max_image_pixels=9_999))
    assert "100 × 100 pixels, more than 9999" in fault(tmp_path, {"image": "1.png"})


def test_bad_rows_are_refused_by_default_with_the_first_and_their_number(tmp_path: Path) -> None:
    path = manifest(tmp_path, [{"text": "x"}, {"image": "no.jpg"}, "{", *OTHERS])
    with pytest.raises(UsageError) as refused:
        open_data(path, spec())
    message = str(refused.value)
    assert message.startswith(f"{path}: manifest.jsonl line 2: no.jpg cannot be read")
    assert message.endswith("(and 1 more bad rows); repair it, or leave bad rows out with --skip-bad")


def test_bad_rows_are_skipped_and_listed_in_their_order_where_asked(tmp_path: Path) -> None:
    data = opened(tmp_path, {"image": "no.jpg"}, {"text": "good"}, "{")
    assert [row.where for row in data.bad] == ["manifest.jsonl line 1", "manifest.jsonl line 3"]
    assert [p.text for e in (data.training[0], data.training[1]) for p in e.sample.text] == ["good", "filler 2"]


def test_a_file_that_breaks_after_it_was_looked_at_stops_with_its_line(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    data = opened(tmp_path, {"image": "1.png"})
    (tmp_path / "1.png").unlink()
    with pytest.raises(UsageError, match=r"manifest.jsonl line 1: 1.png cannot be read"):
        data.training[0]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    data = opened(tmp_path, "\ufeff" + json.dumps({"text": "marked"}), "", "   ")
    assert data.bad == ()
    assert next(data.training.texts()) == "marked"


def test_texts_are_read_without_opening_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "1.png")
    data = opened(tmp_path, {"image": "1.png", "text": "seen"})
    monkeypatch.setattr(payloads, "image", lambda *given: pytest.fail("an image was opened"))
    assert list(data.training.texts()) == ["seen", "filler 2"]


def test_a_manifest_without_a_good_row_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no examples: manifest.jsonl line 1: Input data was truncated"):
        open_data(manifest(tmp_path, ["{"]), spec(), refuse_bad=False)
    with pytest.raises(UsageError, match=r"has no examples$"):
        open_data(manifest(tmp_path, [""]), spec())


# the schema


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"text": None, "image": None, "label": None},
        {"image": "a.jpg"},
        {"image": []},
        {"image": ["a.jpg", "b.jpg"]},
        {"image": 3},
        {"image": [3]},
        {"audio": "a.wav", "start_s": 1.5},
        {"start_s": None},
        {"start_s": "1"},
        {"telemetry": "a.csv"},
        {"telemetry": {"rate_hz": 10, "speed": [1, 2.5]}},
        {"telemetry": {"rate_hz": 10, "speed": ["1"]}},
        {"telemetry": 5},
        {"label": "cat"},
        {"label": 3},
        {"label": ["a", "b"]},
        {"label": [1]},
        {"label": True},
        {"labels": {"a": "b", "c": 1.5, "d": []}},
        {"labels": {"a": None}},
        {"labels": []},
        {"split": "train"},
        {"split": "dev"},
        {"split": "both"},
        {"group": "patient-3"},
        {"group": 3},
        {"weight": 1},
        {"weight": True},
        {"camera_rear": "a.jpg", "cabin_mic": None, "imu": {"rate_hz": 10, "x": [1]}},
        {"camera_rear": ["a.jpg", 3]},
        {"imu": {"x": "y"}},
    ],
)
def test_the_schema_takes_what_the_reader_takes(line: dict[str, Any]) -> None:
    try:
        parsed(json.dumps(line).encode())
        taken = True
    except RowError:
        taken = False
    assert Draft202012Validator(SCHEMA).is_valid(line) == taken


def test_a_bad_row_is_told_in_one_line() -> None:
    assert str(BadRow("a.jsonl line 3", "is broken")) == "a.jsonl line 3: is broken"
