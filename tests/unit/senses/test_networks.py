"""The networks of objects, sounds and sentences, on what is known of them; each test skips where one is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.senses import files, frozen, ssd
from streamer.senses.objects import Detector
from streamer.senses.sentences import SentenceEncoder
from streamer.senses.sounds import SoundEvents, log_mel
from streamer.settings import Settings
from tests import ready

PICTURES = sorted(Path(__file__).parents[3].joinpath("docs").glob("*.png"))

SIGNS = [((150, 130, 60),), ((90, 110, 45), (220, 140, 50)), ((200, 150, 70),), (), ((60, 150, 40),)]


@pytest.fixture(scope="module")
def detector(senses_dir: Path) -> Detector:
    return Detector(ready.settings(senses_dir, "objects"))


@pytest.fixture(scope="module")
def sounds(senses_dir: Path) -> SoundEvents:
    return SoundEvents(ready.settings(senses_dir, "sounds"))


def test_the_detector_finds_what_opencv_finds_with_the_same_file(detector: Detector, senses_dir: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    located = files.find("objects", Settings(senses_dir=senses_dir)).files
    peer = cv2.dnn.readNetFromTensorflow(str(located["graph"]), str(located["text_graph"]))
    pictures = [ready.street(*signs) for signs in SIGNS]
    found = detector.detect(pictures)
    for one, signs, detections in zip(pictures, SIGNS, found, strict=True):
        assert [d.label for d in detections if d.score >= 0.5] == ["stop sign"] * len(signs)
        peer.setInput(cv2.dnn.blobFromImage(one, size=(300, 300)))
        expected = [row for row in peer.forward()[0, 0] if row[2] >= 0.1]
        assert len(expected) >= len(signs)
        for (_, _, score, *box), detection in zip(expected, detections, strict=False):
            assert detection.score == pytest.approx(score, abs=1e-4)
            assert detection.box == pytest.approx(np.clip(box, 0, 1), abs=1e-4)


def test_pictures_of_a_batch_do_not_change_each_other(detector: Detector) -> None:
    pictures = [ready.street(*signs) for signs in 2 * SIGNS]  # more than one run takes
    together = detector.detect(pictures)
    for one, expected in zip(pictures, together, strict=True):
        (alone,) = detector.detect([one])
        assert [d.label for d in alone] == [d.label for d in expected]
        assert [d.score for d in alone] == pytest.approx([d.score for d in expected], abs=1e-5)
    assert detector.detect([]) == []


def test_there_is_an_anchor_for_each_box_of_the_network() -> None:
    anchors_A4 = ssd.anchors()
    assert anchors_A4.shape == (1917, 4)
    assert np.allclose(anchors_A4[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1])
    as_they_are = ssd.boxes(np.zeros((1917, 4), np.float32), anchors_A4)
    assert np.allclose(as_they_are[-1], [0.0, 0.0, 1.0, 1.0], atol=0.02)  # the coarsest map's last, a square


def test_a_file_that_is_no_such_graph_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "graph.pb"
    broken.write_bytes(b"\xff\xff\xff no graph")
    with pytest.raises(UsageError, match="is no frozen TensorFlow graph"):
        frozen.constants(broken)
    broken.write_bytes(b"")
    with pytest.raises(UsageError, match="no SSD with MobileNet v2: it has no FeatureExtractor/"):
        ssd.to_onnx(broken)


def test_a_tone_peaks_in_the_band_of_its_pitch() -> None:
    time_s = np.arange(15_600) / 16_000
    for hz, band in ((440.0, 8), (4000.0, 48)):
        levels_TB = log_mel(np.sin(2 * np.pi * hz * time_s).astype(np.float32))
        assert levels_TB.shape == (96, 64)
        assert np.abs(levels_TB.argmax(axis=1) - band).max() <= 1
    assert np.allclose(log_mel(np.zeros(15_600, np.float32)), np.log(0.001))


def test_silence_is_silence_and_what_was_not_heard_is_nothing(sounds: SoundEvents) -> None:
    silent = sounds.scores(np.zeros(16_000, np.float32))
    assert silent is not None
    assert len(silent) == 521
    assert max(silent, key=lambda label: silent[label]) == "Silence"
    heard = np.zeros(16_000, np.bool_)
    assert sounds.scores(np.zeros(16_000, np.float32), heard) is None
    heard[:8000] = True
    assert sounds.scores(np.zeros(16_000, np.float32), heard) is not None
    assert sounds.scores(np.zeros(0, np.float32)) is None


def test_what_is_loud_once_is_heard_in_a_long_stretch(sounds: SoundEvents) -> None:
    time_s = np.arange(16_000) / 16_000
    beep = (0.5 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.float32)
    alone = sounds.scores(beep)
    within = sounds.scores(np.concatenate([np.zeros(32_000, np.float32), beep, np.zeros(32_000, np.float32)]))
    assert alone is not None
    assert within is not None
    assert within["Sine wave"] > 0.3
    assert alone["Sine wave"] > 0.3


def test_sentences_of_one_meaning_are_alike(senses_dir: Path) -> None:
    encoder = SentenceEncoder(ready.settings(senses_dir, "sentences"))
    asked, meant, other = encoder.encode(
        ["two people and a car, engine running", "two people and a car; engine", "a dog; music"]
    )
    assert np.linalg.norm([asked, meant, other], axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert asked @ meant > asked @ other + 0.3
    (alone,) = encoder.encode(["a dog; music"])
    assert np.allclose(alone, other, atol=0.02)  # 8 bits: what it is padded to changes a vector a little
    assert encoder.encode([]).shape == (0, 384)
