"""Linear layers with weights of 8 bits: a quarter of their size, and integer products, on the CPU.

Dynamic quantisation (Jacob et al. 2018; torch.ao.nn.quantized.dynamic): weights have a scale for each output channel,
activations one scale computed from each batch. So a window's answer depends slightly on the other windows of its batch.
All other layers stay as they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.ao.nn.quantized import dynamic as quantized

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.forms import archive
from streamer.model.repository import Model
from streamer.model.spec import SPEC_FILE, ModelSpec

FORM, FILE = "int8", "model.int8.safetensors"
LARGEST = 127  # of a weight in 8 bits; -128 is not used, so that the range is symmetric about 0
SCALE = "weight_scale"
SEAL_ENTRY = "streamer"


def write(folder: Path, model: Model) -> Path:
    """Quantise the weights and write them: int8 [out, in] with ``weight_scale`` float32 [out], the rest unchanged."""
    tensors = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    for name in _linear(model.module):
        weight_OI = tensors[f"{name}.weight"].float()
        scale_O = (weight_OI.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        tensors[f"{name}.weight"] = (weight_OI / scale_O[:, None]).round().to(torch.int8)
        tensors[f"{name}.{SCALE}"] = scale_O
    metadata = {SEAL_ENTRY: archive.seal_of(folder, model.spec).to_json()}
    path = folder / FILE
    repository.replace(path, lambda beside: save_file(tensors, beside, metadata=metadata))
    return path


def read(folder: Path, spec: ModelSpec, device: torch.device) -> tuple[nn.Module, str]:
    """Load the archive.

    Returns:
        The model and the hash of the weights that it was made from.

    Raises:
        ModelError: The archive is missing, truncated, stale or not ours, or the device is not a CPU.
    """
    if device.type != "cpu":
        raise ModelError(f"form int8 runs on the CPU, not on {device}; set STREAMER_DEVICE=cpu")
    path = archive.existing(folder / FILE, FORM)
    try:
        with safe_open(path, framework="pt") as file:
            content = (file.metadata() or {}).get(SEAL_ENTRY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {archive.line(error)}") from error
    seal = archive.check_seal(path, content, spec, FORM)
    tokenizer = repository.read_tokenizer(folder) if spec.inputs.of_kind("text") else None
    module = repository.new_module(spec, folder, tokenizer, pretrained=False)
    try:
        scales = {name: tensors.pop(f"{name}.{SCALE}") for name in _linear(module)}
        whole = {name: tensors[f"{name}.weight"] for name in scales}
        module.load_state_dict({**tensors, **{f"{name}.weight": weight.float() for name, weight in whole.items()}})
        for name, scale_O in scales.items():
            bias_O = tensors.get(f"{name}.bias")
            module.set_submodule(name, _layer(whole[name], scale_O, bias_O))
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{path} does not fit {SPEC_FILE}: {archive.line(error)}") from error
    return module, seal.weights


def _linear(module: nn.Module) -> list[str]:
    """Names of the layers to quantise; not subclasses, which may use their weights differently."""
    return [name for name, layer in module.named_modules() if type(layer) is nn.Linear]


def _layer(weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> nn.Module:
    """A linear layer that multiplies in 8 bits."""
    outputs, inputs = weight_OI.shape
    layer = quantized.Linear(inputs, outputs, bias_=bias_O is not None)  # type: ignore[no-untyped-call]
    zero_O = torch.zeros(outputs, dtype=torch.int64)
    layer.set_weight_bias(torch._make_per_channel_quantized_tensor(weight_OI, scale_O, zero_O, 0), bias_O)
    return layer
