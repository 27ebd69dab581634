"""Figures of quality against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.training import scores


def test_classes_are_measured_as_computed_by_hand() -> None:
    true = np.array([0, 0, 1, 1, 1])
    said = np.eye(3)[[0, 1, 1, 1, 0]]
    quality = scores.of_classes(true, said)
    assert quality.confusion == ((1, 1, 0), (1, 2, 0), (0, 0, 0))
    assert quality.accuracy == 0.6
    assert quality.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-4)  # the label that never occurs is left out


def test_the_calibration_error_is_the_mean_gap_between_score_and_share_of_right_ones() -> None:
    score = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    by_hand = 4 / 6 * abs(0.95 - 0.75) + 2 / 6 * abs(0.55 - 0.5)
    assert scores.calibration_error(score, right, bins=10) == pytest.approx(by_hand)
    assert scores.calibration_error(np.ones(3), np.ones(3, np.bool_)) == 0


def test_a_score_on_a_border_of_bins_belongs_to_the_lower_one() -> None:
    # (0.4, 0.5] holds both: mean score 0.48, half right
    assert scores.calibration_error(np.array([0.5, 0.46]), np.array([True, False]), bins=10) == pytest.approx(0.02)


def test_tags_are_measured_label_by_label_and_undefined_figures_are_left_out() -> None:
    true = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], np.bool_)
    said = np.array([[0.9, 0.2], [0.4, 0.1], [0.6, 0.1], [0.1, 0.7]])
    quality = scores.of_tags(true, said, ("fog", "rain"))
    fog, rain = quality.each
    assert fog.windows == 2
    assert fog.f1 == 0.5  # one hit, one miss, one false alarm
    assert fog.auroc == 0.75  # three of four pairs in order
    assert fog.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2, abs=1e-4)
    assert rain.auroc is None
    assert rain.average_precision is None
    assert quality.auroc == 0.75
    assert quality.macro_f1 == 0.25


def test_numbers_are_measured_in_their_unit() -> None:
    quality = scores.of_number(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]))
    assert quality.mae == pytest.approx(2 / 3, abs=1e-4)
    assert quality.rmse == pytest.approx((4 / 3) ** 0.5, abs=1e-4)
    assert quality.r2 == pytest.approx(1 - 4 / 2)
    assert scores.of_number(np.array([2.0, 2.0]), np.array([2.0, 2.0])).r2 is None


def test_recall_counts_candidates_that_are_nearer_than_the_own_window() -> None:
    found = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    query = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])  # 1st: itself nearest; 2nd: third is; 3rd: second is
    at, chance, same, same_chance = scores.recall(query, found, [0, 1, 2], None)
    assert at["1"] == pytest.approx(1 / 3, abs=1e-4)
    assert at["5"] == 1.0
    assert chance["1"] == pytest.approx(1 / 3, abs=1e-4)
    assert chance["5"] == 1.0
    assert same is None
    assert same_chance is None


def test_any_window_that_says_the_same_is_right_and_its_chance_is_stated() -> None:
    found = np.eye(4)
    query = found[[1, 0, 2, 3]]  # the first two find one another, and say the same
    at, chance, _, _ = scores.recall(query, found, ["hello", "hello", "stop", "go"], None)
    assert at["1"] == 1.0
    assert chance["1"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4 + 1 / 4) / 4)


def test_vectors_that_are_all_alike_find_nothing() -> None:
    alike = np.ones((20, 2)) / 2**0.5
    at, _, _, _ = scores.recall(alike, alike, [*range(20)], None)
    assert set(at.values()) == {0.0}


def test_the_nearest_other_window_is_compared_by_labels() -> None:
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    _, _, same, chance = scores.recall(vectors, vectors, [0, 1, 2], ["go", "go", "stop"])
    assert same == pytest.approx(2 / 3, abs=1e-4)  # the third's nearest other is one of the first two
    assert chance == pytest.approx(2 / 6, abs=1e-4)


@pytest.mark.parametrize(("candidates", "right", "k", "chance"), [(10, 1, 1, 0.1), (4, 2, 2, 5 / 6), (4, 2, 3, 1.0)])
def test_chance_is_that_of_drawing_without_putting_back(candidates: int, right: int, k: int, chance: float) -> None:
    assert scores._chance(candidates, right, k) == pytest.approx(chance)
