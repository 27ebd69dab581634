"""A model in each of its forms gives the answers of eager, and a file of another model is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers
from torch._dynamo.utils import counters
from torch._inductor import exc
from torch._inductor.cpp_builder import get_cpp_compiler
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.errors import ModelError
from streamer.model import Inputs, Outputs, forms, predictor, repository
from streamer.model.collate import collate
from streamer.model.forms import compiled
from streamer.model.predictor import Network
from streamer.model.sample import Phrase, Sample, only
from streamer.model.spec import read_spec
from streamer.settings import Settings
from streamer.training import forms as comparison

TOML = """
name = "toy"
version = "3"
window_ms = 100
[inputs.image]
frames = 2
height = 24
width = 32
[inputs.audio]
rate_hz = 4000
[inputs.text]
max_tokens = 6
[inputs.telemetry]
channels = ["speed", "steering_angle"]
rate_hz = 100
[outputs.action]
labels = ["go", "stop", "wait"]
[architecture]
size = "tiny"
"""
ARCHIVES = tuple(forms.ARCHIVES)
NOTHING = Sample.empty()


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[UNK]", "go", "stop"])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def train(folder: Path, seed: int) -> None:
    """Write fresh weights."""
    torch.manual_seed(seed)
    repository.write(folder, repository.new_module(read_spec(folder), folder, tokenizer()), tokenizer(), {})


@pytest.fixture(scope="module")
def predictors(exported: Path) -> dict[str, Network]:
    return {form: Network.load(exported, device="cpu", form=form) for form in ("eager", *ARCHIVES)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with an archive of every form."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "model.toml").write_text(TOML)
    train(folder, 0)
    for form in ARCHIVES:
        forms.write(folder, form)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "toy"))


def sample(seed: int, text: str = "stop go") -> Sample:
    random = np.random.default_rng(seed)
    return Sample(
        present=(True,) * 4,
        coverage=(1.0,) * 4,
        image_FHW3=random.integers(0, 255, (2, 24, 32, 3)).astype(np.uint8),
        image_mask_F=np.array([True, seed % 2 == 0]),
        audio_S=random.normal(0, 0.1, 400).astype(np.float32),
        audio_mask_S=np.arange(400) < 300,
        text=(Phrase(text, 0.5),),
        telemetry_CT=random.normal(0, 1, (2, 10)).astype(np.float32),
        telemetry_mask_CT=np.array([[True] * 10, [False] * 10]),
    )


def cases() -> list[list[Sample]]:
    """Batches of several sizes and lengths of text, with modalities missing in some windows and in all."""
    names = ("image", "audio", "text", "telemetry")
    full = [sample(seed, "go " * (seed + 1)) for seed in range(5)]
    alone = [[only(one, [name]) for one in full] for name in names]
    missing = [[only(one, [other for other in names if other != name]) for one in full] for name in names]
    return [full, full[:1], full[:2], *alone, *missing, [full[0], NOTHING], [NOTHING]]


def differences(one: Network, other: Network) -> float:
    """The largest difference of scores and embeddings over all cases."""
    worst = 0.0
    for case in cases():
        (scores, embedding_BD), (known, known_BD) = one.answer(case), other.answer(case)
        worst = max(worst, np.abs(scores["action"] - known["action"]).max(), np.abs(embedding_BD - known_BD).max())
    return float(worst)


@pytest.mark.parametrize("form", ARCHIVES)
def test_a_form_answers_as_eager_does_whatever_is_missing(predictors: dict[str, Network], form: str) -> None:
    assert differences(predictors[form], predictors["eager"]) <= forms.TOLERANCES[form]


@pytest.mark.parametrize("form", ARCHIVES)
def test_what_stands_where_a_mask_is_false_changes_nothing_in_any_form(
    predictors: dict[str, Network], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [sample(0), only(sample(1), ["audio"]), NOTHING]
    before, before_BD = predictors[form].answer(batch)
    monkeypatch.setattr(predictor, "collate", lambda *given: garbled(collate(*given)))
    after, after_BD = predictors[form].answer(batch)
    assert np.array_equal(before["action"], after["action"])
    assert np.array_equal(before_BD, after_BD)


def garbled(inputs: Inputs) -> Inputs:
    """The same windows with nonsense wherever a mask is False."""
    given = {name: tensor for name, tensor in inputs._asdict().items() if tensor is not None}
    image_mask_BF111 = given["image_mask_BF"][:, :, None, None, None]
    return inputs._replace(
        image_BFCHW=torch.where(image_mask_BF111, given["image_BFCHW"], 199),
        audio_BS=torch.where(given["audio_mask_BS"], given["audio_BS"], torch.nan),
        text_BT=torch.where(given["text_mask_BT"], given["text_BT"], 2),
        text_overlap_BT=torch.where(given["text_mask_BT"], given["text_overlap_BT"], torch.nan),
        telemetry_BCT=torch.where(given["telemetry_mask_BCT"], given["telemetry_BCT"], torch.nan),
    )


@pytest.mark.parametrize("form", ARCHIVES)
def test_the_version_tells_weights_and_form(predictors: dict[str, Network], form: str) -> None:
    assert predictors[form].version == f"{predictors['eager'].version}+{form}"


def refusal(folder: Path, form: str) -> str:
    with pytest.raises(ModelError) as caught:
        Network.load(folder, device="cpu", form=form)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ARCHIVES)
def test_an_archive_of_other_weights_is_stale(folder: Path, form: str) -> None:
    train(folder, 1)
    said = refusal(folder, form)
    assert "is stale: it was made from another weights.safetensors" in said
    assert f"streamer export {folder} --form {form}" in said


@pytest.mark.parametrize("form", ARCHIVES)
def test_an_archive_of_another_model_toml_is_stale(folder: Path, form: str) -> None:
    (folder / "model.toml").write_text(TOML.replace('"wait"', '"creep"'))
    assert "is stale: it was made from another model.toml" in refusal(folder, form)


@pytest.mark.parametrize("form", ARCHIVES)
def test_an_archive_that_is_not_there_is_one_line_that_says_how_to_make_it(folder: Path, form: str) -> None:
    (folder / forms.ARCHIVES[form]).unlink()
    assert f"`streamer export {folder} --form {form}` makes it" in refusal(folder, form)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("form", ARCHIVES)
def test_a_truncated_archive_is_one_line(folder: Path, form: str, keep: float) -> None:
    path = folder / forms.ARCHIVES[form]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert str(path) in refusal(folder, form)


@pytest.mark.parametrize("form", ["export", "int8"])
def test_an_oversized_archive_is_refused_unread(folder: Path, form: str) -> None:
    path = folder / forms.ARCHIVES[form]
    with path.open("ab") as file:
        file.truncate(10 << 30)  # a hole: takes no room
    assert "more than" in refusal(folder, form)


@pytest.mark.parametrize("form", ["export", "int8"])
def test_a_foreign_file_in_an_archives_place_is_refused(folder: Path, form: str) -> None:
    torch.save({"weight": torch.zeros(1)}, folder / forms.ARCHIVES[form])
    refusal(folder, form)


@pytest.mark.parametrize("entry", ["data/sample_inputs/model.pt", "data/constants/custom_obj_0", "data/aotinductor/x"])
def test_an_export_archive_with_a_pickle_or_machine_code_in_it_is_refused(folder: Path, entry: str) -> None:
    path = folder / forms.ARCHIVES["export"]
    repack(path, {entry: b"anything"})
    assert f"holds a pickle or machine code ({entry})" in refusal(folder, "export")


def test_weights_that_are_marked_as_a_pickle_are_not_opened(folder: Path) -> None:
    path = folder / forms.ARCHIVES["export"]
    with zipfile.ZipFile(path) as entries:
        config = next(name for name in entries.namelist() if name.endswith("model_weights_config.json"))
        payloads = json.loads(entries.read(config))
    next(iter(payloads["config"].values()))["use_pickle"] = True
    repack(path, {config.partition("/")[2]: json.dumps(payloads).encode()})
    assert "holds a pickle" in refusal(folder, "export")


def repack(path: Path, changed: dict[str, bytes]) -> None:
    """Write the archive with some entries changed or added."""
    with zipfile.ZipFile(path) as old:
        root = old.namelist()[0].partition("/")[0]
        entries = {name: old.read(name) for name in old.namelist()}
    entries |= {f"{root}/{name}": content for name, content in changed.items()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)


@pytest.mark.parametrize("form", ["export", "onnx"])
def test_windows_of_another_length_than_the_graphs_are_refused_at_the_start(folder: Path, form: str) -> None:
    settings = Settings.load(model=folder, window_ms=1000, model_form=form)
    with pytest.raises(ModelError, match="is for windows of 100 ms, and STREAMER_WINDOW_MS is 1000"):
        Network.load(folder, device="cpu", settings=settings)


def test_int8_weights_take_less_room(exported: Path) -> None:
    assert forms.size_bytes(exported, "int8") < 0.6 * forms.size_bytes(exported, "eager")


def test_int8_is_refused_on_another_device(exported: Path) -> None:
    with pytest.raises(ModelError, match="STREAMER_DEVICE=cpu"):
        forms.read(exported, "int8", torch.device("cuda"))


def test_a_network_that_cannot_be_traced_is_one_line(folder: Path) -> None:
    (folder / "model.py").write_text(
        "import torch\nfrom torch import nn\nfrom streamer.model import Outputs\n"
        "class Toy(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.bias = nn.Parameter(torch.zeros(3))\n"
        "    def forward(self, inputs):\n        rows = int(inputs.text_BT.sum())\n"
        "        return Outputs({'action': self.bias.expand(rows, -1)}, torch.ones(rows, 2), {})\n"
        "def build(spec):\n    return Toy()\n"
    )
    repository.write(folder, repository.new_module(read_spec(folder), folder, None), tokenizer(), {})
    with pytest.raises(ModelError, match="toy cannot be exported: ") as caught:
        forms.write(folder, "export")
    assert "\n" not in str(caught.value)


# ONNX models from elsewhere


def graph(folder: Path, *, score: str = "action", image: str = "camera", batch: str | int = "batch") -> None:
    """An ONNX model as another framework writes it: float images, NumPy's axes, no masks, other names."""
    mean = helper.make_node("ReduceMean", [image, "axes"], ["mean"], keepdims=0)
    logits = helper.make_node("MatMul", ["mean", "weight"], [score])
    embedding = helper.make_node("Identity", ["mean"], ["vector"])
    made = helper.make_graph(
        [mean, logits, embedding],
        "foreign",
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, [batch, 2, 3, 24, 32])],
        [
            helper.make_tensor_value_info(score, TensorProto.FLOAT, [batch, 3]),
            helper.make_tensor_value_info("vector", TensorProto.FLOAT, [batch, 3]),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 3, 4]),
            helper.make_tensor("weight", TensorProto.FLOAT, [3, 3], np.eye(3).ravel()),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")


MAPPING = '[inputs]\ncamera = "image_BFCHW"\n[outputs]\nvector = "embedding"\n'


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    (tmp_path / "model.toml").write_text(TOML)
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "onnx.toml").write_text(MAPPING)
    graph(tmp_path)
    return tmp_path


def test_a_folder_with_an_onnx_model_of_another_framework_is_a_whole_model(foreign: Path) -> None:
    predictor = Network.load(foreign, device="cpu")
    red = sample(0).image_FHW3
    assert red is not None
    red[:] = (9, 0, 0)
    shown = Sample((True, False, False, False), (1.0, 0, 0, 0), image_FHW3=red, image_mask_F=np.ones(2, np.bool_))
    first, second = predictor.predict([shown, NOTHING])
    assert first.outputs["action"]["label"] == "go"
    assert first.embedding.tolist() == [1.0, 0.0, 0.0]
    assert second.outputs["action"]["scores"] == pytest.approx(dict.fromkeys(("go", "stop", "wait"), 1 / 3), abs=1e-4)
    assert predictor.version.startswith("3-")
    assert predictor.version.endswith("+onnx")


def test_an_onnx_model_from_elsewhere_beside_weights_is_refused(foreign: Path) -> None:
    train(foreign, 0)
    assert "was not made by `streamer export`" in refusal(foreign, "onnx")


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("", "its input camera is none of image_BFCHW, "),
        (MAPPING.replace("vector", "nothing"), "gives action, vector and no embedding; onnx.toml may say which"),
        (MAPPING.replace("image_BFCHW", "audio_BS"), "its input camera has 5 axes, and audio_BS has 2"),
        (MAPPING + "[more]\n", "onnx.toml: Object contains unknown field `more`"),
    ],
)
def test_names_that_do_not_fit_are_one_line_that_says_which(foreign: Path, mapping: str, says: str) -> None:
    (foreign / "onnx.toml").write_text(mapping)
    assert says in refusal(foreign, "onnx")


def test_a_graph_for_batches_of_one_size_is_refused(foreign: Path) -> None:
    graph(foreign, batch=1)
    assert "takes batches of 1 windows only" in refusal(foreign, "onnx")


def test_there_is_nothing_to_export_from_an_onnx_model(foreign: Path) -> None:
    with pytest.raises(ModelError, match="there is nothing to export"):
        forms.write(foreign, "int8")


# compile


def test_the_compiled_form_pads_a_single_window_and_cuts_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Echo(torch.nn.Module):
        def forward(self, inputs: Inputs) -> Outputs:
            seen.append({name: tuple(t.shape) for name, t in inputs._asdict().items() if t is not None})
            return Outputs({"action": torch.ones(2, 3)}, torch.ones(2, 4), {})

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    given = Inputs(text_BT=torch.ones(1, 1, dtype=torch.int64), text_mask_BT=torch.ones(1, 1, dtype=torch.bool))
    answer = compiled.Compiled(Echo())(given)
    assert seen == [{"text_BT": (2, 2), "text_mask_BT": (2, 2)}]
    assert answer.logits["action"].shape == (1, 3)
    assert answer.embedding_BD.shape == (1, 4)


def has_compiler() -> bool:
    try:
        return bool(get_cpp_compiler())
    except exc.InvalidCxxCompiler:
        return False


class Small(torch.nn.Module):
    """A model that compiles in seconds, where the fused one takes a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(2, 3)

    def forward(self, inputs: Inputs) -> Outputs:
        assert inputs.telemetry_BCT is not None
        assert inputs.telemetry_mask_BCT is not None
        mean_BC = torch.where(inputs.telemetry_mask_BCT, inputs.telemetry_BCT, 0.0).mean(2)
        return Outputs({"action": self.head(mean_BC)}, mean_BC, {})


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler on PATH")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's compiler, about PyTorch
def test_the_compiled_form_answers_as_eager_does_and_is_compiled_once_for_all_sizes_of_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # no pool of processes for one kernel
    monkeypatch.setattr("torch._inductor.config.cpp_cache_precompile_headers", False)  # nor a header for many
    torch._dynamo.reset()
    counters["stats"].clear()
    eager = Small()
    module = compiled.compiled(eager, torch.device("cpu"))
    for rows in (1, 2, 7, 32):
        given = Inputs(telemetry_BCT=torch.randn(rows, 2, 10), telemetry_mask_BCT=torch.rand(rows, 2, 10) > 0.5)
        with torch.inference_mode():
            answer, known = module(given), eager(given)
        assert torch.allclose(answer.logits["action"], known.logits["action"], atol=forms.TOLERANCES["compile"])
        assert answer.embedding_BD.shape == known.embedding_BD.shape
    assert counters["stats"]["unique_graphs"] == 1


def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ModelError, match="needs a C\\+\\+ compiler"):
        compiled.compiled(Small(), torch.device("cpu"))


def test_a_missing_triton_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "has_triton_package", lambda: False)
    with pytest.raises(ModelError, match="needs Triton on CUDA"):
        compiled.compiled(Small(), torch.device("cuda"))


# comparison


def test_the_comparison_measures_what_runs_and_says_why_the_rest_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "TIMED_S", 0.001)
    monkeypatch.setattr(forms, "TOLERANCES", {"eager": 0.0, "export": 1e-4, "onnx": 1e-3})
    (folder / "model.onnx").unlink()
    found = {one.form: one for one in comparison.compare(folder, "cpu", 3, lambda form: None)}
    assert found["eager"].score_difference == 0
    assert found["export"].fits
    assert set(found["export"].ms) == {1, 8, 32}
    assert "`streamer export" in str(found["onnx"].reason)
    notes = list(comparison.notes(list(found.values())))
    assert any(note.startswith("onnx does not run here: ") for note in notes)


def test_a_form_that_differs_by_too_much_is_told(folder: Path) -> None:
    far = comparison.Measured("int8", score_difference=0.2, tolerance=0.05, ms={1: 1.0})
    assert not far.fits
    assert "int8 differs by more than 0.05: do not serve it" in list(comparison.notes([far]))


def test_the_commands_make_a_form_and_compare_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "TIMED_S", 0.001)
    monkeypatch.setattr(forms, "TOLERANCES", {"eager": 0.0, "int8": 5e-2, "onnx": 1e-3})
    (folder / "model.onnx").unlink()
    train(folder, 5)
    made = CliRunner().invoke(app, ["export", str(folder), "--form", "int8"])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(app, ["forms", str(folder), "--windows", "2"])
    assert shown.exit_code == 0, shown.output
    assert max(len(line) for line in shown.stdout.splitlines() if line.startswith(("form ", "eager ", "int8 "))) <= 80
    assert "onnx does not run here: " in shown.stdout
    told = CliRunner().invoke(app, ["forms", str(folder), "--windows", "2", "--json"])
    by_form = {one["form"]: one for one in map(json.loads, told.stdout.splitlines())}
    assert by_form["int8"]["version"].endswith("+int8")
    assert 0 < by_form["int8"]["embedding_difference"] <= by_form["int8"]["tolerance"]
    monkeypatch.setattr(forms, "TOLERANCES", {"eager": 0.0, "int8": 0.0})
    assert CliRunner().invoke(app, ["forms", str(folder), "--windows", "2"]).exit_code == 1
