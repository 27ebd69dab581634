"""Loading a model folder and predicting with it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from streamer.errors import ModelError, StreamerError, UsageError
from streamer.model import predictor, repository
from streamer.model.predictor import ModelFault, Predictor
from streamer.model.sample import Phrase, Sample, remembered
from streamer.model.spec import read_spec

TOML = """
name = "toy"
version = "3"
window_ms = 1000
[inputs.image]
frames = 1
height = 24
width = 32
[inputs.audio]
rate_hz = 8000
[inputs.text]
max_tokens = 4
[inputs.telemetry]
channels = ["speed"]
rate_hz = 10
[outputs.action]
labels = ["go", "stop", "wait"]
"""
CUSTOM = """
import torch
from torch import nn
from streamer.model import Inputs, Outputs

class Toy(nn.Module):
    def __init__(self, labels):
        super().__init__()
        self.bias = nn.Parameter(torch.arange(float(labels)))

    def forward(self, inputs: Inputs) -> Outputs:
        rows = len(inputs.text_BT) {fault}
        return Outputs({{"action": self.bias.expand(rows, -1)}}, torch.ones(rows, 2) / 2**0.5, {{}})

def build(spec):
    return Toy(len(spec.outputs["action"].labels))
"""


def tokenizer(words: str = "stop go now please") -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[UNK]", *words.split()])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "model.toml").write_text(TOML)
    module = repository.new_module(read_spec(tmp_path), tmp_path, tokenizer())
    repository.write(tmp_path, module, tokenizer(), {})
    return tmp_path


def sample(seed: int = 0, text: str = "stop now") -> Sample:
    random = np.random.default_rng(seed)
    return Sample(
        present=(True,) * 4,
        coverage=(1.0,) * 4,
        image_FHW3=random.integers(0, 255, (1, 24, 32, 3)).astype(np.uint8),
        image_mask_F=np.ones(1, np.bool_),
        audio_S=random.normal(0, 0.1, 8000).astype(np.float32),
        audio_mask_S=np.ones(8000, np.bool_),
        text=(Phrase(text, 1.0),),
        telemetry_CT=random.normal(0, 1, (1, 10)).astype(np.float32),
        telemetry_mask_CT=np.ones((1, 10), np.bool_),
    )


NOTHING = Sample.empty()


def test_there_is_one_prediction_for_each_sample_in_order(folder: Path) -> None:
    predictor = Predictor.load(folder, device="cpu")
    together = predictor.predict([sample(1), NOTHING, sample(2, "go please go now go"), sample(3)])
    alone = [predictor.predict([one])[0] for one in (sample(1), NOTHING, sample(2, "go please go now go"), sample(3))]
    assert len(together) == 4
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.embedding.astype(np.float32) - b.embedding.astype(np.float32)).max() < 2e-3
        assert a.outputs["action"]["score"] == pytest.approx(b.outputs["action"]["score"], abs=1e-3)


def test_a_window_that_is_run_again_has_the_very_same_prediction_from_what_was_kept(folder: Path) -> None:
    predictor = Predictor.load(folder, device="cpu")
    whole = sample(1, "go please go now")
    [early] = predictor.predict([msgspec.structs.replace(whole, text=())], keep=True)
    assert early.encoded.keys() == {"image", "audio", "text", "telemetry"}
    kept = {name: tokens for name, tokens in early.encoded.items() if name != "text"}
    again = msgspec.structs.replace(remembered(whole, kept), text=whole.text)
    assert (again.image_FHW3, again.audio_S, again.telemetry_CT) == (None, None, None)
    assert 0 < again.nbytes < whole.nbytes
    [found], [full] = predictor.predict([again]), predictor.predict([whole])
    assert (found.outputs, found.novelty) == (full.outputs, full.novelty)
    assert found.embedding.tobytes() == full.embedding.tobytes()
    assert found.encoded == full.encoded == {}


def test_windows_with_and_without_what_was_kept_share_a_batch(folder: Path) -> None:
    predictor = Predictor.load(folder, device="cpu")
    whole = [sample(1), NOTHING, sample(2, "go please go now go"), sample(3)]
    early = predictor.predict(whole, keep=True)
    again = [
        whole[0],
        remembered(NOTHING, early[1].encoded),
        remembered(whole[2], early[2].encoded),
        msgspec.structs.replace(remembered(whole[3], {"audio": early[3].encoded["audio"]}), text=whole[3].text),
    ]
    for found, full in zip(predictor.predict(again), predictor.predict(whole), strict=True):
        assert np.abs(found.embedding.astype(np.float32) - full.embedding.astype(np.float32)).max() < 2e-3
        assert found.outputs["action"]["scores"] == pytest.approx(full.outputs["action"]["scores"], abs=1e-3)


def test_a_network_of_the_users_keeps_nothing(folder: Path) -> None:
    (folder / "model.py").write_text(CUSTOM.format(fault=""))
    module = repository.new_module(read_spec(folder), folder, tokenizer())
    repository.write(folder, module, tokenizer(), {})
    [found] = Predictor.load(folder, device="cpu").predict([sample()], keep=True)
    assert found.encoded == {}


def test_a_prediction_names_the_label_its_score_and_all_scores(folder: Path) -> None:
    prediction = Predictor.load(folder, device="cpu").predict([sample()])[0]
    action = prediction.outputs["action"]
    assert set(action["scores"]) == {"go", "stop", "wait"}
    assert sum(action["scores"].values()) == pytest.approx(1, abs=1e-3)
    assert action["score"] == action["scores"][action["label"]] == max(action["scores"].values())
    assert prediction.embedding.dtype == np.float16
    assert np.linalg.norm(prediction.embedding.astype(np.float32)) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    ("omp", "given", "set_to"),
    [(None, None, [3]), ("2", None, []), ("2", 4, [4])],
    ids=["half of the cores", "what OMP_NUM_THREADS says", "what the caller says"],
)
def test_threads_of_a_forward_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch, omp: str | None, given: int | None, set_to: list[int]
) -> None:
    found: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(predictor, "usable_cores", lambda: 6)
    if omp is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    Predictor.load(folder, device="cpu", threads=given)
    assert found == set_to


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_only_cores_that_the_process_may_use_count() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert predictor.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_no_samples_give_no_predictions(folder: Path) -> None:
    assert Predictor.load(folder, device="cpu").predict([]) == []


def test_predictions_from_many_threads_are_the_same(folder: Path) -> None:
    predictor = Predictor.load(folder, device="cpu")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: predictor.predict([sample()])[0].outputs, range(8)))
    assert all(answer == answers[0] for answer in answers)


def test_the_version_tells_the_weights_apart(folder: Path) -> None:
    before = Predictor.load(folder).version
    assert before.startswith("3-")
    module = repository.new_module(read_spec(folder), folder, tokenizer())
    repository.write(folder, module, tokenizer(), {})
    assert Predictor.load(folder).version != before


def test_warm_up_runs_without_a_window(folder: Path) -> None:
    Predictor.load(folder, device="cpu").warm_up(2)


def one_line(folder: Path, error: type[StreamerError] = ModelError, **arguments: Any) -> str:
    with pytest.raises(error) as caught:
        Predictor.load(folder, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    assert "model.toml is not a file" in one_line(tmp_path / "nowhere")


def test_missing_weights_are_one_line_that_says_how_to_make_them(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    assert "streamer train" in one_line(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_truncated_weights_are_one_line(folder: Path, keep: float) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if 0 < keep < 1 else int(keep)])
    assert "truncated or no safetensors file" in one_line(folder)


def test_a_pickle_in_place_of_the_weights_is_refused(folder: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, folder / "weights.safetensors")
    assert "truncated or no safetensors file" in one_line(folder)


def test_foreign_weights_are_one_line_that_names_the_first_difference(folder: Path) -> None:
    (folder / "model.toml").write_text(TOML.replace('"wait"', '"wait", "turn"'))
    assert "heads.action.weight has shape [3, 96], the model needs [4, 96]" in one_line(folder)


def test_weights_that_lack_a_part_are_one_line(folder: Path) -> None:
    module = repository.new_module(read_spec(folder), folder, tokenizer())
    del module.heads["action"]  # type: ignore[operator, union-attr]
    repository.write(folder, module, tokenizer(), {})
    assert "heads.action.weight is missing" in one_line(folder)


def test_weights_that_are_not_finite_are_one_line(folder: Path) -> None:
    module = repository.new_module(read_spec(folder), folder, tokenizer())
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    repository.write(folder, module, tokenizer(), {})
    assert "not finite" in one_line(folder)


def test_another_tokenizer_than_the_trained_one_is_refused(folder: Path) -> None:
    tokenizer("now stop please go").save(str(folder / "tokenizer.json"))
    assert "another tokenizer.json" in one_line(folder)


def test_a_missing_or_broken_tokenizer_is_one_line(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "is no tokenizer" in one_line(folder)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json is not a file" in one_line(folder)


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ("frames = 1", "frames = 0", "inputs.image.frames = 0 must be above 0"),
        ("frames = 1", 'frames = "one"', "Expected `int`, got `str`"),
        ("window_ms = 1000", "windows = 1", "window"),
        ('["go", "stop", "wait"]', '["go"]', "2 or more different labels"),
        ('channels = ["speed"]', "channels = []", "channels is empty"),
        (
            "rate_hz = 10\n[outputs",
            'rate_hz = 10\nrelative = ["ecg"]\n[outputs',
            "relative: ecg is none of its channels",
        ),
        ('name = "toy"', "name = ", "Invalid value"),
    ],
)
def test_a_wrong_model_toml_is_one_line_that_names_the_key(folder: Path, wrong: str, right: str, says: str) -> None:
    (folder / "model.toml").write_text(TOML.replace(wrong, right))
    assert says in one_line(folder)


def test_an_unknown_size_is_one_line_that_names_the_known_ones(folder: Path) -> None:
    (folder / "model.toml").write_text(TOML + '[architecture]\nsize = "huge"\n')
    assert "known: tiny, small, medium" in one_line(folder)


def test_a_device_that_is_not_there_is_one_line(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert "STREAMER_DEVICE=auto" in one_line(folder, UsageError, device="cuda")


def custom(folder: Path, code: str) -> Path:
    (folder / "model.py").write_text(code)
    repository.write(folder, repository.new_module(read_spec(folder), folder, None), tokenizer(), {})
    return folder


def test_a_folder_may_bring_its_own_network(folder: Path) -> None:
    predictor = Predictor.load(custom(folder, CUSTOM.format(fault="")), device="cpu")
    assert [p.outputs["action"]["label"] for p in predictor.predict([sample(), NOTHING])] == ["wait", "wait"]


def test_a_network_that_answers_for_too_few_windows_is_caught(folder: Path) -> None:
    predictor = Predictor.load(custom(folder, CUSTOM.format(fault="- 1")), device="cpu")
    with pytest.raises(ModelFault, match=r"output action has shape \(1, 3\), not \(2, 3\)"):
        predictor.predict([sample(), sample()])


def test_a_network_whose_code_fails_is_one_line(folder: Path) -> None:
    (folder / "model.py").write_text("def build(spec):\n    return 1 / 0\n")
    assert "ZeroDivisionError" in one_line(folder)
    (folder / "model.py").write_text("def build(spec):\n    return None\n")
    assert "must return a torch.nn.Module" in one_line(folder)
