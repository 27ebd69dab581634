"""The image encoder of the sense ``backbone``: EfficientNet-Lite0, whose weights the user's packages hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from streamer.errors import ModelError, UsageError
from streamer.model import repository
from streamer.model.nets.encoders.image import TimmEncoder
from streamer.model.nets.model import FusedModel
from streamer.model.nets.pretrained import read_weights
from streamer.model.spec import ModelSpec, read_spec
from streamer.senses import files
from streamer.settings import Settings

LITE0 = "tf_efficientnet_lite0"
TOML = f"""
name = "scenes"
version = "1"
window_ms = 1000
[inputs.image]
frames = 1
height = 64
width = 64
[outputs.place]
labels = ["road", "coast"]
[architecture]
size = "tiny"
image = {{ encoder = "timm:{LITE0}", pretrained = "PRETRAINED", frozen = true }}
"""


def spec_in(folder: Path, pretrained: str) -> ModelSpec:
    (folder / "model.toml").write_text(TOML.replace("PRETRAINED", pretrained))
    return read_spec(folder)


def backbone(module: nn.Module) -> nn.Module:
    assert isinstance(module, FusedModel)
    encoder = module.encoders["image"]
    assert isinstance(encoder, TimmEncoder)
    return encoder.backbone


def called_as_by_efficientnet_pytorch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same layers in the same order under that project's names, of which the first one tells it apart."""
    names = ["_conv_stem.weight", *(f"_layers.{number}" for number in range(1, len(weights)))]
    return dict(zip(names, weights.values(), strict=True)) | {"_fc.weight": torch.zeros(1000, 1280)}


def test_weights_of_efficientnet_pytorch_are_read_by_the_order_of_the_layers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = timm.create_model(LITE0, pretrained=False, num_classes=0).state_dict()
    torch.save(called_as_by_efficientnet_pytorch(theirs), tmp_path / "lite0.pth")
    ours = backbone(repository.new_module(spec_in(tmp_path, "lite0.pth"), tmp_path, None)).state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_weights_of_another_size_of_efficientnet_are_one_line(tmp_path: Path) -> None:
    other = timm.create_model("tf_efficientnet_lite1", pretrained=False, num_classes=0).state_dict()
    torch.save(called_as_by_efficientnet_pytorch(other), tmp_path / "lite1.pth")
    with pytest.raises(ModelError, match=r"lite1\.pth does not fit") as refused:
        repository.new_module(spec_in(tmp_path, "lite1.pth"), tmp_path, None)
    assert "\n" not in str(refused.value)


def test_the_sense_s_weights_begin_the_encoder_and_the_saved_model_needs_them_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        (path,) = files.find("backbone", Settings.load()).files.values()
    except UsageError as error:
        pytest.skip(str(error))
    spec = spec_in(tmp_path, "backbone")
    module = repository.new_module(spec, tmp_path, None)
    known = read_weights(path)
    assert torch.equal(backbone(module).state_dict()["conv_stem.weight"], known["_conv_stem.weight"])
    assert torch.equal(backbone(module).state_dict()["bn2.running_var"], known["_bn1.running_var"])
    assert not any(parameter.requires_grad for parameter in backbone(module).parameters())
    repository.write(tmp_path, module, None, {})
    monkeypatch.setenv("STREAMER_SENSES__BACKBONE", str(tmp_path / "gone.pth"))
    served = repository.read(tmp_path).module
    assert torch.equal(backbone(served).state_dict()["conv_stem.weight"], known["_conv_stem.weight"])


@pytest.mark.parametrize(
    ("wanted", "says"), [("gone.pth", "is no file or folder"), ("transformers:resnet18", "is not one file")]
)
def test_a_sense_that_is_no_file_of_weights_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, says: str
) -> None:
    monkeypatch.setenv("STREAMER_SENSES__BACKBONE", wanted)
    with pytest.raises(ModelError, match=says) as refused:
        repository.new_module(spec_in(tmp_path, "backbone"), tmp_path, None)
    assert "architecture.image.pretrained = 'backbone'" in str(refused.value)
    assert "\n" not in str(refused.value)
