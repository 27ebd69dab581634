"""Fitting a model to examples: it learns, works with hidden modalities, and keeps its best weights."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

from streamer.events import KIND_NAMES
from streamer.model import repository
from streamer.model.collate import collate
from streamer.model.predictor import Predictor
from streamer.model.sample import Phrase, Sample
from streamer.model.spec import (
    AudioInput,
    ImageInput,
    InputSpec,
    ModelSpec,
    Output,
    TelemetryInput,
    TextInput,
    read_spec,
)
from streamer.training import dataset, evaluate, simulated
from streamer.training.augment import hide
from streamer.training.dataset import Example
from streamer.training.fit import fit
from streamer.training.recipe import Recipe
from streamer.training.vocabulary import train_tokenizer

SPEC = ModelSpec(
    name="toy",
    version="1",
    window_ms=500,
    inputs=InputSpec(
        image=ImageInput(frames=1, height=24, width=32),
        audio=AudioInput(rate_hz=4000),
        text=TextInput(max_tokens=6),
        telemetry=TelemetryInput(channels=("speed",), rate_hz=20),
    ),
    outputs={"action": Output(("go", "stop"))},
)
QUIET = Console(file=io.StringIO())


def example(seed: int) -> Example:
    """Each modality shows the label: a bright frame, a loud sound, a word, a high speed."""
    random = np.random.default_rng(seed)
    stop = seed % 2
    return Example(
        Sample(
            present=(True,) * 4,
            coverage=(1.0,) * 4,
            image_FHW3=(random.integers(0, 100, (1, 24, 32, 3)) + 120 * stop).astype(np.uint8),
            image_mask_F=np.ones(1, np.bool_),
            audio_S=random.normal(0, 0.01 + 0.1 * stop, 2000).astype(np.float32),
            audio_mask_S=np.ones(2000, np.bool_),
            text=(Phrase("please stop" if stop else "please go", 1.0),),
            telemetry_CT=(random.normal(30, 2, (1, 10)) - 20 * stop).astype(np.float32),
            telemetry_mask_CT=np.ones((1, 10), np.bool_),
        ),
        {"action": "stop" if stop else "go"},
    )


EXAMPLES = [example(seed) for seed in range(64)]
NOTHING = Example(Sample.empty(), {"action": "go"})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[float, ...]]:
    folder = tmp_path_factory.mktemp("toy")
    recipe = Recipe(epochs=8, batch=16, seed=1, patience=8)
    module, tokenizer, epochs = fit(folder, SPEC, EXAMPLES[:48], EXAMPLES[48:], recipe, QUIET)
    (folder / "model.toml").write_text(
        'name = "toy"\nversion = "1"\nwindow_ms = 500\n[inputs.image]\nframes = 1\nheight = 24\nwidth = 32\n'
        "[inputs.audio]\nrate_hz = 4000\n[inputs.text]\nmax_tokens = 6\n"
        '[inputs.telemetry]\nchannels = ["speed"]\nrate_hz = 20\n[outputs.action]\nlabels = ["go", "stop"]\n'
    )
    repository.write(folder, module, tokenizer, {})
    return folder, tuple(epoch.training_loss for epoch in epochs)


def test_training_for_some_seconds_lowers_the_loss(fitted: tuple[Path, tuple[float, ...]]) -> None:
    losses = fitted[1]
    assert losses[-1] < 0.5 * losses[0]


def test_a_trained_folder_serves_what_it_learnt_from_all_and_from_each_modality(
    fitted: tuple[Path, tuple[float, ...]],
) -> None:
    predictor = Predictor.load(fitted[0], device="cpu")
    fresh = [example(seed) for seed in range(100, 132)]
    shown = [list(KIND_NAMES), *([name] for name in KIND_NAMES)]
    said = evaluate.look(predictor, fresh, {str(names): names for names in shown}, QUIET).said.values()
    true = [e.labels["action"] for e in fresh]
    accuracies = [np.mean([d["action"]["label"] == t for d, t in zip(rows, true, strict=True)]) for rows in said]
    assert accuracies[0] == 1.0
    assert min(accuracies) > 0.8


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    runs = [fit(tmp_path, SPEC, EXAMPLES[:16], EXAMPLES[:8], Recipe(epochs=1, seed=3), QUIET)[0] for _ in range(2)]
    for a, b in zip(*(run.state_dict().values() for run in runs), strict=True):
        assert torch.equal(a, b)


def test_training_goes_on_with_windows_that_have_nothing(tmp_path: Path) -> None:
    _, _, epochs = fit(tmp_path, SPEC, [*EXAMPLES[:7], NOTHING], [NOTHING], Recipe(epochs=1, batch=4), QUIET)
    assert np.isfinite(epochs[0].training_loss)


def test_a_fitted_model_knows_mean_and_deviation_of_the_telemetry(tmp_path: Path) -> None:
    module, _, _ = fit(tmp_path, SPEC, EXAMPLES[:16], EXAMPLES[:8], Recipe(epochs=1), QUIET)
    assert module.state_dict()["encoders.telemetry.mean_C1"].item() == pytest.approx(20, abs=1)


def test_hiding_leaves_every_window_something_and_hides_by_chance() -> None:
    torch.manual_seed(0)
    inputs = collate([e.sample for e in EXAMPLES] * 4, SPEC.inputs, train_tokenizer(["please stop", "please go"]))
    hidden = hide(inputs, 0.6)._asdict()
    masks = [mask for name, mask in hidden.items() if "_mask_" in name]
    there = torch.stack([mask.flatten(1).any(1) for mask in masks], dim=1)
    assert there.any(1).all()
    assert 0.4 < there.float().mean() < 0.6


def test_a_share_of_the_windows_is_shown_through_one_modality_alone() -> None:
    torch.manual_seed(0)
    inputs = collate([e.sample for e in EXAMPLES] * 4, SPEC.inputs, train_tokenizer(["please stop", "please go"]))
    hidden = hide(inputs, 0.0, solo=0.5)._asdict()
    there = torch.stack([m.flatten(1).any(1) for name, m in hidden.items() if "_mask_" in name], dim=1)
    counts = there.sum(1)
    assert set(counts.tolist()) == {1, 4}
    assert 0.4 < (counts == 1).float().mean() < 0.6
    assert there[counts == 1].any(0).all()


def test_examples_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    without_audio = msgspec.structs.replace(EXAMPLES[1].sample, audio_S=None, audio_mask_S=None)
    given = [EXAMPLES[0], Example(without_audio, {"action": "stop"}), NOTHING]
    dataset.save(tmp_path / "drive.npz", given)
    back = dataset.load(tmp_path / "drive.npz")
    assert [e.labels for e in back] == [e.labels for e in given]
    for a, b in zip(given, back, strict=True):
        for name in a.sample.__struct_fields__:
            left, right = getattr(a.sample, name), getattr(b.sample, name)
            if isinstance(left, np.ndarray):
                assert np.allclose(left, right, atol=1 / 32768), name
            else:
                assert left == right, name


def test_a_tokenizer_has_a_token_for_any_text_and_ignores_case() -> None:
    tokenizer = train_tokenizer(itertools.repeat("move over now", 4))
    assert tokenizer.encode("Move Over").ids == tokenizer.encode("move over").ids
    assert tokenizer.encode("žluťoučký 🚒").ids
    assert len(tokenizer.encode("move over now").ids) == 3


def test_a_camera_that_takes_only_what_is_looked_at_changes_nothing_but_the_instants_of_the_frames() -> None:
    driving = read_spec(Path(__file__).parents[3] / "models" / "driving")
    assert simulated._looked_at_hz(driving) == 2  # frames a second, which is a window
    sparse, whole = (list(simulated.drive_examples(3, 6, driving, frame_hz)) for frame_hz in (2, 10))
    for few, all_frames in zip(sparse, whole, strict=True):
        assert few.labels == all_frames.labels
        assert few.sample.present == all_frames.sample.present
        assert few.sample.text == all_frames.sample.text
        assert few.sample.audio_S is not None
        assert all_frames.sample.audio_S is not None
        assert np.array_equal(few.sample.audio_S, all_frames.sample.audio_S)
        assert few.sample.image_mask_F is not None
        assert few.sample.image_mask_F.all()
