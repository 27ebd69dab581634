"""Temperatures and familiar vectors, measured on windows whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from streamer.model import Outputs, repository
from streamer.model.predictor import Network
from streamer.model.sample import Limits, Phrase, Sample
from streamer.training.calibrate import calibrate, sets_of
from streamer.training.dataset import Example
from streamer.training.vocabulary import train_tokenizer
from tests.toy import QUIET, SPEC

D = 4


class Overconfident(nn.Module):
    """Says the label that the telemetry shows, with a score of 0.99 always; vectors vary as the telemetry does."""

    def forward(self, inputs: Any) -> Outputs:
        seen_B = inputs.telemetry_BCT[:, 0, 0]
        count = len(seen_B)
        stop_B = (seen_B > 0).float() * 2 - 1
        action = torch.stack([-stop_B, stop_B], 1) * math.log(99) / 2
        there_B = inputs.has("telemetry")
        parts = {"telemetry": (torch.stack([seen_B, seen_B**2, seen_B**3, -seen_B], 1), there_B)}
        return Outputs(
            {"action": action, "signs": torch.zeros(count, 2), "speed": torch.zeros(count, 1)},
            torch.ones(count, D) / 2,
            parts,
        )


def windows(count: int, seed: int, right: float) -> list[Example]:
    """The telemetry shows the label in this share of the windows, and the other one in the rest."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        stop, tells = number % 2 == 0, rng.random() < right
        shown = (1 if stop == tells else -1) * rng.uniform(0.5, 1.5)
        sample = Sample(
            present=(False, False, True, True),
            coverage=(0.0, 0.0, 1.0, 1.0),
            text=(Phrase("go", 1.0),),
            telemetry_CT=np.full((1, 10), shown, np.float32),
            telemetry_mask_CT=np.ones((1, 10), np.bool_),
        )
        found.append(Example(sample, {"action": "stop" if stop else "go"}))
    return found


@pytest.fixture(scope="module")
def network() -> Network:
    tokenizer = train_tokenizer(["go", "stop"])
    return Network(repository.Model(SPEC, Overconfident(), tokenizer, "1-x"), torch.device("cpu"), Limits())


def test_a_network_that_is_too_sure_is_cooled_to_how_often_it_is_right(network: Network) -> None:
    found = calibrate(network, windows(400, 1, 0.75), windows(400, 2, 0.75), QUIET)
    assert set(found.temperatures) == {"action"}  # the other outputs have no labels
    temperature = found.temperatures["action"].of([frozenset({"text", "telemetry"})])[0]
    score = 1 / (1 + math.exp(-math.log(99) / temperature))
    assert score == pytest.approx(0.75, abs=0.03)


def test_what_no_window_of_training_was_like_is_strange(network: Network) -> None:
    found = calibrate(network, windows(400, 1, 1.0), windows(400, 2, 1.0), QUIET)
    assert set(found.sensors) == {"telemetry"}  # the network keeps no vectors of words
    parts, _ = network.vectors([example.sample for example in windows(200, 3, 1.0)])
    assert (found.sensors["telemetry"].novelty(parts["telemetry"][0]) > 1).mean() < 0.05
    assert found.sensors["telemetry"].novelty(np.full((1, D), 3.0, np.float32))[0] > 2


def test_of_few_windows_nothing_is_claimed(network: Network) -> None:
    found = calibrate(network, windows(20, 1, 0.75), windows(20, 2, 0.75), QUIET)
    assert (found.temperatures, found.sensors) == ({}, {})


def test_the_sets_of_sensors_are_all_each_alone_and_each_missing() -> None:
    assert sets_of(["a"]) == {"all": ["a"]}
    assert list(sets_of(["a", "b"])) == ["all", "a alone", "b alone", "a missing", "b missing"]
