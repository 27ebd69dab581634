"""Models of ready senses: what they say of a window, and what of one that lacks something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.errors import ModelError, UsageError
from streamer.local.process import free_port
from streamer.model import forms, repository, sensing
from streamer.model.learned import highest
from streamer.model.predictor import ModelFault, Network, Prediction, Predictor, predict_each
from streamer.model.sample import Phrase, Sample
from streamer.model.senses import Learned, Sensed, Senses
from streamer.model.spec import check_sensors, read_spec
from streamer.operate import doctor, sizing
from streamer.operate.findings import Status
from streamer.senses import files
from streamer.senses.objects import Detection
from streamer.settings import Settings

TOML = """
name = "toy"
version = "1"
window_ms = 1000
[senses.objects]
labels = ["person", "car", "dog"]
threshold = 0.5
thresholds = { dog = 0.3 }
frames = 2
[senses.sounds]
threshold = 0.3
thresholds = { siren = 0.15 }
[senses.sounds.tags]
engine = ["Engine", "Idling"]
siren = ["Siren"]
[senses.numbers.speed]
channel = "v"
unit = "m/s"
[senses.sentences]
"""
WHERE = (0.0, 0.0, 1.0, 1.0)
EVERYDAY = Path(__file__).parents[3] / "models" / "everyday"


class FakeDetector:
    """A network whose pictures carry in their first pixels how many people and cars are in them."""

    version = "d1"

    def __init__(self, settings: Settings) -> None:
        self.batches: list[int] = []

    def detect(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        self.batches.append(len(pictures))
        return [self._one(*picture[0, 0].tolist()) for picture in pictures]

    def _one(self, people: int, cars: int, dog: int) -> list[Detection]:
        found = [Detection("person", 0.9, WHERE)] * people + [Detection("car", 0.7, WHERE)] * cars
        return [*found, Detection("car", 0.4, WHERE), Detection("dog", dog / 100, WHERE), Detection("tie", 0.9, WHERE)]


class FakeSounds:
    version = "s1"
    labels = ("Engine", "Idling", "Siren", "Speech")

    def __init__(self, settings: Settings) -> None:
        pass

    def scores(self, samples_S: NDArray[np.float32], heard_S: NDArray[np.bool_]) -> dict[str, float] | None:
        if not heard_S.any():
            return None
        return {"Engine": 0.1, "Idling": float(samples_S[0]), "Siren": float(samples_S[1]), "Speech": 1.0}


class FakeSentences:
    version = "t1"
    size = 26

    def __init__(self, settings: Settings) -> None:
        self.encoded: list[str] = []

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += sentences
        letters = np.array([[text.count(chr(97 + n)) for n in range(26)] for text in sentences], np.float32)
        vectors: NDArray[np.float32] = letters / np.linalg.norm(letters, axis=1, keepdims=True)
        return vectors


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sensing, "Detector", FakeDetector)
    monkeypatch.setattr(sensing, "SoundEvents", FakeSounds)
    monkeypatch.setattr(sensing, "SentenceEncoder", FakeSentences)
    monkeypatch.setattr(sensing, "_check_there", lambda senses, settings: None)
    return written(tmp_path, TOML)


def written(folder: Path, toml: str) -> Path:
    (folder / "model.toml").write_text(toml)
    return folder


def sample(
    *,
    frames: Sequence[tuple[int, int, int]] = (),
    sound: tuple[float, float] | None = None,
    said: str = "",
    speeds: Sequence[float] = (),
) -> Sample:
    image = np.zeros((2, 300, 300, 3), np.uint8)
    for place, pixel in enumerate(frames):
        image[place, 0, 0] = pixel
    audio = np.zeros(16_000, np.float32)
    audio[:2] = sound or (0, 0)
    return Sample(
        present=(bool(frames), sound is not None, bool(said), bool(speeds)),
        coverage=(1.0, 1.0, 1.0, 1.0),
        image_FHW3=image if frames else None,
        image_mask_F=np.arange(2) < len(frames) if frames else None,
        audio_S=audio if sound is not None else None,
        audio_mask_S=np.ones(16_000, np.bool_) if sound is not None else None,
        text=(Phrase(said, 1.0),) if said else (),
        telemetry_CT=np.array([speeds], np.float32) if speeds else None,
        telemetry_mask_CT=np.ones((1, len(speeds)), np.bool_) if speeds else None,
    )


FULL = sample(frames=[(1, 1, 0), (2, 0, 35)], sound=(0.6, 0.2), said="turn left", speeds=[10.0, 11.0])


def test_a_window_is_told_in_outputs_and_words_and_the_words_are_its_vector(folder: Path) -> None:
    predictor = Predictor.load(folder)
    (found,) = predictor.predict([FULL])
    text = "two people, a car and a dog; engine, siren; speed 10.5 m/s; says: turn left"
    assert found.outputs == {
        "words": {"text": text},
        "objects": {  # the best score, and the count in the frame with the most; a tie is not looked for
            "labels": ["person", "car", "dog"],
            "scores": {"person": 0.9, "car": 0.7, "dog": 0.35},
            "counts": {"person": 2, "car": 1, "dog": 1},
        },
        "people": {"value": 2.0, "unit": ""},
        "sounds": {"labels": ["engine", "siren"], "scores": {"engine": 0.6, "siren": 0.2}},
        "speed": {"value": 10.5, "unit": "m/s"},
    }
    assert list(found.outputs) == list(predictor.spec.outputs)
    assert found.embedding.dtype == np.float16
    (asked,) = predictor.embed([sample(said=text)], "text")
    assert np.allclose(asked, found.embedding, atol=2e-3)


@pytest.mark.parametrize(
    ("lacking", "outputs"),
    [
        (sample(sound=(0.6, 0.0)), {"words", "sounds"}),
        (sample(frames=[(1, 0, 0)]), {"words", "objects", "people"}),
        (sample(said="hello"), {"words"}),
        (sample(speeds=[1.0]), {"words", "speed"}),
        (sample(frames=[(0, 0, 0)], sound=(0.0, 0.0)), {"objects", "people", "sounds"}),  # nothing worth a word
        (Sample.empty(), set()),
    ],
)
def test_what_a_window_lacks_its_outputs_lack(folder: Path, lacking: Sample, outputs: set[str]) -> None:
    (found,) = Predictor.load(folder).predict([lacking])
    assert set(found.outputs) == outputs
    assert bool(found.embedding.size) == ("words" in outputs)  # without words it can be found by nothing


def test_sound_that_was_not_heard_says_nothing(folder: Path) -> None:
    deaf = sample(sound=(0.9, 0.9))
    assert deaf.audio_mask_S is not None
    deaf.audio_mask_S[:] = False
    assert Predictor.load(folder).predict([deaf])[0].outputs == {}


def test_all_windows_of_a_batch_are_looked_at_in_one_run(folder: Path) -> None:
    predictor: Any = Predictor.load(folder)
    batch = [FULL, Sample.empty(), sample(frames=[(3, 0, 0)]), sample(said="hello")]
    together = predictor.predict(batch)
    assert predictor._sensing._objects.batches == [3]
    for found, one in zip(together, batch, strict=True):
        assert_same(found, predictor.predict([one])[0])
    each = predict_each(predictor, batch)
    assert [one.outputs for one in each if isinstance(one, Prediction)] == [one.outputs for one in together]


def assert_same(found: Prediction, expected: Prediction) -> None:
    assert found.outputs == expected.outputs
    assert np.array_equal(found.embedding, expected.embedding)


def test_a_sense_that_is_not_named_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: Settings) -> None:
        raise AssertionError("not named")

    monkeypatch.setattr(sensing, "Detector", refuse)
    monkeypatch.setattr(sensing, "SentenceEncoder", refuse)
    start, end = TOML.index("[senses.objects]"), TOML.index("[senses.sounds]")
    predictor = Predictor.load(written(folder, TOML[:start] + TOML[end:].replace("[senses.sentences]", "")))
    assert predictor.spec.inputs.image is None
    (found,) = predictor.predict([FULL])
    assert found.outputs["words"] == {"text": "engine, siren; speed 10.5 m/s; says: turn left"}
    assert found.embedding.size == 0
    with pytest.raises(ModelError, match=r"has no vectors: add \[senses.sentences\]"):
        predictor.embed([FULL], "text")


def test_the_version_changes_with_the_spec_and_with_every_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Predictor.load(folder).version
    assert Predictor.load(folder).version == first
    assert first.startswith("1-")
    assert Predictor.load(written(folder, f"# a remark\n{TOML}")).version == first
    assert Predictor.load(written(folder, TOML.replace("0.15", "0.16"))).version != first
    monkeypatch.setattr(FakeSentences, "version", "t2")
    assert Predictor.load(written(folder, TOML)).version != first


def test_warming_up_reaches_every_network(folder: Path) -> None:
    predictor: Any = Predictor.load(folder)
    predictor.warm_up()
    assert predictor._sensing._objects.batches == [1]
    assert predictor._sensing._sentences.encoded == ["says: hello"]


def test_pictures_and_sounds_are_asked_with_by_what_they_are_called(folder: Path) -> None:
    predictor = Predictor.load(folder)
    (seen,) = predictor.embed([FULL], "image")
    (told,) = predictor.embed([sample(said="two people, a car and a dog")], "text")
    assert np.allclose(seen, told)
    heard = predictor.embed([FULL, sample(sound=(0.0, 0.0))], "audio")
    assert np.allclose(np.linalg.norm(heard, axis=1), [1, 0])
    with pytest.raises(ModelFault, match="it recognises nothing in the image"):
        predictor.embed([sample(frames=[(0, 0, 0)])], "image")


NAMED = (
    TOML
    + """
[senses.sensors]
image = ["camera_front", "camera_rear"]
audio = ["roof_mic", "cabin_mic"]
text = ["radio", "text"]
telemetry = ["can", "imu"]
"""
)


def named(**parts: Sample) -> Sample:
    """A window of named sensors, each with what such a sample has of its kind."""
    own = parts.pop("text", Sample.empty())
    return msgspec.structs.replace(own, more=parts)


CAR = named(
    camera_front=sample(frames=[(1, 1, 0)]),
    camera_rear=sample(frames=[(2, 0, 35)]),
    roof_mic=sample(sound=(0.6, 0.1)),
    cabin_mic=sample(sound=(0.2, 0.2)),
    radio=sample(said="fire on Main"),
    text=sample(said="turn left"),
    imu=sample(speeds=[10.0, 11.0]),  # the CAN bus is silent
)


def test_senses_take_the_sensors_that_model_toml_names(folder: Path) -> None:
    predictor: Any = Predictor.load(written(folder, NAMED))
    assert list(predictor.spec.inputs.all) == [
        "text",
        "radio",
        "camera_front",
        "camera_rear",
        "roof_mic",
        "cabin_mic",
        "can",
        "imu",
    ]
    (found,) = predictor.predict([CAR])
    told = "two people, a car and a dog; engine, siren; speed 10.5 m/s; says: fire on Main turn left"
    assert found.outputs["words"] == {"text": told}
    assert found.outputs["sounds"]["scores"] == {"engine": 0.6, "siren": 0.2}  # the best of each microphone
    assert predictor._sensing._objects.batches == [2]
    (rear,) = predictor.embed([CAR], "camera_rear")
    (words,) = predictor.embed([named(radio=sample(said="two people and a dog"))], "radio")
    assert np.allclose(rear, words)


def test_warming_up_reaches_every_named_sensor(folder: Path) -> None:
    predictor: Any = Predictor.load(written(folder, NAMED))
    predictor.warm_up()
    assert predictor._sensing._objects.batches == [2]
    assert predictor._sensing._sentences.encoded == ["says: hello"]


def test_learned_outputs_are_judged_by_the_named_sensors() -> None:
    spec = Senses(learned={"doing": Learned(("a", "b"), ("sounds",))}, sensors=Sensed(audio=("roof_mic", "cabin_mic")))
    heard = highest(FakeSounds(Settings()), spec.sensors.sounds(CAR))  # type: ignore[arg-type]
    assert heard is not None
    assert (round(heard["Idling"], 3), round(heard["Siren"], 3)) == (0.6, 0.2)
    assert highest(FakeSounds(Settings()), []) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sensors", "said"),
    [
        ({"image": {"enabled": False}}, r"\[senses.sensors\] image = \[\], and take out the tables that need image"),
        (
            {"image": {"enabled": False}, "rear": {"kind": "image"}, "front": {"kind": "image"}},
            r'model toy takes image of the sensor image, .*\[senses.sensors\] image = \["front", "rear"\]$',
        ),
    ],
)
def test_where_there_is_no_such_sensor_one_line_says_how_to_name_those_that_there_are(
    folder: Path, sensors: Any, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        check_sensors(read_spec(folder), Settings.load(sensors=sensors).sensor_set)
    check_sensors(read_spec(folder), Settings.load().sensor_set)


def test_without_a_source_of_words_the_other_senses_go_on(folder: Path) -> None:
    quiet = written(folder, TOML + "[senses.sensors]\ntext = []\n")
    check_sensors(read_spec(quiet), Settings.load(sensors={"text": {"enabled": False}}).sensor_set)
    predictor = Predictor.load(quiet)
    predictor.warm_up()
    (found,) = predictor.predict([FULL])
    assert "says" not in found.outputs["words"]["text"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('image = ["camera front"]', "senses.sensors.image: a sensor's name has 1 to 40 small letters"),
        ('image = ["audio"]', "senses.sensors.image names audio, which is another one"),
        ('image = ["a"]\naudio = ["a"]', "senses.sensors.audio names a, which is another one"),
        ("image = []", "senses.objects needs a sensor of kind image, and senses.sensors.image is empty"),
        ("telemetry = []", "senses.numbers needs a sensor of kind telemetry"),
    ],
)
def test_sensors_that_cannot_be_are_refused_in_one_line(folder: Path, line: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read_spec(written(folder, f"{TOML}[senses.sensors]\n{line}\n"))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[senses.sentences]", "[inputs.audio]\nrate_hz = 8000", "follow from \\[senses\\]: leave them out"),
        ("frames = 2", "frames = 0", "senses.objects.frames = 0 must be above 0"),
        ("dog = 0.3", "cat = 0.3", "senses.objects.thresholds has 'cat', which is none of its labels"),
        ('"car", "dog"', '"car", "car"', "senses.objects needs one or more different labels"),
        ("siren = 0.15", "siren = 1.5", "Expected `float` <= 1.0"),
        ("[senses.numbers.speed]", "[senses.numbers.people]", "that of an output of another sense"),
        ('"Siren"', '"Sirene"', "'Sirene' is no label of AudioSet"),
        ('"person"', '"people"', "'people' is no label of COCO"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(folder: Path, before: str, after: str, said: str) -> None:
    assert before in TOML
    with pytest.raises(ModelError, match=said):
        Predictor.load(written(folder, TOML.replace(before, after)))


def test_what_needs_weights_says_that_there_are_none(folder: Path) -> None:
    for needs in (
        lambda: repository.read(folder),
        lambda: Network.load(folder),
        lambda: forms.write(folder, "onnx"),
    ):
        with pytest.raises(ModelError, match=r"is made of ready senses .* no weights to train, export or compare"):
            needs()
    with pytest.raises(ModelError, match="ready senses, which have no form int8: set STREAMER_MODEL_FORM=eager"):
        Predictor.load(folder, form="int8")
    with pytest.raises(UsageError, match="give it as --cpu-ms"):
        sizing.of_model(folder)
    assert sizing.of_model(folder, cost_given=True) == (1000, 2)


def test_every_sense_that_is_missing_is_named(tmp_path: Path) -> None:
    nowhere = Settings(senses_dir=tmp_path, senses=dict.fromkeys(("objects", "sounds", "sentences"), "/nowhere"))
    with pytest.raises(ModelError) as refused:
        Predictor.load(EVERYDAY, settings=nowhere)
    for role in ("OBJECTS", "SOUNDS", "SENTENCES"):
        assert f"STREAMER_SENSES__{role}" in str(refused.value)


def test_one_command_fetches_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "locate", lambda row, folder: None)
    settings = Settings(
        kafka=f"127.0.0.1:{free_port()}",
        redis=f"redis://127.0.0.1:{free_port()}/0",
        port=free_port(),
        model=EVERYDAY,
        senses_dir=tmp_path,
    )
    (finding,) = [one for one in doctor.examine(settings) if one.check == "model"]
    assert finding.status is Status.FAIL
    assert finding.found.endswith(
        "models/everyday: it needs ssd-mobilenet, yamnet and minilm, which this machine lacks"
    )
    assert finding.remedy == "run `streamer senses --fetch ssd-mobilenet --fetch yamnet --fetch minilm`"


def test_the_model_that_ships_names_outputs_that_people_can_read() -> None:
    spec = read_spec(EVERYDAY)
    assert list(spec.outputs) == ["words", "objects", "people", "sounds", "speed"]
    assert spec.outputs["objects"].labels[:3] == ("person", "bicycle", "car")
    assert "siren" in spec.outputs["sounds"].labels
